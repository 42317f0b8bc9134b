//! What an operator sees from outside: the control socket with its JSON API, and the metrics page.
//!
//! It asks the workers for what they counted (`state::commands`) and looks at the live state, and changes
//! neither; what is to be changed it orders (`state::orders`).

pub mod api;
pub mod exposition;
mod layer4;
pub mod process;
pub mod report;
pub mod run;
pub mod socket;
pub mod view;

pub use api::Source;
pub use run::{Control, Metrics, run};
pub use socket::{BindFault, ControlSocket, bind_control, socket_path};

#[cfg(test)]
pub mod tests;
