//! One client's conversation: what moves, when, and until when.
//!
//! ```text
//!   client --- leg --> messages: route, dial, forward --> leg --- server(s)
//!              leg <-- line of answers due <-- answers <-- leg
//!                      media between messages, from buffer to connection, either way
//! ```
//!
//! All of it is one task, so that nothing is locked. Each call of [`Talk::poll`] moves what can be moved; a leg from which
//! nothing can be taken is not read, and that holds its sender back.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::failure::{FailureKind, Side};
use super::super::guard::caught;
use super::super::view::View;
use super::super::worker::{Entered, Worker};
use super::dial::Dialing;
use super::hear::Heard;
use super::held::{Held, Record};
use super::leg::Leg;
use super::media::Asked;
use super::ours::Reply;
use super::reports::Reports;
use super::route::{Chosen, Place};
use crate::net::Elapsed;
use crate::net::buffers::LARGE;
use crate::net::deadline::TICK;
use crate::state::connections::Doing;
use crate::state::media::paths::Publication;
use crate::state::media::sessions::Session;
use crate::state::{Lease, LivePool, LiveServer};

/// How long, and for how many bytes, a client that is still sending is listened to after its last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

pub struct Talk<'w> {
    pub worker: &'w Rc<Worker>,
    pub connection: &'w Entered,
    pub client: Leg,
    /// Where the client came to.
    pub here: IpAddr,
    pub servers: Vec<Server>,
    /// Requests of the client that are not answered yet, in their order.
    pub line: VecDeque<Due>,
    /// Requests of servers: whose they are, and their numbers.
    pub asked: VecDeque<(usize, Option<u32>)>,
    /// Where the request at the front of the client's input goes.
    pub chosen: Option<Chosen>,
    pub dialing: Option<Dialing>,
    pub places: Vec<Place>,
    pub held: Vec<Held>,
    /// Paths that are published on this connection.
    pub published: Vec<(Publication, Arc<LiveServer>)>,
    /// By channel of interleaved media: the server that it belongs to.
    pub channels: Option<Box<[u8; 256]>>,
    /// The server whose media is on its way to the client: nothing may be said in between.
    pub midway: Option<usize>,
    /// Where the media at the front of the client's input goes.
    pub towards: Option<usize>,
    /// The client is to be told what waits for it, and no more; then it is over for this reason.
    pub last_words: Option<Ending>,
    /// What the client reports of the media that comes on its connection.
    pub reports: Reports,
    /// Flows that the director is asked for, since when: what is said waits for them.
    pub offloading: Option<(Instant, Vec<oneshot::Receiver<()>>)>,
    /// The last request that was answered, while there was no session.
    pub last: Option<Record>,
    /// When something was last heard of either side.
    pub heard: Instant,
    /// Since when a message of the client is not whole, or nothing is taken by somebody.
    pub partial: Option<Instant>,
    pub stuck: Option<Instant>,
}

/// A server that the client is at.
pub struct Server {
    pub leg: Leg,
    pub lease: Lease,
    pub pool: Arc<LivePool>,
    pub took: Duration,
}

/// An answer that the client is owed.
#[derive(Debug)]
pub struct Due {
    pub from: From,
    pub since: Instant,
    pub method: Box<str>,
    pub cseq: Option<u32>,
    /// Of the request's URI.
    pub host: Box<str>,
    pub authority: Box<str>,
    pub path: Box<str>,
    /// Path and query.
    pub target: Box<str>,
    pub rule: Option<Arc<str>>,
    pub session: Option<Arc<Session>>,
    pub asked: Option<Asked>,
    pub agent: Box<[u8]>,
}

#[derive(Debug)]
pub enum From {
    Server(usize),
    /// It is here, and waits for its turn.
    Ours(Vec<u8>),
}

/// Why a conversation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client has gone.
    Client,
    /// A server has.
    Server,
    /// Neither said anything for too long.
    Silent,
    /// A side took or said nothing for too long.
    Slow(FailureKind),
    /// What came is not RTSP.
    Garbage(Side),
    Drained,
    /// Its server is down, and its connections are to be closed then.
    Cut,
    /// We have said all there is.
    Done,
    /// A rule said so.
    Dropped,
    /// A fault of ours.
    Panicked,
}

impl Ending {
    /// For the log; none for what is usual.
    pub fn failure(self) -> Option<(&'static str, Option<Side>)> {
        Some(match self {
            Ending::Client | Ending::Done | Ending::Dropped => return None,
            Ending::Server => (FailureKind::ServerClosed.word(), Some(Side::Upstream)),
            Ending::Silent => ("idle", None),
            Ending::Slow(kind) => (kind.word(), kind.side()),
            Ending::Garbage(side) => ("not-rtsp", Some(side)),
            Ending::Drained => ("drained", None),
            Ending::Cut => ("server-down", Some(Side::Upstream)),
            Ending::Panicked => (FailureKind::Panicked.word(), None),
        })
    }

    /// Whether the servers may go on with the sessions: only where the client alone has left.
    pub fn leaves_sessions(self) -> bool {
        matches!(self, Ending::Client | Ending::Silent)
    }
}

impl<'w> Talk<'w> {
    pub fn new(worker: &'w Rc<Worker>, connection: &'w Entered, client: Leg) -> Talk<'w> {
        let here = client.local_address().map_or(IpAddr::from([0, 0, 0, 0]), |here| here.ip().to_canonical());
        Talk {
            worker,
            connection,
            client,
            here,
            servers: Vec::new(),
            line: VecDeque::new(),
            asked: VecDeque::new(),
            chosen: None,
            dialing: None,
            places: Vec::new(),
            held: Vec::new(),
            published: Vec::new(),
            channels: None,
            midway: None,
            towards: None,
            last_words: None,
            reports: Reports::default(),
            offloading: None,
            last: None,
            heard: Instant::now(),
            partial: None,
            stuck: None,
        }
    }

    pub fn view(&self) -> Rc<View> {
        self.worker.view_for(self.connection)
    }

    /// The address that requests are taken to come from.
    pub fn peer(&self) -> SocketAddr {
        self.connection.client.get()
    }

    /// Talks until there is nothing more to say.
    pub async fn run(mut self) {
        let (worker, connection) = (self.worker, self.connection);
        let listed = worker.tunnels.list();
        let ending = loop {
            self.show();
            let (patience, since) = (self.patience(), Instant::now());
            let timer = &connection.timer;
            let moves = poll_fn(|cx| {
                listed.wake_here(cx);
                match caught(|| self.poll(cx)) {
                    Ok(polled) => polled,
                    Err(_) => Poll::Ready(Some(Ending::Panicked)),
                }
            });
            match timer.wait(patience, moves).await {
                Ok(Some(ending)) => break ending,
                Ok(None) => {}
                Err(Elapsed) => {
                    if let Some(ending) = self.late(since.elapsed() + TICK < patience) {
                        break ending;
                    }
                }
            }
        };
        drop(listed);
        // Whoever takes nothing does not leave what was written for it to the kernel.
        if matches!(ending, Ending::Dropped | Ending::Panicked | Ending::Slow(FailureKind::ClientStalled)) {
            self.client.stream().reset_on_close();
        } else if self.last_words.is_some() {
            self.linger().await;
        }
        self.finish(ending);
    }

    /// Reads what a client is still sending, for a while: to close at once would reset the connection, and its answer
    /// would be lost.
    async fn linger(&mut self) {
        let (worker, timer) = (self.worker.clone(), &self.connection.timer);
        let (mut reader, mut writer) = self.client.stream().split();
        let Ok(Ok(())) = timer.wait(LINGER, writer.shutdown()).await else { return };
        let (until, mut read) = (Instant::now() + LINGER, 0);
        while read < LINGER_BYTES {
            let left = until.saturating_duration_since(Instant::now());
            match timer.wait(left, reader.fill(&worker.buffers, LARGE as u64)).await {
                Ok(Ok(buffer)) if !buffer.is_empty() && !left.is_zero() => read += buffer.len(),
                _ => return,
            }
        }
    }

    /// What `reeve connections` and a drain see.
    fn show(&self) {
        let doing = match (self.held.is_empty(), self.line.is_empty() && self.dialing.is_none()) {
            (true, true) => return self.worker.set_idle(self.connection),
            (true, false) => Doing::Waiting,
            (false, _) => Doing::Tunnel,
        };
        self.worker.set_active(self.connection);
        self.connection.doing.set(doing);
        if let Some(server) = self.servers.last() {
            self.connection.server.set((server.pool.id(), server.lease.id()));
        }
    }

    /// Nothing more is taken from the client; it gets what it is owed, and this.
    pub fn close_with(&mut self, reply: Reply, ending: Ending) {
        self.line.push_back(Due::ours(&reply));
        self.last_words.get_or_insert(ending);
    }

    /// The same about the first request: those behind it are not answered any more, for an answer to them would come
    /// before this one.
    pub fn close_at_once_with(&mut self, reply: Reply, ending: Ending) {
        self.line.clear();
        self.close_with(reply, ending);
    }

    /// Moves what can be moved. `Some`: it is over; `None`: other times count from now on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        let before = self.waits_for();
        loop {
            match self.step(cx) {
                Err(ending) => return Poll::Ready(Some(ending)),
                Ok(true) => {}
                Ok(false) => break,
            }
        }
        if self.worker.tunnel_ends(self.connection) {
            return Poll::Ready(Some(Ending::Drained));
        }
        if self.servers.iter().any(|server| server.lease.is_cut()) {
            return Poll::Ready(Some(Ending::Cut));
        }
        if self.waits_for() == before { Poll::Pending } else { Poll::Ready(None) }
    }

    /// By this it is known whether other deadlines count.
    fn waits_for(&self) -> (bool, bool, Option<Instant>, usize, bool, bool) {
        let due = self.line.front().map(|due| due.since);
        (
            self.partial.is_some(),
            self.stuck.is_some(),
            due,
            self.held.len(),
            self.dialing.is_some(),
            self.offloading.is_some(),
        )
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = self.say_to_client(cx)?;
        let mut at = 0;
        while at < self.servers.len() {
            match self.hear_server(cx, at)? {
                Heard::Moved => moved = true,
                Heard::Nothing => {}
                Heard::End => {
                    self.server_ends(at)?;
                    moved = true;
                    continue;
                }
            }
            let leg = &mut self.servers[at].leg;
            if leg.has_text() {
                match leg.poll_text(cx) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(_)) => {
                        self.server_ends(at)?;
                        moved = true;
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            at += 1;
        }
        moved |= self.dialled(cx);
        if self.last_words.is_none() {
            moved |= self.hear_client(cx)?;
        }
        Ok(moved)
    }

    /// Says what is to be said, in its turn.
    fn say_to_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = false;
        if self.midway.is_none() && self.client.has_text() && self.offloaded(cx) {
            let unsaid = self.client.unsaid();
            let polled = self.client.poll_text(cx);
            let said = unsaid - self.client.unsaid();
            self.sent(said);
            if said > 0 {
                self.stuck = None;
            }
            match polled {
                Poll::Ready(Ok(())) => (moved, self.stuck) = (true, None),
                Poll::Ready(Err(_)) => return Err(Ending::Client),
                Poll::Pending => {
                    self.stuck.get_or_insert_with(Instant::now);
                }
            }
        } else if self.midway.is_some() && self.last_words.is_some() {
            // The rest of the frame may never come, and nothing can be said before it has.
            self.stuck.get_or_insert_with(Instant::now);
        }
        // Behind the writing: while there is room for what servers say, none of ours is first in line.
        while let Some(Due { from: From::Ours(_), .. }) = self.line.front()
            && self.client.has_room()
        {
            let Some(Due { from: From::Ours(text), .. }) = self.line.pop_front() else { break };
            self.client.text().extend_from_slice(&text);
            moved = true;
        }
        if let Some(ending) = self.last_words
            && self.line.is_empty()
            && !self.client.has_text()
        {
            return Err(ending);
        }
        Ok(moved)
    }

    /// Whether all flows are there that were asked for.
    fn offloaded(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some((_, waits)) = &mut self.offloading {
            waits.retain_mut(|waits| Pin::new(waits).poll(cx).is_pending());
            if waits.is_empty() {
                self.offloading = None;
            }
        }
        self.offloading.is_none()
    }

    pub fn sent(&self, count: usize) {
        let connection = self.connection;
        connection.sent.set(connection.sent.get() + count as u64);
        self.worker.counters.borrow_mut().bytes(connection.listener, 0, count as u64);
    }
}
