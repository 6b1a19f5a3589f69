//! A Redis that keeps the buckets of a rate limit and is away at the start, gone, slow, silent and
//! back: row F-67 of the fault table. The documented choice is to refuse with a 500.

use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::fault_system::Clock;
use crate::harness::fault::{Fault, Relay};
use crate::harness::redis::Redis;
use crate::harness::{Ask, Client, Origin, Proxy, pause, until};

const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(1);

/// A router with a limit of many requests, and one without.
fn config(url: &str, redis: &str) -> String {
    format!(
        "
        http:
          routers:
            limited: {{rule: PathPrefix(`/`), service: app, middlewares: [limit]}}
            free: {{rule: PathPrefix(`/free`), service: app}}
          middlewares:
            limit:
              rateLimit:
                average: 1000
                burst: 1000
                redis: {{endpoints: ['{redis}'], readTimeout: 1s, dialTimeout: 1s}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        "
    )
}

/// Requests of ten clients at once: their statuses, and how long the slowest took.
fn crowd(proxy: &Proxy, path: &str) -> (Vec<u16>, Duration) {
    let start = Instant::now();
    let ask = || proxy.send(&Ask::get(path)).status;
    let statuses = thread::scope(|scope| {
        let clients: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    (statuses, start.elapsed())
}

/// F-67: whatever Redis does, each decision comes within `readTimeout`, no request hangs, who needs no
/// decision waits for nothing, and Redis is used again when it is back.
#[test]
fn every_decision_comes_in_time() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let relay = Relay::to(([127, 0, 0, 1], redis.port()).into());
    relay.set(Fault::Refuse);
    let proxy = Proxy::start(&config(&origin.url(), &relay.address().to_string()));
    let late = Fault::Delay(Duration::from_secs(3));
    let mut told = Vec::new();
    for (name, fault) in [
        ("down at the start", Fault::Refuse),
        ("silent", Fault::Stall),
        ("slow", late),
        ("reset", Fault::Reset),
        ("said goodbye", Fault::HalfClose),
        ("gone", Fault::Refuse),
    ] {
        relay.set(fault);
        if !matches!(fault, Fault::Stall | Fault::Delay(_)) {
            relay.cut();
        }
        let (statuses, slowest) = crowd(&proxy, "/");
        assert_eq!(statuses, [500; 10], "{name}");
        assert!(slowest < READ_TIMEOUT + SLACK, "{name}: {slowest:?}");
        let (free, quick) = crowd(&proxy, "/free");
        assert_eq!(free, [200; 10], "{name}");
        assert!(quick < SLACK, "{name}: {quick:?}");
        relay.set(Fault::None);
        let back = Instant::now();
        until("Redis is used again", || proxy.get("/").status == 200);
        // On each worker's connection.
        until("Redis is used by all", || crowd(&proxy, "/").0 == [200; 10]);
        told.push(format!("{name}: {slowest:?}, back after {:?}", back.elapsed()));
    }
    // Slower than usual, and within the time.
    relay.set(Fault::Delay(Duration::from_millis(150)));
    assert_eq!(crowd(&proxy, "/").0, [200; 10]);
    assert!(relay.connections() > 0);
    println!("F-67: {}", told.join("; "));
}

/// F-44: buckets in Redis are counted by the clock on the wall, which every proxy has its own of. When
/// it jumps, no limit freezes and none opens.
#[test]
fn the_clock_may_jump() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let text = config(&origin.url(), &redis.address()).replace("1000", "5");
    let clock = Clock::new();
    let process = clock.start(&json!({}), &text);
    let mut client = Client::connect(process.address("web")).unwrap();
    let mut passed = || {
        let statuses = (0..30).map(|_| client.send(&Ask::get("/")).unwrap().status);
        statuses.filter(|&status| status == 200).count()
    };
    for offset in ["+3600", "-3600", "+400d", "+0", "-2", "+0"] {
        assert!(passed() < 30, "the limit holds before {offset}");
        clock.set(offset);
        // No more than its burst comes at once, whatever the clock says.
        assert!(passed() < 30, "the limit holds after {offset}");
        pause(Duration::from_millis(if offset == "-2" { 4000 } else { 1500 }));
        let passed = passed();
        assert!((3..30).contains(&passed), "{passed} of 30 a while after {offset}");
    }
}
