//! Names of header fields: what is one, and which are Reeve's own to write.

/// Fields that a rule can neither set nor remove, with the reason.
const OWNED: &[(&[&str], &str)] = &[
    (
        &["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings", "expect"],
        "it belongs to one connection, and Reeve writes it for each side",
    ),
    (&["transfer-encoding", "content-length"], "it says where the message ends, and Reeve writes it"),
    (&["host", ":authority"], "the request keeps the host it was routed by"),
    (&["via", "max-forwards"], "Reeve keeps it as RFC 9110 asks"),
    (
        &["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"],
        "Reeve writes it; `trusted` and `forwarded` of the listener say how",
    ),
    (
        &["x-client-cert-subject", "x-client-cert-fingerprint", "x-client-cert-verified"],
        "Reeve writes it after it has verified the certificate",
    ),
];

/// Why that field, in lower case, cannot be changed by a rule.
pub(super) fn owned(name: &str) -> Option<&'static str> {
    OWNED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}
