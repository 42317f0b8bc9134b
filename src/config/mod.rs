//! Text to model: what the operator wrote becomes what he means.

pub mod closest;
pub mod rules;
