//! HTTP/2: a request of a web check, and the question of `grpc.health.v1`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, Response};

use super::{Clock, judge, web};
use crate::model::Limits;
use crate::model::check::Http;
use crate::net::Stream;

pub async fn ask(stream: Option<Stream>, http: &Http, named: &str, clock: &Clock) -> Result<String, String> {
    let host = http.host.as_deref().unwrap_or(named);
    let request = Request::builder().method(&*http.method).uri(format!("http://{host}{}", http.path));
    let request = request.header(USER_AGENT, "reeve-check").body(()).map_err(cannot)?;
    // Where the head says it all, the body is not waited for.
    let answer = exchange(stream, request, None, http.reads_body(), clock).await?;
    let status = answer.head.status().as_u16();
    judge(status, &http.expect_status)?;
    if http.reads_body() {
        web::examine(http, &answer.body, answer.whole)?;
    }
    Ok(format!("status {status}"))
}

/// `grpc.health.v1.Health/Check` (the protocol of gRPC's own health service).
pub async fn health(stream: Option<Stream>, service: &Arc<str>, named: &str, clock: &Clock) -> Result<String, String> {
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{named}/grpc.health.v1.Health/Check"))
        .header(USER_AGENT, "reeve-check")
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers");
    let answer = exchange(stream, request.body(()).map_err(cannot)?, Some(question(service)), true, clock).await?;
    judge(answer.head.status().as_u16(), &[200..=200])?;
    let field = |name: &str| {
        let fields = answer.trailers.as_ref().filter(|fields| fields.contains_key(name));
        fields.unwrap_or(answer.head.headers()).get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some("12") => return Err("gRPC: the server has no grpc.health.v1".to_owned()),
        Some("5") => return Err(format!("gRPC: the server does not know the service \"{service}\"")),
        Some(code) => {
            let message = field("grpc-message").unwrap_or_default();
            return Err(format!("gRPC: status {code} {message}").trim_end().to_owned());
        }
        None => return Err("gRPC: an answer without a status".to_owned()),
    }
    match serving(&answer.body) {
        Some(1) => Ok("serving".to_owned()),
        Some(2) => Err("gRPC: NOT_SERVING".to_owned()),
        Some(3) => Err(format!("gRPC: the server does not know the service \"{service}\"")),
        Some(_) => Err("gRPC: UNKNOWN".to_owned()),
        None => Err("gRPC: an answer that is not understood".to_owned()),
    }
}

/// `HealthCheckRequest { service = 1 }`, framed as one message that is not compressed.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The status in a framed `HealthCheckResponse { status = 1 }`; 0 where it is left out.
fn serving(body: &[u8]) -> Option<u64> {
    let (frame, message) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
    let mut message = message.get(..length).filter(|_| frame[0] == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = read_varint(&mut message)?,
            // What later versions may add.
            (_, 0) => drop(read_varint(&mut message)?),
            (_, 2) => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

struct Answer {
    head: Response<()>,
    body: Vec<u8>,
    /// The body is all of it.
    whole: bool,
    trailers: Option<HeaderMap>,
}

async fn exchange(
    stream: Option<Stream>,
    request: Request<()>,
    body: Option<Bytes>,
    reads: bool,
    clock: &Clock,
) -> Result<Answer, String> {
    let Some(stream) = stream else { return Err("closed".to_owned()) };
    let (sender, connection) =
        clock.within("connecting", async { h2::client::handshake(stream).await.map_err(no_answer) }).await?;
    let answer = async {
        let mut sender = sender.ready().await.map_err(no_answer)?;
        let (answer, mut sending) = sender.send_request(request, body.is_none()).map_err(no_answer)?;
        if let Some(body) = body {
            sending.send_data(body, true).map_err(no_answer)?;
        }
        let (head, mut incoming) = answer.await.map_err(no_answer)?.into_parts();
        let mut answer = Answer { head: Response::from_parts(head, ()), body: Vec::new(), whole: true, trailers: None };
        if !reads {
            return Ok(answer);
        }
        while let Some(piece) = incoming.data().await {
            let piece = piece.map_err(no_answer)?;
            // What was read is bounded by what is kept: the window is not opened any further.
            let room = Limits::CHECK_HEARD.saturating_sub(answer.body.len());
            answer.body.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                answer.whole = false;
                return Ok(answer);
            }
            let _ = incoming.flow_control().release_capacity(piece.len());
        }
        answer.trailers = incoming.trailers().await.map_err(no_answer)?;
        Ok(answer)
    };
    let answer = clock.within("waiting for the answer", answer);
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        told = &mut answer => told,
        // The connection is over; what it read before is still to be judged.
        _ = &mut connection => answer.await,
    }
}

fn no_answer(error: h2::Error) -> String {
    format!("no answer: {error}")
}

fn cannot(error: http::Error) -> String {
    format!("the check cannot be sent: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_health_service() {
        assert_eq!(&question("")[..], &[0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], &[0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 2]), Some(2));
        for broken in [
            &[][..],
            &[0, 0, 0, 0, 3, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 8, 0x80],
            &[0, 0, 0, 0, 2, 0x12, 9],
        ] {
            assert_eq!(serving(broken), None, "{broken:?}");
        }
    }
}
