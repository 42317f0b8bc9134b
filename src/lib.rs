//! Reeve, the director of a web and media farm.
//!
//! The floors of the house. A module imports only from strictly lower floors; siblings never import
//! each other; the engines meet only in `state`. `tests/floors.rs` keeps it so.
//!
//! ```text
//!    5  roof       app                          start, reload, drain, upgrade, the command line
//!                   |
//!    4  engines    proxy   director   health   sessions   monitor     never import each other; they meet in state
//!                   |
//!    3  plumbing   state   tls   net            what is alive, and the pipes
//!                   |
//!    2  choices    route   balance   affinity   pure and deterministic: input, `now` -> answer
//!                   |
//!    1  edges      wire   config   sys          bytes, text, kernel
//!                   |
//!    0  ground     model                        plain data: what the operator means
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("Reeve runs on Linux only: it needs SO_REUSEPORT, splice and epoll");

pub mod affinity;
pub mod app;
pub mod balance;
pub mod config;
pub mod director;
pub mod health;
pub mod model;
pub mod monitor;
pub mod net;
pub mod proxy;
pub mod route;
pub mod sessions;
pub mod state;
pub mod sys;
pub mod tls;
pub mod wire;
