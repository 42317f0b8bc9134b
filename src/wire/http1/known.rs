//! The fields a proxy has to know.

/// What a field name means to the engine; everything else is passed on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings`: hop-by-hop, never passed on.
    HopByHop,
    Te,
    Upgrade,
    Expect,
    Via,
    MaxForwards,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    Forwarded,
    /// `X-Client-Cert-*`: only Reeve itself may say these.
    ClientCertificate,
    Date,
    WebSocketVersion,
    WebSocketKey,
    RequestId,
    Accept,
}

/// Looks a name up by its length first: most fields are settled by one or two comparisons.
pub fn known(name: &str) -> Known {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // Behind CGI and its kin nobody can tell `_` from `-`.
    let folds = |other: &str| {
        name.bytes()
            .zip(other.bytes())
            .all(|(own, other)| own.eq_ignore_ascii_case(&other) || (own, other) == (b'_', b'-'))
    };
    match name.len() {
        2 if is("te") => Known::Te,
        3 if is("via") => Known::Via,
        4 if is("host") => Known::Host,
        4 if is("date") => Known::Date,
        6 if is("expect") => Known::Expect,
        6 if is("accept") => Known::Accept,
        7 if is("upgrade") => Known::Upgrade,
        9 if is("forwarded") => Known::Forwarded,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::HopByHop,
        12 if is("max-forwards") => Known::MaxForwards,
        12 if is("x-request-id") => Known::RequestId,
        14 if is("content-length") => Known::ContentLength,
        14 if is("http2-settings") => Known::HopByHop,
        15 if is("x-forwarded-for") => Known::XForwardedFor,
        16 if is("x-forwarded-host") => Known::XForwardedHost,
        16 if is("proxy-connection") => Known::HopByHop,
        17 if is("transfer-encoding") => Known::TransferEncoding,
        17 if is("x-forwarded-proto") => Known::XForwardedProto,
        17 if is("sec-websocket-key") => Known::WebSocketKey,
        21 if is("sec-websocket-version") => Known::WebSocketVersion,
        21 if folds("x-client-cert-subject") => Known::ClientCertificate,
        22 if folds("x-client-cert-verified") => Known::ClientCertificate,
        25 if folds("x-client-cert-fingerprint") => Known::ClientCertificate,
        _ => Known::Other,
    }
}

impl Known {
    /// Whether a sender may have this field removed by naming it in Connection (RFC 9110 §7.6.1).
    /// Fields that decide framing and routing, and those that Reeve itself writes, are not his to
    /// remove.
    pub fn can_be_nominated(self) -> bool {
        !matches!(
            self,
            Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Via
                | Known::XForwardedFor
                | Known::XForwardedProto
                | Known::XForwardedHost
                | Known::Forwarded
                | Known::Expect
                | Known::MaxForwards
        )
    }
}
