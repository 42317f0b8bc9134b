//! An RTSP server in the test's own hands: what it says is odd where a test wants it so, and it keeps what it heard.

use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::viewer::{Viewer, field, framed};

/// How it behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// The whole `Session` field of its answers; by default a number of its own for each session.
    pub session: Option<&'static str>,
    /// Each line of an answer is a segment of its own.
    pub split: bool,
    /// It names itself wherever a URL stands, and its tracks by their whole address.
    pub own_name: bool,
    /// It wants digest, and the signed address to be the one of the request line.
    pub digest: bool,
    /// It asks the client something as soon as it plays.
    pub asks: bool,
    /// Seconds that its sessions live, if not 60.
    pub timeout: Option<u32>,
    /// It plays on and on, as fast as it is taken, until nobody takes it any more.
    pub floods: bool,
}

pub struct Scripted {
    pub address: String,
    /// The heads of all messages that came.
    heard: Arc<Mutex<Vec<String>>>,
    /// Clients that are connected.
    guests: Arc<()>,
}

/// Frames of a stream, and how many of them come before it waits to be asked to go on.
pub const FRAMES: usize = 30;
pub const BEFORE: usize = 10;

/// The bytes of a frame, the same on both sides. One is empty, and one of every eighth stream as long as can be.
pub fn pattern(stream: u64, number: usize) -> Vec<u8> {
    let mut state =
        (stream + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = match number {
        7 if stream.is_multiple_of(8) => usize::from(u16::MAX),
        8 => 0,
        _ => 12 + (next() % 1448) as usize,
    };
    // Dollar signs and line ends are no rarity, so that whoever loses count takes them for more than they are.
    let byte = |random: u64| match random >> 32 & 7 {
        0 => b'$',
        1 => b"\r\nRTSP/1.0 $"[(random % 12) as usize],
        _ => random as u8,
    };
    (0..length).map(|_| byte(next())).collect()
}

/// The bytes of a frame that the client sends.
pub fn report(stream: u64, number: usize) -> Vec<u8> {
    pattern(stream, 1000 + number)
}

impl Scripted {
    pub fn start(manner: Manner) -> Scripted {
        Scripted::at("127.0.0.1:0", manner)
    }

    /// In the network of this thread.
    pub fn at(address: &str, manner: Manner) -> Scripted {
        let listener = TcpListener::bind(address).expect("a port for a server");
        let address = listener.local_addr().expect("its address").to_string();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, name) = (Arc::clone(&heard), address.clone());
        let guests = Arc::new(());
        let present = Arc::clone(&guests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, heard, name) = (manner.clone(), Arc::clone(&all), name.clone());
                let guest = Arc::clone(&present);
                let attend = move || {
                    Attendant { manner, heard, name, viewer: Viewer::on(stream) }.attend();
                    drop(guest);
                };
                std::thread::Builder::new().stack_size(256 << 10).spawn(attend).expect("a thread");
            }
        });
        Scripted { address, heard, guests }
    }

    /// How many clients are connected.
    pub fn guests(&self) -> usize {
        // This, and the one that listens.
        Arc::strong_count(&self.guests) - 2
    }

    /// The heads it heard so far that begin with this word.
    pub fn heard(&self, method: &str) -> Vec<String> {
        let heard = self.heard.lock().expect("what was heard");
        heard.iter().filter(|head| head.split(' ').next() == Some(method)).cloned().collect()
    }
}

struct Attendant {
    manner: Manner,
    heard: Arc<Mutex<Vec<String>>>,
    name: String,
    viewer: Viewer,
}

impl Attendant {
    fn attend(mut self) {
        let mut ports = None;
        // Whoever was connected leaves: the end of this thread, whatever it was about to say.
        while let Some(told) = self.viewer.next_told() {
            let head = told.head;
            self.heard.lock().expect("what was heard").push(head.clone());
            let mut words = head.split(' ');
            let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if method.starts_with("RTSP/") {
                continue;
            }
            let number = field(&head, "cseq").unwrap_or("0").to_owned();
            let signed =
                field(&head, "authorization").and_then(|value| value.split("uri=\"").nth(1)?.split('"').next());
            if self.manner.digest && method != "OPTIONS" && signed != Some(uri) {
                let challenge = "WWW-Authenticate: Digest realm=\"it\", nonce=\"abc\"\r\n";
                self.say(&format!("RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\n{challenge}\r\n"));
                continue;
            }
            let good = |fields: &str| format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{fields}\r\n");
            match method {
                "DESCRIBE" => {
                    let own = format!("rtsp://{}{}/", self.name, path(uri));
                    let (base, track) = if self.manner.own_name {
                        (own.clone(), format!("{own}track1"))
                    } else {
                        (format!("{uri}/"), "track1".to_owned())
                    };
                    let body = format!(
                        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=scripted\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
                         a=rtpmap:96 H264/90000\r\na=control:{track}\r\n"
                    );
                    let fields = format!(
                        "Content-Base: {base}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n",
                        body.len()
                    );
                    self.say(&(good(&fields) + &body));
                }
                "SETUP" => {
                    let asked = field(&head, "transport").unwrap_or_default().to_owned();
                    let (line, opened) = transport(&asked, &self.viewer.stream);
                    ports = opened;
                    self.say(&good(&format!("Transport: {line}\r\nSession: {}\r\n", self.session())));
                }
                "PLAY" => {
                    let stream = number_of(uri);
                    let Some((media, _)) = &ports else {
                        let _ = self.viewer.stream.write_all(&framed(0, &pattern(stream, 0)));
                        self.say(&good(""));
                        if self.manner.asks {
                            self.say(&format!("GET_PARAMETER {uri} RTSP/1.0\r\nCSeq: 77\r\n\r\n"));
                        }
                        self.play(stream, 1..if self.manner.floods { usize::MAX } else { BEFORE });
                        continue;
                    };
                    let media = media.try_clone().expect("a socket");
                    self.say(&good(""));
                    for number in 0..BEFORE {
                        let _ = media.send(&pattern(stream, number));
                    }
                }
                // What makes it go on, so that an answer stands between two frames.
                "GET_PARAMETER" => {
                    let stream = number_of(uri);
                    let sent = (0..).zip(&self.viewer.frames);
                    let right =
                        sent.filter(|(number, (channel, bytes))| *channel == 1 && *bytes == report(stream, *number));
                    self.say(&good(&format!("X-Reports: {}\r\n", right.count())));
                    if ports.is_none() && field(&head, "x-go-on").is_some() {
                        self.play(stream, BEFORE..FRAMES);
                    }
                }
                _ => self.say(&good("Public: OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER\r\n")),
            }
        }
    }

    fn session(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = || NEXT.fetch_add(1, Ordering::Relaxed);
        let timeout = self.manner.timeout.unwrap_or(60);
        self.manner.session.map_or_else(|| format!("{:08X};timeout={timeout}", 0x1000_0000 + number()), str::to_owned)
    }

    fn play(&mut self, stream: u64, numbers: std::ops::Range<usize>) {
        for number in numbers {
            if self.viewer.stream.write_all(&framed(0, &pattern(stream, number))).is_err() {
                return;
            }
        }
    }

    fn say(&mut self, text: &str) {
        if !self.manner.split {
            let _ = self.viewer.stream.write_all(text.as_bytes());
            return;
        }
        for line in text.split_inclusive('\n') {
            let _ = self.viewer.stream.write_all(line.as_bytes());
            // So that they travel apart; nothing is waited for.
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// What it agrees to, and for UDP its two ports, the first connected to the client's.
fn transport(asked: &str, stream: &TcpStream) -> (String, Option<(UdpSocket, UdpSocket)>) {
    let one = asked.split(',').next().unwrap_or_default();
    let parameter = |name: &str| {
        one.split(';').find_map(|word| word.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let Some(client) = parameter("client_port") else {
        return (one.to_owned(), None);
    };
    let port: u16 = client.split('-').next().and_then(|port| port.parse().ok()).expect("a port");
    let here = stream.local_addr().expect("an address").ip();
    let bind = || UdpSocket::bind((here, 0)).expect("a port");
    let (media, reports) = (bind(), bind());
    media.connect((stream.peer_addr().expect("a peer").ip(), port)).expect("the client's port");
    let number = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
    (format!("{one};server_port={}-{}", number(&media), number(&reports)), Some((media, reports)))
}

fn path(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    rest.trim_end_matches('/')
}

/// Which stream an address means: the digits of its first segment.
fn number_of(uri: &str) -> u64 {
    let first = path(uri).split(['/', '?']).nth(1).unwrap_or_default();
    first.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}
