//! What binds one request to a server: found while its head is here, heeded where a server is chosen, and
//! written into the answer.

use std::cell::Cell;

use smallvec::SmallVec;

use super::failure::{Failure, FailureKind};
use super::forward::Incoming;
use super::registry::Connection;
use crate::affinity::cookie::{self, Edit};
use crate::affinity::token::Token;
use crate::affinity::{masked, session};
use crate::model::affinity::{By, CookieMode, Learn, WhenDown};
use crate::route;
use crate::state::affinity::Told;
use crate::state::affinity::table::{Number, Tag};
use crate::state::counters::AffinityResult;
use crate::state::{Lease, LiveAffinity, LivePool, NoServer, Unfit};
use crate::tls::{self, Peer};
use crate::wire::client_hello::ClientHello;
use crate::wire::http1::ResponseHead;
use crate::wire::server_hello::ServerHello;

/// Kinds of keys in tables: what is known by one thing is never taken for another.
const SOURCE: u8 = 1;
const VALUE: u8 = 2;
const SESSION: u8 = 3;
/// TLS sessions that end here, and those of servers.
const MARK: u8 = 4;
const SEALED: u8 = 5;

/// What is known of a request's client.
#[derive(Debug, Default)]
pub struct Bound {
    /// The number of the name of the server that it was at: a pool may be another one by the time it is chosen from.
    wanted: Option<Number>,
    /// It was at some server, though nobody may know which.
    known: bool,
    /// It showed what we have not made.
    forged: bool,
    /// The key in use made its token: it needs no new one.
    current: bool,
    /// Under what it is noted.
    tags: SmallVec<[Tag; 2]>,
    /// Seconds since 1970.
    now: u32,
    /// The server that was chosen last.
    served: Cell<Option<Number>>,
    result: Cell<AffinityResult>,
}

/// What an answer says in the place of Set-Cookie fields of one name.
#[derive(Debug)]
pub struct SetCookie<'a> {
    pub name: &'a str,
    /// Values of Set-Cookie.
    pub lines: SmallVec<[Vec<u8>; 1]>,
}

impl SetCookie<'_> {
    /// Whether a field of an answer is left out.
    pub fn replaces(&self, name: &str, value: &[u8]) -> bool {
        name.eq_ignore_ascii_case("set-cookie") && cookie::set_value(value, self.name).is_some()
    }
}

/// What is done to a request's cookies before the server gets them.
pub fn edit(affinity: &LiveAffinity) -> Option<Edit<'_>> {
    match &affinity.config().by {
        By::Cookie { name, mode: CookieMode::Insert } => Some(Edit::Remove(name)),
        By::Cookie { name, mode: CookieMode::Prefix } => Some(Edit::Unprefix(name)),
        _ => None,
    }
}

impl Bound {
    /// What a request shows. `rule` is the one that sent it to the pool.
    pub fn of(affinity: &LiveAffinity, incoming: &Incoming<'_, '_>, rule: Option<&route::Rule>, now: u32) -> Bound {
        let mut bound = Bound { now, ..Bound::default() };
        match &affinity.config().by {
            By::Cookie { name, mode } => {
                for value in incoming.routed.cookie(name) {
                    let token = match mode {
                        CookieMode::Prefix => cookie::prefixed(value).map(|(token, _)| token),
                        CookieMode::Insert | CookieMode::Rewrite => Token::parse(value),
                    };
                    if bound.told(token.map(|token| affinity.read(token)), *mode) {
                        break;
                    }
                }
            }
            By::Learn(learn) => bound.session(affinity, learn, &incoming.routed),
            By::Source { v4, v6 } => bound.look_up(affinity, SOURCE, &masked(incoming.peer, *v4, *v6)),
            By::Key(key) => {
                route::value(key, rule, &incoming.routed, |value| bound.look_up(affinity, VALUE, value));
            }
            By::TlsSession(_) => bound.marks(affinity, incoming.tls),
        }
        bound
    }

    /// What a connection shows of which nothing is read but its addresses, and the hello where it stays sealed.
    pub fn of_connection(
        affinity: &LiveAffinity,
        connection: &Connection,
        hello: Option<&ClientHello<'_>>,
        now: u32,
    ) -> Bound {
        let mut bound = Bound { now, ..Bound::default() };
        match (&affinity.config().by, hello) {
            (By::Source { v4, v6 }, _) => {
                bound.look_up(affinity, SOURCE, &masked(connection.client.get().ip(), *v4, *v6));
            }
            (By::TlsSession(_), Some(hello)) => bound.hello(affinity, hello),
            (By::TlsSession(_), None) => bound.marks(affinity, connection.tls.get().map(|tls| &**tls)),
            _ => {}
        }
        bound
    }

    /// What a client would resume with a server: the key of its ticket says which, else its session's id.
    fn hello(&mut self, affinity: &LiveAffinity, hello: &ClientHello<'_>) {
        if let Some(found) = tls::of_hello(hello).and_then(|name| affinity.find_key(&name)) {
            (self.known, self.wanted) = (true, Some(found));
        } else if !hello.session_id.is_empty() {
            // One that no server has named may be a mere number, as it is in TLS 1.3.
            self.finds(affinity, SEALED, hello.session_id);
        }
    }

    /// The client's session with us: under what it came back, and may come back.
    fn marks(&mut self, affinity: &LiveAffinity, peer: Option<&Peer>) {
        let Some(marks) = peer.and_then(|peer| peer.marks.as_deref()) else { return };
        for mark in marks.given.iter().chain(&marks.resumed) {
            self.look_up(affinity, MARK, mark);
        }
    }

    /// Takes what a cookie says; whether that settles it.
    fn told(&mut self, told: Option<Told>, mode: CookieMode) -> bool {
        match told {
            Some(Told::At { server, current }) => {
                (self.wanted, self.known, self.current, self.forged) = (Some(server), true, current, false);
                true
            }
            Some(Told::Gone) => {
                (self.known, self.forged) = (true, false);
                true
            }
            Some(Told::Forged) => {
                self.forged = true;
                false
            }
            // The application may have set its cookie before there was a Reeve; one of our own has one shape.
            None => {
                self.forged |= mode == CookieMode::Insert;
                false
            }
        }
    }

    fn session(&mut self, affinity: &LiveAffinity, learn: &Learn, head: &route::Head<'_>) {
        for value in head.cookie(&learn.cookie) {
            if self.finds(affinity, SESSION, value) {
                return;
            }
        }
        if let Some(name) = &learn.header
            && head.values(name).any(|value| self.finds(affinity, SESSION, value))
        {
            return;
        }
        if let Some(name) = &learn.query
            && head.parameter(name.as_bytes(), |value| self.finds(affinity, SESSION, value))
        {
            return;
        }
        if let Some(value) = session::path_parameter(head.path, &learn.path_parameter) {
            self.finds(affinity, SESSION, value);
        }
    }

    /// Whether a session is known. What no server has set is noted for nobody: a client could fill the table.
    fn finds(&mut self, affinity: &LiveAffinity, kind: u8, value: &[u8]) -> bool {
        let tag = affinity.tag(kind, value);
        let Some(found) = affinity.find(tag, self.now) else { return false };
        self.tags.push(tag);
        (self.known, self.wanted) = (true, Some(found));
        true
    }

    fn look_up(&mut self, affinity: &LiveAffinity, kind: u8, value: &[u8]) {
        let tag = affinity.tag(kind, value);
        self.tags.push(tag);
        // What was found first is what is newer.
        if !self.known
            && let Some(found) = affinity.find(tag, self.now)
        {
            (self.known, self.wanted) = (true, Some(found));
        }
    }

    /// The number of the server that its client was at.
    pub fn wanted(&self) -> Option<Number> {
        self.wanted
    }

    /// Chooses the server that the client was at, or lets the scheduler choose one, where it stays from now on.
    ///
    /// # Errors
    /// When no server may be asked.
    pub fn pick(
        &self,
        pool: &LivePool,
        affinity: &LiveAffinity,
        key: Option<u64>,
        tried: &[u32],
        barred: &[u32],
    ) -> Result<Result<Lease, NoServer>, Failure> {
        let mut full = false;
        if let Some(wanted) = self.wanted
            && let Some(position) = affinity.position(wanted)
        {
            match pool.lease(position, tried, barred) {
                Ok(lease) => {
                    self.settle(affinity, AffinityResult::Hit, wanted);
                    return Ok(Ok(lease));
                }
                Err(unfit) if affinity.config().when_down == WhenDown::Refuse => {
                    self.result.set(AffinityResult::Refused);
                    return Err(refused(pool, position, unfit));
                }
                Err(unfit) => full = unfit == Unfit::Full,
            }
        }
        let lease = match pool.pick_in_turn(key, tried, barred) {
            Ok(lease) => lease,
            Err(none) => return Ok(Err(none)),
        };
        let served = pool.position_of(lease.server()).and_then(|at| affinity.number(at));
        let Some(served) = served else { return Ok(Ok(lease)) };
        if full {
            // It stays where it is: only this request goes elsewhere.
            self.served.set(Some(served));
            self.result.set(AffinityResult::Elsewhere);
            return Ok(Ok(lease));
        }
        let inserts = matches!(affinity.config().by, By::Cookie { mode: CookieMode::Insert, .. });
        let result = match (self.known, self.forged) {
            (true, _) => AffinityResult::Moved,
            (_, true) => AffinityResult::Forged,
            _ if !self.tags.is_empty() || inserts => AffinityResult::New,
            _ => AffinityResult::Unknown,
        };
        self.settle(affinity, result, served);
        Ok(Ok(lease))
    }

    fn settle(&self, affinity: &LiveAffinity, result: AffinityResult, served: Number) {
        self.served.set(Some(served));
        self.result.set(result);
        for tag in &self.tags {
            affinity.note(*tag, served, self.now);
        }
    }

    /// What came of it, for the log and the counters.
    pub fn result(&self) -> AffinityResult {
        self.result.get()
    }

    /// What the client is told with a final answer, and what is learnt from it.
    pub fn answer<'a>(
        &self,
        affinity: &'a LiveAffinity,
        head: &ResponseHead<'_>,
        secure: bool,
    ) -> Option<SetCookie<'a>> {
        let served = self.served.get()?;
        let values = |name: &'a str| {
            let fields = head.fields.iter().filter(|field| field.is("set-cookie"));
            fields.filter_map(move |field| Some((field.value, cookie::set_value(field.value, name)?)))
        };
        match &affinity.config().by {
            By::Cookie { name, mode: CookieMode::Insert } => {
                let mut set = SetCookie { name, lines: SmallVec::new() };
                let has = self.wanted == Some(served) && self.current;
                if !has && self.result.get() != AffinityResult::Elsewhere {
                    let mut line = Vec::with_capacity(name.len() + 80);
                    cookie::own(name, &affinity.token(served)?, secure, &mut line);
                    set.lines.push(line);
                }
                Some(set)
            }
            By::Cookie { name, mode } => {
                let token = affinity.token(served)?;
                let mut set = SetCookie { name, lines: SmallVec::new() };
                for (field, value) in values(name) {
                    let mut line = Vec::with_capacity(field.len() + token.len() + 1);
                    match (value.is_empty(), *mode) {
                        // It takes its cookie back.
                        (true, _) => line.extend_from_slice(field),
                        (_, CookieMode::Prefix) => {
                            let both = [&[cookie::BETWEEN], value].concat();
                            cookie::replaced(field, name, &token, &both, &mut line);
                        }
                        _ => cookie::replaced(field, name, &token, &[], &mut line),
                    }
                    set.lines.push(line);
                    self.is_new();
                }
                (!set.lines.is_empty()).then_some(set)
            }
            By::Learn(learn) => {
                for (_, value) in values(&learn.cookie).filter(|(_, value)| !value.is_empty()) {
                    affinity.note(affinity.tag(SESSION, value), served, self.now);
                    self.is_new();
                }
                None
            }
            _ => None,
        }
    }

    /// Whether the server's hello may be worth a look.
    pub fn learns_hello(&self, affinity: &LiveAffinity) -> bool {
        matches!(affinity.config().by, By::TlsSession(_)) && self.served.get().is_some()
    }

    /// Takes what the server calls a session that stays sealed.
    pub fn learn_hello(&self, affinity: &LiveAffinity, hello: &ServerHello<'_>) {
        // In TLS 1.3 it only repeats what the client sent (RFC 8446 §4.1.3).
        if let (Some(served), false, false) = (self.served.get(), hello.is_tls13, hello.session_id.is_empty()) {
            affinity.note(affinity.tag(SEALED, hello.session_id), served, self.now);
            self.is_new();
        }
    }

    /// The application has begun a session.
    fn is_new(&self) {
        if self.result.get() == AffinityResult::Unknown {
            self.result.set(AffinityResult::New);
        }
    }
}

fn refused(pool: &LivePool, position: u32, unfit: Unfit) -> Failure {
    let name = pool.servers().get(position as usize).map_or("-", |server| server.identity());
    match unfit {
        // Nobody waits for it: whoever is first in a pool's line holds up all the others.
        Unfit::Full => {
            Failure::new(FailureKind::NoServer, format!("{name}, which the client is bound to, is at its limit"))
        }
        _ => Failure::new(FailureKind::NoServer, format!("{name}, which the client is bound to, cannot be had")),
    }
}
