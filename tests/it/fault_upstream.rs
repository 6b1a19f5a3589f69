//! Servers that fail, and how soon and how exactly the proxy says so: rows F-01 to F-21 of the fault
//! table with their bars. The relay of the harness stands between the proxy and a good server.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;

use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::fault::{Fault, Relay};
use crate::harness::load::{Load, Stage, Traffic};
use crate::harness::{
    Ask, Client, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until, within,
};
use crate::system::{descriptors, memory};
use crate::wire::{echoed, websocket, websocket_echo};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The middle one of so many measurements: others who use the machine are not the subject.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What a question takes here that goes to no server: the middle one of some.
fn control(proxy: &Proxy) -> Duration {
    let mut client = Client::connect(proxy.address("traefik")).unwrap();
    let one = |_| {
        let start = Instant::now();
        assert_eq!(client.send(&Ask::get("127.0.0.1/ping")).unwrap().status, 200);
        start.elapsed()
    };
    median((0..41).map(one).collect())
}

/// How many times; a full run asks for more with an environment variable.
fn many(usual: usize) -> usize {
    std::env::var("DOORWARD_TEST_FAULTS").map_or(usual, |count| count.parse().unwrap())
}

/// A service `app` with these servers and options, and one router with these.
fn service(servers: &[&str], options: &str, router: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|url| format!("{{url: '{url}'}}")).collect();
    format!(
        "
http:
  routers:
    all: {{rule: PathPrefix(`/`), service: app{router}}}
  services:
    app:
      loadBalancer:
        servers: [{}]
{options}",
        servers.join(", ")
    )
}

/// F-01: wherever an answer is cut, with a goodbye or a reset, no client takes it for a whole one.
/// Here some hundreds of answers, by HTTP/1 and HTTP/2, and not 10,000.
#[test]
fn no_cut_answer_looks_whole() {
    const LENGTH: usize = 20_000;
    let origin = Origin::with(|seen| {
        let reply = Reply::ok(vec![b'x'; LENGTH]);
        if seen.target == "/chunked" { reply.chunked() } else { reply }
    });
    let relay = Relay::to(origin.address());
    let proxy = Proxy::start(&everything_to(&relay.url()));
    let (mut cut, mut refused) = (0, 0);
    let count = many(400);
    for number in 0..count {
        let target = if number % 2 == 0 { "/length" } else { "/chunked" };
        // From the first byte of the head to the last byte but two of the end.
        let at = 1 + number * 7919 % (LENGTH - 1);
        relay.set(if number % 3 == 0 { Fault::ResetAfter(at) } else { Fault::CutAfter(at) });
        if number % 4 == 3 {
            block_on(async {
                let mut sender = http2::connect(proxy.address("web")).await;
                let request = Request::get(format!("http://a.test{target}"));
                let answer = sender.send_request(request.body(Full::default()).unwrap()).await;
                match answer {
                    Ok(answer) if answer.status() == 502 => refused += 1,
                    Ok(answer) => {
                        let body = answer.into_body().collect().await;
                        assert!(body.is_err(), "{target}, cut after {at}");
                        cut += 1;
                    }
                    Err(_) => cut += 1,
                }
            });
        } else {
            match proxy.client().send(&Ask::get(target)) {
                Ok(answer) => {
                    assert_eq!(answer.status, 502, "{target}, cut after {at}");
                    refused += 1;
                }
                Err(_) => cut += 1,
            }
        }
    }
    assert_eq!(cut + refused, count);
    assert!(cut > count / 2, "{cut} cut, {refused} refused");
    relay.set(Fault::None);
    assert_eq!(proxy.get("/length").body.len(), LENGTH);
}

/// F-03: a 502 in less than 50 ms; what may be asked of others is asked of them at once, and a server
/// that is watched gets nothing more.
#[test]
fn a_server_that_refuses_costs_nobody_time() {
    let (good, bad) = (Origin::named("good"), Origin::start());
    let relay = Relay::to(bad.address());
    relay.set(Fault::Refuse);
    let proxy = Proxy::start(&service(&[&relay.url()], "", ""));
    let mut client = proxy.client();
    let times = |client: &mut Client, want: u16| -> Vec<Duration> {
        let one = |_| {
            let start = Instant::now();
            assert_eq!(client.send(&Ask::get("/")).unwrap().status, want);
            start.elapsed()
        };
        (0..41).map(one).collect()
    };
    let refused = within("a 502", ms(50), || (median(times(&mut client, 502)), control(&proxy)));

    // All of the load goes to the other server, with a retry and with a look at the traffic.
    let servers = [&*relay.url(), &*good.url()];
    let retry = "  middlewares:\n    again: {retry: {attempts: 2, initialInterval: 1ms}}\n";
    proxy.reload(&service(&servers, retry, ", middlewares: [again]"));
    let retried =
        within("the next server", ms(50), || (median(times(&mut client, 200)), control(&proxy)));
    let watched = "        passiveHealthCheck: {failureWindow: 10m, maxFailedAttempts: 2}\n";
    proxy.reload(&service(&servers, watched, ""));
    let failed = (0..40).filter(|_| client.send(&Ask::get("/")).unwrap().status == 502).count();
    assert!(failed <= 2, "{failed}");
    println!("F-03: 502 in {refused:?}, the next server in {retried:?}, {failed} of 40 failed");
}

/// F-04: a reset at once is known at once, and a POST is sent to nobody else once bytes of it were
/// written.
#[test]
fn a_reset_at_once_costs_nobody_time() {
    let (bad, good) = (Origin::start(), Origin::named("good"));
    let relay = Relay::to(bad.address());
    relay.set(Fault::Reset);
    let retry = "  middlewares:\n    again: {retry: {attempts: 2, status: ['502']}}\n";
    let servers = [&*relay.url(), &*good.url()];
    let proxy = Proxy::start(&service(&servers, retry, ", middlewares: [again]"));
    let mut client = proxy.client();
    let mut one = |number| {
        let start = Instant::now();
        let answer = client.send(&Ask::get("/")).unwrap();
        assert_eq!((answer.status, answer.origin()), (200, "good"), "request {number}");
        start.elapsed()
    };
    let taken = within("the next server", ms(50), || {
        (median((0..40).map(&mut one).collect()), control(&proxy))
    });
    // Answered before its body was there, a POST is the last of its connection.
    let post = |_| proxy.client().send(&Ask::post("/", "x")).unwrap().status;
    let statuses: Vec<_> = (0..40).map(post).collect();
    let posts = good.all().iter().filter(|seen| seen.method == "POST").count();
    let passed = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!(posts, passed, "none was sent twice");
    assert!(statuses.iter().all(|status| [200, 502].contains(status)), "{statuses:?}");
    println!("F-04: {taken:?}, {passed} of 40 POSTs passed");
}

/// F-06: who accepts and says nothing is waited for as long as `responseHeaderTimeout`, exactly, and
/// what the request held is free after it.
#[test]
fn a_silent_server_is_waited_for_exactly() {
    const LIMIT: Duration = ms(800);
    let origin = Origin::start();
    let relay = Relay::to(origin.address());
    let options = "        serversTransport: impatient
  serversTransports:
    impatient: {forwardingTimeouts: {responseHeaderTimeout: 800ms}}
  middlewares:
    one: {inFlightReq: {amount: 1}}
";
    let proxy = Proxy::start(&service(&[&relay.url()], options, ", middlewares: [one]"));
    assert_eq!(proxy.get("/").status, 200);
    relay.set(Fault::Stall);
    let mut refused = 0;
    let mut one = |_| {
        let sleeper = thread::spawn(|| {
            let start = Instant::now();
            pause(LIMIT);
            start.elapsed().saturating_sub(LIMIT)
        });
        let mut client = proxy.client();
        let start = Instant::now();
        client.write(&Ask::get("/")).unwrap();
        pause(ms(50));
        let status = proxy.get("/").status;
        if start.elapsed() < LIMIT {
            assert_eq!(status, 429, "the only slot is taken");
            refused += 1;
        }
        assert_eq!(client.read("GET").unwrap().status, 504);
        let late = start.elapsed().checked_sub(LIMIT).expect("it is not sooner");
        (late, sleeper.join().unwrap())
    };
    let late = within("the end of patience", ms(100), || {
        let (late, sleepers): (Vec<_>, Vec<_>) = (0..5).map(&mut one).unzip();
        (median(late), median(sleepers))
    });
    assert!(refused > 0, "nobody came in time to see it");
    relay.set(Fault::None);
    assert_eq!(proxy.get("/").status, 200, "the slot is free");
    println!("F-06: {late:?} late");
}

/// F-07: a server that says goodbye at once is a 502 at once.
#[test]
fn a_goodbye_in_place_of_an_answer_costs_nobody_time() {
    let origin = Origin::start();
    let relay = Relay::to(origin.address());
    relay.set(Fault::HalfClose);
    let proxy = Proxy::start(&everything_to(&relay.url()));
    let one = |number| {
        let ask = if number % 2 == 0 { Ask::get("/") } else { Ask::post("/", "x") };
        // Answered before its body was there, a POST is the last of its connection.
        let mut client = proxy.client();
        let start = Instant::now();
        assert_eq!(client.send(&ask).unwrap().status, 502);
        start.elapsed()
    };
    let taken = within("a 502", ms(50), || (median((0..42).map(one).collect()), control(&proxy)));
    assert_eq!(origin.count(), 0);
    println!("F-07: 502 in {taken:?}");
}

/// A server that closes a connection which was idle for a moment after an answer, as all servers do;
/// here after a very short one.
fn hasty(idle: Duration) -> Origin {
    Origin::raw(move |mut stream, _| {
        let mut head = Vec::new();
        let mut byte = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut byte) {
            head.extend_from_slice(&byte[..count]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).is_err() {
                    return;
                }
                stream.set_read_timeout(Some(idle)).unwrap();
            }
        }
    })
}

/// F-08: a server closes idle connections in the moment when they are used again, and no client sees
/// a 502. Here some thousands of requests and not 100,000; `DOORWARD_TEST_FAULTS` asks for more.
#[test]
fn idle_connections_that_are_closed_are_seen_by_nobody() {
    const IDLE: Duration = ms(5);
    let origin = hasty(IDLE);
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()));
    let each = many(3000).div_ceil(8);
    thread::scope(|scope| {
        for worker in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.client();
                for number in 0..each {
                    let answer = client.send(&Ask::get("/")).unwrap();
                    assert_eq!(answer.status, 200, "request {number} of {worker}");
                    // Around the time after which the server closes.
                    let jitter = u64::try_from((number * 37 + worker * 11) % 30).unwrap();
                    pause(ms(4) + Duration::from_micros(100 * jitter));
                }
            });
        }
    });
    let opened = origin.connections();
    assert!(opened > each / 10, "{opened} connections: hardly any was closed");
    println!("F-08: {} requests, {opened} connections, no 502", 8 * each);
}

/// Waits for the body and never says 100, as HTTP/1.0 servers do.
fn mute() -> Origin {
    Origin::raw(|mut stream, _| {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            seen.extend_from_slice(&piece[..count]);
            if seen.ends_with(b"hello") || (seen.starts_with(b"GET") && seen.ends_with(b"\r\n\r\n"))
            {
                seen.clear();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    })
}

/// F-11: whether a server says 100, says nothing, or does not know what that is, no upload stands
/// still, and the connection is clean after it.
#[test]
fn nobody_waits_for_a_100_that_does_not_come() {
    for origin in [Origin::start(), mute()] {
        let proxy = Proxy::start(&everything_to(&origin.url()));
        let mut client = proxy.client();
        let mut one = |_| {
            let ask = Ask::post("/", "hello").header("Expect", "100-continue");
            let start = Instant::now();
            client.write_raw(ask.head().as_bytes()).unwrap();
            assert_eq!(client.read_head().unwrap().0, 100);
            client.write_raw(b"hello").unwrap();
            assert_eq!(client.read("POST").unwrap().status, 200);
            let taken = start.elapsed();
            let canary = client.send(&Ask::get("/canary")).unwrap();
            assert_eq!(canary.status, 200);
            taken
        };
        let taken = within("an upload", ms(500), || {
            (median((0..11).map(&mut one).collect()), control(&proxy))
        });
        println!("F-11: {taken:?}");
    }
}

/// F-11: under `exact` such a server is waited for as long each time, as Go does.
#[test]
fn exact_waits_for_each_100() {
    let origin = mute();
    let options = json!({"core": {"profile": "exact"}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    for _ in 0..5 {
        let ask = Ask::post("/", "hello").header("Expect", "100-continue");
        let start = Instant::now();
        client.write_raw(ask.head().as_bytes()).unwrap();
        assert_eq!(client.read_head().unwrap().0, 100);
        assert!(start.elapsed() >= ms(900), "{:?}", start.elapsed());
        client.write_raw(b"hello").unwrap();
        assert_eq!(client.read("POST").unwrap().status, 200);
    }
}

/// F-13: an answer whose head has no end costs less than 10 MiB, and is given up.
#[test]
fn heads_that_are_too_large_cost_little() {
    let origin = Origin::raw(|mut stream, number| {
        let mut piece = [0; 4096];
        let Ok(1..) = stream.read(&mut piece) else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        let line = match number % 4 {
            0 => b"X-Many: y\r\n".repeat(1000),
            1 => b"X-Long".repeat(2000),
            2 => [b"X-Value: ".as_slice(), &b"v".repeat(60_000), b"\r\n"].concat(),
            // A head of a good length before, so that the rest is a trailer without an end.
            _ => {
                let _ = stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n");
                b"X-Trailer: y\r\n".repeat(1000)
            }
        };
        // 64 MiB, if somebody takes them.
        for _ in 0..(64 << 20) / line.len() {
            if stream.write_all(&line).is_err() {
                return;
            }
        }
    });
    // Each worker keeps what it has needed once.
    let one_worker = json!({"core": {"workers": 1}});
    let process = Process::start(&one_worker, &everything_to(&origin.url()));
    let at = process.address("web");
    let one = || Client::connect(at).unwrap().send(&Ask::get("/").header("TE", "trailers"));
    let (mut first, mut most, mut before) = (0, 0, 0);
    for number in 0..40 {
        let at_start = memory(&process);
        match one() {
            Ok(answer) if number % 4 != 3 => assert_eq!(answer.status, 502, "{number}"),
            Ok(answer) => panic!("{number}: a trailer without an end: {}", answer.status),
            Err(_) => assert_eq!(number % 4, 3),
        }
        let grown = memory(&process).saturating_sub(at_start);
        if number < 4 {
            first = first.max(grown);
            before = memory(&process);
        } else {
            most = most.max(grown);
        }
    }
    // Were heads kept, 36 would come to more than this.
    let grown = memory(&process).saturating_sub(before);
    assert!(most < 10 << 10 && grown < 24 << 10, "{most} KiB, {grown} KiB together");
    println!("F-13: {first} KiB for the first of a kind, then {most} KiB, {grown} KiB for 36");
}

/// F-16: without a server the answer is a 503 in less than 10 ms, probes go on, and a server is used
/// again within an interval of its return.
#[test]
fn all_servers_down_and_up_again() {
    const INTERVAL: Duration = ms(500);
    let origins = [Origin::start(), Origin::start()];
    let relays: Vec<_> = origins.iter().map(|origin| Relay::to(origin.address())).collect();
    let check = "        healthCheck: {path: /, interval: 500ms, timeout: 400ms}\n";
    let urls = [relays[0].url(), relays[1].url()];
    let proxy = Proxy::start(&service(&[&urls[0], &urls[1]], check, ""));
    assert_eq!(proxy.get("/").status, 200);
    for relay in &relays {
        // A probe's way, and a busy machine.
        let back = within("a server is used again", INTERVAL + ms(500), || {
            for relay in &relays {
                relay.set(Fault::Refuse);
                relay.cut();
            }
            until("there is no server", || proxy.get("/").status == 503);
            let mut client = proxy.client();
            let mut one = |_| {
                let start = Instant::now();
                assert_eq!(client.send(&Ask::get("/")).unwrap().status, 503);
                start.elapsed()
            };
            let taken = within("a 503", ms(10), || {
                (median((0..101).map(&mut one).collect()), control(&proxy))
            });
            println!("F-16: 503 in {taken:?}");
            relay.set(Fault::None);
            let back = Instant::now();
            until("a server is used again", || proxy.get("/").status == 200);
            (back.elapsed(), control(&proxy))
        });
        println!("F-16: back after {back:?}");
    }
}

/// F-17: probes that say this and that change nothing before as many of them agree as `fall` and
/// `rise` ask for.
#[test]
fn a_server_that_flaps_changes_sides_no_faster_than_it_may() {
    let (probes, well, flaps) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(true)),
    );
    let (count, good, flapping) = (Arc::clone(&probes), Arc::clone(&well), Arc::clone(&flaps));
    let origin = Origin::with(move |seen| {
        if seen.target != "/health" {
            return Reply::ok("ok");
        }
        let number = count.fetch_add(1, Ordering::AcqRel);
        // Two of a kind, one after the other.
        let well = if flapping.load(Ordering::Acquire) {
            number / 2 % 2 == 0
        } else {
            good.load(Ordering::Acquire)
        };
        Reply::status(if well { 200 } else { 500 })
    });
    let check =
        "        healthCheck: {path: /health, interval: 20ms, timeout: 5s, rise: 4, fall: 3}\n";
    let process = Process::start(&json!({}), &service(&[&origin.url()], check, ""));
    let mut client = Client::connect(process.address("web")).unwrap();
    let mut get = || client.send(&Ask::get("/")).unwrap().status;
    let seen = || probes.load(Ordering::Acquire);
    until("the server has flapped", || {
        assert_eq!(get(), 200);
        seen() > 40
    });
    let changes = |what: &str| process.log().matches(what).count();
    assert_eq!((changes("the server is down"), changes("server is up again")), (0, 0));

    for (ill, status, needed) in [(true, 503, 3), (false, 200, 4)] {
        well.store(!ill, Ordering::Release);
        flaps.store(false, Ordering::Release);
        let before = seen();
        until("it has changed sides", || get() == status);
        // The last ones of before, and those that came before this was looked at.
        let taken = seen() - before;
        assert!(taken + 1 >= needed, "{taken} probes, and not {needed}");
    }
    assert_eq!((changes("the server is down"), changes("server is up again")), (1, 1));
    println!("F-17: {} probes, one change each way", seen());
}

/// F-06, F-10: a slow body is no slow answer, and a byte that the network has changed harms its own
/// answer only.
#[test]
fn slow_and_broken_bytes_are_the_answers_own() {
    // It closes, so that who waits for more than there is hears that there is none.
    let origin = Origin::with(|_| Reply::ok(vec![b'x'; 20_000]).chunked().close());
    let relay = Relay::to(origin.address());
    let options = "        serversTransport: impatient
  serversTransports:
    impatient: {forwardingTimeouts: {responseHeaderTimeout: 2s}}
";
    let proxy = Proxy::start(&service(&[&relay.url()], options, ""));
    relay.set(Fault::Delay(ms(100)));
    assert_eq!(proxy.get("/").body.len(), 20_000);
    relay.set(Fault::Throttle(8000));
    let start = Instant::now();
    assert_eq!(proxy.get("/").body.len(), 20_000);
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    // Each byte of the head, of the first chunk's length, and of what follows it.
    let mut kept = proxy.client();
    let (mut whole, mut refused, mut cut) = (0, 0, 0);
    for at in 0..100 {
        relay.set(Fault::Corrupt(at));
        relay.cut();
        match proxy.client().send(&Ask::get("/")) {
            Ok(answer) if answer.status == 502 => refused += 1,
            Ok(_) => whole += 1,
            Err(_) => cut += 1,
        }
        relay.set(Fault::None);
        relay.cut();
        assert_eq!(kept.send(&Ask::get("/")).unwrap().body.len(), 20_000, "after {at}");
    }
    assert!(refused > 10 && whole > 10, "{refused} refused, {whole} whole, {cut} cut");
    println!("F-10: {refused} refused, {cut} cut, {whole} whole with another byte");
}

/// F-18: a server that is taken out of the list under load ends what it has begun, and gets nothing
/// new.
#[test]
fn a_server_that_is_taken_out_ends_what_it_has() {
    const LONG: usize = 10;
    let stage = Stage::start();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let go = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&go);
    let leaving = Origin::with(move |seen| {
        if seen.target == "/long" {
            count.fetch_add(1, Ordering::AcqRel);
            until("the long ones may end", || gone.load(Ordering::Acquire));
        }
        Reply::ok(if seen.body.is_empty() { b"origin" } else { &*seen.body })
    });
    let servers = |list: &[&str]| {
        let list: Vec<_> = list.iter().map(|url| format!("{{url: '{url}'}}")).collect();
        let more = "    long: {rule: 'Host(`load.test`) && Path(`/long`)', service: long}\n";
        let config = stage.config(more);
        let line = format!("{{url: '{}'}}", stage.app.url());
        let config = config.replace(&line, &list.join(", "));
        let long = format!(
            "  services:\n    long: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
            leaving.url()
        );
        config.replace("  services:\n", &long)
    };
    let staying = stage.app.url();
    let proxy = Proxy::start(&servers(&[&staying, &leaving.url()]));
    let load = Load::start(proxy.address("web"), Traffic::USUAL);
    let mut long: Vec<_> = (0..LONG)
        .map(|_| {
            let mut client = proxy.client();
            client.write(&Ask::get("load.test/long")).unwrap();
            client
        })
        .collect();
    until("the long ones run", || begun.load(Ordering::Acquire) == LONG);
    // Both the list of `load` and the whole service `long` are without it.
    let gone = stage.config("");
    proxy.reload(&gone);
    // What was routed before the reload may still be on its way.
    pause(ms(200));
    let (before, requests) = (leaving.count(), load.requests());
    until("there is load", || load.requests() > requests + 50);
    assert_eq!(leaving.count(), before, "nothing new");
    go.store(true, Ordering::Release);
    for client in &mut long {
        assert_eq!(client.read("GET").unwrap().text(), "origin");
    }
    let report = load.end();
    assert!(report.is_clean(), "{report:?}");
    println!("F-18: {report:?}");
}

/// F-21: whichever side of a WebSocket dies, and however, the other side hears of it in less than a
/// second, and no socket is left. Here some hundreds and not 10,000.
#[test]
fn dead_websockets_leave_no_socket_behind() {
    let chat = websocket_echo();
    let relay = Relay::to(chat.address());
    let process = Process::start(&json!({}), &everything_to(&relay.url()));
    let at = process.address("web");
    let open = || websocket(socket(at).unwrap(), "ws://ws.test/");
    echoed(&mut open(), "the first");
    until("it is gone", || relay.open() == 0);
    let before = descriptors(&process);
    let mut slowest = Duration::ZERO;
    let rounds = many(300).div_ceil(20);
    let one = |round: usize| {
        let mut sockets: Vec<_> = (0..20).map(|_| open()).collect();
        let start = Instant::now();
        for socket in &mut sockets {
            echoed(socket, "hello");
        }
        let control = start.elapsed();
        let start = Instant::now();
        match round % 4 {
            // The network before the server breaks: a reset.
            0 => relay.cut(),
            // Clients go away with a goodbye, and without one.
            1 => sockets.clear(),
            2 => {
                for socket in sockets.drain(..) {
                    let wire = socket.get_ref();
                    socket2::SockRef::from(wire).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            // One half only.
            _ => sockets.iter().for_each(|socket| {
                socket.get_ref().shutdown(Shutdown::Write).unwrap();
            }),
        }
        for socket in &mut sockets {
            match socket.read() {
                Err(_) | Ok(tungstenite::Message::Close(_)) => {}
                Ok(other) => panic!("round {round}: {other:?}"),
            }
        }
        until("the other side is closed", || relay.open() == 0);
        (start.elapsed(), control)
    };
    for round in 0..rounds {
        slowest = slowest.max(within("twenty of them", ms(1000), || one(round)));
    }
    until("no socket is left", || descriptors(&process) <= before);
    println!("F-21: {} sockets, at most {slowest:?} for twenty of them", rounds * 20);
}
