//! Where a request goes: to the server of its session, of its presentation, or where the rules say.
//!
//! ```text
//!   a tag of Proxy-Require        551        `OPTIONS *`             ours
//!   rules: they may refuse, answer and redirect whatever is asked; in the place of the pool that they name comes
//!     the server of a Session that began at this listener, from whatever connection
//!     that of a presentation that was described on this connection, for what is within it
//!   pool --> who publishes the path --> who told this client of it --> the scheduler, by the presentation
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::super::admit::take_rates;
use super::super::failure::{Failure, FailureKind};
use super::super::view::{ListenerView, View};
use super::dial::{At, Wanted, lease};
use super::ours::Reply;
use super::talk::{Due, Ending, From, Talk};
use crate::model::Limits;
use crate::model::listener::{Carrier, Protocol};
use crate::model::rule::{Key, Kind};
use crate::route::{self, Action, Change};
use crate::state::LiveServer;
use crate::state::counters::Rejected;
use crate::state::media::load::Full;
use crate::state::media::sessions::Session;
use crate::wire::http1::host;
use crate::wire::rtsp::uri::{self, Uri};
use crate::wire::rtsp::{Head, session};

/// A presentation that was asked about on this connection.
#[derive(Debug)]
pub struct Place {
    pub path: Box<str>,
    pub server: usize,
    /// Number of its pool.
    pool: u32,
    edits: Rc<Edits>,
    rule: Option<Arc<str>>,
    /// It was described or announced here, and not only asked for.
    told: bool,
    /// What its description names, in kbit/s.
    pub kilobits: u32,
}

/// What is done with a request.
#[derive(Debug)]
pub struct Chosen {
    pub to: To,
    pub edits: Rc<Edits>,
    pub rule: Option<Arc<str>>,
}

#[derive(Debug)]
pub enum To {
    Server(usize),
    Dial(Wanted),
    /// It is under way to a server.
    Dialing,
    Ours(Reply),
    Drop,
}

/// What a rule does to the fields of its requests.
#[derive(Debug, Default)]
pub struct Edits {
    /// Names of fields that are left out.
    pub removed: Vec<Arc<str>>,
    /// Whole lines.
    pub added: Vec<u8>,
}

/// Where a request belongs by what went before, whatever pool the rules name.
struct Belongs {
    to: To,
    edits: Rc<Edits>,
    rule: Option<Arc<str>>,
}

/// Methods that ask about a presentation as a whole: where it is said anew.
const WHOLE: [&str; 3] = ["OPTIONS", "DESCRIBE", "ANNOUNCE"];

impl Talk<'_> {
    /// Takes a request of the client as far as it can go now; false where it has to wait.
    pub fn client_asks(&mut self, head: &Head<'_>, method: &str, uri: &str, body: &[u8]) -> Result<bool, Ending> {
        if self.chosen.is_none() {
            self.connection.requests.set(self.connection.requests.get() + 1);
            let path = uri::parse(uri).map_or(uri, |uri| uri.path);
            self.connection.request.borrow_mut().set(method.as_bytes(), path.as_bytes());
            self.worker.set_active(self.connection);
            self.let_go_of_ended();
            self.worker.farm.media().sessions.sweep(self.worker.unix_seconds());
            self.chosen = Some(self.choose(head, method, uri));
        }
        let Some(mut chosen) = self.chosen.take() else { return Ok(false) };
        let taken = match chosen.to {
            To::Server(at) => return self.ask_server(at, chosen, head, method, uri, body),
            To::Dial(wanted) => {
                chosen.to = To::Dialing;
                self.chosen = Some(chosen);
                self.dial(wanted);
                false
            }
            To::Dialing => {
                self.chosen = Some(chosen);
                false
            }
            To::Ours(reply) => {
                self.answer(reply, head, method, uri, chosen.rule);
                true
            }
            To::Drop => return Err(Ending::Dropped),
        };
        Ok(taken)
    }

    /// A request for a server of this conversation.
    fn ask_server(
        &mut self,
        at: usize,
        chosen: Chosen,
        head: &Head<'_>,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Result<bool, Ending> {
        // Answers come in the order of the requests (RFC 2326 §9.1): another server has to have given its own.
        let others = |due: &Due| matches!(due.from, From::Server(other) if other != at);
        if self.line.iter().any(others) || !self.servers[at].leg.has_room() {
            self.chosen = Some(chosen);
            return Ok(false);
        }
        // The server would begin a session that nobody here could hold.
        if method == "SETUP" && head.value("session").is_none() && self.held.len() >= Limits::MEDIA_SESSIONS_EACH {
            self.answer(Reply::of(503).with("Retry-After", "5"), head, method, uri, chosen.rule);
            return Ok(true);
        }
        self.note_place(at, &chosen, method, uri);
        if let Err(reply) = self.forward(at, &chosen, head, method, uri, body) {
            self.answer(reply, head, method, uri, chosen.rule);
        } else if matches!(method, "PLAY" | "RECORD")
            && let Some(session) = self.line.back().and_then(|due| due.session.as_ref())
        {
            session.plays(self.worker.unix_seconds());
        }
        Ok(true)
    }

    /// Puts an answer of ours into the line.
    pub fn answer(&mut self, reply: Reply, head: &Head<'_>, method: &str, uri: &str, rule: Option<Arc<str>>) {
        let reply = Reply { cseq: head.cseq, version: head.version, ..reply };
        let mut due = Due::new(From::Ours(Vec::new()), head, method, uri, rule);
        self.answered(&due, reply.status, None);
        let mut text = Vec::new();
        reply.write(&mut text);
        due.from = From::Ours(text);
        self.line.push_back(due);
    }

    fn note_place(&mut self, at: usize, chosen: &Chosen, method: &str, uri: &str) {
        let Some(uri) = uri::parse(uri) else { return };
        let path = uri::presentation(uri.path);
        let pool = self.servers[at].pool.id();
        let known = self
            .places
            .iter_mut()
            .find(|place| *place.path == *path || !WHOLE.contains(&method) && uri::is_within(path, &place.path));
        if let Some(known) = known {
            if WHOLE.contains(&method) {
                known.told |= method != "OPTIONS";
                (known.server, known.pool, known.edits) = (at, pool, chosen.edits.clone());
                known.rule = chosen.rule.clone();
            }
            return;
        }
        if self.places.len() >= Limits::MEDIA_SESSIONS_EACH {
            self.places.remove(0);
        }
        let (edits, rule) = (chosen.edits.clone(), chosen.rule.clone());
        let told = matches!(method, "DESCRIBE" | "ANNOUNCE");
        self.places.push(Place { path: path.into(), server: at, pool, edits, rule, told, kilobits: 0 });
    }

    /// The presentation of this connection that a path is of: the longest.
    pub fn place(&self, path: &str) -> Option<&Place> {
        let path = uri::presentation(path);
        let within = self.places.iter().filter(|place| uri::is_within(path, &place.path));
        within.max_by_key(|place| place.path.len())
    }

    fn choose(&mut self, head: &Head<'_>, method: &str, text: &str) -> Chosen {
        let ours = |reply| Chosen { to: To::Ours(reply), edits: Rc::default(), rule: None };
        if self.worker.is_short_of_memory() {
            return ours(Reply::failed(&Failure::short_of_memory()));
        }
        // RFC 2326 §12.27: what a proxy does not know of these it has to refuse, and we know none.
        let tags: Vec<String> =
            head.values("proxy-require").map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        if !tags.is_empty() {
            return ours(Reply::of(551).with("Unsupported", tags.join(", ")));
        }
        let own = head.value("session").and_then(session::parse);
        let Some(uri) = uri::parse(text) else {
            // `*` names nothing that a rule could be about.
            let session = own.filter(|_| text == "*").and_then(|own| self.session(own.id));
            return match session.map(|session| self.of_session(&session, text)) {
                Some(Belongs { to, edits, rule }) => Chosen { to, edits, rule },
                None if text == "*" && method == "OPTIONS" => ours(Reply::options()),
                None => ours(Reply::of(400)),
            };
        };
        let view = self.view();
        match view.listener(self.connection.listener) {
            Some(listener) => self.by_rules(head, method, &uri, text, &view, listener),
            None => ours(Reply::of(404)),
        }
    }

    /// A session of this listener, whatever connection it began on.
    fn session(&self, id: &str) -> Option<Arc<Session>> {
        let known = self.held.iter().find(|held| *held.session.id == *id).map(|held| held.session.clone());
        let known = known.filter(|session| !session.is_over());
        let session = known.or_else(|| self.worker.farm.media().sessions.find(id))?;
        (session.listener == self.connection.listener).then_some(session)
    }

    /// Where a request belongs that the rules let pass; `pool` is the number of the one that they name.
    fn belongs(&self, head: &Head<'_>, method: &str, uri: &Uri<'_>, text: &str, pool: Option<u32>) -> Option<Belongs> {
        let own = head.value("session").and_then(session::parse);
        if let Some(session) = own.and_then(|own| self.session(own.id)) {
            // What asks for another presentation goes where that is.
            let elsewhere = || pool != self.view().snapshot.pool(session.server.pool_name()).map(|pool| pool.id());
            if !matches!(method, "DESCRIBE" | "ANNOUNCE") || !elsewhere() {
                return Some(self.of_session(&session, text));
            }
        }
        let place = self.place(uri.path).filter(|place| place.told || pool.is_none_or(|pool| pool == place.pool));
        let place = place.filter(|_| !WHOLE.contains(&method))?;
        Some(Belongs { to: To::Server(place.server), edits: place.edits.clone(), rule: place.rule.clone() })
    }

    /// The server of a session.
    fn of_session(&self, session: &Arc<Session>, text: &str) -> Belongs {
        let place = uri::parse(text).and_then(|uri| self.place(uri.path));
        let (edits, rule) = place.map_or_else(Default::default, |place| (place.edits.clone(), place.rule.clone()));
        session.touch(self.worker.unix_seconds());
        if let Some(at) = self.servers.iter().position(|server| Arc::ptr_eq(server.lease.server(), &session.server)) {
            return Belongs { to: To::Server(at), edits, rule };
        }
        let view = self.view();
        let to = match view.snapshot.pool(session.server.pool_name()) {
            Some(pool) => To::Dial(Wanted {
                pool: pool.clone(),
                at: Some(At { server: session.server.clone(), only: true }),
                key: None,
                tuned: None,
            }),
            None => To::Ours(Reply::of(454)),
        };
        Belongs { to, edits, rule }
    }

    fn by_rules(
        &mut self,
        head: &Head<'_>,
        method: &str,
        uri: &Uri<'_>,
        text: &str,
        view: &Rc<View>,
        listener: &ListenerView,
    ) -> Chosen {
        let ours = |reply| Chosen { to: To::Ours(reply), edits: Rc::default(), rule: None };
        let mut host_scratch = String::new();
        let host = host::canonical(uri.host, &mut host_scratch);
        let table = &view.snapshot.tables[listener.table];
        let section = table.section(Kind::Rtsp, host);
        let policy = section.map(route::Section::policy).unwrap_or_default();
        let mut path_scratch = String::new();
        let path = match route::path::normalise(uri.path, policy, &mut path_scratch) {
            Ok(path) => path,
            Err(fault) => {
                return Chosen {
                    to: self.failed(&Failure::new(FailureKind::Path, fault.to_string())),
                    ..ours(Reply::of(400))
                };
            }
        };
        let tls = self.connection.tls.get().map(|tls| &**tls);
        let routed = route::Head {
            method,
            host,
            path,
            query: uri.query.unwrap_or_default(),
            fields: &head.fields,
            source: self.peer().ip(),
            listener: &listener.name,
            sni: tls.and_then(|tls| tls.sni.as_deref()),
            alpn: &[],
            certificate: tls.and_then(|tls| tls.certificate.as_ref()),
            no_tls: false,
            body: route::Body::Empty,
        };
        let worker = self.worker;
        let mut dice = || worker.dice();
        let rule = section.and_then(|section| section.decide_with(None, &routed, &mut dice));
        let number = rule.map(|rule| view.snapshot.rule_offsets[listener.table] + rule.number() as usize);
        let name = number.and_then(|number| view.snapshot.rule_names.get(number)).cloned();
        if let Some(number) = number {
            worker.counters.borrow_mut().rule_hit(&view.snapshot.rule_names, number);
        }
        let refined = rule.and_then(route::Rule::refined);
        if let Some((rule, refined)) = rule.zip(refined)
            && let Err(failure) = take_rates(worker, refined, rule, &routed)
        {
            return Chosen { to: self.failed(&failure), edits: Rc::default(), rule: name };
        }
        let pool = match rule.map(|rule| (rule, rule.action())) {
            // What comes by a tunnel to a listener of HTTP is none of its pool's: that speaks HTTP.
            None => listener.pool.filter(|_| listener.protocol == Protocol::Rtsp),
            Some((rule, Action::Use { target, .. })) => route::pool(target, &routed, rule, &mut dice),
            Some((rule, action)) => {
                let to = self.by_action(action, rule, &routed, uri);
                return Chosen { to, edits: Rc::default(), rule: name };
            }
        };
        let named = pool.filter(|_| rule.is_some()).map(|pool| view.snapshot.pools[pool].id());
        if let Some(belongs) = self.belongs(head, method, uri, text, named) {
            return match rule {
                Some(_) => Chosen { to: belongs.to, edits: Rc::new(edits(rule, &routed)), rule: name },
                None => Chosen { to: belongs.to, edits: belongs.edits, rule: belongs.rule },
            };
        }
        let Some(pool) = pool else {
            let failure = Failure::new(FailureKind::NoRoute, "no rule takes this request");
            return Chosen { to: self.failed(&failure), edits: Rc::default(), rule: name };
        };
        let by = match rule.map(route::Rule::action) {
            Some(Action::Use { by: Some(by), .. }) => Some(by),
            _ => view.keys[pool].as_ref(),
        };
        // PLAY has a slash at its end that DESCRIBE has not: they are one presentation.
        let hashed = match by {
            Some(Key::Path) => route::Head { path: uri::presentation(path), ..routed },
            _ => routed,
        };
        let key = by.and_then(|key| route::key_hash(key, rule, &hashed));
        let tuning = number.zip(refined.and_then(|refined| refined.tuning.as_ref()));
        let live = view.snapshot.pools[pool].clone();
        let tuned = tuning.map(|(rule, tuning)| view.tuned.of(rule, pool, tuning, live.config()));
        let edits = Rc::new(edits(rule, &routed));
        let redirects = listener.media.carrier == Carrier::Redirect && method == "DESCRIBE";
        let to = if redirects && !self.stays(head, &listener.media.redirect_except) {
            let at = self.known(uri.path, live.name(), method);
            let chosen = at.and_then(|at| lease(&live, &at)).or_else(|| live.pick(key, &[]).ok());
            match chosen {
                // The URI as it was sent, but for the host.
                Some(lease) => {
                    let rest = uri::target(text);
                    let scheme = if uri.scheme.is_empty() { "rtsp" } else { uri.scheme };
                    let location = format!("{scheme}://{}{rest}", lease.configured_address());
                    To::Ours(Reply::of(302).with("Location", location))
                }
                None => self.failed(&Failure::new(FailureKind::NoServer, "there is no server to redirect to")),
            }
        } else {
            self.to_pool(Wanted { pool: live, at: None, key, tuned }, uri.path, method)
        };
        Chosen { to, edits, rule: name }
    }

    /// What a rule answers by itself.
    fn by_action(&self, action: &Action, rule: &route::Rule, routed: &route::Head<'_>, uri: &Uri<'_>) -> To {
        let rejected = |reason| self.worker.counters.borrow_mut().rejected(self.connection.listener, reason);
        match action {
            Action::Redirect { code, to } => {
                let Some(location) = route::location(to, rule, routed) else { return To::Ours(Reply::of(400)) };
                let location = String::from_utf8_lossy(&location).into_owned();
                // A path alone is one of this host: RTSP has absolute URLs only (RFC 2326 §12.25).
                let scheme = if uri.scheme.is_empty() { "rtsp" } else { uri.scheme };
                let relative = location.starts_with('/');
                let location = if relative { format!("{scheme}://{}{location}", uri.authority) } else { location };
                To::Ours(Reply::of(*code).with("Location", location))
            }
            Action::Answer { code, text } => {
                To::Ours(Reply { body: text.as_ref().map(ToString::to_string), ..Reply::of(*code) })
            }
            Action::Deny => {
                rejected(Rejected::Denied);
                To::Ours(Reply::of(403))
            }
            Action::Drop => {
                rejected(Rejected::Dropped);
                To::Drop
            }
            Action::Use { .. } => To::Ours(Reply::of(500)),
        }
    }

    /// A server of the pool: one that has the path, where the client is, or any.
    fn to_pool(&self, mut wanted: Wanted, path: &str, method: &str) -> To {
        let known = self.known(path, wanted.pool.name(), method);
        let of_server = |wanted: &Arc<LiveServer>| {
            self.servers.iter().position(|server| Arc::ptr_eq(server.lease.server(), wanted))
        };
        if let Some(at) = known.as_ref().and_then(of_server) {
            return To::Server(at);
        }
        if known.is_none()
            && let Some(place) = self.place(path).filter(|place| place.pool == wanted.pool.id())
            // What was asked about the whole says nothing of where its parts are.
            && (!WHOLE.contains(&method) || *place.path == *uri::presentation(path))
        {
            return To::Server(place.server);
        }
        let full = |server: &Arc<LiveServer>| server.media().full(0);
        if known.is_none()
            && !wanted.pool.servers().is_empty()
            && wanted.pool.servers().iter().all(|server| full(server).is_some())
        {
            let bandwidth = wanted.pool.servers().iter().any(|server| full(server) == Some(Full::Bandwidth));
            return To::Ours(full_reply(if bandwidth { Full::Bandwidth } else { Full::Sessions }));
        }
        wanted.at = known.map(|server| At { server, only: false });
        To::Dial(wanted)
    }

    /// The server of that pool which is known to have a path. Whoever asks about a presentation anew is not held to whom he
    /// asked before: there may be many behind one address.
    fn known(&self, path: &str, pool: &str, method: &str) -> Option<Arc<LiveServer>> {
        let (paths, now) = (&self.worker.farm.media().paths, self.worker.unix_seconds());
        let told = || paths.told(self.peer().ip(), pool, path, now);
        paths.publisher(pool, path, now).or_else(|| if WHOLE.contains(&method) { None } else { told() })
    }

    /// Whether this client does not follow where it is sent.
    fn stays(&self, head: &Head<'_>, agents: &[Arc<str>]) -> bool {
        let own = head.value("user-agent").unwrap_or_default();
        agents
            .iter()
            .any(|agent| own.get(..agent.len()).is_some_and(|start| start.eq_ignore_ascii_case(agent.as_bytes())))
    }
}

/// What a client is told when no server may take it.
pub fn full_reply(full: Full) -> Reply {
    match full {
        Full::Sessions => Reply::of(503).with("Retry-After", "5"),
        Full::Bandwidth => Reply::of(453),
    }
}

fn edits(rule: Option<&route::Rule>, routed: &route::Head<'_>) -> Edits {
    let mut edits = Edits::default();
    for change in rule.iter().flat_map(|rule| rule.changes()) {
        match change {
            Change::Remove { name } => edits.removed.push(name.clone()),
            Change::Set { name, value } => {
                edits.removed.push(name.clone());
                edits.added.extend_from_slice(name.as_bytes());
                edits.added.extend_from_slice(b": ");
                if let Some(rule) = rule {
                    route::expand(value, rule, routed, false, &mut edits.added);
                }
                edits.added.extend_from_slice(b"\r\n");
            }
        }
    }
    edits
}

impl Due {
    pub fn new(from: From, head: &Head<'_>, method: &str, text: &str, rule: Option<Arc<str>>) -> Due {
        let uri = uri::parse(text);
        Due {
            from,
            since: Instant::now(),
            method: method.into(),
            cseq: head.cseq,
            host: uri.map_or("", |uri| uri.host).into(),
            authority: uri.map_or("", |uri| uri.authority).into(),
            path: uri.map_or(text, |uri| uri.path).into(),
            target: uri::target(text).into(),
            rule,
            session: None,
            asked: None,
            agent: head.value("user-agent").unwrap_or_default().into(),
        }
    }

    /// An answer to nothing that was understood.
    pub fn ours(reply: &Reply) -> Due {
        let mut text = Vec::new();
        reply.write(&mut text);
        Due {
            from: From::Ours(text),
            since: Instant::now(),
            method: "".into(),
            cseq: None,
            host: "".into(),
            authority: "".into(),
            path: "".into(),
            target: "".into(),
            rule: None,
            session: None,
            asked: None,
            agent: Box::default(),
        }
    }
}
