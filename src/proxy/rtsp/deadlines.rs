//! Until when somebody may let a conversation wait.

use std::time::{Duration, Instant};

use super::super::failure::FailureKind;
use super::held::Held;
use super::ours::Reply;
use super::talk::{Due, Ending, From, Talk};
use crate::state::connections::Doing;

impl Talk<'_> {
    /// How long the client, or whoever else it is the turn of, may let us wait.
    pub fn patience(&self) -> Duration {
        let view = self.view();
        let times = &view.snapshot.config.timeouts;
        let left =
            |limit: Duration, since: Instant| limit.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        let mut patience = left(self.quiet(), self.heard);
        if let Some(since) = self.partial {
            patience = patience.min(left(times.request_header, since));
        }
        if let Some(since) = self.stuck {
            patience = patience.min(left(times.client_write, since));
        }
        if let Some(Due { from: From::Server(_), since, .. }) = self.line.front() {
            patience = patience.min(left(times.response, *since));
        }
        patience
    }

    /// As long a connection may be silent: longer than its sessions live, for what keeps them alive may come rarely.
    fn quiet(&self) -> Duration {
        let own = self.view().snapshot.config.timeouts.client_keep_alive;
        self.held.iter().map(|held| held.session.timeout() * 3 / 2).fold(own, Duration::max)
    }

    /// Somebody was late, or nobody was.
    pub fn late(&mut self) -> Option<Ending> {
        let view = self.view();
        let times = &view.snapshot.config.timeouts;
        let over = |limit: Duration, since: Instant| since.elapsed() >= limit;
        if self.worker.is_leaving(self.connection) && self.connection.doing.get() == Doing::Idle {
            return Some(Ending::Drained);
        }
        if self.stuck.is_some_and(|since| over(times.client_write, since)) {
            return Some(Ending::Slow(FailureKind::ClientStalled));
        }
        if self.partial.is_some_and(|since| over(times.request_header, since)) {
            self.partial = None;
            let why = Reply { phrase: Some("The message took too long to arrive".into()), ..Reply::of(408) };
            self.close_with(why, Ending::Slow(FailureKind::HeadTimeout));
            return None;
        }
        if let Some(Due { from: From::Server(_), since, cseq, .. }) = self.line.front()
            && over(times.response, *since)
        {
            let cseq = *cseq;
            self.line.clear();
            self.close_with(Reply { cseq, ..Reply::of(504) }, Ending::Slow(FailureKind::ResponseTimeout));
            return None;
        }
        // A session that is kept alive by its media alone shows there.
        let now = self.worker.unix_seconds();
        let lives = |held: &Held| u64::from(held.session.silent(now)) < self.quiet().as_secs();
        (over(self.quiet(), self.heard) && !self.held.iter().any(lives)).then_some(Ending::Silent)
    }
}
