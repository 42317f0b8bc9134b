//! What refines a rule: another path, limits, times and tries of its own.

use crate::farm::h2_origin::H2Origin;
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, until};

#[test]
fn a_server_gets_the_rewritten_path_and_the_log_keeps_the_clients() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), H2Origin::start(100));
    let config = pool("web", "rr", &[("one", one.address())])
        + &pool("h2", "rr", &[("two", two.address())])
        + "protocol = \"h2c\"\n";
    let rules = r#"
http *
  api  : path /api/{version}/**      use h2
           rewrite /v/{version}?from={version}
  cut  : path ~"^/cut(.*)$"          use web
           rewrite /x/$1
  old  : path /old/{x}               use web
           rewrite /new/{x}
  long : path /long/{x}              use web
           rewrite /{x}{x}{x}
  star : method OPTIONS              use web
           rewrite /star
  rest : any                         use web
"#;
    let reeve = Reeve::start("rewrite", &config, rules);
    let mut client = Client::connect(&reeve.address());
    let mut line = |method: &str, target: &str| {
        let answer = client.request(method, target, &[("Host", "a.example")]).expect("an answer");
        (answer.status, answer.text().lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(line("GET", "/old/a%2fb?q=1&r"), (200, "GET /new/a%2Fb?q=1&r HTTP/1.1".to_owned()));
    assert_eq!(line("GET", "/api/2&x/list?q=1"), (200, "GET http://a.example/v/2&x?from=2%26x".to_owned()));
    assert_eq!(line("GET", "/cut/a"), (200, "GET /x//a HTTP/1.1".to_owned()));
    assert_eq!(line("OPTIONS", "*"), (200, "OPTIONS * HTTP/1.1".to_owned()), "it asks about the server");
    assert_eq!(line("GET", "/cut../secret").0, 400);
    assert_eq!(line("GET", &format!("/long/{}", "x".repeat(6000))).0, 414);
    let head = get(&reeve.address(), "/old/a", &[("Host", "a.example")]).text();
    assert!(head.contains("\r\nX-Forwarded-Host: a.example\r\n"), "{head}");
    let seen = until("the lines in the log", || Some(reeve.log()).filter(|log| log.len() == 7));
    let first: Vec<_> = seen.iter().filter(|line| line["rule"] == "site.rules:old").collect();
    assert_eq!((&first[0]["path"], &first[0]["query"]), (&"/old/a%2fb".into(), &"q=1&r".into()));
}
