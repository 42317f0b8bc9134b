//! An agent: a server says itself how it is, and how much it wants to do, as HAProxy's `agent-check` has it.
//!
//! One line of words: `up`, `ready`, `down`, `failed`, `stopped`, `drain`, `maint`, `75%`; what stands behind `#` is the
//! reason.

use super::talk::{Talk, shortened};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The share of its weight that it wants, in percent; `None`: as before.
    pub share: Option<u32>,
    /// Whether it wants no new requests; `None`: as before.
    pub drain: Option<bool>,
    /// Its own words.
    pub reason: String,
}

/// A server may want more than its weight, but not the whole farm's.
const MOST: u32 = 256;

pub async fn ask(talk: &mut Talk<'_>, send: &[u8], advice: &mut Option<Advice>) -> Result<String, String> {
    if !send.is_empty() {
        talk.say(send).await?;
    }
    // The line may be ended by the end of the connection.
    while !talk.unread.contains(&b'\n') && talk.more("waiting for the agent").await? {}
    let line = String::from_utf8_lossy(&talk.unread).lines().next().unwrap_or_default().trim().to_owned();
    if line.is_empty() {
        return Err("closed, and nothing said".to_owned());
    }
    let (found, up) = read(&line)?;
    *advice = Some(found);
    match up {
        true => Ok(format!("agent: {}", shortened(line.as_bytes()))),
        false => Err(format!("agent: {}", shortened(line.as_bytes()))),
    }
}

/// What a line says, and whether the server counts as up by it.
fn read(line: &str) -> Result<(Advice, bool), String> {
    let (words, reason) = line.split_once('#').unwrap_or((line, ""));
    let mut advice = Advice { share: None, drain: None, reason: shortened(reason.trim().as_bytes()) };
    let (mut up, mut known) = (true, false);
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        known = true;
        match word {
            "up" => up = true,
            "ready" => advice.drain = Some(false),
            "drain" => advice.drain = Some(true),
            "down" | "failed" | "stopped" | "maint" => up = false,
            _ => match (word.strip_suffix('%').map(str::parse::<u32>), word.starts_with("maxconn:")) {
                (Some(Ok(share)), _) => advice.share = Some(share.min(MOST)),
                // Limits are set where the requests are counted.
                (None, true) => {}
                _ => return Err(format!("agent: \"{}\" is not understood", shortened(word.as_bytes()))),
            },
        }
    }
    if known { Ok((advice, up)) } else { Err("agent: nothing said".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_agent() {
        let advice = |share, drain, reason: &str| Advice { share, drain, reason: reason.to_owned() };
        let cases = [
            ("up 75%", advice(Some(75), None, ""), true),
            ("50%", advice(Some(50), None, ""), true),
            ("ready,up 100% maxconn:30", advice(Some(100), Some(false), ""), true),
            ("drain", advice(None, Some(true), ""), true),
            ("maint", advice(None, None, ""), false),
            ("down #disk full", advice(None, None, "disk full"), false),
            ("9999%", advice(Some(MOST), None, ""), true),
        ];
        for (line, wanted, up) in cases {
            assert_eq!(read(line), Ok((wanted, up)), "{line}");
        }
        for odd in ["hello", "-3%", "%", "#", "up 12x%"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }
}
