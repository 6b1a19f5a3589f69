//! What floods over HTTP/2 may cost in memory and time. The program runs by itself, so that it alone is measured.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::flood::alone;
use crate::harness::flood::frames::*;
use crate::harness::{Ask, Client, Origin, Reply, everything_to, pause, until};
use crate::system::{computing, memory, most_memory};

/// What it may take beyond what it had.
const MOST: usize = 64 << 10;

fn start(options: &Value, origin: &Origin) -> Process {
    let process = Process::start(options, &everything_to(&origin.url()));
    let mut client = Client::connect(process.address("web")).unwrap();
    assert_eq!(client.send(&Ask::new("HEAD", "/")).unwrap().status, 200);
    process
}

/// Writes as much as is taken.
fn pour(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
    let _ = stream.write_all(bytes);
}

fn grown(name: &str, process: &Process, before: usize) -> usize {
    let grown = most_memory(process).saturating_sub(before);
    println!("{name}: {grown} KiB more than {before} KiB before");
    grown
}

/// V-24: 200 heads of 16 000 references, a byte each, and 200 of cookie crumbs, the window shut.
#[test]
fn bombs_of_references_take_no_memory() {
    let _alone = alone();
    let origin = Origin::start();
    for name in ["x-a", "cookie"] {
        let process = start(&json!({"core": {"workers": 1}}), &origin);
        let before = memory(&process);
        let mut stream = socket(process.address("web")).unwrap();
        let mut all = opening(&[(INITIAL_WINDOW, 0)]);
        for number in (1..400).step_by(2) {
            let mut head = block(false);
            head.extend([0x40, u8::try_from(name.len()).unwrap()]);
            head.extend(name.as_bytes());
            head.extend(b"\x01v");
            head.resize(head.len() + 16_000, 0xbe);
            all.extend(frame(HEADERS, END_HEADERS | END_STREAM, number, &head));
        }
        pour(&mut stream, &all);
        let mut second = Client::connect(process.address("web")).unwrap();
        assert_eq!(second.send(&Ask::get("/")).unwrap().status, 200);
        pause(Duration::from_millis(300));
        assert!(grown(name, &process, before) < MOST);
    }
}

/// G-27: 200 answers of 10 MiB, of which nobody takes a byte: first because the windows are shut, then because the
/// client does not read. They end after `stall`, and their memory is free again.
#[test]
fn answers_that_nobody_takes_are_not_kept() {
    let _alone = alone();
    let origin = Origin::with(|seen| {
        Reply::ok(if seen.method == "HEAD" { Vec::new() } else { vec![7; 10 << 20] })
    });
    for (name, window_size, connection) in
        [("shut windows", 0, 0), ("open windows, no reader", (1 << 31) - 1, (1 << 31) - 1 - 65_535)]
    {
        let options = json!({"core": {"workers": 1}, "limits": {"answer": {"stall": "2s"}}});
        let process = start(&options, &origin);
        let before = memory(&process);
        let mut stream = socket(process.address("web")).unwrap();
        let mut all = opening(&[(INITIAL_WINDOW, window_size)]);
        if connection > 0 {
            all.extend(window(0, connection));
        }
        all.extend((1..400).step_by(2).flat_map(get));
        pour(&mut stream, &all);
        let mut inside = Client::connect(process.address("traefik")).unwrap();
        let mut stalls = || {
            let text = inside.send(&Ask::get("/metrics")).unwrap().text();
            let line = "doorward_limits_total{limit=\"answer.stall\"} ";
            let found = text.lines().find_map(|one| one.strip_prefix(line));
            found.map_or(0, |count| count.parse::<usize>().unwrap())
        };
        // Each stream by itself, or the connection that carries them.
        let expected = if connection > 0 { 1 } else { 200 };
        until("they are over", || stalls() >= expected);
        assert!(grown(name, &process, before) < MOST);
    }
}

/// V-19, G-25: floods leave nothing behind.
#[test]
fn floods_leave_no_memory_behind() {
    let _alone = alone();
    let origin = Origin::start();
    let process = start(&json!({"core": {"workers": 1}}), &origin);
    let flood = |wave: &[u8], times: usize| {
        for _ in 0..times {
            let mut stream = socket(process.address("web")).unwrap();
            pour(&mut stream, &[&opening(&[]), wave].concat());
            let _ = farewell(&mut stream);
        }
    };
    let resets: Vec<u8> =
        (1..4000).step_by(2).flat_map(|number| [get(number), reset(number)].concat()).collect();
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100_000);
    flood(&resets, 3);
    flood(&pings, 3);
    let before = memory(&process);
    flood(&resets, 10);
    flood(&pings, 10);
    assert!(grown("resets and pings", &process, before) < 16 << 10);
}

/// V-26: four times as many streams that are opened and closed take four times the work, not sixteen.
#[test]
fn closing_many_streams_is_linear() {
    let _alone = alone();
    let origin = Origin::with(|seen| {
        if seen.method != "HEAD" {
            pause(Duration::from_millis(200));
        }
        Reply::ok("x")
    });
    let options = json!({
        "core": {"workers": 1},
        "entryPoints": {"web": {"http2": {"maxConcurrentStreams": 5000}}},
        "limits": {"http2": {"resets": 0}},
    });
    let process = start(&options, &origin);
    let cost = |streams: u32| {
        let before = computing(&process);
        for _ in 0..3 {
            let mut stream = socket(process.address("web")).unwrap();
            let numbers = || (0..streams).map(|at| 2 * at + 1);
            let open: Vec<u8> = numbers().flat_map(post).collect();
            stream.write_all(&[opening(&[]), open].concat()).unwrap();
            // Accepted, all of them, when this is answered.
            stream.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
            while !matches!(next(&mut stream).unwrap(), (PING, ..)) {}
            stream.write_all(&numbers().flat_map(reset).collect::<Vec<_>>()).unwrap();
            stream.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
            while next(&mut stream).is_ok_and(|(kind, ..)| kind != PING && kind != GOAWAY) {}
        }
        computing(&process).saturating_sub(before)
    };
    cost(250);
    let (few, many) = (cost(1000), cost(4000));
    let bar = 9 * few.max(Duration::from_millis(50));
    assert!(many < bar, "{few:?} for 1000, {many:?} for 4000");
}
