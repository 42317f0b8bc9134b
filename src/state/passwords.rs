//! Checks passwords, which takes tens of milliseconds each by intent, on threads that serve nobody.
//!
//! A bounded queue leads there: whoever finds it full has to be told to come again, so that no flood of guesses
//! piles up, and none stops a worker.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use argon2::{Argon2, PasswordVerifier};
use tokio::sync::oneshot;

/// Checks that wait: two seconds' worth of one thread.
const QUEUE: usize = 64;
/// Threads at most; each takes the memory of a check, 19 MiB by argon2's own proposal.
const THREADS: usize = 4;

/// Its threads are started by the first password and end with it.
#[derive(Debug, Default)]
pub struct Passwords {
    queue: OnceLock<Option<SyncSender<Job>>>,
}

#[derive(Debug)]
struct Job {
    hash: Arc<str>,
    password: Vec<u8>,
    reply: oneshot::Sender<bool>,
}

/// There is no room for another check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Passwords {
    /// Has a password compared with a hash by argon2id (PHC form).
    ///
    /// # Errors
    /// When the queue is full.
    pub fn check(&self, hash: Arc<str>, password: Vec<u8>) -> Result<oneshot::Receiver<bool>, Full> {
        let queue = self.queue.get_or_init(start).as_ref().ok_or(Full)?;
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { hash, password, reply }).map_err(|_| Full)?;
        Ok(answer)
    }
}

/// Half of the cores: the other half serves.
fn start() -> Option<SyncSender<Job>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (queue, jobs) = sync_channel(QUEUE);
    let jobs = Arc::new(Mutex::new(jobs));
    let mut started = false;
    for number in 0..(cores / 2).clamp(1, THREADS) {
        let jobs = jobs.clone();
        let thread = std::thread::Builder::new().name(format!("password-{number}"));
        started |= thread.spawn(move || work(&jobs)).is_ok();
    }
    started.then_some(queue)
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Held while waiting: the others wait for it instead.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { hash, password, reply }) = job else { return };
        // Whoever asked may have given up.
        if !reply.is_closed() {
            let _ = reply.send(Argon2::default().verify_password(&password, &*hash).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordHasher;
    use argon2::{Algorithm, Params, Version};

    fn hash(memory: u32, rounds: u32) -> Arc<str> {
        let params = Params::new(memory, rounds, 1, None).expect("parameters");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_with_salt(b"open sesame", b"saltsaltsalt").expect("a hash").to_string().into()
    }

    #[test]
    fn right_and_wrong() {
        let (passwords, hash) = (Passwords::default(), hash(64, 1));
        for (password, right) in [("open sesame", true), ("open sesam", false), ("", false)] {
            let answer = passwords.check(hash.clone(), password.into()).expect("room");
            assert_eq!(answer.blocking_recv(), Ok(right), "{password}");
        }
    }

    #[test]
    fn a_flood_is_told_that_it_is_one() {
        let (passwords, dear) = (Passwords::default(), hash(64 << 10, 4));
        let all: Vec<_> = (0..QUEUE + THREADS + 8).map(|_| passwords.check(dear.clone(), b"x".to_vec())).collect();
        let full = all.iter().filter(|answer| answer.is_err()).count();
        assert!((1..=8 + THREADS).contains(&full), "{full}");
    }
}
