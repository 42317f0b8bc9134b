//! Asks as fast as it is answered, or at a given rate, from one thread, and checks every answer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rival_tools::client::{Answer, Client, Kind};
use rival_tools::histogram::Histogram;
use rival_tools::poll::{Change, Poll};
use rival_tools::tls::Begin;
use rival_tools::{fail, flag, help, option};

const USAGE: &str = "\
A load generator for HTTP/1.1, HTTP/2, gRPC and WebSockets, plain and under TLS 1.3.

usage: load --address 127.0.0.1:PORT [options]

  --path PATH         what is asked for (default: /1k); its last segment says how long the answer must be, see
                      `origin --help`
  --paths FILE        or one a line, in turn: /path, or host/path
  --host NAME         the Host field (default: bench.test)
  --connections N     (default: 64)
  --seconds S         how long is measured (default: 3), after
  --warm S            so long (default: 0.5)
  --requests N        stops after N requests instead, all of them measured
  --rate N            N requests a second; latency is counted from the scheduled time. 0: as fast as answered
  --fresh             a new connection for each request
  --body N            POST with a body of N bytes
  --message N         WebSocket messages of N bytes, at most 60,000, each answered before the next is sent
  --h2 N              HTTP/2 with N requests on each connection at once: with prior knowledge, or by ALPN under TLS
  --grpc N            unary calls of gRPC with messages of N bytes; needs --h2
  --tls FILE          TLS (X25519, AES-128-GCM); the server must show this certificate (PEM)
  --alpn LIST         protocols that are offered, separated by commas (default: h2 or http/1.1)
  --resume            each new connection goes on with the session of an earlier one, or it is an error; without it
                      each handshake is a whole one
  --sources N         connections come from N addresses, 127.0.1.1 and up
  --hold              opens the connections, makes one request on each, prints `ready`, and keeps them until
                      its standard input ends

Prints one line of JSON: `requests` of the measured time, `answered` in all, `errors` and the `first_error`, `rps`,
`p50`, `p90`, `p99` (microseconds), `bytes` of bodies in the measured time, `unsent` (scheduled, never sent).";

/// In the list of sockets: the standard input.
const INPUT: usize = usize::MAX;
/// How long answers are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a connection that is free sends its next request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    Scheduled,
    /// One request when it stands, none after.
    Held,
}

/// Errors after which nothing more is asked.
const TOO_MANY: u64 = 1000;

struct Load {
    kind: Kind,
    targets: Vec<String>,
    poll: Poll,
    clients: Vec<Option<Client>>,
    serial: u64,
    sent: u64,
    most: u64,
    answered: u64,
    measured: u64,
    bytes: u64,
    errors: u64,
    first_error: String,
    histogram: Histogram,
    /// Those that an event brought.
    answers: Vec<Answer>,
    window: (Instant, Instant),
    pace: Pace,
    free: Vec<usize>,
    due: VecDeque<Instant>,
    room: Vec<u8>,
}

impl Load {
    fn open(&mut self, number: usize) {
        self.serial += 1;
        let opened = Client::open(&self.kind, self.serial).and_then(|client| {
            self.poll.watch(client.socket(), number).map_err(|_| rustix::io::Errno::NOMEM)?;
            Ok(client)
        });
        match opened {
            Ok(client) => self.clients[number] = Some(client),
            Err(error) => fail(&format!("a connection cannot be opened: {error}")),
        }
    }

    fn more(&self, now: Instant) -> bool {
        self.sent < self.most && now < self.window.1 && self.errors < TOO_MANY
    }

    /// Makes the next request on a connection that is free.
    fn send(&mut self, number: usize, started: Instant) {
        let target = self.sent as usize % self.targets.len();
        let Some(client) = self.clients[number].as_mut() else { return };
        self.sent += 1;
        client.request(&self.kind, &self.targets[target], self.sent, started);
    }

    fn go_on(&mut self, Change { number, over }: Change) {
        let target = self.sent as usize % self.targets.len();
        let Some(Some(client)) = self.clients.get_mut(number) else { return };
        let went = client.go_on(&self.kind, &self.targets[target], over, &mut self.room, &mut self.answers);
        let now = Instant::now();
        let answered = !self.answers.is_empty();
        self.answered += self.answers.len() as u64;
        let measured = now >= self.window.0 && now < self.window.1;
        for answer in self.answers.drain(..).filter(|_| measured) {
            self.measured += 1;
            self.bytes += answer.bytes;
            self.histogram.add(now.saturating_duration_since(answer.started).as_nanos() as u64);
        }
        match went {
            Ok(()) if answered && self.kind.fresh => {
                self.clients[number] = None;
                if self.more(now) {
                    self.open(number);
                }
            }
            Ok(()) => self.next(number, now),
            Err(why) => self.wrong(number, why, now),
        }
    }

    /// The connection is of no more use.
    fn wrong(&mut self, number: usize, why: String, now: Instant) {
        self.errors += 1;
        if self.first_error.is_empty() {
            self.first_error = why;
        }
        self.clients[number] = None;
        if self.pace != Pace::Held && self.more(now) {
            self.open(number);
        }
    }

    /// Gives a connection as many requests as it takes.
    fn next(&mut self, number: usize, now: Instant) {
        while let Some(client) = self.clients[number].as_ref().filter(|client| client.free() > 0) {
            match self.pace {
                // A new connection's request began with the connection.
                Pace::AtOnce if self.more(now) => self.send(number, if self.kind.fresh { client.opened } else { now }),
                Pace::Held if client.asked == 0 => self.send(number, now),
                Pace::Scheduled => match self.due.pop_front() {
                    Some(due) => self.send(number, due),
                    None => {
                        self.free.push(number);
                        break;
                    }
                },
                Pace::AtOnce | Pace::Held => break,
            }
        }
        self.flush(number, now);
    }

    fn flush(&mut self, number: usize, now: Instant) {
        if let Some(Err(why)) = self.clients[number].as_mut().map(Client::flush) {
            self.wrong(number, why, now);
        }
    }

    fn unanswered(&self) -> usize {
        self.clients.iter().flatten().map(Client::unanswered).sum()
    }

    fn run(&mut self, connections: usize, gap: Option<Duration>) -> io::Result<()> {
        self.clients.resize_with(connections, || None);
        (0..connections).for_each(|number| self.open(number));
        let mut changed = Vec::new();
        let mut next_due = Instant::now() + Duration::from_millis(50);
        loop {
            let now = Instant::now();
            if !self.more(now) && (self.unanswered() == 0 || now > self.window.1 + PATIENCE) {
                break;
            }
            let mut wait = if now < self.window.1 { self.window.1 - now } else { Duration::from_millis(20) };
            if let (Some(gap), true) = (gap, self.more(now)) {
                while next_due <= now {
                    self.due.push_back(next_due);
                    next_due += gap;
                }
                while let (Some(&due), true) = (self.due.front(), !self.free.is_empty()) {
                    let Some(number) = self.free.pop() else { break };
                    if self.clients[number].as_ref().is_some_and(|client| client.free() > 0) {
                        self.due.pop_front();
                        self.send(number, due);
                        self.flush(number, now);
                    }
                }
                wait = wait.min(next_due.saturating_duration_since(now));
            }
            self.poll.wait(Some(wait), &mut changed)?;
            for &change in &changed {
                self.go_on(change);
            }
        }
        let unanswered = self.unanswered() as u64;
        if unanswered > 0 {
            self.errors += unanswered;
            self.first_error = format!("{unanswered} requests without an answer at the end");
        }
        Ok(())
    }

    /// Opens the connections a few at a time, one request on each, and keeps them.
    fn hold(&mut self, connections: usize) -> io::Result<()> {
        const AT_ONCE: usize = 128;
        self.pace = Pace::Held;
        self.poll.watch_level(io::stdin(), INPUT)?;
        self.most = connections as u64;
        let deadline = Instant::now() + PATIENCE * 3;
        self.window = (Instant::now(), deadline);
        let mut changed = Vec::new();
        let mut said = false;
        loop {
            while self.clients.len() < connections
                && (self.clients.len() as u64) < self.answered + self.errors + AT_ONCE as u64
            {
                self.clients.push(None);
                self.open(self.clients.len() - 1);
            }
            if !said && (self.answered + self.errors >= connections as u64 || Instant::now() > deadline) {
                println!("ready");
                io::stdout().flush()?;
                said = true;
            }
            self.poll.wait(if said { None } else { Some(Duration::from_millis(200)) }, &mut changed)?;
            for &change in &changed {
                if change.number == INPUT {
                    return Ok(());
                }
                self.go_on(change);
            }
        }
    }

    fn report(&self, seconds: f64) {
        let held = self.clients.iter().flatten().count();
        println!(
            "{{\"requests\": {}, \"answered\": {}, \"errors\": {}, \"first_error\": \"{}\", \"rps\": {:.1}, \
             \"p50\": {:.1}, \"p90\": {:.1}, \"p99\": {:.1}, \"bytes\": {}, \"unsent\": {}, \"open\": {held}}}",
            self.measured,
            self.answered,
            self.errors,
            self.first_error.replace(['"', '\\'], "'"),
            self.measured as f64 / seconds,
            self.histogram.microseconds(0.50),
            self.histogram.microseconds(0.90),
            self.histogram.microseconds(0.99),
            self.bytes,
            self.due.len(),
        );
    }
}

/// What TLS begins with, when it is asked for.
fn tls(host: &str, h2: bool) -> Option<Begin> {
    let certificate: String = option("tls", String::new());
    let offered: String = option("alpn", if h2 { "h2" } else { "http/1.1" }.to_string());
    let offered = offered.split(',').map(|name| name.as_bytes().to_vec()).filter(|name| !name.is_empty()).collect();
    (!certificate.is_empty())
        .then(|| Begin::new(Path::new(&certificate), host, offered, flag("resume")).unwrap_or_else(|why| fail(&why)))
}

fn main() -> io::Result<()> {
    help(USAGE);
    let address: String = option("address", String::new());
    let paths: String = option("paths", String::new());
    let targets: Vec<String> = match paths.as_str() {
        "" => vec![option("path", "/1k".to_string())],
        file => match std::fs::read_to_string(file) {
            Ok(text) if !text.is_empty() => text.lines().map(String::from).collect(),
            Ok(_) => fail(&format!("{file} is empty")),
            Err(error) => fail(&format!("{file}: {error}")),
        },
    };
    let (seconds, warm, rate): (f64, f64, f64) = (option("seconds", 3.0), option("warm", 0.5), option("rate", 0.0));
    let most: u64 = option("requests", u64::MAX);
    let (host, streams, grpc) = (option("host", "bench.test".to_string()), option("h2", 0), option("grpc", u64::MAX));
    let kind = Kind {
        address: address.parse().unwrap_or_else(|_| fail("--address IP:PORT is needed, see --help")),
        tls: tls(&host, streams > 0),
        host,
        body: if grpc == u64::MAX { option("body", 0) } else { grpc },
        fresh: flag("fresh"),
        message: option("message", 0),
        sources: option("sources", 0),
        streams,
        grpc: grpc != u64::MAX,
    };
    if kind.fresh && (rate > 0.0 || kind.message > 0 || streams > 0) {
        fail("--fresh goes with none of --rate, --message and --h2");
    }
    if kind.grpc && streams == 0 || streams > 0 && (rate > 0.0 || kind.message > 0 || kind.body > 10 << 10) {
        fail("--grpc needs --h2, which goes with neither --rate nor --message, nor with more than 10 KiB");
    }
    let begin = Instant::now();
    let window = match most {
        u64::MAX => (begin + Duration::from_secs_f64(warm), begin + Duration::from_secs_f64(warm + seconds)),
        _ => (begin, begin + Duration::from_secs(3600)),
    };
    let mut load = Load {
        kind,
        targets,
        poll: Poll::new()?,
        clients: Vec::new(),
        serial: 0,
        sent: 0,
        most,
        answered: 0,
        measured: 0,
        bytes: 0,
        errors: 0,
        first_error: String::new(),
        histogram: Histogram::default(),
        answers: Vec::new(),
        window,
        pace: if rate > 0.0 { Pace::Scheduled } else { Pace::AtOnce },
        free: Vec::new(),
        due: VecDeque::new(),
        room: vec![0; 256 << 10],
    };
    let connections: usize = option("connections", 64);
    if flag("hold") {
        load.hold(connections)?;
    } else {
        load.run(connections, (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate)))?;
    }
    let measured = if most == u64::MAX { seconds } else { begin.elapsed().as_secs_f64() };
    load.report(measured);
    Ok(())
}
