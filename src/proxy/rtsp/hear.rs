//! What is read: what servers and clients say, until it can be given to whom it concerns.

use std::task::{Context, Poll};
use std::time::Instant;

use super::super::failure::Side;
use super::ours::Reply;
use super::talk::{Ending, Server, Talk};
use crate::model::Limits;
use crate::net::Buffer;
use crate::state::counters::Rejected;
use crate::state::media::load::Way;
use crate::wire::rtsp::framer::FRAME_HEAD;
use crate::wire::rtsp::message::{self, Fault};
use crate::wire::rtsp::{Item, Start};

/// What came of listening to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Moved,
    Nothing,
    /// It has closed the connection, or that has broken.
    End,
}

/// What a message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// So many bytes of it are done with.
    Done(usize),
    /// Its body is not all here.
    Partly,
    /// It stays where it is, until something else has happened.
    Waits,
}

impl Talk<'_> {
    /// Takes what a server says, as far as it can go now.
    pub fn hear_server(&mut self, cx: &mut Context<'_>, at: usize) -> Result<Heard, Ending> {
        let heard = |moved| if moved { Heard::Moved } else { Heard::Nothing };
        let mut moved = false;
        if self.servers[at].leg.run > 0 {
            if self.midway.is_some_and(|other| other != at) || self.midway.is_none() && self.client.has_text() {
                return Ok(Heard::Nothing);
            }
            self.midway = Some(at);
            let leg = &mut self.servers[at].leg;
            let Some(input) = &mut leg.input else { return Ok(Heard::End) };
            match self.client.poll_media(cx, &input.as_slice()[..leg.run]) {
                Poll::Ready(Ok(count)) => {
                    input.consume(count);
                    leg.run -= count;
                    moved = true;
                    self.stuck = None;
                    self.sent(count);
                }
                Poll::Ready(Err(_)) => return Err(Ending::Client),
                Poll::Pending => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(heard(moved));
                }
            }
            let leg = &self.servers[at].leg;
            if leg.run > 0 {
                return Ok(heard(moved));
            }
            if leg.framer.is_between() {
                self.midway = None;
            }
        }
        self.client.poll_flush(cx).map_err(|_| Ending::Client).is_ready();
        let leg = &mut self.servers[at].leg;
        if leg.unread() < leg.whole.max(1) {
            leg.tidy(&self.worker.buffers);
            let view = self.worker.view_for(self.connection);
            return match leg.poll_read(cx, &self.worker.buffers, &view.snapshot.config.limits) {
                Poll::Ready(Ok(0) | Err(_)) => Ok(Heard::End),
                Poll::Ready(Ok(_)) => {
                    self.heard = self.worker.lately();
                    Ok(Heard::Moved)
                }
                Poll::Pending => Ok(heard(moved)),
            };
        }
        Ok(heard(self.server_item(at)? || moved))
    }

    /// Looks at what a server has said; false where there is nothing to be done with it now.
    fn server_item(&mut self, at: usize) -> Result<bool, Ending> {
        let Server { leg, lease, .. } = &mut self.servers[at];
        let traffic = &lease.media().traffic;
        // What is to be said goes between two frames, and where they follow each other without a gap a run of them need not
        // ever end at one's end.
        leg.framer.one_by_one = self.client.has_text();
        match leg.next(|_, _| {}) {
            Item::Media { bytes, frames } => {
                (leg.run, leg.whole) = (bytes, 0);
                traffic.add(Way::ToClient, frames.into(), bytes as u64);
                // Players have one session on a connection. Of several, the first one's line in the log has it all.
                if let Some(held) = self.held.iter().find(|held| held.server == at) {
                    held.session.traffic.add(Way::ToClient, frames.into(), bytes as u64);
                }
            }
            Item::Empty(bytes) => {
                leg.whole = 0;
                leg.input.iter_mut().for_each(|input| input.consume(bytes));
            }
            Item::Garbage => return Err(Ending::Garbage(Side::Upstream)),
            Item::More => leg.whole = leg.unread() + 1,
            Item::Head(bytes) => {
                if !self.client.has_room() {
                    return Ok(false);
                }
                let view = self.worker.view_for(self.connection);
                let Some(input) = self.servers[at].leg.input.take() else { return Ok(false) };
                let parsed = message::parse(&input.as_slice()[..bytes], &view.snapshot.config.limits);
                let head = parsed.map_err(|fault| {
                    tracing::debug!(server = %self.servers[at].lease.identity(), "{}", fault.detail());
                    Ending::Garbage(Side::Upstream)
                })?;
                let whole = bytes + head.body;
                let here = input.len() >= whole;
                if here {
                    let body = &input.as_slice()[bytes..whole];
                    match head.start {
                        Start::Request { .. } => self.server_asks(at, &head, body),
                        Start::Answer { .. } => self.server_answers(at, &head, body)?,
                    }
                }
                drop(head);
                let leg = &mut self.servers[at].leg;
                let mut input = input;
                leg.whole = if here { 0 } else { whole };
                if here {
                    input.consume(whole);
                }
                leg.input = Some(input);
            }
        }
        Ok(true)
    }

    /// Takes what the client says, as far as it can go now; false where nothing has moved.
    pub fn hear_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = false;
        if self.client.run > 0 {
            let Some(input) = &mut self.client.input else { return Err(Ending::Client) };
            let towards = self.towards.and_then(|at| Some((at, self.servers.get_mut(at)?)));
            let count = match towards {
                // There is nobody whose it could be.
                None => self.client.run,
                Some((_, server)) if server.leg.has_text() => return Ok(false),
                Some((at, server)) => match server.leg.poll_media(cx, &input.as_slice()[..self.client.run]) {
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(_)) => return self.server_ends(at).map(|()| true),
                    Poll::Pending => return Ok(false),
                },
            };
            input.consume(count);
            self.client.run -= count;
            moved = true;
            if self.client.run > 0 {
                return Ok(true);
            }
        }
        for at in 0..self.servers.len() {
            if matches!(self.servers[at].leg.poll_flush(cx), Poll::Ready(Err(_))) {
                return self.server_ends(at).map(|()| true);
            }
        }
        if self.dialing.is_some() || self.line.len() >= Limits::MEDIA_PENDING {
            return Ok(moved);
        }
        if self.client.unread() < self.client.whole.max(1) {
            self.client.tidy(&self.worker.buffers);
            let view = self.view();
            let limits = &view.snapshot.config.limits;
            return match self.client.poll_read(cx, &self.worker.buffers, limits) {
                Poll::Ready(Ok(0)) => Err(Ending::Client),
                Poll::Ready(Ok(count)) => {
                    self.heard = self.worker.lately();
                    self.connection.received.set(self.connection.received.get() + count as u64);
                    self.worker.counters.borrow_mut().bytes(self.connection.listener, count as u64, 0);
                    Ok(true)
                }
                Poll::Ready(Err(_)) => Err(Ending::Client),
                Poll::Pending => Ok(moved),
            };
        }
        Ok(self.client_item()? || moved)
    }

    /// Looks at what the client has said; false where it has to wait.
    fn client_item(&mut self) -> Result<bool, Ending> {
        self.client.framer.one_by_one = self.servers.len() > 1;
        let between = self.client.framer.is_between();
        let (reports, servers) = (&self.reports, &self.servers);
        // Reports are on the odd channels (RFC 2326 §10.12).
        let item = self.client.next(|channel, frame| {
            if let Some(server) = servers.first().filter(|_| channel % 2 == 1) {
                reports.look(frame, server.lease.media());
            }
        });
        if item != Item::More {
            (self.partial, self.client.whole) = (None, 0);
        }
        match item {
            Item::Media { bytes, frames } => {
                self.client.run = bytes;
                if between {
                    self.towards = self.owner_of_media();
                }
                if let Some(server) = self.towards.and_then(|at| self.servers.get(at)) {
                    server.lease.media().traffic.add(Way::ToServer, frames.into(), bytes as u64);
                    if let Some(held) = self.held.iter().find(|held| Some(held.server) == self.towards) {
                        held.session.traffic.add(Way::ToServer, frames.into(), bytes as u64);
                    }
                }
            }
            Item::Empty(bytes) => self.client.input.iter_mut().for_each(|input| input.consume(bytes)),
            Item::Garbage => {
                let why = Reply { phrase: Some("This is not RTSP".into()), ..Reply::of(400) };
                self.close_with(why, Ending::Garbage(Side::Downstream));
            }
            Item::More => {
                if self.client.unread() >= self.view().snapshot.config.limits.header_bytes {
                    self.refuse(Fault::TooLarge);
                    return Ok(true);
                }
                self.partial.get_or_insert_with(Instant::now);
                self.client.whole = self.client.unread() + 1;
            }
            Item::Head(bytes) => return self.client_message(bytes),
        }
        Ok(true)
    }

    fn client_message(&mut self, bytes: usize) -> Result<bool, Ending> {
        let view = self.view();
        let limits = &view.snapshot.config.limits;
        if bytes > limits.header_bytes {
            self.refuse(Fault::TooLarge);
            return Ok(true);
        }
        let Some(mut input) = self.client.input.take() else { return Ok(false) };
        let taken = self.client_read(&input, bytes, limits);
        if let Ok(Taken::Done(whole)) = taken {
            self.client.whole = 0;
            input.consume(whole);
        }
        self.client.input = Some(input);
        Ok(!matches!(taken?, Taken::Waits))
    }

    /// Reads the message at the front of what the client has said, whose head has so many bytes.
    fn client_read(&mut self, input: &Buffer, bytes: usize, limits: &Limits) -> Result<Taken, Ending> {
        let head = match message::parse(&input.as_slice()[..bytes], limits) {
            Ok(head) => head,
            Err(fault) => {
                self.refuse(fault);
                return Ok(Taken::Done(bytes));
            }
        };
        let whole = bytes + head.body;
        let Some(body) = input.as_slice().get(bytes..whole) else {
            self.partial.get_or_insert_with(Instant::now);
            self.client.whole = whole;
            return Ok(Taken::Partly);
        };
        Ok(match head.start {
            Start::Answer { .. } => match self.client_answers(&head, body) {
                true => Taken::Done(whole),
                false => Taken::Waits,
            },
            Start::Request { method, uri } => match self.client_asks(&head, method, uri, body)? {
                true => Taken::Done(whole),
                false => Taken::Waits,
            },
        })
    }

    /// What cannot be understood is answered, and ends the conversation: where the next message begins is not known.
    fn refuse(&mut self, fault: Fault) {
        let reply = Reply { phrase: Some(fault.detail().into()), ..Reply::of(fault.status()) };
        self.worker.counters.borrow_mut().rejected(self.connection.listener, Rejected::BadRequest);
        self.close_with(reply, Ending::Garbage(Side::Downstream));
    }

    /// The server that the media at the front of the client's input is for.
    fn owner_of_media(&self) -> Option<usize> {
        if self.servers.len() < 2 {
            return self.servers.len().checked_sub(1);
        }
        let channel = self.client.input.as_ref()?.as_slice().first_chunk::<FRAME_HEAD>()?[1];
        let owner = self.channels.as_ref().map(|owners| usize::from(owners[usize::from(channel)]));
        owner.filter(|at| *at < self.servers.len())
    }
}
