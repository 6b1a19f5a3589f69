//! A backend: a thread per connection, a script that answers, and a memory of what it was asked.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::DEADLINE;

/// One request as the backend saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The first line of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What the script answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
    raw: Option<Vec<u8>>,
    close: bool,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            chunked: false,
            raw: None,
            close: false,
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::text(status, "")
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, ..Self::ok(body) }
    }

    /// These bytes, and then the connection is closed.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), close: true, ..Self::ok("") }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Closes the connection after the answer, without saying so in it.
    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    fn write(&self, to: &mut TcpStream, asked: &Seen) -> io::Result<()> {
        if let Some(raw) = &self.raw {
            return to.write_all(raw);
        }
        let mut message = Vec::new();
        write!(message, "HTTP/1.1 {} Scripted\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(message, "{name}: {value}\r\n")?;
        }
        if self.chunked {
            message.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if self.status != 204 && self.status != 304 {
            write!(message, "Content-Length: {}\r\n", self.body.len())?;
        }
        message.extend_from_slice(b"\r\n");
        if asked.method != "HEAD" && self.chunked {
            for chunk in self.body.chunks(10_000) {
                write!(message, "{:x}\r\n", chunk.len())?;
                message.extend_from_slice(chunk);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
        } else if asked.method != "HEAD" {
            message.extend_from_slice(&self.body);
        }
        to.write_all(&message)
    }
}

/// A backend on a port of its own. It ends when it is dropped.
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    open: Arc<Mutex<HashMap<usize, TcpStream>>>,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Origin {
    /// Answers with its name, or with the body that it got.
    pub(crate) fn start() -> Self {
        Self::named("origin")
    }

    /// The same, with a name of its own in `X-Origin`.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::with(move |seen| {
            let body = if seen.body.is_empty() { name.as_bytes() } else { &seen.body };
            Reply::ok(body).header("X-Origin", name)
        })
    }

    /// Answers as the script says.
    pub(crate) fn with(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&seen);
        Self::serve(seen, move |stream, _| {
            // A client that goes away in the middle is part of some stories.
            let _ = converse(stream, &memory, &script);
        })
    }

    /// Hands every connection over, with its number.
    pub(crate) fn raw(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::serve(Arc::default(), serve)
    }

    fn serve(
        seen: Arc<Mutex<Vec<Seen>>>,
        serve: impl Fn(TcpStream, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(Mutex::new(HashMap::new()));
        let serve = Arc::new(serve);
        let (stopped, count, kept) = (Arc::clone(&stop), Arc::clone(&accepted), Arc::clone(&open));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let connection = count.fetch_add(1, Ordering::AcqRel);
                let _ = stream.set_read_timeout(Some(DEADLINE));
                let _ = stream.set_nodelay(true);
                if let Ok(clone) = stream.try_clone() {
                    kept.lock().unwrap().insert(connection, clone);
                }
                let (serve, kept) = (Arc::clone(&serve), Arc::clone(&kept));
                thread::spawn(move || {
                    serve(stream, connection);
                    // The last hold on the socket: only now is it closed.
                    kept.lock().unwrap().remove(&connection);
                });
            }
        });
        Self { address, seen, open, accepted, stop }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests came.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// All requests, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("the origin was asked nothing")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        for (_, stream) in self.open.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn converse(
    stream: TcpStream,
    memory: &Mutex<Vec<Seen>>,
    script: &impl Fn(&Seen) -> Reply,
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(seen) = read_request(&mut input, &mut out)? {
        memory.lock().unwrap().push(seen.clone());
        let reply = script(&seen);
        reply.write(&mut out, &seen)?;
        if reply.close {
            out.shutdown(Shutdown::Both)?;
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one request with its body; `None` when the connection ends before one.
fn read_request(input: &mut impl BufRead, out: &mut impl Write) -> io::Result<Option<Seen>> {
    let line = line(input)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut seen = Seen { method, target, ..Seen::default() };
    seen.headers = fields(input)?;
    if seen.header("expect").is_some() {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if seen.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&line_of(input)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                fields(input)?;
                break;
            }
            let start = seen.body.len();
            seen.body.resize(start + size, 0);
            input.read_exact(&mut seen.body[start..])?;
            line_of(input)?;
        }
    } else if let Some(length) = seen.header("content-length") {
        seen.body = vec![0; length.parse().map_err(io::Error::other)?];
        input.read_exact(&mut seen.body)?;
    }
    Ok(Some(seen))
}

fn line_of(input: &mut impl BufRead) -> io::Result<String> {
    let line = line(input)?;
    Ok(line.trim().to_owned())
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn fields(input: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(input)?;
        match line.split_once(':') {
            Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
            None if line.is_empty() => return Ok(fields),
            None => return Err(io::Error::other(line)),
        }
    }
}
