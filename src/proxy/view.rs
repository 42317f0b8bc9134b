//! The snapshot as one worker sees it: taken once a reload, then shared by its requests without an
//! atomic operation.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::tuned::TunedPools;
use crate::model::affinity::By;
use crate::model::listener::{AcceptProxy, Media, Protocol};
use crate::model::pool::Pool;
use crate::model::rule::Key;
use crate::state::Snapshot;
use crate::state::secured::ServerSlot;

#[derive(Debug)]
pub struct View {
    pub snapshot: Arc<Snapshot>,
    /// By the listener's number; `None` for one that is not configured any more.
    listeners: Vec<Option<ListenerView>>,
    /// Whose an address is: the listener's number.
    addresses: HashMap<SocketAddr, u32>,
    /// By pool: what its scheduler hashes.
    pub keys: Vec<Option<Key>>,
    /// Some pool's servers are told whose connection it is.
    pub announces: bool,
    /// Some rule asks who somebody is: nobody but us says it to servers.
    pub has_auth: bool,
    /// Some pool knows its clients by the TLS sessions that end here.
    pub watches_sessions: bool,
    /// For rules that have times and tries of their own.
    pub tuned: TunedPools,
}

/// A listener's settings, with names resolved.
#[derive(Debug)]
pub struct ListenerView {
    pub name: Arc<str>,
    /// Position in the snapshot's listeners.
    position: usize,
    pub protocol: Protocol,
    /// Peers that say whose connection it is.
    pub accept_proxy: Option<AcceptProxy>,
    /// Position in the snapshot's tables.
    pub table: usize,
    /// Position in the snapshot's pools.
    pub pool: Option<usize>,
    pub forwarded: bool,
    trusted: Vec<IpNet>,
    /// What its clients are offered; `None`: it speaks in clear.
    pub tls: Option<ServerSlot>,
    /// Of RTSP: how media comes to clients.
    pub media: Media,
}

impl View {
    pub fn new(snapshot: Arc<Snapshot>) -> View {
        let config = &snapshot.config;
        let (mut listeners, mut addresses) = (Vec::new(), HashMap::new());
        for (position, (listener, id)) in config.listeners.iter().zip(&snapshot.listeners).enumerate() {
            let tls = snapshot.tls.get(position).cloned().flatten();
            // Nothing is ever said in clear that should have been sealed.
            if !listener.built || listener.tls.is_some() != tls.is_some() {
                continue;
            }
            let at = id.0 as usize;
            if listeners.len() <= at {
                listeners.resize_with(at + 1, || None);
            }
            let pool = listener.pool.as_ref().and_then(|name| config.pools.iter().position(|pool| pool.name == *name));
            listeners[at] = Some(ListenerView {
                name: listener.name.clone(),
                position,
                protocol: listener.protocol,
                accept_proxy: listener.accept_proxy.clone(),
                table: listener.rules,
                pool,
                forwarded: listener.forwarded,
                trusted: listener.trusted.clone(),
                tls,
                media: listener.media.clone(),
            });
            addresses.extend(listener.addresses.iter().map(|address| (*address, id.0)));
        }
        let keys = config.pools.iter().map(|pool| pool.scheduler.key().cloned()).collect();
        let announces = config.pools.iter().any(|pool| pool.send_proxy.is_some());
        let has_auth = snapshot.tables.iter().any(|table| table.has_auth());
        let by_sessions = |pool: &Pool| matches!(&pool.affinity, Some(own) if matches!(own.by, By::TlsSession(_)));
        let watches_sessions = config.pools.iter().any(by_sessions);
        let tuned = TunedPools::default();
        View { listeners, addresses, keys, announces, has_auth, watches_sessions, tuned, snapshot }
    }

    pub fn listener(&self, id: u32) -> Option<&ListenerView> {
        self.listeners.get(id as usize)?.as_ref()
    }

    /// Whose connections arrive at an address, in which a port was chosen; the listener's number.
    pub fn listener_at(&self, address: SocketAddr) -> Option<u32> {
        self.addresses.get(&address).copied().filter(|_| address.port() != 0)
    }

    /// What the log will want to know at the end of a connection that may outlast many snapshots: the listener's
    /// name, and that of the rule, whose number is then 0.
    pub fn remains(&self, listener: u32, rule: Option<usize>) -> View {
        let mut listeners = Vec::new();
        if let Some(own) = self.listener(listener) {
            listeners.resize_with(listener as usize + 1, || None);
            listeners[listener as usize] =
                Some(ListenerView { protocol: own.protocol, ..ListenerView::plain(&own.name) });
        }
        let snapshot = self.snapshot.remains(rule);
        let tuned = TunedPools::default();
        View {
            snapshot,
            listeners,
            addresses: HashMap::new(),
            keys: Vec::new(),
            announces: false,
            has_auth: false,
            watches_sessions: false,
            tuned,
        }
    }

    /// Whether a connection of this listener that was accepted under `before` may go on under this view: its
    /// listener is still there, and speaks what it spoke.
    pub fn carries_on(&self, before: &View, id: u32) -> bool {
        let (Some(old), Some(new)) = (before.listener(id), self.listener(id)) else {
            return before.listener(id).is_none() && self.listener(id).is_none();
        };
        let tls = |view: &View, at: usize| view.snapshot.config.listeners[at].tls.clone();
        old.protocol == new.protocol
            && match (tls(before, old.position), tls(self, new.position)) {
                (Some(old), Some(new)) => old.same(&new),
                (old, new) => old.is_none() && new.is_none(),
            }
    }
}

impl ListenerView {
    /// One that trusts nobody and knows no rules.
    pub fn plain(name: &str) -> ListenerView {
        ListenerView {
            name: name.into(),
            position: 0,
            protocol: Protocol::Http,
            accept_proxy: None,
            table: 0,
            pool: None,
            forwarded: false,
            trusted: Vec::new(),
            tls: None,
            media: Media::default(),
        }
    }

    /// Whether what this peer says of whom it forwards for is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}
