//! How connections are sealed, as the engines see it: made by `tls`, which replaces what is in the slots
//! when files change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};

pub type ServerSlot = Arc<ArcSwap<ServerConfig>>;
pub type ClientSlot = Arc<ArcSwap<ClientConfig>>;

/// What belongs to one configuration.
#[derive(Debug, Clone, Default)]
pub struct Secured {
    /// In the order of `Config::listeners`; `None` for those in clear.
    pub listeners: Vec<Option<ServerSlot>>,
    /// In the order of `Config::pools`.
    pub pools: Vec<Option<ClientSlot>>,
}
