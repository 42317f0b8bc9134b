//! What routing sees of a request URI. It is never rewritten: digests are made of it as it was sent.

use crate::wire::http1::host;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// `rtsp`, `rtsps`, `rtspu`; empty for a path alone.
    pub scheme: &'a str,
    /// With its port, as sent; empty where there is none.
    pub authority: &'a str,
    /// Without port; an IPv6 address in its brackets. Empty where there is none that is valid.
    pub host: &'a str,
    /// `/` where there is none.
    pub path: &'a str,
    /// Without its `?`.
    pub query: Option<&'a str>,
}

/// Takes a URI apart. `None` for `*` and for what is neither an absolute URI nor a path.
pub fn parse(uri: &str) -> Option<Uri<'_>> {
    let (scheme, rest) = match uri.split_once("://") {
        Some((scheme, rest)) if ["rtsp", "rtsps", "rtspu"].iter().any(|own| scheme.eq_ignore_ascii_case(own)) => {
            (scheme, rest)
        }
        _ if uri.starts_with('/') => ("", uri),
        _ => return None,
    };
    let end = if scheme.is_empty() { 0 } else { rest.find(['/', '?']).unwrap_or(rest.len()) };
    let (authority, target) = rest.split_at(end);
    // A name and a password in it are the server's business.
    let named = authority.rsplit_once('@').map_or(authority, |(_, named)| named);
    let host = host::parse(named.as_bytes()).map_or("", |parsed| parsed.host);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Some(Uri { scheme, authority, host, path: if path.is_empty() { "/" } else { path }, query })
}

/// A URI's path and query, as they are: many cameras call their tracks by the end of a query.
pub fn target(uri: &str) -> &str {
    match uri.split_once("://") {
        Some((_, rest)) if !uri.starts_with('/') => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => uri,
    }
}

/// A path as presentations are known by: PLAY has a slash at its end that DESCRIBE has not.
pub fn presentation(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// Whether `path` is that presentation or a track of it.
pub fn is_within(path: &str, presentation: &str) -> bool {
    match path.strip_prefix(presentation) {
        // What a track is called is the server's: some begin with a slash, some glue it on.
        Some(rest) => rest.is_empty() || rest.starts_with('/') || presentation.ends_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_uri() {
        let own = |uri| parse(uri).map(|uri| (uri.authority, uri.host, uri.path, uri.query));
        assert_eq!(own("rtsp://A.b:554/x/y?z=1?2"), Some(("A.b:554", "A.b", "/x/y", Some("z=1?2"))));
        assert_eq!(own("RTSPS://[::1]:322"), Some(("[::1]:322", "[::1]", "/", None)));
        assert_eq!(own("rtsp://u:p@10.0.0.1/a"), Some(("u:p@10.0.0.1", "10.0.0.1", "/a", None)));
        assert_eq!(own("rtsp://a?b"), Some(("a", "a", "/", Some("b"))));
        assert_eq!(own("/x?y=a://b/c"), Some(("", "", "/x", Some("y=a://b/c"))));
        assert_eq!(own("rtsp://a b/x"), Some(("a b", "", "/x", None)));
        assert_eq!(
            (target("rtsp://a/x?y=z/trackID=0"), target("rtsp://a"), target("/x?y=a://b/c")),
            ("/x?y=z/trackID=0", "/", "/x?y=a://b/c")
        );
        assert_eq!((own("*"), own("http://a/"), own("x")), (None, None, None));
    }

    #[test]
    fn presentations_and_their_tracks() {
        assert_eq!(
            (presentation("/a/"), presentation("/a"), presentation("/"), presentation("//")),
            ("/a", "/a", "/", "/")
        );
        assert!(is_within("/a/stream=0", "/a") && is_within("/a", "/a") && is_within("/a/", "/a"));
        assert!(!is_within("/ab", "/a") && is_within("/x", "/") && !is_within("/a", "/a/b"));
    }
}
