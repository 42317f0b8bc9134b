//! A condition as it can be written.

use crate::model::rule::{
    BodyPart, CertificateField, CertificateTest, Pattern, Patterns, Sources, Term, Test, ValueTest,
};
use std::sync::Arc;

/// One part of a condition. `lists` has the names of the lists.
pub(super) fn term(term: &Term, lists: &[Arc<str>]) -> String {
    let test = test(&term.test, lists);
    if term.negated { format!("! {test}") } else { test }
}

fn test(test: &Test, lists: &[Arc<str>]) -> String {
    match test {
        Test::NoTls => "no-tls".to_owned(),
        Test::Path(of) => format!("path {}", patterns(of, lists)),
        Test::Host(of) => format!("host {}", patterns(of, lists)),
        Test::Sni(of) => format!("sni {}", patterns(of, lists)),
        Test::ContentType(of) => format!("content-type {}", patterns(of, lists)),
        Test::Header { name, check } => format!("header {name}{}", value_test(check, lists)),
        Test::Cookie { name, check } => format!("cookie {name}{}", value_test(check, lists)),
        Test::Query { name, check } => format!("query {name}{}", value_test(check, lists)),
        Test::Method(all) => format!("method {}", words(all, " ")),
        Test::Alpn(all) => format!("alpn {}", words(all, " ")),
        Test::Listener(all) => format!("listener {}", words(all, " ")),
        Test::From(Sources::Nets(nets)) => {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            format!("from {}", nets.join(" "))
        }
        Test::From(Sources::InList(list)) => format!("from {}", in_list(*list, lists)),
        Test::ClientCertificate(None) => "client-cert".to_owned(),
        Test::ClientCertificate(Some(CertificateTest { field, check })) => {
            let field = match field {
                CertificateField::Subject => "subject",
                CertificateField::San => "san",
                CertificateField::Issuer => "issuer",
                CertificateField::Fingerprint => "fingerprint",
            };
            format!("client-cert {field}{}", value_test(check, lists))
        }
        Test::Body { part, check } => {
            let part = match part {
                BodyPart::Text => "text".to_owned(),
                BodyPart::Form(name) => format!("form {name}"),
                BodyPart::Json(pointer) => format!("json \"{pointer}\""),
            };
            format!("body {part}{}", value_test(check, lists))
        }
        Test::Chance { share, of } => {
            let share = match share % 100 {
                0 => format!("{}%", share / 100),
                cents => format!("{}.{cents:02}%", share / 100),
            };
            of.as_ref().map_or_else(|| format!("chance {share}"), |key| format!("chance {share} of {key}"))
        }
    }
}

fn patterns(patterns: &Patterns, lists: &[Arc<str>]) -> String {
    match patterns {
        Patterns::InList(list) => in_list(*list, lists),
        Patterns::AnyOf(all) => {
            let texts: Vec<_> = all
                .iter()
                .map(|pattern| match pattern {
                    Pattern::Glob { text, .. } => word(text),
                    Pattern::Regex { text, .. } => regex(text),
                })
                .collect();
            texts.join(" | ")
        }
    }
}

fn value_test(check: &ValueTest, lists: &[Arc<str>]) -> String {
    match check {
        ValueTest::Present => String::new(),
        ValueTest::Equals(values) => format!(" = {}", words(values, " | ")),
        ValueTest::Differs(values) => format!(" != {}", words(values, " | ")),
        ValueTest::Regex { text, .. } => format!(" {}", regex(text)),
        ValueTest::InList(list) => format!(" {}", in_list(*list, lists)),
    }
}

fn in_list(list: usize, lists: &[Arc<str>]) -> String {
    format!("in {}", lists.get(list).map_or("?", |name| name))
}

fn regex(text: &str) -> String {
    format!("~\"{}\"", text.replace('"', "\\\""))
}

fn words(all: &[Arc<str>], between: &str) -> String {
    let texts: Vec<_> = all.iter().map(|text| word(text)).collect();
    texts.join(between)
}

/// Quoted where a word could not stand.
fn word(text: &str) -> String {
    let operator = matches!(text, "" | "&" | "|" | "=" | "!=" | "->" | "!");
    let special = text.starts_with(['"', '#', '!']) || text.starts_with("~\"") || text.contains(char::is_whitespace);
    if operator || special {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}
