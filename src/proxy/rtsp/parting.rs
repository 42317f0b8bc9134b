//! A server that closes its connection while the client's goes on.

use std::sync::Arc;

use super::ours::Reply;
use super::route::To;
use super::talk::{Due, Ending, From, Talk};

/// No server has this number.
const NOBODY: usize = usize::MAX;
/// The same where a channel's owner is kept: [`crate::model::Limits::MEDIA_SERVERS`] is below.
const NO_OWNER: u8 = u8::MAX;

impl Talk<'_> {
    /// A server has closed its connection. Where it was asked nothing that it has not answered, and has no session, the
    /// conversation goes on without it; else the client is told what it waits for, and it is over.
    ///
    /// # Errors
    /// When nothing is to be said, or nothing can be: half a frame is under way.
    pub fn server_ends(&mut self, at: usize) -> Result<(), Ending> {
        if self.midway == Some(at) {
            return Err(Ending::Server);
        }
        let server = self.servers[at].lease.server();
        let mut needed = self.held.iter().any(|held| held.server == at && !held.session.is_over())
            || self.published.iter().any(|(_, own)| Arc::ptr_eq(own, server));
        for number in 0..self.line.len() {
            if !matches!(self.line[number].from, From::Server(own) if own == at) {
                continue;
            }
            needed = true;
            let reply = Reply { cseq: self.line[number].cseq, ..Reply::of(502) };
            let due = std::mem::replace(&mut self.line[number], Due::ours(&reply));
            self.answered(&due, reply.status, Some(at));
        }
        self.forget_server(at);
        if needed && self.line.is_empty() && !self.client.has_text() {
            return Err(Ending::Server);
        }
        if needed {
            self.last_words.get_or_insert(Ending::Server);
        }
        Ok(())
    }

    /// Closes the connection to a server; those behind it have other numbers from now on.
    fn forget_server(&mut self, at: usize) {
        let behind = |own: &mut usize| match *own {
            NOBODY => {}
            number if number == at => *own = NOBODY,
            number if number > at => *own -= 1,
            _ => {}
        };
        self.servers.remove(at);
        self.places.retain_mut(|place| {
            behind(&mut place.server);
            place.server != NOBODY
        });
        self.asked.retain_mut(|(server, _)| {
            behind(server);
            *server != NOBODY
        });
        self.held.iter_mut().for_each(|held| behind(&mut held.server));
        for due in &mut self.line {
            if let From::Server(server) = &mut due.from {
                behind(server);
            }
        }
        for owner in self.channels.iter_mut().flat_map(|owners| owners.iter_mut()) {
            let mut server = if *owner == NO_OWNER { NOBODY } else { usize::from(*owner) };
            behind(&mut server);
            *owner = u8::try_from(server).unwrap_or(NO_OWNER);
        }
        for number in [&mut self.midway, &mut self.towards] {
            number.iter_mut().for_each(behind);
            *number = number.filter(|server| *server != NOBODY);
        }
        if let Some(To::Server(server)) = self.chosen.as_mut().map(|chosen| &mut chosen.to) {
            behind(server);
            // The request that waits to be written there is looked at anew.
            if *server == NOBODY {
                self.chosen = None;
            }
        }
    }
}
