//! One process takes over from another without a connection lost: a new program, or the same one anew.
//!
//! The old process starts the new one with one end of a Unix socket as its stdin (`link`), and sends it what it has
//! (`parcel`). Then they speak:
//!
//! ```text
//! old                                      new
//! hello, sections, whole        ->
//!                               <-         hello, ready          texts compiled, nothing is accepted yet
//! go                            ->
//!                               <-         serving               both accept, from the same queues
//!                               <-         settled               it has served for two seconds, every worker answers
//! older (each with its link)    ->
//! yours                         ->                               the doors, the counters, the name of the control socket
//!                               <-         mine                  taken: only now the old one gives up listening
//! report, once a second         ->
//!                               <-         hurry                 end by the deadline of a drain
//! ```
//!
//! Until `mine` the old process does all it did before and can do without the new one, which it ends when anything is
//! late or wrong. From then on it accepts nobody and finishes what it has, each connection in its own time. What
//! an old process says while it does so goes to the newest: links are handed on with everything else.
//!
//! | file | subject |
//! |---|---|
//! | `link` | frames over the socket |
//! | `parcel` | what is handed over |
//! | `child` | the new process, as the old one starts, hears and ends it |
//! | `order` | an upgrade, on the old side |
//! | `take` | the same on the new side |
//! | `before` | old processes, as the newest sees them |
//! | `leave` | the rest of an old process's life |

mod before;
mod child;
mod leave;
mod link;
mod order;
mod parcel;
mod take;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use before::Before;
pub use child::Origin;
pub use leave::{Leaving, leave};
pub use order::{Replaced, refused, upgrade};
pub use take::{Heir, Settling, refuse, socket};

use crate::state::counted::Counted;

/// What is spoken. A process that meets another number refuses.
const FORMAT: u32 = 2;

/// How long the new process serves beside the old one before that one stops.
const SETTLE: Duration = Duration::from_secs(2);

/// For each step in which nothing is compiled.
const STEP: Duration = Duration::from_secs(10);

/// Old processes that finish in their own time; when there are more, the oldest is told to end by the deadline of a drain.
const OLD: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum ToNew {
    Hello {
        format: u32,
        version: String,
        pid: u32,
    },
    Section {
        name: String,
        data: Value,
    },
    /// All sections have been sent.
    Whole,
    Go,
    /// A process before the old one, with its link.
    Older {
        pid: u32,
        version: String,
        /// Milliseconds since 1970.
        since: u64,
        connections: u64,
        hurried: bool,
        counted: Counted,
    },
    /// What has been noted of clients since the sections were gathered, beside.
    Clients,
    /// The service is the new process's alone, as soon as it says `mine`.
    Yours {
        connections: u64,
        counted: Counted,
        reloads_refused: u64,
        log_dropped: u64,
        panics: u64,
    },
    /// What has changed since the last one.
    Report {
        connections: u64,
        counted: Counted,
    },
    /// Of a later version: nothing that has to be understood.
    #[serde(other)]
    Other,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum ToOld {
    Hello {
        version: String,
    },
    Refused {
        why: String,
    },
    Ready {
        /// Whether it goes on with the control socket.
        control: bool,
    },
    Serving,
    Settled,
    /// `yours` has been read and is taken.
    Mine,
    Hurry,
    #[serde(other)]
    Other,
}
