//! Learns which server a client of sealed TLS would take its session up with, by looking at the servers' tickets.
//!
//! A ticket begins with a name of the key that it was made with (`tls::key_name`). Every server is asked as a client would
//! ask, twice in each version of TLS, again and again: a name that comes twice from one server, and from no other
//! one, is that server's. Names that two servers have are those of shared keys, and bind nobody; names that differ each
//! time are none. What is found is put where the proxy looks for it (`state::affinity`).

mod machine;
mod run;

pub use run::run;
