//! A program of the operator's: 0 is up, anything else down.
//!
//! No shell reads the words. It runs in a process group of its own, which is killed whole when its time is over,
//! also when the check itself goes. What it writes is read as far as it is shown.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::talk::{Tail, Transcript, shortened};
use super::{Clock, Failed, Target, Unable};
use crate::model::Limits;
use crate::sys::process::is_shortage;

/// How long what a program has said is still read for when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(50);

static RUNNING: Semaphore = Semaphore::const_new(Limits::CHECK_COMMANDS);

/// Kills all of its group when it is dropped. It has its turn for as long as it is, also while it is being started.
struct Group(Child, #[expect(dead_code, reason = "given back when it is dropped")] SemaphorePermit<'static>);

impl Drop for Group {
    fn drop(&mut self) {
        // Once it was waited for, its number may be somebody else's, and there is none any more.
        if let Some(pid) = self.0.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

pub async fn run(
    words: &[Arc<str>],
    target: &Target,
    address: SocketAddr,
    clock: &Clock,
    said: &mut Transcript,
) -> Result<String, Failed> {
    let (Some(program), arguments) = (words.first(), words.get(1..).unwrap_or_default()) else {
        return Err(Failed::Unable(Unable::Missing("the check names no program".to_owned())));
    };
    let mut command = Command::new(&**program);
    command
        .args(arguments.iter().map(|argument| &**argument))
        .env("REEVE_POOL", &*target.pool)
        .env("REEVE_SERVER", &*target.server)
        .env("REEVE_ADDRESS", address.ip().to_string())
        .env("REEVE_PORT", address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let turn = clock.within("waiting for its turn", async { RUNNING.acquire().await.map_err(|_| String::new()) });
    let turn = turn.await?;
    // Starting one waits until it has been loaded from its disk: not on this thread. Were nobody to wait for it any
    // more, its group ends with the result.
    let started = tokio::task::spawn_blocking(move || command.spawn().map(|child| Group(child, turn)));
    let started = clock.within("starting the program", async { started.await.map_err(|error| error.to_string()) });
    let mut group = match started.await? {
        Ok(group) => group,
        Err(error) if is_shortage(&error) => return Err(Failed::Unable(Unable::Shortage(error))),
        Err(error) => return Err(Failed::Bad(format!("{program} cannot be run: {error}"))),
    };
    let (out, wrong) = (group.0.stdout.take(), group.0.stderr.take());
    let (mut heard, mut complained) = (Tail::default(), Tail::default());
    let ended = async {
        let child = &mut group.0;
        let reading = async { tokio::join!(drain(out, &mut heard), drain(wrong, &mut complained)) };
        tokio::pin!(reading);
        // A program may leave others behind that hold its pipes: its own end is what counts, and what it has said by then.
        let status = tokio::select! {
            _ = &mut reading => child.wait().await,
            status = child.wait() => {
                let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
                status
            }
        };
        status.map_err(|error| format!("{program} is lost: {error}"))
    };
    let status = clock.within("running the program", ended).await;
    let told = if heard.shown().is_empty() { complained.shown() } else { heard.shown() };
    said.heard = heard;
    if !complained.shown().is_empty() {
        said.heard.add(b"\n");
        said.heard.add(complained.shown().as_bytes());
    }
    judge(status?, &told).map_err(Failed::Bad)
}

fn judge(status: ExitStatus, told: &str) -> Result<String, String> {
    let first = shortened(told.split("\\n").next().unwrap_or_default().as_bytes());
    let how = match status.code() {
        Some(0) if first.is_empty() => return Ok("ended with 0".to_owned()),
        Some(0) => return Ok(first),
        Some(code) => format!("ended with {code}"),
        None => format!("ended by {status}"),
    };
    Err(if first.is_empty() { how } else { format!("{how}: {first}") })
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Tail) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        tail.add(&buffer[..count]);
    }
}
