//! What a worker tells about one of its client connections.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest method and path that are told, in bytes.
pub const REQUEST_SHOWN: usize = 80;

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// Reading a request.
    Reading,
    /// Waiting for a server that is not full.
    Queued,
    /// Waiting for a server's answer.
    Waiting,
    /// Sending an answer.
    Sending,
    /// Passing bytes both ways after an upgrade.
    Tunnel,
    /// Nothing: the client may send a request.
    Idle,
}

impl Doing {
    pub fn word(self) -> &'static str {
        match self {
            Doing::Reading => "reading",
            Doing::Queued => "queued",
            Doing::Waiting => "waiting",
            Doing::Sending => "sending",
            Doing::Tunnel => "tunnel",
            Doing::Idle => "idle",
        }
    }
}

/// One client connection, as it was when its worker was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Unique in the process: workers number theirs in disjoint ranges.
    pub id: u64,
    /// The listener's name.
    pub listener: String,
    pub client: SocketAddr,
    /// How long it has been open; in JSON, seconds.
    #[serde(rename = "age_seconds", with = "seconds")]
    pub age: Duration,
    #[serde(rename = "state")]
    pub doing: Doing,
    /// Requests begun on it.
    pub requests: u64,
    /// Of the request in progress.
    pub pool: Option<String>,
    /// Of the request in progress: the server's name in its pool.
    pub server: Option<String>,
    /// Of the request in progress: method and path, see `shown`.
    pub request: Option<String>,
    /// Bytes from the client.
    pub bytes_received: u64,
    /// Bytes to the client.
    pub bytes_sent: u64,
}

/// A method and target as they are told: without the query, which often holds secrets, control
/// characters replaced, and cut to `REQUEST_SHOWN` bytes.
pub fn shown(method: &str, target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut text = String::with_capacity(REQUEST_SHOWN);
    for char in method.chars().chain([' ']).chain(path.chars()) {
        let char = if char.is_control() { '\u{fffd}' } else { char };
        if text.len() + char.len_utf8() > REQUEST_SHOWN - '…'.len_utf8() {
            text.push('…');
            break;
        }
        text.push(char);
    }
    text
}

/// A duration as seconds with three digits.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((duration.as_secs_f64() * 1e3).round() / 1e3)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_requests_are_cut_at_a_character() {
        assert_eq!(shown("GET", "/a?password=1"), "GET /a");
        assert_eq!(shown("GET", "/a\x1b[2J"), "GET /a\u{fffd}[2J");
        let long = shown("GET", &"/ü".repeat(100));
        assert!(long.ends_with('…') && long.len() <= REQUEST_SHOWN, "{long}");
    }

    #[test]
    fn the_json_is_what_the_api_promises() {
        let info = ConnectionInfo {
            id: 7,
            listener: "web".into(),
            client: "127.0.0.1:9".parse().unwrap(),
            age: Duration::from_micros(1_234_567),
            doing: Doing::Waiting,
            requests: 2,
            pool: Some("web".into()),
            server: None,
            request: Some(shown("GET", "/")),
            bytes_received: 1,
            bytes_sent: 2,
        };
        let json = serde_json::to_string(&info).unwrap();
        assert_eq!(
            json,
            r#"{"id":7,"listener":"web","client":"127.0.0.1:9","age_seconds":1.235,"state":"waiting","requests":2,"pool":"web","server":null,"request":"GET /","bytes_received":1,"bytes_sent":2}"#
        );
        let back: ConnectionInfo = serde_json::from_str(&json).unwrap();
        assert_eq!(back, ConnectionInfo { age: Duration::from_millis(1235), ..info });
    }
}
