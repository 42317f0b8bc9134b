//! Finds out which servers can take requests, and says so in `state`.
//!
//! A server starts *unknown*, which serves: a start or a reload must not answer 503 until the first probes
//! are back. The first result settles it: a failed probe takes an unknown server down at once, without
//! waiting for `fall`, and a good one confirms it without waiting for `rise`. From then on it takes `fall`
//! failures in a row to go down and `rise` good probes in a row to come up. With several checks a server
//! is up while none of them says down.
//!
//! Servers named by a host name are also resolved again and again here; one that never resolved is down.

mod machine;
mod outlier;
mod pace;
mod passive;
mod probe;
mod resolve;
mod run;

pub use passive::run as watch_conduct;
pub use run::run;

#[cfg(test)]
mod tests;
