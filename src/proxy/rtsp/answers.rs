//! What servers say: answers, and what is learnt of them; and requests of their own.

use std::time::{Duration, Instant};

use super::forward::{carrier, end, write_session};
use super::media::{self, Agreed};
use super::ours::Reply;
use super::relay::{self, Ends};
use super::route::full_reply;
use super::talk::{Due, Ending, From, Talk};
use crate::model::Limits;
use crate::model::listener::Carrier;
use crate::state::media::sessions::Refused;
use crate::state::media::tracks::{Goes, SetUp};
use crate::wire::rtsp::message::{write_field, write_start};
use crate::wire::rtsp::{Head, Start, sdp, session, uri};

impl Talk<'_> {
    /// Passes on what a server asks its client.
    pub fn server_asks(&mut self, at: usize, head: &Head<'_>, body: &[u8]) {
        if self.asked.len() >= Limits::MEDIA_PENDING {
            // A client that answers none of them will not answer the oldest either.
            self.asked.pop_front();
        }
        self.asked.push_back((at, head.cseq));
        self.pass_on(at, head, body, None, None);
    }

    /// An answer to the request that has waited longest.
    pub fn server_answers(&mut self, at: usize, head: &Head<'_>, body: &[u8]) -> Result<(), Ending> {
        let Start::Answer { status, .. } = head.start else { return Ok(()) };
        if status < 200 {
            self.pass_on(at, head, body, None, None);
            return Ok(());
        }
        let own = |due: &&Due| matches!(due.from, From::Server(own) if own == at);
        // RFC 2326 §12.17: the number says what is answered. Whoever leaves it out has only the order.
        let numbered = |due: &Due| head.cseq.is_none() || due.cseq.is_none() || due.cseq == head.cseq;
        let Some(place) = self.line.iter().position(|due| own(&due) && numbered(due)) else {
            tracing::debug!(server = %self.servers[at].lease.identity(), "an answer to nothing");
            return Ok(());
        };
        let Some(mut due) = self.line.remove(place) else { return Ok(()) };
        let good = (200..300).contains(&status);
        let mut transport = None;
        if good {
            match self.learn(at, head, body, &mut due) {
                Ok(value) => transport = value,
                Err(reply) => {
                    // The server has a session that nobody may use: with its connection it ends.
                    let status = reply.status;
                    self.answered(&due, status, Some(at));
                    // An answer to what was asked behind it would come before this one.
                    self.line.truncate(place);
                    self.close_with(Reply { cseq: due.cseq, ..reply }, Ending::Done);
                    return Ok(());
                }
            }
        }
        self.answered(&due, status, Some(at));
        self.pass_on(at, head, body, Some(&due), transport);
        if due.method.as_ref() == "TEARDOWN" && good || status == 454 {
            self.torn_down(&due, head);
        }
        Ok(())
    }

    /// Takes what a good answer says. Returns the `Transport` that the client is told, where it is another one.
    fn learn(&mut self, at: usize, head: &Head<'_>, body: &[u8], due: &mut Due) -> Result<Option<String>, Reply> {
        let now = self.worker.unix_seconds();
        let own = head.value("session").and_then(session::parse);
        let kilobits = self.place(&due.path).map_or(0, |place| place.kilobits);
        if let Some(own) = own
            && due.method.as_ref() != "TEARDOWN"
        {
            let (sessions, server) = (&self.worker.farm.media().sessions, self.servers[at].lease.server().clone());
            let (session, begun) = match &due.session {
                Some(session) if *session.own == *own.id => (session.clone(), false),
                _ => sessions.begin(own.id, &server, self.connection.listener, kilobits, now).map_err(
                    |why| match why {
                        Refused::TooMany => Reply::of(503).with("Retry-After", "5"),
                        Refused::LongId => Reply::of(502),
                        Refused::Full(full) => full_reply(full),
                    },
                )?,
            };
            if begun && self.held.len() >= Limits::MEDIA_SESSIONS_EACH {
                sessions.end(&session);
                return Err(Reply::of(503).with("Retry-After", "5"));
            }
            if let Some(timeout) = own.timeout {
                session.set_timeout(timeout);
            }
            session.touch(now);
            self.hold(&session, at, due, begun);
            due.session = Some(session);
        }
        let (paths, server) = (&self.worker.farm.media().paths, self.servers[at].lease.server().clone());
        match &*due.method {
            "DESCRIBE" => {
                let path = uri::presentation(&due.path);
                paths.tell(self.peer().ip(), path, &server, now);
                let kilobits = sdp::bandwidth(body).unwrap_or(0);
                if let Some(place) = self.places.iter_mut().find(|place| *place.path == *path) {
                    place.kilobits = kilobits;
                }
            }
            "ANNOUNCE" => {
                let path = uri::presentation(&due.path);
                self.published.retain(|(own, _)| *own.path != *path);
                if self.published.len() < Limits::MEDIA_SESSIONS_EACH {
                    self.published.extend(paths.publish(path, &server, now).map(|own| (own, server)));
                }
            }
            "SETUP" => return Ok(self.set_up(at, head, due)),
            "PLAY" | "RECORD" => {
                if let Some(held) = due.session.as_ref().and_then(|session| self.held_mut(session)) {
                    held.record.method = due.method.clone();
                    held.record.path = uri::presentation(&due.path).into();
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// The way that a stream takes from now on.
    fn set_up(&mut self, at: usize, head: &Head<'_>, due: &mut Due) -> Option<String> {
        let value = head.text("transport")?.to_owned();
        let session = due.session.clone()?;
        let server = self.servers[at].lease.address().ip().to_canonical();
        let carrier = carrier(&self.view(), self.connection.listener);
        let direct = carrier == Carrier::Direct;
        let set_up = |goes| SetUp::new(&session, &due.target, goes);
        let mut told = None;
        let track = match media::agreed(&value) {
            Agreed::Interleaved(channels) => {
                if let Some((first, second)) = channels {
                    let owners = self.channels.get_or_insert_with(|| Box::new([0; 256]));
                    (owners[usize::from(first)], owners[usize::from(second)]) = (at as u8, at as u8);
                }
                set_up(Goes::Between)
            }
            Agreed::Packets { .. } if direct => {
                told = media::direct(&value, server);
                set_up(Goes::Direct)
            }
            Agreed::Packets { server: ports, source } => {
                let asked = due.asked.take()?;
                told = media::relayed(&value, &asked, self.here, asked.sockets.client_port());
                let track = set_up(Goes::Relayed);
                let source = source.filter(|own| media::is_source(*own, server));
                let ends =
                    Ends { client: self.peer().ip(), client_ports: asked.client, server, source, server_ports: ports };
                let offloads = carrier == Carrier::Offload;
                let waits = relay::start(self.worker, track.flow(), asked.sockets, ends, offloads);
                // The client's first packet follows its answer at once.
                if let Some(waits) = waits {
                    self.offloading.get_or_insert_with(|| (Instant::now(), Vec::new())).1.push(waits);
                }
                track
            }
            Agreed::Other => set_up(Goes::Unknown),
        };
        if let Some(held) = self.held_mut(&session) {
            held.tracks.retain(|known| !known.is_over());
            held.tracks.push(track);
        }
        told
    }

    /// A session, or one stream of it, is over.
    fn torn_down(&mut self, due: &Due, head: &Head<'_>) {
        let Some(session) = due.session.clone() else { return };
        let sessions = &self.worker.farm.media().sessions;
        match head.start {
            Start::Answer { status: 454, .. } => sessions.end(&session),
            _ => sessions.tear_down(&session, &due.target),
        }
        if !session.is_over() {
            return;
        }
        self.let_go_of_ended();
        let now = self.worker.unix_seconds();
        let path = uri::presentation(&due.path);
        let paths = &self.worker.farm.media().paths;
        self.published.retain(|(own, _)| {
            let gone = *own.path == *path;
            if gone {
                paths.unpublish(own, now);
            }
            !gone
        });
    }

    /// Writes a server's message for the client.
    fn pass_on(&mut self, at: usize, head: &Head<'_>, body: &[u8], due: Option<&Due>, transport: Option<String>) {
        let view = self.view();
        let rewrites = view.listener(self.connection.listener).is_some_and(|listener| listener.media.rewrite_urls);
        let urls = due.filter(|due| rewrites && !due.authority.is_empty()).map(|due| Urls {
            here: &due.authority,
            server: self.servers[at].lease.address().ip().to_canonical().to_string(),
        });
        let new_body = match (&urls, head.text("content-type")) {
            (Some(urls), Some(kind)) if kind.starts_with("application/sdp") => {
                sdp::with_controls(body, |url| urls.other(url))
            }
            _ => None,
        };
        let held = &self.held;
        let text = self.client.text();
        write_start(head, text);
        for field in head.fields.iter().filter(|field| !field.is("content-length")) {
            if field.is("session") {
                let id = session::parse(field.value).map(|own| own.id);
                let known = held.iter().find(|held| held.server == at && id == Some(&*held.session.own));
                match known.map(|held| &held.session).or(due.and_then(|due| due.session.as_ref())) {
                    Some(session) => write_session(field.name, field.value, &session.id, text),
                    None => write_field(field.name, field.value, text),
                }
                continue;
            }
            if field.is("transport")
                && let Some(value) = &transport
            {
                write_field(field.name, value.as_bytes(), text);
                continue;
            }
            match urls.as_ref().and_then(|urls| urls.field(field.name, field.value)) {
                Some(value) => write_field(field.name, value.as_bytes(), text),
                None => write_field(field.name, field.value, text),
            }
        }
        end(new_body.as_deref().unwrap_or(body), text);
    }

    /// A request was answered: counts it.
    pub fn answered(&mut self, due: &Due, status: u16, at: Option<usize>) {
        let server = at.map(|at| &self.servers[at]);
        let labels = crate::state::counters::RequestLabels {
            listener: self.connection.listener,
            pool: server.map_or(crate::state::counters::NONE, |server| server.pool.id()),
            server: server.map_or(crate::state::counters::NONE, |server| server.lease.id()),
        };
        let took = due.since.elapsed();
        let first: Option<Duration> = at.map(|_| took);
        self.worker.counters.borrow_mut().request(labels, status, took, first);
        self.note_answer(due, status, at);
    }
}

/// URLs that name another host than the client has asked.
struct Urls<'a> {
    /// As the client calls us.
    here: &'a str,
    server: String,
}

impl Urls<'_> {
    /// A field's value with URLs of ours in it; `None` where nothing changes.
    fn field(&self, name: &str, value: &[u8]) -> Option<String> {
        let value = std::str::from_utf8(value).ok()?;
        if name.eq_ignore_ascii_case("location") {
            // Whoever is sent elsewhere is meant to go there, unless that is where he was all along.
            return self.other(value).filter(|_| uri::parse(value).is_some_and(|uri| uri.host == self.server));
        }
        if name.eq_ignore_ascii_case("content-base") || name.eq_ignore_ascii_case("content-location") {
            return self.other(value);
        }
        if !name.eq_ignore_ascii_case("rtp-info") {
            return None;
        }
        let mut changed = false;
        let parts: Vec<String> = value
            .split(';')
            .map(|part| {
                // `url=` begins an entry, behind a comma but for the first one.
                let new = part.find("url=").and_then(|at| {
                    let (before, url) = part.split_at(at + 4);
                    Some(format!("{before}{}", self.other(url)?))
                });
                changed |= new.is_some();
                new.unwrap_or_else(|| part.to_owned())
            })
            .collect();
        changed.then(|| parts.join(";"))
    }

    /// The same path here.
    fn other(&self, url: &str) -> Option<String> {
        let uri = uri::parse(url).filter(|uri| !uri.authority.is_empty() && uri.authority != self.here)?;
        let (scheme, rest) = url.split_once("://")?;
        Some(format!("{scheme}://{}{}", self.here, &rest[uri.authority.len()..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_host_that_was_asked() {
        let urls = Urls { here: "vip:8554", server: "10.0.0.9".into() };
        let field = |name, value: &str| urls.field(name, value.as_bytes());
        assert_eq!(field("Content-Base", "rtsp://10.0.0.9:8554/a/"), Some("rtsp://vip:8554/a/".into()));
        assert_eq!(field("Content-Base", "rtsp://vip:8554/a/"), None);
        assert_eq!(field("Location", "rtsp://10.0.0.9/b?c"), Some("rtsp://vip:8554/b?c".into()));
        assert_eq!(field("Location", "rtsp://elsewhere.example/b"), None);
        let info = "url=rtsp://10.0.0.9/a/1;seq=1;rtptime=2,url=rtsp://10.0.0.9/a/2;seq=3";
        let ours = "url=rtsp://vip:8554/a/1;seq=1;rtptime=2,url=rtsp://vip:8554/a/2;seq=3";
        assert_eq!(field("RTP-Info", info), Some(ours.into()));
        assert_eq!((field("RTP-Info", "url=track1;seq=1"), field("Session", "a")), (None, None));
    }
}
