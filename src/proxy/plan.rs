//! What is to be done with one request: decided in one go while its head is still borrowed from the
//! buffer, so that nothing but the decision has to outlive it.
//!
//! Parse, check, route, write the rewritten head: no step of it waits.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::access_log::matched;
use super::admit::admit;
use super::ahead::Wanted;
use super::ask::Said;
use super::auth::{self, Gated};
use super::bound::{self, Bound};
use super::failure::{Failure, FailureKind};
use super::forward::{self, Incoming};
use super::registry::Connection;
use super::rtsp;
use super::tuned::Tuned;
use super::view::{ListenerView, View};
use super::worker::Worker;
use crate::model::Limits;
use crate::model::rule::Kind;
use crate::route;
use crate::state::counters::Rejected;
use crate::state::crowd;
use crate::wire::http1::request::{self, RequestHead, Target, Version};
use crate::wire::http1::{Framing, Known, Refusal, host};

/// What a client asked for, as far as it has to be known after its head is gone.
#[derive(Debug)]
pub struct Plan {
    pub view: Rc<View>,
    pub step: Step,
    /// Number of the rule that decided, over all tables of the view.
    pub rule: Option<usize>,
    pub version: Version,
    /// What the client wants of its connection.
    pub keep_alive: bool,
    pub body: Framing,
    /// Bytes of the head; for HTTP/1 in the input buffer.
    pub head_bytes: usize,
    pub head_only: bool,
    /// Why it was turned away, where a rule meant that.
    pub turned_away: Option<Rejected>,
    /// Bytes of its body at most.
    pub most_body: u64,
    /// Among the requests that its rule has under way, where those are limited.
    pub place: Option<crowd::Place>,
    /// What rules read of it besides what the log has anyway, for the log.
    pub matched: Option<Vec<u8>>,
    pub seen: Seen,
}

impl Plan {
    /// Nothing is known of the request yet.
    pub fn new(view: Rc<View>) -> Plan {
        Plan {
            view,
            step: Step::Drop,
            rule: None,
            version: Version::Http11,
            keep_alive: false,
            body: Framing::None,
            head_bytes: 0,
            head_only: false,
            turned_away: None,
            most_body: u64::MAX,
            place: None,
            matched: None,
            seen: Seen::default(),
        }
    }

    /// Forgets the request but for what is wrong with it.
    pub fn fail(&mut self, failure: Failure) {
        *self = Plan { step: Step::Fail(failure), ..Plan::new(self.view.clone()) };
    }

    /// Lets go of the snapshot, but for what the log will want: a tunnel may outlast many of them.
    pub fn let_go(&mut self, listener: u32) {
        self.view = Rc::new(self.view.remains(listener, self.rule));
        self.rule = self.rule.map(|_| 0);
    }
}

/// Where in [`super::client::Client::quoted`] the parts of the request stand that the log and the error
/// page quote.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: Range<u32>,
    pub host: Range<u32>,
    pub path: Range<u32>,
    pub query: Option<Range<u32>>,
    pub accept: Range<u32>,
    pub request_id: Range<u32>,
    pub referer: Range<u32>,
    pub user_agent: Range<u32>,
}

#[derive(Debug)]
pub enum Step {
    Forward(Forward),
    /// To be planned again when its body is here ([`Ahead`]).
    NeedBody(Wanted),
    /// To be done once it is known who asks.
    Gated(Box<Gated>),
    /// The answer of a service that was asked.
    Said(Box<Said>),
    /// An answer of our own.
    Answer(Answer),
    /// `OPTIONS` that may go no further.
    Options,
    /// One of the connections of an RTSP tunnel: HTTP is over.
    Tunnel(rtsp::Half),
    Drop,
    Fail(Failure),
}

/// What a rule answers by itself.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub text: Option<Arc<str>>,
    pub location: Option<Vec<u8>>,
    /// Where a client has to say who he is.
    pub realm: Option<Arc<str>>,
}

/// A request for a pool.
#[derive(Debug)]
pub struct Forward {
    /// Position in the snapshot's pools.
    pub pool: usize,
    /// What hashing schedulers go by.
    pub key: Option<u64>,
    /// The rewritten head.
    pub head: Vec<u8>,
    /// Where in `head` the Host value of the server has to be put, for a client that sent none.
    pub host_at: Option<usize>,
    /// May be sent again after it may have been seen (RFC 9110 §9.2.2).
    pub idempotent: bool,
    pub websocket: bool,
    /// Times and tries, where its rule has its own.
    pub tuned: Option<Rc<Tuned>>,
    /// Positions of the pools that get a copy.
    pub mirrors: Box<[usize]>,
    /// By what its client is known, in a pool that asks.
    pub bound: Option<Bound>,
}

/// A request's body that has been read because a rule asked for it.
#[derive(Debug)]
pub struct Ahead<'a> {
    pub body: route::Body<'a>,
    pub need: Box<route::NeedBody>,
}

/// Plans the request whose head begins `bytes`. False: not all of it is there yet. `plan` is large: it is filled where it
/// stands.
pub fn plan(
    worker: &Worker,
    listener: &ListenerView,
    view: &View,
    connection: &Connection,
    bytes: &[u8],
    ahead: Option<Ahead<'_>>,
    plan: &mut Plan,
) -> bool {
    let mut head = RequestHead::empty();
    match request::parse_into(&mut head, bytes, &view.snapshot.config.limits) {
        Ok(true) => {}
        Ok(false) => return false,
        // Nothing of it can be trusted, least of all where it ends.
        Err(refusal) => {
            plan.fail(Failure::head(refusal));
            return true;
        }
    }
    let at = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        if start > bytes.len() { 0..0 } else { start as u32..(start + part.len()) as u32 }
    };
    let seen = seen(&head, at);
    // Looked at closely only where the head may be one of those.
    let accept = seen.accept.len() == rtsp::TUNNELLED.len() && head.method == "GET";
    if (accept || head.method == "POST" && head.body == rtsp::POST_BODY)
        && !view.snapshot.tables[listener.table].is_empty(Kind::Rtsp)
        && let Some(half) = rtsp::half(&head)
    {
        (plan.head_bytes, plan.step) = (head.raw.len(), Step::Tunnel(half));
        return true;
    }
    plan.seen = seen;
    of_head(worker, listener, view, connection, &mut head, ahead, plan);
    true
}

/// Plans a request whose head does not lie in a buffer; what is quoted of it goes into `quoted`.
pub fn plan_quoted(
    worker: &Worker,
    listener: &ListenerView,
    view: &View,
    connection: &Connection,
    head: &mut RequestHead<'_>,
    ahead: Option<Ahead<'_>>,
    quoted: &mut Vec<u8>,
    plan: &mut Plan,
) {
    plan.seen = seen(head, |part| {
        let start = quoted.len() as u32;
        quoted.extend_from_slice(part);
        start..quoted.len() as u32
    });
    of_head(worker, listener, view, connection, head, ahead, plan);
}

fn of_head(
    worker: &Worker,
    listener: &ListenerView,
    view: &View,
    connection: &Connection,
    head: &mut RequestHead<'_>,
    ahead: Option<Ahead<'_>>,
    plan: &mut Plan,
) {
    plan.version = head.version;
    plan.keep_alive = head.keep_alive;
    plan.body = head.body;
    plan.head_bytes = head.raw.len();
    plan.head_only = head.method == "HEAD";
    if worker.is_short_of_memory() {
        plan.keep_alive = false;
        plan.step = Step::Fail(Failure::short_of_memory());
        return;
    }
    if ahead.is_some() {
        // Whoever waited to be asked for the body has been.
        head.expects_continue = false;
    }
    plan.step = decide(worker, listener, view, connection, head, plan, ahead);
}

fn decide(
    worker: &Worker,
    listener: &ListenerView,
    view: &View,
    connection: &Connection,
    head: &RequestHead<'_>,
    plan: &mut Plan,
    ahead: Option<Ahead<'_>>,
) -> Step {
    let (peer, tls) = (connection.client.get().ip(), connection.tls.get().map(|tls| &**tls));
    let alpn = tls.and_then(|tls| tls.alpn.as_deref()).map(str::as_bytes);
    if head.max_forwards == Some(0) {
        return Step::Options;
    }
    let (raw_path, query) = match head.target {
        Target::Path { path, query } => (path, query.unwrap_or_default()),
        Target::Asterisk => ("*", ""),
    };
    let mut host_scratch = String::new();
    let host = head.authority.map_or("", |authority| host::canonical(authority.host, &mut host_scratch));
    let table = &view.snapshot.tables[listener.table];
    let section = table.section(Kind::Http, host);
    let policy = section.map(route::Section::policy).unwrap_or_default();
    let mut path_scratch = String::new();
    let path = match route::path::normalise(raw_path, policy, &mut path_scratch) {
        Ok(path) => path,
        Err(fault) => return Step::Fail(Failure::new(FailureKind::Path, fault.to_string())),
    };
    let routed = route::Head {
        method: head.method,
        host,
        path,
        query,
        fields: &head.fields,
        source: peer,
        listener: &listener.name,
        sni: tls.and_then(|tls| tls.sni.as_deref()),
        alpn: alpn.as_slice(),
        certificate: tls.and_then(|tls| tls.certificate.as_ref()),
        no_tls: false,
        body: ahead.as_ref().map_or_else(|| body(head.body), |ahead| ahead.body),
    };
    if let Some(reads) = table.reads()
        && worker.keeps_matched()
    {
        // Not one of the texts that are kept: it stays as long as the request does, which may be a tunnel, and is short.
        let out = plan.matched.insert(Vec::with_capacity(matched::COMMON));
        matched::values(reads, &routed, &mut worker.cookie_hashes.borrow_mut(), out);
    }
    let mut incoming = Incoming { listener, peer, tls, head, routed, edit: None, hides_who: view.has_auth };
    let dice = &mut || worker.dice();
    let decided = match (section, ahead) {
        (None, _) => Ok(None),
        (Some(section), None) => section.decide(&incoming.routed, dice),
        (Some(section), Some(ahead)) => Ok(section.decide_with(Some(ahead.need), &incoming.routed, dice)),
    };
    let rule = match decided {
        Ok(rule) => rule,
        Err(need) => return Step::NeedBody(Wanted { need, expects_continue: head.expects_continue }),
    };
    let Some(rule) = rule else {
        return match listener.pool {
            Some(pool) => forward_to(worker, plan, view, pool, None, &mut incoming),
            None => Step::Fail(Failure::new(FailureKind::NoRoute, "no rule takes this request")),
        };
    };
    plan.rule = Some(view.snapshot.rule_offsets[listener.table] + rule.number() as usize);
    plan.turned_away = match rule.action() {
        route::Action::Deny => Some(Rejected::Denied),
        route::Action::Drop => Some(Rejected::Dropped),
        _ => None,
    };
    if let Some(refined) = rule.refined() {
        if let Err(failure) = admit(worker, plan, rule, refined, &incoming.routed) {
            return Step::Fail(failure);
        }
        if let Some(auth) = &refined.auth {
            let gate = auth::gate(worker, auth, &incoming);
            return gate.before(act(worker, plan, view, rule, &mut incoming));
        }
    }
    act(worker, plan, view, rule, &mut incoming)
}

/// What the rule says is done.
fn act<'a>(worker: &Worker, plan: &Plan, view: &'a View, rule: &route::Rule, incoming: &mut Incoming<'a, '_>) -> Step {
    match rule.action() {
        route::Action::Use { target, .. } => match route::pool(target, &incoming.routed, rule, &mut || worker.dice()) {
            Some(pool) => forward_to(worker, plan, view, pool, Some(rule), incoming),
            None => Step::Fail(Failure::new(FailureKind::NoRoute, "the map has no entry for this request")),
        },
        route::Action::Redirect { code, to } => match route::location(to, rule, &incoming.routed) {
            Some(location) => Step::Answer(Answer { status: *code, location: Some(location), ..Answer::default() }),
            None => {
                Step::Fail(Failure::new(FailureKind::Path, "a redirect to the client's host, which it did not name"))
            }
        },
        route::Action::Answer { code, text } => {
            Step::Answer(Answer { status: *code, text: text.clone(), ..Answer::default() })
        }
        route::Action::Deny => Step::Answer(Answer { status: 403, ..Answer::default() }),
        route::Action::Drop => Step::Drop,
    }
}

/// What rules see of a body before it is read.
fn body(framing: Framing) -> route::Body<'static> {
    match framing {
        Framing::None | Framing::UntilClose | Framing::Length(0) => route::Body::Empty,
        Framing::Length(length) if length > Limits::CONDITION_BODY as u64 => route::Body::TooLarge,
        Framing::Length(_) | Framing::Chunked => route::Body::Unread,
    }
}

fn forward_to<'a>(
    worker: &Worker,
    plan: &Plan,
    view: &'a View,
    pool: usize,
    rule: Option<&route::Rule>,
    incoming: &mut Incoming<'a, '_>,
) -> Step {
    let by = match rule.map(route::Rule::action) {
        Some(route::Action::Use { by: Some(by), .. }) => Some(by),
        _ => view.keys[pool].as_ref(),
    };
    let (mut target, mut tuned, mut mirrors) = (None, None, Box::default());
    if let Some((rule, refined)) = rule.and_then(|rule| Some((rule, rule.refined()?))) {
        match rewritten(worker, view, rule, refined, incoming) {
            Ok(rewritten) => target = rewritten,
            Err(failure) => return Step::Fail(failure),
        }
        let chosen = refined.mirrors.iter().filter(|mirror| mirror.share == 10_000 || worker.dice() < mirror.share);
        mirrors = chosen.map(|mirror| mirror.pool).collect();
        let tuning = plan.rule.zip(refined.tuning.as_ref());
        tuned = tuning.map(|(rule, tuning)| view.tuned.of(rule, pool, tuning, view.snapshot.pools[pool].config()));
    }
    let mut head = worker.buffers.text();
    let mut bound = None;
    if let Some(affinity) = view.snapshot.pools[pool].affinity() {
        bound = Some(Bound::of(affinity, incoming, rule, worker.unix_seconds()));
        incoming.edit = bound::edit(affinity);
    }
    let host_at = forward::write(incoming, rule, target.as_deref(), &mut head);
    if let Some(target) = target {
        worker.buffers.keep_text(target);
    }
    let method = incoming.head.method;
    Step::Forward(Forward {
        pool,
        key: by.and_then(|key| route::key_hash(key, rule, &incoming.routed)),
        head,
        host_at,
        idempotent: matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
        websocket: incoming.head.websocket,
        tuned,
        mirrors,
        bound,
    })
}

/// The path and query that go on to the server in the place of the client's.
fn rewritten(
    worker: &Worker,
    view: &View,
    rule: &route::Rule,
    refined: &route::Refined,
    incoming: &Incoming<'_, '_>,
) -> Result<Option<Vec<u8>>, Failure> {
    // `OPTIONS *` asks about the server, not about a path.
    if !refined.rewrites() || incoming.head.target == Target::Asterisk {
        return Ok(None);
    }
    let mut target = worker.buffers.text();
    if !refined.target(rule, &incoming.routed, &mut target) {
        return Err(Failure::new(
            FailureKind::Path,
            "what was captured of the path would lead out of the rewritten one",
        ));
    }
    if target.len() > view.snapshot.config.limits.target_bytes {
        return Err(Failure::head(Refusal::TargetTooLong));
    }
    Ok(Some(target))
}

/// Where what the log quotes is; `at` says so of one part.
#[inline]
fn seen(head: &RequestHead<'_>, mut at: impl FnMut(&[u8]) -> Range<u32>) -> Seen {
    let mut seen = Seen { method: at(head.method.as_bytes()), ..Seen::default() };
    if let Target::Path { path, query } = head.target {
        seen.path = at(path.as_bytes());
        seen.query = query.map(|query| at(query.as_bytes()));
    }
    if let Some(authority) = head.authority {
        seen.host = at(authority.text.as_bytes());
    }
    for (field, known) in head.lines() {
        match known {
            Known::Accept => seen.accept = at(field.value),
            Known::RequestId => seen.request_id = at(field.value),
            Known::Other if field.is("referer") => seen.referer = at(field.value),
            Known::Other if field.is("user-agent") => seen.user_agent = at(field.value),
            _ => {}
        }
    }
    seen
}
