//! Passwords that one worker has found right a short while ago, so that a browser, which sends its own with every request,
//! is not made to wait for each. Of a password no more is kept than a hash by a key that nobody else has.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;

/// How long one counts: a password that was changed, or taken back, without a reload does no more harm than that.
const FRESH: Duration = Duration::from_secs(300);
/// Users with a browser open, on one core. Beyond, the oldest has to be checked again.
const MOST: usize = 4096;

pub type Mark = [u8; 32];

#[derive(Debug, Default)]
pub struct Known {
    key: OnceCell<Option<hmac::Key>>,
    /// When each was checked.
    entries: RefCell<HashMap<Mark, Instant>>,
}

impl Known {
    /// What a user, the hash that his password has in the file, and what he has shown are known by. `None`: there are no
    /// random numbers, and so nothing is known.
    pub fn mark(&self, user: &str, hash: &str, password: &[u8]) -> Option<Mark> {
        let key =
            self.key.get_or_init(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()).as_ref()?;
        let mut context = hmac::Context::with_key(key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().ok()
    }

    pub fn has(&self, mark: &Mark, now: Instant) -> bool {
        self.entries.borrow().get(mark).is_some_and(|since| now.saturating_duration_since(*since) < FRESH)
    }

    pub fn add(&self, mark: Mark, now: Instant) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= MOST {
            entries.retain(|_, since| now.saturating_duration_since(*since) < FRESH);
        }
        if entries.len() >= MOST
            && let Some(oldest) = entries.iter().min_by_key(|(_, since)| **since).map(|(mark, _)| *mark)
        {
            entries.remove(&oldest);
        }
        entries.insert(mark, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_grows_old_and_is_bounded() {
        let (known, now) = (Known::default(), Instant::now());
        let mark = |user: &str, password: &str| known.mark(user, "$hash", password.as_bytes()).unwrap();
        assert_ne!(mark("ab", "c"), mark("a", "bc"));
        assert_ne!(known.mark("a", "$other", b"bc"), Some(mark("a", "bc")), "another password in the file");
        known.add(mark("joe", "x"), now);
        assert!(known.has(&mark("joe", "x"), now) && !known.has(&mark("joe", "y"), now));
        assert!(known.has(&mark("joe", "x"), now + FRESH - Duration::from_secs(1)));
        assert!(!known.has(&mark("joe", "x"), now + FRESH));
        for n in 0..MOST as u64 {
            known.add(mark(&n.to_string(), ""), now + Duration::from_millis(1 + n));
        }
        let later = now + Duration::from_secs(10);
        assert!(!known.has(&mark("joe", "x"), later), "the oldest made room");
        assert!(known.has(&mark("0", ""), later));
        assert_eq!(known.entries.borrow().len(), MOST);
    }
}
