//! Reeve as its users meet it: the real program in a process of its own, real origins, real clients.
//!
//! `farm` holds what the tests stand on; every other file is one subject. A test that lacks a peer
//! prints `SKIPPED: why` and passes; with CHECK_NO_SKIP=1, as in the gate, it fails instead.

mod farm;

mod bodies;
mod chaos;
mod clients;
mod commands;
mod conformance;
mod deadlines;
mod demo;
mod drain;
mod http2;
mod http2_floods;
mod http2_frames;
mod http2_servers;
mod idle;
mod opaque;
mod proxy_header;
mod refinements;
mod reload;
mod reload_load;
mod sealed;
mod seen;
mod stop;
mod switching;
mod tls;
mod tls_out;
