//! The request that is asked about: a method, an URL and some fields, as `curl` would take them.

use crate::model::rule::Kind;
use crate::wire::http1::host;

/// A request in the parts that rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub kind: Kind,
    /// In lower case, without port and trailing dot; empty where none was given.
    pub host: String,
    /// As it would be sent, without query.
    pub path: String,
    /// Without its `?`.
    pub query: Option<String>,
}

/// Reads `http://HOST[:PORT]/PATH?QUERY`, or `/PATH` together with a `host` field. A host in the URL
/// is the one that counts (RFC 9112 §3.2.2).
pub fn parse(url: &str, headers: &[(String, String)]) -> Result<Asked, String> {
    if let Some(bad) = url.chars().find(|c| c.is_control() || *c == ' ') {
        return Err(format!("{bad:?} cannot be part of a URL: write it as %{:02X}", u32::from(bad)));
    }
    // What stands behind a # is never sent (RFC 9110 §7.1).
    let url = url.split('#').next().unwrap_or_default();
    let field = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.as_str());
    let (kind, host, target) = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            let kind = match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Kind::Http,
                "rtsp" | "rtsps" => Kind::Rtsp,
                _ => return Err(format!("{scheme}:// is not http:// or rtsp://")),
            };
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, target) = rest.split_at(end);
            if host.is_empty() {
                return Err(format!("{url:?} has no host: write http://HOST/PATH"));
            }
            (kind, host, target)
        }
        _ if url.starts_with('/') => (Kind::Http, field.unwrap_or_default(), url),
        _ => return Err(format!("{url:?} is neither http://HOST/PATH nor /PATH")),
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    // An empty path is sent as "/" (RFC 9112 §3.2.1).
    let path = if path.is_empty() { "/" } else { path };
    Ok(Asked { kind, host: plain_host(host)?, path: path.to_owned(), query })
}

/// A host as rules know it; none at all is the empty one.
fn plain_host(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Ok(String::new());
    }
    let authority =
        host::parse(host.as_bytes()).ok_or_else(|| format!("{host:?} is not a host: write HOST or HOST:PORT"))?;
    Ok(host::canonical(authority.host, &mut String::new()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (Kind, String, String, Option<String>) {
        let asked = parse(url, &[("Host".to_owned(), "Field.Example:8080".to_owned())]).unwrap();
        (asked.kind, asked.host, asked.path, asked.query)
    }

    #[test]
    fn urls_in_their_parts() {
        for (url, kind, host, path, query) in [
            ("http://Shop.example:8080/a/b?x=1?y", Kind::Http, "shop.example", "/a/b", Some("x=1?y")),
            ("https://shop.example.", Kind::Http, "shop.example", "/", None),
            ("http://[::1]:80/#part", Kind::Http, "[::1]", "/", None),
            ("http://[2001:DB8::1]?q", Kind::Http, "[2001:db8::1]", "/", Some("q")),
            ("rtsp://media.example/live/cam7", Kind::Rtsp, "media.example", "/live/cam7", None),
            ("/a?u=http://other/", Kind::Http, "field.example", "/a", Some("u=http://other/")),
            ("/http://other/", Kind::Http, "field.example", "/http://other/", None),
        ] {
            let expected = (kind, host.to_owned(), path.to_owned(), query.map(str::to_owned));
            assert_eq!(parts(url), expected, "{url}");
        }
        assert_eq!(parse("/a", &[]).unwrap().host, "");
    }

    #[test]
    fn what_is_no_url_is_said() {
        for url in ["", "a", "shop.example/a", "ftp://x/", "http:///a", "http://u@h/", "/a b", "/a\n", "http://"] {
            assert!(parse(url, &[]).is_err(), "{url:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_can_break_it(url in "\\PC*", host in "\\PC*") {
            if let Ok(asked) = parse(&url, &[("host".to_owned(), host)]) {
                proptest::prop_assert!(asked.path.starts_with('/'));
            }
        }
    }
}
