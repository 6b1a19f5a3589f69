//! The first reader as a whole: a proxy, raw bytes into it, and a backend that writes down what it gets. The second
//! reader reads at both ends.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use doorward::app::App;
use doorward::config::loader;
use doorward::values::Disk;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::generate::Case;
use crate::reference::{Arrival, End, Message, expects, one, outgoing, part, stream};

/// No answer takes longer, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests that broke off may reach the backend while later ones are tried already.
const LATE: usize = 50;

/// A proxy with an entry point for each lane, and nothing of one lane in another.
pub(crate) struct Proxy {
    app: App,
    _directory: TempDir,
}

impl Proxy {
    pub(crate) fn start(lanes: usize) -> (Self, Vec<Lane>) {
        let directory = TempDir::new().unwrap();
        let backends: Vec<Backend> = (0..lanes).map(|_| Backend::start()).collect();
        let mut entry_points = Map::new();
        let (mut routers, mut services) = (Map::new(), Map::new());
        for (lane, backend) in backends.iter().enumerate() {
            let name = format!("lane{lane}");
            entry_points.insert(name.clone(), json!({"address": "127.0.0.1:0"}));
            let router = json!({"rule": "!Path(`/never`)", "service": name, "entryPoints": [name]});
            routers.insert(name.clone(), router);
            let server = json!({"url": format!("http://{}", backend.address)});
            services.insert(name, json!({"loadBalancer": {"servers": [server]}}));
        }
        let write = |name: &str, value: Value| {
            let file = directory.path().join(name);
            fs::write(&file, value.to_string()).unwrap();
            file
        };
        let dynamic = json!({"http": {"routers": routers, "services": services}});
        let dynamic = write("dynamic.yml", dynamic);
        let options = json!({
            "core": {"workers": 2},
            "entryPoints": entry_points,
            "providers": {"file": {"filename": dynamic}},
        });
        let file = write("static.json", options);
        let loaded = loader::load_file(&file, &Disk).unwrap();
        let app = App::start(&loaded.config, std::collections::BTreeMap::new()).unwrap();
        let lanes = backends.into_iter().enumerate().map(|(lane, backend)| {
            Lane::new(app.address(&format!("lane{lane}")).unwrap(), backend)
        });
        let lanes = lanes.collect();
        (Self { app, _directory: directory }, lanes)
    }

    pub(crate) fn stop(self) {
        drop(self.app);
    }
}

/// One client, one entry point, one backend.
pub(crate) struct Lane {
    pub(crate) web: SocketAddr,
    pub(crate) backend: Backend,
    pub(crate) server: String,
    /// What is still allowed to arrive in part.
    late: Mutex<VecDeque<Message>>,
}

impl Lane {
    fn new(web: SocketAddr, backend: Backend) -> Self {
        let mut lane = Self { web, backend, server: String::new(), late: Mutex::default() };
        lane.canary();
        let seen = lane.backend.take();
        let server = &seen.whole[0].fields["x-forwarded-server"][0];
        lane.server = String::from_utf8(server.clone()).unwrap();
        lane
    }

    pub(crate) fn arrival(&self, http2: bool) -> Arrival<'_> {
        let backend = &self.backend.name;
        Arrival { peer: "127.0.0.1", server: &self.server, http2, backend }
    }

    /// Whoever comes next must be served as if nothing had been.
    pub(crate) fn canary(&self) {
        let bytes = b"GET /canary HTTP/1.1\r\nHost: canary.test\r\n\r\n".to_vec();
        let mut client = Client::connect(self.web).unwrap();
        client.send(&[bytes]);
        let answer = client.answer(b"GET").unwrap();
        assert_eq!(answer, Some(200), "the proxy does not serve the next client");
    }

    /// What the two readers disagree on, if they do.
    pub(crate) fn check(&self, case: &Case) -> Result<usize, String> {
        let (messages, end) = stream(&case.bytes);
        let result = self.talk(case, &messages, end);
        let (cut, whole): (Vec<_>, Vec<_>) =
            messages.iter().map(|one| outgoing(one, &self.arrival(false))).partition(|one| one.cut);
        let compared = self.compare(&whole, &cut);
        result.and(compared).map(|()| messages.len())
    }

    /// Compares what the backend got with `whole`, and with `part`, which may get there in part or not at all.
    pub(crate) fn compare(&self, whole: &[Message], part: &[Message]) -> Result<(), String> {
        self.late.lock().unwrap().extend(part.iter().cloned());
        let mut seen = self.backend.take();
        let mut late = self.late.lock().unwrap();
        // What is not cut there may arrive whole too, as long as it said that it was.
        let mut wanted = whole.iter();
        seen.whole.retain(|got| {
            wanted.as_slice().first().is_some_and(|want| want == got) && wanted.next().is_some()
                || !late.iter().any(|want| !want.cut && got.is_part_of(want))
        });
        if let Some(broken) = seen.broken.first() {
            return Err(format!("the backend got no HTTP: {}", broken.escape_ascii()));
        }
        for got in &seen.part {
            if !late.iter().any(|want| got.is_part_of(want)) {
                return Err(format!("the backend got a part of\n {got:?}"));
            }
        }
        while late.len() > LATE {
            late.pop_front();
        }
        if seen.whole.as_slice() != whole {
            return Err(format!("the backend got\n {:?}\nand not\n {whole:?}", seen.whole));
        }
        Ok(())
    }

    /// Sends the bytes and reads what comes back.
    fn talk(&self, case: &Case, messages: &[Message], end: End) -> Result<(), String> {
        let mut client = Client::connect(self.web).map_err(|error| error.to_string())?;
        client.send(&case.pieces());
        let whole = messages.iter().filter(|one| !one.cut);
        for (number, message) in whole.enumerate() {
            match client.answer(&message.method) {
                Ok(Some(200)) => {}
                other => return Err(format!("the answer to request {number} is {other:?}")),
            }
        }
        match end {
            End::Clean | End::Short => Ok(()),
            End::Closed => match client.answer(b"GET") {
                Ok(None) => Ok(()),
                other => Err(format!("behind the last request there is {other:?}")),
            },
            // The answer may be none, where it looks like another protocol.
            End::Refused => match client.answer(b"GET") {
                Ok(None) => Ok(()),
                Ok(Some(400..=599)) => match client.rest() {
                    Ok(()) => Ok(()),
                    Err(error) => Err(format!("behind the refusal: {error}")),
                },
                other => Err(format!("what is no request is answered with {other:?}")),
            },
        }
    }
}

/// A client that reads what it needs to know.
pub(crate) struct Client {
    socket: TcpStream,
    held: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, held: Vec::new() })
    }

    /// The proxy may have heard enough before the last piece.
    pub(crate) fn send(&mut self, pieces: &[Vec<u8>]) {
        for piece in pieces {
            if self.socket.write_all(piece).is_err() {
                return;
            }
        }
    }

    /// So many bytes; `None` when the connection ends before the first.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        while self.held.len() < count {
            let mut space = [0; 4096];
            match self.socket.read(&mut space) {
                Ok(0) if self.held.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.held.extend(&space[..read]),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.held.drain(..count).collect()))
    }

    /// The status of the next answer that is no interim one; `None` when there is none.
    fn answer(&mut self, method: &[u8]) -> io::Result<Option<u16>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Some(byte) = self.take(1)? else {
                return if head.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::other("half an answer"))
                };
            };
            head.extend(byte);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?.to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(head.clone()))?;
        if status < 200 {
            return self.answer(method);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        if method != b"HEAD" && length > 0 {
            self.take(length)?;
        }
        Ok(Some(status))
    }

    /// What there is until the end of the connection, which is nothing.
    fn rest(&mut self) -> io::Result<()> {
        match self.take(1)? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("there is more")),
        }
    }
}

/// What a backend got.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) whole: Vec<Message>,
    pub(crate) part: Vec<Message>,
    broken: Vec<Vec<u8>>,
}

/// A backend that answers every request alike.
pub(crate) struct Backend {
    address: SocketAddr,
    name: String,
    seen: Arc<Mutex<Seen>>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let memory = Arc::clone(&seen);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let memory = Arc::clone(&memory);
                // A proxy that gives up in the middle is part of the game.
                thread::spawn(move || drop(serve(socket, &memory)));
            }
        });
        Self { address, name: address.to_string(), seen }
    }

    /// What has come since it was asked last.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn serve(mut socket: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut held = Vec::new();
    let mut told = false;
    let mut space = [0; 16 * 1024];
    loop {
        match one(&held) {
            Ok(Some((message, length))) => {
                held.drain(..length);
                told = false;
                let bodiless = message.method == b"HEAD";
                seen.lock().unwrap().whole.push(bare(message));
                let body = if bodiless { "" } else { "ok" };
                socket.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}").as_bytes(),
                )?;
                continue;
            }
            Ok(None) if !told && expects(&held) => {
                told = true;
                socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            Ok(None) => {}
            Err(_) => {
                seen.lock().unwrap().broken.push(held);
                return Ok(());
            }
        }
        let read = socket.read(&mut space);
        let Ok(1..) = read else {
            match part(&held) {
                Some(message) => seen.lock().unwrap().part.push(bare(message)),
                None if held.is_empty() => {}
                None => seen.lock().unwrap().broken.push(held),
            }
            return Ok(());
        };
        held.extend(&space[..read?]);
    }
}

/// Without what frames the body, which is read already.
fn bare(mut message: Message) -> Message {
    message.fields.remove("content-length");
    message.fields.remove("transfer-encoding");
    message
}
