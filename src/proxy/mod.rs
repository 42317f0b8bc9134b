//! The layer-7 engine: one worker a core, each with its own listeners, connections and buffers.
//!
//! `connection` finds out what a client speaks, after `announced` has learnt whose connection it is. What is
//! passed on unread is `opaque`'s; else `http1` and `http2` read requests, `plan` decides each while its head is
//! still borrowed (after `ahead` has read its body, where a rule looks at it), `serve` carries the decision out, by the recipe in `request` where a server is asked, and
//! `finish` writes it down.

pub mod access_log;
mod admit;
mod ahead;
mod announced;
mod answer;
mod ask;
mod auth;
mod bound;
mod channels;
mod client;
mod conduct;
mod connection;
mod failure;
mod finish;
mod forward;
pub mod fuzz;
mod guard;
mod http1;
mod http2;
mod mirror;
mod opaque;
mod outcome;
mod pick;
mod pieces;
mod plan;
mod queue;
mod receive;
mod registry;
mod relay;
mod reply;
mod request;
mod retry;
mod rtsp;
mod run;
mod serve;
mod tuned;
mod tunnel;
mod upload;
mod view;
mod websocket;
mod worker;

pub use run::{Start, run};
pub use worker::Room;

#[cfg(test)]
mod tests;
