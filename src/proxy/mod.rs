//! The layer-7 engine: one worker a core, each with its own listeners, connections and buffers.
//!
//! `connection` reads requests, `plan` decides each while its head is still borrowed, `request` is the
//! recipe that carries the decision out, `finish` writes it down.

pub mod access_log;
mod answer;
mod connection;
mod failure;
mod finish;
mod forward;
mod pick;
mod plan;
mod receive;
mod relay;
mod reply;
mod request;
mod tunnel;
mod view;
pub mod worker;

pub use worker::{Start, run};
