//! What is known of a worker's client connections from outside of their tasks.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::announced::Announced;
use super::view::View;
use crate::net::Timer;
use crate::state::connections::{Doing, REQUEST_SHOWN};
use crate::tls::Peer;

/// The open connections of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Vec<Option<Rc<Connection>>>,
    free: Vec<usize>,
}

impl Connections {
    /// Returns the slot, to be given back by [`Connections::remove`].
    pub fn add(&mut self, connection: Rc<Connection>) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(connection);
        slot
    }

    pub fn remove(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.slots.iter().flatten()
    }
}

/// What is known of a client's connection from outside of its task.
#[derive(Debug)]
pub struct Connection {
    pub id: u64,
    pub listener: u32,
    /// Whose connection it is: the peer, or whom the peer says it speaks for.
    pub client: Cell<SocketAddr>,
    /// Filled where a server may have to be told, or a PROXY header came.
    pub announced: OnceCell<Box<Announced>>,
    pub since: Instant,
    pub doing: Cell<Doing>,
    pub requests: Cell<u64>,
    pub received: Cell<u64>,
    pub sent: Cell<u64>,
    /// Numbers of the pool and the server of the request in progress.
    pub server: Cell<(u32, u32)>,
    /// Method and path of the request in progress, as far as they are shown.
    pub request: RefCell<Shown>,
    pub timer: Timer,
    /// Once its handshake is done; for ever empty on a connection in clear.
    pub tls: OnceCell<Box<Peer>>,
    /// It is to end when what is under way on it has been finished.
    pub leaving: RefCell<Option<Box<Leaving>>>,
}

/// Why and how a connection is on its way out, while its worker goes on.
#[derive(Debug)]
pub struct Leaving {
    pub since: Instant,
    /// Tunnels end with the time of a drain: nobody listens here any more who could wait for them.
    pub ends_tunnels: bool,
    /// What it was accepted under, where the view in force does not have its listener any more, or another one
    /// of that name.
    pub view: Option<Rc<View>>,
}

impl Connection {
    /// Whether the next answer is to be the last.
    pub fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }
}

/// The beginning of a request, kept for whoever asks what a connection is doing.
#[derive(Debug, Default)]
pub struct Shown {
    method: u8,
    length: u8,
    text: [[u8; 16]; REQUEST_SHOWN / 16],
}

impl Shown {
    pub fn set(&mut self, method: &[u8], path: &[u8]) {
        let text = self.text.as_flattened_mut();
        let method = &method[..method.len().min(text.len() / 2)];
        let path = &path[..path.len().min(text.len() - method.len())];
        text[..method.len()].copy_from_slice(method);
        text[method.len()..method.len() + path.len()].copy_from_slice(path);
        (self.method, self.length) = (method.len() as u8, (method.len() + path.len()) as u8);
    }

    /// Method and path.
    pub fn parts(&self) -> (String, String) {
        let text = &self.text.as_flattened()[..self.length as usize];
        let (method, path) = text.split_at(self.method as usize);
        (String::from_utf8_lossy(method).into_owned(), String::from_utf8_lossy(path).into_owned())
    }
}
