//! What a client costs that has gone quiet.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::farm::authority::TlsStream;
use crate::farm::ports::Port;
use crate::farm::reeve::Site;
use crate::farm::{Authority, Client, Origin, Reeve, alone, skip};

const CONNECTIONS: usize = 9_500;
/// Bytes of resident memory for one idle keep-alive connection.
const BOUND: u64 = 4096;

#[test]
fn an_idle_connection_takes_four_kibibytes() {
    let _turn = alone();
    if !descriptors(CONNECTIONS as u64 + 500) {
        return skip("the descriptor limit is too low for 9,500 connections");
    }
    let origin = Origin::start("web");
    let server = [("web", origin.address())];
    let config = crate::farm::reeve::pool("web", "rr", &server) + "\n[timeouts]\nclient-keep-alive = \"5m\"\n";
    let reeve = Reeve::start("idle", &config, "http *\n  all : any  use web\n");
    let address = reeve.address();
    let ask = |client: &mut Client| {
        let answer = client.request("GET", "/sized/1000", &[]).expect("an answer");
        assert_eq!(answer.body.len(), 1000);
    };
    // Everything that is paid once: pages of code, tables, upstream connections of both cores.
    let mut first: Vec<Client> = (0..64).map(|_| Client::connect(&address)).collect();
    (0..20).for_each(|_| first.iter_mut().for_each(ask));

    let before = reeve.process.resident();
    let mut idle: Vec<Client> = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let source = if n % 2 == 0 { "127.0.0.1" } else { "127.0.0.2" };
        let mut client = Client::connect_from(&address, Some(source), None);
        ask(&mut client);
        idle.push(client);
    }
    let after = reeve.process.resident();
    let each = after.saturating_sub(before) * 1024 / CONNECTIONS as u64;
    println!("{CONNECTIONS} idle connections: {before} KiB before, {after} KiB after, {each} bytes each");
    assert!(each <= BOUND, "{each} bytes for each idle connection, more than {BOUND}");
    // They are all still good.
    idle.iter_mut().step_by(19).for_each(ask);
}

const SECURE_CONNECTIONS: usize = 1_000;
/// The same over TLS: two directions of keys and what rustls keeps for the session, most of it its buffers.
const SECURE_BOUND: u64 = 16 << 10;

#[test]
fn an_idle_tls_connection_takes_sixteen_kibibytes() {
    let _turn = alone();
    if !descriptors(SECURE_CONNECTIONS as u64 + 500) {
        return skip("the descriptor limit is too low for 1,000 connections");
    }
    let origin = Origin::start("web");
    let port = Port::free();
    let config = crate::farm::reeve::pool("web", "rr", &[("web", origin.address())])
        + &format!(
            "\n[listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\n\
             tls = {{ certificates = \"certs\" }}\n\n[state]\npath = \"state\"\n\n[timeouts]\nclient-keep-alive = \"5m\"\n",
            port.address()
        );
    let site = Site::write("idle-tls", &config, "http *\n  all : any  use web\n");
    let authority = Authority::new("idle");
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let client = Arc::new(authority.client());
    let connect = || Client::secure(&port.address(), "t.example", &client).expect("a handshake");
    let ask = |client: &mut Client<TlsStream>| {
        let answer = client.request("GET", "/sized/1000", &[]).expect("an answer");
        assert_eq!(answer.body.len(), 1000);
    };
    let mut first: Vec<_> = (0..64).map(|_| connect()).collect();
    (0..20).for_each(|_| first.iter_mut().for_each(ask));

    let before = reeve.process.resident();
    let mut idle = Vec::with_capacity(SECURE_CONNECTIONS);
    for _ in 0..SECURE_CONNECTIONS {
        let mut client = connect();
        ask(&mut client);
        idle.push(client);
    }
    let after = reeve.process.resident();
    let each = after.saturating_sub(before) * 1024 / SECURE_CONNECTIONS as u64;
    println!(
        "{SECURE_CONNECTIONS} idle connections: over TLS {before} KiB before, {after} KiB after, {each} bytes each"
    );
    assert!(each <= SECURE_BOUND, "{each} bytes for each idle TLS connection, more than {SECURE_BOUND}");
    idle.iter_mut().step_by(19).for_each(ask);
}

/// Whether this process, and Reeve as its child, may open so many; raises the soft limit if need be.
fn descriptors(count: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return true;
    }
    let allowed = limit.maximum.is_none_or(|maximum| maximum >= count);
    allowed && setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: limit.maximum }).is_ok()
}
