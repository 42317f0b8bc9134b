//! Conditions on bodies: what they hold for, and when a body is asked for at all.

use super::super::{Content, NeedBody, explain};
use super::*;

fn body(part: BodyPart, check: ValueTest) -> Term {
    term(Test::Body { part, check })
}

fn equals(value: &str) -> ValueTest {
    ValueTest::Equals(vec![value.into()])
}

fn matching(text: &str) -> ValueTest {
    ValueTest::Regex { text: text.into(), place: place() }
}

fn any() -> Rule {
    rule("any", Vec::new(), to_pool(0))
}

fn name(rule: &crate::route::Rule) -> &str {
    rule.id().split(':').nth(1).unwrap()
}

/// Whether a rule with that condition takes a body of that media type.
fn takes(condition: &Term, kind: &str, text: &[u8]) -> bool {
    let (table, faults) = compile(&set(vec![rule("body", vec![condition.clone()], to_pool(1)), any()]));
    assert!(faults.is_empty(), "{faults:?}");
    let (fields, content) = ([field("content-type", kind)], Content::new(text));
    taker(&table, &Head { fields: &fields, body: Body::Whole(&content), ..get("/") }).as_deref() == Some("body")
}

#[test]
fn texts_forms_and_json() {
    let form = |name: &str, check| body(BodyPart::Form(name.into()), check);
    let json = |pointer: &str, check| body(BodyPart::Json(pointer.into()), check);
    const FORM: &str = "application/x-www-form-urlencoded";
    for (condition, kind, text, expected) in [
        (body(BodyPart::Text, equals("ping")), "text/plain", "ping", true),
        (body(BodyPart::Text, equals("ping")), "text/plain", "ping\n", false),
        (body(BodyPart::Text, matching("^<soap")), "text/xml", "<soap:Envelope>", true),
        (form("action", equals("buy now")), FORM, "x=1&action=buy+now", true),
        (form("action", equals("buy now")), FORM, "action=sell&action=buy%20now", true),
        (form("a b", equals("")), FORM, "a+b", true),
        (form("action", matching("^b")), FORM, "action=sell", false),
        (form("action", equals("buy")), "multipart/form-data; boundary=x", "action=buy", false),
        (form("a", equals("1")), "Application/X-WWW-Form-URLEncoded; charset=utf-8", "a=1", true),
        (json("/a/b", equals("x")), "application/json", r#"{"a":{"b":"x"}}"#, true),
        (json("/a/1", equals("true")), "application/vnd.x+json", r#"{"a":[0,true]}"#, true),
        (json("/n", equals("12")), "application/json; charset=utf-8", r#"{"n":12}"#, true),
        (json("/n", equals("null")), "application/json", r#"{"n":null}"#, true),
        (json("/a~1b/~0", equals("x")), "application/json", r#"{"a/b":{"~":"x"}}"#, true),
        (json("", equals("x")), "application/json", r#""x""#, true),
        (json("/a", matching("")), "application/json", r#"{"a":{}}"#, false),
        (json("/a", equals("x")), "text/plain", r#"{"a":"x"}"#, false),
        (json("/a", equals("x")), "application/json", r#"{"a":"x""#, false),
    ] {
        assert_eq!(takes(&condition, kind, text.as_bytes()), expected, "{condition:?} {kind} {text}");
        // The whole test is negated.
        let negated = Term { negated: true, ..condition };
        assert_eq!(takes(&negated, kind, text.as_bytes()), !expected, "not {negated:?} {kind} {text}");
    }
}

#[test]
fn nesting_without_end_is_no_json() {
    let condition = body(BodyPart::Json("/0".into()), matching(""));
    let nested = |depth: usize| [vec![b'['; depth], b"1".to_vec(), vec![b']'; depth]].concat();
    assert!(takes(&condition, "application/json", &nested(1)));
    assert!(!takes(&condition, "application/json", &nested(30_000)));
}

#[test]
fn a_body_is_asked_for_only_where_it_decides() {
    let ping = || body(BodyPart::Text, equals("ping"));
    // Written first, looked at last.
    let first = vec![ping(), path("/rpc/**"), method("POST")];
    let (table, _) = compile(&set(vec![
        rule("early", vec![path("/rpc/early")], to_pool(0)),
        rule("ping", first, to_pool(1)),
        rule("not", vec![path("/not"), Term { negated: true, ..ping() }], to_pool(1)),
        any(),
    ]));
    let section = table.section(Kind::Http, "").unwrap();
    let asks = |path: &'static str, method: &'static str, body| {
        let head = Head { method, body, ..get(path) };
        section.decide(&head, &mut || 0).map(|rule| name(rule.unwrap())).map_err(|need: Box<NeedBody>| need.most)
    };
    for (path, method, expected) in [
        ("/rpc/a", "POST", Err(64 << 10)),
        ("/not", "GET", Err(64 << 10)),
        ("/rpc/a", "GET", Ok("any")),
        ("/rpc/early", "POST", Ok("early")),
        ("/", "POST", Ok("any")),
    ] {
        assert_eq!(asks(path, method, Body::Unread), expected, "{method} {path}");
    }
    let content = Content::new("ping");
    for (path, method, body, expected) in [
        ("/rpc/a", "POST", Body::Whole(&content), "ping"),
        ("/rpc/a", "POST", Body::Empty, "any"),
        ("/rpc/a", "POST", Body::TooLarge, "any"),
        ("/not", "GET", Body::Whole(&content), "any"),
        ("/not", "GET", Body::Empty, "not"),
        ("/not", "GET", Body::TooLarge, "not"),
    ] {
        assert_eq!(asks(path, method, body), Ok(expected), "{method} {path} {body:?}");
    }
    let head = Head { method: "POST", body: Body::Whole(&content), ..get("/rpc/a") };
    let steps = explain::explain(section, &head, 0);
    assert_eq!(name(steps.last().unwrap().rule), "ping");
    let head = Head { method: "POST", ..get("/rpc/a") };
    let steps = explain::explain(section, &head, 0);
    let explain::Verdict::Fails { condition, seen } = &steps[1].verdict else { panic!("{steps:?}") };
    assert_eq!((condition.as_str(), seen.as_str()), ("body text = ping", "no body"));
}

#[test]
fn what_was_rolled_before_the_body_was_read_stands() {
    let chance = |share| term(Test::Chance { share, of: None });
    let (table, _) = compile(&set(vec![
        rule("some", vec![chance(5_000)], to_pool(0)),
        rule("body", vec![body(BodyPart::Text, equals("ping")), chance(5_000)], to_pool(1)),
        any(),
    ]));
    let section = table.section(Kind::Http, "").unwrap();
    let rolls = std::cell::Cell::new(0);
    let mut dice = || {
        rolls.set(rolls.get() + 1);
        // `some` misses, `body` hits; nobody rolls a third time.
        [9_000, 100, 0][rolls.get() - 1]
    };
    let need = section.decide(&Head { body: Body::Unread, ..get("/") }, &mut dice).unwrap_err();
    let content = Content::new("ping");
    let head = Head { body: Body::Whole(&content), ..get("/") };
    assert_eq!(section.decide_with(Some(need), &head, &mut dice).map(name), Some("body"));
    assert_eq!(rolls.get(), 2);
}
