//! The L4 director as its users meet it: the real program in a network namespace, real clients and servers around it.

mod changes;
mod forwarding;
mod more;
mod net;
mod restarts;
