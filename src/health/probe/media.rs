//! RTSP: one question (RFC 2326 §10.1, §10.2).

use std::ops::RangeInclusive;

use super::judge;
use super::talk::{Talk, shortened};
use crate::model::check::RtspMethod;

pub async fn rtsp(
    talk: &mut Talk<'_>,
    method: RtspMethod,
    path: &str,
    named: &str,
    expected: &[RangeInclusive<u16>],
) -> Result<String, String> {
    let accept = if method == RtspMethod::Describe { "Accept: application/sdp\r\n" } else { "" };
    let word = method.word();
    let request = format!("{word} rtsp://{named}{path} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: reeve-check\r\n{accept}\r\n");
    talk.say(request.as_bytes()).await?;
    let first = talk.line("waiting for the answer").await?;
    // RFC 2326 §7.1: the version, three digits, a phrase.
    let status = first.strip_prefix("RTSP/").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let Some(status) = status else { return Err(format!("not an RTSP answer: {}", shortened(first.as_bytes()))) };
    loop {
        let line = talk.line("reading the answer").await?;
        // RFC 2326 §12.17: an answer to another question says nothing.
        if let Some((name, number)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case("cseq")
            && number.trim() != "1"
        {
            return Err(format!("an answer to another request: {}", shortened(line.as_bytes())));
        }
        if line.is_empty() {
            break;
        }
    }
    judge(status, expected)?;
    Ok(format!("status {status}"))
}
