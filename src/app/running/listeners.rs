//! The listening sockets of the process: which are open, and which have to be for a configuration.
//!
//! Start, reload, drain and `ready` all go the same way: [`plan`] says what stays, opens and closes, then what is
//! new is opened, then what is too much is closed. Of each socket this keeps a descriptor besides the worker's own,
//! so that all of them can be counted, closed and handed on in one place.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::StartError;
use crate::model::Config;
use crate::state::ListenerId;
use crate::state::commands::Socket;
use crate::sys;

/// An address that is listened on, or has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The listener.
    pub name: Arc<str>,
    /// As configured; where it has no port, one is chosen when it is opened.
    pub address: SocketAddr,
}

/// One address with a socket for each worker.
#[derive(Debug)]
pub struct Open {
    pub place: Place,
    /// Where it is: `place.address` with its port.
    pub bound: SocketAddr,
    key: u64,
    /// In the order of the workers.
    sockets: Vec<TcpListener>,
}

impl Open {
    /// A descriptor of each socket for somebody else.
    fn duplicates(&self) -> std::io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

/// What has been opened and is not accepted on yet.
#[derive(Debug)]
pub struct Opened {
    open: Open,
    /// The workers' own descriptors.
    handed: Vec<TcpListener>,
}

impl Opened {
    pub fn name(&self) -> &Arc<str> {
        &self.open.place.name
    }

    pub fn bound(&self) -> SocketAddr {
        self.open.bound
    }
}

/// What the workers have to do.
#[derive(Debug)]
pub struct Handover {
    /// Keys of sockets to be closed.
    pub close: Vec<u64>,
    /// By worker.
    pub listen: Vec<Vec<Socket>>,
}

/// What is open.
#[derive(Debug, Default)]
pub struct Listeners {
    open: Vec<Open>,
    /// Keys that were given away.
    keys: u64,
}

/// What has to happen to what is open; positions in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What stays, and whose it is now.
    pub stay: Vec<(usize, Place)>,
    pub open: Vec<Place>,
    pub close: Vec<usize>,
}

/// The addresses that a configuration wants listened on. Listeners that need a part which is not built are not opened, nor
/// are those that are drained.
pub fn wanted(config: &Config, is_drained: impl Fn(&str) -> bool) -> Vec<Place> {
    let open = config.listeners.iter().filter(|listener| listener.built && !is_drained(&listener.name));
    open.flat_map(|listener| {
        listener.addresses.iter().map(|address| Place { name: listener.name.clone(), address: *address })
    })
    .collect()
}

/// An address stays open whoever it belongs to afterwards; one whose port was chosen belongs to its listener.
pub fn plan(open: &[Place], wanted: Vec<Place>) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Option<&Place>> = open.iter().map(Some).collect();
    for place in wanted {
        let fits = |old: &Option<&Place>| {
            old.is_some_and(|old| old.address == place.address && (place.address.port() != 0 || old.name == place.name))
        };
        match left.iter().position(fits) {
            Some(at) => {
                left[at] = None;
                plan.stay.push((at, place));
            }
            None => plan.open.push(place),
        }
    }
    plan.close = left.iter().enumerate().filter_map(|(at, old)| old.map(|_| at)).collect();
    plan
}

impl Listeners {
    pub fn places(&self) -> Vec<Place> {
        self.open.iter().map(|open| open.place.clone()).collect()
    }

    /// Listener and address, with its port.
    pub fn bound(&self) -> impl Iterator<Item = (Arc<str>, SocketAddr)> + '_ {
        self.open.iter().map(|open| (open.place.name.clone(), open.bound))
    }

    /// Opens sockets for `workers`, which nobody accepts on yet: the kernel keeps who comes. What is open stays as
    /// it is.
    ///
    /// # Errors
    /// The first address that cannot be listened on; then none of them is.
    pub fn open(&mut self, places: Vec<Place>, workers: usize) -> Result<Vec<Opened>, StartError> {
        let mut opened = Vec::with_capacity(places.len());
        for place in places {
            self.keys += 1;
            opened.push(self.open_one(place, workers)?);
        }
        Ok(opened)
    }

    /// Each worker gets a socket of its own for every address: the kernel spreads connections over them.
    fn open_one(&self, place: Place, workers: usize) -> Result<Opened, StartError> {
        let what = format!("listen.{}", place.name);
        let fail = |address, error| StartError::Listen { what: what.clone(), address, error };
        // Shared sockets of one user share an address without a word; another Reeve must not.
        if place.address.port() != 0 && !self.open.iter().any(|own| overlap(own.bound, place.address)) {
            drop(sys::socket::listen_alone(place.address).map_err(|error| fail(place.address, error))?);
        }
        // The first socket may choose its port (0); the others follow it.
        let mut bound = place.address;
        let mut sockets = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = sys::socket::listen_shared(bound).map_err(|error| fail(bound, error))?;
            bound = socket.local_addr().map_err(|error| fail(bound, error))?;
            sockets.push(socket);
        }
        let open = Open { place, bound, key: self.keys, sockets };
        let handed = open.duplicates().map_err(|error| fail(bound, error))?;
        Ok(Opened { open, handed })
    }

    /// Does what [`plan`] says, as far as it is done here; the rest is the workers'. `number` is that of a listener.
    pub fn commit(
        &mut self,
        opened: Vec<Opened>,
        stay: Vec<(usize, Place)>,
        mut close: Vec<usize>,
        number: impl Fn(&Arc<str>) -> ListenerId,
    ) -> Handover {
        for (at, place) in stay {
            self.open[at].place = place;
        }
        close.sort_unstable();
        let close = close.into_iter().rev().map(|at| self.open.remove(at).key).collect();
        let workers = opened.iter().map(|opened| opened.handed.len()).max().unwrap_or(0);
        let mut listen: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
        for Opened { open, handed } in opened {
            let (key, address, listener) = (open.key, open.place.address, number(&open.place.name));
            for (sockets, socket) in listen.iter_mut().zip(handed) {
                sockets.push(Socket { key, listener, address, socket });
            }
            self.open.push(open);
        }
        Handover { close, listen }
    }
}

/// Whether a socket for one address may take connections of the other.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, address: &str) -> Place {
        Place { name: name.into(), address: address.parse().unwrap() }
    }

    #[test]
    fn a_start_opens_all_and_a_reload_only_what_is_new() {
        let first = vec![place("a", "127.0.0.1:1"), place("a", "[::1]:1"), place("b", "127.0.0.1:2")];
        let start = plan(&[], first.clone());
        assert_eq!(start, Plan { open: first.clone(), ..Plan::default() });
        let same = plan(&first, first.clone());
        assert_eq!(same.stay.len(), 3);
        assert!(same.open.is_empty() && same.close.is_empty());
        // `b` is gone, its address is now one of `c`, which has another one besides.
        let next = vec![place("c", "127.0.0.1:3"), place("c", "127.0.0.1:2"), place("a", "127.0.0.1:1")];
        let plan = plan(&first, next);
        assert_eq!(plan.open, [place("c", "127.0.0.1:3")]);
        assert_eq!(plan.stay, [(2, place("c", "127.0.0.1:2")), (0, place("a", "127.0.0.1:1"))]);
        assert_eq!(plan.close, [1]);
    }

    #[test]
    fn a_chosen_port_stays_with_its_listener() {
        let open = [place("a", "127.0.0.1:0"), place("a", "127.0.0.1:0")];
        let plan = plan(&open, vec![place("b", "127.0.0.1:0"), place("a", "127.0.0.1:0")]);
        assert_eq!(plan.open, [place("b", "127.0.0.1:0")]);
        assert_eq!(plan.stay, [(0, place("a", "127.0.0.1:0"))]);
        assert_eq!(plan.close, [1]);
    }

    #[test]
    fn what_cannot_be_opened_leaves_nothing_behind() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut listeners = Listeners::default();
        let places = vec![place("free", "127.0.0.1:0"), Place { name: "taken".into(), address }];
        let error = listeners.open(places, 2).unwrap_err().to_string();
        assert!(error.contains("listen.taken: cannot listen on") && error.contains("ss -ltnp"), "{error}");
        assert!(listeners.places().is_empty());

        let opened = listeners.open(vec![place("web", "127.0.0.1:0")], 3).unwrap();
        let handover = listeners.commit(opened, Vec::new(), Vec::new(), |_| ListenerId(7));
        assert_eq!(handover.listen.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        let (name, bound) = listeners.bound().next().unwrap();
        assert!(*name == *"web" && bound.port() != 0);
        let key = handover.listen[0][0].key;
        assert_eq!(listeners.commit(Vec::new(), Vec::new(), vec![0], |_| ListenerId(7)).close, [key]);
        assert!(listeners.places().is_empty());
    }
}
