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
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::super::failure::{FailureKind, Side};
use super::super::guard::caught;
use super::super::view::View;
use super::super::worker::{Entered, Worker};
use super::dial::Dialing;
use super::held::{Held, Record};
use super::leg::Leg;
use super::media::Asked;
use super::ours::Reply;
use super::reports::Reports;
use super::route::{Chosen, Place};
use crate::model::Limits;
use crate::net::buffers::LARGE;
use crate::net::{Buffer, Elapsed};
use crate::state::connections::Doing;
use crate::state::counters::Rejected;
use crate::state::media::load::Way;
use crate::state::media::paths::Publication;
use crate::state::media::sessions::Session;
use crate::state::{Lease, LivePool, LiveServer};
use crate::wire::rtsp::framer::FRAME_HEAD;
use crate::wire::rtsp::message::{self, Fault};
use crate::wire::rtsp::{Item, Start};

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
    midway: Option<usize>,
    /// Where the media at the front of the client's input goes.
    towards: Option<usize>,
    /// The client is to be told what waits for it, and no more; then it is over for this reason.
    last_words: Option<Ending>,
    /// What the client reports of the media that comes on its connection.
    reports: Reports,
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

/// What a message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// So many bytes of it are done with.
    Done(usize),
    /// Its body is not all here.
    Partly,
    /// It stays where it is, until something else has happened.
    Waits,
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
            let patience = self.patience();
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
                    if let Some(ending) = self.late() {
                        break ending;
                    }
                }
            }
        };
        drop(listed);
        if matches!(ending, Ending::Dropped | Ending::Panicked) {
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
    fn waits_for(&self) -> (bool, bool, Option<Instant>, usize, bool) {
        let due = self.line.front().map(|due| due.since);
        (self.partial.is_some(), self.stuck.is_some(), due, self.held.len(), self.dialing.is_some())
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = self.say_to_client(cx)?;
        for at in 0..self.servers.len() {
            moved |= self.hear_server(cx, at)?;
            let server = &mut self.servers[at];
            if server.leg.has_text() && server.leg.poll_text(cx).map_err(|_| Ending::Server)?.is_ready() {
                moved = true;
            }
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
        while let Some(Due { from: From::Ours(_), .. }) = self.line.front()
            && self.client.has_room()
        {
            let Some(Due { from: From::Ours(text), .. }) = self.line.pop_front() else { break };
            self.client.text().extend_from_slice(&text);
            moved = true;
        }
        if self.midway.is_none() && self.client.has_text() {
            let waiting = self.client.text().len();
            match self.client.poll_text(cx) {
                Poll::Ready(Ok(())) => {
                    self.sent(waiting);
                    (moved, self.stuck) = (true, None);
                }
                Poll::Ready(Err(_)) => return Err(Ending::Client),
                Poll::Pending => {
                    self.stuck.get_or_insert_with(Instant::now);
                }
            }
        }
        if let Some(ending) = self.last_words
            && self.line.is_empty()
            && !self.client.has_text()
        {
            return Err(ending);
        }
        Ok(moved)
    }

    fn hear_server(&mut self, cx: &mut Context<'_>, at: usize) -> Result<bool, Ending> {
        let mut moved = false;
        if self.servers[at].leg.run > 0 {
            if self.midway.is_some_and(|other| other != at) || self.midway.is_none() && self.client.has_text() {
                return Ok(false);
            }
            self.midway = Some(at);
            let leg = &mut self.servers[at].leg;
            let Some(input) = &mut leg.input else { return Err(Ending::Server) };
            match self.client.poll_media(cx, &input.as_slice()[..leg.run]) {
                Poll::Ready(Ok(count)) => {
                    input.consume(count);
                    leg.run -= count;
                    moved = true;
                    self.stuck = None;
                    self.sent(count);
                }
                Poll::Ready(Err(_)) => return Err(Ending::Client),
                Poll::Pending => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(moved);
                }
            }
            let leg = &self.servers[at].leg;
            if leg.run > 0 {
                return Ok(moved);
            }
            if leg.framer.is_between() {
                self.midway = None;
            }
        }
        self.client.poll_flush(cx).map_err(|_| Ending::Client).is_ready();
        let leg = &mut self.servers[at].leg;
        if leg.unread() < leg.whole.max(1) {
            leg.tidy(&self.worker.buffers);
            let view = self.worker.view_for(self.connection);
            return match leg.poll_read(cx, &self.worker.buffers, &view.snapshot.config.limits) {
                Poll::Ready(Ok(0)) => Err(Ending::Server),
                Poll::Ready(Ok(_)) => {
                    self.heard = self.worker.lately();
                    Ok(true)
                }
                Poll::Ready(Err(_)) => Err(Ending::Server),
                Poll::Pending => Ok(moved),
            };
        }
        Ok(self.server_item(at)? || moved)
    }

    /// Looks at what a server has said; false where there is nothing to be done with it now.
    fn server_item(&mut self, at: usize) -> Result<bool, Ending> {
        let Server { leg, lease, .. } = &mut self.servers[at];
        let traffic = &lease.media().traffic;
        match leg.next(|_, _| {}) {
            Item::Media { bytes, frames } => {
                (leg.run, leg.whole) = (bytes, 0);
                traffic.add(Way::ToClient, frames.into(), bytes as u64);
                if let Some(held) = self.held.iter().find(|held| held.server == at) {
                    held.session.traffic.add(Way::ToClient, frames.into(), bytes as u64);
                }
            }
            Item::Empty(bytes) => {
                leg.whole = 0;
                leg.input.iter_mut().for_each(|input| input.consume(bytes));
            }
            Item::Garbage => return Err(Ending::Garbage(Side::Upstream)),
            Item::More => leg.whole = leg.unread() + 1,
            Item::Head(bytes) => {
                if !self.client.has_room() {
                    return Ok(false);
                }
                let view = self.worker.view_for(self.connection);
                let Some(input) = self.servers[at].leg.input.take() else { return Ok(false) };
                let parsed = message::parse(&input.as_slice()[..bytes], &view.snapshot.config.limits);
                let head = parsed.map_err(|fault| {
                    tracing::debug!(server = %self.servers[at].lease.identity(), "{}", fault.detail());
                    Ending::Garbage(Side::Upstream)
                })?;
                let whole = bytes + head.body;
                let here = input.len() >= whole;
                if here {
                    let body = &input.as_slice()[bytes..whole];
                    match head.start {
                        Start::Request { .. } => self.server_asks(at, &head, body),
                        Start::Answer { .. } => self.server_answers(at, &head, body)?,
                    }
                }
                drop(head);
                let leg = &mut self.servers[at].leg;
                let mut input = input;
                leg.whole = if here { 0 } else { whole };
                if here {
                    input.consume(whole);
                }
                leg.input = Some(input);
            }
        }
        Ok(true)
    }

    fn hear_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = false;
        if self.client.run > 0 {
            let Some(input) = &mut self.client.input else { return Err(Ending::Client) };
            let count = match self.towards.and_then(|at| self.servers.get_mut(at)) {
                // There is nobody whose it could be.
                None => self.client.run,
                Some(server) if server.leg.has_text() => return Ok(false),
                Some(server) => match server.leg.poll_media(cx, &input.as_slice()[..self.client.run]) {
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(_)) => return Err(Ending::Server),
                    Poll::Pending => return Ok(false),
                },
            };
            input.consume(count);
            self.client.run -= count;
            moved = true;
            if self.client.run > 0 {
                return Ok(true);
            }
        }
        for server in &mut self.servers {
            let _ = server.leg.poll_flush(cx).map_err(|_| Ending::Server)?;
        }
        if self.dialing.is_some() || self.line.len() >= Limits::MEDIA_PENDING {
            return Ok(moved);
        }
        if self.client.unread() < self.client.whole.max(1) {
            self.client.tidy(&self.worker.buffers);
            let view = self.view();
            let limits = &view.snapshot.config.limits;
            let before = self.client.unread();
            return match self.client.poll_read(cx, &self.worker.buffers, limits) {
                Poll::Ready(Ok(0)) => Err(Ending::Client),
                Poll::Ready(Ok(count)) => {
                    self.heard = self.worker.lately();
                    self.connection.received.set(self.connection.received.get() + count as u64);
                    self.worker.counters.borrow_mut().bytes(self.connection.listener, count as u64, 0);
                    if before > 0 && before >= limits.header_bytes + Limits::MEDIA_BODY {
                        self.refuse(Fault::TooLarge);
                    }
                    Ok(true)
                }
                Poll::Ready(Err(_)) => Err(Ending::Client),
                Poll::Pending => Ok(moved),
            };
        }
        Ok(self.client_item()? || moved)
    }

    /// Looks at what the client has said; false where it has to wait.
    fn client_item(&mut self) -> Result<bool, Ending> {
        self.client.framer.one_by_one = self.servers.len() > 1;
        let between = self.client.framer.is_between();
        let (reports, servers) = (&self.reports, &self.servers);
        // Reports are on the odd channels (RFC 2326 §10.12).
        let item = self.client.next(|channel, frame| {
            if let Some(server) = servers.first().filter(|_| channel % 2 == 1) {
                reports.look(frame, server.lease.media());
            }
        });
        if item != Item::More {
            (self.partial, self.client.whole) = (None, 0);
        }
        match item {
            Item::Media { bytes, frames } => {
                self.client.run = bytes;
                if between {
                    self.towards = self.owner_of_media();
                }
                if let Some(server) = self.towards.and_then(|at| self.servers.get(at)) {
                    server.lease.media().traffic.add(Way::ToServer, frames.into(), bytes as u64);
                    if let Some(held) = self.held.iter().find(|held| Some(held.server) == self.towards) {
                        held.session.traffic.add(Way::ToServer, frames.into(), bytes as u64);
                    }
                }
            }
            Item::Empty(bytes) => self.client.input.iter_mut().for_each(|input| input.consume(bytes)),
            Item::Garbage => {
                let why = Reply { phrase: Some("This is not RTSP".into()), ..Reply::of(400) };
                self.close_with(why, Ending::Garbage(Side::Downstream));
            }
            Item::More => {
                if self.client.unread() >= self.view().snapshot.config.limits.header_bytes {
                    self.refuse(Fault::TooLarge);
                    return Ok(true);
                }
                self.partial.get_or_insert_with(Instant::now);
                self.client.whole = self.client.unread() + 1;
            }
            Item::Head(bytes) => return self.client_message(bytes),
        }
        Ok(true)
    }

    fn client_message(&mut self, bytes: usize) -> Result<bool, Ending> {
        let view = self.view();
        let limits = &view.snapshot.config.limits;
        if bytes > limits.header_bytes {
            self.refuse(Fault::TooLarge);
            return Ok(true);
        }
        let Some(mut input) = self.client.input.take() else { return Ok(false) };
        let taken = self.client_read(&input, bytes, limits);
        if let Ok(Taken::Done(whole)) = taken {
            self.client.whole = 0;
            input.consume(whole);
        }
        self.client.input = Some(input);
        Ok(!matches!(taken?, Taken::Waits))
    }

    /// Reads the message at the front of what the client has said, whose head has so many bytes.
    fn client_read(&mut self, input: &Buffer, bytes: usize, limits: &Limits) -> Result<Taken, Ending> {
        let head = match message::parse(&input.as_slice()[..bytes], limits) {
            Ok(head) => head,
            Err(fault) => {
                self.refuse(fault);
                return Ok(Taken::Done(bytes));
            }
        };
        let whole = bytes + head.body;
        let Some(body) = input.as_slice().get(bytes..whole) else {
            self.partial.get_or_insert_with(Instant::now);
            self.client.whole = whole;
            return Ok(Taken::Partly);
        };
        Ok(match head.start {
            Start::Answer { .. } => {
                self.client_answers(&head, body);
                Taken::Done(whole)
            }
            Start::Request { method, uri } => match self.client_asks(&head, method, uri, body)? {
                true => Taken::Done(whole),
                false => Taken::Waits,
            },
        })
    }

    /// What cannot be understood is answered, and ends the conversation: where the next message begins is not known.
    fn refuse(&mut self, fault: Fault) {
        let reply = Reply { phrase: Some(fault.detail().into()), ..Reply::of(fault.status()) };
        self.worker.counters.borrow_mut().rejected(self.connection.listener, Rejected::BadRequest);
        self.close_with(reply, Ending::Garbage(Side::Downstream));
    }

    /// The server that the media at the front of the client's input is for.
    fn owner_of_media(&self) -> Option<usize> {
        if self.servers.len() < 2 {
            return self.servers.len().checked_sub(1);
        }
        let channel = self.client.input.as_ref()?.as_slice().first_chunk::<FRAME_HEAD>()?[1];
        let owner = self.channels.as_ref().map(|owners| usize::from(owners[usize::from(channel)]));
        owner.filter(|at| *at < self.servers.len())
    }

    fn sent(&self, count: usize) {
        let connection = self.connection;
        connection.sent.set(connection.sent.get() + count as u64);
        self.worker.counters.borrow_mut().bytes(connection.listener, 0, count as u64);
    }
}
