//! What the control thread can ask of the workers, and how their answers come together; see `orders`
//! for what can be asked of `app`.
//!
//! A worker answers between two of its tasks; nothing on the request path waits for it. A worker that
//! is silent for two seconds is left out and named, so that one stuck core hides nothing of the others.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::connections::{ConnectionInfo, Doing};
use super::counters::Counters;
use super::snapshot::ListenerId;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Commands that wait for one worker. The control thread never has more under way than it serves
/// connections; when a stuck worker's queue is full, it is silent.
const QUEUE: usize = 128;

/// A command to one worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Answer with a copy of the counters.
    Counters(oneshot::Sender<Counters>),
    /// Answer with at most `limit` connections, the busy before the idle.
    Connections { limit: usize, reply: oneshot::Sender<Vec<ConnectionInfo>> },
    /// Accept on these sockets, until told otherwise.
    Listen(Vec<Socket>),
    /// Accept what is in the queues of these sockets, by their keys, and close them. Then the connections of
    /// these listeners are asked to leave, and an answer given.
    Close { keys: Arc<[u64]>, leaving: Arc<[ListenerId]>, reply: oneshot::Sender<()> },
    /// Accept what is in the queues, stop listening, finish the connections. With a deadline idle ones are closed
    /// soon and all of them by `timeouts.drain`; without one each ends in its own time, until told again.
    Drain { deadline: bool },
}

/// A listening socket, as one worker has it.
#[derive(Debug)]
pub struct Socket {
    /// One for all sockets that were opened for one address, and never used again.
    pub key: u64,
    /// Whose it is. Another listener may take its address over in a reload.
    pub listener: ListenerId,
    /// The address as it is configured.
    pub address: SocketAddr,
    pub socket: TcpListener,
}

/// The end of the queue that a worker reads.
pub type Commands = mpsc::Receiver<ToWorker>;

/// All the workers, as seen from the control thread.
#[derive(Debug)]
pub struct Workers {
    senders: Vec<mpsc::Sender<ToWorker>>,
    /// What each worker last counted: it stands in for one that is silent or has ended, because a
    /// counter that goes back looks like a restart to whoever scrapes it.
    last: Mutex<Vec<Counters>>,
    /// What processes have counted that this one has taken over from.
    inherited: Mutex<Counters>,
    patience: Duration,
}

/// What the workers answered, put together.
#[derive(Debug, Clone)]
pub struct Answers<T> {
    pub merged: T,
    /// Numbers of the workers that did not answer in time.
    pub silent: Vec<usize>,
}

impl Workers {
    /// The queues for that many workers: one end to keep, the others to hand out in order.
    pub fn new(count: usize) -> (Workers, Vec<Commands>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(QUEUE)).unzip();
        let last = Mutex::new(vec![Counters::default(); count]);
        (Workers { senders, last, inherited: Mutex::default(), patience: PATIENCE }, receivers)
    }

    pub fn count(&self) -> usize {
        self.senders.len()
    }

    /// Adds this to whatever is counted from now on, in place of what was inherited before.
    pub fn inherit(&self, counters: Counters) {
        *self.inherited.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// What was counted here and by those before; see [`Workers::own_counters`].
    pub async fn counters(&self) -> Answers<Counters> {
        let Answers { merged: own, silent } = self.own_counters().await;
        let mut merged = self.inherited.lock().unwrap_or_else(PoisonError::into_inner).clone();
        merged.merge(&own);
        Answers { merged, silent }
    }

    /// What all of them counted. A silent worker counts with its last answer; one that has ended has no
    /// connections any more.
    pub async fn own_counters(&self) -> Answers<Counters> {
        let answers = self.ask(ToWorker::Counters).await;
        let mut merged = Counters::default();
        let mut silent = Vec::new();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, (answer, last)) in answers.into_iter().zip(last.iter_mut()).enumerate() {
            match answer {
                Some(counters) => *last = counters,
                None => {
                    if self.senders[number].is_closed() {
                        last.forget_connections();
                    }
                    silent.push(number);
                }
            }
            merged.merge(last);
        }
        Answers { merged, silent }
    }

    /// At most `limit` connections of all workers: the busy before the idle, the oldest first.
    pub async fn connections(&self, limit: usize) -> Answers<Vec<ConnectionInfo>> {
        let answers = self.ask(|reply| ToWorker::Connections { limit, reply }).await;
        let silent = (0..).zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(number, _)| number).collect();
        let mut merged: Vec<ConnectionInfo> = answers.into_iter().flatten().flatten().collect();
        merged.sort_by_key(|info| (info.doing == Doing::Idle, std::cmp::Reverse(info.age)));
        merged.truncate(limit);
        Answers { merged, silent }
    }

    /// Hands each of them its sockets, in their order.
    pub async fn listen(&self, sockets: Vec<Vec<Socket>>) {
        let deadline = Instant::now() + self.patience;
        for (sender, sockets) in self.senders.iter().zip(sockets).filter(|(_, sockets)| !sockets.is_empty()) {
            // What a stuck worker does not take is closed again.
            let _ = timeout_at(deadline, sender.send(ToWorker::Listen(sockets))).await;
        }
    }

    /// Has all of them close sockets, and waits until they have; returns the numbers of those that have not.
    pub async fn close(&self, keys: Vec<u64>, leaving: Vec<ListenerId>) -> Vec<usize> {
        let (keys, leaving): (Arc<[u64]>, Arc<[ListenerId]>) = (keys.into(), leaving.into());
        let answers = self.ask(|reply| ToWorker::Close { keys: keys.clone(), leaving: leaving.clone(), reply }).await;
        (0..).zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(number, _)| number).collect()
    }

    /// Has all of them drain, within `timeouts.drain` or in their own time. A worker that has ended has nothing to drain.
    pub async fn drain(&self, with_deadline: bool) {
        let deadline = Instant::now() + self.patience;
        for sender in &self.senders {
            // A full queue is that of a stuck worker; the end of the grace period is its end, too.
            let _ = timeout_at(deadline, sender.send(ToWorker::Drain { deadline: with_deadline })).await;
        }
    }

    /// Asks everybody, then waits for all until one deadline; in the order of the workers.
    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> ToWorker) -> Vec<Option<T>> {
        let deadline = Instant::now() + self.patience;
        let asked: Vec<_> = self
            .senders
            .iter()
            .map(|sender| {
                let (reply, answer) = oneshot::channel();
                sender.try_send(command(reply)).is_ok().then_some(answer)
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(match answer {
                Some(answer) => timeout_at(deadline, answer).await.ok().and_then(Result::ok),
                None => None,
            });
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::counters::RequestLabels;

    const WEB: RequestLabels = RequestLabels { listener: 0, pool: 0, server: 0 };

    fn info(id: u64, doing: Doing, age: u64) -> ConnectionInfo {
        ConnectionInfo {
            id,
            listener: "web".into(),
            client: "127.0.0.1:1".parse().unwrap(),
            age: Duration::from_secs(age),
            doing,
            requests: 0,
            pool: None,
            server: None,
            request: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// Answers like a worker that has served one request and has two connections.
    async fn worker(mut commands: Commands, number: u64) {
        let mut counters = Counters::default();
        counters.connection_opened(0);
        counters.request(WEB, 200, Duration::from_millis(1), None);
        while let Some(command) = commands.recv().await {
            match command {
                ToWorker::Counters(reply) => drop(reply.send(counters.clone())),
                ToWorker::Connections { reply, .. } => {
                    let busy = info(number * 10, Doing::Waiting, number);
                    drop(reply.send(vec![busy, info(number * 10 + 1, Doing::Idle, 100)]));
                }
                ToWorker::Listen(_) => {}
                ToWorker::Close { reply, .. } => drop(reply.send(())),
                ToWorker::Drain { .. } => break,
            }
        }
    }

    fn total(counters: &Counters) -> u64 {
        counters.requests().map(|(_, requests)| requests.count()).sum()
    }

    #[tokio::test]
    async fn answers_come_together_and_silence_is_told() {
        let (mut workers, queues) = Workers::new(3);
        workers.patience = Duration::from_millis(200);
        let mut queues = queues.into_iter();
        let (first, second, stuck) = (queues.next().unwrap(), queues.next().unwrap(), queues.next().unwrap());
        let first = tokio::spawn(worker(first, 1));
        tokio::spawn(worker(second, 2));

        let answers = workers.counters().await;
        assert_eq!((total(&answers.merged), answers.silent), (2, vec![2]));
        let connections = workers.connections(3).await;
        assert_eq!(connections.merged.iter().map(|info| info.id).collect::<Vec<_>>(), [20, 10, 11]);
        assert_eq!(connections.silent, [2]);

        // The stuck one is let go at last; the others drain. What was counted stays counted, but
        // the connections are gone.
        drop(stuck);
        workers.drain(true).await;
        first.await.unwrap();
        let answers = workers.counters().await;
        assert_eq!((total(&answers.merged), answers.silent), (2, vec![0, 1, 2]));
        assert_eq!(answers.merged.listeners().map(|(_, web)| (web.accepted, web.idle)).last(), Some((2, 0)));
    }

    #[tokio::test]
    async fn a_stuck_worker_does_not_collect_commands_without_bound() {
        let (mut workers, mut queues) = Workers::new(1);
        workers.patience = Duration::from_millis(1);
        for _ in 0..QUEUE + 10 {
            assert_eq!(workers.counters().await.silent, [0]);
        }
        let mut waiting = 0;
        while queues[0].try_recv().is_ok() {
            waiting += 1;
        }
        assert_eq!(waiting, QUEUE);
    }
}
