//! What is answered on the control socket and on the metrics addresses.
//!
//! The control socket has `/api/v1/*` and `/metrics`; what it is ordered by POST it hands to whoever can do it
//! (`state::orders`). The metrics addresses have `/metrics` alone: they are not protected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::sync::oneshot;

use super::exposition;
use super::process::Process;
use super::report::{Connections, Problem, Servers, Status, Wanted};
use super::view::View;
use crate::state::Farm;
use crate::state::commands::Workers;
use crate::state::orders::{Order, Orders, Texts};
use crate::state::tallies::Tallies;

/// Connections that `/api/v1/connections` tells when it is not asked for a number.
pub const CONNECTIONS_SHOWN: usize = 100;

/// The most that it tells: each takes about 500 bytes of the answer.
pub const CONNECTIONS_CEILING: usize = 20_000;

/// How long a new process may take to read and compile its texts: a hundred thousand rules take seconds.
pub const UPGRADE_WITHIN: Duration = Duration::from_secs(60);

const UPGRADE_SHORTEST: Duration = Duration::from_millis(100);

/// Which door a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The control socket.
    Control,
    /// A bare metrics address.
    Metrics,
}

/// Where the answers come from.
pub struct Source {
    pub view: Box<dyn Fn() -> View + Send + Sync>,
    pub workers: Arc<Workers>,
    pub orders: Orders,
}

impl Source {
    pub fn new(farm: Arc<Farm>, tallies: Arc<Tallies>, workers: Arc<Workers>, orders: Orders) -> Source {
        Source { view: Box::new(move || View::of(&farm, &tallies)), workers, orders }
    }
}

/// Answers one request; its body is not looked at.
pub async fn answer<B>(source: &Source, door: Door, request: &http::Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let Some(page) = Page::find(door, path) else {
        return problem(StatusCode::NOT_FOUND, not_here(door, path));
    };
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    if page.is_order() != (request.method() == Method::POST) || !page.is_order() && !reads {
        let (what, allowed) = match page.is_order() {
            true => ("is an order: use POST", "POST"),
            false => ("can only be read: use GET", "GET, HEAD"),
        };
        let text = format!("{path} {what}, not {}", request.method());
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, text);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    let query = request.uri().query();
    match page {
        Page::Reload => match only(query, "what") {
            Ok(None) => reload(source, Texts::All).await,
            Ok(Some(what)) if what == "lists" => reload(source, Texts::Lists).await,
            Ok(Some(what)) => problem(StatusCode::BAD_REQUEST, format!("what={what} must be lists, or left out")),
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::Drain | Page::Ready => match only(query, "name") {
            Ok(Some(name)) => service(source, matches!(page, Page::Drain), name).await,
            Ok(None) => problem(
                StatusCode::BAD_REQUEST,
                "name=POOL/SERVER, name=POOL or name=listen.NAME is missing".to_owned(),
            ),
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::Upgrade => match upgrade_order(query) {
            Ok((binary, within)) => upgrade(source, binary, within).await,
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::Metrics => metrics(source).await,
        Page::Status => {
            let answers = source.workers.counters().await;
            json(StatusCode::OK, &Status::of(&(source.view)(), &answers, source.workers.count()))
        }
        Page::Servers => {
            let answers = source.workers.counters().await;
            match only(query, "long") {
                Ok(long) => {
                    let wanted = Wanted { long: long.is_some_and(|long| long == "yes"), ..Wanted::default() };
                    json(StatusCode::OK, &Servers::of(&(source.view)(), &answers, wanted))
                }
                Err(text) => problem(StatusCode::BAD_REQUEST, text),
            }
        }
        Page::ServersOf => servers_of(source, path).await,
        Page::Connections => match limit(query) {
            Ok(limit) => {
                let (shown, counters) = tokio::join!(source.workers.connections(limit), source.workers.counters());
                json(StatusCode::OK, &Connections::of(shown, &counters))
            }
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
    }
}

enum Page {
    Metrics,
    Status,
    Servers,
    /// Of one pool, or one of them.
    ServersOf,
    Connections,
    Reload,
    Drain,
    Ready,
    Upgrade,
}

impl Page {
    /// Whether it changes something.
    fn is_order(&self) -> bool {
        matches!(self, Page::Reload | Page::Drain | Page::Ready | Page::Upgrade)
    }

    fn find(door: Door, path: &str) -> Option<Page> {
        match (door, path) {
            // The metrics port has this one page: its bare address finds it, too.
            (_, "/metrics") | (Door::Metrics, "/") => Some(Page::Metrics),
            (Door::Control, "/api/v1/status") => Some(Page::Status),
            (Door::Control, "/api/v1/servers") => Some(Page::Servers),
            (Door::Control, path) if path.starts_with(SERVERS_OF) => Some(Page::ServersOf),
            (Door::Control, "/api/v1/connections") => Some(Page::Connections),
            (Door::Control, "/api/v1/reload") => Some(Page::Reload),
            (Door::Control, "/api/v1/drain") => Some(Page::Drain),
            (Door::Control, "/api/v1/ready") => Some(Page::Ready),
            (Door::Control, "/api/v1/upgrade") => Some(Page::Upgrade),
            _ => None,
        }
    }
}

const SERVERS_OF: &str = "/api/v1/servers/";

/// `/api/v1/servers/POOL` and `/api/v1/servers/POOL/SERVER`: with what became of them lately.
async fn servers_of(source: &Source, path: &str) -> Response<Full<Bytes>> {
    let names = path.strip_prefix(SERVERS_OF).unwrap_or_default();
    let (pool, server) = names.split_once('/').map_or((names, None), |(pool, server)| (pool, Some(server)));
    let (pool, server) = match (unescaped(pool), server.map(unescaped).transpose()) {
        (Ok(pool), Ok(server)) => (pool, server),
        (Err(text), _) | (_, Err(text)) => return problem(StatusCode::BAD_REQUEST, text),
    };
    let answers = source.workers.counters().await;
    let wanted = Wanted { pool: Some(&pool), server: server.as_deref(), long: true };
    let servers = Servers::of(&(source.view)(), &answers, wanted);
    if servers.servers.is_empty() {
        return problem(
            StatusCode::NOT_FOUND,
            match server {
                Some(server) => format!("there is no server {pool}/{server}"),
                None => format!("there is no pool {pool}"),
            },
        );
    }
    json(StatusCode::OK, &servers)
}

fn not_here(door: Door, path: &str) -> String {
    match door {
        Door::Control => format!(
            "there is no {path} here; there are /api/v1/status, /api/v1/servers, /api/v1/connections and /metrics, and by POST \
             /api/v1/reload, /api/v1/drain, /api/v1/ready and /api/v1/upgrade"
        ),
        Door::Metrics => format!("there is no {path} here; there is only /metrics"),
    }
}

async fn metrics(source: &Source) -> Response<Full<Bytes>> {
    let answers = source.workers.counters().await;
    match exposition::page(&(source.view)(), &answers, &Process::now()) {
        Ok(page) => with_type(StatusCode::OK, exposition::CONTENT_TYPE, page.into()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, format!("the page could not be written: {error}")),
    }
}

/// Waits for the reload, which may take seconds; 409 when it was refused.
async fn reload(source: &Source, what: Texts) -> Response<Full<Bytes>> {
    match order(source, |reply| Order::Reload { what, reply }).await {
        Some(reloaded) => json(if reloaded.done { StatusCode::OK } else { StatusCode::CONFLICT }, &reloaded),
        None => ending(),
    }
}

/// Waits until the new process serves or has failed; 409 when this one goes on.
async fn upgrade(source: &Source, binary: Option<PathBuf>, within: Duration) -> Response<Full<Bytes>> {
    match order(source, |reply| Order::Upgrade { binary, within, reply }).await {
        Some(upgraded) => json(if upgraded.done { StatusCode::OK } else { StatusCode::CONFLICT }, &upgraded),
        None => ending(),
    }
}

/// `binary=PATH&within=SECONDS`, both optional.
fn upgrade_order(query: Option<&str>) -> Result<(Option<PathBuf>, Duration), String> {
    let (mut binary, mut within) = (None, UPGRADE_WITHIN);
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("binary", path)) => {
                let path = PathBuf::from(unescaped(path)?);
                if !path.is_absolute() {
                    return Err(format!("binary={} must be an absolute path", path.display()));
                }
                binary = Some(path);
            }
            Some(("within", seconds)) => {
                let seconds = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                within = seconds
                    .filter(|within| (UPGRADE_SHORTEST..=UPGRADE_WITHIN).contains(within))
                    .ok_or_else(|| format!("{part} must be from 0.1 to {} seconds", UPGRADE_WITHIN.as_secs()))?;
            }
            _ => return Err(format!("{part} is not known here; there are binary=PATH and within=SECONDS")),
        }
    }
    Ok((binary, within))
}

async fn service(source: &Source, drain: bool, name: String) -> Response<Full<Bytes>> {
    match order(source, |reply| Order::Service { drain, name, reply }).await {
        Some(Ok(service)) => json(StatusCode::OK, &service),
        Some(Err(text)) => problem(StatusCode::NOT_FOUND, text),
        None => ending(),
    }
}

async fn order<T>(source: &Source, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    source.orders.send(order(reply)).await.ok()?;
    answer.await.ok()
}

fn ending() -> Response<Full<Bytes>> {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end: nothing is changed any more".to_owned())
}

/// The value of the one thing that a query may have.
fn only(query: Option<&str>, key: &str) -> Result<Option<String>, String> {
    let mut found = None;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((name, value)) if name == key && found.is_none() => found = Some(unescaped(value)?),
            _ => return Err(format!("{part} is not known here; there is only {key}=...")),
        }
    }
    Ok(found)
}

/// RFC 3986 §2.1.
fn unescaped(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = (*first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match escaped.and_then(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?)) {
            Some(byte) => {
                bytes.push(byte as u8);
                rest = &after[2..];
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("{text} is not UTF-8"))
}

/// `limit=N` of a query.
fn limit(query: Option<&str>) -> Result<usize, String> {
    let mut limit = CONNECTIONS_SHOWN;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let Some(value) = part.strip_prefix("limit=") else {
            return Err(format!("{part} is not known here; there is only limit=NUMBER"));
        };
        limit = match value.parse() {
            Ok(limit @ 1..=CONNECTIONS_CEILING) => limit,
            _ => return Err(format!("limit={value} must be a number from 1 to {CONNECTIONS_CEILING}")),
        };
    }
    Ok(limit)
}

fn problem(status: StatusCode, error: String) -> Response<Full<Bytes>> {
    json(status, &Problem { error })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            with_type(status, "application/json", text.into())
        }
        Err(error) => with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n").into()),
    }
}

fn with_type(status: StatusCode, media: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
