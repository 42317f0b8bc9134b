//! Every length, count and depth that is bounded, with its default and reason.

/// The names are the keys in `[limits]`; lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A whole message head. Cookies of large applications reach 32 KiB.
    pub header_bytes: usize,
    /// Field lines in a head. Browsers send 20, chains of proxies 60.
    pub header_count: usize,
    /// A request target; the longest that common servers take is 8 to 16 KiB.
    pub target_bytes: usize,
    /// Extensions of one chunk; nobody uses them, so that they only serve attacks.
    pub chunk_extension_bytes: usize,
    /// Extensions of all the chunks of one message.
    pub chunk_extensions_total: usize,
    /// A trailer section; gRPC's are under 1 KiB, its error details reach 8.
    pub trailer_bytes: usize,
    /// Field lines in a trailer section.
    pub trailer_count: usize,
    /// Client connections of one process; beyond, new ones wait in the kernel's queue. Each takes up
    /// to two descriptors. 0: as many as the descriptor limit allows.
    pub connections: usize,
    /// Memory that this process may have in use, in bytes: beyond, requests and new connections are turned
    /// away until it is less. 0: nine tenths of what the machine gives it (its control group), if that says
    /// anything.
    pub memory: u64,
    /// Idle connections kept to one server by one worker.
    pub idle_per_server: usize,
    /// Requests served on one client connection before it is closed, so that load can be rebalanced.
    /// 0: no bound.
    pub requests_per_connection: u64,
}

impl Limits {
    /// What a check may send, in bytes: a request, no document.
    pub const CHECK_SENT: usize = 4 << 10;
    /// As much of an answer to a check is read; a health page is shorter.
    pub const CHECK_HEARD: usize = 64 << 10;
    /// A line of an answer to a check. RFC 5321 §4.5.3.1.5 has 512, capabilities of IMAP reach 1,500.
    pub const CHECK_LINE: usize = 4 << 10;
    /// Lines of one such answer: FTP servers greet with pages of rules.
    pub const CHECK_LINES: usize = 1000;
    /// What a check keeps to be shown of what it said and heard, each.
    pub const CHECK_SHOWN: usize = 400;
    /// Programs run for checks at a time; more wait for their turn.
    pub const CHECK_COMMANDS: usize = 32;
    /// Changes of a server's health that are remembered.
    pub const CHANGES_KEPT: usize = 16;
    /// The largest `header-count` that can be configured; the parser's table is of this size.
    pub const HEADER_COUNT_CEILING: usize = 256;
    /// The largest `header-bytes` that can be configured.
    pub const HEADER_BYTES_CEILING: usize = 1 << 20;
    /// A request's body that rules look at, kept until a server is chosen; forms and calls of APIs are smaller by far.
    /// In chunks it may take twice as much. It is also what can be sent once more to another server.
    pub const CONDITION_BODY: usize = 64 << 10;
    /// Copies of requests that one worker has under way to other pools; more are dropped. Each holds a head and a body of
    /// [`Limits::CONDITION_BODY`] at most: 16 MiB in all where they are that large.
    pub const MIRRORS: usize = 128;
    /// Bytes of the answer to a copy that are read before its connection is closed: reading a short one to its end keeps the connection.
    pub const MIRRORED_ANSWER: usize = 1 << 20;
    /// A TLS ClientHello with its record headers. With post-quantum key shares and a ticket one has 2 to
    /// 4 KiB; one record holds no more than this.
    pub const HELLO_BYTES: usize = 16 << 10;
    /// A PROXY header. Version 1 has 107 bytes at most; in version 2 a client certificate is the largest
    /// thing that proxies put in, of some KiB, and other receivers end at 4 or 16 KiB.
    pub const PROXY_HEADER_BYTES: usize = 16 << 10;
    /// Certificates in one folder: a hoster's customers are tens of thousands, and each takes some KiB.
    pub const CERTIFICATES: usize = 100_000;
    /// TLS sessions kept in memory: of a listener's clients that take no tickets (few, and old), and of the
    /// names a pool's servers go by. A few hundred bytes each, some KiB with a client's certificate.
    pub const TLS_SESSIONS: usize = 4096;
    /// A session in a ticket. A client's chain of certificates is the most of it, 6 KiB when it is long;
    /// beyond, clients shake hands anew.
    pub const TLS_TICKET: usize = 16 << 10;
    /// Streams that an HTTP/2 client may have open; browsers and gRPC ask for no more.
    pub const STREAMS: u32 = 100;
    /// What a client or a server may send on one stream before it has been passed on, in bytes.
    pub const STREAM_WINDOW: u32 = 64 << 10;
    /// The same for all streams of a client's connection. One to a server has room for all that its streams may hold, so that a
    /// client that does not read holds no other one up.
    pub const CONNECTION_WINDOW: u32 = 1 << 20;
    /// How small the frames of one connection may be that wait to be passed on: each counts what it lacks
    /// of 256 bytes (`h2`), and more than this ends the connection. It is two streams' whole windows in frames
    /// of five bytes, the least message of gRPC, so that a slow reader costs no other stream anything;
    /// kept as 26,214 entries, some 4 MiB.
    pub const FRAME_BUDGET: usize = 2 * (Self::STREAM_WINDOW as usize / 5) * 251;
    /// Bytes of an answer that wait in one stream for their turn on the connection.
    pub const STREAM_BUFFER: usize = 64 << 10;
    /// Added to `header-bytes` for what RFC 9113 §6.5.2 counts a field over its text (32 bytes): cookies
    /// come in up to a thousand crumbs.
    pub const FIELD_OVERHEAD: usize = 1024 * 32;
    /// Streams that were reset before they were looked at; more end the connection.
    pub const PENDING_RESETS: usize = 100;
    /// The body of an RTSP message: a description or parameters, kept whole until it is passed on. Large descriptions have 10 KiB.
    pub const MEDIA_BODY: usize = 64 << 10;
    /// RTSP requests of one client that wait for their answers; beyond, no more are read. Players ask one at a time.
    pub const MEDIA_PENDING: usize = 32;
    /// Servers that one RTSP connection is at; players are at one, probes at a few.
    pub const MEDIA_SERVERS: usize = 8;
    /// Sessions of one RTSP connection, and presentations asked about: video walls have 64 on one.
    pub const MEDIA_SESSIONS_EACH: usize = 128;
    /// Streams of one session that are relayed: sound, pictures and captions of a few angles.
    pub const MEDIA_STREAMS: usize = 16;
    /// Streams that are relayed for clients of one address, each with a task and up to eight ports of the process:
    /// a video wall has them, and two or three players behind one address translator.
    pub const MEDIA_RELAYED_EACH: usize = 64;
    /// RTSP sessions of the process; some hundred bytes each, and far more than its ports or descriptors serve.
    pub const MEDIA_SESSIONS: usize = 100_000;
    /// Paths whose publisher is known, and presentations a client was told of.
    pub const MEDIA_PATHS: usize = 65_536;
    /// GET halves of RTSP tunnels that wait for their POST, or have it.
    pub const MEDIA_TUNNELS: usize = 16_384;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header_bytes: 64 << 10,
            header_count: 256,
            target_bytes: 16 << 10,
            chunk_extension_bytes: 256,
            chunk_extensions_total: 4 << 10,
            trailer_bytes: 8 << 10,
            trailer_count: 32,
            connections: 0,
            memory: 0,
            idle_per_server: 512,
            requests_per_connection: 0,
        }
    }
}
