//! `[listen.NAME]`: where clients arrive.

use std::sync::Arc;

use ipnet::IpNet;

use super::super::node::{Entry, Node};
use super::walk::{Fields, Walk};
use super::{Named, Taken, table_place, tls};
use crate::model::listener::{AcceptProxy, Carrier, HeaderMode, Media, Protocol};
use crate::model::tls::ListenerTls;
use crate::model::{Fault, Place};

#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    pub name: Arc<str>,
    pub addresses: Vec<Taken>,
    pub protocol: Protocol,
    /// Rule files as they were named; `None`: the default.
    pub rules: Option<Vec<Named>>,
    pub pool: Option<Named>,
    pub trusted: Vec<IpNet>,
    pub forwarded: bool,
    pub accept_proxy: Option<AcceptProxy>,
    pub tls: Option<ListenerTls>,
    pub media: Media,
    /// Where it says that the director passes media on.
    pub offload: Option<Place>,
    pub built: bool,
    pub place: Place,
}

const PROTOCOLS: [&str; 4] = ["http", "rtsp", "tcp", "tls-passthrough"];

pub fn read(walk: &Walk<'_>, entry: &Entry) -> Option<Listen> {
    let name = &entry.key;
    let mut fields = Fields::of(walk, &entry.node, format!("[listen.{name}]"))?;
    let mut listen = Listen {
        name: name.as_str().into(),
        addresses: Vec::new(),
        protocol: Protocol::Http,
        rules: None,
        pool: None,
        trusted: Vec::new(),
        forwarded: false,
        accept_proxy: None,
        tls: None,
        media: Media::default(),
        offload: None,
        built: true,
        place: table_place(walk, entry),
    };
    if let Some(entry) = fields.require("address", "for example address = [\"127.0.0.1:8080\"]") {
        listen.addresses = addresses(walk, &entry.node, "address");
    }
    if let Some(entry) = fields.get("protocol") {
        listen.protocol = protocol(walk, &entry.node);
    }
    if let Some(entry) = fields.get("rules") {
        listen.rules = Some(names(walk, &entry.node, "a rule file"));
    }
    if let Some(entry) = fields.get("pool") {
        listen.pool = walk.text(&entry.node, "pool").map(|text| place_of(walk, &entry.node, text));
    }
    if let Some(entry) = fields.get("trusted") {
        listen.trusted = walk.list(&entry.node).into_iter().filter_map(|node| walk.net(node, "trusted")).collect();
    }
    if let Some(entry) = fields.get("forwarded") {
        listen.forwarded = walk.boolean(&entry.node, "forwarded").unwrap_or_default();
    }
    if let Some(entry) = fields.get("tls") {
        listen.tls = tls::listener(walk, &entry.node, &format!("[listen.{name}] tls"));
        if listen.protocol == Protocol::TlsPassthrough {
            let fault = Fault::error(
                "R0124",
                walk.place(&entry.key_origin),
                format!("[listen.{name}] decrypts with \"tls\" what protocol \"tls-passthrough\" leaves sealed"),
            );
            walk.push(fault.help("take one of the two away"));
        }
    }
    if let Some(entry) = fields.get("accept-proxy-protocol") {
        listen.accept_proxy = accept_proxy(walk, &entry.node, &format!("[listen.{name}] accept-proxy-protocol"));
    }
    (listen.media, listen.offload) = media(&mut fields, listen.protocol);
    fields.finish();
    Some(listen)
}

/// What is said of RTSP's media. Of the listeners that are not for RTSP, those of HTTP take its tunnels.
fn media(fields: &mut Fields<'_, '_, '_>, protocol: Protocol) -> (Media, Option<Place>) {
    let (walk, mut media, mut offload) = (fields.walk, Media::default(), None);
    for key in ["media", "media-ports", "rewrite-urls", "redirect-except"] {
        let Some(entry) = fields.get(key) else { continue };
        if !matches!(protocol, Protocol::Rtsp | Protocol::Http) || protocol == Protocol::Http && key == "media-ports" {
            let message = format!("\"{key}\" means nothing to protocol \"{}\"", protocol.word());
            walk.push(Fault::warning("R0125", walk.place(&entry.key_origin), message));
        }
        let node = &entry.node;
        match key {
            "media" => match walk.word(node, key, &["relay", "offload", "refuse", "redirect", "direct"]) {
                Some("refuse") => media.carrier = Carrier::Refuse,
                Some("redirect") => media.carrier = Carrier::Redirect,
                Some("direct") => media.carrier = Carrier::Direct,
                Some("offload") => {
                    media.carrier = Carrier::Offload;
                    offload = Some(walk.place(&node.origin));
                }
                _ => {}
            },
            "media-ports" => media.ports = ports(walk, node).unwrap_or(media.ports),
            "rewrite-urls" => media.rewrite_urls = walk.boolean(node, key).unwrap_or_default(),
            _ => {
                let agents = walk.list(node).into_iter().filter_map(|node| walk.text(node, key));
                media.redirect_except = agents.map(Arc::from).collect();
            }
        }
    }
    (media, offload)
}

/// `16384-32767`: at least one pair of ports.
fn ports(walk: &Walk<'_>, node: &Node) -> Option<(u16, u16)> {
    let text = walk.text(node, "media-ports")?;
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let range = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
    // An even port and the one behind it.
    let range =
        range.filter(|(first, last)| *first > 0 && first.checked_next_multiple_of(2).is_some_and(|even| even < *last));
    if range.is_none() {
        let fault = walk.error("R0110", node, format!("\"{text}\" is no range of ports with an even one and the next"));
        walk.push(fault.help("for example media-ports = \"16384-32767\": a stream takes two to four of them"));
    }
    range
}

fn accept_proxy(walk: &Walk<'_>, node: &Node, title: &str) -> Option<AcceptProxy> {
    let mut fields = Fields::of(walk, node, title)?;
    let mut accept = AcceptProxy { from: Vec::new(), mode: HeaderMode::Required };
    if let Some(entry) = fields.require("from", "the peers that send the header, for example from = [\"10.0.0.0/8\"]") {
        let nodes = walk.list(&entry.node);
        if nodes.is_empty() {
            walk.push(walk.error("R0117", &entry.node, "from is empty"));
        }
        accept.from = nodes.into_iter().filter_map(|node| walk.net(node, "from")).collect();
    }
    if let Some(entry) = fields.get("mode")
        && walk.word(&entry.node, "mode", &["required", "optional"]) == Some("optional")
    {
        accept.mode = HeaderMode::Optional;
    }
    fields.finish();
    Some(accept)
}

fn protocol(walk: &Walk<'_>, node: &Node) -> Protocol {
    match walk.word(node, "protocol", &PROTOCOLS) {
        Some("rtsp") => Protocol::Rtsp,
        Some("tcp") => Protocol::Tcp,
        Some("tls-passthrough") => Protocol::TlsPassthrough,
        _ => Protocol::Http,
    }
}

/// Addresses to listen on, at least one.
pub fn addresses(walk: &Walk<'_>, node: &Node, name: &str) -> Vec<Taken> {
    let nodes = walk.list(node);
    if nodes.is_empty() {
        walk.push(walk.error("R0117", node, format!("{name} is empty")));
    }
    let address = |node| {
        Some(Taken {
            address: walk.listen_address(node, name)?,
            place: walk.value_place(node),
            who: Walk::who(&node.origin),
        })
    };
    nodes.into_iter().filter_map(address).collect()
}

/// A list of names that are looked up later.
pub fn names(walk: &Walk<'_>, node: &Node, what: &str) -> Vec<Named> {
    let name = |node| walk.text(node, what).map(|text| place_of(walk, node, text));
    walk.list(node).into_iter().filter_map(name).collect()
}

pub fn place_of(walk: &Walk<'_>, node: &Node, text: &str) -> Named {
    Named { name: text.into(), place: walk.value_place(node), who: Walk::who(&node.origin) }
}
