//! The layer-7 engine: one worker a core, each with its own listeners, connections and buffers.
//!
//! `connection` finds out what a client speaks, after `announced` has learnt whose connection it is. What
//! is passed on unread is `opaque`'s; else `http1` reads requests, `plan` decides each while its
//! head is still borrowed, `request` is the recipe that carries the decision out, `finish` writes it down.

pub mod access_log;
mod announced;
mod answer;
mod client;
mod connection;
mod failure;
mod finish;
mod forward;
mod http1;
mod opaque;
mod outcome;
mod pick;
mod plan;
mod receive;
mod registry;
mod relay;
mod reply;
mod request;
mod run;
mod tunnel;
mod view;
mod worker;

pub use run::{Start, run};
