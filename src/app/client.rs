//! Asks the running process: finds its control socket, sends one request, waits five seconds at most, or
//! longer for an order that takes its time.
//!
//! For the commands that print what the API answers (`status`, `servers`), and for those that order something (`reload`). Only the
//! socket's name is taken from the configuration, so that they work while its texts are being edited.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config;
use crate::monitor::report::Problem;
use crate::monitor::socket_path;

/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for an order: to compile a hundred thousand rules takes seconds.
const ORDER: Duration = Duration::from_secs(110);

/// The longest answer that is read.
const ANSWER: u64 = 64 << 20;

/// The configuration that `run` takes when it is not told another.
const DEFAULT_CONFIG: &str = "config/reeve.toml";

/// What every client command takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientArgs {
    /// `--socket PATH`.
    pub socket: Option<PathBuf>,
    /// `-c FILE`: the configuration that names the socket.
    pub config: Option<PathBuf>,
    /// `--format json`: the API's answer as it is.
    pub json: bool,
}

/// Why there is no answer to print.
#[derive(Debug)]
pub enum ClientFault {
    /// The file given with `-c` cannot be read.
    Config { file: PathBuf, error: io::Error },
    /// Nobody answers at the socket, or not in time.
    Unreached { socket: PathBuf, error: io::Error, patience: Duration },
    /// Something answers that is not what was expected.
    Answer { socket: PathBuf, what: String },
    /// What was asked makes no sense to the process.
    Refused(String),
}

impl ClientFault {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ClientFault::Config { .. } | ClientFault::Refused(_) => ExitCode::from(2),
            ClientFault::Unreached { .. } | ClientFault::Answer { .. } => ExitCode::from(3),
        }
    }
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientFault::Config { file, error } => write!(f, "cannot read {}: {error}", file.display()),
            ClientFault::Unreached { socket, error, patience } => {
                let socket = socket.display();
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "not running: there is no control socket {socket}")?,
                    io::ErrorKind::ConnectionRefused => {
                        write!(f, "not running: nobody answers at {socket}, which a former process left behind")?;
                    }
                    io::ErrorKind::PermissionDenied => {
                        return write!(
                            f,
                            "the control socket {socket} belongs to another user\n\
                             help: run this as that user or as root"
                        );
                    }
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                        return write!(
                            f,
                            "no answer at {socket} within {} s\n\
                             help: the process is there, but it is stopped or overloaded",
                            patience.as_secs()
                        );
                    }
                    _ => write!(f, "cannot reach {socket}: {error}")?,
                }
                f.write_str(
                    "\nhelp: start it with `reeve run`, or say which process is meant: \
                     --socket PATH, or -c FILE for its configuration",
                )
            }
            ClientFault::Refused(why) => f.write_str(why),
            ClientFault::Answer { socket, what } => write!(f, "{}: {what}", socket.display()),
        }
    }
}

/// One client command: asks for `target` and prints the answer, as JSON or through `show`.
pub fn command<T: DeserializeOwned>(args: &ClientArgs, target: &str, show: impl FnOnce(&T) -> String) -> ExitCode {
    match answer(args, target, show) {
        Ok(text) => print(&text),
        Err(fault) => complain(&fault),
    }
}

/// Says why there is no answer.
pub fn complain(fault: &ClientFault) -> ExitCode {
    eprintln!("reeve: {fault}");
    fault.exit_code()
}

/// What was answered to an order, done or refused.
pub struct Told {
    socket: PathBuf,
    body: Vec<u8>,
}

impl Told {
    /// The JSON as it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ClientFault> {
        serde_json::from_slice(&self.body).map_err(|error| not_understood(&self.socket, &error))
    }
}

/// Orders something of the running process and waits until it is done or refused.
///
/// # Errors
/// When it is not reached, or says that the order makes no sense.
pub fn order(args: &ClientArgs, target: &str) -> Result<Told, ClientFault> {
    send(args, "POST", target, "")
}

/// As [`order`], with a method and a text of its own.
///
/// # Errors
/// As there.
pub fn send(args: &ClientArgs, method: &str, target: &str, text: &str) -> Result<Told, ClientFault> {
    let socket = find_socket(args)?;
    let body = exchanged(&socket, method, target, text, ORDER)?;
    Ok(Told { socket, body })
}

/// Asks for what `target` has now.
///
/// # Errors
/// When the process is not reached.
pub fn ask<T: DeserializeOwned>(args: &ClientArgs, target: &str) -> Result<T, ClientFault> {
    let socket = find_socket(args)?;
    let body = get(&socket, target)?;
    serde_json::from_slice(&body).map_err(|error| not_understood(&socket, &error))
}

fn not_understood(socket: &Path, error: &dyn fmt::Display) -> ClientFault {
    ClientFault::Answer {
        socket: socket.to_owned(),
        what: format!("the answer is not understood ({error}); is the running process of another version?"),
    }
}

fn answer<T: DeserializeOwned>(
    args: &ClientArgs,
    target: &str,
    show: impl FnOnce(&T) -> String,
) -> Result<String, ClientFault> {
    let socket = find_socket(args)?;
    let body = get(&socket, target)?;
    if args.json {
        return String::from_utf8(body).map_err(|error| not_understood(&socket, &error));
    }
    serde_json::from_slice(&body).map(|answer| show(&answer)).map_err(|error| not_understood(&socket, &error))
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no fault.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("reeve: cannot write the answer: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// `--socket`, else what the environment or the configuration says, else the user's default.
pub fn find_socket(args: &ClientArgs) -> Result<PathBuf, ClientFault> {
    if let Some(socket) = &args.socket {
        return Ok(socket.clone());
    }
    let file = args.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    let base = config::base_of(file);
    if let Some(socket) = std::env::var_os("REEVE_PROCESS__SOCKET") {
        return Ok(base.join(socket));
    }
    let configured = match std::fs::read_to_string(file) {
        Ok(text) => configured_socket(&text, file),
        Err(_) if args.config.is_none() => None,
        Err(error) => return Err(ClientFault::Config { file: file.to_owned(), error }),
    };
    Ok(socket_path(configured.map(|socket| base.join(socket)).as_deref()))
}

fn configured_socket(text: &str, file: &Path) -> Option<PathBuf> {
    match text.parse::<toml::Table>() {
        Ok(table) => table.get("process")?.get("socket")?.as_str().map(PathBuf::from),
        Err(error) => {
            eprintln!("reeve: {}: {}; trying the default socket", file.display(), error.message());
            None
        }
    }
}

/// The body of a 200 answer.
fn get(socket: &Path, target: &str) -> Result<Vec<u8>, ClientFault> {
    exchanged(socket, "GET", target, "", PATIENCE)
}

/// The body of a 200 answer, or of one that says why an order was refused (409).
fn exchanged(
    socket: &Path,
    method: &str,
    target: &str,
    text: &str,
    patience: Duration,
) -> Result<Vec<u8>, ClientFault> {
    let unreached = |error| ClientFault::Unreached { socket: socket.to_owned(), error, patience };
    let answer = exchange(socket, method, target, text, Instant::now() + patience).map_err(unreached)?;
    let fault = |what| ClientFault::Answer { socket: socket.to_owned(), what };
    let (code, body) = take_apart(&answer).map_err(fault)?;
    if code == 400 || code == 404 {
        let said = serde_json::from_slice(body).map(|problem: Problem| problem.error);
        return Err(said.map_or_else(|_| fault(format!("it answered {code}")), ClientFault::Refused));
    }
    if code != 200 && code != 409 {
        let said = serde_json::from_slice(body).map(|problem: Problem| problem.error);
        return Err(fault(said.unwrap_or_else(|_| format!("it answered {code}"))));
    }
    Ok(body.to_vec())
}

/// Sends a request and reads until the other side closes.
fn exchange(path: &Path, method: &str, target: &str, text: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also bounds connecting: a frozen process lets its queue fill up.
    socket.set_write_timeout(Some(left(deadline)?))?;
    socket.connect(&SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(OwnedFd::from(socket));
    let length = text.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: reeve\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) if (answer.len() + count) as u64 > ANSWER => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Status code and body of an answer that is complete.
fn take_apart(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let end = match head.parse(answer) {
        Ok(httparse::Status::Complete(end)) => end,
        _ if answer.is_empty() => return Err("it closed the connection: is this process of another user?".to_owned()),
        _ => return Err("what answers there is not Reeve".to_owned()),
    };
    let body = &answer[end..];
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    match (head.code, length) {
        (Some(code), Some(length)) if length == body.len() => Ok((code, body)),
        (Some(_), Some(length)) => Err(format!("the answer broke off after {} of {length} bytes", body.len())),
        _ => Err("what answers there is not Reeve".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::monitor::report::{Connections, Servers, Status};
    use crate::monitor::tests::{Folder, Served};

    fn at(socket: &Path) -> ClientArgs {
        ClientArgs { socket: Some(socket.to_owned()), ..ClientArgs::default() }
    }

    #[test]
    fn the_running_process_answers() {
        let served = Served::start(0);
        let args = at(&served.socket);
        let shown = answer(&args, "/api/v1/status", |status: &Status| format!("{}", status.pid)).unwrap();
        assert_eq!(shown, "42");
        let json = ClientArgs { json: true, ..args.clone() };
        let text = answer(&json, "/api/v1/servers", |_: &Servers| unreachable!()).unwrap();
        assert_eq!(serde_json::from_str::<Servers>(&text).unwrap().servers.len(), 3);
        let shown =
            answer(&args, "/api/v1/connections?limit=2", |all: &Connections| format!("{}", all.connections.len()));
        assert_eq!(shown.unwrap(), "2");
        let fault = answer(&args, "/api/v1/connections?limit=0", |_: &Connections| String::new()).unwrap_err();
        assert!(fault.to_string().contains("limit=0 must be a number"), "{fault}");
    }

    #[test]
    fn who_is_not_there_is_named_with_what_to_do() {
        let folder = Folder::new("client");
        let socket = folder.path().join("reeve.sock");
        let fault = get(&socket, "/api/v1/status").unwrap_err();
        assert!(fault.to_string().contains("not running: there is no control socket"), "{fault}");
        assert!(fault.to_string().contains("reeve.sock\nhelp: start it with `reeve run`"), "{fault}");
        assert_eq!(fault.exit_code(), ExitCode::from(3));

        drop(UnixListener::bind(&socket).unwrap());
        let fault = get(&socket, "/api/v1/status").unwrap_err();
        assert!(fault.to_string().contains("a former process left behind"), "{fault}");

        let long = get(&folder.path().join("x".repeat(200)), "/").unwrap_err();
        assert!(long.to_string().contains("cannot reach"), "{long}");
    }

    #[test]
    fn a_frozen_process_is_not_waited_for() {
        let folder = Folder::new("client-frozen");
        let socket = folder.path().join("reeve.sock");
        let _never_accepts = UnixListener::bind(&socket).unwrap();
        let error = exchange(&socket, "GET", "/", "", Instant::now() + Duration::from_millis(50)).unwrap_err();
        let fault = ClientFault::Unreached { socket, error, patience: PATIENCE };
        assert!(fault.to_string().contains("within 5 s\nhelp: the process is there"), "{fault}");
        assert_eq!(fault.exit_code(), ExitCode::from(3));
    }

    #[test]
    fn half_and_foreign_answers_are_told() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(take_apart(whole), Ok((200, &b"{}"[..])));
        for (answer, part) in [
            (&whole[..whole.len() - 1], "broke off after 1 of 2 bytes"),
            (b"", "closed the connection"),
            (b"220 mail ESMTP\r\n", "not Reeve"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "not Reeve"),
        ] {
            let fault = take_apart(answer).unwrap_err();
            assert!(fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn the_socket_comes_from_the_command_line_or_the_file() {
        let folder = Folder::new("client-config");
        let file = folder.path().join("config/reeve.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let args = ClientArgs { config: Some(file.clone()), ..ClientArgs::default() };
        let fault = find_socket(&args).unwrap_err();
        assert!(fault.to_string().contains("cannot read") && fault.exit_code() == ExitCode::from(2), "{fault}");
        let found = |text: &str| {
            std::fs::write(&file, text).unwrap();
            find_socket(&args).unwrap()
        };
        // Also from a file that has faults elsewhere.
        assert_eq!(found("[process]\nsocket = \"run/a.sock\"\nworkrs = 1\n"), folder.path().join("run/a.sock"));
        assert_eq!(found("[process]\nsocket = \"/b.sock\"\n"), Path::new("/b.sock"));
        let default = socket_path(None);
        for text in ["", "process = 1\n", "[process]\nsocket = 1\n", "[process\n"] {
            assert_eq!(found(text), default, "{text}");
        }
        let args = ClientArgs { socket: Some("c.sock".into()), ..args };
        assert_eq!(find_socket(&args).unwrap(), Path::new("c.sock"));
    }
}
