//! What the machine and its operators do to the program under steady load: clocks that jump, cores
//! and ports that are used up, storms of connections, signals. Rows F-44 to F-57 of the fault table.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Ca;
use crate::harness::flood::alone;
use crate::harness::forward::acceptor;
use crate::harness::load::{Load, Stage, Traffic};
use crate::harness::{Ask, Client, DEADLINE, Origin, Reply, block_on, pause, until, within};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So much of these measurements is no slower.
fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// The clock of one process, which can be set while it runs; the one that counts from the start of the
/// machine goes on, as when a clock is set.
pub(crate) struct Clock {
    directory: TempDir,
    library: PathBuf,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let architecture = std::env::consts::ARCH;
        let debian = format!("/usr/lib/{architecture}-linux-gnu/faketime/libfaketime.so.1");
        let others = ["/usr/lib/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1"];
        let library = std::iter::once(&*debian).chain(others).find(|path| Path::new(path).exists());
        let library = library.expect("libfaketime is needed: install the package `libfaketime`");
        let clock = Self { directory: TempDir::new().unwrap(), library: library.into() };
        clock.set("+0");
        clock
    }

    /// Sets it to so many seconds, or days (`+400d`), from the true time.
    pub(crate) fn set(&self, offset: &str) {
        let fresh = self.directory.path().join("fresh");
        fs::write(&fresh, format!("{offset}\n")).unwrap();
        fs::rename(&fresh, self.directory.path().join("clock")).unwrap();
    }

    /// The program by this clock.
    pub(crate) fn start(&self, options: &Value, text: &str) -> Process {
        let file = self.directory.path().join("clock");
        let environment: [(&str, &OsStr); 5] = [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_os_str()),
            ("FAKETIME_NO_CACHE", "1".as_ref()),
            // Both names are in use.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
            ("DONT_FAKE_MONOTONIC", "1".as_ref()),
        ];
        Process::start_in(&environment, options, text)
    }
}

/// A server that speaks TLS with a certificate for thirty days, and answers each connection once.
fn secure_origin(ca: &Ca) -> Origin {
    let acceptor = acceptor(&ca.issue_for(&["app.internal"], Duration::from_hours(30 * 24)), &[]);
    Origin::raw(move |stream, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        });
    })
}

/// F-44: the clock jumps by an hour, back by an hour, and by a year. Nothing that runs is cut, no
/// limit freezes or opens, probes go on; what is about the calendar, as certificates are, follows.
#[test]
fn the_clock_may_jump() {
    let stage = Stage::start();
    let ca = Ca::new();
    let secure = secure_origin(&ca);
    let well = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&well);
    let slow = Origin::with(|_| {
        pause(ms(1500));
        Reply::ok("slow")
    });
    let checked = Origin::with(move |_| {
        Reply::status(if health.load(Ordering::Acquire) { 200 } else { 500 })
    });
    let directory = TempDir::new().unwrap();
    let authority = directory.path().join("ca.pem");
    let log = directory.path().join("access.log");
    fs::write(&authority, ca.pem()).unwrap();
    let more = format!(
        "    slow: {{rule: Host(`slow.test`), service: slow}}
    checked: {{rule: Host(`checked.test`), service: checked}}
    limited: {{rule: Host(`limited.test`), service: load, middlewares: [limit]}}
    secure: {{rule: Host(`secure.test`), service: secure}}
  middlewares:
    limit: {{rateLimit: {{average: 5, period: 1s, burst: 5}}}}
  serversTransports:
    secure: {{serverName: app.internal, rootCAs: ['{}'], maxIdleConnsPerHost: -1}}
    patient: {{forwardingTimeouts: {{responseHeaderTimeout: 20s, idleConnTimeout: 60s}}}}
",
        authority.display()
    );
    let services = format!(
        "  services:
    slow: {{loadBalancer: {{serversTransport: patient, servers: [{{url: '{}'}}]}}}}
    checked:
      loadBalancer:
        healthCheck: {{path: /, interval: 200ms, timeout: 10s}}
        servers: [{{url: '{}'}}]
    secure: {{loadBalancer: {{serversTransport: secure, servers: [{{url: 'https://{}'}}]}}}}
",
        slow.url(),
        checked.url(),
        secure.address()
    );
    let text = stage.config(&more).replace("  services:\n", &services);
    let timeouts = json!({"respondingTimeouts": {"readTimeout": "30s", "idleTimeout": "60s"}});
    let options = json!({
        "entryPoints": {"web": {"transport": timeouts}},
        "accessLog": {"filePath": log, "format": "json"},
    });
    let clock = Clock::new();
    let process = clock.start(&options, &text);
    let at = process.address("web");
    let ask = |place: &str| Client::connect(at).unwrap().send(&Ask::get(place)).unwrap().status;
    let limited = || {
        let mut client = Client::connect(at).unwrap();
        let all = (0..30).map(|_| client.send(&Ask::get("limited.test/")).unwrap().status);
        all.filter(|&status| status == 200).count()
    };
    let load = Load::start(at, Traffic::USUAL);
    let mut idle = Client::connect(at).unwrap();
    assert_eq!(idle.send(&Ask::get("load.test/")).unwrap().status, 200);
    assert_eq!(ask("secure.test/"), 200);
    for (place, offset, expired) in [
        ("/hour", "+3600", false),
        ("/back", "-3600", false),
        ("/year", "+400d", true),
        ("/now", "+0", false),
    ] {
        let mut running = Client::connect(at).unwrap();
        running.write(&Ask::get("slow.test/")).unwrap();
        pause(ms(200));
        assert!(limited() < 30, "the limit holds before {offset}");
        clock.set(offset);
        assert_eq!(running.read("GET").unwrap().text(), "slow", "{offset}");
        assert_eq!(idle.send(&Ask::get(&format!("load.test{place}"))).unwrap().status, 200);
        // In a second the bucket is full, and then it is no more than that.
        pause(ms(1200));
        let passed = limited();
        assert!((5..30).contains(&passed), "{passed} of 30 after {offset}");
        let status = ask("secure.test/");
        assert_eq!(status != 200, expired, "{status} after {offset}");
        well.store(false, Ordering::Release);
        until("a probe has failed", || ask("checked.test/") == 503);
        well.store(true, Ordering::Release);
        until("a probe has succeeded", || ask("checked.test/") == 200);
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    // The jumps were real: the log has them.
    let seen = |path: &str| -> Option<i64> {
        fs::read_to_string(&log).unwrap_or_default().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let time: jiff::Timestamp = line["StartUTC"].as_str()?.parse().ok()?;
            (line["RequestPath"] == path).then(|| time.as_second())
        })
    };
    until("the log is written", || seen("/now").is_some());
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    for (path, offset) in [("/hour", 3600), ("/back", -3600), ("/year", 400 * 86400), ("/now", 0)] {
        let off = seen(path).unwrap() - now - offset;
        assert!(off.abs() < 120, "{path} is off by {off} s");
    }
    println!("F-44: {report:?}");
}

/// F-47: every core is busy, and `/ping` answers in less than a second all the same.
#[test]
fn busy_cores_leave_room_for_ping() {
    // Who spins here is in the way of whoever measures.
    let _alone = alone();
    let stage = Stage::start();
    let origin = Origin::start();
    let process = Process::start(&json!({}), &stage.config(""));
    let ping = |at: SocketAddr| {
        let start = Instant::now();
        let answer = Client::connect(at).unwrap().send(&Ask::get("/ping"));
        assert_eq!(answer.unwrap().status, 200);
        start.elapsed()
    };
    let over = AtomicBool::new(false);
    let cores = thread::available_parallelism().unwrap().get();
    let (slow, report) = thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let load = Load::start(process.address("web"), Traffic::USUAL);
        let slow = within("p99 of /ping", Duration::from_secs(1), || {
            let (mut times, mut others) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                times.push(ping(process.address("traefik")));
                others.push(ping(origin.address()));
                pause(ms(20));
            }
            (percentile(times, 99), percentile(others, 99))
        });
        let report = load.end();
        over.store(true, Ordering::Relaxed);
        (slow, report)
    });
    assert!(report.is_clean(), "{report:?}");
    println!("F-47: p99 of /ping {slow:?} with {} spinning threads, {report:?}", 2 * cores);
}

/// F-49: a stop under the load of the table and with long requests. All that was begun is ended, new
/// connections are served until the first stage is over, and the exit code is 0.
#[test]
fn a_stop_under_load_and_with_long_requests_loses_nothing() {
    const LONG: usize = 12;
    let stage = Stage::start();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let long = Origin::with(move |_| {
        count.fetch_add(1, Ordering::AcqRel);
        pause(Duration::from_secs(3));
        Reply::ok("late")
    });
    let more = "    long: {rule: Host(`long.test`), service: long}\n";
    let service = format!(
        "  services:\n    long: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
        long.url()
    );
    let text = stage.config(more).replace("  services:\n", &service);
    let life = json!({"lifeCycle": {"requestAcceptGraceTimeout": "1s", "graceTimeOut": "5s"}});
    let options = json!({"entryPoints": {"web": {"transport": life}}});
    let mut process = Process::start(&options, &text);
    let at = process.address("web");
    let load = Load::start(at, Traffic::USUAL);
    let mut clients: Vec<_> = (0..LONG)
        .map(|_| {
            let mut client = Client::connect(at).unwrap();
            client.write(&Ask::get("long.test/")).unwrap();
            client
        })
        .collect();
    until("the long ones run", || begun.load(Ordering::Acquire) == LONG);
    let start = Instant::now();
    load.expect_stop();
    process.signal(Signal::TERM);
    until("new connections are refused", || TcpStream::connect(at).is_err());
    assert!(start.elapsed() >= ms(900), "{:?}", start.elapsed());
    for client in &mut clients {
        assert_eq!(client.read("GET").unwrap().text(), "late");
    }
    let served = start.elapsed();
    assert_eq!(process.end().code(), Some(0));
    let report = load.end();
    assert!(report.errors.is_empty(), "{report:?}");
    println!("F-49: long ones after {served:?}, over after {:?}, {report:?}", start.elapsed());
}

/// F-51: both signals again and again under the load of the table: every request is answered, and
/// each has one line in one of the log's files.
#[test]
fn signals_under_load_lose_no_request_and_no_line() {
    let stage = Stage::start();
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("access.log");
    let options = json!({"accessLog": {"filePath": log, "format": "json"}});
    let mut process = Process::start(&options, &stage.config(""));
    let load = Load::start(process.address("web"), Traffic::USUAL);
    for number in 0..20 {
        process.write(&stage.config(&format!(
            "    new: {{rule: Host(`new.test`) && Path(`/{number}`), service: load}}\n"
        )));
        process.signal(Signal::HUP);
        fs::rename(&log, directory.path().join(format!("access.log.{number}"))).unwrap();
        process.signal(Signal::USR1);
        until("there is a new file", || log.exists());
        let before = load.requests();
        until("requests go on", || load.requests() > before + 5);
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
    let mut lines = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            lines += usize::from(line["DownstreamStatus"] == 200);
        }
    }
    // WebSockets have the status 101.
    assert_eq!(lines, report.requests + report.uploads);
    println!("F-51: {lines} lines, {report:?}");
}

/// F-53: three seconds in which the process does not run, and ten in the table: no client and no
/// server suffers, and a second later all is as before.
#[test]
fn a_pause_under_load_is_only_a_pause() {
    let stage = Stage::start();
    let text = stage.config("").replace(
        "    load: {loadBalancer: {",
        "    load: {loadBalancer: {healthCheck: {path: /, interval: 100ms, timeout: 10s}, ",
    );
    let process = Process::start(&json!({}), &text);
    let load = Load::start(process.address("web"), Traffic::USUAL);
    process.signal(Signal::STOP);
    pause(Duration::from_secs(3));
    process.signal(Signal::CONT);
    pause(Duration::from_secs(1));
    let mut times = Vec::new();
    let mut client = Client::connect(process.address("web")).unwrap();
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(client.send(&Ask::get("load.test/")).unwrap().status, 200);
        times.push(start.elapsed());
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    let taken = percentile(times, 50);
    assert!(taken < ms(100), "{taken:?}");
    assert!(!process.log().contains("server is down"), "{}", process.log());
    println!("F-53: {taken:?} a second later, {report:?}");
}

/// Set for the run of this program in a network of its own.
const INSIDE: &str = "DOORWARD_TEST_NETWORK";

/// F-56: there is no port left for another connection to a server. Kept connections go on, all else
/// is a 502 at once whose reason is in the log, other servers are reached, and all is well as soon as
/// a port is free. A server that the machine has no address for, as without IPv6, is no such shortage. Needs a network of its own: root, or user namespaces.
#[test]
fn ports_may_run_out() {
    if std::env::var_os(INSIDE).is_some() {
        return without_ports();
    }
    let mut command = Command::new("unshare");
    command.arg(if rustix::process::geteuid().is_root() { "-n" } else { "-rn" });
    command.args(["sh", "-c"]);
    command.arg(
        "ip link set lo up && (echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6 || test ! -e /proc/sys/net/ipv6) && echo 40000 40063 >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"",
    );
    command.arg("sh").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "fault_system::ports_may_run_out", "--nocapture"]);
    let output = command.env(INSIDE, "1").output().expect("unshare of util-linux is needed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "a network namespace of its own is needed (root, or user namespaces, and `ip`): {said}"
    );
    println!("{said}");
}

fn without_ports() {
    let held = Arc::new(AtomicBool::new(true));
    let gate = Arc::clone(&held);
    let busy = Origin::with(move |seen| {
        if seen.target == "/held" {
            until("it is let go", || !gate.load(Ordering::Acquire));
        }
        Reply::ok("busy")
    });
    let other = Origin::named("other");
    let text = format!(
        "
http:
  routers:
    busy: {{rule: Host(`busy.test`), service: busy}}
    other: {{rule: Host(`other.test`), service: other}}
    none: {{rule: Host(`none.test`), service: none}}
  services:
    none: {{loadBalancer: {{servers: [{{url: 'http://[::1]:80'}}]}}}}
    busy: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    other: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        busy.url(),
        other.url()
    );
    let process = Process::start(&json!({"core": {"workers": 1}}), &text);
    let at = process.address("web");
    let (mut client, mut holder) = (Client::connect(at).unwrap(), Client::connect(at).unwrap());
    let mut get = |place: &str| client.send(&Ask::get(place)).unwrap();
    assert_eq!((get("busy.test/").status, get("none.test/").status), (200, 502));
    assert!(!process.log().contains("no port"), "{}", process.log());
    // All ports of this machine are on their way to that server.
    let mut taken = Vec::new();
    let full = loop {
        match TcpStream::connect(busy.address()) {
            Ok(stream) => taken.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::AddrNotAvailable, "{full}");
    for _ in 0..20 {
        assert_eq!(get("busy.test/").status, 200, "over the connection that was kept");
    }
    // While that one is in use, others need one of their own.
    let before = busy.count();
    holder.write(&Ask::get("busy.test/held")).unwrap();
    until("the connection is in use", || busy.count() > before);
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(get("busy.test/").status, 502);
        slowest = slowest.max(start.elapsed());
        assert_eq!(get("other.test/").origin(), "other");
    }
    assert!(slowest < ms(500), "{slowest:?}");
    let log = process.log();
    let is_told = |line: &&str| line.contains("no port") && line.contains("\"level\":\"warn\"");
    let told = log.lines().filter(is_told).count();
    assert!((1..4).contains(&told), "the log says why, once in a while: {log}");
    let ports = taken.len();
    for stream in taken {
        // With a reset, or its port would be waiting.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let start = Instant::now();
    until("it is over", || get("busy.test/").status == 200);
    let back = start.elapsed();
    assert!(back < Duration::from_secs(2), "{back:?}");
    held.store(false, Ordering::Release);
    assert_eq!(holder.read("GET").unwrap().text(), "busy");
    println!("F-56: {ports} ports taken, 502 in at most {slowest:?}, back after {back:?}");
}

/// F-57: many clients connect in one moment, and none waits. Here 3,000 and not 50,000.
#[test]
fn a_storm_of_connections_stalls_nobody() {
    const MANY: usize = 3000;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    // No router: the storm is the subject, and not a server behind it.
    let process = Process::start(&json!({}), "http: {}");
    let at = process.address("web");
    let mut inside = Client::connect(at).unwrap();
    assert_eq!(inside.send(&Ask::get("/")).unwrap().status, 404);
    let _alone = alone();
    within("p99 of connect", Duration::from_secs(1), || {
        let (connects, answers) = block_on(storm(at, MANY));
        assert_eq!(inside.send(&Ask::get("/")).unwrap().status, 404);
        let (connect, answer) = (percentile(connects, 99), percentile(answers, 99));
        println!("F-57: {MANY} connections, p99 of connect {connect:?}, of the answer {answer:?}");
        let (others, _) = block_on(storm(accepting(MANY), MANY));
        (connect, percentile(others, 99))
    });
}

/// Accepts so many, who may all come at once, and answers them all alike.
fn accepting(count: usize) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(i32::try_from(count).unwrap()).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let _ =
                stream.and_then(|mut stream| stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n"));
        }
    });
    address
}

/// The times until so many clients are connected, and until they are answered.
async fn storm(at: SocketAddr, count: usize) -> (Vec<Duration>, Vec<Duration>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        tasks.spawn(async move {
            let start = Instant::now();
            let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
            let connected = start.elapsed();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            let mut head = [0; 12];
            tokio::time::timeout(DEADLINE, stream.read_exact(&mut head)).await.unwrap().unwrap();
            assert_eq!(&head, b"HTTP/1.1 404");
            (connected, start.elapsed(), stream)
        });
    }
    let all = tasks.join_all().await;
    (all.iter().map(|one| one.0).collect(), all.iter().map(|one| one.1).collect())
}
