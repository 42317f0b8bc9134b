//! The listening sockets of the process: which are open, and which have to be for a configuration.
//!
//! Start, reload, drain and `ready` all go the same way: [`plan`] says what stays, opens and closes, then what is
//! new is opened, then what is too much is closed. Of each socket this keeps a descriptor besides the worker's own,
//! so that all of them can be counted, closed and handed on in one place.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
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
    /// One for each worker of the process that opened them.
    sockets: Vec<TcpListener>,
    /// The workers' own descriptors, until they are handed out.
    waiting: Vec<Vec<TcpListener>>,
}

impl Open {
    fn new(place: Place, key: u64, sockets: Vec<TcpListener>, workers: usize) -> std::io::Result<Open> {
        let bound = sockets.first().map_or(Ok(place.address), TcpListener::local_addr)?;
        let waiting = spread(sockets.len(), workers)
            .into_iter()
            .map(|own| own.into_iter().map(|at| sockets[at].try_clone()).collect())
            .collect::<std::io::Result<_>>()?;
        Ok(Open { place, bound, key, sockets, waiting })
    }
}

/// Which of so many sockets each worker accepts on. None is left out, and where there are fewer sockets than workers some
/// share one: to open another would put clients into a queue that is lost if this process does not come to serve.
fn spread(sockets: usize, workers: usize) -> Vec<Vec<usize>> {
    let mut own: Vec<Vec<usize>> = vec![Vec::new(); workers];
    for turn in 0..if sockets == 0 { 0 } else { sockets.max(workers) } {
        own[turn % workers].push(turn % sockets);
    }
    own
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
    pub fn open(&mut self, places: Vec<Place>, workers: usize) -> Result<Vec<Open>, StartError> {
        let mut opened = Vec::with_capacity(places.len());
        for place in places {
            self.keys += 1;
            opened.push(self.open_one(place, workers)?);
        }
        Ok(opened)
    }

    /// Each worker gets a socket of its own for every address: the kernel spreads connections over them.
    fn open_one(&self, place: Place, workers: usize) -> Result<Open, StartError> {
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
        Open::new(place, self.keys, sockets, workers).map_err(|error| fail(bound, error))
    }

    /// Takes sockets over that another process has opened.
    ///
    /// # Errors
    /// When one is no listening socket, or descriptors run out.
    pub fn take_over(&mut self, place: Place, sockets: Vec<TcpListener>, workers: usize) -> std::io::Result<()> {
        self.keys += 1;
        self.open.push(Open::new(place, self.keys, sockets, workers)?);
        Ok(())
    }

    /// Gives all of them up: the workers' own descriptors, by these keys, are the last ones here.
    pub fn give_up(&mut self) -> Vec<u64> {
        self.open.drain(..).map(|open| open.key).collect()
    }

    /// What is open, with a descriptor of each socket for another process.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn hand_on(&self) -> std::io::Result<Vec<(Place, Vec<OwnedFd>)>> {
        let all = self.open.iter().map(|open| {
            let sockets = open.sockets.iter().map(|socket| Ok(socket.try_clone()?.into()));
            Ok((open.place.clone(), sockets.collect::<std::io::Result<_>>()?))
        });
        all.collect()
    }

    /// Does what [`plan`] says, as far as it is done here; the rest is the workers'. `number` is that of a listener.
    pub fn commit(
        &mut self,
        opened: Vec<Open>,
        stay: Vec<(usize, Place)>,
        mut close: Vec<usize>,
        number: impl Fn(&Arc<str>) -> ListenerId,
    ) -> Handover {
        for (at, place) in stay {
            self.open[at].place = place;
        }
        close.sort_unstable();
        let close = close.into_iter().rev().map(|at| self.open.remove(at).key).collect();
        self.open.extend(opened);
        let workers = self.open.iter().map(|open| open.waiting.len()).max().unwrap_or(0);
        let mut listen: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
        for open in &mut self.open {
            let (key, address, listener) = (open.key, open.place.address, number(&open.place.name));
            for (sockets, own) in listen.iter_mut().zip(std::mem::take(&mut open.waiting)) {
                sockets.extend(own.into_iter().map(|socket| Socket { key, listener, address, socket }));
            }
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
    fn sockets_of_another_process_are_served_by_any_number_of_workers() {
        assert_eq!(spread(2, 2), [[0], [1]]);
        assert_eq!(spread(5, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(spread(2, 3), [[0], [1], [0]]);
        assert!(spread(0, 2).iter().all(Vec::is_empty));

        let mut first = Listeners::default();
        let opened = first.open(vec![place("web", "127.0.0.1:0")], 3).unwrap();
        first.commit(opened, Vec::new(), Vec::new(), |_| ListenerId(1));
        let mut second = Listeners::default();
        for (place, sockets) in first.hand_on().unwrap() {
            second.take_over(place, sockets.into_iter().map(TcpListener::from).collect(), 2).unwrap();
        }
        assert!(second.bound().eq(first.bound()));
        let plan = plan(&second.places(), vec![place("web", "127.0.0.1:0")]);
        assert!(plan.open.is_empty() && plan.close.is_empty());
        let listen = second.commit(Vec::new(), plan.stay, plan.close, |_| ListenerId(1)).listen;
        assert_eq!(listen.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert!(second.commit(Vec::new(), Vec::new(), Vec::new(), |_| ListenerId(1)).listen.is_empty());
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
