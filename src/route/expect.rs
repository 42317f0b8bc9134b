//! Runs the `expect` lines of a rule set: tests that stand beside the rules.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::model::fault::Fault;
use crate::model::rule::{Expect, Kind, Outcome, RuleSet};
use crate::wire::certificate::Certificate;
use crate::wire::field::Field;

use super::{Action, Body, Content, Head, Rule, Table, key_text, location, path, pool};

/// What came of one message.
struct Came<'t> {
    what: What,
    rule: Option<&'t Rule>,
}

enum What {
    Pool {
        name: Arc<str>,
        by: Option<String>,
    },
    Code {
        code: u16,
        target: Option<String>,
    },
    Deny,
    Drop,
    NoRoute,
    /// Answered 400 before any rule is asked.
    BadPath(String),
}

/// Adds an error for each `expect` line of `set` that does not hold. `pools` are the names of
/// `Config::pools`, in their order.
pub fn run(table: &Table, set: &RuleSet, pools: &[Arc<str>], faults: &mut Vec<Fault>) {
    for expect in &set.expects {
        // Without a roll the line has to hold whatever the dice show: both ends are tried.
        let rolls = expect.facts.roll.map_or([0, 9_999], |roll| [roll, roll]);
        for roll in rolls {
            let rolled = Cell::new(false);
            let came = came(table, expect, pools, &|| {
                rolled.set(true);
                roll
            });
            if !came.meets(&expect.outcome) {
                let fault = fault(expect, &came);
                let by_chance = rolled.get() && expect.facts.roll.is_none();
                faults.push(if by_chance {
                    fault.help("the dice decide: fix them with roll:0 to roll:99.99")
                } else {
                    fault
                });
                break;
            }
            if !rolled.get() {
                break;
            }
        }
    }
}

fn came<'t>(table: &'t Table, expect: &Expect, pools: &[Arc<str>], roll: &dyn Fn() -> u32) -> Came<'t> {
    let facts = &expect.facts;
    // Sealed connections have no host but the one that is asked for by SNI.
    let host = if expect.kind == Kind::Tcp { &facts.sni } else { &expect.host };
    let host = host.as_deref().unwrap_or_default().to_ascii_lowercase();
    let Some(section) = table.section(expect.kind, &host) else {
        return Came { what: What::NoRoute, rule: None };
    };
    let target = expect.target.split('#').next().unwrap_or_default();
    let (raw, query) = target.split_once('?').unwrap_or((target, ""));
    let mut scratch = String::new();
    let path = match path::normalise(raw, section.policy(), &mut scratch) {
        Ok(path) => path,
        Err(fault) => return Came { what: What::BadPath(fault.to_string()), rule: None },
    };
    let own = facts.headers.iter().map(|(name, value)| Field { name, value: value.as_bytes() });
    let mut fields: Vec<Field<'_>> = own.collect();
    if !host.is_empty() && !fields.iter().any(|field| field.is("host")) {
        fields.push(Field { name: "host", value: host.as_bytes() });
    }
    let (sni, listener) = (facts.sni.as_deref().map(str::to_ascii_lowercase), facts.listener.as_deref());
    let alpn: Vec<_> = facts.alpn.iter().map(|name| name.as_bytes()).collect();
    let certificate = facts.certificate.as_ref().map(|shown| Certificate {
        issuer: shown.issuer.as_ref().into(),
        names: shown.names.iter().map(|name| name.as_ref().into()).collect(),
        fingerprint: shown.fingerprint.as_ref().into(),
        ..Certificate::of_subject(&shown.subject)
    });
    let content = facts.body.as_deref().map(Content::new);
    let head = Head {
        method: &expect.method,
        host: &host,
        path,
        query,
        fields: &fields,
        source: facts.from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        listener: listener.unwrap_or_default(),
        sni: sni.as_deref(),
        alpn: &alpn,
        certificate: certificate.as_ref(),
        no_tls: facts.no_tls,
        body: content.as_ref().map_or(Body::Empty, Body::Whole),
    };
    let mut dice = || roll();
    let Some(rule) = section.decide_with(None, &head, &mut dice) else {
        return Came { what: What::NoRoute, rule: None };
    };
    let what = match rule.action() {
        Action::Use { target, by } => match pool(target, &head, rule, &mut dice).and_then(|pool| pools.get(pool)) {
            Some(name) => {
                What::Pool { name: name.clone(), by: by.as_ref().and_then(|key| key_text(key, Some(rule), &head)) }
            }
            None => What::NoRoute,
        },
        Action::Redirect { code, to } => {
            let target = String::from_utf8_lossy(&location(to, rule, &head).unwrap_or_default()).into_owned();
            What::Code { code: *code, target: Some(target) }
        }
        Action::Answer { code, .. } => What::Code { code: *code, target: None },
        Action::Deny => What::Deny,
        Action::Drop => What::Drop,
    };
    Came { what, rule: Some(rule) }
}

impl Came<'_> {
    fn meets(&self, outcome: &Outcome) -> bool {
        match (&self.what, outcome) {
            (What::Pool { name, by }, Outcome::Pool { name: expected, by: key }) => {
                name == expected && key.as_deref().is_none_or(|key| by.as_deref() == Some(key))
            }
            (What::Code { code, target }, Outcome::Code { code: expected, target: to }) => {
                code == expected && to.as_deref().is_none_or(|to| target.as_deref() == Some(to))
            }
            (What::BadPath(_), Outcome::Code { code: 400, target: None }) => true,
            (What::Deny, Outcome::Deny | Outcome::Code { code: 403, target: None }) => true,
            (What::Drop, Outcome::Drop) | (What::NoRoute, Outcome::NoRoute) => true,
            _ => false,
        }
    }
}

fn fault(expect: &Expect, came: &Came<'_>) -> Fault {
    let expected = match &expect.outcome {
        Outcome::Pool { name, by: None } => format!("pool {name}"),
        Outcome::Pool { name, by: Some(by) } => format!("pool {name} by {by}"),
        Outcome::Code { code, target: None } => format!("{code}"),
        Outcome::Code { code, target: Some(target) } => format!("{code} {target}"),
        Outcome::Deny => "deny".to_owned(),
        Outcome::Drop => "drop".to_owned(),
        Outcome::NoRoute => "no route".to_owned(),
    };
    let got = match &came.what {
        What::Pool { name, by: None } => format!("pool {name}"),
        What::Pool { name, by: Some(by) } => format!("pool {name} by {by}"),
        What::Code { code, target: None } => format!("{code}"),
        What::Code { code, target: Some(target) } => format!("{code} {target}"),
        What::Deny => "deny".to_owned(),
        What::Drop => "drop".to_owned(),
        What::NoRoute => "no route".to_owned(),
        What::BadPath(why) => format!("400 ({why})"),
    };
    let Some(rule) = came.rule else {
        return Fault::error("R0304", expect.place.clone(), format!("expected {expected}, got {got}"));
    };
    let message = format!("expected {expected}, got {got} (rule {})", rule.id());
    let also = format!("rule \"{}\" took it", rule.rest.name);
    Fault::error("R0304", expect.place.clone(), message).also(rule.place().clone(), also)
}
