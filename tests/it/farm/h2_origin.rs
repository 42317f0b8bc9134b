//! An origin that speaks only HTTP/2 without TLS (prior knowledge).
//!
//! | path        | answers                                                                       |
//! |-------------|-------------------------------------------------------------------------------|
//! | `/sized/N`  | N bytes of the pattern, with their length                                     |
//! | `/echo`     | the body it got, piece by piece, then the trailers it got                     |
//! | `/early`    | 103 with a `Link`, then 200                                                   |
//! | `/refuse`   | REFUSED_STREAM to the first request, 200 to the next                          |
//! | `/reset`    | a reset, INTERNAL_ERROR, without an answer                                    |
//! | `/goodbye`  | GOAWAY that leaves this request out, on the first connection; 200 on another  |
//! | `/half`     | the half of what it says its body is, then a reset                            |
//! | `/empty/N`  | status N; the end of the stream comes in a frame of its own                   |
//! | `/ticks/N`  | 200, `tick` N times, one each 50 ms; reads nothing of the body                |
//! | `/hold`     | nothing, and reads nothing of the body                                        |
//! | `/drops/N`  | 200, a body of N bytes in frames of five                                      |
//! | others      | method, path and fields of the request, line by line                          |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};

use super::origin::pattern;

pub struct H2Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    refused: AtomicUsize,
    resets: AtomicUsize,
}

impl H2Origin {
    /// `streams`: how many it allows on one connection.
    pub fn start(streams: u32) -> H2Origin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
        listener.set_nonblocking(true).expect("a listener for the runtime");
        let address = listener.local_addr().expect("the origin's address");
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((tcp, _)) = listener.accept().await {
                    for_thread.connections.fetch_add(1, Ordering::SeqCst);
                    for_thread.open.fetch_add(1, Ordering::SeqCst);
                    let shared = Arc::clone(&for_thread);
                    tokio::spawn(async move {
                        let _ = connection(tcp, Arc::clone(&shared), streams).await;
                        shared.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        });
        H2Origin { address, shared }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Streams of `/empty` that were reset before their end.
    pub fn resets(&self) -> usize {
        self.shared.resets.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

async fn connection(tcp: tokio::net::TcpStream, shared: Arc<Shared>, streams: u32) -> Result<(), h2::Error> {
    let number = shared.connections.load(Ordering::SeqCst);
    let mut builder = h2::server::Builder::new();
    // What it holds may come in frames as small as they like.
    builder.max_concurrent_streams(streams).data_frame_budget(usize::MAX);
    let mut connection = builder.handshake::<_, Bytes>(tcp).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        shared.requests.fetch_add(1, Ordering::SeqCst);
        if request.uri().path() == "/goodbye" && number == 1 {
            // Not by the crate: its last stream would be this one.
            drop((request, respond));
            connection.abrupt_shutdown(Reason::NO_ERROR);
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { drop(serve(request, respond, &shared).await) });
    }
    Ok(())
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path();
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let ok = || Response::builder().header("x-origin", "h2");
    match first {
        "sized" => {
            let size: usize = rest.parse().unwrap_or(0);
            let head = ok().header("content-length", size).body(()).expect("a head");
            if parts.method == "HEAD" {
                return respond.send_response(head, true).map(drop);
            }
            let mut stream = respond.send_response(head, size == 0)?;
            let mut at = 0;
            while at < size {
                let piece = pattern(at as u64);
                let piece = &piece[..piece.len().min(size - at).min(30_000)];
                at += piece.len();
                stream.send_data(Bytes::copy_from_slice(piece), at == size)?;
            }
            Ok(())
        }
        "echo" => {
            let mut stream = respond.send_response(ok().body(()).expect("a head"), false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                stream.send_data(data, false)?;
            }
            match body.trailers().await? {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            }
        }
        "drops" => {
            let size: usize = rest.parse().unwrap_or(0);
            let mut stream = respond.send_response(ok().body(()).expect("a head"), false)?;
            for at in (0..size).step_by(5) {
                stream.send_data(Bytes::copy_from_slice(&b"drops"[..5.min(size - at)]), false)?;
            }
            stream.send_data(Bytes::new(), true)
        }
        "early" => {
            let early = Response::builder().status(103).header("link", "</style.css>; rel=preload");
            respond.send_informational(early.body(()).expect("a head"))?;
            let mut stream = respond.send_response(ok().body(()).expect("a head"), false)?;
            stream.send_data(Bytes::from_static(b"late"), true)
        }
        "refuse" if shared.refused.fetch_add(1, Ordering::SeqCst) == 0 => {
            respond.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
        "reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "half" => {
            let head = ok().header("content-length", 2000).body(()).expect("a head");
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(Bytes::from(vec![b'x'; 1000]), false)?;
            // What is sent has to go out before the reset.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "empty" => {
            let head = ok().status(rest.parse::<u16>().unwrap_or(204)).body(()).expect("a head");
            let mut stream = respond.send_response(head, false)?;
            let later = tokio::time::sleep(std::time::Duration::from_millis(20));
            tokio::select! {
                _ = std::future::poll_fn(|cx| stream.poll_reset(cx)) => {
                    shared.resets.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
                () = later => stream.send_data(Bytes::new(), true),
            }
        }
        "ticks" => {
            let mut stream = respond.send_response(ok().body(()).expect("a head"), false)?;
            for _ in 0..rest.parse().unwrap_or(0) {
                stream.send_data(Bytes::from_static(b"tick"), false)?;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            stream.send_data(Bytes::new(), true)
        }
        "hold" => std::future::poll_fn(|cx| respond.poll_reset(cx)).await.map(drop),
        _ => {
            let mut said = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                said.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            }
            let mut stream = respond.send_response(ok().body(()).expect("a head"), false)?;
            stream.send_data(Bytes::from(said), true)
        }
    }
}
