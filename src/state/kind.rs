//! What of a pool somebody who waits may use. Where one of a kind finds nothing, no other of it does.

use smallvec::SmallVec;

use super::affinity::table::Number;
use super::pool::LivePool;
use crate::model::pool::Protocol;

/// What a request may use of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    /// Servers that it may not be at, by their ids, in order.
    pub(super) not_at: SmallVec<[u32; 4]>,
    pub(super) was_at: WasAt,
    /// It is placed by a key: `ovf` then has no regard for how much a server takes (`balance::Balancer::pick`).
    pub(super) keyed: bool,
    /// Whose connections it may share; 0: nobody's. Only where connections are bounded apart from requests does it matter,
    /// which a reload may bring while it waits.
    pub(super) shares: usize,
    /// How the pool that it waits for is spoken to.
    pub(super) manner: u32,
}

/// The server that its client was at, which keeps it where it takes nobody else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum WasAt {
    #[default]
    Nowhere,
    /// By its id.
    Server(u32),
    /// One that the pool does not have, and may have by the next reload: by the number of its name.
    Unknown(Number),
}

impl Kind {
    /// `not_at` as [`LivePool::pick_in_turn`] has `tried`; `was_at` as [`super::LiveAffinity::position`]; `shares`: a number
    /// of those who share connections, where it may.
    pub fn of(pool: &LivePool, not_at: &[u32], was_at: Option<Number>, keyed: bool, shares: Option<usize>) -> Kind {
        let mut not_at = SmallVec::from(not_at);
        not_at.sort_unstable();
        not_at.dedup();
        let server = |name| pool.servers().get(pool.affinity()?.position(name)? as usize);
        let was_at = was_at.map_or(WasAt::Nowhere, |name| {
            server(name).map_or(WasAt::Unknown(name), |server| WasAt::Server(server.id()))
        });
        // With another protocol it is another manner, too.
        let shares = shares.filter(|_| pool.config().protocol != Protocol::Http1).unwrap_or(0);
        Kind { not_at, was_at, keyed, shares, manner: pool.manner() }
    }

    /// Whether it may use a place at a server that takes none but those who were there, in a pool that is spoken to so. One
    /// that waits for a pool as it was before goes by what that took.
    pub(super) fn is_of(&self, server: u32, manner: u32) -> bool {
        let was = match self.was_at {
            WasAt::Nowhere => false,
            WasAt::Server(own) => own == server,
            WasAt::Unknown(_) => true,
        };
        was || self.manner != manner
    }
}
