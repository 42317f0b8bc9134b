//! The language as a whole: what loads, what it means, and that no text can do harm.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::Severity;
use crate::model::rule::*;

/// The worked example of the language; its pools are those of the sample configuration.
const SHOP: &str = r#"# rules/shop.rules
http shop.example www.shop.example
  upload : method POST PUT & path /up/**          use uploads
             set header x-stage: ingest
             limit 20/s per source
             timeout response 5s
  images : path /img/** | *.jpg | *.png           use images  by path
  beta   : path /api/** & header x-beta = "1"     use beta 10% else web
  old    : path ~"^/p/(\d+)$"                     redirect 301 /product/$1
  user   : path /users/{who}/**                   use homes   by {who}
  robots : header user-agent in bots              answer 403
  office : from 10.0.0.0/8 & path /admin/**       use admin
  secret : path /admin/**                         answer 403
  rest   : any                                    use web

rtsp media.example
  live   : path /live/**                          use live    by path
  rest   : any                                    use vod     by path

tcp                                                # not terminated: the TLS hello is read, the bytes stay sealed
  mail   : sni mail.example                       use mail
  bare   : no-tls                                 use legacy

list bots  from "lists/bots.txt"                   # 100,000 and more entries, reloadable on its own

expect GET /img/a.png                              -> images by /img/a.png
expect GET /api/v1  x-beta:1  roll:7               -> beta
expect GET /api/v1  x-beta:1  roll:10              -> web
expect GET /p/42                                   -> 301 /product/42
expect DESCRIBE rtsp://media.example/live/cam7     -> live
"#;

fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

fn read(name: &str) -> std::io::Result<String> {
    match name {
        "lists/bots.txt" => Ok("# bad ones\nevilbot/1.0\n\ncurl/7.0 # old\n  a#b  \n".to_owned()),
        "lists/nets.txt" => Ok("10.0.0.0/8\n2001:db8::/32\n".to_owned()),
        "lists/tenants.map" => Ok("joe web\nann images\n".to_owned()),
        "lists/twice.map" => Ok("joe web\n# and\njoe images\nann nobody\n".to_owned()),
        "users" => Ok(String::new()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    }
}

/// Parses files named `a.rules`, `b.rules` and so on.
fn parse_all(texts: &[&str]) -> (RuleSet, Vec<Fault>) {
    let pools =
        names(&["web", "images", "api", "vod", "beta", "homes", "uploads", "admin", "live", "legacy", "dns", "mail"]);
    let listeners = names(&["web", "web-tls", "media", "sealed", "mail"]);
    let known = Names { pools: &pools, listeners: &listeners, read: &read, read_secret: &read };
    let inputs: Vec<Input<'_>> = texts
        .iter()
        .zip('a'..)
        .map(|(text, letter)| Input { name: format!("rules/{letter}.rules").into(), text })
        .collect();
    let mut faults = Vec::new();
    let set = parse(&inputs, &known, &mut faults);
    (set, faults)
}

/// The set of a text that has no fault but notes.
fn good(text: &str) -> RuleSet {
    let (set, faults) = parse_all(&[text]);
    let wrong: Vec<_> = faults.iter().filter(|fault| fault.severity != Severity::Note).collect();
    assert!(wrong.is_empty(), "{text}\n{wrong:#?}");
    set
}

/// The one rule of an `http *` section with this line.
fn rule(line: &str) -> Rule {
    good(&format!("http *\n  a : {line}\n")).sections.remove(0).rules.remove(0)
}

/// Code, line, column and suggestion of each fault that is no note.
fn faults_of(text: &str) -> Vec<String> {
    let (_, faults) = parse_all(&[text]);
    let told = faults.iter().filter(|fault| fault.severity != Severity::Note);
    told.map(|fault| {
        let suggestion = match &fault.suggestion {
            Some(crate::model::fault::Suggestion::DidYouMean(text)) => text.as_str(),
            _ => "",
        };
        format!("{} {}:{} {suggestion}", fault.code, fault.place.line, fault.place.column).trim_end().to_owned()
    })
    .collect()
}

fn faults_of_rule(line: &str) -> Vec<String> {
    faults_of(&format!("http *\n  a : {line}\n"))
}

#[test]
fn the_worked_example_loads() {
    let (set, faults) = parse_all(&[SHOP]);
    let told: Vec<String> =
        faults.iter().map(|f| format!("{}:{} {}", f.place.line, f.place.column, f.message)).collect();
    assert_eq!(told, [""; 0]);

    assert_eq!(set.sections.len(), 3);
    assert_eq!(set.sections.iter().map(|s| s.rules.len()).collect::<Vec<_>>(), [9, 2, 2]);
    let ids: Vec<&str> = set.sections.iter().flat_map(|s| &s.rules).map(|rule| &*rule.id).collect();
    assert_eq!(ids[0], "a.rules:upload");
    assert_eq!(ids[8], "a.rules:shop.example/rest");
    assert_eq!(ids[10], "a.rules:media.example/rest");
    let beta = &set.sections[0].rules[2];
    assert_eq!(beta.action, Action::Use { target: Target::Split { shares: vec![(4, 1000)], otherwise: 0 }, by: None });
    assert_eq!(set.sections[0].rules[0].refinements.len(), 3);
    assert_eq!(set.lists[0].entries.iter().map(|e| &**e).collect::<Vec<_>>(), ["evilbot/1.0", "curl/7.0", "a#b"]);
    assert_eq!(set.expects.len(), 5);
    assert_eq!(set.expects[0].host.as_deref(), Some("shop.example"));
}

#[test]
fn an_expect_without_host_means_the_nearest_section_of_its_kind() {
    let hosts = |text: &str| -> Vec<Option<String>> {
        good(text).expects.iter().map(|e| e.host.as_deref().map(str::to_owned)).collect()
    };
    let host = |name: &str| Some(name.to_owned());
    let rest = "\n  r : any use web\n";
    assert_eq!(
        hosts(&format!(
            "http *.a.example b.example{rest}rtsp c.example{rest}tcp{rest}expect GET / -> web\nexpect PLAY / -> web\nexpect OPTIONS * -> web\n"
        )),
        [host("b.example"), host("c.example"), host("c.example")]
    );
    assert_eq!(
        hosts(&format!("http *.a.example{rest}expect GET / -> web\nexpect GET / host:Z.example. -> web")),
        [host("x.a.example"), host("z.example")]
    );
    assert_eq!(
        hosts(&format!("http *{rest}expect GET / -> web\nexpect GET https://U.example:8443?q -> web")),
        [None, host("u.example")]
    );
}

#[test]
fn facts_and_outcomes() {
    let set = good(concat!(
        "http *\n  r : any use web\n",
        "expect POST /a?b=c roll:12.5 from:2001:db8::1 sni:A.example listener:web-tls alpn:h2,http/1.1 body:\"x y\" X-Empty: cookie:\"a=1; b=2\" -> 301 \"/x y\"\n",
        "expect tcp sni:mail.example no-tls -> deny\nexpect GET / -> images by \"a b\"\nexpect GET / -> no-route\nexpect GET / -> drop\nexpect GET / -> 403\n",
    ));
    let first = &set.expects[0];
    assert_eq!((&*first.method, &*first.target, first.facts.roll), ("POST", "/a?b=c", Some(1250)));
    assert_eq!(first.facts.from, "2001:db8::1".parse().ok());
    assert_eq!(first.facts.sni.as_deref(), Some("a.example"));
    assert_eq!(first.facts.alpn, ["h2".into(), "http/1.1".into()]);
    assert!(set.expects[1].facts.no_tls && !first.facts.no_tls);
    assert_eq!(first.facts.body.as_deref(), Some("x y"));
    assert_eq!(first.facts.headers, [("x-empty".into(), "".into()), ("cookie".into(), "a=1; b=2".into())]);
    assert_eq!(first.outcome, Outcome::Code { code: 301, target: Some("/x y".into()) });
    assert_eq!((set.expects[1].kind, &set.expects[1].outcome), (Kind::Tcp, &Outcome::Deny));
    assert_eq!(set.expects[2].outcome, Outcome::Pool { name: "images".into(), by: Some("a b".into()) });
}

#[test]
fn the_table_of_two_readings() {
    // `|` binds tighter than `&`.
    let both = rule("path /a | /b & header x use web");
    assert_eq!(both.condition.len(), 2);
    assert!(matches!(&both.condition[0].test, Test::Path(Patterns::AnyOf(patterns)) if patterns.len() == 2));
    // Both ways to list words; action words end a list unless quoted.
    assert_eq!(
        rule("method POST PUT use web").condition,
        rule("method POST | PUT use web")
            .condition
            .into_iter()
            .map(|mut t| {
                t.place.end -= 2;
                t
            })
            .collect::<Vec<_>>()
    );
    assert!(
        matches!(&rule("method \"use\" use web").condition[0].test, Test::Method(words) if words == &names(&["use"]))
    );
    assert_eq!(faults_of_rule("path /a /b use web"), ["R0222 2:15 | /b"]);
    // `!` is of the whole test, as prefix or word.
    for text in ["!path /a | /b use web", "! path /a | /b use web"] {
        let rule = rule(text);
        assert!(rule.condition[0].negated);
        assert!(matches!(&rule.condition[0].test, Test::Path(Patterns::AnyOf(patterns)) if patterns.len() == 2));
    }
    // Operators only as whole words; comments only where a word could begin.
    assert!(
        matches!(&rule("path /a=b&c|d use web").condition[0].test, Test::Path(Patterns::AnyOf(p)) if matches!(&p[0], Pattern::Glob { text, .. } if &**text == "/a=b&c|d"))
    );
    assert!(
        matches!(&rule("path /a#b use web # so").condition[0].test, Test::Path(Patterns::AnyOf(p)) if matches!(&p[0], Pattern::Glob { text, .. } if &**text == "/a#b"))
    );
    assert_eq!(faults_of_rule("any use web by header x-user"), ["R0234 2:22 header:x-user"]);
    // Only `\"` is ours in a regex.
    let regex = rule(r#"path ~"^/\d\"\\" use web"#);
    assert!(
        matches!(&regex.condition[0].test, Test::Path(Patterns::AnyOf(p)) if matches!(&p[0], Pattern::Regex { text, .. } if &**text == r#"^/\d"\\"#))
    );
    assert_eq!(
        rule("header x = \"a # -> \\\\ \\\" b\" use web").condition[0].test,
        Test::Header { name: "x".into(), check: ValueTest::Equals(vec![r#"a # -> \ " b"#.into()]) }
    );
    assert_eq!(faults_of_rule("any use web 60% images 50% else beta"), ["R0233 2:15"]);
    assert_eq!(
        rule("any use web 10% images 20.25% else beta by host").action,
        Action::Use { target: Target::Split { shares: vec![(0, 1000), (1, 2025)], otherwise: 4 }, by: Some(Key::Host) }
    );
    assert!(matches!(rule("any redirect /x").action, Action::Redirect { code: 302, .. }));
    assert_eq!(rule("any & path /a use web").condition.len(), 1);
}

#[test]
fn rules_may_have_the_names_of_keywords() {
    let set = good(
        "http *\n  set : path /a use web\n  limit: path /b use web\n    set header a: b\n  path :path /c use web\n paths : any use web\n",
    );
    let names: Vec<&str> = set.sections[0].rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["set", "limit", "path", "paths"]);
    assert_eq!(set.sections[0].rules[1].refinements.len(), 1);
}

#[test]
fn conditions_go_on_on_deeper_lines() {
    for text in [
        "path /a\n     | /b\n     & method GET\n     | POST  use web",
        "path /a use web\n     | /b\n     & method GET POST",
    ] {
        let rule = rule(text);
        assert_eq!(rule.condition.len(), 2, "{text}");
        assert!(matches!(&rule.condition[0].test, Test::Path(Patterns::AnyOf(patterns)) if patterns.len() == 2));
        assert!(matches!(&rule.condition[1].test, Test::Method(words) if words.len() == 2));
    }
}

#[test]
fn the_whole_grammar_loads() {
    let (set, faults) = parse_all(&[concat!(
        "\u{feff}map tenants from \"lists/tenants.map\"\r\n",
        "list nets from \"lists/nets.txt\"\r\n",
        "http * *.Shop.Example 10.0.0.1 [2001:db8::1]\r\n",
        "  paths strict\r\n",
        "  a: host x.example | *.y.example | ~\"^z\" & content-type text/html | image/* use web\r\n",
        "  b: sni in bots & alpn h2 http/1.1 & listener web web-tls use web by url\r\n",
        "  c: header x & cookie SID != a | b & query q ~\"^\\d+$\" & header y in bots deny\r\n",
        "  d: from in nets & !from 192.168.0.1 | 2001:db8::/32 drop\r\n",
        "  e: client-cert use web\r\n",
        "  f: client-cert subject = \"CN=x\" & client-cert san ~\"x$\" use web\r\n",
        "  g: body text ~\"x\" use web\r\n",
        "  h: body form user = joe & body json \"/a/b\" = 1 use web\r\n",
        "  i: chance 0.25% of cookie:SID use web by source\r\n",
        "  j: path /t/{tenant}/** use map tenants {tenant} else web\r\n",
        "       rewrite /${tenant}/x\r\n",
        "       remove header x-old\r\n",
        "       set header X-New : \"a {tenant} {not a hole} $x\"\r\n",
        "       set header x-glued:\"a b\"\r\n",
        "       limit body 10MiB\r\n",
        "       limit connections 100\r\n",
        "       limit 5/m per {tenant}\r\n",
        "       timeout total 1m\r\n",
        "       retry 2 on connect 502 503\r\n",
        "       mirror beta 5%\r\n",
        "       auth basic \"users\"\r\n",
        "       priority -5\r\n",
        "  k: any answer 200 \"hello\"\r\n",
        "       auth forward http://127.0.0.1:9/auth\r\n",
        "list bots from \"lists/bots.txt\"\r\n",
    )]);
    let notes: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    assert!(faults.iter().all(|fault| fault.severity == Severity::Note), "{faults:#?}");
    assert_eq!(notes.len(), 1, "{notes:#?}");
    assert!(notes.contains(&"not built yet: retry on 502, 503"), "{notes:#?}");
    let section = &set.sections[0];
    assert_eq!(section.paths, PathPolicy::Strict);
    let hosts: Vec<_> = section.hosts.iter().map(|(host, _)| host.clone()).collect();
    assert_eq!(
        hosts,
        [
            HostPattern::Any,
            HostPattern::Wildcard(".shop.example".into()),
            HostPattern::Exact("10.0.0.1".into()),
            HostPattern::Exact("[2001:db8::1]".into())
        ]
    );
    assert_eq!(section.rules.len(), 11);
    assert_eq!((set.maps[0].entries.len(), &*set.maps[0].pools), (2, &[0, 1][..]));
    let Refinement::SetHeader { name, value } = &section.rules[9].refinements[2] else { panic!("not a header") };
    assert_eq!(&**name, "x-new");
    assert_eq!(
        value.parts,
        [
            TemplatePart::Text("a ".into()),
            TemplatePart::Capture("tenant".into()),
            TemplatePart::Text(" {not a hole} $x".into())
        ]
    );
}

#[test]
fn a_rewritten_path_is_one_that_can_be_sent() {
    let wrong = |to: &str| faults_of(&format!("http *\n  a : path /a/{{x}} use web\n      rewrite {to}\n"));
    for good in ["/", "/b/{x}", "/%2F{x}?q={x}", "/b?", "/a%20b?x=../y"] {
        assert_eq!(wrong(good), [""; 0], "{good}");
    }
    assert_eq!(wrong("b"), ["R0242 3:15 /b"]);
    assert_eq!(wrong("\"/a b\""), ["R0242 3:15 /a%20b"]);
    for bad in ["/a/../b", "/.", "/a#b", "/%zz", "/%+1", "/%4", "/a?%00", "/%0a"] {
        assert_eq!(wrong(bad), ["R0242 3:15"], "{bad}");
    }
    assert_eq!(wrong("/{y}"), ["R0243 3:16"]);
}

#[test]
fn maps_are_judged_line_by_line() {
    let (_, faults) = parse_all(&["map t from \"lists/twice.map\"\nhttp *\n  a : any use map t source\n"]);
    let told: Vec<_> = faults.iter().map(|f| (f.code, &*f.place.file, f.place.line, f.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("R0273", "lists/twice.map", 3, "the key `joe` stands twice in this map"),
            ("R0272", "lists/twice.map", 4, "there is no pool `nobody`, and `use map` uses this map"),
        ]
    );
}

#[test]
fn ids_are_unique() {
    let section = "\n  r : any use web\n";
    let (set, _) =
        parse_all(&[&format!("http *{section}rtsp *{section}tcp{section}"), &format!("http a.example{section}")]);
    let ids: Vec<&str> = set.sections.iter().flat_map(|s| &s.rules).map(|rule| &*rule.id).collect();
    assert_eq!(ids, ["a.rules:http:*/r", "a.rules:rtsp:*/r", "a.rules:tcp/r", "b.rules:r"]);
}

#[test]
fn hosts_are_declared_once_over_all_files() {
    let section = "\n  r : any use web\n";
    let (_, faults) = parse_all(&[
        &format!("http A.example *{section}tcp{section}"),
        &format!("http a.example. *{section}rtsp a.example{section}tcp{section}"),
    ]);
    let told: Vec<_> =
        faults.iter().map(|f| (f.code, &*f.place.file, f.place.line, f.also[0].0.line, f.also[0].0.column)).collect();
    assert_eq!(
        told,
        [
            ("R0211", "rules/b.rules", 1, 1, 6),
            ("R0211", "rules/b.rules", 1, 1, 16),
            ("R0211", "rules/b.rules", 5, 3, 1)
        ]
    );
}

#[test]
fn captures_must_exist() {
    assert_eq!(faults_of_rule("path /users/{user}/** use web by {who}"), ["R0243 2:40"]);
    assert_eq!(faults_of_rule("path /users/{user}/** use web by {usr}"), ["R0243 2:40 {user}"]);
    assert_eq!(faults_of_rule("path ~\"(a)\" redirect /$2"), ["R0243 2:29"]);
    assert_eq!(faults_of_rule("!path /{a} use web by {a}"), ["R0243 2:29"]);
    assert_eq!(faults_of_rule("path /{a} | /x/y use web by {a}"), ["R0244 2:35"]);
    assert!(faults_of_rule("path /{a} | /x/{a} & path ~\"(x)\" use web by {a}\n     set header y: $1").is_empty());
}

#[test]
fn no_fault_drags_others_along() {
    assert_eq!(faults_of_rule("header x = \"open use web\n     set header y: z\n  b : any use web"), ["R0203 2:18"]);
    assert_eq!(faults_of("htp *\n  a : any usee web\n  b : any use web\n"), ["R0207 1:1 http", "R0221 2:11 use"]);
    assert_eq!(faults_of("  a : any use web\n  b : any use nowhere\n"), ["R0206 1:3", "R0240 2:15"]);
    assert_eq!(
        faults_of("http *\n  a : any use web\n      b : any use wbe\n  c : any use web\n"),
        ["R0207 3:7", "R0240 3:19 web"]
    );
}

#[test]
fn faults_are_bounded() {
    let text = format!("http *\n{}", "  x y z\n".repeat(20_000));
    let (_, faults) = parse_all(&[&text]);
    assert_eq!(faults.len(), 1001);
    assert_eq!(faults.iter().filter(|fault| fault.code == "R0299").count(), 1);
}

/// Every place lies within its line.
fn check_places(text: &str, faults: &[Fault]) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<u32> = text.split('\n').map(|line| line.chars().count() as u32).collect();
    let also = faults.iter().flat_map(|fault| fault.also.iter().map(|(place, _)| place));
    for place in faults.iter().map(|fault| &fault.place).chain(also).filter(|place| &*place.file == "rules/a.rules") {
        let length = lines[place.line as usize - 1];
        assert!(
            place.column >= 1 && place.column <= place.end && place.end <= length + 1,
            "{place:?} of {length} in {text:?}"
        );
        assert!(place.column < place.end || length == 0, "{place:?} marks nothing");
    }
}

/// A file made of the language's own words, so that deep code is reached.
fn word() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "http",
        "rtsp",
        "tcp",
        "list",
        "map",
        "expect",
        "any",
        "path",
        "host",
        "method",
        "header",
        "cookie",
        "query",
        "from",
        "content-type",
        "sni",
        "alpn",
        "listener",
        "chance",
        "client-cert",
        "body",
        "no-tls",
        "use",
        "redirect",
        "answer",
        "deny",
        "drop",
        "set",
        "remove",
        "rewrite",
        "limit",
        "timeout",
        "retry",
        "mirror",
        "auth",
        "priority",
        "paths",
        "strict",
        "by",
        "else",
        "in",
        "of",
        "per",
        "on",
        "&",
        "|",
        "!",
        "=",
        "!=",
        "->",
        ":",
        "a:",
        "b :",
        "web",
        "images",
        "10%",
        "10",
        "301",
        "403",
        "/a/**",
        "/{x}",
        "/{",
        "/a**",
        "*.jpg",
        "{x}",
        "$1",
        "${x}",
        "~\"(a)\"",
        "~\"(\"",
        "~\"\\\"é[\"",
        "\"\"",
        "\"é\\\"{X}\"",
        "\"",
        "~\"",
        "10.0.0.0/8",
        "10.1.1.1/8",
        "header:x",
        "x:1",
        "roll:5",
        "cookie:\"a\"",
        "GET",
        "get",
        "tcp",
        "*",
        "*.a",
        "a.example",
        "a.example:80",
        "bots",
        "tenants",
        "\"lists/bots.txt\"",
        "connections",
        "5",
        "5s",
        "20/s",
        "10KiB",
        "source",
        "x-a:\"b\"",
        "\t",
        "#",
        "é",
        "\u{a0}",
        "\r",
        "\u{0}",
        "json",
        "form",
        "subject",
        "form",
        "connection",
        "map",
    ]);
    words.prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        check_places(&text, &parse_all(&[&text]).1);
    }

    #[test]
    fn any_words_are_read(lines in prop::collection::vec((0usize..8, prop::collection::vec(word(), 0..9)), 0..12)) {
        let text: String = lines.iter().map(|(indent, words)| format!("{}{}\n", " ".repeat(*indent), words.join(" "))).collect();
        check_places(&text, &parse_all(&[&text]).1);
    }

    #[test]
    fn the_example_is_read_however_it_is_bent(
        edits in prop::collection::vec((0usize..SHOP.len(), 0usize..4, prop::sample::select(vec!["", " ", "\"", "|", "&", ":", "\n", "{", "é", "\t", "~\"", "!", "#", "\\"])), 1..6)
    ) {
        let mut text = SHOP.to_owned();
        for (at, cut, insert) in edits {
            let from = text.floor_char_boundary(at.min(text.len()));
            let to = text.floor_char_boundary((from + cut).min(text.len())).max(from);
            text.replace_range(from..to, insert);
        }
        check_places(&text, &parse_all(&[&text]).1);
    }
}
