//! What was probably meant by a word that is not ours.

use super::super::closest::closest;

/// Words for keys and values that other programs use.
const ELSEWHERE: [(&str, &str); 42] = [
    ("algorithm", "scheduler"),
    ("addresses", "address"),
    ("backend", "pool"),
    ("backends", "pool"),
    ("balance", "scheduler"),
    ("bind", "address"),
    ("combined", "text"),
    ("destination", "pool"),
    ("endpoints", "servers"),
    ("error-pages", "errors"),
    ("fails", "fall"),
    ("frontend", "listen"),
    ("health-check", "check"),
    ("healthcheck", "check"),
    ("hosts", "servers"),
    ("host", "address"),
    ("http1.1", "http1"),
    ("https", "http"),
    ("ip", "address"),
    ("lb-policy", "scheduler"),
    ("least-conn", "lc"),
    ("least-connections", "lc"),
    ("leastconn", "lc"),
    ("listeners", "listen"),
    ("logging", "log"),
    ("maglev", "mh"),
    ("maxconn", "max-connections"),
    ("members", "servers"),
    ("metrics", "monitor"),
    ("passthrough", "tls-passthrough"),
    ("passes", "rise"),
    ("period", "interval"),
    ("persistence", "affinity"),
    ("policy", "scheduler"),
    ("ring-hash", "hash"),
    ("round-robin", "rr"),
    ("roundrobin", "rr"),
    ("sticky", "affinity"),
    ("stickiness", "affinity"),
    ("threads", "workers"),
    ("upstream", "pool"),
    ("upstreams", "pool"),
];

/// What was probably meant by a word: a slip of the fingers, or another program's word for it.
pub fn meant<'c>(word: &str, allowed: &[&'c str]) -> Option<&'c str> {
    let plain = word.to_lowercase().replace(['_', ' '], "-");
    let foreign = ELSEWHERE.iter().find(|(theirs, _)| *theirs == plain).map(|(_, ours)| *ours);
    let foreign = foreign.and_then(|ours| allowed.iter().find(|word| **word == ours));
    foreign.copied().or_else(|| closest(word, allowed.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_words_are_known() {
        assert_eq!(meant("least_conn", &["rr", "lc"]), Some("lc"));
        assert_eq!(meant("bind", &["address", "pool"]), Some("address"));
        assert_eq!(meant("bind", &["listen"]), None);
        assert_eq!(meant("adress", &["address"]), Some("address"));
    }
}
