//! RTSP sessions: whose server each is at, whatever connection asks.
//!
//! An id is the issuing server's. Where two servers issue the same one, the second gets another towards its
//! client: the server's number before it. Ids of clients are unique, so that a request on any connection finds its server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::load::{Carried, Full, Traffic};
use super::tracks::Tracks;
use crate::model::Limits;
use crate::state::LiveServer;
use crate::wire::rtsp::session::LONGEST_ID;

/// The sessions of the process, by the ids that clients have.
#[derive(Debug, Default)]
pub struct Sessions {
    table: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// When it was last looked for those that nobody ended, in seconds since 1970.
    swept: AtomicU32,
}

/// One session. It is over when [`Sessions::end`] says so; its streams see that.
#[derive(Debug)]
pub struct Session {
    /// As the client has it.
    pub id: Arc<str>,
    /// As the server has it.
    pub own: Arc<str>,
    pub server: Arc<LiveServer>,
    /// Number of the listener it began at.
    pub listener: u32,
    pub traffic: Traffic,
    pub tracks: Tracks,
    kilobits: u32,
    /// Seconds that it lives without a sign of life.
    timeout: AtomicU32,
    /// When there was one, in seconds since 1970.
    touched: AtomicU32,
    /// Connections that know it.
    attached: AtomicU32,
    /// When it was last asked to play or record, in seconds since 1970.
    played: AtomicU32,
    over: AtomicBool,
    ended: Notify,
}

/// A stream of a session, counted as long as this is held.
#[derive(Debug)]
pub struct Stream {
    session: Arc<Session>,
    carried: Carried,
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There are [`Limits::MEDIA_SESSIONS`].
    TooMany,
    /// Its id, with what makes it another one, is longer than any is sent on.
    LongId,
    Full(Full),
}

/// How often it is looked for sessions that nobody ended, in seconds.
const SWEEP: u32 = 10;
/// How long a server's media may come from an address that nobody named after it was asked to play, in seconds.
const LEARNS: u32 = 10;

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.lock().get(id).cloned()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Ends sessions that no connection has and that their servers have given up; `now` in seconds since 1970.
    pub fn sweep(&self, now: u32) {
        let swept = self.swept.load(Relaxed);
        if now.saturating_sub(swept) < SWEEP || self.swept.swap(now, Relaxed) != swept {
            return;
        }
        let expired: Vec<Arc<Session>> =
            self.lock().values().filter(|session| session.has_expired(now)).cloned().collect();
        expired.iter().for_each(|session| self.end(session));
    }

    /// Begins the session that a server calls `own`, or finds it; whether it began here. `now` in seconds since 1970.
    ///
    /// # Errors
    /// When there is no room for it, here or at the server.
    pub fn begin(
        &self,
        own: &str,
        server: &Arc<LiveServer>,
        listener: u32,
        kilobits: u32,
        now: u32,
    ) -> Result<(Arc<Session>, bool), Refused> {
        let mut table = self.lock();
        let mut id: Arc<str> = own.into();
        while let Some(known) = table.get(&id) {
            if *known.own == *own && Arc::ptr_eq(&known.server, server) {
                return Ok((known.clone(), false));
            }
            id = other_name(&id, server);
            if id.len() > LONGEST_ID {
                return Err(Refused::LongId);
            }
        }
        if table.len() >= Limits::MEDIA_SESSIONS {
            return Err(Refused::TooMany);
        }
        if let Some(full) = server.media().full(kilobits) {
            return Err(Refused::Full(full));
        }
        server.media().enter(kilobits);
        let session = Arc::new(Session {
            id: id.clone(),
            own: own.into(),
            server: server.clone(),
            listener,
            traffic: Traffic::default(),
            tracks: Tracks::default(),
            kilobits,
            timeout: AtomicU32::new(crate::wire::rtsp::session::USUAL_TIMEOUT.as_secs() as u32),
            touched: AtomicU32::new(now),
            attached: AtomicU32::new(0),
            played: AtomicU32::new(0),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        });
        table.insert(id, session.clone());
        Ok((session, true))
    }

    /// Whether a server calls a session so that its client knows by another name.
    pub fn is_anothers(&self, own: &str, server: &Arc<LiveServer>) -> bool {
        let known = self.find(&other_name(own, server));
        known.is_some_and(|known| *known.own == *own && Arc::ptr_eq(&known.server, server))
    }

    /// A stream of a session is torn down, by its path and query, or all of it is.
    pub fn tear_down(&self, session: &Session, target: &str) {
        if !session.tracks.end_one(target) {
            self.end(session);
        }
    }

    /// Ends a session: nobody finds it any more, and its streams stop.
    pub fn end(&self, session: &Session) {
        if session.over.swap(true, Relaxed) {
            return;
        }
        self.lock().remove(&session.id);
        session.server.media().leave(session.kilobits);
        session.tracks.end();
        session.ended.notify_waiters();
    }
}

/// What a client calls a session whose id another server has given already.
fn other_name(id: &str, server: &LiveServer) -> Arc<str> {
    format!("{}.{id}", server.id()).into()
}

impl Session {
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.load(Relaxed).into())
    }

    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(timeout.as_secs().min(u32::MAX.into()) as u32, Relaxed);
    }

    /// There was a sign of life. `now` in seconds since 1970.
    pub fn touch(&self, now: u32) {
        // It is written once a second only: other cores may read it.
        if self.touched.load(Relaxed) != now {
            self.touched.store(now, Relaxed);
        }
    }

    /// It is asked to play or record. `now` in seconds since 1970.
    pub fn plays(&self, now: u32) {
        self.played.store(now, Relaxed);
    }

    /// Whether that was only just now, so that it may still show where its media comes from.
    pub fn began_to_play(&self, now: u32) -> bool {
        now.saturating_sub(self.played.load(Relaxed)) <= LEARNS
    }

    /// How long there has been none, in seconds.
    pub fn silent(&self, now: u32) -> u32 {
        now.saturating_sub(self.touched.load(Relaxed))
    }

    /// Whether its server has given it up by now, or will have before anything else is heard: half as long again as it
    /// lives, for clocks and journeys differ. Not while a connection has it.
    pub fn has_expired(&self, now: u32) -> bool {
        self.attached.load(Relaxed) == 0 && self.silent(now) > self.timeout.load(Relaxed).saturating_mul(3) / 2
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Waits for the end; only one that comes after this was called is seen, so that [`Session::is_over`] is to be
    /// asked too.
    pub fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.ended.notified()
    }

    /// A connection knows it from now on.
    pub fn attach(&self) {
        self.attached.fetch_add(1, Relaxed);
    }

    pub fn detach(&self) {
        self.attached.fetch_sub(1, Relaxed);
    }

    /// Counts a stream of it.
    pub fn stream(self: &Arc<Self>, carried: Carried) -> Stream {
        self.server.media().stream(carried, true);
        Stream { session: self.clone(), carried }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.session.server.media().stream(self.carried, false);
    }
}
