//! Connections that are passed on unread: plain TCP, and TLS that stays sealed.
//!
//! 1. Of a sealed connection, wait for the ClientHello (`hello`). A plain one waits for nothing: in many
//!    of its protocols the server speaks first.
//! 2. The `tcp` section, else the listener's pool, says where it goes (`choose`).
//! 3. Choose a server and connect (`pick`), saying first whose connection it is where the pool wants it.
//! 4. Pass on what has been read, and join the two (`tunnel`).
//! 5. Counters, and one line in the log (`finish`).

mod finish;
mod hello;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::hello::Opening;
use super::access_log::matched;
use super::announced;
use super::bound::Bound;
use super::failure::{Failure, FailureKind, Side};
use super::pick::{self, Connected, Picked, Take, Tries, Upstream};
use super::queue;
use super::relay;
use super::retry;
use super::tunnel::{self, Broken, End, Inlet, Outlet};
use super::view::View;
use super::worker::{Entered, Worker};
use crate::model::listener::Protocol;
use crate::model::rule::Kind;
use crate::net::Stream;
use crate::net::stream::{Reader, Writer};
use crate::route::{self, Action};
use crate::state::LivePool;
use crate::state::connections::Doing;
use crate::state::counters::{Rejected, RetryReason};
use crate::wire::client_hello::{self, Alert};
use crate::wire::server_hello::ServerHello;

/// A connection under way, as far as the log will want to know.
struct Session<'w> {
    worker: &'w Rc<Worker>,
    connection: &'w Entered,
    view: Rc<View>,
    id: u64,
    started: Instant,
    protocol: Protocol,
    /// A ClientHello came.
    tls: bool,
    /// In lower case.
    sni: Option<String>,
    /// What rules read of its hello besides the name, for the log.
    matched: Option<Vec<u8>>,
    /// Number of the rule that decided, over all tables of the view.
    rule: Option<usize>,
    pool: Option<Arc<LivePool>>,
    tries: Tries,
    /// Spent on reaching servers.
    connect: Duration,
}

/// Why a connection ended before both sides had said all.
#[derive(Debug, Clone, Copy, Default)]
struct Ending {
    /// For the log; none for what a rule meant.
    word: Option<&'static str>,
    side: Option<Side>,
    /// Turned away before a server saw it.
    rejected: Option<Rejected>,
    /// What a TLS client is told.
    alert: Option<Alert>,
    reset: bool,
    /// It said nothing, as probes do: there is nothing to write down.
    unsaid: bool,
}

/// Where a connection goes.
struct Choice {
    /// Position in the snapshot's pools.
    pool: usize,
    /// What hashing schedulers go by.
    key: Option<u64>,
    /// By what its client is known, in a pool that asks.
    bound: Option<Bound>,
}

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut stream: Stream) {
    worker.set_active(&connection);
    connection.requests.set(1);
    let view = worker.view_for(&connection);
    let Some(listener) = view.listener(connection.listener) else { return };
    let protocol = listener.protocol;
    let mut session = Session {
        worker: &worker,
        connection: &connection,
        view,
        id: worker.request_id(),
        started: Instant::now(),
        protocol,
        tls: false,
        sni: None,
        matched: None,
        rule: None,
        pool: None,
        tries: Tries::default(),
        connect: Duration::ZERO,
    };
    let (mut reader, mut writer) = stream.split();
    let ending = session.run(&mut reader, &mut writer).await.err();
    if let Some(ending) = ending {
        if let Some(alert) = ending.alert.filter(|_| session.tls) {
            // As much as can still be said: whoever does not hear it sees the end.
            let _ = writer.write_now(&client_hello::alert(alert));
        }
        if ending.reset {
            writer.reset_on_close();
        }
    }
    if !ending.is_some_and(|ending| ending.unsaid) {
        finish::finish(&session, ending.unwrap_or_default());
    }
}

impl Session<'_> {
    async fn run<'s>(&mut self, reader: &mut Reader<'s>, writer: &mut Writer<'s>) -> Result<(), Ending> {
        if self.worker.is_short_of_memory() {
            return Err(Failure::short_of_memory().into());
        }
        let opening = match self.protocol {
            Protocol::TlsPassthrough => {
                let limit = self.view.snapshot.config.timeouts.hello;
                hello::receive(self.worker, reader, &self.connection.timer, limit, &mut self.tls).await?
            }
            _ => Opening::default(),
        };
        let choice = self.choose(&opening)?;
        let pool = self.view.snapshot.pools[choice.pool].clone();
        self.pool = Some(pool.clone());
        self.tries.bound = choice.bound;
        let Connected { lease, upstream, took, .. } = self.reach(reader, &pool, choice.key).await?;
        let Upstream::Http1(mut stream) = upstream else { return Err(Ending::from(Broken::By(Side::Upstream))) };
        self.connect = took;
        self.connection.server.set((pool.id(), lease.id()));
        self.connection.doing.set(Doing::Tunnel);
        let within = self.view.snapshot.config.timeouts.hello;
        // The log will want no more of it, and the tunnel may outlast many snapshots.
        self.view = Rc::new(self.view.remains(self.connection.listener, self.rule));
        self.rule = self.rule.map(|_| 0);
        let (mut server_reader, mut server_writer) = stream.split();
        let moved = |side, count| self.count(side, count);
        let timer = self.worker.wheel.timer();
        let timeouts = self.tries.timeouts(&pool);
        let limits = tunnel::Limits { idle: timeouts.tcp_idle, half: timeouts.half_closed, write: timeouts.tcp_idle };
        if let Some(bytes) = opening.bytes {
            moved(Side::Downstream, bytes.len() as u64);
            let written = relay::write_all(&mut server_writer, bytes.as_slice(), &timer, limits.write).await;
            written.map_err(|_| Ending::from(Broken::By(Side::Upstream)))?;
        }
        if let (Some(bound), Some(affinity), true) = (&self.tries.bound, pool.affinity(), self.tls)
            && bound.learns_hello(affinity)
        {
            let path = hello::Path { worker: self.worker, timer: &timer, within, write: limits.write };
            let moved = |count| moved(Side::Upstream, count);
            let learn = |hello: &ServerHello<'_>| bound.learn_hello(affinity, hello);
            Box::pin(hello::learn(path, &mut server_reader, writer, &moved, learn)).await?;
        }
        let client =
            End { reader: Inlet::Reader(reader), writer: Outlet::Writer(writer), timer: &self.connection.timer };
        let server = End {
            reader: Inlet::Reader(&mut server_reader),
            writer: Outlet::Writer(&mut server_writer),
            timer: &timer,
        };
        let joined = tunnel::join(self.worker, self.connection, &lease, client, server, limits, None, &moved).await;
        let Err(broken) = joined else { return Ok(()) };
        let ending = Ending::from(broken);
        if ending.reset {
            // What has come is not the whole, on either side.
            server_writer.reset_on_close();
            writer.reset_on_close();
        }
        match broken {
            Broken::By(Side::Upstream) => tunnel::delivered(writer, &self.connection.timer).await,
            Broken::By(Side::Downstream) => tunnel::delivered(&server_writer, &timer).await,
            _ => {}
        }
        Err(ending)
    }

    /// Where it goes; notes what the log will say of it.
    fn choose(&mut self, opening: &Opening) -> Result<Choice, Ending> {
        let view = self.view.clone();
        let Some(listener) = view.listener(self.connection.listener) else { return Err(Ending::no_route()) };
        let mut joined = Vec::new();
        let hello = match &opening.bytes {
            Some(bytes) if self.tls => client_hello::parse(bytes.as_slice(), &mut joined).ok().flatten(),
            _ => None,
        };
        let sealed = hello.is_some();
        let hello = hello.unwrap_or_default();
        self.sni = hello.sni.map(str::to_ascii_lowercase);
        if let Some(sni) = &self.sni {
            self.connection.request.borrow_mut().set(b"TLS", sni.as_bytes());
        }
        let alpn: SmallVec<[&[u8]; 8]> = hello.alpn.collect();
        let head = route::Head {
            method: "",
            host: self.sni.as_deref().unwrap_or_default(),
            path: "",
            query: "",
            fields: &[],
            source: self.connection.client.get().ip(),
            listener: &listener.name,
            sni: self.sni.as_deref(),
            alpn: &alpn,
            certificate: None,
            no_tls: self.protocol == Protocol::TlsPassthrough && !self.tls,
            body: route::Body::Empty,
        };
        let mut dice = || self.worker.dice();
        let table = &view.snapshot.tables[listener.table];
        if let Some(reads) = table.reads()
            && self.worker.keeps_matched()
        {
            let hashes = &mut *self.worker.cookie_hashes.borrow_mut();
            matched::values(reads, &head, hashes, self.matched.insert(Vec::new()));
        }
        let section = table.section(Kind::Tcp, "");
        let rule = section.and_then(|section| section.decide_with(None, &head, &mut dice));
        self.rule = rule.map(|rule| view.snapshot.rule_offsets[listener.table] + rule.number() as usize);
        let pool = match rule.map(|rule| (rule, rule.action())) {
            None => listener.pool,
            Some((rule, Action::Use { target, .. })) => route::pool(target, &head, rule, &mut dice),
            Some((_, Action::Drop)) => {
                return Err(Ending { rejected: Some(Rejected::Dropped), reset: true, ..Ending::default() });
            }
            // A `tcp` section knows no other action (`config::rules`).
            Some(_) => {
                let alert = Some(Alert::AccessDenied);
                return Err(Ending { rejected: Some(Rejected::Denied), alert, ..Ending::default() });
            }
        };
        let pool = pool.ok_or_else(Ending::no_route)?;
        let by = match rule.map(route::Rule::action) {
            Some(Action::Use { by: Some(by), .. }) => Some(by),
            _ => view.keys[pool].as_ref(),
        };
        let tuning = rule.and_then(|rule| rule.refined()?.tuning.as_ref());
        if let Some((rule, tuning)) = self.rule.zip(tuning) {
            let tuned = view.tuned.of(rule, pool, tuning, view.snapshot.pools[pool].config());
            self.tries = Tries::of(Some(tuned), None);
        }
        let (hello, now) = (sealed.then_some(&hello), self.worker.unix_seconds());
        let affinity = view.snapshot.pools[pool].affinity();
        Ok(Choice {
            pool,
            key: by.and_then(|key| route::key_hash(key, rule, &head)),
            bound: affinity.map(|affinity| Bound::of_connection(affinity, self.connection, hello, now)),
        })
    }

    /// A connection to a server of the pool.
    async fn reach(
        &mut self,
        reader: &Reader<'_>,
        pool: &Arc<LivePool>,
        key: Option<u64>,
    ) -> Result<Connected, Failure> {
        self.connection.doing.set(Doing::Waiting);
        let (worker, timer) = (self.worker, &self.connection.timer);
        let mut pool = pool.clone();
        let (mut picked, mut again) = (pick::pick(worker, &pool, key, Take::Opaque, &mut self.tries), false);
        loop {
            let lease = match picked {
                Ok(Picked::Connected(connected)) => return Ok(connected),
                Ok(Picked::ToDial(lease)) => lease,
                Err(failure) if queue::may_wait(&pool, &failure) => {
                    self.connection.doing.set(Doing::Queued);
                    let mut ending = reader.watch().ok();
                    let gone = |cx: &mut Context<'_>| ending.as_mut().map_or(Poll::Pending, |ending| ending.poll(cx));
                    picked = queue::wait(worker, &mut pool, key, Take::Opaque, &mut self.tries, timer, gone).await;
                    self.connection.doing.set(Doing::Waiting);
                    if again && picked.is_ok() {
                        retry::count(worker, &pool, RetryReason::Connect);
                    }
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let mut greeting = Vec::new();
            if let Some(version) = pool.config().send_proxy {
                announced::write(self.connection, version, &mut greeting);
            }
            // Where it is not reached, and the others are full, it waits for them.
            again = true;
            picked = pick::connect(worker, &pool, key, Take::Opaque, lease, &greeting, &mut self.tries, timer)
                .await
                .map(Picked::Connected);
        }
    }

    /// Bytes that a side has sent: seen while it lasts, for it may last for days.
    fn count(&self, side: Side, count: u64) {
        let connection = self.connection;
        let (cell, up, down) = match side {
            Side::Downstream => (&connection.received, count, 0),
            Side::Upstream => (&connection.sent, 0, count),
        };
        cell.set(cell.get() + count);
        self.worker.counters.borrow_mut().bytes(connection.listener, up, down);
    }
}

impl Ending {
    fn no_route() -> Ending {
        Ending {
            word: Some(FailureKind::NoRoute.word()),
            side: Some(Side::Downstream),
            rejected: Some(Rejected::NoRoute),
            // RFC 6066 §3: the name is not served here.
            alert: Some(Alert::UnrecognizedName),
            ..Ending::default()
        }
    }

    fn of(kind: FailureKind) -> Ending {
        Ending { word: Some(kind.word()), side: kind.side(), ..Ending::default() }
    }
}

/// No server was reached.
impl From<Failure> for Ending {
    fn from(failure: Failure) -> Ending {
        tracing::debug!(failure = failure.kind.word(), "{}", failure.detail);
        Ending { alert: Some(Alert::InternalError), rejected: failure.kind.rejected(), ..Ending::of(failure.kind) }
    }
}

/// The tunnel broke. Whoever has not got all has to see that.
impl From<Broken> for Ending {
    fn from(broken: Broken) -> Ending {
        let reset = broken != Broken::Silent;
        let (word, side) = match broken {
            Broken::By(Side::Downstream) => (FailureKind::ClientGone.word(), Some(Side::Downstream)),
            Broken::By(Side::Upstream) => (FailureKind::ServerClosed.word(), Some(Side::Upstream)),
            Broken::Stalled(Side::Downstream) => (FailureKind::ClientStalled.word(), Some(Side::Downstream)),
            Broken::Stalled(Side::Upstream) => ("server-stalled", Some(Side::Upstream)),
            Broken::Silent => ("idle", None),
            Broken::HalfSilent => ("half-closed", None),
            Broken::Drained => ("drained", None),
            Broken::Cut => ("server-down", Some(Side::Upstream)),
        };
        Ending { word: Some(word), side, reset, ..Ending::default() }
    }
}
