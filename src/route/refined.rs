//! What refines a rule beyond the header changes: where the request goes on to, how much of it there may be, and how
//! long it may take. Most rules have none of it.

use std::sync::Arc;
use std::time::Duration;

use crate::model::pool::Occasions;
use crate::model::rule::{self, AuthUrl, Key, PathPolicy, Refinement, RuleTimeout, Template, TemplatePart, Users};

use super::head::{Head, Scratch};
use super::{Rule, path};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refined {
    rewrite: Option<Rewrite>,
    /// Bytes of a request's body.
    pub body: Option<u64>,
    pub rates: Box<[Rate]>,
    /// Requests under way.
    pub connections: Option<u32>,
    pub mirrors: Box<[Mirror]>,
    pub auth: Option<Auth>,
    pub tuning: Option<Tuning>,
}

/// Who may have it.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// Whoever shows a user's password.
    Basic(Arc<Users>),
    /// Whoever a service lets pass.
    Forward(Arc<AuthUrl>),
}

/// `mirror POOL 5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Position in `Config::pools`.
    pub pool: usize,
    /// In hundredths of a percent.
    pub share: u32,
}

/// `rewrite`.
#[derive(Debug, Clone, PartialEq)]
struct Rewrite {
    to: Template,
    policy: PathPolicy,
}

/// `limit 20/s per source`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// The rule and the key, by which the limit is known over reloads: `shop.rules:upload source`.
    pub label: Arc<str>,
    pub key: Key,
    pub count: u32,
    pub per: Duration,
}

/// Times and tries of a rule, which go before those of its pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tuning {
    /// None twice.
    pub times: Vec<(RuleTimeout, Duration)>,
    /// Extra tries.
    pub attempts: Option<u32>,
    /// Who waits for a server goes before those of a lower one.
    pub priority: Option<i32>,
    /// What they are for, where the rule says so: a connection that was not made, and a request that a server
    /// has not looked at.
    pub on: Option<Occasions>,
}

impl Refined {
    /// `None`: the rule has none of it.
    pub(super) fn new(rule: &rule::Rule, policy: PathPolicy) -> Option<Box<Refined>> {
        let mut refined = Refined::default();
        let (mut rates, mut mirrors) = (Vec::new(), Vec::new());
        let mut tuning = Tuning::default();
        for refinement in &rule.refinements {
            match refinement {
                Refinement::Rewrite(to) => refined.rewrite = Some(Rewrite { to: to.clone(), policy }),
                Refinement::BodyLimit { bytes } => refined.body = Some(*bytes),
                Refinement::ConnectionLimit { count } => refined.connections = Some(*count),
                Refinement::RateLimit { count, per, key } => {
                    let label = format!("{} {key}", rule.id).into();
                    rates.push(Rate { label, key: key.clone(), count: *count, per: *per });
                }
                Refinement::Timeout { which, after } => tuning.times.push((*which, *after)),
                Refinement::Retry { attempts, on } => {
                    tuning.attempts = Some(*attempts);
                    tuning.on = (!on.is_empty()).then(|| Occasions::of(on.iter().map(|word| &**word)));
                }
                Refinement::Priority(priority) => tuning.priority = Some(*priority),
                Refinement::Mirror { pool, share } => {
                    mirrors.push(Mirror { pool: *pool, share: share.unwrap_or(10_000) });
                }
                Refinement::SetHeader { .. } | Refinement::RemoveHeader { .. } => {}
                Refinement::AuthBasic { users } => refined.auth = Some(Auth::Basic(users.clone())),
                Refinement::AuthForward { url } => refined.auth = Some(Auth::Forward(url.clone())),
            }
        }
        (refined.rates, refined.mirrors) = (rates.into(), mirrors.into());
        refined.tuning = Some(tuning).filter(|tuning| *tuning != Tuning::default());
        (refined != Refined::default()).then(|| Box::new(refined))
    }

    /// Whether the path and query that go on to the server are others than the client's.
    pub fn rewrites(&self) -> bool {
        self.rewrite.is_some()
    }

    /// Appends the path and query that go on to the server, as RFC 9112 §3.2.1 has them. Without a `?` in the template the
    /// client's query goes along; with one, what stands behind it is the query, and nothing behind it is none.
    ///
    /// `false`: what was captured would lead out of where the template points.
    pub fn target(&self, rule: &Rule, head: &Head<'_>, out: &mut Vec<u8>) -> bool {
        let Some(Rewrite { to, policy }) = &self.rewrite else { return false };
        let mut text = Scratch::new();
        let mut query = None;
        for part in &to.parts {
            let value = match part {
                TemplatePart::Text(own) => {
                    if query.is_none() {
                        query = own.find('?').map(|at| text.len() + at);
                    }
                    text.extend_from_slice(own.as_bytes());
                    continue;
                }
                TemplatePart::Group(number) => rule.group(*number, head),
                TemplatePart::Capture(name) => rule.capture(name, head),
                TemplatePart::Path => Some(head.path),
                TemplatePart::Host => Some(head.host),
            };
            let also = if query.is_some() { IN_QUERY } else { IN_PATH };
            path::encode(value.unwrap_or_default().as_bytes(), also, &mut |byte| text.push(byte));
        }
        let (path, query) = match query {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (&text[..], head.query.as_bytes()),
        };
        let Ok(path) = std::str::from_utf8(path) else { return false };
        if !path.starts_with('/') || path::has_dot_segments(path) {
            return false;
        }
        let mut scratch = String::new();
        // What `strict` refuses cannot have been captured, and the operator may write it.
        let policy = if *policy == PathPolicy::Strict { PathPolicy::Safe } else { *policy };
        let Ok(path) = path::normalise(path, policy, &mut scratch) else { return false };
        out.extend_from_slice(path.as_bytes());
        if !query.is_empty() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        true
    }
}

/// RFC 3986 §3.3: what may stand in a path besides letters, digits and `-._~`.
pub(super) const IN_PATH: &[u8] = b"!$&'()*+,;=:@/";
/// What may stand in the value of a parameter, without ending it.
const IN_QUERY: &[u8] = b"!$'()*,:@/";
