//! A breaker in front of a service that fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http_body_util::BodyExt;

use super::*;
use crate::exchange::Tunnel;
use crate::middleware::testing::{Bench, Setting, body, build, get};

fn config(expression: &str) -> CircuitBreakerConfig {
    CircuitBreakerConfig { expression: expression.into(), ..CircuitBreakerConfig::default() }
}

/// A service that answers with the status of the moment.
fn service(middleware: Arc<dyn Middleware>) -> (Bench, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let seen = Arc::clone(&status);
    let bench = Bench::answering(vec![middleware], move |_, _| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(seen.load(Ordering::Relaxed)).unwrap();
        response
    });
    (bench, status)
}

async fn wait(millis: u64) {
    tokio::time::advance(Duration::from_millis(millis)).await;
}

/// RP 7.6: the whole way round, with the defaults.
#[tokio::test(start_paused = true)]
async fn it_opens_recovers_and_closes() {
    let (bench, status) = service(build(&config("NetworkErrorRatio() > 0.30")).unwrap());
    assert_eq!(bench.status(get("/")).await, 200);
    status.store(502, Ordering::Relaxed);
    wait(50).await;
    // Half of two are errors, and nobody looks before the period is over.
    assert_eq!(bench.status(get("/")).await, 502);
    assert_eq!(bench.status(get("/")).await, 502);
    wait(51).await;
    assert_eq!(bench.status(get("/")).await, 502);
    for _ in 0..10 {
        let response = bench.send(get("/")).await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().is_empty());
        assert_eq!(body(response).await, "Service Unavailable");
        wait(999).await;
    }
    assert_eq!(bench.calls(), 4);
    status.store(200, Ordering::Relaxed);
    wait(11).await;
    // Ten seconds, in which 0 to 50 of 100 requests pass.
    let mut passed = [0_u32; 4];
    for index in 0..1000_usize {
        if bench.status(get("/")).await == 200 {
            passed[index / 250] += 1;
        }
        wait(10).await;
    }
    assert!(passed[0] < passed[1] && passed[1] < passed[2] && passed[2] < passed[3], "{passed:?}");
    let all = passed.iter().sum::<u32>();
    assert!((400..=510).contains(&all), "{passed:?}");
    wait(10).await;
    for _ in 0..50 {
        assert_eq!(bench.status(get("/")).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_again_is_shut_out_again() {
    let (bench, status) = service(
        build(&CircuitBreakerConfig {
            fallback_duration: GoDuration::from_secs(1),
            recovery_duration: GoDuration::from_secs(2),
            check_period: GoDuration::from_millis(1),
            response_code: 418,
            ..config("ResponseCodeRatio(500, 600, 0, 600) > 0.5")
        })
        .unwrap(),
    );
    status.store(500, Ordering::Relaxed);
    assert_eq!(bench.status(get("/")).await, 500);
    assert_eq!(bench.status(get("/")).await, 418);
    wait(1000).await;
    // The first half of the way to one in two: the third and later ones pass at 0.25.
    assert_eq!(bench.status(get("/")).await, 418);
    wait(1000).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(bench.status(get("/")).await.as_u16());
    }
    assert_eq!(statuses, [418, 418, 418, 500, 418, 418]);
    wait(999).await;
    assert_eq!(bench.status(get("/")).await, 418);
    assert_eq!(bench.calls(), 2);
    wait(1).await;
    // It recovers once more.
    wait(2000).await;
    status.store(200, Ordering::Relaxed);
    assert_eq!(bench.status(get("/")).await, 418);
}

#[tokio::test(start_paused = true)]
async fn latency_lasts_to_the_end_of_the_body() {
    let slow = build(&config("LatencyAtQuantileMS(50.0) > 100")).unwrap();
    let bench = Bench::answering(vec![slow], |_, _| Response::new(Body::from_static(b"hello")));
    let response = bench.send(get("/")).await;
    wait(102).await;
    assert_eq!(bench.calls(), 1);
    response.into_body().collect().await.unwrap();
    assert_eq!(bench.status(get("/")).await, 503);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_and_what_is_a_tunnel_has_no_latency() {
    let slow = build(&config("LatencyAtQuantileMS(50.0) > 100")).unwrap();
    let tunnel = Tunnel::default();
    let shared = tunnel.clone();
    let bench = Bench::answering(vec![slow], move |call, _| {
        let mut response = Response::new(Body::from_static(b"hello"));
        if call == 2 {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.extensions_mut().insert(shared.clone());
        }
        response
    });
    let broken = bench.send(get("/")).await;
    let upgraded = bench.send(get("/")).await;
    wait(500).await;
    drop((broken, upgraded));
    tunnel.finish(BodyEnd { ending: Ending::Complete, bytes: 0 });
    wait(500).await;
    assert_eq!(body(bench.send(get("/")).await).await, "hello");
    assert_eq!(bench.status(get("/")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_a_499() {
    let breaker = build(&config("ResponseCodeRatio(499, 500, 0, 600) > 0.5")).unwrap();
    let bench = Bench::waiting(vec![breaker], |_, _| Box::pin(std::future::pending()));
    let mut stuck = bench.send(get("/"));
    let pending =
        std::future::poll_fn(|task| std::task::Poll::Ready(stuck.as_mut().poll(task).is_pending()));
    assert!(pending.await);
    drop(stuck);
    assert_eq!(bench.status(get("/")).await, 503);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_state_unless_the_rule_changes() {
    let setting = Setting::default();
    let rule = config("NetworkErrorRatio() > 0.5");
    let (first, _) = setting.build(&rule).unwrap();
    let other_status = CircuitBreakerConfig { response_code: 500, ..rule.clone() };
    let (same, _) = setting.build(&other_status).unwrap();
    let (changed, _) = setting.build(&config("NetworkErrorRatio() > 0.6")).unwrap();
    let (first, status) = service(first);
    let (same, changed) = (service(same).0, service(changed).0);
    status.store(504, Ordering::Relaxed);
    assert_eq!(first.status(get("/")).await, 504);
    assert_eq!(first.status(get("/")).await, 503);
    assert_eq!(same.status(get("/")).await, 500);
    assert_eq!(changed.status(get("/")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn zero_is_the_default_of_every_time() {
    let zero = GoDuration::ZERO;
    let (bench, status) = service(
        build(&CircuitBreakerConfig {
            check_period: zero,
            fallback_duration: zero,
            recovery_duration: GoDuration::from_secs(-1),
            response_code: 599,
            ..config("NetworkErrorRatio() > 0.5")
        })
        .unwrap(),
    );
    status.store(502, Ordering::Relaxed);
    assert_eq!(bench.status(get("/")).await, 502);
    wait(9_999).await;
    let response = bench.send(get("/")).await;
    assert_eq!(response.status(), 599);
    assert_eq!(body(response).await, "");
}

#[test]
fn what_is_wrong_is_an_error_of_its_option() {
    for (expression, response_code, want) in [
        ("", 503, "expression"),
        ("NetworkErrorRatio() > 1", 503, "expression"),
        ("NetworkErrorRatio() > 0.1", 0, "responseCode"),
        ("NetworkErrorRatio() > 0.1", 101, "responseCode"),
        ("NetworkErrorRatio() > 0.1", 1000, "responseCode"),
        ("NetworkErrorRatio() > 0.1", -503, "responseCode"),
    ] {
        let config = CircuitBreakerConfig { response_code, ..config(expression) };
        assert_eq!(build(&config).err().unwrap().option, want, "{expression} {response_code}");
    }
}
