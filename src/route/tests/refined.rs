//! Facts about maps, and about paths that are rewritten.

use super::super::pool;
use super::facts::template;
use super::*;

fn tenants(key: Key, otherwise: Option<usize>) -> Table {
    let entries = [("Shop.Example", 1), ("/caf\u{e9}", 2), ("192.0.2.1", 3), ("2001:DB8::0:1", 4), ("Ann", 5)];
    let mut set = set(vec![rule(
        "tenant",
        vec![path("/t/{who}/** /**")],
        Action::Use { target: Target::Map { name: "m".into(), map: 0, key, otherwise }, by: None },
    )]);
    set.maps = vec![Map {
        name: "m".into(),
        entries: entries.iter().map(|(key, pool)| ((*key).into(), format!("p{pool}").into())).collect(),
        pools: entries.iter().map(|(_, pool)| *pool).collect(),
        file: "lists/m.map".into(),
        place: place(),
    }];
    compile(&set).0
}

#[test]
fn a_map_has_its_keys_as_they_arrive() {
    let found = |key: Key, otherwise: Option<usize>, head: &Head<'_>| {
        let table = tenants(key, otherwise);
        let rule = table.section(Kind::Http, head.host).unwrap().decide_with(None, head, &mut || 0).unwrap();
        let Action::Use { target, .. } = rule.action() else { panic!("another action") };
        pool(target, head, rule, &mut || 0)
    };
    assert_eq!(found(Key::Host, None, &get("/")), Some(1));
    assert_eq!(found(Key::Path, None, &get("/caf%C3%A9")), Some(2));
    assert_eq!(found(Key::Source, None, &get("/")), Some(3));
    let mapped = Head { source: "::ffff:192.0.2.1".parse().unwrap(), ..get("/") };
    assert_eq!(found(Key::Source, None, &mapped), Some(3));
    let six = Head { source: "2001:db8::1".parse().unwrap(), ..get("/") };
    assert_eq!(found(Key::Source, None, &six), Some(4));
    assert_eq!(found(Key::Capture("who".into()), None, &get("/t/Ann/x")), Some(5));
    assert_eq!(found(Key::Capture("who".into()), None, &get("/t/ann/x")), None, "case counts");
    assert_eq!(found(Key::Capture("who".into()), Some(0), &get("/t/ann/x")), Some(0));
    let fields = [field("x-tenant", "Ann")];
    let tenant = Head { fields: &fields, ..get("/") };
    assert_eq!(found(Key::Header("x-tenant".into()), None, &tenant), Some(5));
    assert_eq!(found(Key::Header("x-tenant".into()), None, &get("/")), None, "there is no such field");
    assert_eq!(found(Key::Header("x-tenant".into()), Some(7), &get("/")), Some(7));
}

#[test]
fn rewritten_paths_are_valid_and_stay_where_they_point() {
    let rewritten = |pattern: &str, parts: &[&str], policy: PathPolicy, head: &Head<'_>| {
        let mut own = rule("a", vec![path(pattern)], to_pool(0));
        own.refinements = vec![Refinement::Rewrite(template(parts))];
        let mut set = set(vec![own]);
        set.sections[0].paths = policy;
        let table = compile(&set).0;
        let rule = table.section(Kind::Http, head.host).unwrap().decide_with(None, head, &mut || 0).unwrap();
        let mut out = Vec::new();
        let good = rule.refined().unwrap().target(rule, head, &mut out);
        good.then(|| String::from_utf8(out).unwrap())
    };
    let safe = |pattern: &str, parts: &[&str], path: &'static str, query: &'static str| {
        rewritten(pattern, parts, PathPolicy::Safe, &Head { query, ..get(path) })
    };
    assert_eq!(safe("/old/{x}", &["/new/", "{x}"], "/old/a%2Fb", "q=1").as_deref(), Some("/new/a%2Fb?q=1"));
    assert_eq!(safe("/old/{x}", &["/new?id=", "{x}", "&b"], "/old/a", "q=1").as_deref(), Some("/new?id=a&b"));
    assert_eq!(safe("/old/{x}", &["/new?"], "/old/a", "q=1").as_deref(), Some("/new"), "a query may be dropped");
    // One parameter stays one, and a path no query.
    assert_eq!(safe("/old/{x}", &["/new?id=", "{x}"], "/old/a&b=1+2", "").as_deref(), Some("/new?id=a%26b%3D1%2B2"));
    assert_eq!(safe("/old/{x}", &["/", "{x}"], "/old/a%3Fb", "").as_deref(), Some("/a%3Fb"));
    assert_eq!(safe("~^/x(.*)$", &["/%7ey/", "$1"], "/xa/b", "").as_deref(), Some("/~y/a/b"), "normalised");
    // Segments that the pattern has cut out of longer ones.
    for path in ["/x../secret", "/x.", "/x./a", "/x../"] {
        assert_eq!(safe("~^/x(.*)$", &["/y/", "$1"], path, ""), None, "{path}");
    }
    let as_is = |path: &'static str| rewritten("~^/x(.*)$", &["/y", "$1"], PathPolicy::AsIs, &get(path));
    assert_eq!(as_is("/x/%7e%zz").as_deref(), Some("/y/%7e%25zz"));
    assert_eq!((as_is("/x/../a"), as_is("/x/%2e%2E/a"), as_is("/x/.%2e")), (None, None, None));
    assert_eq!(as_is("/x/...").as_deref(), Some("/y/..."));
}
