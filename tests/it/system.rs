//! The program and the system that it runs in: what it holds, what it may run out of, who stops it
//! and who wants to be told (F-25, F-29, F-53). All of it with real processes, seen in /proc.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::binary::{Process, command};
use crate::harness::{Ask, Client, DEADLINE, Origin, Proxy, Reply, everything_to, pause, until};
use crate::reload;

fn proc(process: &Process, file: &str) -> String {
    format!("/proc/{}/{file}", process.id().as_raw_nonzero())
}

pub(crate) fn descriptors(process: &Process) -> usize {
    fs::read_dir(proc(process, "fd")).unwrap().count()
}

/// Resident memory, in KiB.
pub(crate) fn memory(process: &Process) -> usize {
    kib(process, "VmRSS:")
}

/// The most memory that ever was resident, in KiB.
pub(crate) fn most_memory(process: &Process) -> usize {
    kib(process, "VmHWM:")
}

fn kib(process: &Process, what: &str) -> usize {
    let status = fs::read_to_string(proc(process, "status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// The time that the process has spent computing.
pub(crate) fn computing(process: &Process) -> Duration {
    let stat = fs::read_to_string(proc(process, "stat")).unwrap();
    // Behind the name, which may hold anything: the 12th and 13th field, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn ask(process: &Process, place: &str) -> std::io::Result<u16> {
    Ok(Client::connect(process.address("web"))?.send(&Ask::get(place))?.status)
}

/// The value of one line of the metrics; 0 when it is not there.
pub(crate) fn metric(client: &mut Client, line: &str) -> f64 {
    let text = client.send(&Ask::get("/metrics")).unwrap().text();
    let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

/// When the descriptors are used up, accepting waits until some are free again, and does not
/// burn a core meanwhile. Who is connected already is served all the time.
#[test]
fn descriptors_may_run_out() {
    let origin = Origin::start();
    // Before it comes to that, overload protection would close what rests: see `overload`.
    let options = json!({"limits": {"overload": {"enabled": false}}});
    let process = Process::start(&options, &everything_to(&origin.url()));
    let mut served = Client::connect(process.address("web")).unwrap();
    assert_eq!(served.send(&Ask::get("/")).unwrap().status, 200);
    let limit = u64::try_from(descriptors(&process)).unwrap() + 16;
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(process.id()), Resource::Nofile, limit).unwrap();

    let mut waiting: Vec<_> =
        (0..60).map(|_| Client::connect(process.address("web")).unwrap()).collect();
    until("there are none left", || process.log().contains("cannot accept"));
    let (start, before) = (Instant::now(), computing(&process));
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(served.send(&Ask::get("/")).unwrap().status, 200);
        pause(Duration::from_millis(100));
    }
    let spent = computing(&process).saturating_sub(before);
    assert!(spent < Duration::from_secs(1), "{spent:?} in two seconds");
    let lines = |text| process.log().lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("cannot accept"), 1, "one line, not one for each attempt");
    assert_eq!(lines("accepting again"), 0);

    // Half of them leave, the other half gets in.
    drop(waiting.drain(..55));
    for client in &mut waiting {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    }
    assert_eq!(ask(&process, "/").unwrap(), 200);
    until("the log says that it is over", || lines("accepting again") > 0);
    assert_eq!((lines("cannot accept"), lines("accepting again")), (1, 1));
}

/// F-29: a reload leaves nothing behind, neither memory nor an open file.
#[test]
fn reloads_leave_nothing_behind() {
    const ROUTERS: usize = 200;
    let origin = Origin::start();
    let config = |number: usize| {
        let routers: Vec<_> = (0..ROUTERS)
            .map(|one| {
                format!(
                    "    r{one}: {{rule: \"Host(`t{one}.test`) && PathPrefix(`/{number}`)\", \
                     service: app, middlewares: [cut]}}\n"
                )
            })
            .collect();
        let routers = routers.concat();
        format!(
            "http:\n  routers:\n{routers}  middlewares:\n    \
             cut: {{stripPrefix: {{prefixes: [/{number}]}}}}\n  services:\n    \
             app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
            origin.url()
        )
    };
    let process = Process::start(&json!({}), &config(0));
    let mut scrape = Client::connect(process.address("traefik")).unwrap();
    let mut client = Client::connect(process.address("web")).unwrap();
    let mut reload = |number: usize| {
        process.write(&config(number));
        let total = "traefik_config_reloads_total";
        until("the reload counts", || {
            metric(&mut scrape, total) > 0.0
                && client.send(&Ask::get(&format!("t0.test/{number}"))).unwrap().status == 200
        });
    };
    // Allocators and caches take what they will keep.
    let warm = reload::count() / 4;
    (1..=warm).for_each(&mut reload);
    let before = (memory(&process), descriptors(&process));
    let end = warm + reload::count();
    (warm + 1..=end).for_each(&mut reload);
    until("no more descriptors are open than before", || descriptors(&process) <= before.1);
    let grown = || memory(&process).saturating_sub(before.0);
    // What the allocator has not given back yet goes with further ones; what is held does not.
    for number in end + 1..=end + 20 {
        if grown() < 6 << 10 {
            break;
        }
        reload(number);
    }
    assert!(grown() < 6 << 10, "{} KiB more than {} KiB before", grown(), before.0);
}

/// SIG-3: whoever tells the program to stop while it starts gets the same as later: who has
/// connected is served, and the exit code is 0.
#[test]
fn a_stop_during_the_start_loses_nobody() {
    let origin = Origin::start();
    // So many that it takes a while from the first open socket to the first table.
    let routers = (0..2000)
        .map(|one| format!("            r{one}: {{rule: 'Host(`t{one}.test`)', service: app}}\n"));
    let text = everything_to(&origin.url());
    let text = text.replace("routers:\n", &["routers:\n", &routers.collect::<String>()].concat());
    // Bound here as well, so that the port is known before there is a log to read it from.
    let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    port.set_reuse_port(true).unwrap();
    port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = port.local_addr().unwrap().as_socket().unwrap();
    let options = json!({"entryPoints": {
        "web": {"address": address.to_string(), "reusePort": true},
    }});
    let mut process = Process::begin(&[], &options, &text);
    let mut client = None;
    until("somebody can connect", || {
        client = Client::connect(address).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write(&Ask::get("/")).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(client.read("GET").unwrap().status, 200);
    assert_eq!(process.end().code(), Some(0));
    assert!(process.log().contains("stopped"), "{}", process.log());
}

/// What systemd hears.
struct Notifications {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Notifications {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    fn next(&self) -> String {
        let mut text = [0; 256];
        let length = self.socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap().trim().to_owned()
    }
}

/// systemd hears when the program is ready and when it stops, and that it is alive in between.
#[test]
fn systemd_is_told() {
    let systemd = Notifications::new();
    let next = || systemd.next();
    let path = systemd.path();
    let origin = Origin::start();
    let environment = [("NOTIFY_SOCKET", path.as_os_str()), ("WATCHDOG_USEC", "200000".as_ref())];
    let mut process = Process::start_in(&environment, &json!({}), &everything_to(&origin.url()));
    assert_eq!(next(), "READY=1");
    assert_eq!(ask(&process, "/").unwrap(), 200, "it is true");
    let start = Instant::now();
    for _ in 0..6 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // Twice as often as asked for, the first one at once.
    assert!(start.elapsed() < Duration::from_millis(200 * 6), "{:?}", start.elapsed());
    process.signal(Signal::TERM);
    let last = std::iter::repeat_with(next).find(|text| text != "WATCHDOG=1").unwrap();
    assert_eq!(last, "STOPPING=1");
    assert_eq!(process.end().code(), Some(0));
}

/// SIG-9: a proxy whose `/ping` does not answer is not said to be alive. Here nobody gets it in clear text.
#[test]
fn systemd_is_told_nothing_while_ping_does_not_answer() {
    let systemd = Notifications::new();
    let path = systemd.path();
    let origin = Origin::start();
    let environment = [("NOTIFY_SOCKET", path.as_os_str()), ("WATCHDOG_USEC", "20000".as_ref())];
    let options = json!({"entryPoints": {"traefik": {"http": {"tls": {}}}}});
    let mut process = Process::start_in(&environment, &options, &everything_to(&origin.url()));
    assert_eq!(systemd.next(), "READY=1");
    until("it was asked several times", || {
        process.log().matches("the watchdog is told nothing").count() > 3
    });
    process.signal(Signal::TERM);
    assert_eq!(systemd.next(), "STOPPING=1");
    assert_eq!(process.end().code(), Some(0));
}

/// A reload that somebody asks for is over when what it found is in force, also if that is nothing.
#[test]
fn systemd_is_told_of_a_reload() {
    let systemd = Notifications::new();
    let path = systemd.path();
    let origin = Origin::start();
    let options = json!({"providers": {"file": {"watch": false}}});
    let environment = [("NOTIFY_SOCKET", path.as_os_str())];
    let text = everything_to(&origin.url());
    let process = Process::start_in(&environment, &options, &text);
    assert_eq!(systemd.next(), "READY=1");
    let mut last = 0;
    let mut reload = || {
        process.signal(Signal::HUP);
        let begin = systemd.next();
        let time = begin.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&begin);
        let time: u64 = time.parse().unwrap();
        assert!(time > std::mem::replace(&mut last, time), "{time}: this is when it begins");
        assert_eq!(systemd.next(), "READY=1");
    };
    reload();
    assert_eq!(ask(&process, "/").unwrap(), 200);
    for name in ["one", "two", "three"] {
        let dynamic = process.directory().join("dynamic/config.yml");
        fs::write(dynamic, text.replace("`/`", &format!("`/{name}`"))).unwrap();
        reload();
        assert_eq!(ask(&process, &format!("/{name}")).unwrap(), 200);
        assert_eq!(ask(&process, "/").unwrap(), 404);
    }
    process.write("http: {routers: {a: [");
    reload();
    assert_eq!(ask(&process, "/three").unwrap(), 200, "what cannot be read changes nothing");
}

/// Connections that ask for nothing cost little, and the system gets back what they needed before.
#[test]
fn idle_connections_give_their_memory_back() {
    const MANY: usize = 800;
    let origin = Origin::start();
    let options = json!({"core": {"workers": 1}});
    let process = Process::start(&options, &everything_to(&origin.url()));
    let ask = || {
        let mut client = Client::connect(process.address("web")).unwrap();
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
        client
    };
    for _ in 0..50 {
        drop(ask());
    }
    let before = memory(&process);
    let idle: Vec<Client> = (0..MANY).map(|_| ask()).collect();
    // Two buffers of 8 KiB for each of them.
    assert!(memory(&process) > before + 16 * MANY, "{before} KiB");
    until("the memory is given back", || memory(&process) < before + 12 * MANY);
    for mut client in idle {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    }
}

/// What changed after the last look, and before somebody asked for one, is in force as well, although another change
/// was noticed before and waits for the throttle.
#[test]
fn a_reload_brings_what_was_there_when_it_was_asked_for() {
    let systemd = Notifications::new();
    let path = systemd.path();
    let origin = Origin::start();
    let users = TempDir::new().unwrap();
    let file = |name: &str| users.path().join(name).display().to_string();
    let write = |name: &str, user: &str| {
        // The password is `test`.
        fs::write(file(name), format!("{user}:{{SHA}}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")).unwrap();
    };
    write("a", "one");
    write("b", "one");
    let text = |routes: &str| {
        format!(
            "
            http:
              routers:
                a: {{rule: Path(`/a`), service: app, middlewares: [a]}}
                b: {{rule: Path(`/b`), service: app, middlewares: [b]}}
                {routes}
              middlewares:
                a: {{basicAuth: {{usersFile: '{}'}}}}
                b: {{basicAuth: {{usersFile: '{}'}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            ",
            file("a"),
            file("b"),
            origin.url()
        )
    };
    let options = json!({"providers": {"providersThrottleDuration": "6s"}});
    let environment = [("NOTIFY_SOCKET", path.as_os_str())];
    let process = Process::start_in(&environment, &options, &text(""));
    assert_eq!(systemd.next(), "READY=1");
    let status = |path: &str, user: &str| {
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:test"));
        let request = Ask::get(path).header("Authorization", &format!("Basic {credentials}"));
        Client::connect(process.address("web")).unwrap().send(&request).unwrap().status
    };
    process.write(&text("more: {rule: Path(`/more`), service: app}"));
    until("the throttle begins", || ask(&process, "/more").unwrap() == 200);
    write("a", "two");
    // Longer than it takes to notice.
    pause(Duration::from_secs(3));
    write("b", "two");
    process.signal(Signal::HUP);
    assert!(systemd.next().starts_with("RELOADING=1"));
    assert_eq!(status("/a", "two"), 401, "the throttle holds");
    assert_eq!(systemd.next(), "READY=1");
    assert_eq!((status("/a", "two"), status("/b", "two"), status("/b", "one")), (200, 200, 401));
}

/// A configuration file that never comes to an end does not keep anybody from stopping the program.
#[test]
fn a_stop_while_the_configuration_is_read() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("doorward.yml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut child = command(directory.path()).arg("--configFile=doorward.yml").spawn().unwrap();
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // From then on it handles the signal by itself.
    let status = format!("/proc/{}/status", child.id());
    until("the signal is caught", || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        caught.is_some_and(|mask| {
            u64::from_str_radix(mask, 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
        })
    });
    kill_process(id, Signal::TERM).unwrap();
    until("the program ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A socket that systemd holds outlives the program: who connects while none runs is served by the next.
#[test]
fn a_socket_that_is_handed_over_is_used_and_outlives_the_program() {
    let origin = Origin::start();
    let text = everything_to(&origin.url());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    for turn in 0..2 {
        let mut early = Client::connect(address).unwrap();
        early.write(&Ask::get("/")).unwrap();
        let handed = socket.try_clone().unwrap();
        let mut process = Process::activated(handed, "web", &json!({}), &text);
        assert_eq!(process.address("web"), address);
        assert_eq!(early.read("GET").unwrap().status, 200, "{turn}");
        assert_eq!(ask(&process, "/").unwrap(), 200);
        process.signal(Signal::TERM);
        assert_eq!(process.end().code(), Some(0));
    }
}

/// F-53: a process that was stopped goes on where it was. No server is taken for dead because the
/// proxy did not look at its answer in time, and no client is left.
#[test]
fn a_pause_takes_no_server_down() {
    let origin = Origin::with(|seen| {
        // Most of the time a probe is on its way.
        pause(Duration::from_millis(if seen.target == "/health" { 150 } else { 1 }));
        Reply::ok("ok")
    });
    let text = format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app}}
          services:
            app:
              loadBalancer:
                servers: [{{url: '{}'}}]
                healthCheck: {{path: /health, interval: 200ms, timeout: 400ms}}
        ",
        origin.url()
    );
    let process = Process::start(&json!({}), &text);
    let mut kept = Client::connect(process.address("web")).unwrap();
    for _ in 0..4 {
        assert_eq!(kept.send(&Ask::get("/")).unwrap().status, 200);
        process.signal(Signal::STOP);
        let mut meanwhile = Client::connect(process.address("web")).unwrap();
        meanwhile.write(&Ask::get("/")).unwrap();
        kept.write(&Ask::get("/")).unwrap();
        pause(Duration::from_secs(1));
        process.signal(Signal::CONT);
        let start = Instant::now();
        assert_eq!(kept.read("GET").unwrap().status, 200);
        assert_eq!(meanwhile.read("GET").unwrap().status, 200);
        for _ in 0..50 {
            assert_eq!(ask(&process, "/").unwrap(), 200);
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        pause(Duration::from_millis(300));
    }
    assert!(!process.log().contains("server is down"), "{}", process.log());
}

/// F-25: with a directory that is gone - a lost mount - everything stays as it was, and somebody is
/// told; when it is back, it counts again.
#[test]
fn a_directory_that_is_gone_keeps_its_routes() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let directory = proxy.file().parent().unwrap().to_owned();
    let away = directory.with_file_name("away");
    let failed = || proxy.metric("traefik_config_reloads_failure_total");
    let before = failed();
    fs::rename(&directory, &away).unwrap();
    until("it is counted", || failed() > before);
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    }
    assert_eq!(proxy.inside("/ready").status, 200);
    fs::rename(&away, &directory).unwrap();
    proxy.write(&everything_to(&origin.url()).replace("`/`", "`/new`"));
    until("it counts again", || proxy.get("/").status == 404);
    assert_eq!(proxy.get("/new").status, 200);
}
