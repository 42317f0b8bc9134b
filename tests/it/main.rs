//! Reeve as its users meet it: the real program in a process of its own, real origins, real clients.
//!
//! Beside it, in the same program, what needs no process: the shape of the house (`floors`), wrong texts and what is said
//! of them (`golden`), the kept inputs of fuzzing (`corpus`).
//!
//! `farm` holds what the tests stand on; every other file is one subject. A test that lacks a peer
//! prints `SKIPPED: why` and passes; with CHECK_NO_SKIP=1, as in the gate, it fails instead.

mod farm;

#[path = "../corpus.rs"]
mod corpus;
#[path = "../floors.rs"]
mod floors;
#[path = "../golden.rs"]
mod golden;
#[path = "../schema.rs"]
mod schema;

mod affinity;
mod auth;
mod bodies;
mod body_rules;
mod browser;
mod chaos;
mod checks;
mod checks_sealed;
mod clients;
mod commands;
mod conformance;
mod deadlines;
mod demo;
mod director;
mod drain;
mod hedge;
mod http2;
mod http2_floods;
mod http2_frames;
mod http2_servers;
mod idle;
mod import;
mod import_peers;
mod layer4;
mod media;
mod mirror;
mod opaque;
mod overload;
mod passive;
mod proxy_header;
mod refinements;
mod reload;
mod reload_load;
mod reload_size;
mod retries;
mod rtsp;
mod sealed;
mod seen;
mod shortage;
mod stop;
mod switching;
mod tls;
mod tls_out;
mod tls_sessions;
mod tooling;
mod upgrade;
mod upgrade_failing;
mod upgrade_load;
