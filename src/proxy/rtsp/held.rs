//! The sessions that a connection knows, and what is written down of them.
//!
//! Whoever has begun a session writes its line into the log when it is over. A session whose media goes by packets may
//! outlive its connection: then a task waits for its end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::access_log::Entry;
use super::super::failure::Side;
use super::super::worker::Worker;
use super::talk::{Due, Ending, Talk};
use crate::model::Limits;
use crate::net::deadline::TICK;
use crate::state::Lease;
use crate::state::media::load::Way;
use crate::state::media::sessions::Session;
use crate::state::media::tracks::{Goes, SetUp};

/// A session, as one connection has it.
#[derive(Debug)]
pub struct Held {
    pub session: Arc<Session>,
    /// Which of the conversation's servers it is at.
    pub server: usize,
    /// It began here.
    begun: bool,
    /// Those that were set up here.
    pub tracks: Vec<SetUp>,
    pub record: Record,
}

/// What the log will want to know when it is over.
#[derive(Debug)]
pub struct Record {
    pub method: Box<str>,
    started: Instant,
    id: u64,
    listener: Arc<str>,
    client: std::net::SocketAddr,
    tls: Option<&'static str>,
    sni: Option<String>,
    host: Box<str>,
    pub path: Box<str>,
    status: u16,
    rule: Option<Arc<str>>,
    pool: Option<Arc<str>>,
    server: Option<Arc<str>>,
    took: Duration,
    first: Duration,
    agent: Box<[u8]>,
}

/// How often it is looked whether a session without connections has expired.
const LOOK: Duration = Duration::from_secs(1);

impl Talk<'_> {
    /// The connection knows a session from now on.
    pub fn hold(&mut self, session: &Arc<Session>, at: usize, due: &Due, begun: bool) {
        if self.held.iter().any(|held| Arc::ptr_eq(&held.session, session)) {
            return;
        }
        if self.held.len() >= Limits::MEDIA_SESSIONS_EACH {
            return;
        }
        session.attach();
        let record = self.record(due, 200, Some(at));
        self.last = None;
        self.held.push(Held { session: session.clone(), server: at, begun, tracks: Vec::new(), record });
    }

    pub fn held_mut(&mut self, session: &Arc<Session>) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| Arc::ptr_eq(&held.session, session))
    }

    /// Notes the last thing that was answered, for a connection on which no session ever begins.
    pub fn note_answer(&mut self, due: &Due, status: u16, at: Option<usize>) {
        if due.session.is_none() && self.held.is_empty() && !due.method.is_empty() {
            self.last = Some(self.record(due, status, at));
        }
    }

    fn record(&self, due: &Due, status: u16, at: Option<usize>) -> Record {
        let view = self.view();
        let connection = self.connection;
        let server = at.map(|at| &self.servers[at]);
        Record {
            method: due.method.clone(),
            started: due.since,
            id: self.worker.request_id(),
            listener: view.listener(connection.listener).map_or_else(|| "-".into(), |listener| listener.name.clone()),
            client: connection.client.get(),
            tls: connection.tls.get().map(|tls| tls.version),
            sni: connection.tls.get().and_then(|tls| tls.sni.as_deref().map(str::to_owned)),
            host: due.host.clone(),
            path: due.path.clone(),
            status,
            rule: due.rule.clone(),
            pool: server.map(|server| server.pool.name().clone()),
            server: server.map(|server| server.lease.name().clone()),
            took: server.map_or(Duration::ZERO, |server| server.took),
            first: due.since.elapsed(),
            agent: due.agent.clone(),
        }
    }

    /// The conversation is over.
    pub fn finish(mut self, ending: Ending) {
        let failure = ending.failure();
        if let Some((word, _)) = failure {
            tracing::debug!(client = %self.peer(), failure = word, "an RTSP connection has ended");
        }
        let (media, now) = (self.worker.farm.media(), self.worker.unix_seconds());
        // Some players take leave and do not wait for the answer.
        let leaving = self.line.iter().filter(|due| due.method.as_ref() == "TEARDOWN");
        for (session, target) in leaving.filter_map(|due| due.session.as_ref().zip(Some(&due.target))) {
            media.sessions.tear_down(session, target);
        }
        for (publication, _) in &self.published {
            media.paths.unpublish(publication, now);
        }
        let leases: Vec<Rc<Lease>> =
            std::mem::take(&mut self.servers).into_iter().map(|server| Rc::new(server.lease)).collect();
        if let Some(last) = self.last.take() {
            last.write(self.worker, None, failure);
        }
        for mut held in std::mem::take(&mut self.held) {
            held.tracks.retain(|track| !track.is_over());
            // Here, or on another connection that knows it.
            let by_packets = held.session.tracks.go_by_packets();
            let concerns =
                held.begun || held.tracks.iter().any(|track| matches!(track.goes(), Goes::Relayed | Goes::Direct));
            if ending.leaves_sessions() && concerns && by_packets && !held.session.is_over() {
                held.session.detach();
                held.tracks.retain(|track| track.goes() != Goes::Between);
                let lease = leases.get(held.server).cloned();
                self.worker.lingering.set(self.worker.lingering.get() + 1);
                tokio::task::spawn_local(linger(self.worker.clone(), held, lease));
            } else {
                // Media between messages ends with its connection; and no server is left to go on, or it was not ours.
                if held.begun || !ending.leaves_sessions() {
                    media.sessions.end(&held.session);
                }
                self.let_go(held, failure);
            }
        }
    }

    /// Lets go of the sessions that are over, on whatever connection they were ended.
    pub fn let_go_of_ended(&mut self) {
        while let Some(at) = self.held.iter().position(|held| held.session.is_over()) {
            let held = self.held.remove(at);
            self.let_go(held, None);
        }
    }

    /// A session that this connection has nothing more to do with.
    pub fn let_go(&self, held: Held, failure: Option<(&'static str, Option<Side>)>) {
        held.session.detach();
        if !held.begun {
            return;
        }
        if held.session.tracks.is_settled() {
            return held.record.write(self.worker, Some(&held.session), failure);
        }
        let worker = self.worker.clone();
        worker.lingering.set(worker.lingering.get() + 1);
        tokio::task::spawn_local(async move {
            held.over(&worker, failure).await;
            worker.lingering.set(worker.lingering.get() - 1);
        });
    }
}

impl Held {
    /// Writes the line of a session that has ended, once all of its media is counted, on whatever connection its streams
    /// were set up.
    async fn over(self, worker: &Worker, failure: Option<(&'static str, Option<Side>)>) {
        self.session.tracks.settled().await;
        if self.begun {
            self.record.write(worker, Some(&self.session), failure);
        }
    }
}

/// Waits for the end of a session whose connection has gone. Its place at the server stays taken meanwhile.
async fn linger(worker: Rc<Worker>, held: Held, lease: Option<Rc<Lease>>) {
    let timer = worker.wheel.timer();
    let session = held.session.clone();
    let mut ended = pin!(session.ended());
    let cut = || lease.as_ref().is_some_and(|lease| lease.is_cut());
    let expired = || held.session.has_expired(worker.unix_seconds()) || worker.sessions_end() || cut();
    while !held.session.is_over() && !expired() {
        let mut leaves = pin!(worker.something_leaves());
        // Such a drain leaves little time between the end of sessions and its own.
        let look = if worker.is_hurried() { TICK } else { LOOK };
        let waits = poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => leaves.as_mut().poll(cx),
        });
        let _ = timer.wait(look, waits).await;
    }
    worker.farm.media().sessions.end(&held.session);
    held.over(&worker, None).await;
    worker.lingering.set(worker.lingering.get() - 1);
}

impl Record {
    fn write(&self, worker: &Worker, session: Option<&Session>, failure: Option<(&'static str, Option<Side>)>) {
        let mut log = worker.log.borrow_mut();
        let Some(log) = log.as_mut() else { return };
        let bytes = |way| session.map_or(0, |session| session.traffic.of(way).1);
        log.record(&Entry {
            unix_ms: worker.unix_ms(self.started),
            id: self.id,
            listener: &self.listener,
            client: self.client,
            proto: "RTSP/1.0",
            tls: self.tls,
            sni: self.sni.as_deref().map(str::as_bytes),
            method: self.method.as_bytes(),
            host: Some(self.host.as_bytes()).filter(|host| !host.is_empty()),
            path: self.path.as_bytes(),
            query: None,
            status: self.status,
            rule: self.rule.as_deref(),
            pool: self.pool.as_deref(),
            server: self.server.as_deref(),
            tries: u32::from(self.server.is_some()),
            bytes_in: bytes(Way::ToServer),
            bytes_out: bytes(Way::ToClient),
            t_queue: Duration::ZERO,
            t_connect: self.took,
            t_header: self.first,
            t_total: self.started.elapsed(),
            affinity: None,
            failure: failure.map(|(word, _)| word),
            side: failure.and_then(|(_, side)| side).map(Side::word),
            matched: None,
            referer: None,
            user_agent: Some(&self.agent[..]).filter(|agent| !agent.is_empty()),
        });
    }
}
