//! Facts about small rule sets.

use super::super::{Change, expand, expect, explain, key_hash, key_text, pool};
use super::*;

/// The first section of docs/rules.md.
fn shop() -> RuleSet {
    let split = Target::Split { shares: vec![(2, 1000)], otherwise: 3 };
    let mut upload = rule("upload", vec![method("POST PUT"), path("/up/**")], to_pool(0));
    let stage = Template { parts: vec![TemplatePart::Text("ingest".into())], place: place() };
    upload.refinements = vec![
        Refinement::SetHeader { name: "x-stage".into(), value: stage },
        Refinement::RemoveHeader { name: "x-old".into() },
    ];
    let product = template(&["/product/", "$1"]);
    let by_who = Some(Key::Capture("who".into()));
    let bots = Test::Header { name: "user-agent".into(), check: ValueTest::InList(0) };
    let mut set = set(vec![
        upload,
        rule("images", vec![path("/img/** *.jpg *.png")], Action::Use { target: Target::Pool(1), by: Some(Key::Path) }),
        rule("beta", vec![path("/api/**"), header("x-beta", "1")], Action::Use { target: split, by: None }),
        rule("old", vec![path(r"~^/p/(\d+)$")], Action::Redirect { code: 301, to: product }),
        rule("user", vec![path("/users/{who}/**")], Action::Use { target: Target::Pool(4), by: by_who }),
        rule("robots", vec![term(bots)], Action::Answer { code: 403, text: None }),
        rule("office", vec![from("10.0.0.0/8"), path("/admin/**")], to_pool(5)),
        rule("secret", vec![path("/admin/**")], Action::Deny),
        rule("rest", vec![], to_pool(3)),
    ]);
    set.lists = vec![list("bots", (0..1000).map(|i| format!("bot {i}")))];
    set
}

const POOLS: [&str; 6] = ["uploads", "images", "beta", "web", "homes", "admin"];

fn list(name: &str, entries: impl Iterator<Item = String>) -> List {
    List {
        name: name.into(),
        entries: entries.map(Into::into).collect(),
        file: "lists/bots.txt".into(),
        place: place(),
    }
}

/// `$1` and `{name}` are holes, all else is text.
pub(super) fn template(parts: &[&str]) -> Template {
    let part = |part: &&str| match (part.strip_prefix('$'), part.strip_prefix('{')) {
        (Some(number), _) => TemplatePart::Group(number.parse().unwrap()),
        (_, Some(name)) => TemplatePart::Capture(name.trim_end_matches('}').into()),
        _ => TemplatePart::Text((*part).into()),
    };
    Template { parts: parts.iter().map(part).collect(), place: place() }
}

#[test]
fn the_worked_example() {
    let (table, faults) = compile(&shop());
    assert_eq!(faults, []);
    let head = |method, path, fields| Head { method, fields, ..get(path) };
    let (beta, bot) = ([field("X-Beta", "1")], [field("User-Agent", "bot 7")]);
    for (head, expected) in [
        (head("POST", "/up/x", &[][..]), "upload"),
        (head("GET", "/up/x", &[]), "rest"),
        (head("GET", "/img", &[]), "images"),
        (head("GET", "/x/y.png", &[]), "images"),
        (head("GET", "/api/v1", &beta), "beta"),
        (head("GET", "/api/v1", &[]), "rest"),
        (head("GET", "/p/42", &[]), "old"),
        (head("GET", "/p/x", &[]), "rest"),
        (head("GET", "/users/joe", &[]), "user"),
        (head("GET", "/users/", &[]), "rest"),
        (head("GET", "/q", &bot), "robots"),
        (head("GET", "/admin/x", &[]), "secret"),
        (Head { source: IpAddr::from([10, 1, 1, 1]), ..head("GET", "/admin", &[]) }, "office"),
    ] {
        assert_eq!(taker(&table, &head).as_deref(), Some(expected), "{}", head.path);
    }
    let upload = table.rules().next().unwrap();
    assert!(matches!(upload.changes(), [Change::Set { .. }, Change::Remove { name }] if **name == *"x-old"));
    assert!(table.rules().map(|rule| rule.number()).eq(0..9));
    assert!(table.is_empty(Kind::Rtsp) && !table.is_empty(Kind::Http));
}

#[test]
fn sections_by_host() {
    let section = |hosts: &[&str], name: &str| Section {
        kind: Kind::Http,
        hosts: hosts
            .iter()
            .map(|host| match host.strip_prefix('*') {
                Some("") => HostPattern::Any,
                Some(end) => HostPattern::Wildcard(end.into()),
                None => HostPattern::Exact((*host).into()),
            })
            .map(|host| (host, place()))
            .collect(),
        paths: PathPolicy::Safe,
        rules: vec![rule(name, vec![], to_pool(0))],
        place: place(),
    };
    let mut set = RuleSet {
        sections: vec![
            section(&["*"], "any"),
            section(&["*.example"], "wide"),
            section(&["*.shop.example"], "narrow"),
            section(&["shop.example", "www.shop.example"], "exact"),
        ],
        ..RuleSet::default()
    };
    let check = |set: &RuleSet| {
        let (table, faults) = compile(set);
        assert_eq!(faults, []);
        for (host, expected) in [
            ("shop.example", "exact"),
            ("www.shop.example", "exact"),
            ("img.shop.example", "narrow"),
            ("a.b.shop.example", "narrow"),
            ("myshop.example", "wide"),
            ("example", "any"),
            (".example", "any"),
            ("", "any"),
        ] {
            assert_eq!(taker(&table, &Head { host, ..get("/") }).as_deref(), Some(expected), "{host}");
        }
        assert!(table.section(Kind::Tcp, "shop.example").is_none());
    };
    check(&set);
    set.sections.reverse();
    check(&set);
}

#[test]
fn expect_lines() {
    let mut set = shop();
    let expect = |target: &str, facts: Facts, outcome: Outcome| Expect {
        kind: Kind::Http,
        method: "GET".into(),
        host: Some("shop.example".into()),
        target: target.into(),
        facts,
        outcome,
        place: place(),
    };
    let pool = |name: &str, by: Option<&str>| Outcome::Pool { name: name.into(), by: by.map(Into::into) };
    let beta = |roll| Facts { headers: vec![("x-beta".into(), "1".into())], roll, ..Facts::default() };
    let none = Facts::default;
    set.expects = vec![
        expect("/img/a.png", none(), pool("images", Some("/img/a.png"))),
        expect("/api/v1", beta(Some(700)), pool("beta", None)),
        expect("/api/v1", beta(Some(1000)), pool("web", None)),
        expect("/p/42", none(), Outcome::Code { code: 301, target: Some("/product/42".into()) }),
        expect("/p/42?a=1", none(), Outcome::Code { code: 301, target: Some("/product/42?a=1".into()) }),
        expect("/admin/", none(), Outcome::Deny),
        expect("/admin/", Facts { from: Some("10.0.0.1".parse().unwrap()), ..none() }, pool("admin", None)),
        expect("/users/joe/a?b", none(), pool("homes", Some("joe"))),
        expect("/a/%2e%2e/img/", none(), pool("images", Some("/img/"))),
        expect("/%00", none(), Outcome::Code { code: 400, target: None }),
    ];
    let pools = POOLS.map(Into::into);
    let (table, mut faults) = compile(&set);
    expect::run(&table, &set, &pools, &mut faults);
    assert_eq!(faults, []);

    set.expects = vec![
        expect("/x", none(), pool("beta", None)),
        expect("/p/42", none(), Outcome::Code { code: 301, target: Some("/42".into()) }),
        expect("/x", none(), Outcome::NoRoute),
        expect("/api/v1", beta(None), pool("web", None)),
    ];
    expect::run(&table, &set, &pools, &mut faults);
    let messages: Vec<&str> = faults.iter().map(|fault| &*fault.message).collect();
    let expected = [
        "expected pool beta, got pool web (rule shop.rules:rest)",
        "expected 301 /42, got 301 /product/42 (rule shop.rules:old)",
        "expected no route, got pool web (rule shop.rules:rest)",
        "expected pool web, got pool beta (rule shop.rules:beta)",
    ];
    assert_eq!(messages, expected);
    assert!(faults[3].suggestion.is_some() && faults[0].also.len() == 1);
}

#[test]
fn explanations() {
    let (table, _) = compile(&shop());
    let fields = [field("x-beta", "2")];
    let head = Head { fields: &fields, ..get("/api/x") };
    let steps = explain::explain(table.section(Kind::Http, "").unwrap(), &head, 0);
    let said: Vec<String> = steps
        .iter()
        .map(|step| match &step.verdict {
            explain::Verdict::Takes => "takes".to_owned(),
            explain::Verdict::Fails { condition, seen } => format!("{condition}: {seen}"),
        })
        .collect();
    let expected = [
        "method POST PUT: GET",
        "path /img/** | *.jpg | *.png: /api/x",
        "header x-beta = 1: 2",
        r#"path ~"^/p/(\d+)$": /api/x"#,
        "path /users/{who}/**: /api/x",
        "header user-agent in bots: none",
        "from 10.0.0.0/8: 192.0.2.1",
        "path /admin/**: /api/x",
        "takes",
    ];
    assert_eq!(said, expected);
}

#[test]
fn shadowed_rules() {
    let two = |first: Vec<Term>, second: Vec<Term>| {
        let (_, faults) = compile(&set(vec![rule("first", first, to_pool(0)), rule("second", second, to_pool(0))]));
        faults.len() == 1
    };
    let chance = || term(Test::Chance { share: 5000, of: None });
    let present = |name: &str| term(Test::Header { name: name.into(), check: ValueTest::Present });
    for (first, second) in [
        (vec![], vec![path("/a")]),
        (vec![path("/a/**")], vec![path("/a/b")]),
        (vec![path("/a/**")], vec![path("/a/b"), header("x", "1"), chance()]),
        (vec![path("/a/**")], vec![path("~^/a/[0-9]+")]),
        (vec![path("/a/** *.jpg")], vec![path("/x/*.jpg /a/c")]),
        (vec![method("GET POST")], vec![method("POST"), path("~x")]),
        (vec![from("10.0.0.0/8")], vec![from("10.1.0.0/16 10.2.0.0/16")]),
        (vec![header("X", "1 2")], vec![header("x", "2")]),
        (vec![present("x")], vec![header("x", "2")]),
        (vec![path("~a.c"), not(method("GET").test)], vec![not(method("GET").test), path("~a.c")]),
    ] {
        assert!(two(first.clone(), second.clone()), "{first:?} shadows {second:?}");
    }
    for (first, second) in [
        (vec![path("/a/b")], vec![path("/a/**")]),
        (vec![path("/a/**"), chance()], vec![path("/a/b")]),
        (vec![path("/a/**"), header("x", "1")], vec![path("/a/b")]),
        (vec![path("/a/**")], vec![path("/a/b /b")]),
        (vec![path("~^/a")], vec![path("/a")]),
        (vec![from("10.1.0.0/16")], vec![from("10.0.0.0/8")]),
        (vec![not(method("GET").test)], vec![method("POST")]),
        (vec![path("/**")], vec![]),
    ] {
        assert!(!two(first.clone(), second.clone()), "{first:?} does not shadow {second:?}");
    }
    let (_, faults) = compile(&set(vec![rule("all", vec![], to_pool(0)), rule("late", vec![path("/a")], to_pool(0))]));
    assert_eq!(faults[0].message, "rule \"late\" can never match: \"all\" takes every such request first");
    assert_eq!((faults[0].code, faults[0].also.len()), ("R0301", 1));
}

#[test]
fn what_is_wrong_with_texts() {
    let mut set = set(vec![
        rule("a", vec![path("~^/a(")], to_pool(0)),
        rule("b", vec![term(Test::From(Sources::InList(0)))], to_pool(0)),
    ]);
    set.lists = vec![list("nets", ["10.0.0.0/8", "10.0.0", "::1"].map(str::to_owned).into_iter())];
    let (_, faults) = compile(&set);
    let told: Vec<_> = faults.iter().map(|fault| (fault.code, &*fault.message)).collect();
    let expected = [
        ("R0302", "this regex cannot be read: unclosed group"),
        ("R0303", "\"10.0.0\" in lists/bots.txt is no address and no network"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn keys_and_templates() {
    let set = set(vec![
        rule("user", vec![path("/users/{who}/**")], to_pool(0)),
        rule("any", vec![path(r"~^(/.*)/([a-z]*)$")], to_pool(0)),
    ]);
    let (table, _) = compile(&set);
    let section = table.section(Kind::Http, "").unwrap();
    let fields = [field("X-User", "u1"), field("cookie", "s=1; sid=abc")];
    let head = Head { query: "a=%31&b=2", fields: &fields, ..get("/users/joe/x") };
    let user = section.decide_with(None, &head, &mut || 0).unwrap();
    for (key, expected) in [
        (Key::Path, Some("/users/joe/x")),
        (Key::Host, Some("shop.example")),
        (Key::Source, Some("192.0.2.1")),
        (Key::Url, Some("/users/joe/x?a=%31&b=2")),
        (Key::Capture("who".into()), Some("joe")),
        (Key::Capture("what".into()), None),
        (Key::Group(1), None),
        (Key::Header("x-user".into()), Some("u1")),
        (Key::Cookie("sid".into()), Some("abc")),
        (Key::Query("a".into()), Some("1")),
        (Key::Query("c".into()), None),
    ] {
        assert_eq!(key_text(&key, Some(user), &head).as_deref(), expected, "{key}");
        let hashed = key_hash(&key, Some(user), &head);
        assert_eq!(hashed.is_some(), expected.is_some(), "{key}");
        if key != Key::Source {
            assert_eq!(hashed, expected.map(|text| super::super::hash::hash(0, text.as_bytes())), "{key}");
        }
    }
    assert_eq!(key_text(&Key::Capture("who".into()), None, &head), None);

    let expanded = |path: &str, parts: &[&str], encode| {
        let head = get(path);
        let rule = section.decide_with(None, &head, &mut || 0).unwrap();
        let mut out = b"> ".to_vec();
        expand(&template(parts), rule, &head, encode, &mut out);
        String::from_utf8(out).unwrap().split_off(2)
    };
    assert_eq!(expanded("/users/joe", &["/u/", "{who}", "/x"], true), "/u/joe/x");
    assert_eq!(expanded("/a\"b%20c\u{e9}/x", &["$1", "/", "$2"], true), "/a%22b%20c%C3%A9/x");
    assert_eq!(expanded("/a\"b/x", &["$1"], false), "/a\"b");
    assert_eq!(expanded("//evil.example/x", &["$1", "/", "$2"], true), "/%2Fevil.example/x");
    assert_eq!(expanded("//x/", &["/", "$2", "/", "$1"], true), "/%2F//x");
    assert_eq!(expanded("/a/x", &["//cdn.example", "$1"], true), "//cdn.example/a");
}

#[test]
fn splits() {
    let (table, _) = compile(&set(vec![rule("any", vec![], to_pool(0))]));
    let rule = table.rules().next().unwrap();
    let split = Target::Split { shares: vec![(7, 1000), (8, 50)], otherwise: 9 };
    for (roll, expected) in [(0, 7), (999, 7), (1000, 8), (1049, 8), (1050, 9), (9999, 9)] {
        assert_eq!(pool(&split, &get("/"), rule, &mut || roll), Some(expected), "{roll}");
    }
    assert_eq!(pool(&Target::Pool(3), &get("/"), rule, &mut || panic!("no dice for one pool")), Some(3));
}

#[test]
fn a_share_of_a_key_is_always_the_same() {
    let chance = |share| term(Test::Chance { share, of: Some(Key::Cookie("id".into())) });
    let (table, faults) =
        compile(&set(vec![rule("a", vec![chance(3000)], to_pool(0)), rule("b", vec![chance(5000)], to_pool(0))]));
    assert_eq!(faults, []);
    let mut counts = [0; 3];
    for user in 0..2000 {
        let cookie = format!("id=user{user}");
        let fields = [field("cookie", &cookie)];
        let head = Head { fields: &fields, ..get("/") };
        let first = taker(&table, &head);
        assert_eq!(first, taker(&table, &head));
        counts[match first.as_deref() {
            Some("a") => 0,
            Some(_) => 1,
            None => 2,
        }] += 1;
    }
    // 30 %, half of the rest, and the other half.
    assert!(
        counts.iter().zip([600, 700, 700]).all(|(count, expected): (&i32, i32)| (count - expected).abs() < 100),
        "{counts:?}"
    );
    assert_eq!(taker(&table, &get("/")), None);
}

#[test]
fn a_rule_rolls_once() {
    // Found by two of its anchors and by a header that comes twice.
    let mut rules: Vec<Rule> =
        (0..40).map(|i| rule(&format!("r{i}"), vec![header("x", &format!("v{i}"))], to_pool(0))).collect();
    rules.push(rule("chance", vec![header("x", "a b"), term(Test::Chance { share: 5000, of: None })], to_pool(0)));
    let (table, _) = compile(&set(rules));
    let fields = [field("x", "a"), field("x", "b"), field("x", "a")];
    let head = Head { fields: &fields, ..get("/") };
    let mut rolls = 0;
    let found = table.section(Kind::Http, "").unwrap().decide_with(None, &head, &mut || {
        rolls += 1;
        9_999
    });
    assert!(found.is_none());
    assert_eq!(rolls, 1);
}

#[test]
fn a_pathological_path_ends_soon() {
    let globs = (0..200).map(|i| rule(&format!("g{i}"), vec![path(&format!("/**/a{i}/**/b/**/c*c*c"))], to_pool(0)));
    let regexes = (0..200).map(|i| rule(&format!("x{i}"), vec![path(&format!("~[a-z]+x{i}y"))], to_pool(0)));
    let (table, _) = compile(&set(globs.chain(regexes).collect()));
    for path in [format!("/{}", "a0/b/".repeat(3000)), "/".repeat(16_000), format!("/{}", "x1".repeat(8000))] {
        assert_eq!(taker(&table, &get(&path)), None);
    }
}

#[test]
fn client_certificates_are_told_apart() {
    use crate::wire::certificate::Certificate;

    let certificate = |field, check| Test::ClientCertificate(Some(CertificateTest { field, check }));
    let equals = |value: &str| ValueTest::Equals(vec![value.into()]);
    let regex = |text: &str| ValueTest::Regex { text: text.into(), place: place() };
    let rules = vec![
        rule("subject", vec![term(certificate(CertificateField::Subject, equals("CN=joe,O=Ex")))], to_pool(0)),
        rule("san", vec![term(certificate(CertificateField::San, regex("@ops[.]example$")))], to_pool(0)),
        rule("print", vec![term(certificate(CertificateField::Fingerprint, equals("AB:CD:01")))], to_pool(0)),
        rule("issuer", vec![term(certificate(CertificateField::Issuer, equals("CN=partners")))], to_pool(0)),
        rule("any", vec![term(Test::ClientCertificate(None))], to_pool(0)),
        rule("none", vec![], to_pool(0)),
    ];
    let (table, faults) = compile(&set(rules));
    assert_eq!(faults, []);
    let shown = |subject: &str, issuer: &str, names: &[&str], fingerprint: &str| Certificate {
        subject: subject.into(),
        issuer: issuer.into(),
        names: names.iter().map(|name| (*name).into()).collect(),
        common_name: None,
        fingerprint: fingerprint.into(),
        not_before: 0,
        not_after: 0,
    };
    for (certificate, expected) in [
        (Some(shown("CN=joe,O=Ex", "CN=us", &[], "00")), "subject"),
        (Some(shown("CN=joe", "CN=us", &["joe.example", "joe@ops.example"], "00")), "san"),
        (Some(shown("CN=joe", "CN=us", &["joe@ops.example.org"], "abcd01")), "print"),
        (Some(shown("CN=joe", "CN=partners", &[], "00")), "issuer"),
        (Some(shown("CN=joe", "CN=us", &[], "00")), "any"),
        (None, "none"),
    ] {
        let head = Head { certificate: certificate.as_ref(), ..get("/") };
        assert_eq!(taker(&table, &head).as_deref(), Some(expected), "{certificate:?}");
    }
}
