//! More than the servers may have at once: bounds, the queue of a pool, and who goes first.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use crate::farm::h2::Session;
use crate::farm::h2_origin::H2Origin;
use crate::farm::ports::Port;
use crate::farm::raw::{accepting, exactly, line, serve};
use crate::farm::reeve::pool;
use crate::farm::{Answer, Client, Origin, Reeve, alone, among_others, get, observe, until};

/// A server that serves when the test says so.
struct Turnstile {
    address: String,
    arrivals: Receiver<TcpStream>,
}

/// A request that it has got.
struct Arrived {
    stream: TcpStream,
    path: String,
}

impl Turnstile {
    fn open() -> Turnstile {
        let (address, arrivals) = accepting();
        Turnstile { address, arrivals }
    }

    fn next(&self) -> Arrived {
        let mut stream = self.arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
        let path = line(&mut stream).split(' ').nth(1).unwrap_or_default().to_owned();
        while !line(&mut stream).trim_end().is_empty() {}
        Arrived { stream, path }
    }
}

impl Arrived {
    fn serve(mut self) -> String {
        let _ = self.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        self.path
    }
}

fn ask(reeve: &Reeve, path: &str) -> JoinHandle<Answer> {
    let (address, path) = (reeve.address(), path.to_owned());
    spawn(move || get(&address, &path, &[("Host", "a.example")]))
}

fn waiting(reeve: &Reeve, count: usize) {
    until(&format!("{count} that wait"), || {
        (reeve.metric("reeve_queue{pool=\"web\"}") == Some(count as f64)).then_some(())
    });
}

const PRIORITIES: &str = "
http *
  high : path /high/**  use web
           priority 10
  low  : path /low/**   use web
           priority -10
  rest : any            use web
";

#[test]
fn who_waits_is_served_by_priority_and_then_in_turn() {
    let _turn = among_others();
    let server = Turnstile::open();
    let config = format!(
        "[pool.web]\nqueue = {{ limit = 5, timeout = \"20s\" }}\n\
         servers = [{{ name = \"one\", address = \"{}\", max-connections = 1 }}]\n",
        server.address
    );
    let reeve = Reeve::start("queue-order", &config, PRIORITIES);
    let mut clients = vec![ask(&reeve, "/first")];
    let mut arrived = server.next();
    // One after the other, wherever the kernel puts them: there are two workers.
    for (count, path) in ["/low/1", "/1", "/2", "/high/1", "/high/2"].into_iter().enumerate() {
        clients.push(ask(&reeve, path));
        waiting(&reeve, count + 1);
    }
    let refused = get(&reeve.address(), "/high/3", &[("Host", "a.example")]);
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("5")));

    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(arrived.serve());
        arrived = server.next();
    }
    order.push(arrived.serve());
    assert_eq!(order, ["/first", "/high/1", "/high/2", "/1", "/2", "/low/1"]);
    assert!(clients.into_iter().all(|client| client.join().expect("an answer").status == 200));
    waiting(&reeve, 0);
    let log = until("the lines in the log", || Some(reeve.log()).filter(|log| log.len() == 7));
    let of = |path: &str| log.iter().find(|line| line["path"] == path).expect("a line");
    assert!(of("/low/1")["t_queue"].as_f64() > of("/high/1")["t_queue"].as_f64());
    assert_eq!(of("/first")["t_queue"].as_f64(), Some(0.0));
    assert_eq!(
        (of("/high/3")["failure"].as_str(), of("/high/3")["side"].as_str()),
        (Some("queue-full"), Some("server"))
    );
    let counted = reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"queue-full\"}");
    assert_eq!(counted, Some(1.0));
}

#[test]
fn waiting_ends_in_time_or_with_the_client() {
    let _turn = among_others();
    let server = Turnstile::open();
    let config = |timeout: &str| {
        format!(
            "[pool.web]\nqueue = {{ timeout = \"{timeout}\" }}\nmax-requests = 1\n\
             servers = [{{ name = \"one\", address = \"{}\" }}]\n",
            server.address
        )
    };
    let reeve = Reeve::start("queue-time", &config("300ms"), PRIORITIES);
    let first = ask(&reeve, "/first");
    let arrived = server.next();
    let since = Instant::now();
    let late = get(&reeve.address(), "/late", &[("Host", "a.example")]);
    assert_eq!((late.status, late.field("retry-after")), (503, Some("5")));
    // Deadlines keep to ticks of 50 ms.
    assert!((250..3000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());

    reeve.reload(&config("20s"), PRIORITIES);
    // One that ends its connection, one that ends half of it, one that resets it.
    for end in ["close", "half", "reset"] {
        let mut client = Client::connect(&reeve.address());
        client.send(format!("GET /{end} HTTP/1.1\r\nHost: a.example\r\n\r\nGET /more HTTP/1.1\r\n")).expect("sent");
        waiting(&reeve, 1);
        match end {
            "half" => client.stream().shutdown(Shutdown::Write).expect("an end"),
            "reset" => end_by_reset(client.stream()),
            _ => {}
        }
        if end != "half" {
            drop(client);
        }
        waiting(&reeve, 0);
    }
    let session = Session::connect(&reeve.address());
    let request = http::Request::get("http://a.example/stream").body(()).expect("a request");
    let (answer, mut stream) = session.sender().send_request(request, true).expect("a stream");
    waiting(&reeve, 1);
    stream.send_reset(h2::Reason::CANCEL);
    waiting(&reeve, 0);
    drop(answer);
    // None of them has taken the place that they waited for.
    let last = ask(&reeve, "/last");
    waiting(&reeve, 1);
    assert_eq!(arrived.serve(), "/first");
    assert_eq!(server.next().serve(), "/last");
    assert!(first.join().expect("an answer").status == 200 && last.join().expect("an answer").status == 200);
    let gone = |line: &serde_json::Value| line["failure"] == "client-gone" && line["server"].is_null();
    until("four that left", || (reeve.log().iter().filter(|line| gone(line)).count() == 4).then_some(()));
}

/// Makes the end of a connection a reset.
fn end_by_reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket option");
}

#[test]
fn a_reload_is_seen_by_those_who_wait() {
    let _turn = among_others();
    let (one, two) = (Turnstile::open(), Turnstile::open());
    let server =
        |name: &str, of: &Turnstile| format!("{{ name = \"{name}\", address = \"{}\", max-requests = 1 }}", of.address);
    let config = |servers: &str| format!("[pool.web]\nqueue = {{ timeout = \"20s\" }}\nservers = [{servers}]\n");
    let reeve = Reeve::start("queue-reload", &config(&server("one", &one)), PRIORITIES);
    let first = ask(&reeve, "/first");
    let held = one.next();
    let (second, third) = (ask(&reeve, "/second"), ask(&reeve, "/third"));
    waiting(&reeve, 2);
    reeve.reload(&config(&format!("{}, {}", server("one", &one), server("two", &two))), PRIORITIES);
    let next = two.next();
    waiting(&reeve, 1);
    // All that are left are taken out of service: there is nothing to wait for.
    let (code, _, wrong) = reeve.order(&["drain", "web"]);
    assert_eq!(code, 0, "{wrong}");
    waiting(&reeve, 0);
    held.serve();
    next.serve();
    let mut answers: Vec<u16> = [first, second, third].map(|client| client.join().expect("an answer").status).into();
    answers.sort_unstable();
    assert_eq!(answers, [200, 200, 503]);
}

#[test]
fn connections_that_are_passed_on_wait_too() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let port = Port::free();
    let config = format!(
        "[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"web\"\n\n\
         [pool.web]\nmax-connections = 1\nqueue = {{ limit = 2, timeout = \"20s\" }}\n\
         servers = [{{ name = \"one\", address = \"{address}\" }}]\n",
        port.address()
    );
    let reeve = Reeve::start("queue-tcp", &config, PRIORITIES);
    let connect = |text: &[u8]| {
        let mut client = TcpStream::connect(port.address()).expect("a connection");
        client.write_all(text).expect("sent");
        client
    };
    let arrived = || {
        let mut server = arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
        let text = exactly(&mut server, 1);
        (server, text)
    };
    let first = connect(b"1");
    let (server, text) = arrived();
    assert_eq!(text, b"1");
    let (second, third) = (connect(b"2"), connect(b"3"));
    waiting(&reeve, 2);
    let mut refused = connect(b"4");
    assert_eq!(refused.read(&mut [0; 8]).unwrap_or(0), 0, "the queue is full");
    drop(second);
    waiting(&reeve, 1);
    drop((first, server));
    let (server, text) = arrived();
    assert_eq!(text, b"3");
    waiting(&reeve, 0);
    drop((third, server));
    let log = until("the end of all", || Some(reeve.log()).filter(|log| log.len() == 4));
    assert!(log.iter().any(|line| line["failure"] == "queue-full"), "{log:?}");
}

#[test]
fn connections_in_use_are_bounded_apart_from_requests() {
    let _turn = among_others();
    let server = H2Origin::start(100);
    let config = format!(
        "[pool.web]\nprotocol = \"h2c\"\nqueue = {{ timeout = \"20s\" }}\n\
         servers = [{{ name = \"one\", address = \"{}\", max-connections = 1 }}]\n",
        server.address()
    );
    let reeve = Reeve::start("queue-h2", &config, PRIORITIES);
    // On connections of their own, so that both workers get some: whoever has the connection shares it.
    let clients: Vec<_> = (0..40).map(|_| ask(&reeve, "/x")).collect();
    assert!(clients.into_iter().all(|client| client.join().expect("an answer").status == 200));
    // Idle, it does not count, whichever worker has it.
    waiting(&reeve, 0);
    let held = Session::connect(&reeve.address());
    let request = |path: &str| http::Request::get(format!("http://a.example{path}")).body(()).expect("a request");
    let (_answer, _stream) = held.sender().send_request(request("/hold"), true).expect("a stream");
    until("the request that is held", || (server.requests() == 41).then_some(()));
    assert_eq!(held.ask(request("/y"), None).expect("an answer").status, 200, "on the same connection");
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[test]
fn without_a_queue_nobody_waits_and_backups_are_for_those_that_are_down() {
    let _turn = among_others();
    let (one, spare) = (Origin::start("one"), Origin::start("spare"));
    let mut config = pool("web", "rr", &[("one", one.address())]);
    config = config.replace(" },\n]", ", max-requests = 1 },\n");
    config += &format!("  {{ name = \"spare\", address = \"{}\", backup = true }},\n]\n", spare.address());
    let reeve = Reeve::start("no-queue", &config, PRIORITIES);
    let held = ask(&reeve, "/hold");
    until("the request that is held", || (one.held() == 1).then_some(()));
    let refused = get(&reeve.address(), "/x", &[("Host", "a.example")]);
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert_eq!(reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"full\"}"), Some(1.0));
    let (code, _, wrong) = reeve.order(&["drain", "web/one"]);
    assert_eq!(code, 0, "{wrong}");
    let answer = get(&reeve.address(), "/x", &[("Host", "a.example")]);
    assert_eq!((answer.status, answer.origin()), (200, "spare"));
    one.release();
    assert_eq!(held.join().expect("an answer").status, 200);
}

#[test]
fn a_budget_bounds_the_retries_of_all_workers() {
    let _turn = among_others();
    let (one, gone) = (Origin::start("one"), Port::free());
    let config = pool("web", "rr", &[("gone", gone.address()), ("one", one.address())])
        + "retry = { attempts = 2, on = [\"connect\"], budget = \"10%\" }\n";
    let reeve = Reeve::start("budget", &config, PRIORITIES);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        // On connections of their own, so that both workers get some.
        let mut client = Client::connect(&reeve.address());
        for _ in 0..20 {
            statuses.push(client.request("GET", "/x", &[("Host", "a.example")]).expect("an answer").status);
        }
    }
    let failed = statuses.iter().filter(|status| **status == 502).count() as f64;
    let served = statuses.iter().filter(|status| **status == 200).count() as f64;
    assert_eq!(failed + served, 200.0);
    let retries = reeve.metric("reeve_retries_total{pool=\"web\",reason=\"connect\"}").expect("retries");
    // Thirty in ten seconds are always allowed, and these took less than two such spans.
    assert!((30.0..=60.0).contains(&retries), "{retries}");
    assert_eq!(reeve.metric("reeve_retries_refused_total{pool=\"web\"}"), Some(failed));
}

#[test]
fn rules_have_times_of_their_own_for_all_that_they_wait_for() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let port = Port::free();
    let config = format!(
        "[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\nrules = [\"rules/site.rules\"]\n\n\
         [pool.web]\nmax-requests = 1\nqueue = {{ timeout = \"60s\" }}\n\
         servers = [{{ name = \"one\", address = \"{address}\" }}]\n",
        port.address()
    );
    let rules = "
http *
  soon : path /soon  use web
           timeout queue 200ms
  rest : any         use web
tcp
  all  : any         use web
           timeout idle 200ms
           priority 3
";
    let reeve = Reeve::start("rule-times", &config, rules);
    // A connection that is passed on, and silent for longer than its rule has it.
    let mut raw = TcpStream::connect(port.address()).expect("a connection");
    raw.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
    assert_eq!(raw.read(&mut [0; 8]).expect("an end, in time"), 0);
    drop(arrivals.recv_timeout(Duration::from_secs(10)));
    let first = ask(&reeve, "/first");
    let held = arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
    let late = get(&reeve.address(), "/soon", &[("Host", "a.example")]);
    assert_eq!(late.status, 503);
    drop(held);
    assert_eq!(first.join().expect("an answer").status, 502);
    let ended = |line: &serde_json::Value| line["failure"] == "idle" && line["rule"] == "site.rules:all";
    until("the line of the raw connection", || reeve.log().iter().any(ended).then_some(()));
}

/// Requests at once that the server of the next test is made for, and how long each of so many takes.
const CAPACITY: usize = 4;
const SERVICE: Duration = Duration::from_millis(20);

/// A server that works on `CAPACITY` requests at once, and gets slower the more there are beyond: with `c` of them each
/// takes `(c / CAPACITY)^2` times as long, as when memory, locks or caches are short. So twice as many at once are half as
/// many served.
fn bounded_server() -> String {
    let inside = Arc::new(AtomicUsize::new(0));
    serve(move |mut stream| {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0; 1];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return,
                }
            }
            let crowd = (inside.fetch_add(1, Ordering::SeqCst) + 1).max(CAPACITY) as f64 / CAPACITY as f64;
            // The server's work: nobody says anything in this time.
            let (_nobody, says) = channel::<()>();
            let _ = says.recv_timeout(SERVICE.mul_f64(crowd * crowd));
            inside.fetch_sub(1, Ordering::SeqCst);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    })
}

/// How many requests are answered by 200 while so many clients ask one after the other, and the longest wait for one.
fn served(reeve: &Reeve, clients: usize, time: Duration) -> (usize, Duration) {
    let (stop, total) = (AtomicBool::new(false), AtomicUsize::new(0));
    let longest = std::thread::scope(|scope| {
        let ask = || {
            let mut client = Client::connect(&reeve.address());
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let since = Instant::now();
                let answer = client.request("GET", "/", &[("Host", "a.example")]).expect("an answer");
                if answer.status == 200 && !stop.load(Ordering::SeqCst) {
                    total.fetch_add(1, Ordering::SeqCst);
                    longest = longest.max(since.elapsed());
                }
            }
            longest
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        observe(time, "clients that ask", || true);
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().expect("a client")).max().unwrap_or_default()
    });
    (total.load(Ordering::SeqCst), longest)
}

#[test]
fn with_a_queue_a_crowd_is_served_as_fast_as_the_server_can() {
    let _turn = alone();
    let config = |bounds: &str| {
        format!("[pool.web]\n{bounds}\nservers = [{{ name = \"one\", address = \"{}\" }}]\n", bounded_server())
    };
    let queue = format!("max-requests = {CAPACITY}\nqueue = {{ limit = 100, timeout = \"2s\" }}");
    let with = Reeve::start("crowd-queue", &config(&queue), PRIORITIES);
    let without = Reeve::start("crowd", &config(""), PRIORITIES);
    let time = Duration::from_millis(1500);
    let (queued, longest) = served(&with, 24, time);
    let (crowded, _) = served(&without, 24, time);
    let capacity = CAPACITY as f64 * time.as_secs_f64() / SERVICE.as_secs_f64();
    eprintln!("with a queue {queued}, without {crowded}, of {capacity} that can be served; longest {longest:?}");
    // Six times the crowd: without a queue about a sixth is served. How near the queue comes to all of it depends on how
    // busy the machine is; benches/overload measures it.
    assert!(queued > 2 * crowded, "{queued} and {crowded} of {capacity}");
    // Nobody is served who has waited for longer than the queue lets him.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[test]
fn where_the_pool_has_room_and_no_server_has_nobody_calls_himself_for_ever() {
    let _turn = among_others();
    let server = Turnstile::open();
    let config = format!(
        "[pool.web]\nmax-requests = 5\nqueue = {{ limit = 10, timeout = \"400ms\" }}\n\
         servers = [{{ name = \"one\", address = \"{}\", max-requests = 1 }}]\n",
        server.address
    );
    let reeve = Reeve::start("both-bounds", &config, PRIORITIES);
    let first = ask(&reeve, "/first");
    let held = server.next();
    assert_eq!(ask(&reeve, "/late").join().expect("an answer").status, 503, "its time is over");
    let second = ask(&reeve, "/second");
    waiting(&reeve, 1);
    let freed = Instant::now();
    held.serve();
    let next = server.next();
    assert!(freed.elapsed() < Duration::from_millis(300), "called as a place became free: {:?}", freed.elapsed());
    assert_eq!(next.serve(), "/second");
    assert_eq!([first, second].map(|asked| asked.join().expect("an answer").status), [200, 200]);
}

/// Two servers with one place each, of which the first is asked first; `address` is where nobody is.
fn refusing_and_full(reeve: &str, address: &str, full: &Turnstile, more: &str) -> Reeve {
    let config = format!(
        "[pool.web]\nscheduler = \"first\"\nqueue = {{ limit = 5, timeout = \"1s\" }}\n{more}\nservers = [\n\
         {{ name = \"dead\", address = \"{address}\", max-connections = 1 }},\n\
         {{ name = \"full\", address = \"{}\", max-connections = 1 }}]\n",
        full.address
    );
    Reeve::start(reeve, &config, "http *\n  all : any  use web\n")
}

#[test]
fn who_does_not_reach_the_one_server_that_has_a_place_waits_for_another() {
    let _turn = among_others();
    let (dead, full) = (Port::free(), Turnstile::open());
    let reeve = refusing_and_full("queue-refused", &dead.address(), &full, "");
    let mut clients = vec![ask(&reeve, "/first")];
    let first = full.next();
    // In vain at the first server, which always has a place; those behind find nothing there either.
    clients.push(ask(&reeve, "/second"));
    waiting(&reeve, 1);
    assert_eq!(first.serve(), "/first");
    let second = full.next();
    assert_eq!(second.path, "/second");
    let retries = "reeve_retries_total{pool=\"web\",reason=\"connect\"}";
    until("two that were tried again", || reeve.metric(retries).filter(|count| *count == 2.0));
    // Its time in the queue is what it is.
    let began = Instant::now();
    let late = ask(&reeve, "/late").join().expect("an answer");
    assert_eq!(late.status, 503);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(second.serve(), "/second");
    assert!(clients.into_iter().all(|client| client.join().expect("an answer").status == 200));
    drop(reeve);
    // Where it is not to be tried again, it does not wait either.
    let never = refusing_and_full("queue-once", &dead.address(), &full, "retry = { attempts = 0 }");
    assert_eq!(ask(&never, "/").join().expect("an answer").status, 502);
}
