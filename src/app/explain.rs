//! `reeve explain`: where one request would go, and why not elsewhere.
//!
//! Reads the texts as `run` does and asks the same tables that traffic asks. With `--live` the running process does so, of
//! the tables in force, and says too which server it would choose now and why none of the others.

mod asked;
mod live;
mod refined;
mod report;
mod sealed;

use std::process::ExitCode;
use std::sync::Arc;

use self::asked::Asked;
use self::report::{Outcome, Report, SectionReport, Step, Winner};
use super::args::{ExplainArguments, Format};
use super::check;
use super::{FAULT, UNEXPECTED, output, request};
use crate::model::fault::Place;
use crate::model::listener::{Listener, Protocol};
use crate::model::rule::{HostPattern, Key, Kind, Section, Target, Template, TemplatePart};
use crate::model::{Config, Limits};
use crate::route::explain::Verdict;
use crate::route::{self, Action, Body, Change, Content, Head, Rule, Table};
use crate::state::orders::{Explained, Question};
use crate::state::{LivePool, Snapshot};
use crate::wire::certificate::Certificate;
use crate::wire::field::Field;

/// `reeve explain METHOD URL`.
pub fn main(arguments: &ExplainArguments) -> ExitCode {
    if arguments.live {
        return live::main(arguments);
    }
    let prepared = check::texts(&request(arguments.texts.clone()));
    if !prepared.is_usable() {
        check::tell(&prepared);
        return prepared.exit_code();
    }
    let config = prepared.load.config.as_ref().ok_or_else(|| "the texts have faults".to_owned());
    let ground = config.map(|config| Ground { config, tables: &prepared.tables, pools: None });
    match ground.and_then(|ground| explain(&question(arguments), &ground)) {
        Ok(report) => {
            output::print(&match arguments.output.format {
                Format::Text => report::text(&report),
                Format::Json => format!("{}\n", report::json(&report)),
            });
            if report.outcome.is_routed() { ExitCode::SUCCESS } else { ExitCode::from(UNEXPECTED) }
        }
        Err(message) => {
            output::complain(&format!("reeve explain: {message}\n"));
            ExitCode::from(FAULT)
        }
    }
}

fn question(arguments: &ExplainArguments) -> Question {
    Question {
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: arguments.headers.clone(),
        from: arguments.from,
        listener: arguments.listener.clone(),
        roll: arguments.roll.0,
        body: arguments.body.clone(),
        cert: arguments.cert.clone(),
    }
}

/// What a question is asked of.
struct Ground<'g> {
    config: &'g Config,
    /// In the order of `Config::rule_sets`.
    tables: &'g [Arc<Table>],
    /// Of the running process, in the order of `Config::pools`.
    pools: Option<&'g [Arc<LivePool>]>,
}

/// The answer of the running process.
pub fn live(question: &Question, snapshot: &Snapshot) -> Result<Explained, String> {
    let ground = Ground { config: &snapshot.config, tables: &snapshot.tables, pools: Some(&snapshot.pools) };
    let report = explain(question, &ground)?;
    Ok(Explained { routed: report.outcome.is_routed(), report: report::json(&report), text: report::text(&report) })
}

fn explain(arguments: &Question, ground: &Ground<'_>) -> Result<Report, String> {
    if arguments.method == "tcp" {
        return sealed::explain(arguments, ground);
    }
    let [url] = arguments.url.as_slice() else {
        return Err(format!("{} needs one URL: http://HOST/PATH, or /PATH", arguments.method));
    };
    let asked = asked::parse(url, &arguments.headers)?;
    let config = ground.config;
    let listener = listener(config, asked.kind, arguments.listener.as_deref())?;
    let (Some(table), Some(set)) = (ground.tables.get(listener.rules), config.rule_sets.get(listener.rules)) else {
        return Err(format!("listener {} has no rules", listener.name));
    };

    let mut report = Report {
        sealed: false,
        method: arguments.method.clone(),
        host: asked.host.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        from: arguments.from.to_string(),
        roll: arguments.roll,
        listener: listener.name.to_string(),
        section: None,
        matched_path: None,
        steps: Vec::new(),
        outcome: Outcome::NoRoute,
    };
    if let Some((status, why)) = off(asked.kind, &arguments.method) {
        report.outcome = Outcome::Refused { status, why: why.to_owned() };
        return Ok(report);
    }
    let section = table.section(asked.kind, &asked.host);
    report.section = section.and_then(|section| described(&set.sections, section, &asked));
    let mut scratch = String::new();
    let policy = section.map(route::Section::policy).unwrap_or_default();
    let path = match route::path::normalise(&asked.path, policy, &mut scratch) {
        Ok(path) => path,
        Err(fault) => {
            report.outcome = Outcome::Refused { status: 400, why: fault.to_string() };
            return Ok(report);
        }
    };
    report.matched_path = Some(path.to_owned());

    let mut fields: Vec<Field<'_>> =
        arguments.headers.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    if !asked.host.is_empty() && !fields.iter().any(|field| field.is("host")) {
        fields.push(Field { name: "host", value: asked.host.as_bytes() });
    }
    let certificate = arguments.cert.as_deref().map(Certificate::of_subject);
    let content = arguments.body.as_deref().map(Content::new);
    let too_large = arguments.body.as_ref().is_some_and(|body| body.len() > Limits::CONDITION_BODY);
    let head = Head {
        method: &arguments.method,
        host: &asked.host,
        path,
        query: asked.query.as_deref().unwrap_or_default(),
        fields: &fields,
        source: arguments.from.to_canonical(),
        listener: &listener.name,
        sni: None,
        alpn: &[],
        certificate: certificate.as_ref(),
        no_tls: false,
        body: match &content {
            Some(_) if too_large => Body::TooLarge,
            Some(content) => Body::Whole(content),
            None => Body::Empty,
        },
    };
    let steps = section.map(|section| route::explain::explain(section, &head, arguments.roll)).unwrap_or_default();
    let winner = steps.iter().find(|step| step.verdict == Verdict::Takes).map(|step| step.rule);
    report.steps = steps.iter().map(|step| told(step.rule, &step.verdict)).collect();
    let roll = arguments.roll;
    report.outcome = match winner {
        Some(rule) => outcome(ground, rule, &head, roll),
        None => match listener.pool.as_ref().and_then(|name| config.pools.iter().position(|pool| pool.name == *name)) {
            Some(pool) => to_pool(ground, pool, None, &head),
            None => Outcome::NoRoute,
        },
    };
    Ok(report)
}

/// Methods of HTTP that are answered while the head is read (`wire::http1::request`).
fn off(kind: Kind, method: &str) -> Option<(u16, &'static str)> {
    match (kind, method) {
        (Kind::Http, "TRACE") => Some((405, "TRACE is off")),
        (Kind::Http, "CONNECT") => Some((501, "CONNECT is not done")),
        _ => None,
    }
}

/// The listener that was named, else the first that speaks the request's protocol.
fn listener<'c>(config: &'c Config, kind: Kind, wanted: Option<&str>) -> Result<&'c Listener, String> {
    if let Some(name) = wanted {
        return config.listeners.iter().find(|listener| &*listener.name == name).ok_or_else(|| {
            let names: Vec<&str> = config.listeners.iter().map(|listener| &*listener.name).collect();
            format!("there is no listener {name:?}; there are: {}", names.join(", "))
        });
    }
    let protocol = match kind {
        Kind::Http => Protocol::Http,
        Kind::Rtsp => Protocol::Rtsp,
        Kind::Tcp => Protocol::TlsPassthrough,
    };
    let of_kind = || config.listeners.iter().filter(move |listener| listener.protocol == protocol);
    // One that is served tells more than one that is not.
    let found = of_kind().find(|listener| listener.built).or_else(|| of_kind().next());
    found.ok_or_else(|| format!("no listener speaks {}", protocol.word()))
}

/// The section as it was written, and which of its hosts this request has.
fn described(sections: &[Section], found: &route::Section, asked: &Asked) -> Option<SectionReport> {
    let first = found.rules().first().map(Rule::place);
    let section = sections.iter().find(|section| {
        section.kind == asked.kind
            && section.rules.first().map(|rule| &rule.place) == first
            && section.hosts.iter().any(|(host, _)| is_for(host, &asked.host))
    })?;
    // An exact name counts before a wildcard, a long wildcard before a short one.
    let (host, place) =
        section.hosts.iter().filter(|(host, _)| is_for(host, &asked.host)).max_by_key(|(host, _)| match host {
            HostPattern::Exact(_) => usize::MAX,
            HostPattern::Wildcard(end) => end.len(),
            HostPattern::Any => 0,
        })?;
    let (name, why) = match host {
        HostPattern::Exact(name) => (name.to_string(), "exact host"),
        HostPattern::Wildcard(end) => (format!("*{end}"), "longest wildcard"),
        HostPattern::Any => ("*".to_owned(), "any host"),
    };
    let name = format!("{} {name}", section.kind.word());
    Some(SectionReport { name, why, place: place.clone(), rules: section.rules.len() })
}

fn is_for(host: &HostPattern, asked: &str) -> bool {
    match host {
        HostPattern::Any => true,
        HostPattern::Exact(name) => **name == *asked,
        HostPattern::Wildcard(end) => asked.len() > end.len() && asked.ends_with(&**end),
    }
}

fn told(rule: &Rule, verdict: &Verdict) -> Step {
    let failed = match verdict {
        Verdict::Takes => None,
        Verdict::Fails { condition, seen } => Some((condition.clone(), seen.clone())),
    };
    Step { id: rule.id().to_string(), place: rule.place().clone(), failed }
}

fn outcome(ground: &Ground<'_>, rule: &Rule, head: &Head<'_>, roll: u32) -> Outcome {
    let config = ground.config;
    match rule.action() {
        Action::Use { target, .. } => match route::pool(target, head, rule, &mut || roll) {
            Some(pool) => to_pool(ground, pool, Some(rule), head),
            None => Outcome::NotInMap { rule: winner(config, rule, head) },
        },
        Action::Redirect { code, to } => {
            let location = String::from_utf8_lossy(&route::location(to, rule, head).unwrap_or_default()).into_owned();
            Outcome::Redirect { rule: winner(config, rule, head), code: *code, location }
        }
        Action::Answer { code, text } => Outcome::Answer {
            rule: winner(config, rule, head),
            code: *code,
            text: text.as_ref().map(ToString::to_string),
        },
        Action::Deny => Outcome::Deny { rule: winner(config, rule, head) },
        Action::Drop => Outcome::Drop { rule: winner(config, rule, head) },
    }
}

fn to_pool(ground: &Ground<'_>, pool: usize, rule: Option<&Rule>, head: &Head<'_>) -> Outcome {
    let config = ground.config;
    let live = ground.pools.and_then(|pools| pools.get(pool));
    let Some(pool) = config.pools.get(pool) else { return Outcome::NoRoute };
    let by = match rule.map(Rule::action) {
        Some(Action::Use { by: Some(by), .. }) => Some(by),
        _ => pool.scheduler.key(),
    };
    let server = |server: &crate::model::pool::Server| {
        let note = match (server.weight, server.backup) {
            (0, _) => " (drains)",
            (_, true) => " (backup)",
            _ => "",
        };
        format!("{} {}{note}", server.name, server.address)
    };
    Outcome::Pool {
        rule: rule.map(|rule| winner(config, rule, head)),
        pool: pool.name.to_string(),
        scheduler: pool.scheduler.word().to_owned(),
        servers: pool.servers.iter().map(server).collect(),
        key: by.map(|key| (key.to_string(), route::key_text(key, rule, head))),
        live: live.map(|live| live::look(live, by.and_then(|key| route::key_hash(key, rule, head)))),
    }
}

fn winner(config: &Config, rule: &Rule, head: &Head<'_>) -> Winner {
    let place: Place = rule.place().clone();
    let change = |change: &Change| match change {
        Change::Set { name, value } => {
            let mut text = Vec::new();
            route::expand(value, rule, head, false, &mut text);
            format!("set header {name}: {}", String::from_utf8_lossy(&text))
        }
        Change::Remove { name } => format!("remove header {name}"),
    };
    let mut changes: Vec<String> = rule.changes().iter().map(change).collect();
    if let Some(refined) = rule.refined().filter(|refined| refined.rewrites()) {
        let mut target = Vec::new();
        changes.push(match refined.target(rule, head, &mut target) {
            true => format!("rewrite {}", String::from_utf8_lossy(&target)),
            false => {
                "rewrite: what was captured would lead out of the rewritten path, which is answered 400".to_owned()
            }
        });
    }
    changes.extend(rule.refined().map(|refined| refined::lines(refined, config)).unwrap_or_default());
    let looked_up = match rule.action() {
        Action::Use { target: Target::Map { key, .. }, .. } => {
            let value = route::key_text(key, Some(rule), head);
            Some(format!("{key} = {}", value.as_deref().unwrap_or("none: the request has none")))
        }
        _ => None,
    };
    Winner { id: rule.id().to_string(), place, action: written(rule.action(), config), looked_up, changes }
}

/// An action in the words of the rule language.
pub(super) fn written(action: &Action, config: &Config) -> String {
    match action {
        Action::Use { target, by } => {
            let by = by.as_ref().map(|key| format!(" by {key}")).unwrap_or_default();
            format!("use {}{by}", target_text(target, config))
        }
        Action::Redirect { code, to } => format!("redirect {code} {}", template(to)),
        Action::Answer { code, text: Some(text) } => format!("answer {code} {text:?}"),
        Action::Answer { code, text: None } => format!("answer {code}"),
        Action::Deny => "deny".to_owned(),
        Action::Drop => "drop".to_owned(),
    }
}

fn target_text(target: &Target, config: &Config) -> String {
    let name = |pool: usize| config.pools.get(pool).map_or("?", |pool| &*pool.name);
    match target {
        Target::Pool(pool) => name(*pool).to_owned(),
        Target::Split { shares, otherwise } => {
            let shares: Vec<String> =
                shares.iter().map(|(pool, share)| format!("{} {}%", name(*pool), report::percent(*share))).collect();
            format!("{} else {}", shares.join(" "), name(*otherwise))
        }
        Target::Map { name: map, key, otherwise, .. } => {
            let otherwise = otherwise.map(|pool| format!(" else {}", name(pool))).unwrap_or_default();
            format!("map {map} {key}{otherwise}")
        }
    }
}

fn template(template: &Template) -> String {
    let part = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => text.to_string(),
        TemplatePart::Group(number) => Key::Group(*number).to_string(),
        TemplatePart::Capture(name) => format!("{{{name}}}"),
        TemplatePart::Host => "{host}".to_owned(),
        TemplatePart::Path => "{path}".to_owned(),
    };
    template.parts.iter().map(part).collect()
}

#[cfg(test)]
mod tests;
