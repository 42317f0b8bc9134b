//! Asks the director, for the API and the metrics page.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::state::director::{Change, Command, Commands, Flows, Refusal, Table, Unavailable};

/// Longer than to read all that the tables can hold.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is answered is `Unavailable` where there is no director, or it is stuck.
pub async fn table(director: &Commands) -> Result<Table, Unavailable> {
    asked(director, |reply| Command::Table { reply }).await.unwrap_or(Err(Unavailable::Off))
}

/// As [`table`].
pub async fn flows(director: &Commands, limit: usize) -> Result<Flows, Unavailable> {
    asked(director, |reply| Command::Flows { limit, reply }).await.unwrap_or(Err(Unavailable::Off))
}

/// `None`: the process is about to end.
pub async fn change(director: &Commands, changes: Vec<Change>) -> Option<Vec<Result<(), Refusal>>> {
    asked(director, |reply| Command::Change { changes, reply }).await
}

async fn asked<T>(director: &Commands, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    timeout(PATIENCE, director.send(command(reply))).await.ok()?.ok()?;
    timeout(PATIENCE, answer).await.ok()?.ok()
}
