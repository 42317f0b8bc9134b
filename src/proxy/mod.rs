//! proxy
pub mod access_log;
