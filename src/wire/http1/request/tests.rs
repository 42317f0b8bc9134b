use super::*;

fn refusal(text: &[u8]) -> Option<Refusal> {
    parse(text, &Limits::default()).err()
}

fn with<T>(text: &str, look: impl Fn(&RequestHead<'_>) -> T) -> T {
    match parse(text.as_bytes(), &Limits::default()) {
        Ok(Some(head)) => look(&head),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn targets() {
    let host = |text: &str| with(text, |head| head.authority.map(|authority| authority.text.to_owned()));
    assert_eq!(host("GET / HTTP/1.1\r\nHost: t.example\r\n\r\n").as_deref(), Some("t.example"));
    assert_eq!(host("GET http://a.example:81/x HTTP/1.1\r\nHost: t.example\r\n\r\n").as_deref(), Some("a.example:81"));
    assert_eq!(host("GET / HTTP/1.0\r\n\r\n"), None);
    with("GET http://a.example?q HTTP/1.1\r\nHost: b\r\n\r\n", |head| {
        assert_eq!(head.target, Target::Path { path: "/", query: Some("q") })
    });
    with("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", |head| assert_eq!(head.target, Target::Asterisk));
    with("GET /a?b?c HTTP/1.1\r\nHost: b\r\n\r\n", |head| {
        assert_eq!(head.target, Target::Path { path: "/a", query: Some("b?c") })
    });
}

#[test]
fn refused_with_the_right_status() {
    for (text, status) in [
        ("GET /\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / Http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 1\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 200-ok\r\n\r\n", 417),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", 400),
    ] {
        assert_eq!(refusal(text.as_bytes()).map(Refusal::status), Some(status), "{text:?}");
    }
}

#[test]
fn limits() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(256));
    assert_eq!(refusal(many.as_bytes()), Some(Refusal::TooManyFields));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(70_000));
    assert_eq!(refusal(large.as_bytes()), Some(Refusal::TooLarge));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(17_000));
    assert_eq!(refusal(long.as_bytes()), Some(Refusal::TargetTooLong));
}

#[test]
fn connections() {
    let keep = |text: &str| with(text, |head| head.keep_alive);
    assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"));
    with("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, te, keep-alive\r\nTE: trailers\r\n\r\n", |head| {
        assert_eq!(head.nominated.as_slice(), [&b"X-Hop"[..]]);
        assert!(head.takes_trailers);
    });
}

#[test]
fn websocket_handshakes() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert!(with(text, |head| head.websocket));
    assert!(!with(&text.replace("websocket\r", "h2c\r"), |head| head.websocket));
    assert!(!with(&text.replace(": 13", ": 12"), |head| head.websocket));
    assert!(!with(&text.replace("GET", "POST"), |head| head.websocket));
    assert!(!with(&text.replace("HTTP/1.1", "HTTP/1.0"), |head| head.websocket));
}

#[test]
fn partial_heads() {
    let text = b"GET / HTTP/1.1\r\nHost: t.example\r\nX: y\r\n\r\n";
    for end in 0..text.len() {
        assert!(matches!(parse(&text[..end], &Limits::default()), Ok(None)), "{end}");
        assert!(!ends_head(&text[..end], 0), "{end}");
    }
    assert!(ends_head(text, text.len() - 1));
    assert!(ends_head(b"GET / HTTP/1.1\r\n\n", 0));
}
