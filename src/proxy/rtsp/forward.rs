//! A client's messages as servers get them: the same URI and fields, but for `Session`, `Transport`, `Via`, and what the
//! rule wants.

use std::sync::Arc;

use super::super::view::View;
use super::media;
use super::ours::Reply;
use super::relay::Sockets;
use super::route::{Chosen, full_reply};
use super::talk::{Due, From, Talk};
use crate::model::listener::Carrier;
use crate::wire::field::Field;
use crate::wire::http1::known::{Known, known};
use crate::wire::rtsp::message::{write_field, write_start};
use crate::wire::rtsp::{Head, session};

impl Talk<'_> {
    /// Writes a request for a server, and notes that an answer is due.
    ///
    /// # Errors
    /// What the client is told in the place of the server's answer.
    pub fn forward(
        &mut self,
        at: usize,
        chosen: &Chosen,
        head: &Head<'_>,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Result<(), Reply> {
        let mut due = Due::new(From::Server(at), head, method, uri, chosen.rule.clone());
        let own = head.value("session").and_then(session::parse);
        let sessions = &self.worker.farm.media().sessions;
        due.session = own
            .and_then(|own| sessions.find(own.id))
            .filter(|known| Arc::ptr_eq(&known.server, self.servers[at].lease.server()));
        // What a server calls so is another client's, who knows it by another name.
        if due.session.is_none() && own.is_some_and(|own| sessions.is_anothers(own.id, self.servers[at].lease.server()))
        {
            return Err(Reply::of(454));
        }
        let mut transport = None;
        if method == "SETUP" {
            let kilobits = self.place(&due.path).map_or(0, |place| place.kilobits);
            if due.session.is_none()
                && let Some(full) = self.servers[at].lease.media().full(kilobits)
            {
                return Err(full_reply(full));
            }
            let values: Vec<&[u8]> = head.values("transport").collect();
            if !values.is_empty() {
                let all = String::from_utf8_lossy(&values.join(&b","[..])).into_owned();
                let (value, asked) = self.negotiate(at, &all)?;
                (transport, due.asked) = (Some(value), asked);
            }
        }
        if let Some(session) = &due.session {
            session.touch(self.worker.unix_seconds());
        }
        let text = self.servers[at].leg.text();
        write_start(head, text);
        let mut told_way = false;
        for field in &head.fields {
            let removed = chosen.edits.removed.iter().any(|name| field.is(name));
            if removed || ours(field) || field.is("proxy-require") {
                continue;
            }
            match (&transport, &due.session) {
                (Some(value), _) if field.is("transport") => {
                    if !std::mem::replace(&mut told_way, true) {
                        write_field(field.name, value.as_bytes(), text);
                    }
                }
                (_, Some(session)) if field.is("session") => write_session(field.name, field.value, &session.own, text),
                _ => write_field(field.name, field.value, text),
            }
        }
        text.extend_from_slice(&chosen.edits.added);
        // RFC 2326 §12.43, as in HTTP.
        text.extend_from_slice(b"Via: ");
        text.extend_from_slice(head.version.word().as_bytes());
        text.extend_from_slice(b" reeve\r\n");
        end(body, text);
        self.line.push_back(due);
        Ok(())
    }

    /// The ways for media that the server is asked for.
    fn negotiate(&self, at: usize, value: &str) -> Result<(String, Option<media::Asked>), Reply> {
        let view = self.view();
        let listener = view.listener(self.connection.listener).ok_or_else(|| Reply::of(461))?;
        let media = &listener.media;
        let mut has_all = false;
        let asked = media::request(value, media.carrier, || {
            let share = self.worker.farm.media().shares.take(self.peer().ip());
            has_all = share.is_none();
            let inside = self.servers[at].leg.local_address().ok()?.ip().to_canonical();
            Sockets::open(share?, &self.worker.farm.media().ports(media.ports), self.here, inside)
        });
        asked.ok_or_else(|| Reply::of(if has_all { 453 } else { 461 }))
    }

    /// A client's answer to what a server has asked. False: it has to wait.
    pub fn client_answers(&mut self, head: &Head<'_>, body: &[u8]) -> bool {
        // An answer to nothing is nobody's.
        let Some(found) = self.asked.iter().position(|(_, cseq)| *cseq == head.cseq) else { return true };
        let at = self.asked[found].0;
        let Some(server) = self.servers.get_mut(at) else { return true };
        if !server.leg.has_room() {
            return false;
        }
        self.asked.remove(found);
        let text = server.leg.text();
        write_start(head, text);
        for field in head.fields.iter().filter(|field| !ours(field)) {
            let id = session::parse(field.value).filter(|_| field.is("session")).map(|own| own.id);
            match self.held.iter().find(|held| held.server == at && id == Some(&*held.session.id)) {
                Some(held) => write_session(field.name, field.value, &held.session.own, text),
                None => write_field(field.name, field.value, text),
            }
        }
        end(body, text);
        true
    }
}

/// What only Reeve may say to a server, as in HTTP: how long a body is, and what a client's certificate says.
fn ours(field: &Field<'_>) -> bool {
    field.is("content-length") || known(field.name) == Known::ClientCertificate
}

/// How this listener's media is carried.
pub fn carrier(view: &View, listener: u32) -> Carrier {
    view.listener(listener).map_or(Carrier::Relay, |listener| listener.media.carrier)
}

/// Writes a `Session` field with another id.
pub fn write_session(name: &str, value: &[u8], id: &str, text: &mut Vec<u8>) {
    let rest = session::parse(value).map_or("", |own| own.rest);
    write_field(name, format!("{id}{rest}").as_bytes(), text);
}

/// Ends the head, and writes the body.
pub fn end(body: &[u8], text: &mut Vec<u8>) {
    if !body.is_empty() {
        text.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
}
