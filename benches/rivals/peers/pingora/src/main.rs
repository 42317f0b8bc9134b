//! Pingora as a relay: usage `pingora-peer PORT SERVER...`, round robin over the servers, one worker thread.

use std::sync::atomic::{AtomicUsize, Ordering};

use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Relay {
    servers: Vec<String>,
    turn: AtomicUsize,
}

#[async_trait::async_trait]
impl ProxyHttp for Relay {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len();
        Ok(Box::new(HttpPeer::new(self.servers[turn].as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _context: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        Ok(())
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let port = words.next().expect("usage: pingora-peer PORT SERVER...");
    let relay = Relay { servers: words.collect(), turn: AtomicUsize::new(0) };
    let conf =
        ServerConf { threads: 1, work_stealing: false, upstream_keepalive_pool_size: 2048, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, relay);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
