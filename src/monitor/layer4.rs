//! Asks the director, for the API and the metrics page.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::state::director::{Change, Command, Commands, Flows, Refusal, Table, Unavailable};

/// Longer than to read all that the tables can hold.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where its answer is one part of a page: Prometheus waits ten seconds for a page if it is not told otherwise, and one
/// without the director says that it does not answer.
const PATIENCE_BESIDE: Duration = Duration::from_secs(3);

/// Its thread has ended, or is stuck.
const SILENT: &str =
    "the director does not answer: the log says why; a restart begins anew, and packets go on meanwhile";

/// What is answered is `Unavailable` where there is no director, or it is stuck.
pub async fn table(director: &Commands) -> Result<Table, Unavailable> {
    or_silent(asked(director, |reply| Command::Table { reply }).await)
}

/// As [`table`], for a page that has more to say.
pub async fn table_beside(director: &Commands) -> Result<Table, Unavailable> {
    or_silent(timeout(PATIENCE_BESIDE, asked(director, |reply| Command::Table { reply })).await.ok().flatten())
}

/// As [`table`].
pub async fn flows(director: &Commands, limit: usize) -> Result<Flows, Unavailable> {
    or_silent(asked(director, |reply| Command::Flows { limit, reply }).await)
}

/// As [`table_beside`].
pub async fn flows_beside(director: &Commands, limit: usize) -> Result<Flows, Unavailable> {
    or_silent(timeout(PATIENCE_BESIDE, asked(director, |reply| Command::Flows { limit, reply })).await.ok().flatten())
}

fn or_silent<T>(answer: Option<Result<T, Unavailable>>) -> Result<T, Unavailable> {
    answer.unwrap_or_else(|| Err(Unavailable::Fault(SILENT.to_owned())))
}

/// An answer for each.
pub async fn change(director: &Commands, changes: Vec<Change>) -> Vec<Result<(), Refusal>> {
    let silent = vec![Err(Refusal::NoDirector(SILENT.to_owned())); changes.len()];
    asked(director, |reply| Command::Change { changes, reply }).await.unwrap_or(silent)
}

async fn asked<T>(director: &Commands, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    timeout(PATIENCE, director.send(command(reply))).await.ok()?.ok()?;
    timeout(PATIENCE, answer).await.ok()?.ok()
}
