//! Overload: what is given up before memory or descriptors run out, and that it comes back (F-46). With the program
//! itself, in a cgroup of its own or with few descriptors.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use rustix::process::{Resource, Rlimit, geteuid, prlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, block_on, everything_to, pause, until};

const LIMIT: u64 = 128 << 20;

/// A memory cgroup, of whichever version there is.
struct Group {
    folder: PathBuf,
    first: bool,
}

/// Runs a script as root, which making a cgroup takes.
fn as_root(script: &str) -> bool {
    let mut command = if geteuid().is_root() {
        Command::new("/bin/sh")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "/bin/sh"]);
        sudo
    };
    command.args(["-c", script]).status().is_ok_and(|status| status.success())
}

impl Group {
    fn new(limit: u64) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let of_memory = own.lines().find_map(|line| line.split_once(":memory:"));
        let name = format!("doorward-test-{}", std::process::id());
        let root = PathBuf::from("/sys/fs/cgroup");
        let (above, first) = match of_memory {
            Some((_, path)) => (root.join("memory").join(path.trim_start_matches('/')), true),
            None => (root, false),
        };
        let folder = above.join(name);
        let place = folder.display();
        let script = if first {
            format!("mkdir {place} && echo {limit} > {place}/memory.limit_in_bytes")
        } else {
            format!(
                "echo +memory > {}/cgroup.subtree_control; mkdir {place} && \
                 echo {limit} > {place}/memory.max && echo 0 > {place}/memory.swap.max",
                above.display()
            )
        };
        assert!(
            as_root(&script),
            "this test makes a memory cgroup: it needs root, or sudo without a password, and \
             /sys/fs/cgroup to be writable"
        );
        Self { folder, first }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// Bytes that the kernel could not take back.
    fn used(&self) -> u64 {
        let (usage, prefix) =
            if self.first { ("memory.usage_in_bytes", "total_") } else { ("memory.current", "") };
        let stat = self.read("memory.stat");
        let of = |name: &str| -> u64 {
            let name = format!("{prefix}{name} ");
            let found = stat.lines().find_map(|line| line.strip_prefix(&*name));
            found.map_or(0, |value| value.trim().parse().unwrap())
        };
        let usage: u64 = self.read(usage).trim().parse().unwrap();
        usage.saturating_sub(of("inactive_file") + of("active_file"))
    }

    /// How many processes the kernel has killed here for want of memory.
    fn killed(&self) -> u64 {
        let events = self.read(if self.first { "memory.oom_control" } else { "memory.events" });
        let found = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        found.expect("the kernel counts them").trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may take a moment to let go of a process that has ended.
        for _ in 0..200 {
            if as_root(&format!("rmdir {} 2>/dev/null", self.folder.display())) {
                return;
            }
            pause(Duration::from_millis(20));
        }
    }
}

/// The value of one line of the metrics; 0 when it is not there.
fn metric(process: &Process, line: &str) -> f64 {
    let text = Client::connect(process.address("traefik"))
        .and_then(|mut client| client.send(&Ask::get("/metrics")))
        .unwrap_or_else(|error| panic!("{error}: {}", said(process)))
        .text();
    let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

/// What the log says of overload.
fn said(process: &Process) -> String {
    let log = process.log();
    let lines = log.lines().filter(|line| line.contains(r#""message":"overload""#));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn step(process: &Process, resource: &str) -> f64 {
    metric(process, &format!("doorward_overload_step{{resource=\"{resource}\"}}"))
}

fn done(process: &Process, action: &str) -> f64 {
    metric(process, &format!("doorward_overload_actions_total{{action=\"{action}\"}}"))
}

/// What a client that asks again and again has got.
#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    refused: AtomicUsize,
    cut: AtomicUsize,
    stop: AtomicBool,
}

impl Tally {
    /// Asks until it is told to stop, over one connection as long as that is kept.
    fn ask(&self, to: SocketAddr) {
        let mut kept = None;
        while !self.stop.load(Ordering::Acquire) {
            let answer = match kept.take() {
                Some(client) => Ok(client),
                None => Client::connect(to),
            }
            .and_then(|mut client: Client| Ok((client.send(&Ask::get("/"))?, client)));
            let counted = match &answer {
                Ok((answer, _)) if answer.status == 200 => &self.served,
                Ok((answer, _)) => {
                    assert_eq!(answer.status, 503);
                    assert!(answer.header("retry-after").is_some());
                    &self.refused
                }
                Err(_) => &self.cut,
            };
            counted.fetch_add(1, Ordering::AcqRel);
            let keep = answer.ok().filter(|(answer, _)| answer.header("connection").is_none());
            kept = keep.map(|(_, client)| client);
            pause(Duration::from_millis(10));
        }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Acquire)
    }
}

/// A backend that accepts and reads nothing, ever.
fn deaf() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap().as_socket().unwrap());
    (socket, url)
}

/// A backend whose answers never end.
fn endless() -> Origin {
    Origin::raw(|mut stream, _| {
        let mut head = [0; 4096];
        if stream.read(&mut head).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99000000000\r\n\r\n");
            let block = vec![7; 1 << 16];
            while stream.write_all(&block).is_ok() {}
        }
    })
}

/// Connections of HTTP/1 that take memory in all the ways there are: answers that are not read, bodies that nobody
/// takes, bodies that are buffered, heads that do not end.
fn hoard(to: SocketAddr, hoarded: &mut Vec<TcpStream>) {
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: a.test\r\n{more}");
    for (start, more) in [
        (head("GET /endless", "\r\n"), 0),
        (head("POST /deaf", "Content-Length: 99000000\r\n\r\n"), 4 << 20),
        (head("POST /buffer", "Content-Length: 1040000\r\n\r\n"), 1_000_000),
        (head("GET /", "X-Long: "), 600_000),
    ] {
        // Refused, or closed under it: that is what it is for.
        let Ok(mut stream) = socket(to) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
        if stream.write_all(start.as_bytes()).is_ok() {
            let _ = stream.write_all(&vec![b'x'; more]);
        }
        hoarded.push(stream);
    }
}

/// A connection of HTTP/2 that sends as much of a body as it may, to where nobody reads it.
async fn hoard_http2(to: SocketAddr) -> Option<()> {
    let stream = tokio::net::TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = h2::client::handshake(stream).await.ok()?;
    let driver = tokio::spawn(connection);
    let request = Request::post("http://a.test/deaf").body(()).ok()?;
    let (_answer, mut body) = sender.send_request(request, false).ok()?;
    loop {
        body.reserve_capacity(1 << 16);
        let room = std::future::poll_fn(|task| body.poll_capacity(task)).await;
        let Some(Ok(room)) = room else { break };
        if body.send_data(vec![7; room].into(), false).is_err() {
            break;
        }
    }
    let _ = driver.await;
    None
}

/// F-46: in 128 MiB, with clients that would take many times as much, the kernel kills nobody: new requests are refused
/// in words, whoever asks for health is answered, and all is well again when the load is gone.
#[test]
fn memory_never_runs_out() {
    let (_deaf, deaf_url) = deaf();
    let (endless, small) = (endless(), Origin::start());
    let text = format!(
        "http:
          routers:
            endless: {{rule: 'Path(`/endless`)', service: endless}}
            deaf: {{rule: 'Path(`/deaf`)', service: deaf}}
            buffer: {{rule: 'Path(`/buffer`)', service: small, middlewares: [whole]}}
            all: {{rule: 'PathPrefix(`/`)', service: small}}
          middlewares:
            whole: {{buffering: {{}}}}
          services:
            endless: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            deaf: {{loadBalancer: {{servers: [{{url: '{deaf_url}'}}]}}}}
            small: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}",
        endless.url(),
        small.url()
    );
    let group = Group::new(LIMIT);
    let mut process = Process::in_group(&group.folder, &json!({}), &text);
    let web = process.address("web");
    let tally = Arc::new(Tally::default());
    let asking = Arc::clone(&tally);
    let asking = std::thread::spawn(move || asking.ask(web));
    until("it serves", || tally.served() > 3);

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let (mut held, mut steps, mut peak) = (Vec::new(), Vec::new(), 0);
    // Until requests have been refused for a while, and then half as much again.
    let (mut rounds, mut enough) = (0, 400);
    while rounds < enough {
        rounds += 1;
        if rounds <= 60 {
            hoard(web, &mut held);
        }
        for _ in 0..10 {
            runtime.spawn(hoard_http2(web));
        }
        pause(Duration::from_millis(20));
        peak = peak.max(group.used());
        assert!(!process.is_over(), "over after {rounds} rounds; killed: {}", group.killed());
        if rounds % 10 == 0 {
            let now = step(&process, "memory");
            if steps.last().is_none_or(|last| *last < now) {
                steps.push(now);
            }
            if enough == 400 && tally.refused.load(Ordering::Acquire) >= 5 {
                enough = rounds + rounds / 2;
            }
        }
    }
    let mut inside = Client::connect(process.address("traefik")).unwrap();
    assert_eq!(inside.send(&Ask::get("/ping")).unwrap().status, 200);
    let served = tally.served();
    let (refused, cut) = (tally.refused.load(Ordering::Acquire), tally.cut.load(Ordering::Acquire));
    assert!(refused > cut, "{refused} refused, {cut} cut, {served} served");
    assert!(steps.last().is_some_and(|step| *step >= 2.0), "{steps:?}");
    assert!(done(&process, "request_refused") > 0.0);
    assert!(done(&process, "connection_not_kept_alive") > 0.0);

    runtime.shutdown_background();
    drop(held);
    until("all steps are taken back", || step(&process, "memory") < 1.0);
    let served = tally.served();
    until("it serves again", || tally.served() > served + 20);
    tally.stop.store(true, Ordering::Release);
    asking.join().unwrap();
    until("memory falls", || group.used() < LIMIT * 85 / 100);
    assert!(!process.is_over());
    assert_eq!(group.killed(), 0);
    let said = said(&process);
    assert!(said.contains(r#""step":"refuse requests""#), "{said}");
    assert!(said.lines().count() < 60, "steps may change a few times in a second: {said}");
    println!(
        "{rounds} rounds, at most {} MiB, {} after; steps {steps:?}; {served} served, {refused} \
         refused, {cut} cut",
        peak >> 20,
        group.used() >> 20
    );
}

/// Descriptors are never used up: what rests is closed, who comes then is turned away, and who is connected is served
/// all the time.
#[test]
fn descriptors_never_run_out() {
    let origin = Origin::start();
    let process = Process::start(&json!({}), &everything_to(&origin.url()));
    let web = process.address("web");
    let mut served = Client::connect(web).unwrap();
    assert_eq!(served.send(&Ask::get("/")).unwrap().status, 200);
    let listed = || {
        let folder = format!("/proc/{}/fd", process.id().as_raw_nonzero());
        fs::read_dir(folder).unwrap().count()
    };
    let limit = u64::try_from(listed()).unwrap() + 400;
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(process.id()), Resource::Nofile, limit).unwrap();
    until("the limit is known", || {
        let known = metric(&process, "doorward_overload_limit{resource=\"descriptors\"}");
        Some(known) == limit.current.map(|limit| f64::from(u32::try_from(limit).unwrap()))
    });

    // Half of them ask for something that takes a while, so that closing what rests is not enough.
    let mut waiting = Vec::new();
    let mut highest = 0.0;
    until("somebody is turned away", || {
        for _ in 0..20 {
            let mut client = Client::connect(web).unwrap();
            let body = Ask::post("/", "").head().replace("Length: 0", "Length: 9");
            let _ = client.write_raw(body.as_bytes());
            waiting.push(client);
        }
        let answer = served.send(&Ask::get("/")).map(|answer| answer.status);
        assert_eq!(answer.ok(), Some(200), "{}", said(&process));
        let refused = done(&process, "connection_refused") > 0.0;
        highest = step(&process, "descriptors").max(highest);
        refused
    });
    assert!(highest >= 1.0, "{highest}");
    assert!(!process.log().contains("cannot accept"), "{}", said(&process));
    for _ in 0..20 {
        assert_eq!(served.send(&Ask::get("/")).unwrap().status, 200);
        pause(Duration::from_millis(20));
    }

    drop(waiting);
    until("all steps are taken back", || step(&process, "descriptors") < 1.0);
    let mut late = Client::connect(web).unwrap();
    assert_eq!(late.send(&Ask::get("/")).unwrap().status, 200);
    assert_eq!(served.send(&Ask::get("/")).unwrap().status, 200);
}

/// Resident memory in bytes.
fn resident(process: &Process) -> u64 {
    let status = format!("/proc/{}/status", process.id().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A backend of tunnels: some bring back what they are told, the others bring more than anybody wants. How many of
/// those have ended.
fn tunnels() -> (Origin, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let origin = Origin::raw(move |mut stream, _| {
        let mut head = [0; 4096];
        let length = stream.read(&mut head).unwrap_or_default();
        let switched = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        if length == 0 || stream.write_all(switched.as_bytes()).is_err() {
            return;
        }
        if head.starts_with(b"GET /echo") {
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                let _ = stream.write_all(&bytes[..length]);
            }
            return;
        }
        let block = vec![7; 1 << 16];
        while stream.write_all(&block).is_ok() {}
        count.fetch_add(1, Ordering::AcqRel);
    });
    (origin, ended)
}

/// A tunnel to `place`, of which nothing has been read yet.
fn tunnel(to: SocketAddr, place: &str) -> Client {
    let upgrade = Ask::get(place).header("Connection", "Upgrade").header("Upgrade", "websocket");
    let mut client = Client::connect(to).unwrap();
    client.write(&upgrade).unwrap();
    assert_eq!(client.read_head().unwrap().0, 101);
    client
}

/// F-46: tunnels are what is heaviest, too. Those whose clients read nothing end before memory runs out, and those that
/// are in use stay.
#[test]
fn tunnels_that_nobody_reads_are_ended() {
    let (origin, ended) = tunnels();
    let text = everything_to(&origin.url());
    let options =
        |most: u64| json!({"core": {"workers": 2}, "limits": {"overload": {"maxMemory": most}}});
    let before = {
        let process = Process::start(&options(0), &text);
        let _tunnel = tunnel(process.address("web"), "/echo");
        resident(&process)
    };
    let process = Process::start(&options(before + (16 << 20)), &text);
    let web = process.address("web");
    let mut polite: Vec<Client> = (0..6).map(|_| tunnel(web, "/echo")).collect();
    let unread: Vec<Client> = (0..80).map(|_| tunnel(web, "/flood")).collect();
    let all = u32::try_from(polite.len() + unread.len()).unwrap();
    // What is counted is what `limits.connections` counts, too.
    let counted = || {
        let line = "doorward_overload_pressure{resource=\"connections\"}";
        let limit = "doorward_overload_limit{resource=\"connections\"}";
        metric(&process, line) * metric(&process, limit) + 1.0 >= f64::from(all)
    };
    until("tunnels count as connections", counted);

    // Heads that do not end take memory until the last step is reached.
    let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: {}", "x".repeat(6 << 10));
    let mut heads = Vec::new();
    until("something is reset", || {
        for _ in 0..4 {
            if let Ok(mut stream) = socket(web)
                && stream.write_all(head.as_bytes()).is_ok()
            {
                heads.push(stream);
            }
        }
        done(&process, "connection_reset") > 0.0
    });
    let reset = done(&process, "connection_reset");
    println!(
        "{} KiB before, {} heads, {reset} reset: {}",
        before >> 10,
        heads.len(),
        said(&process)
    );
    let ended = || f64::from(u32::try_from(ended.load(Ordering::Acquire)).unwrap());
    until("those that hold most have ended", || ended() >= reset / 2.0);
    drop(heads);
    for client in &mut polite {
        client.write_raw(b"hello").unwrap();
        assert_eq!(client.read_exact(5).unwrap(), b"hello");
    }
    drop(unread);
}

/// From 0.92 of `limits.connections.total` on, connections that rest make room for others, and those that are in use stay.
#[test]
fn connections_that_rest_make_room() {
    let origin = Origin::start();
    let options = json!({"limits": {"connections": {"total": 100}}});
    let process = Process::start(&options, &everything_to(&origin.url()));
    let web = process.address("web");
    let post = Ask::post("/", "").head().replace("Length: 0", "Length: 9");
    let mut busy = Client::connect(web).unwrap();
    busy.write_raw(post.as_bytes()).unwrap();
    let silent: Vec<TcpStream> = (0..40).map(|_| socket(web).unwrap()).collect();
    let mut asked = Vec::new();
    for _ in 0..56 {
        let mut client = Client::connect(web).unwrap();
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
        asked.push(client);
    }
    let mut served = Vec::new();
    until("as many others are served", || {
        let mut client = Client::connect(web).unwrap();
        if client.send(&Ask::get("/")).is_ok_and(|answer| answer.status == 200) {
            served.push(client);
        }
        served.len() >= 90
    });
    assert!(done(&process, "idle_connection_closed") > 0.0);
    assert!(process.log().contains(r#""resource":"connections""#), "{}", said(&process));
    busy.write_raw(b"all there").unwrap();
    assert_eq!(busy.read("POST").unwrap().text(), "all there");
    drop((silent, asked, served));
    until("it is over", || step(&process, "connections") < 1.0);
}

/// A connection of HTTP/2 may ask as much as it likes, but not for the descriptors of everybody else.
#[test]
fn streams_leave_descriptors_for_others() {
    let slow = Origin::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let origin = Origin::start();
    let text = format!(
        "http:
          routers:
            slow: {{rule: 'Path(`/takes-its-time`)', service: slow}}
            all: {{rule: 'PathPrefix(`/`)', service: small}}
          services:
            slow: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            small: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}",
        slow.url(),
        origin.url()
    );
    let process = Process::start(&json!({}), &text);
    let web = process.address("web");
    let post = Ask::post("/", "").head().replace("Length: 0", "Length: 9");
    let mut polite = Client::connect(web).unwrap();
    polite.write_raw(post.as_bytes()).unwrap();
    let listed = || {
        let folder = format!("/proc/{}/fd", process.id().as_raw_nonzero());
        u64::try_from(fs::read_dir(folder).unwrap().count()).unwrap()
    };
    let most = listed() + 200;
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(process.id()), Resource::Nofile, limit).unwrap();
    until("the limit is known", || {
        let known = metric(&process, "doorward_overload_limit{resource=\"descriptors\"}");
        Some(known) == limit.current.map(|limit| f64::from(u32::try_from(limit).unwrap()))
    });
    block_on(async {
        let stream = tokio::net::TcpStream::connect(web).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut waiting = Vec::new();
        let refused = loop {
            assert!(waiting.len() < 250, "{}", said(&process));
            let request = Request::get("http://a.test/takes-its-time").body(()).unwrap();
            let (mut answer, _) = sender.send_request(request, true).unwrap();
            // One after the other, for what is used is looked at now and then only.
            match tokio::time::timeout(Duration::from_millis(20), &mut answer).await {
                Ok(Ok(answer)) if answer.status() == 503 => break answer,
                _ => waiting.push(answer),
            }
        };
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
        assert!(listed() < most, "{}", said(&process));
        polite.write_raw(b"all there").unwrap();
        assert_eq!(polite.read("POST").unwrap().text(), "all there");
        driver.abort();
    });
    assert!(done(&process, "request_refused") > 0.0);
    assert!(!process.log().contains("cannot accept"), "{}", said(&process));
    until("all steps are taken back", || step(&process, "descriptors") < 1.0);
}
