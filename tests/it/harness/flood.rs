//! Floods: an attacker who is held to a rate, a polite second client who judges, and a sink that the same attacker is
//! aimed at for comparison.
//!
//! The bar: the polite client sees no error, and its 99th percentile is at most twice, or 20 ms more than, what it is
//! while the attack goes to the sink. The machine has other things to do, so a comparison that fails is made again a bit
//! later, six times in all. One flood at a time, also when tests run side by side.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::client::socket;
use super::{Ask, Client, pause};

/// How long the attacker and the judge are at it, each time.
const TIME: Duration = Duration::from_millis(600);
/// Between two requests of the judge.
const PACE: Duration = Duration::from_millis(3);
/// Bytes per second of an attacker.
const RATE: usize = 512 << 10;
/// What the answers may be later with the attack than without it.
const SLACK: Duration = Duration::from_millis(20);

static ALONE: Mutex<()> = Mutex::new(());

/// Keeps other floods away.
pub(crate) fn alone() -> impl Drop {
    struct Guard(#[expect(dead_code, reason = "held")] std::sync::MutexGuard<'static, ()>);
    impl Drop for Guard {
        fn drop(&mut self) {}
    }
    Guard(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Where an attacker aims, how fast it may be, and whether it is over.
pub(crate) struct Attack {
    pub(crate) to: SocketAddr,
    stop: Arc<AtomicBool>,
    begin: Instant,
    sent: usize,
}

impl Attack {
    fn new(to: SocketAddr, stop: Arc<AtomicBool>) -> Self {
        Self { to, stop, begin: Instant::now(), sent: 0 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A connection, which may not be had.
    pub(crate) fn connect(&mut self) -> io::Result<TcpStream> {
        // So much does a connection cost at least.
        self.wait(2000)?;
        let stream = socket(self.to)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Says all of it, and takes what is answered.
    pub(crate) fn say(&mut self, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        let mut answers = [0; 1 << 14];
        while !bytes.is_empty() {
            let part = &bytes[..bytes.len().min(1 << 14)];
            self.wait(0)?;
            match stream.write(part) {
                Ok(written) => {
                    self.sent += written;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    pause(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
            match stream.read(&mut answers) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until so many bytes more are due.
    pub(crate) fn wait(&mut self, bytes: usize) -> io::Result<()> {
        self.sent += bytes;
        let due = Duration::from_nanos(self.sent as u64 * 1_000_000_000 / RATE as u64);
        while self.begin.elapsed() < due {
            if self.is_over() {
                break;
            }
            pause(Duration::from_millis(1));
        }
        if self.is_over() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Binds this thread to the last processor, where the machine has such a command.
fn pin() {
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else { return };
    let Some(id) = thread.file_name().and_then(|id| id.to_str()) else { return };
    let last = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    let mut taskset = std::process::Command::new("taskset");
    let _ = taskset.args(["-p", "-c", &last.to_string(), id]).output();
}

/// Takes everything, and answers nothing.
struct Sink {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let (mut open, mut scratch) = (Vec::new(), vec![0; 1 << 16]);
            while !over.load(Ordering::Acquire) {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    open.push(stream);
                }
                open.retain_mut(|stream: &mut TcpStream| match stream.read(&mut scratch) {
                    Ok(count) => count > 0,
                    Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                });
                pause(Duration::from_millis(1));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What the polite client saw: the 99th percentile of its answers' times.
fn judged(
    polite: &mut Client,
    to: SocketAddr,
    attack: &(dyn Fn(&mut Attack) -> io::Result<()> + Sync),
) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let mut times = Vec::new();
    thread::scope(|scope| {
        let over = Arc::clone(&stop);
        scope.spawn(move || {
            pin();
            let mut aim = Attack::new(to, over);
            while !aim.is_over() {
                let _ = attack(&mut aim);
                // Whoever is thrown out comes again, ten times a second.
                let _ = aim.wait(50_000);
            }
        });
        let begin = Instant::now();
        let mut statuses = Vec::new();
        while begin.elapsed() < TIME {
            let start = Instant::now();
            let answer = polite.send(&Ask::get("/"));
            times.push(start.elapsed());
            statuses.push(answer.map_or(0, |answer| answer.status));
            pause(PACE.saturating_sub(start.elapsed()));
        }
        stop.store(true, Ordering::Release);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
    times.sort_unstable();
    times[times.len() - 1 - times.len() / 100]
}

/// Whether the polite client does not suffer from an attack at `to`.
pub(crate) fn withstand(
    name: &str,
    polite: &mut Client,
    to: SocketAddr,
    attack: impl Fn(&mut Attack) -> io::Result<()> + Sync,
) {
    let _alone = alone();
    let sink = Sink::start();
    let mut seen = Vec::new();
    for before in 0..6 {
        pause(TIME / 2 * before);
        let without = judged(polite, sink.address, &attack);
        let with = judged(polite, to, &attack);
        println!("{name}: p99 {with:?} under the flood, {without:?} with a sink");
        if with <= (2 * without).max(without + SLACK) {
            return;
        }
        seen.push((with, without));
    }
    panic!("{name}: the polite client waits too long: {seen:?}");
}

/// Frames of HTTP/2, as an attacker writes them.
pub(crate) mod frames {
    use std::io::{self, Read};

    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RESET: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;

    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
    pub(crate) const INITIAL_WINDOW: u16 = 4;

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// What a client says first.
    pub(crate) fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = settings
            .iter()
            .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()));
        bytes.extend(frame(SETTINGS, 0, 0, &settings.collect::<Vec<_>>()));
        bytes
    }

    /// The header block of a request.
    pub(crate) fn block(post: bool) -> Vec<u8> {
        let mut block = vec![if post { 0x83 } else { 0x82 }, 0x86, 0x84, 0x01, 8];
        block.extend(b"app.test");
        block
    }

    pub(crate) fn get(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(false))
    }

    /// A request whose body is to come.
    pub(crate) fn post(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &block(true))
    }

    pub(crate) fn window(stream: u32, more: u32) -> Vec<u8> {
        frame(WINDOW, 0, stream, &more.to_be_bytes())
    }

    pub(crate) fn reset(stream: u32) -> Vec<u8> {
        frame(RESET, 0, stream, &8_u32.to_be_bytes())
    }

    /// One frame: kind, flags, stream and payload.
    pub(crate) fn next(from: &mut impl Read) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        from.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok((head[3], head[4], stream, payload))
    }

    /// The error code of the GOAWAY that ends a connection; `None` when it ends without one.
    pub(crate) fn farewell(from: &mut impl Read) -> Option<u32> {
        loop {
            let (kind, _, _, payload) = next(from).ok()?;
            if kind == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    }
}
