use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The keys in the order in which every line has them.
const KEYS: [&str; 26] = [
    "time",
    "id",
    "listener",
    "client",
    "proto",
    "tls",
    "sni",
    "method",
    "host",
    "path",
    "query",
    "status",
    "rule",
    "pool",
    "server",
    "tries",
    "bytes_in",
    "bytes_out",
    "t_queue",
    "t_connect",
    "t_header",
    "t_total",
    "affinity",
    "failure",
    "side",
    "match",
];

fn entry() -> Entry<'static> {
    Entry {
        unix_ms: 1_795_168_847_012,
        id: 0xab,
        listener: "web",
        client: "203.0.113.7:50312".parse().unwrap(),
        proto: "HTTP/1.1",
        tls: None,
        sni: None,
        method: b"GET",
        host: Some(b"shop.example"),
        path: b"/img/a.png",
        query: Some(b"w=200"),
        status: 200,
        rule: Some("shop.rules:images"),
        pool: Some("images"),
        server: Some("img1"),
        tries: 1,
        bytes_in: 0,
        bytes_out: 5120,
        t_queue: Duration::ZERO,
        t_connect: Duration::from_micros(84),
        t_header: Duration::from_nanos(1_234_999),
        t_total: Duration::new(61, 1_500_000),
        affinity: None,
        failure: None,
        side: None,
        matched: None,
        referer: None,
        user_agent: Some(b"curl/8.5.0"),
    }
}

fn json_line(entry: &Entry) -> String {
    let mut out = Vec::new();
    write_json(entry, &mut ClockText::default(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_rules_read_is_the_last_of_a_line() {
    let matched = Some(&br#"{"header:x-beta":["1"]}"#[..]);
    let line = json_line(&Entry { matched, failure: Some("connect"), ..entry() });
    assert!(line.ends_with("\"side\":null,\"match\":{\"header:x-beta\":[\"1\"]}}\n"), "{line}");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["match"]["header:x-beta"][0], "1");
}

fn text_line(entry: &Entry) -> String {
    let mut out = Vec::new();
    write_text(entry, &mut ClockText::default(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_json_line() {
    assert_eq!(
        json_line(&entry()),
        concat!(
            r#"{"time":"2026-11-20T10:00:47.012Z","id":"00000000000000ab","listener":"web","#,
            r#""client":"203.0.113.7:50312","proto":"HTTP/1.1","tls":null,"sni":null,"method":"GET","#,
            r#""host":"shop.example","path":"/img/a.png","query":"w=200","status":200,"#,
            r#""rule":"shop.rules:images","pool":"images","server":"img1","tries":1,"bytes_in":0,"#,
            r#""bytes_out":5120,"t_queue":0.000000,"t_connect":0.000084,"t_header":0.001234,"#,
            r#""t_total":61.001500,"affinity":null,"failure":null,"side":null,"match":null}"#,
            "\n"
        )
    );
}

#[test]
fn a_text_line() {
    assert_eq!(
        text_line(&entry()),
        "203.0.113.7 - - [20/Nov/2026:10:00:47 +0000] \"GET /img/a.png?w=200 HTTP/1.1\" 200 5120 \"-\" \
         \"curl/8.5.0\" rule=shop.rules:images pool=images server=img1 t=61.001500\n"
    );
}

#[test]
fn what_is_absent_says_so() {
    let bare = Entry {
        host: None,
        query: None,
        status: 0,
        rule: None,
        pool: None,
        server: None,
        tries: 0,
        user_agent: None,
        failure: Some("client-gone"),
        side: Some("downstream"),
        ..entry()
    };
    let value: Value = serde_json::from_str(&json_line(&bare)).unwrap();
    for key in ["host", "query", "status", "rule", "pool", "server"] {
        assert_eq!(value[key], Value::Null, "{key}");
    }
    assert_eq!(value["failure"], json!("client-gone"));
    assert!(text_line(&bare).ends_with("HTTP/1.1\" - 5120 \"-\" \"-\" rule=- pool=- server=- t=61.001500\n"));
}

#[test]
fn addresses_as_people_write_them() {
    for (given, written) in [
        ("[::ffff:192.0.2.9]:80", "192.0.2.9:80"),
        ("[::]:1", "[::]:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("[2001:db8::1:0:0:1]:443", "[2001:db8::1:0:0:1]:443"),
        ("[2001:db8:0:1:1:1:1:1]:0", "[2001:db8:0:1:1:1:1:1]:0"),
        ("[fe80::]:9", "[fe80::]:9"),
    ] {
        let mut out = Vec::new();
        socket_address(given.parse().unwrap(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }
}

/// Every byte, with the ones that do harm oftener than chance has them.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\\n\r\t\0 {}\x1b\x7f\xc2\x9b\xe2\x80\xa8".to_vec())];
    proptest::collection::vec(byte, 0..40)
}

/// What a JSON reader must find for bytes that were sent: invalid UTF-8 is read as Latin-1.
fn read_back(sent: &[u8]) -> String {
    let mut text = String::new();
    for chunk in sent.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| char::from(byte)));
    }
    text
}

proptest! {
    #[test]
    fn no_client_can_break_a_json_line(
        method in nasty(), host in nasty(), path in nasty(), query in nasty(), sni in nasty(), name in any::<String>(),
    ) {
        let hostile = Entry {
            method: &method, host: Some(&host), path: &path, query: Some(&query), sni: Some(&sni),
            rule: Some(&name), pool: Some(&name), server: Some(&name), listener: &name, ..entry()
        };
        let line = json_line(&hostile);
        prop_assert_eq!(line.bytes().filter(|&b| b == b'\n').count(), 1);
        prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
        let value: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value.len(), KEYS.len());
        for (key, sent) in [("method", &method), ("host", &host), ("path", &path), ("query", &query), ("sni", &sni)] {
            prop_assert_eq!(&value[key], &json!(read_back(sent)));
        }
        prop_assert_eq!(&value["rule"], &json!(name));
        // The order of the keys, which the map above has lost.
        let mut from = 0;
        for key in KEYS {
            from += line[from..].find(&format!("\"{key}\":")).expect(key) + key.len();
        }
    }

    #[test]
    fn no_client_can_break_a_text_line(
        method in nasty(), path in nasty(), query in nasty(), agent in nasty(), name in any::<String>(),
    ) {
        let hostile = Entry {
            method: &method, path: &path, query: Some(&query), referer: Some(&agent), user_agent: Some(&agent),
            rule: Some(&name), ..entry()
        };
        let line = text_line(&hostile);
        prop_assert_eq!(line.bytes().filter(|&b| b == b'\n').count(), 1);
        prop_assert_eq!(line.bytes().filter(|&b| b == b'"').count(), 6);
        prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
        let tail = line.rsplit('"').next().unwrap();
        prop_assert_eq!(tail.split_ascii_whitespace().count(), 4);
    }

    #[test]
    fn ipv6_as_the_standard_library_writes_it(address in any::<u128>(), mask in any::<u8>()) {
        // Whole groups of zeros, which a random address hardly ever has.
        let mut groups = Ipv6Addr::from_bits(address).segments();
        for (at, group) in groups.iter_mut().enumerate() {
            *group *= u16::from(mask >> at & 1);
        }
        let address = Ipv6Addr::from(groups);
        prop_assume!(address.to_ipv4_mapped().is_none());
        let mut out = Vec::new();
        ipv6(address, &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
    }

    #[test]
    fn seconds_have_six_decimals(secs in any::<u64>(), nanos in 0..1_000_000_000u32) {
        let mut out = Vec::new();
        seconds(Duration::new(secs, nanos), &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{secs}.{:06}", nanos / 1000));
    }
}
