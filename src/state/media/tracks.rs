//! The streams of a session, on whatever connection each was set up: one of them may be torn down over another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::load::Carried;
use super::sessions::{Session, Stream};
use crate::model::Limits;

/// How the media of a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// Between the messages of its connection.
    Between,
    /// By packets that pass through here.
    Relayed,
    /// By packets that do not.
    Direct,
    /// As the two have agreed, and nobody here knows.
    Unknown,
}

/// All of a session.
#[derive(Debug, Default)]
pub struct Tracks {
    all: Mutex<Vec<Arc<Track>>>,
    /// Of all that there ever were, those whose media is not all counted yet.
    flowing: AtomicUsize,
    settled: Notify,
}

/// One of them.
#[derive(Debug)]
struct Track {
    /// Path and query of its URI.
    target: Box<str>,
    goes: Goes,
    /// Until it ends, where that is not counted by who passes it on.
    counted: Mutex<Option<Stream>>,
    over: AtomicBool,
    ended: Notify,
}

/// A stream, as the connection has it that set it up. Dropping it ends the stream.
#[derive(Debug)]
pub struct SetUp {
    session: Arc<Session>,
    track: Arc<Track>,
}

/// The media of a stream is passed on as long as this is held.
#[derive(Debug)]
pub struct Flow {
    session: Arc<Session>,
    track: Arc<Track>,
}

impl Tracks {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Track>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn go_by_packets(&self) -> bool {
        self.lock().iter().any(|track| matches!(track.goes, Goes::Relayed | Goes::Direct))
    }

    /// Ends the stream of this path and query, if it is one of several. False: whoever tears it down ends the session,
    /// for there is no other one, or that is no stream's name (RFC 2326 §10.7, RFC 7826 §13.7).
    pub fn end_one(&self, target: &str) -> bool {
        let mut all = self.lock();
        let Some(at) = all.iter().position(|track| *track.target == *target).filter(|_| all.len() > 1) else {
            return false;
        };
        all.remove(at).end();
        true
    }

    /// The session is over.
    pub fn end(&self) {
        self.lock().drain(..).for_each(|track| track.end());
    }

    /// Whether all media is counted; while the session is not over, there may come more.
    pub fn is_settled(&self) -> bool {
        self.flowing.load(SeqCst) == 0
    }

    /// Waits until it is.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.is_settled() {
                return;
            }
            settled.await;
        }
    }
}

impl Track {
    fn end(&self) {
        self.over.store(true, SeqCst);
        drop(self.counted.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.ended.notify_one();
    }
}

impl SetUp {
    /// A stream of a session, by the path and query of its URI. One that is set up anew takes another way, and the one it
    /// had ends; so does the oldest of more than [`Limits::MEDIA_STREAMS`].
    pub fn new(session: &Arc<Session>, target: &str, goes: Goes) -> SetUp {
        let counted = (goes == Goes::Between).then(|| session.stream(Carried::Interleaved));
        let track = Arc::new(Track {
            target: target.into(),
            goes,
            counted: Mutex::new(counted),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        });
        let mut all = session.tracks.lock();
        let same = all.iter().position(|known| known.target == track.target);
        if let Some(at) = same.or((all.len() >= Limits::MEDIA_STREAMS).then_some(0)) {
            all.remove(at).end();
        }
        // It may have ended while its server answered. Whoever ends it comes for its streams after it has said so.
        if session.is_over() {
            track.end();
        } else {
            all.push(track.clone());
        }
        drop(all);
        SetUp { session: session.clone(), track }
    }

    pub fn goes(&self) -> Goes {
        self.track.goes
    }

    pub fn is_over(&self) -> bool {
        self.track.over.load(SeqCst)
    }

    /// For the one who passes its media on.
    pub fn flow(&self) -> Flow {
        self.session.tracks.flowing.fetch_add(1, SeqCst);
        Flow { session: self.session.clone(), track: self.track.clone() }
    }
}

impl Drop for SetUp {
    fn drop(&mut self) {
        self.session.tracks.lock().retain(|track| !Arc::ptr_eq(track, &self.track));
        self.track.end();
    }
}

impl Flow {
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for the end of the stream, its own or the session's.
    pub async fn ended(&self) {
        while !self.track.over.load(SeqCst) {
            self.track.ended.notified().await;
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.session.tracks.flowing.fetch_sub(1, SeqCst);
        self.session.tracks.settled.notify_waiters();
    }
}
