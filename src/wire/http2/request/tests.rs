use http::Request;

use super::*;

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn refusal(parts: &Parts, ends: bool, protocol: Option<&str>) -> Option<Refusal> {
    let around = Around { ends, protocol, key: "dGhlIHNhbXBsZSBub25jZQ==" };
    let mut crumbs = Crumbs::new();
    let mut head = RequestHead::empty();
    read(&mut head, parts, around, &mut crumbs, &Limits::default()).err()
}

#[test]
fn crumbs_become_one_cookie_and_framing_follows_the_frames() {
    let fields = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")];
    let parts = parts("POST", "http://t.example/p?q", &fields);
    let mut crumbs = Crumbs::new();
    let around = Around { ends: false, protocol: None, key: "" };
    let mut head = RequestHead::empty();
    read(&mut head, &parts, around, &mut crumbs, &Limits::default()).unwrap();
    let lines: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
    assert!(lines.contains(&("cookie", b"a=1; b=2")) && lines.len() == 3, "{lines:?}");
    assert_eq!((head.body, head.takes_trailers), (Framing::Chunked, true));
    assert_eq!(head.target, Target::Path { path: "/p", query: Some("q") });
    assert_eq!(head.authority.map(|authority| authority.text), Some("t.example"));
}

#[test]
fn what_http2_does_not_have_is_refused() {
    let url = "http://t.example/";
    let refused = |fields: &[(&str, &str)], why| {
        assert_eq!(refusal(&parts("GET", url, fields), true, None), Some(why), "{fields:?}");
    };
    refused(&[("connection", "close")], Refusal::ConnectionField);
    refused(&[("transfer-encoding", "chunked")], Refusal::ConnectionField);
    refused(&[("upgrade", "h2c")], Refusal::ConnectionField);
    refused(&[("keep-alive", "1")], Refusal::ConnectionField);
    refused(&[("proxy-connection", "x")], Refusal::ConnectionField);
    refused(&[("te", "gzip")], Refusal::ConnectionField);
    refused(&[("x", " y")], Refusal::Value);
    refused(&[("x", "y\t")], Refusal::Value);
    refused(&[("host", "u.example")], Refusal::Authority);
    refused(&[("content-length", "3")], Refusal::ContentLength);
    refused(&[("content-length", "+3")], Refusal::ContentLength);
    assert_eq!(refusal(&parts("GET", url, &[("host", "T.example")]), true, None), None);
    assert_eq!(refusal(&parts("GET", "/", &[]), true, None), Some(Refusal::MissingHost));
    assert_eq!(refusal(&parts("GET", "http://u@t.example/", &[]), true, None), Some(Refusal::Host));
    assert_eq!(refusal(&parts("GET", "*", &[("host", "a")]), true, None), Some(Refusal::Target));
    assert_eq!(refusal(&parts("OPTIONS", "*", &[("host", "a")]), true, None), None);
    assert_eq!(refusal(&parts("TRACE", url, &[]), true, None), Some(Refusal::Trace));
    assert_eq!(refusal(&parts("CONNECT", "t.example:80", &[]), false, None), Some(Refusal::Connect));
}

#[test]
fn limits_count_crumbs_as_bytes_and_as_one_field() {
    let crumb = format!("c={}", "x".repeat(50));
    let many = |count: usize| {
        let fields: Vec<_> = (0..count).map(|_| ("cookie", crumb.as_str())).collect();
        refusal(&parts("GET", "http://t.example/", &fields), true, None)
    };
    assert_eq!(many(1000), None);
    assert_eq!(many(1100), Some(Refusal::TooLarge));
    let fields: Vec<_> = (0..257).map(|n| (format!("x-{n}"), "y")).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(refusal(&parts("GET", "http://t.example/", &fields), true, None), Some(Refusal::TooManyFields));
    let long = format!("http://t.example/{}", "x".repeat(16 << 10));
    assert_eq!(refusal(&parts("GET", &long, &[]), true, None), Some(Refusal::TargetTooLong));
}

#[test]
fn a_websocket_becomes_a_handshake() {
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "x")];
    let parts = parts("CONNECT", "http://t.example/ws", &fields);
    let mut crumbs = Crumbs::new();
    let around = Around { ends: false, protocol: Some("websocket"), key: "dGhlIHNhbXBsZSBub25jZQ==" };
    let mut head = RequestHead::empty();
    read(&mut head, &parts, around, &mut crumbs, &Limits::default()).unwrap();
    assert!(head.method == "GET" && head.websocket && head.body == Framing::None);
    let keys: Vec<_> = head.lines().filter(|(_, known)| *known == Known::WebSocketKey).collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].0.value, around.key.as_bytes());
    assert_eq!(refusal(&parts_of_version("8"), false, Some("websocket")), Some(Refusal::Connect));
    assert_eq!(refusal(&parts_of_version("13"), false, Some("connect-udp")), Some(Refusal::Connect));
}

fn parts_of_version(version: &str) -> Parts {
    parts("CONNECT", "http://t.example/ws", &[("sec-websocket-version", version)])
}
