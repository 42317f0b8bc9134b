//! The L4 director: packets are forwarded in the kernel (`bpf/`), and this engine tells it how.
//!
//! `run` is the loop. It gathers what is wanted (`wanted`: the configuration's services with what is known of their servers,
//! and those added at run time, `own`), works out the least that has to be written (`plan`, pure), and writes it (`kernel`);
//! it looks at what was counted (`observe`, `estimator`) and forgets flows whose time is over (`sweep`).

pub mod abi;
mod estimator;
mod explicit;
mod kernel;
mod observe;
mod on;
mod own;
mod plan;
pub mod real;
mod records;
mod regions;
mod run;
mod sweep;
mod tables;
mod wanted;

pub use run::{Start, run};
