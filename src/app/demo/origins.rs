//! The servers behind the demonstration: small HTTP origins that say who they are, and cameras.
//!
//! All of them run on one thread with a runtime of its own, so that Reeve's workers are not shared
//! with what they measure. Each pool serves different content, so that the answer shows where a
//! request went.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::camera::{self, Camera};
use super::content;

/// What a server of a pool answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Pages,
    Pictures,
    Json,
}

/// One origin: `pool/name` and the port it got.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub pool: &'static str,
    pub name: &'static str,
    pub content: Content,
    pub address: SocketAddr,
}

const SERVERS: [(&str, &str, Content); 7] = [
    ("web", "web1", Content::Pages),
    ("web", "web2", Content::Pages),
    ("images", "img1", Content::Pictures),
    ("images", "img2", Content::Pictures),
    ("api", "api1", Content::Json),
    ("api", "api2", Content::Json),
    ("beta", "beta1", Content::Json),
];

/// Each is a pool of its own, and a path.
pub const CAMERAS: [&str; 2] = ["cam1", "cam2"];

/// The running origins; they stop when this is dropped.
pub struct Origins {
    pub servers: Vec<Origin>,
    pub cameras: Vec<Camera>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    /// Binds a free loopback port for each origin and serves on it.
    pub fn start() -> io::Result<Origins> {
        let mut servers = Vec::with_capacity(SERVERS.len());
        let mut listeners = Vec::with_capacity(SERVERS.len());
        for (pool, name, content) in SERVERS {
            let (listener, address) = bound()?;
            let origin = Origin { pool, name, content, address };
            servers.push(origin);
            listeners.push((origin, listener));
        }
        let mut cameras = Vec::with_capacity(CAMERAS.len());
        let mut stands = Vec::with_capacity(CAMERAS.len());
        for (number, name) in (1..).zip(CAMERAS) {
            let (listener, address) = bound()?;
            let camera = Camera { number, name, address };
            cameras.push(camera);
            stands.push((camera, listener));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new().name("demo-origins".to_owned()).spawn(move || {
            runtime.block_on(async move {
                for (origin, listener) in listeners {
                    tokio::spawn(serve(origin, listener));
                }
                for (camera, listener) in stands {
                    tokio::spawn(film(camera, listener));
                }
                // Ends when the other end is dropped; the runtime takes its tasks with it.
                let mut stopped = stopped;
                while stopped.changed().await.is_ok() {}
            });
        })?;
        Ok(Origins { servers, cameras, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It answers nobody any more; whether it panicked while it did is its own affair.
            let _ = thread.join();
        }
    }
}

fn bound() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn film(camera: Camera, listener: TcpListener) {
    if let Some(listener) = adopted(camera.name, listener) {
        camera::serve(camera, listener).await;
    }
}

fn adopted(origin: &str, listener: TcpListener) -> Option<tokio::net::TcpListener> {
    let adopted = tokio::net::TcpListener::from_std(listener);
    adopted.inspect_err(|error| tracing::error!(origin, %error, "an origin of the demonstration ends")).ok()
}

async fn serve(origin: Origin, listener: TcpListener) {
    let Some(listener) = adopted(origin.name, listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let service = service_fn(move |request| answer(origin, request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is everyday life for a server.
                tokio::spawn(async move { drop(connection.await) });
            }
            // Out of descriptors, mostly: others have to be closed first.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

type Body = Either<Full<Bytes>, Incoming>;

async fn answer(origin: Origin, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let mut response = if path == "/health" {
        whole("text/plain; charset=utf-8", "ok\n".to_owned())
    } else {
        match origin.content {
            Content::Pages => whole("text/html; charset=utf-8", content::page(&origin, &request)),
            Content::Pictures => whole("image/svg+xml", content::picture(&origin, path)),
            Content::Json if path == "/api/echo" && request.method() == Method::POST => echo(request),
            Content::Json => {
                let (head, body) = request.into_parts();
                match counted(body).await {
                    Ok(bytes) => whole("application/json", content::json(&origin, &head, bytes)),
                    Err(_) => status(StatusCode::BAD_REQUEST),
                }
            }
        }
    };
    response.headers_mut().insert("x-served-by", HeaderValue::from_static(origin.name));
    // A page that came out of a cache would show the wrong server.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn whole(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = whole("text/plain; charset=utf-8", format!("{status}\n"));
    *response.status_mut() = status;
    response
}

/// The body goes back as it comes in, piece by piece.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).cloned();
    let mut response = Response::new(Either::Right(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, kind.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream")));
    response
}

/// Reads a body to its end and keeps nothing of it but its length.
async fn counted(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn ask(origin: &Origin, request: &str) -> String {
        let mut stream = TcpStream::connect(origin.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(origin: &Origin, path: &str) -> String {
        ask(origin, &format!("GET {path} HTTP/1.1\r\nHost: demo.example\r\nConnection: close\r\n\r\n"))
    }

    #[test]
    fn every_origin_is_healthy_and_says_who_it_is() {
        let origins = Origins::start().unwrap();
        for origin in &origins.servers {
            assert!(get(origin, "/health").starts_with("HTTP/1.1 200 "), "{origin:?}");
            let answer = get(origin, "/api/hello.svg");
            assert!(answer.contains(&format!("x-served-by: {}\r\n", origin.name)), "{answer}");
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            assert!(body.contains(origin.name), "{body}");
        }
        let (first, second) = (get(&origins.servers[2], "/a.svg"), get(&origins.servers[3], "/a.svg"));
        assert_ne!(first.split_once("\r\n\r\n"), second.split_once("\r\n\r\n"), "two servers, two contents");
    }

    #[test]
    fn json_counts_and_echoes_bodies() {
        let origins = Origins::start().unwrap();
        let api = &origins.servers[4];
        let post = |path: &str| {
            ask(api, &format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"))
        };
        let body = post("/api/things").split_once("\r\n\r\n").unwrap().1.to_owned();
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&value["server"], &value["body_bytes"]), (&"api1".into(), &5.into()));
        assert!(post("/api/echo").contains("hello"));
    }

    #[test]
    fn stopping_frees_the_ports() {
        let origins = Origins::start().unwrap();
        let address = origins.servers[0].address;
        drop(origins);
        assert!(TcpStream::connect(address).is_err());
    }
}
