//! What is alive: the snapshot in force, pools, servers, and who may be chosen; what was counted, and the
//! commands by which engines ask each other.
//!
//! The engines meet here and nowhere else. Everything is keyed by configured identities, never addresses,
//! so that health and requests in flight survive a reload. What all cores share is atomic; what takes a
//! lock says so and is not for the request path.

pub mod affinity;
pub mod budget;
pub mod changes;
pub mod commands;
pub mod conduct;
pub mod connections;
pub mod counted;
pub mod counters;
pub mod crowd;
mod delay;
pub mod director;
pub mod ejected;
pub mod farm;
pub mod gate;
pub mod generations;
pub mod histogram;
mod kind;
pub mod labels;
pub mod lease;
mod line;
pub mod media;
pub mod names;
pub mod orders;
mod pace;
pub mod passwords;
mod plan;
pub mod pool;
pub mod rates;
pub mod rule_hits;
pub mod secured;
pub mod server;
pub mod snapshot;
pub mod tallies;

pub use affinity::LiveAffinity;
pub use changes::{Change, Evidence};
pub use farm::{Drains, Farm, SnapshotCache};
pub use kind::Kind;
pub use lease::{Lease, Seat};
pub use names::Names;
pub use pool::{LivePool, NoServer, Unfit};
pub use secured::Secured;
pub use server::{Advice, Health, LiveServer, ProbeReport, Standing, Way};
pub use snapshot::{ListenerId, Snapshot};

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
