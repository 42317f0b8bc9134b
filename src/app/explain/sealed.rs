//! A connection that is passed on unread: what its ClientHello says, as an `expect tcp` line would write it.

use super::report::{Outcome, Report, SectionReport};
use super::{Ground, listener, outcome, to_pool, told};
use crate::model::listener::Protocol;
use crate::model::rule::Kind;
use crate::route::explain::Verdict;
use crate::route::{self, Head};
use crate::state::orders::Question;

/// What is asked.
#[derive(Debug, Default)]
struct Asked {
    sni: Option<String>,
    alpn: Vec<String>,
    no_tls: bool,
    from: Option<std::net::IpAddr>,
    listener: Option<String>,
}

pub(super) fn explain(arguments: &Question, ground: &Ground<'_>) -> Result<Report, String> {
    let asked = asked(&arguments.url)?;
    let config = ground.config;
    let listener = listener(config, Kind::Tcp, asked.listener.as_deref().or(arguments.listener.as_deref()))?;
    let sealed = match listener.protocol {
        Protocol::TlsPassthrough => true,
        Protocol::Tcp => false,
        other => return Err(format!("listener {} speaks {}", listener.name, other.word())),
    };
    if !sealed && (asked.sni.is_some() || !asked.alpn.is_empty() || asked.no_tls) {
        return Err(format!("listener {} speaks tcp: it reads no hello", listener.name));
    }
    let (Some(table), Some(set)) = (ground.tables.get(listener.rules), config.rule_sets.get(listener.rules)) else {
        return Err(format!("listener {} has no rules", listener.name));
    };
    let from = asked.from.unwrap_or(arguments.from).to_canonical();
    let alpn: Vec<_> = asked.alpn.iter().map(String::as_bytes).collect();
    // As `proxy::opaque` sees it.
    let head = Head {
        method: "",
        host: asked.sni.as_deref().unwrap_or_default(),
        path: "",
        query: "",
        fields: &[],
        source: from,
        listener: &listener.name,
        sni: asked.sni.as_deref(),
        alpn: &alpn,
        certificate: None,
        no_tls: asked.no_tls,
        body: route::Body::Empty,
    };
    let section = table.section(Kind::Tcp, "");
    let steps = section.map(|section| route::explain::explain(section, &head, arguments.roll)).unwrap_or_default();
    let winner = steps.iter().find(|step| step.verdict == Verdict::Takes).map(|step| step.rule);
    let own = || listener.pool.as_ref().and_then(|name| config.pools.iter().position(|pool| pool.name == *name));
    Ok(Report {
        sealed: true,
        method: arguments.method.clone(),
        host: asked.sni.clone().unwrap_or_default(),
        path: String::new(),
        query: None,
        from: from.to_string(),
        roll: arguments.roll,
        listener: listener.name.to_string(),
        section: set.sections.iter().find(|section| section.kind == Kind::Tcp).map(|section| SectionReport {
            name: "tcp".to_owned(),
            why: "of all connections",
            place: section.place.clone(),
            rules: section.rules.len(),
        }),
        matched_path: None,
        steps: steps.iter().map(|step| told(step.rule, &step.verdict)).collect(),
        outcome: match winner {
            Some(rule) => outcome(ground, rule, &head, arguments.roll),
            None => own().map_or(Outcome::NoRoute, |pool| to_pool(ground, pool, None, &head)),
        },
    })
}

fn asked(facts: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for fact in facts {
        match fact.split_once(':') {
            Some(("sni", name)) => asked.sni = Some(name.trim_end_matches('.').to_ascii_lowercase()),
            Some(("alpn", names)) => asked.alpn.extend(names.split(',').map(str::to_owned)),
            Some(("from", address)) => {
                asked.from = Some(address.parse().map_err(|_| format!("{address:?} is no address"))?);
            }
            Some(("listener", name)) => asked.listener = Some(name.to_owned()),
            None if fact == "no-tls" => asked.no_tls = true,
            _ => {
                return Err(format!(
                    "{fact:?} says nothing of a connection: write sni:NAME, alpn:NAME,NAME, no-tls, from:IP or listener:NAME"
                ));
            }
        }
    }
    if asked.no_tls && (asked.sni.is_some() || !asked.alpn.is_empty()) {
        return Err("no-tls means that there is no hello: leave sni and alpn out".to_owned());
    }
    Ok(asked)
}
