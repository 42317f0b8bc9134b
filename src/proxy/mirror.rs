//! Copies of requests for other pools: sent when the request itself is on its way, answered to nobody.
//!
//! A copy has the head that the server gets, and the body, of which no more than [`MOST`] bytes are kept for it as they
//! pass. It has tasks of its own, a bounded number a worker, and whatever becomes of it shows in a counter alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::announced;
use super::ask::{self, Wanted};
use super::channels::Place;
use super::client::Rest;
use super::pick::{self, Connected, Picked, Take, Tries, Upstream};
use super::pieces;
use super::registry::Connection;
use super::worker::Worker;
use crate::model::Limits;
use crate::net::{Timer, idle};
use crate::state::LivePool;
use crate::state::counters::MirrorResult;
use crate::wire::http1::Framing;
use crate::wire::http1::response::Method;
use crate::wire::http2;

/// Bytes of a body that are kept for a copy.
pub const MOST: usize = Limits::CONDITION_BODY;

/// A copy in the making.
#[derive(Debug)]
pub struct Mirror {
    /// Where it goes, and what each connection there begins with.
    pools: Vec<(Arc<LivePool>, Vec<u8>)>,
    key: Option<u64>,
    head: Vec<u8>,
    framing: Framing,
    method: Method,
    limits: Limits,
    body: RefCell<Vec<u8>>,
    too_large: Cell<bool>,
    sent: Cell<bool>,
}

impl Mirror {
    /// `head` is what the server gets, with what there is of the bare body behind its first `length` bytes.
    pub fn new(
        pools: Vec<Arc<LivePool>>,
        key: Option<u64>,
        head: &[u8],
        length: usize,
        framing: Framing,
        head_only: bool,
        limits: &Limits,
        connection: &Connection,
    ) -> Mirror {
        let greeting = |pool: &Arc<LivePool>| {
            let mut greeting = Vec::new();
            if let Some(version) = pool.config().send_proxy {
                announced::write(connection, version, &mut greeting);
            }
            greeting
        };
        let mirror = Mirror {
            pools: pools.into_iter().map(|pool| (pool.clone(), greeting(&pool))).collect(),
            key,
            head: head[..length].to_vec(),
            framing,
            method: if head_only { Method::Head } else { Method::Other },
            limits: limits.clone(),
            body: RefCell::default(),
            too_large: Cell::new(matches!(framing, Framing::Length(length) if length > MOST as u64)),
            sent: Cell::new(false),
        };
        mirror.add(&head[length..]);
        mirror
    }

    /// Nothing more is wanted of the body.
    pub fn is_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// More of the body has gone to the server.
    pub fn add(&self, bytes: &[u8]) {
        let mut body = self.body.borrow_mut();
        if self.sent.get() || self.too_large.get() {
            return;
        }
        if body.len() + bytes.len() > MOST {
            self.too_large.set(true);
            *body = Vec::new();
            return;
        }
        body.extend_from_slice(bytes);
    }

    /// All of the request is on its way: so is the copy, once.
    pub fn send(&self, worker: &Rc<Worker>) {
        if self.sent.replace(true) {
            return;
        }
        let body = Bytes::from(self.body.take());
        for (pool, greeting) in &self.pools {
            let count = |result| worker.counters.borrow_mut().mirrored(pool.id(), result);
            if self.too_large.get() {
                count(MirrorResult::TooLarge);
            } else if worker.mirrors.get() >= Limits::MIRRORS {
                count(MirrorResult::Dropped);
            } else {
                let copy = Copy {
                    under_way: UnderWay::new(worker),
                    pool: pool.clone(),
                    greeting: greeting.clone(),
                    key: self.key,
                    head: self.head.clone(),
                    framing: self.framing,
                    method: self.method,
                    limits: self.limits.clone(),
                    body: body.clone(),
                };
                spawn_local(copy.run());
            }
        }
    }
}

/// One of those that a worker has in hand.
struct UnderWay(Rc<Worker>);

impl UnderWay {
    fn new(worker: &Rc<Worker>) -> UnderWay {
        worker.mirrors.set(worker.mirrors.get() + 1);
        UnderWay(worker.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get().saturating_sub(1));
    }
}

/// A copy on its way to one pool.
struct Copy {
    under_way: UnderWay,
    pool: Arc<LivePool>,
    greeting: Vec<u8>,
    key: Option<u64>,
    head: Vec<u8>,
    framing: Framing,
    method: Method,
    limits: Limits,
    body: Bytes,
}

/// Why a copy came to nothing, for the log of those who look for it.
type Lost = String;

impl Copy {
    async fn run(self) {
        let worker = self.under_way.0.clone();
        let timeouts = &self.pool.config().timeouts;
        let timer = worker.wheel.timer();
        let done = timer.wait(timeouts.connect + timeouts.response, Box::pin(self.exchange(&worker))).await;
        let result = match done {
            Ok(Ok(())) => MirrorResult::Answered,
            Ok(Err(why)) => {
                tracing::debug!(pool = %self.pool.name(), "a copy was not answered: {why}");
                MirrorResult::Failed
            }
            Err(_) => MirrorResult::Failed,
        };
        worker.counters.borrow_mut().mirrored(self.pool.id(), result);
    }

    async fn exchange(&self, worker: &Rc<Worker>) -> Result<(), Lost> {
        let (pool, mut tries) = (&self.pool, Tries::default());
        let timer = worker.wheel.timer();
        let take = Take::IdleOrNew;
        let picked = pick::pick(worker, pool, self.key, take, &mut tries).map_err(|failure| failure.detail)?;
        let Connected { lease, upstream, .. } = match picked {
            Picked::Connected(connected) => connected,
            Picked::ToDial(lease) => {
                let connect = pick::connect(worker, pool, self.key, take, lease, &self.greeting, &mut tries, &timer);
                Box::pin(connect).await.map_err(|failure| failure.detail)?
            }
        };
        let mut stream = match upstream {
            Upstream::Http2(place) => return self.over_http2(&place, &timer).await,
            Upstream::Http1(stream) => stream,
        };
        let mut request = self.head.clone();
        if self.framing == Framing::Chunked {
            pieces::chunk(&self.body, &mut request);
            pieces::last_chunk(None, &mut request);
        } else {
            request.extend_from_slice(&self.body);
        }
        let wanted = Wanted { read: Limits::MIRRORED_ANSWER, kept: false };
        let said = ask::ask(worker, &mut stream, &request, self.method, wanted, &self.limits).await;
        let said = said.map_err(|error| error.to_string())?;
        let line = said.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        tracing::trace!(pool = %pool.name(), "a copy was answered: {}", line.escape_ascii());
        if said.reusable && lease.is_current() && self.greeting.is_empty() {
            let until = idle::expiry(worker.lately(), pool.config().timeouts.server_keep_alive);
            let most = self.limits.idle_per_server;
            worker.idle.keep(lease.id(), lease.address(), lease.way(), stream, until, most);
        }
        Ok(())
    }

    async fn over_http2(&self, place: &Place, timer: &Timer) -> Result<(), Lost> {
        let request = http2::response::request_of_text(&self.head, self.pool.config().tls.is_some())
            .ok_or("the target is none for HTTP/2")?;
        let ends = self.body.is_empty();
        let said = |error: h2::Error| error.to_string();
        let (heads, mut to) = place.send(request, ends).await.map_err(said)?;
        if !ends {
            let limit = self.pool.config().timeouts.response;
            let sent = pieces::begin(&mut to, self.body.clone(), Rest::End(None), timer, limit).await;
            sent.map_err(|error| format!("{error:?}"))?;
        }
        let mut answer = heads.await.map_err(said)?.into_body();
        let mut read = 0;
        while let Some(bytes) = poll_fn(|cx| answer.poll_data(cx)).await {
            let length = bytes.map_err(said)?.len();
            pieces::release(&mut answer, length);
            read += length;
            if read > Limits::MIRRORED_ANSWER {
                break;
            }
        }
        Ok(())
    }
}
