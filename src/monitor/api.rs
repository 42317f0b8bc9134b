//! What is answered on the control socket and on the metrics addresses.
//!
//! The control socket has `/api/v1/*` and `/metrics`; what it is ordered by POST it hands to whoever can do it
//! (`state::orders`). The metrics addresses have `/metrics` alone: they are not protected.

use std::net::{IpAddr, Ipv4Addr};
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
use super::layer4;
use super::process::Process;
use super::report::{Connections, Problem, Servers, Status, Wanted};
use super::view::View;
use crate::state::Farm;
use crate::state::commands::Workers;
use crate::state::director;
use crate::state::orders::{EntriesFault, Order, Orders, Question, Texts};
use crate::state::tallies::Tallies;
use crate::wire::http1::is_token;

/// Connections that `/api/v1/connections` tells when it is not asked for a number.
pub const CONNECTIONS_SHOWN: usize = 100;

/// The most that it tells: each takes about 500 bytes of the answer.
pub const CONNECTIONS_CEILING: usize = 20_000;

/// The most flows of layer 4 that are told: each takes about 250 bytes.
pub const FLOWS_CEILING: usize = 200_000;

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
    pub director: director::Commands,
}

impl Source {
    pub fn new(
        farm: Arc<Farm>,
        tallies: Arc<Tallies>,
        workers: Arc<Workers>,
        orders: Orders,
        director: director::Commands,
    ) -> Source {
        Source { view: Box::new(move || View::of(&farm, &tallies)), workers, orders, director }
    }
}

/// Bytes of a body: a hundred thousand entries of a list are some MiB.
pub const BODY: usize = 16 << 20;

/// Whether a request has a body that is looked at.
pub fn has_body(door: Door, request: &http::request::Parts) -> bool {
    let orders = request.method == Method::POST || request.method == Method::DELETE;
    orders && matches!(Page::find(door, request.uri.path()), Some(Page::List(_) | Page::DirectorChanges))
}

/// What is answered to a body that is longer.
pub fn too_large() -> Response<Full<Bytes>> {
    problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {} MiB", BODY >> 20))
}

/// Answers one request. Its body is empty but for [`has_body`].
pub async fn answer(source: &Source, door: Door, request: &http::Request<Bytes>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let Some(page) = Page::find(door, path) else {
        return problem(StatusCode::NOT_FOUND, not_here(door, path));
    };
    let allowed = page.methods();
    if !allowed.contains(request.method()) {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>();
        let what = match page {
            Page::List(_) => "can be read by GET, added to by POST and removed from by DELETE",
            _ if page.is_order() => "is an order: use POST",
            _ => "can only be read: use GET",
        };
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, format!("{path} {what}, not {}", request.method()));
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
            response.headers_mut().insert(ALLOW, allowed);
        }
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
            let (answers, table) = tokio::join!(source.workers.counters(), layer4::table_beside(&source.director));
            match only(query, "long") {
                Ok(long) => {
                    let wanted = Wanted { long: long.is_some_and(|long| long == "yes"), ..Wanted::default() };
                    json(StatusCode::OK, &Servers::of(&(source.view)(), &answers, table.as_ref().ok(), wanted))
                }
                Err(text) => problem(StatusCode::BAD_REQUEST, text),
            }
        }
        Page::ServersOf => servers_of(source, path).await,
        Page::Lists => lists(source, None).await,
        Page::List(name) if reads(request.method()) => lists(source, Some(name)).await,
        Page::List(name) => match entries(request.body()) {
            Ok(all) if *request.method() == Method::POST => edit(source, name, all, Vec::new()).await,
            Ok(all) => edit(source, name, Vec::new(), all).await,
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::Explain => match question(query) {
            Ok(question) => explain(source, question).await,
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::Director => json(StatusCode::OK, &layer4::table(&source.director).await),
        Page::DirectorFlows => match limit(query, FLOWS_CEILING) {
            Ok(limit) => json(StatusCode::OK, &layer4::flows(&source.director, limit).await),
            Err(text) => problem(StatusCode::BAD_REQUEST, text),
        },
        Page::DirectorChanges => match serde_json::from_slice(request.body()) {
            Ok(changes) => json(StatusCode::OK, &layer4::change(&source.director, changes).await),
            Err(error) => problem(StatusCode::BAD_REQUEST, format!("the body is no list of changes: {error}")),
        },
        Page::Connections => match limit(query, CONNECTIONS_CEILING) {
            Ok(limit) => {
                let (shown, counters, flows) = tokio::join!(
                    source.workers.connections(limit),
                    source.workers.counters(),
                    layer4::flows_beside(&source.director, limit)
                );
                json(StatusCode::OK, &Connections::of(shown, &counters, flows.ok()))
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
    Explain,
    Lists,
    List(String),
    Reload,
    Drain,
    Ready,
    Upgrade,
    Director,
    DirectorFlows,
    DirectorChanges,
}

impl Page {
    /// Whether it changes something.
    fn is_order(&self) -> bool {
        matches!(self, Page::Reload | Page::Drain | Page::Ready | Page::Upgrade | Page::DirectorChanges)
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Page::List(_) => &[Method::GET, Method::HEAD, Method::POST, Method::DELETE],
            _ if self.is_order() => &[Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    fn find(door: Door, path: &str) -> Option<Page> {
        if let (Door::Control, Some(name)) = (door, path.strip_prefix("/api/v1/lists/")) {
            return Some(Page::List(name.to_owned()));
        }
        match (door, path) {
            // The metrics port has this one page: its bare address finds it, too.
            (_, "/metrics") | (Door::Metrics, "/") => Some(Page::Metrics),
            (Door::Control, "/api/v1/status") => Some(Page::Status),
            (Door::Control, "/api/v1/servers") => Some(Page::Servers),
            (Door::Control, path) if path.starts_with(SERVERS_OF) => Some(Page::ServersOf),
            (Door::Control, "/api/v1/connections") => Some(Page::Connections),
            (Door::Control, "/api/v1/lists") => Some(Page::Lists),
            (Door::Control, "/api/v1/explain") => Some(Page::Explain),
            (Door::Control, "/api/v1/reload") => Some(Page::Reload),
            (Door::Control, "/api/v1/drain") => Some(Page::Drain),
            (Door::Control, "/api/v1/ready") => Some(Page::Ready),
            (Door::Control, "/api/v1/upgrade") => Some(Page::Upgrade),
            (Door::Control, "/api/v1/director") => Some(Page::Director),
            (Door::Control, "/api/v1/director/flows") => Some(Page::DirectorFlows),
            (Door::Control, "/api/v1/director/changes") => Some(Page::DirectorChanges),
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
    let (answers, table) = tokio::join!(source.workers.counters(), layer4::table_beside(&source.director));
    let wanted = Wanted { pool: Some(&pool), server: server.as_deref(), long: true };
    let servers = Servers::of(&(source.view)(), &answers, table.as_ref().ok(), wanted);
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
            "there is no {path} here; there are /api/v1/status, /api/v1/servers, /api/v1/connections, /api/v1/explain, /api/v1/lists, \
             /api/v1/lists/NAME, /api/v1/director, /api/v1/director/flows and /metrics, and by POST /api/v1/reload, /api/v1/drain, /api/v1/ready, \
             /api/v1/upgrade and /api/v1/director/changes"
        ),
        Door::Metrics => format!("there is no {path} here; there is only /metrics"),
    }
}

async fn metrics(source: &Source) -> Response<Full<Bytes>> {
    let (answers, table) = tokio::join!(source.workers.counters(), layer4::table_beside(&source.director));
    match exposition::page(&(source.view)(), &answers, &Process::now(), &table) {
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

fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

async fn lists(source: &Source, name: Option<String>) -> Response<Full<Bytes>> {
    let one = name.is_some();
    match order(source, |reply| Order::Lists { name, reply }).await {
        // Of one name there may be several, in rule sets of their own.
        Some(Ok(lists)) if one && lists.len() == 1 => json(StatusCode::OK, &lists[0]),
        Some(Ok(lists)) if one => {
            let files: Vec<&str> = lists.iter().map(|list| &*list.file).collect();
            problem(
                StatusCode::CONFLICT,
                format!("several rule sets declare it, with other files: {}", files.join(", ")),
            )
        }
        Some(Ok(lists)) => json(StatusCode::OK, &lists),
        Some(Err(text)) => problem(StatusCode::NOT_FOUND, text),
        None => ending(),
    }
}

/// 409 when the file could not be edited, or what it would say has a fault.
async fn edit(source: &Source, name: String, add: Vec<String>, remove: Vec<String>) -> Response<Full<Bytes>> {
    match order(source, |reply| Order::Entries { name, add, remove, reply }).await {
        Some(Ok(edited)) => json(StatusCode::OK, &edited),
        Some(Err(EntriesFault::Unknown(text))) => problem(StatusCode::NOT_FOUND, text),
        Some(Err(EntriesFault::Refused(text))) => problem(StatusCode::CONFLICT, text),
        None => ending(),
    }
}

/// The lines of a body that are not empty.
fn entries(body: &Bytes) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    let entries: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if entries.is_empty() { Err("the body has no entries: write one a line".to_owned()) } else { Ok(entries) }
}

async fn explain(source: &Source, question: Question) -> Response<Full<Bytes>> {
    match order(source, |reply| Order::Explain { question, reply }).await {
        Some(Ok(explained)) => json(StatusCode::OK, &explained),
        Some(Err(text)) => problem(StatusCode::BAD_REQUEST, text),
        None => ending(),
    }
}

/// `method=GET&url=http://HOST/PATH`, and `header=NAME: VALUE`, `from`, `listener`, `roll`, `body` and `cert` where they are wanted. It is not
/// longer than a head may be.
fn question(query: Option<&str>) -> Result<Question, String> {
    let mut question = Question {
        method: String::new(),
        url: Vec::new(),
        headers: Vec::new(),
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: None,
        roll: 0,
        body: None,
        cert: None,
    };
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = unescaped(value)?;
        match name {
            "method" if is_token(value.as_bytes()) => question.method = value,
            "url" => question.url.push(value),
            "header" => match value.split_once(':') {
                // RFC 9110 §5.5: no CR, LF or NUL can be in a value.
                Some((name, text)) if is_token(name.as_bytes()) && !text.contains(['\r', '\n', '\0']) => {
                    question.headers.push((name.to_owned(), text.trim().to_owned()));
                }
                _ => return Err(format!("header={value} must be NAME: VALUE")),
            },
            "from" => question.from = value.parse().map_err(|_| format!("from={value} must be an address"))?,
            "listener" => question.listener = Some(value),
            "body" => question.body = Some(value),
            "cert" => question.cert = Some(value),
            "roll" => {
                let hundredths = value.parse::<f64>().ok().map(|roll| (roll * 100.0).round());
                let roll = hundredths.filter(|roll| (0.0..10_000.0).contains(roll));
                question.roll = roll.ok_or_else(|| format!("roll={value} must be from 0 to 99.99"))? as u32;
            }
            _ => {
                return Err(format!(
                    "{part} is not known here; there are method=, url=, header=, from=, listener=, roll=, body= and cert="
                ));
            }
        }
    }
    if question.method.is_empty() {
        return Err("method=GET, or method=tcp, is missing".to_owned());
    }
    Ok(question)
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

/// `limit=N` of a query, up to `most`.
fn limit(query: Option<&str>, most: usize) -> Result<usize, String> {
    let mut limit = CONNECTIONS_SHOWN;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let Some(value) = part.strip_prefix("limit=") else {
            return Err(format!("{part} is not known here; there is only limit=NUMBER"));
        };
        limit = match value.parse() {
            Ok(limit) if (1..=most).contains(&limit) => limit,
            _ => return Err(format!("limit={value} must be a number from 1 to {most}")),
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
