//! Until when somebody may let a conversation wait.

use std::time::{Duration, Instant};

use super::super::failure::FailureKind;
use super::offload;
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
        let mut patience = self.quiet().saturating_sub(self.silence()).max(Duration::from_millis(1));
        if let Some(since) = self.partial {
            patience = patience.min(left(times.request_header, since));
        }
        if let Some(since) = self.stuck {
            patience = patience.min(left(times.client_write, since));
        }
        if let Some((since, _)) = self.offloading {
            patience = patience.min(left(offload::PATIENCE, since));
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

    /// How long nothing has been heard, here or by packets: a session that is kept alive by its media alone shows there.
    fn silence(&self) -> Duration {
        let now = self.worker.unix_seconds();
        let silent = self.held.iter().map(|held| Duration::from_secs(held.session.silent(now).into()));
        silent.fold(self.heard.elapsed(), Duration::min)
    }

    /// Somebody was late, or nobody was. `early`: the timer was fired before its time, to make room.
    pub fn late(&mut self, early: bool) -> Option<Ending> {
        let view = self.view();
        let times = &view.snapshot.config.timeouts;
        let over = |limit: Duration, since: Instant| since.elapsed() >= limit;
        if self.worker.is_leaving(self.connection) && self.connection.doing.get() == Doing::Idle {
            return Some(Ending::Drained);
        }
        if early && self.connection.doing.get() == Doing::Idle && self.partial.is_none() && !self.client.has_text() {
            return Some(Ending::Silent);
        }
        if self.offloading.as_ref().is_some_and(|(since, _)| over(offload::PATIENCE, *since)) {
            self.offloading = None;
            offload::is_late(self.worker);
            return None;
        }
        if self.stuck.is_some_and(|since| over(times.client_write, since)) {
            return Some(self.last_words.unwrap_or(Ending::Slow(FailureKind::ClientStalled)));
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
            self.close_at_once_with(Reply { cseq, ..Reply::of(504) }, Ending::Slow(FailureKind::ResponseTimeout));
            return None;
        }
        (self.silence() >= self.quiet()).then_some(Ending::Silent)
    }
}
