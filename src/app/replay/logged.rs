//! A line of the JSON access log, as far as routing is concerned.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde::Deserialize;

use crate::proxy::access_log::matched::cookie_hash;
use crate::route::reads::Need;
use crate::wire::certificate::Certificate;

/// What was logged; what is not here plays no part.
#[derive(Debug, Deserialize)]
pub struct Logged<'l> {
    #[serde(borrow)]
    pub listener: Cow<'l, str>,
    pub client: SocketAddr,
    #[serde(borrow)]
    pub proto: Cow<'l, str>,
    #[serde(borrow)]
    pub sni: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub method: Cow<'l, str>,
    #[serde(borrow)]
    pub host: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub path: Cow<'l, str>,
    #[serde(borrow)]
    pub query: Option<Cow<'l, str>>,
    pub status: Option<u16>,
    #[serde(borrow)]
    pub rule: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub pool: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub failure: Option<Cow<'l, str>>,
    #[serde(rename = "match")]
    pub matched: Option<BTreeMap<String, Vec<Kept>>>,
}

/// A value, or the beginning of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Kept {
    Whole(String),
    Part {
        #[serde(rename = "cut")]
        _begins: String,
    },
}

impl Logged<'_> {
    /// A connection that was passed on unread.
    pub fn is_sealed(&self) -> bool {
        self.proto == "TLS" || self.proto == "TCP"
    }

    /// The fields that are known; of cookies the texts in `texts` by their hashes, and something that nothing equals for others.
    pub fn fields(&self, texts: &HashMap<String, &str>) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let host = self.host.as_deref().map(|host| ("host".to_owned(), host.to_owned()));
        let mut cookies = Vec::new();
        for (name, values) in self.matched.iter().flatten() {
            let whole = values.iter().filter_map(|value| match value {
                Kept::Whole(text) => Some(text),
                Kept::Part { .. } => None,
            });
            if let Some(name) = name.strip_prefix("header:") {
                fields.extend(whole.map(|value| (name.to_owned(), value.clone())));
            } else if let Some(name) = name.strip_prefix("cookie:") {
                let text =
                    |hash: &String| texts.get(hash).map_or_else(|| format!("\u{1}{hash}"), |text| (*text).to_owned());
                cookies.extend(whole.map(|hash| format!("{name}={}", text(hash))));
            }
        }
        if !cookies.is_empty() {
            fields.push(("cookie".to_owned(), cookies.join("; ")));
        }
        // What was kept of the field itself goes before.
        fields.extend(host.filter(|_| !fields.iter().any(|(name, _)| name == "host")));
        fields
    }

    fn values(&self, name: &str) -> Vec<String> {
        let values = self.matched.as_ref().and_then(|matched| matched.get(name)).into_iter().flatten();
        let whole = values.filter_map(|value| match value {
            Kept::Whole(text) => Some(text.clone()),
            Kept::Part { .. } => None,
        });
        whole.collect()
    }

    pub fn alpn(&self) -> Vec<String> {
        self.values("alpn")
    }

    pub fn certificate(&self) -> Option<Certificate> {
        let one = |name: &str| self.values(name).pop().map(String::into_boxed_str);
        Some(Certificate {
            subject: one("client-cert:subject")?,
            issuer: one("client-cert:issuer")?,
            fingerprint: one("client-cert:fingerprint")?,
            names: self.values("client-cert:san").into_iter().map(String::into_boxed_str).collect(),
            common_name: None,
            not_before: 0,
            not_after: 0,
        })
    }

    /// Whether the line does not say this.
    pub fn lacks(&self, need: &Need) -> bool {
        let whole = |name: &str| {
            let values = self.matched.as_ref().and_then(|matched| matched.get(name));
            values.is_some_and(|values| values.iter().all(|value| matches!(value, Kept::Whole(_))))
        };
        match need {
            Need::Header(name) => !(whole(&format!("header:{name}")) || **name == *"host" && self.host.is_some()),
            Need::Cookie(name) => !whole(&format!("cookie:{name}")),
            // Of one that was not sent all is known.
            Need::CookieText(name) => {
                let values = self.matched.as_ref().and_then(|matched| matched.get(&format!("cookie:{name}")));
                values.is_none_or(|values| !values.is_empty())
            }
            Need::Alpn => !whole("alpn"),
            Need::Certificate => {
                !["subject", "issuer", "fingerprint", "san"].iter().all(|name| whole(&format!("client-cert:{name}")))
            }
            Need::Body | Need::Dice => true,
        }
    }
}

/// By their hashes.
pub fn by_hash<'t>(texts: &[&'t str]) -> HashMap<String, &'t str> {
    texts.iter().map(|text| (cookie_hash(text.as_bytes()), *text)).collect()
}
