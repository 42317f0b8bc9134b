//! A client that sends exactly the bytes it is told and reads answers strictly (RFC 9112).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// One connection, in clear unless it is said otherwise.
pub struct Client<S: Read + Write = TcpStream> {
    reader: BufReader<S>,
}

#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The origin that answered, as it calls itself.
    pub fn origin(&self) -> &str {
        self.field("x-origin").unwrap_or("")
    }
}

impl Client<TcpStream> {
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub fn try_connect(address: &str) -> io::Result<Client> {
        Client::over(TcpStream::connect(address)?)
    }

    /// Connects from this source address, which a loopback host has plenty of. `receive_buffer` makes
    /// the kernel keep little for a client that does not read.
    pub fn connect_from(address: &str, source: Option<&str>, receive_buffer: Option<usize>) -> Client {
        let to: SocketAddr = address.parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("a receive buffer");
        }
        if let Some(source) = source {
            let ip: IpAddr = source.parse().expect("a source address");
            socket.bind(&SocketAddr::new(ip, 0).into()).expect("a socket bound to a loopback address");
        }
        socket.connect(&to.into()).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        Client::over(socket.into()).expect("a connected socket")
    }

    fn over(stream: TcpStream) -> io::Result<Client> {
        Client::prepare(&stream)?;
        Ok(Client::new(stream))
    }

    /// No test waits for ever.
    pub fn prepare(stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)
    }

    pub fn stream(&self) -> &TcpStream {
        self.inner()
    }
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client { reader: BufReader::with_capacity(2048, stream) }
    }

    pub fn inner(&self) -> &S {
        self.reader.get_ref()
    }

    /// The connection itself, of which nothing may have been read.
    pub fn into_inner(self) -> S {
        self.reader.into_inner()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request without body, host `t.example` unless the fields name one, and reads its answer.
    pub fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: t.example\r\n");
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head)?;
        self.answer(method)
    }

    /// Reads one final answer whole; interim ones (1xx) are passed over.
    pub fn answer(&mut self, method: &str) -> io::Result<Answer> {
        loop {
            let mut answer = self.head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            self.body(method, &mut answer)?;
            return Ok(answer);
        }
    }

    /// Reads one head, interim or final.
    pub fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or("");
        let status = parts.next().and_then(|code| code.parse().ok());
        let (true, Some(status)) = (matches!(version, "HTTP/1.1" | "HTTP/1.0"), status) else {
            return Err(io::Error::other(format!("not a status line: {line:?}")));
        };
        Ok(Answer { status, fields: self.fields()?, ..Answer::default() })
    }

    /// The body of `answer`, framed as RFC 9112 §6.3 says.
    fn body(&mut self, method: &str, answer: &mut Answer) -> io::Result<()> {
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return Ok(());
        }
        if answer.field("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let digits = line.split(';').next().unwrap_or("").trim();
                let size = usize::from_str_radix(digits, 16)
                    .map_err(|_| io::Error::other(format!("not a chunk size: {line:?}")))?;
                if size == 0 {
                    answer.trailers = self.fields()?;
                    return Ok(());
                }
                let start = answer.body.len();
                answer.body.resize(start + size, 0);
                self.reader.read_exact(&mut answer.body[start..])?;
                if !self.line()?.is_empty() {
                    return Err(io::Error::other("a chunk is longer than it says"));
                }
            }
        }
        if let Some(length) = answer.field("content-length") {
            let length = length.parse().map_err(|_| io::Error::other(format!("not a length: {length:?}")))?;
            answer.body.resize(length, 0);
            return self.reader.read_exact(&mut answer.body);
        }
        self.reader.read_to_end(&mut answer.body).map(drop)
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(io::Error::other(format!("not a field line: {line:?}")));
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// One line, which must end in CRLF.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.strip_suffix(b"\r\n") {
            Some(text) => String::from_utf8(text.to_vec()).map_err(io::Error::other),
            None => Err(io::Error::other(format!("a line without CRLF: {:?}", String::from_utf8_lossy(&line)))),
        }
    }

    /// Reads body bytes as they come; 0 at the end of the connection.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }

    pub fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(into)
    }
}

/// One GET on a connection of its own.
pub fn get(address: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    Client::connect(address)
        .request("GET", target, fields)
        .unwrap_or_else(|error| panic!("GET {target} of {address} with {fields:?}: {error}"))
}
