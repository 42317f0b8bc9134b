//! The same stream by the director: packets are rewritten in the kernel, and come to no socket.
//!
//! ```text
//!   client:cp  -> VIP:n          goes on as  own address:m -> server:sp
//!   server:sp  -> own address:m  goes on as  VIP:n -> client:cp             and so for RTCP
//! ```
//!
//! The sockets stay: they keep the ports, and take what no flow is of. That is everything while there are no flows, and
//! else the packets by which an end shows another port or address than it said: then the flows become those of that one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::super::worker::Worker;
use super::relay::Task;
use crate::model::director::Protocol;
use crate::state::director::{Command, Commands, Explicit, NotPut, Tally, Tuple};
use crate::state::media::load::{Carried, Way};

/// How long the client's answer waits for its flows: a director that is at work takes milliseconds. Beyond, media is relayed
/// until they are there.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How long after the director has refused for want of something it is not asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a director that does not answer holds up the end of a stream.
const ENDS: Duration = Duration::from_secs(2);

/// The flows of a stream.
#[derive(Debug)]
pub struct Offload {
    commands: Commands,
    /// Of RTP and of RTCP.
    pairs: [RefCell<Option<Pair>>; 2],
    /// Ends that there can be no flows between.
    unfit: [Cell<Option<(SocketAddr, SocketAddr)>>; 2],
    /// Until when the director is not asked.
    refused: Cell<Option<Instant>>,
    /// An end is another one than it was, or the director has taken a flow out. Nothing else has it look: a stream that is
    /// offloaded costs nothing while it is.
    changed: Arc<Notify>,
    /// Told when the flows are there, or none will be for now.
    ready: RefCell<Option<oneshot::Sender<()>>>,
}

/// Both directions between two ends. They are put in, or are about to be.
#[derive(Debug, Clone)]
struct Pair {
    client: SocketAddr,
    server: SocketAddr,
    there: (Explicit, Arc<Tally>),
    back: (Explicit, Arc<Tally>),
}

/// The director has let a client's answer wait for too long.
pub fn is_late(worker: &Worker) {
    if worker.farm.media().is_news("late") {
        tracing::warn!(
            "media is relayed, not offloaded: the director has not answered within {} ms; it is offloaded when it has",
            PATIENCE.as_millis()
        );
    }
}

impl Offload {
    /// What the director is asked by, and what is told when it was.
    pub fn new(commands: Commands) -> (Offload, oneshot::Receiver<()>) {
        let (ready, waits) = oneshot::channel();
        let offload = Offload {
            commands,
            pairs: Default::default(),
            unfit: Default::default(),
            refused: Cell::default(),
            changed: Arc::default(),
            ready: RefCell::new(Some(ready)),
        };
        (offload, waits)
    }

    /// Has the flows be those of the stream's ends, for as long as it is asked.
    pub async fn tend(&self, task: &Task) -> Infallible {
        let timer = task.worker.wheel.timer();
        let mut before = false;
        loop {
            self.refused.set(self.refused.get().filter(|until| Instant::now() < *until));
            for kind in [0, 1] {
                self.settle(task, kind).await;
            }
            let now = self.pairs[0].borrow().is_some();
            if now != std::mem::replace(&mut before, now) {
                task.count_as(if now { Carried::Offloaded } else { Carried::Relayed });
            }
            if let Some(ready) = self.ready.take() {
                // Whoever waits for it may have gone on.
                let _ = ready.send(());
            }
            let changed = self.changed.notified();
            match self.refused.get() {
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                    let _ = timer.wait(left, pin!(changed)).await;
                }
                None => changed.await,
            }
        }
    }

    /// Something about the ends is other than it was.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Takes all out. What they have carried has been counted then.
    pub async fn end(&self, task: &Task) {
        let timer = task.worker.wheel.timer();
        if timer.wait(ENDS, pin!(self.remove(&[0, 1]))).await.is_ok() {
            return;
        }
        // What it has not been asked for by then, or does not do, it finds when it is at work again.
        for (_, tally) in self.pairs.iter().filter_map(RefCell::take).flat_map(|pair| [pair.there, pair.back]) {
            tally.give_up();
        }
    }

    /// The flows of RTP (0) or RTCP (1).
    async fn settle(&self, task: &Task, kind: usize) {
        let known = self.pairs[kind].borrow().clone();
        if let Some(pair) = known {
            let left = pair.there.1.has_left() || pair.back.1.has_left();
            if !left && task.known(kind) == Some((pair.client, pair.server)) {
                return;
            }
            self.remove(&[kind]).await;
            // Whoever has sent from where he said stays there, whoever else says he is it.
            if pair.there.1.packets() > 0 {
                task.stays(Way::ToServer, kind, pair.client);
            }
            if pair.back.1.packets() > 0 {
                task.stays(Way::ToClient, kind, pair.server);
            }
        }
        if self.refused.get().is_some() {
            return;
        }
        let Some((client, server)) = task.known(kind) else { return };
        if self.unfit[kind].get() == Some((client, server)) {
            return;
        }
        let (outside, inside) = task.addresses(kind);
        let flow = |source, destination, leaves_from, leaves_to, way| {
            let comes = Tuple { protocol: Protocol::Udp, source, destination };
            let tally = Arc::new(Tally::of(task.session.clone(), way, self.changed.clone()));
            (Explicit { comes, leaves_from, leaves_to }, tally)
        };
        let pair = Pair {
            client,
            server,
            there: flow(client, outside, inside, server, Way::ToServer),
            back: flow(server, inside, outside, client, Way::ToClient),
        };
        // Noted before it is so: whoever stops this half way knows what to take out.
        *self.pairs[kind].borrow_mut() = Some(pair.clone());
        let put = async {
            self.put(pair.there).await?;
            self.put(pair.back).await
        };
        match put.await {
            Ok(()) => {}
            Err(why) => {
                self.remove(&[kind]).await;
                match why {
                    NotPut::Nobody(_) => self.refused.set(Some(Instant::now() + AGAIN)),
                    NotPut::Unfit(_) => self.unfit[kind].set(Some((client, server))),
                }
                self.say(task, why);
            }
        }
    }

    fn say(&self, task: &Task, why: NotPut) {
        match why {
            // A process that has been replaced gave the director away.
            _ if self.commands.is_closed() => {}
            NotPut::Nobody(why) if task.worker.farm.media().is_news(&why) => {
                tracing::warn!("media is relayed, not offloaded: {why}");
            }
            NotPut::Nobody(why) | NotPut::Unfit(why) => {
                tracing::debug!(client = %task.ends.client, server = %task.ends.server, "relayed, not offloaded: {why}");
            }
        }
    }

    async fn put(&self, (flow, tally): (Explicit, Arc<Tally>)) -> Result<(), NotPut> {
        let silent = || NotPut::Nobody("the director does not answer".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Put { flow, tally, reply }).await.map_err(|_| silent())?;
        answer.await.map_err(|_| silent())?
    }

    /// All are asked for before the first answer is waited for: a director that is slow has them to do all the same.
    async fn remove(&self, kinds: &[usize]) {
        let pairs = kinds.iter().filter_map(|kind| self.pairs[*kind].borrow().clone());
        let mut answers = Vec::new();
        for (flow, _) in pairs.flat_map(|pair| [pair.there, pair.back]) {
            let (reply, answer) = oneshot::channel();
            if self.commands.send(Command::Take { of: flow.comes, reply }).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // It is out, or the director has left, and with it its flows.
            let _ = answer.await;
        }
        kinds.iter().for_each(|kind| *self.pairs[*kind].borrow_mut() = None);
    }
}
