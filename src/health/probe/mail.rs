//! Mail and FTP: the server speaks first, a few words are exchanged, and one takes one's leave.
//!
//! `later` is what the server has to prove where it is asked for TLS on the way.

use super::Sealed;
use super::talk::{Talk, shortened};
use crate::model::Limits;

/// SMTP (RFC 5321 §3.1, §3.2, §4.1.1.10).
pub async fn smtp(talk: &mut Talk<'_>, helo: &str, later: Option<&Sealed>) -> Result<String, String> {
    wanted(reply(talk, "waiting for the greeting").await?, 220, "greeted with")?;
    let mut said = hello(talk, helo).await?;
    if let Some(sealed) = later {
        talk.say(b"STARTTLS\r\n").await?;
        let answer = reply(talk, "waiting for the answer to STARTTLS").await?;
        wanted(answer, 220, "answered STARTTLS with")?;
        talk.seal(sealed).await?;
        // RFC 3207 §4.2: what was said before counts no more.
        said = hello(talk, helo).await?;
    }
    leave(talk, b"QUIT\r\n").await;
    Ok(said)
}

async fn hello(talk: &mut Talk<'_>, helo: &str) -> Result<String, String> {
    talk.say(format!("EHLO {helo}\r\n").as_bytes()).await?;
    let mut answer = reply(talk, "waiting for the answer to EHLO").await?;
    // RFC 5321 §3.2: an old server does not know EHLO.
    if (500..=504).contains(&answer.0) {
        talk.say(format!("HELO {helo}\r\n").as_bytes()).await?;
        answer = reply(talk, "waiting for the answer to HELO").await?;
    }
    wanted(answer, 250, "answered EHLO with")
}

/// FTP (RFC 959 §4.2, §5.4; RFC 4217 §4).
pub async fn ftp(talk: &mut Talk<'_>, later: Option<&Sealed>) -> Result<String, String> {
    let mut greeting = reply(talk, "waiting for the greeting").await?;
    // "Service ready in nnn minutes": the greeting comes then.
    if greeting.0 == 120 {
        greeting = reply(talk, "waiting for the greeting").await?;
    }
    let said = wanted(greeting, 220, "greeted with")?;
    if let Some(sealed) = later {
        talk.say(b"AUTH TLS\r\n").await?;
        wanted(reply(talk, "waiting for the answer to AUTH TLS").await?, 234, "answered AUTH TLS with")?;
        talk.seal(sealed).await?;
    }
    talk.say(b"NOOP\r\n").await?;
    let (code, text) = reply(talk, "waiting for the answer to NOOP").await?;
    // Before a login many servers know no NOOP, and say so: they are there. 421 is a server that ends.
    if code == 421 {
        return Err(format!("answered NOOP with {code} {text}"));
    }
    leave(talk, b"QUIT\r\n").await;
    Ok(said)
}

/// POP3 (RFC 1939 §3, RFC 2449 §5, RFC 2595 §4).
pub async fn pop3(talk: &mut Talk<'_>, later: Option<&Sealed>) -> Result<String, String> {
    let greeting = talk.line("waiting for the greeting").await?;
    if !greeting.starts_with("+OK") {
        return Err(format!("greeted with {}", shortened(greeting.as_bytes())));
    }
    if let Some(sealed) = later {
        talk.say(b"STLS\r\n").await?;
        let answer = talk.line("waiting for the answer to STLS").await?;
        if !answer.starts_with("+OK") {
            return Err(format!("answered STLS with {}", shortened(answer.as_bytes())));
        }
        talk.seal(sealed).await?;
    }
    talk.say(b"CAPA\r\n").await?;
    let answer = talk.line("waiting for the answer to CAPA").await?;
    if answer.starts_with("+OK") {
        until(talk, "waiting for the answer to CAPA", |line| line == ".").await?;
    } else if !answer.starts_with("-ERR") {
        return Err(format!("answered CAPA with {}", shortened(answer.as_bytes())));
    }
    leave(talk, b"QUIT\r\n").await;
    Ok(shortened(greeting.as_bytes()))
}

/// IMAP (RFC 9051 §7.1, §6.1.1, §6.1.3, §6.2.1).
pub async fn imap(talk: &mut Talk<'_>, later: Option<&Sealed>) -> Result<String, String> {
    let greeting = talk.line("waiting for the greeting").await?;
    if !["* OK", "* PREAUTH"].iter().any(|word| greeting.starts_with(word)) {
        return Err(format!("greeted with {}", shortened(greeting.as_bytes())));
    }
    if let Some(sealed) = later {
        talk.say(b"r0 STARTTLS\r\n").await?;
        let answer = until(talk, "waiting for the answer to STARTTLS", |line| line.starts_with("r0 ")).await?;
        if !answer.starts_with("r0 OK") {
            return Err(format!("answered STARTTLS with {}", shortened(answer.as_bytes())));
        }
        talk.seal(sealed).await?;
    }
    talk.say(b"r1 CAPABILITY\r\n").await?;
    let answer = until(talk, "waiting for the answer to CAPABILITY", |line| line.starts_with("r1 ")).await?;
    if !answer.starts_with("r1 OK") {
        return Err(format!("answered CAPABILITY with {}", shortened(answer.as_bytes())));
    }
    leave(talk, b"r2 LOGOUT\r\n").await;
    Ok(shortened(greeting.as_bytes()))
}

/// The code of a reply, and the text of its last line. SMTP and FTP have the same lines, but that FTP's
/// in between may be of any form (RFC 5321 §4.2.1, RFC 959 §4.2).
async fn reply(talk: &mut Talk<'_>, waiting: &str) -> Result<(u16, String), String> {
    let first = talk.line(waiting).await?;
    let code = first.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let number = code.and_then(|code| code.parse().ok()).filter(|code| (100..600).contains(code));
    let (Some(code), Some(number)) = (code, number) else {
        return Err(format!("not a reply: {}", shortened(first.as_bytes())));
    };
    let last = if first.as_bytes().get(3) == Some(&b'-') {
        let end = |line: &str| line.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        until(talk, waiting, end).await?
    } else {
        first
    };
    Ok((number, last.get(4..).unwrap_or_default().to_owned()))
}

/// The first line that is one.
async fn until(talk: &mut Talk<'_>, waiting: &str, is_last: impl Fn(&str) -> bool) -> Result<String, String> {
    for _ in 0..Limits::CHECK_LINES {
        let line = talk.line(waiting).await?;
        if is_last(&line) {
            return Ok(line);
        }
    }
    Err(format!("more than {} lines {waiting}", Limits::CHECK_LINES))
}

fn wanted((code, text): (u16, String), expected: u16, how: &str) -> Result<String, String> {
    let said = format!("{code} {}", shortened(text.as_bytes()));
    if code == expected { Ok(said) } else { Err(format!("{how} {said}")) }
}

/// Takes leave, so that the server need not write down that somebody hung up. What it answers does not matter any more.
async fn leave(talk: &mut Talk<'_>, word: &[u8]) {
    if talk.say(word).await.is_ok() {
        let _ = talk.line("waiting for the end").await;
    }
}
