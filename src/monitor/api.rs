//! What is answered on the control socket and on the metrics addresses.
//!
//! Both only read. The control socket has `/api/v1/*` and `/metrics`, the metrics addresses have
//! `/metrics` alone: they are not protected.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::exposition;
use super::process::Process;
use super::report::{Connections, Problem, Servers, Status};
use super::view::View;
use crate::state::Farm;
use crate::state::commands::Workers;
use crate::state::tallies::Tallies;

/// Connections that `/api/v1/connections` tells when it is not asked for a number.
pub const CONNECTIONS_SHOWN: usize = 100;

/// The most that it tells: each takes about 500 bytes of the answer.
pub const CONNECTIONS_CEILING: usize = 20_000;

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
}

impl Source {
    pub fn new(farm: Arc<Farm>, tallies: Arc<Tallies>, workers: Arc<Workers>) -> Source {
        Source { view: Box::new(move || View::of(&farm, &tallies)), workers }
    }
}

/// Answers one request; its body is not looked at.
pub async fn answer<B>(source: &Source, door: Door, request: &http::Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let Some(page) = Page::find(door, path) else {
        return problem(StatusCode::NOT_FOUND, not_here(door, path));
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let text = format!("{path} can only be read: use GET, not {}", request.method());
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, text);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match page {
        Page::Metrics => metrics(source).await,
        Page::Status => {
            let answers = source.workers.counters().await;
            json(StatusCode::OK, &Status::of(&(source.view)(), &answers, source.workers.count()))
        }
        Page::Servers => {
            let answers = source.workers.counters().await;
            json(StatusCode::OK, &Servers::of(&(source.view)(), &answers))
        }
        Page::Connections => match limit(request.uri().query()) {
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
    Connections,
}

impl Page {
    fn find(door: Door, path: &str) -> Option<Page> {
        match (door, path) {
            // The metrics port has this one page: its bare address finds it, too.
            (_, "/metrics") | (Door::Metrics, "/") => Some(Page::Metrics),
            (Door::Control, "/api/v1/status") => Some(Page::Status),
            (Door::Control, "/api/v1/servers") => Some(Page::Servers),
            (Door::Control, "/api/v1/connections") => Some(Page::Connections),
            _ => None,
        }
    }
}

fn not_here(door: Door, path: &str) -> String {
    match door {
        Door::Control => format!(
            "there is no {path} here; there are /api/v1/status, /api/v1/servers, /api/v1/connections and /metrics"
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
