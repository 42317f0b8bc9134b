//! Pingora as a relay: usage `pingora-peer PORT [--tls CERTIFICATE KEY] SERVER...`, round robin over the servers, one
//! worker thread.

use std::sync::atomic::{AtomicUsize, Ordering};

use pingora::listeners::tls::TlsSettings;
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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (port, rest) = words.split_first().expect("usage: pingora-peer PORT [--tls CERTIFICATE KEY] SERVER...");
    let (files, servers) = match rest {
        [option, certificate, key, servers @ ..] if option == "--tls" => (Some((certificate, key)), servers),
        servers => (None, servers),
    };
    let relay = Relay { servers: servers.to_vec(), turn: AtomicUsize::new(0) };
    let conf =
        ServerConf { threads: 1, work_stealing: false, upstream_keepalive_pool_size: 2048, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, relay);
    let address = format!("127.0.0.1:{port}");
    match files {
        None => service.add_tcp(&address),
        Some((certificate, key)) => {
            let mut tls = TlsSettings::intermediate(certificate, key).expect("certificate and key");
            tls.enable_h2();
            service.add_tls_with_settings(&address, None, tls);
        }
    }
    server.add_service(service);
    server.run_forever();
}
