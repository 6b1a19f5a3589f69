//! A blocking HTTP/1.1 client that hides nothing: what it returns is what came over the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

/// One request. `Ask::get("/x")` goes to the host `app.test`, `Ask::get("b.test/x")` to `b.test`.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    chunked: bool,
}

impl Ask {
    pub(crate) fn new(method: &str, place: &str) -> Self {
        let (host, target) = match place.find('/') {
            Some(0) => ("app.test", place),
            Some(at) => place.split_at(at),
            None => (place, "/"),
        };
        Self {
            method: method.to_owned(),
            host: host.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
            chunked: false,
        }
    }

    pub(crate) fn get(place: &str) -> Self {
        Self::new("GET", place)
    }

    pub(crate) fn post(place: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..Self::new("POST", place) }
    }

    pub(crate) fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes this target, whatever the place says.
    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    /// Sends the body in chunks.
    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The head, as it goes over the wire.
    pub(crate) fn head(&self) -> String {
        use std::fmt::Write as _;

        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match &self.body {
            Some(_) if self.chunked => head += "Transfer-Encoding: chunked\r\n",
            Some(body) => drop(write!(head, "Content-Length: {}\r\n", body.len())),
            None => {}
        }
        head + "\r\n"
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.head().as_bytes())?;
        let body = self.body.as_deref().unwrap_or_default();
        if self.chunked {
            for chunk in body.chunks(10_000) {
                write!(to, "{:x}\r\n", chunk.len())?;
                to.write_all(chunk)?;
                to.write_all(b"\r\n")?;
            }
            to.write_all(b"0\r\n\r\n")?;
        } else {
            to.write_all(body)?;
        }
        to.flush()
    }
}

/// One response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Statuses of the 1xx answers before this one.
    pub(crate) before: Vec<u16>,
}

impl Answer {
    /// The first line of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All lines of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Which origin answered, by its name.
    pub(crate) fn origin(&self) -> &str {
        self.header("x-origin").unwrap_or_default()
    }
}

/// Bytes both ways.
pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One connection.
pub(crate) struct Client {
    wire: BufReader<Box<dyn Wire>>,
    socket: TcpStream,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = socket(to)?;
        Ok(Self::over(Box::new(socket.try_clone()?), socket))
    }

    /// A client over `wire`, which ends in `socket`.
    pub(crate) fn over(wire: Box<dyn Wire>, socket: TcpStream) -> Self {
        Self { wire: BufReader::new(wire), socket }
    }

    pub(crate) fn send(&mut self, ask: &Ask) -> io::Result<Answer> {
        self.write(ask)?;
        self.read(&ask.method)
    }

    pub(crate) fn write(&mut self, ask: &Ask) -> io::Result<()> {
        ask.write(self.wire.get_mut())
    }

    pub(crate) fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.get_mut().write_all(bytes)?;
        self.wire.get_mut().flush()
    }

    /// Reads the answer to a request with this method.
    pub(crate) fn read(&mut self, method: &str) -> io::Result<Answer> {
        let mut before = Vec::new();
        loop {
            let (status, headers) = self.read_head()?;
            let mut answer = Answer { status, headers, ..Answer::default() };
            if (100..200).contains(&status) && status != 101 {
                before.push(status);
                continue;
            }
            self.read_body(method, &mut answer)?;
            return Ok(Answer { before, ..answer });
        }
    }

    pub(crate) fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status =
            status.ok_or_else(|| io::Error::other(format!("not a status line: {line}")))?;
        Ok((status, self.fields()?))
    }

    fn read_body(&mut self, method: &str, answer: &mut Answer) -> io::Result<()> {
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return Ok(());
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::other(format!("not a chunk: {line}")))?;
                if size == 0 {
                    answer.trailers = self.fields()?;
                    return Ok(());
                }
                let start = answer.body.len();
                answer.body.resize(start + size, 0);
                self.wire.read_exact(&mut answer.body[start..])?;
                self.line()?;
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().map_err(io::Error::other)?];
            self.wire.read_exact(&mut answer.body)
        } else {
            self.wire.read_to_end(&mut answer.body).map(drop)
        }
    }

    /// Whether the other side has closed the connection, after anything else that it sent.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.wire.read_to_end(&mut rest).is_ok() || rest.is_empty()
    }

    /// One byte, for tunnels and bodies that arrive slowly.
    pub(crate) fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.wire.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Leaves, both ways, without another word.
    pub(crate) fn leave(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.wire.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                return if line.is_empty() { Ok(fields) } else { Err(io::Error::other(line)) };
            };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// A socket whose waits end.
pub(crate) fn socket(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, DEADLINE)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
