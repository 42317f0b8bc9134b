//! Clients come to the server they were at: by cookies, by what else they show, and whatever happens to Reeve or to
//! the servers meanwhile.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::farm::h2::Session;
use crate::farm::ports::Port;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Answer, Authority, Client, Origin, Reeve, among_others, get, raw, until};
use crate::reload::{echo, upgrade as websocket};
use crate::upgrade::Service;

const RULES: &str = "http *\n  all : any  use web\n";
const STATE: &str = "[state]\npath = \"state\"\n";

/// Two servers in turn, and what the pool says besides.
fn config(origins: &[Origin; 2], more: &str) -> String {
    let servers = [("s1", origins[0].address()), ("s2", origins[1].address())];
    format!("{STATE}{}{more}\n", pool("web", "rr", &servers))
}

fn origins() -> [Origin; 2] {
    [Origin::start("s1"), Origin::start("s2")]
}

/// The cookies that an answer sets: names, values and attributes.
fn set_cookies(answer: &Answer) -> Vec<String> {
    answer.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.clone()).collect()
}

/// `NAME=VALUE` of the only cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    let all = set_cookies(answer);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].split(';').next().unwrap_or_default().to_owned()
}

fn with_cookie(address: &str, target: &str, cookie: &str) -> Answer {
    get(address, target, &[("Cookie", cookie)])
}

/// Where requests with these fields arrive, eight times.
fn where_to(address: &str, target: &str, fields: &[(&str, &str)]) -> Vec<String> {
    let mut all: Vec<String> = (0..8).map(|_| get(address, target, fields).origin().to_owned()).collect();
    all.dedup();
    all
}

fn results(reeve: &Reeve, result: &str) -> f64 {
    reeve.metric(&format!("reeve_affinity_total{{pool=\"web\",result=\"{result}\"}}")).unwrap_or_default()
}

#[test]
fn a_cookie_of_our_own_is_set_once_and_no_server_sees_it() {
    let _turn = among_others();
    let origins = origins();
    let reeve = Reeve::start("insert", &config(&origins, "affinity = { cookie = \"REEVE\" }"), RULES);
    let address = reeve.address();
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let first = get(&address, "/", &[]);
        let all = set_cookies(&first);
        assert!(all[0].ends_with("; Path=/; HttpOnly; SameSite=Lax") && all[0].len() == 6 + 22 + 32, "{all:?}");
        cookies.push((cookie(&first), first.origin().to_owned()));
    }
    assert_ne!(cookies[0], cookies[1], "there is one for each server");
    for (own, origin) in &cookies {
        for _ in 0..4 {
            let answer = with_cookie(&address, "/x", &format!("a=1; {own}; b=2"));
            assert_eq!((answer.origin(), set_cookies(&answer).len()), (&**origin, 0));
            assert!(answer.text().contains("\r\nCookie: a=1; b=2\r\n"), "{}", answer.text());
        }
        assert!(
            !with_cookie(&address, "/x", own).text().to_lowercase().contains("cookie"),
            "nothing is left of the field"
        );
        let mut client = Client::connect(&address);
        client
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: a\r\nCookie: {own}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .expect("sent");
        let opened = client.head().expect("a head");
        assert_eq!((opened.status, opened.origin()), (101, &**origin));
        echo(&mut client);
        let reply = Session::connect(&address);
        let request = http::Request::get(format!("http://{address}/")).header("cookie", "a=1").header("cookie", own);
        let reply = reply.ask(request.body(()).expect("a request"), None).expect("an answer");
        assert_eq!((reply.field("x-origin"), reply.field("set-cookie")), (&**origin, ""));
        assert!(reply.text().contains("\r\nCookie: a=1\r\n"), "{}", reply.text());
    }
    // Over HTTP/2 and with a WebSocket it is set, too.
    let reply = Session::connect(&address).get("/").expect("an answer");
    assert!(reply.field("set-cookie").starts_with("REEVE="));
    let mut client = Client::connect(&address);
    websocket(&mut client);
    until("all is counted", || (results(&reeve, "hit") == 14.0 && results(&reeve, "new") >= 3.0).then_some(()));
    // What was not made here, or was bent, is nothing.
    let bent = cookies[0].0.trim_start_matches("REEVE=").chars().rev().collect::<String>();
    for forged in ["REEVE=s1", "REEVE=", &format!("REEVE={}", &bent[..22]), "REEVE=AAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = with_cookie(&address, "/", forged);
        assert!(cookie(&answer).starts_with("REEVE="), "{forged}");
        assert!(!answer.text().contains("REEVE"));
    }
    until("forgeries are counted", || (results(&reeve, "forged") == 4.0).then_some(()));
    until("the log says it", || {
        let words: Vec<_> = reeve.log().iter().map(|line| line["affinity"].clone()).collect();
        ["new", "hit", "forged"].iter().all(|word| words.iter().any(|said| said == word)).then_some(())
    });
}

#[test]
fn in_panic_a_client_stays_where_it_was() {
    let _turn = among_others();
    let (origins, nobody) = (origins(), Port::free());
    // Both serve, and what is asked how they are does not.
    let more = format!(
        "affinity = {{ cookie = \"REEVE\" }}\noutlier = {{ panic = \"50%\" }}\n\
         check = {{ tcp = true, port = {}, interval = \"50ms\", rise = 1, fall = 1 }}",
        nobody.number
    );
    let reeve = Reeve::start("panic-affinity", &config(&origins, &more), RULES);
    until("all are used", || (reeve.metric("reeve_pool_panic{pool=\"web\"}") == Some(1.0)).then_some(()));
    let first = get(&reeve.address(), "/", &[]);
    assert_eq!(first.status, 200);
    let (own, server) = (cookie(&first), first.origin().to_owned());
    assert_eq!(where_to(&reeve.address(), "/", &[("Cookie", &own)]), [server]);
    until("they are counted", || (results(&reeve, "hit") == 8.0).then_some(()));
}

#[test]
fn over_tls_the_cookie_is_secure() {
    let _turn = among_others();
    let (origins, port) = (origins(), Port::free());
    let listener = format!(
        "[listen.secure]\naddress = \"{}\"\npool = \"web\"\ntls = {{ certificates = \"certs\" }}\n",
        port.address()
    );
    let site = Site::write("secure", &(config(&origins, "affinity = { cookie = \"REEVE\" }") + &listener), RULES);
    let authority = Authority::new("the test's own");
    authority.issue("web", &["t.example"]).write(&site.folder, "certs/site");
    let _reeve = Reeve::run(site);
    let client = Arc::new(authority.client());
    let mut secure = until("it listens", || Client::secure(&port.address(), "t.example", &client).ok());
    let answer = secure.request("GET", "/", &[]).expect("an answer");
    assert!(set_cookies(&answer)[0].ends_with("; SameSite=Lax; Secure"), "{:?}", set_cookies(&answer));
}

#[test]
fn the_applications_cookie_names_the_server() {
    let _turn = among_others();
    let origins = origins();
    for mode in ["rewrite", "prefix"] {
        let affinity = format!("affinity = {{ cookie = \"SID\", mode = \"{mode}\" }}");
        let reeve = Reeve::start(mode, &config(&origins, &affinity), RULES);
        let address = reeve.address();
        assert!(set_cookies(&get(&address, "/", &[])).is_empty(), "the application has no session");
        for _ in 0..2 {
            let login = get(&address, "/login/abc~1", &[]);
            let all = set_cookies(&login);
            assert_eq!((all.len(), &*all[0]), (2, "other=1"));
            let (value, attributes) = all[1].split_once(';').expect("attributes");
            assert_eq!(attributes, " Path=/");
            // A token says no name: 22 letters that look like dice.
            let session = if mode == "prefix" { "~abc~1" } else { "" };
            assert!(value.ends_with(session) && value.len() == "SID=".len() + 22 + session.len(), "{value}");
            for _ in 0..4 {
                let answer = with_cookie(&address, "/x", &format!("other=1; {value}"));
                assert_eq!(answer.origin(), login.origin());
                let seen =
                    if mode == "prefix" { "Cookie: other=1; SID=abc~1\r\n".into() } else { format!("{value}\r\n") };
                assert!(answer.text().contains(&seen), "{}", answer.text());
            }
        }
        // A logout goes through as it is.
        assert_eq!(set_cookies(&get(&address, "/login/", &[])), ["other=1", "SID=; Path=/"]);
        let reply = Session::connect(&address).get("/login/x").expect("an answer");
        let all: Vec<&str> = reply.fields.get_all("set-cookie").iter().filter_map(|v| v.to_str().ok()).collect();
        assert_eq!((all.len(), all[0]), (2, "other=1"));
    }
}

#[test]
fn a_session_of_the_application_is_learnt_and_found_wherever_it_stands() {
    let _turn = among_others();
    let origins = origins();
    let affinity = "affinity = { cookie = \"SID\", mode = \"learn\", header = \"X-Session\", query = \"session\" }";
    let reeve = Reeve::start("learn", &config(&origins, affinity), RULES);
    let address = reeve.address();
    for session in ["one", "two", "three"] {
        let login = get(&address, &format!("/login/{session}"), &[]);
        assert!(set_cookies(&login).contains(&format!("SID={session}; Path=/")), "it stays as it is");
        let home = [login.origin()];
        assert_eq!(where_to(&address, "/", &[("Cookie", &format!("a=b; SID={session}"))]), home);
        assert_eq!(where_to(&address, "/", &[("X-Session", session)]), home);
        assert_eq!(where_to(&address, &format!("/x?session={session}"), &[]), home);
        assert_eq!(where_to(&address, &format!("/x;SID={session}/y"), &[]), home);
    }
    assert!(where_to(&address, "/", &[("Cookie", "SID=never")]).len() > 2, "what no server set binds nobody");
    assert!(results(&reeve, "none") >= 8.0);
}

#[test]
fn clients_are_known_by_their_address_or_by_what_they_say() {
    let _turn = among_others();
    let origins = origins();
    let by_capture = "http *\n  user : path /users/{who}/**  use web\n  all : any  use web\n";
    for (affinity, rules, fields, target) in [
        ("{ header = \"x-user\" }", RULES, Some(("x-user", "joe")), "/"),
        ("{ query = \"user\" }", RULES, None, "/?user=joe"),
        ("{ capture = \"who\" }", by_capture, None, "/users/joe/x"),
        ("{ source = \"24\" }", RULES, None, "/"),
    ] {
        let reeve = Reeve::start("known", &config(&origins, &format!("affinity = {affinity}")), rules);
        let address = reeve.address();
        let fields: Vec<(&str, &str)> = fields.into_iter().collect();
        assert_eq!(where_to(&address, target, &fields).len(), 1, "{affinity}");
        assert_eq!(results(&reeve, "hit"), 7.0, "{affinity}");
        if affinity.contains("source") {
            let from = |source: &str| {
                let mut client = Client::connect_from(&address, Some(source), None);
                client.request("GET", "/", &[]).expect("an answer").origin().to_owned()
            };
            let home = from("127.0.0.1");
            assert!((2..9).all(|last| from(&format!("127.0.0.{last}")) == home), "one net");
            let nets: std::collections::HashSet<String> = (1..9).map(|net| from(&format!("127.0.{net}.1"))).collect();
            assert_eq!(nets.len(), 2, "other nets have their own");
        } else {
            assert!(where_to(&address, "/users", &[]).len() > 2, "who shows nothing is bound to nothing");
        }
    }
}

#[test]
fn a_group_of_pools_has_one_server_for_a_client() {
    let _turn = among_others();
    let origins = origins();
    let (mail, mail_port) = ([raw::serve(say("s1")), raw::serve(say("s2"))], Port::free());
    let listener =
        format!("[listen.mail]\naddress = \"{}\"\nprotocol = \"tcp\"\npool = \"mail\"\n", mail_port.address());
    let text = config(&origins, "affinity-group = \"home\"")
        // In another order: the name decides.
        + &pool("mail", "rr", &[("s2", mail[1].clone()), ("s1", mail[0].clone())])
        + "affinity-group = \"home\"\n"
        + &listener;
    let reeve = Reeve::start("group", &text, RULES);
    for client in 1..7 {
        let source = format!("127.0.7.{client}");
        let tcp = || {
            let mut client = Client::connect_from(&mail_port.address(), Some(&source), None).into_inner();
            raw::line(&mut client).trim().to_owned()
        };
        let http = || {
            let mut client = Client::connect_from(&reeve.address(), Some(&source), None);
            client.request("GET", "/", &[]).expect("an answer").origin().to_owned()
        };
        let home = if client % 2 == 0 { http() } else { tcp() };
        assert!((0..3).all(|_| http() == home && tcp() == home), "client {client} of {home}");
    }
    until("both are counted", || {
        let mail = reeve.metric("reeve_affinity_total{pool=\"mail\",result=\"hit\"}")?;
        (mail == 18.0 && results(&reeve, "hit") == 18.0).then_some(())
    });
}

fn say(name: &'static str) -> impl Fn(std::net::TcpStream) + Clone + Send + 'static {
    move |mut stream| drop(writeln!(stream, "{name}"))
}

/// A pool whose servers are looked at often.
fn checked(origins: &[Origin; 2], affinity: &str) -> String {
    let check = "check = { http = \"/health\", interval = \"100ms\", rise = 1, fall = 1 }";
    config(origins, &format!("affinity = {affinity}\n{check}"))
}

fn server_is(reeve: &Reeve, name: &str, up: f64) {
    let line = format!("reeve_server_up{{pool=\"web\",server=\"{name}\"}}");
    until(&format!("{name} is {up}"), || reeve.metric(&line).filter(|value| *value == up));
}

#[test]
fn a_client_whose_server_is_down_goes_to_another_or_to_none() {
    let _turn = among_others();
    let origins = origins();
    let reeve = Reeve::start("down", &checked(&origins, "{ cookie = \"REEVE\" }"), RULES);
    let address = reeve.address();
    let bound =
        |to: &str| until("a cookie", || Some(get(&address, "/", &[])).filter(|a| a.origin() == to).map(|a| cookie(&a)));
    let (first, silent) = (bound("s1"), bound("s1"));
    origins[0].set_sick(true);
    server_is(&reeve, "s1", 0.0);
    let moved = with_cookie(&address, "/", &first);
    assert_eq!(moved.origin(), "s2");
    let second = cookie(&moved);
    origins[0].set_sick(false);
    server_is(&reeve, "s1", 1.0);
    assert_eq!(where_to(&address, "/", &[("Cookie", &second)]), ["s2"], "it stays where it went");
    assert_eq!(
        where_to(&address, "/", &[("Cookie", &silent)]),
        ["s1"],
        "who did not come meanwhile finds his server back"
    );
    assert_eq!(results(&reeve, "moved"), 1.0);

    reeve.reload(&checked(&origins, "{ cookie = \"REEVE\", when-down = \"refuse\" }"), RULES);
    origins[0].set_sick(true);
    server_is(&reeve, "s1", 0.0);
    let refused = with_cookie(&address, "/", &silent);
    assert_eq!((refused.status, set_cookies(&refused).len()), (503, 0));
    assert_eq!(get(&address, "/", &[]).origin(), "s2", "others are served");
    origins[0].set_sick(false);
    server_is(&reeve, "s1", 1.0);
    assert_eq!(where_to(&address, "/", &[("Cookie", &silent)]), ["s1"]);
    until("it is counted", || (results(&reeve, "refused") == 1.0).then_some(()));
}

#[test]
fn a_drained_server_keeps_its_clients_and_gets_no_new_ones() {
    let _turn = among_others();
    let origins = origins();
    let reeve = Reeve::start("drained", &config(&origins, "affinity = { source = \"32\" }"), RULES);
    let address = reeve.address();
    let from = |source: &str| {
        let mut client = Client::connect_from(&address, Some(source), None);
        client.request("GET", "/", &[]).expect("an answer").origin().to_owned()
    };
    let homes: Vec<(String, String)> = (1..5).map(|n| format!("127.0.3.{n}")).map(|s| (s.clone(), from(&s))).collect();
    assert!(homes.iter().any(|(_, home)| home == "s1"));
    let (code, _, wrong) = reeve.order(&["drain", "web/s1"]);
    assert_eq!(code, 0, "{wrong}");
    for (source, home) in &homes {
        assert_eq!(from(source), *home);
    }
    assert!((1..9).all(|n| from(&format!("127.0.4.{n}")) == "s2"));
}

#[test]
fn a_retry_takes_the_client_along() {
    let _turn = among_others();
    let (origin, gone) = (Origin::start("s2"), Port::free());
    let servers = [("s1", gone.address()), ("s2", origin.address())];
    let web = |servers: &[(&str, String)]| {
        format!("{STATE}{}affinity = {{ cookie = \"REEVE\" }}\n", pool("web", "rr", servers))
    };
    let both = Origin::start("s1");
    let reeve = Reeve::start("retried", &web(&[("s1", both.address()), servers[1].clone()]), RULES);
    let address = reeve.address();
    let bound = until("a cookie", || Some(get(&address, "/", &[])).filter(|a| a.origin() == "s1").map(|a| cookie(&a)));
    // Another address is the same server; this one cannot be reached.
    reeve.reload(&web(&servers), RULES);
    let moved = with_cookie(&address, "/", &bound);
    assert_eq!((moved.status, moved.origin()), (200, "s2"));
    assert_ne!(cookie(&moved), bound);
    assert_eq!(where_to(&address, "/", &[("Cookie", &cookie(&moved))]), ["s2"]);
}

/// Clients by cookie, by session and by address, of whom it is known where they are.
struct Clients {
    cookies: Vec<(String, String)>,
    sources: Vec<(String, String)>,
}

const KEPT: &str = "http *\n  cookies : path /cookie/**  use web\n  all : any  use sources\n";

fn kept(origins: &[Origin; 2]) -> String {
    let servers = [("s1", origins[0].address()), ("s2", origins[1].address())];
    config(origins, "affinity = { cookie = \"REEVE\" }")
        + &pool("sources", "rr", &servers)
        + "affinity = { source = \"32\" }\n"
}

impl Clients {
    fn of(address: &str) -> Clients {
        let cookies = (0..4).map(|_| get(address, "/cookie/", &[]));
        let cookies = cookies.map(|answer| (cookie(&answer), answer.origin().to_owned())).collect();
        let sources = (1..9).map(|n| format!("127.0.5.{n}"));
        let sources = sources.map(|source| (source.clone(), from(address, &source))).collect();
        Clients { cookies, sources }
    }

    fn are_at_home(&self, address: &str) {
        for (cookie, home) in &self.cookies {
            assert_eq!(where_to(address, "/cookie/", &[("Cookie", cookie)]), [&**home]);
        }
        for (source, home) in &self.sources {
            assert_eq!(from(address, source), *home, "{source}");
        }
        let new: std::collections::HashSet<String> = (1..9).map(|n| from(address, &format!("127.0.6.{n}"))).collect();
        assert_eq!(new.len(), 2, "new ones go everywhere");
    }
}

fn from(address: &str, source: &str) -> String {
    let mut client = Client::connect_from(address, Some(source), None);
    client.request("GET", "/", &[]).expect("an answer").origin().to_owned()
}

#[test]
fn clients_stay_where_they_are_over_reloads() {
    let _turn = among_others();
    let origins = origins();
    let reeve = Reeve::start("reloads", &kept(&origins), KEPT);
    let address = reeve.address();
    let clients = Clients::of(&address);
    reeve.reload(&format!("{}\n[timeouts]\nconnect = \"2s\"\n", kept(&origins)), KEPT);
    clients.are_at_home(&address);
    // Another size of the table, other servers before them, and new addresses.
    let others = [Origin::start("s1"), Origin::start("s2")];
    let servers = [("s2", others[1].address()), ("s0", origins[0].address()), ("s1", others[0].address())];
    let text = format!("{STATE}{}", pool("web", "rr", &servers))
        + "affinity = { cookie = \"REEVE\" }\n"
        + &pool("sources", "rr", &servers)
        + "affinity = { source = \"32\", entries = 5000 }\n";
    reeve.reload(&text, KEPT);
    for (source, home) in &clients.sources {
        assert_eq!(from(&address, source), *home, "{source}");
    }
    for (cookie, home) in &clients.cookies {
        assert_eq!(where_to(&address, "/cookie/", &[("Cookie", cookie)]), [&**home]);
    }
    assert!(others.iter().all(|other| other.requests() > 0), "at their new addresses");
}

#[test]
fn clients_stay_where_they_are_over_a_restart() {
    let _turn = among_others();
    let origins = origins();
    let mut reeve = Reeve::start("restart", &kept(&origins), KEPT);
    let address = reeve.address();
    let clients = Clients::of(&address);
    reeve.process.signal(Signal::TERM);
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
    reeve.again();
    clients.are_at_home(&address);
    // Half a file is half of what was known: it starts, and says so.
    reeve.process.signal(Signal::TERM);
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
    let file = reeve.site.folder.path().join("state/affinity");
    let whole = std::fs::read(&file).expect("the file of clients");
    std::fs::write(&file, &whole[..whole.len() - 30]).expect("a torn file");
    reeve.again();
    for (cookie, home) in &clients.cookies {
        assert_eq!(where_to(&address, "/cookie/", &[("Cookie", cookie)]), [&**home]);
    }
    reeve.process.says("the file of clients is damaged");
}

#[test]
fn clients_stay_where_they_are_over_an_upgrade() {
    let _turn = among_others();
    let origins = origins();
    let service = Service::start(Site::write("affinity-upgrade", &kept(&origins), KEPT));
    let address = service.reeve.address();
    let clients = Clients::of(&address);
    let before = service.pid();
    let file = service.reeve.site.folder.path().join("state/affinity");
    assert!(!file.exists(), "what is known goes from one process to the other by itself");
    assert_eq!(service.upgrade()["done"], true);
    assert_ne!(service.pid(), before);
    clients.are_at_home(&address);
}

#[test]
fn who_waits_over_a_reload_still_finds_his_server() {
    let _turn = among_others();
    let origins = origins();
    let text = |order: [usize; 2]| {
        let server = |at: usize| {
            format!("{{ name = \"s{}\", address = \"{}\", max-requests = 1 }}", at + 1, origins[at].address())
        };
        format!(
            "{STATE}[pool.web]\nscheduler = \"rr\"\nservers = [{}, {}]\naffinity = {{ cookie = \"REEVE\" }}\n\
             queue = {{ limit = 10, timeout = \"20s\" }}\n",
            server(order[0]),
            server(order[1])
        )
    };
    let reeve = Reeve::start("waiting", &text([0, 1]), RULES);
    let address = reeve.address();
    let bound = |to: &str| {
        until("a cookie", || Some(get(&address, "/", &[])).filter(|a| a.origin() == to).map(|answer| cookie(&answer)))
    };
    let cookies = [bound("s1"), bound("s2")];
    let begin = |target: &str, cookie: &str| {
        let mut client = Client::connect(&address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).expect("sent");
        client
    };
    let mut busy: Vec<Client> = cookies.iter().map(|own| begin("/hold", own)).collect();
    until("both are full", || (origins.iter().all(|origin| origin.held() == 1)).then_some(()));
    let mut waiting = begin("/", &cookies[0]);
    until("it waits", || reeve.metric("reeve_queue{pool=\"web\"}").filter(|count| *count == 1.0));
    reeve.reload(&text([1, 0]), RULES);
    // Were the other one free first, it would serve this once.
    origins[0].release();
    let answer = waiting.answer("GET").expect("an answer");
    assert_eq!((answer.status, answer.origin(), set_cookies(&answer).len()), (200, "s1", 0));
    origins[1].release();
    // What came before may have been about to leave as these came, so that each is where there was room.
    let held = busy.iter_mut().map(|client| client.answer("GET").expect("an answer").origin().to_owned());
    let mut held: Vec<String> = held.collect();
    held.sort();
    assert_eq!(held, ["s1", "s2"]);
}
