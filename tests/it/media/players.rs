//! Other people's players and publishers, as a farm meets them, and what counts as having played.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::space::Space;
use crate::farm::process::Process;

/// Two seconds of pictures.
pub const PICTURES: usize = 30;
const FFMPEG: Duration = Duration::from_secs(12);
const GSTREAMER: Duration = Duration::from_secs(15);
const FFPROBE: Duration = Duration::from_secs(10);

/// How long it took, or what went wrong.
pub type Played = Result<Duration, String>;

/// Something that can be played, by itself or beside others.
pub type Play<'a> = Box<dyn Fn() -> Played + Send + Sync + 'a>;

/// Plays 30 pictures with ffmpeg. `how` are words before the address.
pub fn ffmpeg(space: &Space, how: &[&str], url: &str) -> Played {
    ffmpeg_of(space, how, url, PICTURES, FFMPEG)
}

pub fn ffmpeg_of(space: &Space, how: &[&str], url: &str, pictures: usize, limit: Duration) -> Played {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "info"]).args(how).args(["-i", url]);
    command.args(["-frames:v", &pictures.to_string(), "-f", "null", "-"]);
    let (took, _, said) = finished(space, &mut command, limit)?;
    // The last line of statistics: `frame=   30 fps=...`.
    let count = said.rsplit_once("frame=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    enough(count.unwrap_or(0), pictures, took, &said)
}

/// Plays 30 pictures with GStreamer. `how` are properties of `rtspsrc`.
pub fn gstreamer(space: &Space, how: &[&str], url: &str) -> Played {
    gstreamer_of(space, how, url, PICTURES, GSTREAMER)
}

pub fn gstreamer_of(space: &Space, how: &[&str], url: &str, pictures: usize, limit: Duration) -> Played {
    let mut command = Command::new("gst-launch-1.0");
    // `eos-after` ends with the buffer of that number, which it does not pass on.
    let (location, end) = (format!("location={url}"), format!("eos-after={}", pictures + 1));
    command.args(["-v", "rtspsrc", "latency=100", &location]).args(how);
    command.args(["!", "rtph264depay", "!", "identity", "silent=false", &end, "!", "fakesink"]);
    let ended = finish(space, &mut command, limit)?;
    let count = ended.out.lines().filter(|line| line.contains("identity0: last-message = chain")).count();
    // Its leave does not count: it fails now and then even between it and its own server.
    enough(count, pictures, ended.took, &ended.wrong)
}

/// Publishes 30 pictures in two seconds.
pub fn publish(space: &Space, transport: &str, url: &str) -> Played {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-nostats", "-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=15"]);
    command.args(["-frames:v", &PICTURES.to_string(), "-c:v", "libx264", "-preset", "ultrafast"]);
    command.args(["-tune", "zerolatency", "-g", "15", "-threads", "1", "-pix_fmt", "yuv420p"]);
    command.args(["-f", "rtsp", "-rtsp_transport", transport, url]);
    finished(space, &mut command, FFMPEG).map(|(took, ..)| took)
}

/// The width of the pictures at an address: it says which origin they come from.
pub fn width(space: &Space, transport: &str, url: &str) -> Result<String, String> {
    let mut last = String::new();
    // It gives up with 0 when it has had no complete picture by then, which happens on a busy machine.
    for _ in 0..3 {
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "error",
            "-rtsp_transport",
            transport,
            "-show_entries",
            "stream=width",
            "-of",
            "csv=p=0",
            url,
        ]);
        let (_, said, wrong) = finished(space, &mut command, FFPROBE)?;
        let width = said.lines().next().unwrap_or_default().trim_end_matches(',').trim();
        if !width.is_empty() && width != "0" {
            return Ok(width.to_owned());
        }
        last = format!("{said}{wrong}");
    }
    Err(format!("no width: {last}"))
}

struct Ended {
    status: ExitStatus,
    took: Duration,
    out: String,
    wrong: String,
}

/// Runs a program to its end.
fn finish(space: &Space, command: &mut Command, limit: Duration) -> Result<Ended, String> {
    let start = Instant::now();
    let mut process = space.within(|| Process::start(command));
    match process.ends(limit) {
        Some(status) => Ok(Ended { status, took: start.elapsed(), out: process.stdout(), wrong: process.stderr() }),
        None => Err(format!("not done after {limit:?}: {}", last_lines(&process.stderr()))),
    }
}

/// Runs a program to a good end: how long it took, and what it said.
fn finished(space: &Space, command: &mut Command, limit: Duration) -> Result<(Duration, String, String), String> {
    let Ended { status, took, out, wrong } = finish(space, command, limit)?;
    if status.success() { Ok((took, out, wrong)) } else { Err(format!("{status}: {}", last_lines(&wrong))) }
}

fn enough(count: usize, pictures: usize, took: Duration, said: &str) -> Played {
    if count >= pictures { Ok(took) } else { Err(format!("{count} of {pictures} pictures: {}", last_lines(said))) }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}
