//! DNS: a question, and an answer without error (RFC 1035 §4.1, §4.2).

use std::net::SocketAddr;

use super::talk::{Talk, Transcript};
use super::{Clock, Failed, datagram};
use crate::model::check::DnsKind;

/// UDP answers are no longer without EDNS (RFC 1035 §4.2.1); some servers send more all the same.
const ANSWER: usize = 4096;

pub async fn by_udp(
    address: SocketAddr,
    name: &str,
    kind: DnsKind,
    clock: &Clock,
    said: &mut Transcript,
) -> Result<String, Failed> {
    let id = datagram::dice() as u16;
    let query = query(id, name, kind);
    let socket = datagram::connect(address)?;
    datagram::send(&socket, &query, said).await?;
    let mut answer = vec![0; ANSWER];
    loop {
        let count = datagram::receive(&socket, &mut answer, clock, said).await?;
        // Whoever does not know the question's number is somebody else.
        if let Some(verdict) = judge(&answer[..count], id, &query) {
            return Ok(verdict?);
        }
    }
}

pub async fn by_tcp(talk: &mut Talk<'_>, name: &str, kind: DnsKind) -> Result<String, String> {
    let id = datagram::dice() as u16;
    let query = query(id, name, kind);
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&query);
    talk.say(&framed).await?;
    loop {
        if let Some((length, rest)) = talk.unread.split_first_chunk::<2>()
            && let Some(answer) = rest.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return judge(answer, id, &query).unwrap_or_else(|| Err("an answer to another question".to_owned()));
        }
        if !talk.more("waiting for the answer").await? {
            return Err("closed without an answer".to_owned());
        }
    }
}

/// A standard query that asks for recursion.
fn query(id: u16, name: &str, kind: DnsKind) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&(kind as u16).to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

/// `None`: it is no answer to this question.
fn judge(answer: &[u8], id: u16, query: &[u8]) -> Option<Result<String, String>> {
    let head: &[u8; 12] = answer.first_chunk()?;
    if head[..2] != id.to_be_bytes() || head[2] & 0x80 == 0 {
        return None;
    }
    let error = head[3] & 0x0f;
    // A server that cannot read the question need not repeat it.
    let asked = &query[12..];
    let repeated = answer.get(12..12 + asked.len()).is_some_and(|found| found.eq_ignore_ascii_case(asked));
    if error == 0 && !repeated {
        return None;
    }
    let answers = u16::from_be_bytes([head[6], head[7]]);
    Some(match error {
        0 if head[2] & 0x02 != 0 => Ok("answered, cut short to fit".to_owned()),
        0 if answers == 1 => Ok("1 answer".to_owned()),
        0 => Ok(format!("{answers} answers")),
        // RFC 1035 §4.1.1, RFC 6895 §2.3.
        1 => Err("FORMERR: the question was not understood".to_owned()),
        2 => Err("SERVFAIL".to_owned()),
        3 => Err("NXDOMAIN: there is no such name".to_owned()),
        4 => Err("NOTIMP: the server does not answer such questions".to_owned()),
        5 => Err("REFUSED".to_owned()),
        code => Err(format!("error {code}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_number_question_and_error() {
        let query = query(7, "a.example", DnsKind::A);
        assert_eq!(query[12..], *b"\x01a\x07example\x00\x00\x01\x00\x01");
        let answer = |id: u8, flags: [u8; 2], count: u8| {
            let mut answer = query.clone();
            (answer[1], answer[2], answer[3], answer[7]) = (id, flags[0], flags[1], count);
            answer
        };
        let told = |answer: Vec<u8>| judge(&answer, 7, &query);
        assert_eq!(told(answer(7, [0x81, 0x80], 2)), Some(Ok("2 answers".to_owned())));
        assert_eq!(told(answer(7, [0x83, 0x80], 0)), Some(Ok("answered, cut short to fit".to_owned())));
        assert!(
            told(answer(7, [0x81, 0x83], 0))
                .is_some_and(|verdict| verdict.is_err_and(|why| why.starts_with("NXDOMAIN")))
        );
        assert_eq!(told(answer(7, [0x81, 0x85], 0)), Some(Err("REFUSED".to_owned())));
        assert_eq!(told(answer(8, [0x81, 0x80], 1)), None, "another number");
        assert_eq!(told(query.clone()), None, "a question");
        assert_eq!(told(answer(7, [0x81, 0x80], 1)[..20].to_vec()), None, "another question");
        assert_eq!(told(vec![0, 7]), None);
    }
}
