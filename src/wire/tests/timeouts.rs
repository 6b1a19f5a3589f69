//! The limits of a client's time, with the clock paused.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::super::BodyTimeout;
use super::server::{rest, serve, until};
use super::*;

fn timeouts(body: BodyTimeout) -> GateTimeouts {
    GateTimeouts {
        idle: Some(Duration::from_mins(3)),
        read: Some(Duration::from_mins(1)),
        body,
        ..GateTimeouts::default()
    }
}

/// Whole seconds since `start`.
fn seconds(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(500)).as_secs()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX: marker\r\n\r\n";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed_after_the_read_timeout() {
    let (mut client, task, _) = serve(timeouts(BodyTimeout::Total));
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 60);
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_the_idle_timeout() {
    let (mut client, task, log) = serve(timeouts(BodyTimeout::Total));
    sleep(Duration::from_secs(50)).await;
    for _ in 0..3 {
        client.write_all(GET).await.unwrap();
        until(&mut client, "\r\n\r\n").await;
        sleep(Duration::from_secs(170)).await;
    }
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 10);
    task.await.unwrap().unwrap();
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_from_its_first_byte_on() {
    let (mut client, _task, log) = serve(timeouts(BodyTimeout::Total));
    client.write_all(GET).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    let mut sent = 0;
    for byte in GET.iter().take(30) {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        sleep(Duration::from_secs(10)).await;
    }
    assert!((6..=8).contains(&sent), "{sent}");
    assert_eq!(rest(&mut client).await, "");
    assert!(seconds(start) <= 80);
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_the_read_timeout_in_total() {
    let (mut client, _task, _) = serve(timeouts(BodyTimeout::Total));
    let start = Instant::now();
    client.write_all(CHUNKED).await.unwrap();
    for _ in 0..5 {
        sleep(Duration::from_secs(11)).await;
        client.write_all(b"1\r\na\r\n").await.unwrap();
    }
    let text = until(&mut client, "body lost").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(seconds(start), 60);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_have_the_read_timeout_per_pause() {
    let (mut client, _task, _) = serve(timeouts(BodyTimeout::PerRead));
    client.write_all(CHUNKED).await.unwrap();
    for _ in 0..5 {
        sleep(Duration::from_secs(50)).await;
        client.write_all(b"1\r\na\r\n").await.unwrap();
    }
    let start = Instant::now();
    let text = until(&mut client, "body lost").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(seconds(start), 60);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_limited_while_a_request_is_answered() {
    let (mut client, _task, _) = serve(timeouts(BodyTimeout::Total));
    let start = Instant::now();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut client, "slow").await;
    assert_eq!(seconds(start), 300);
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 180);
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_partial_head_does_not_cut_the_answer_before_it() {
    let (mut client, _task, log) = serve(timeouts(BodyTimeout::Total));
    let start = Instant::now();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /part").await.unwrap();
    until(&mut client, "slow").await;
    assert_eq!(seconds(start), 300);
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 360);
    assert_eq!(*log.lock().unwrap(), ["/slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_has_no_limit() {
    let (mut client, _task, _) = serve(timeouts(BodyTimeout::Total));
    let head = b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    client.write_all(head).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_secs(100_000)).await;
    client.write_all(b"still here").await.unwrap();
    until(&mut client, "still here").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_sending_after_a_refusal_is_left_after_a_second() {
    let (mut client, task, _) = serve(timeouts(BodyTimeout::Total));
    let start = Instant::now();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 400"));
    task.await.unwrap().unwrap();
    assert_eq!(seconds(start), 1);
}

/// A request whose answer is larger than what fits between the two sides.
fn large() -> Vec<u8> {
    let length = 3 << 20;
    let mut request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    request.push_str(&"x".repeat(length));
    request.into_bytes()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_cut_after_the_write_timeout() {
    let write = Some(Duration::from_secs(20));
    let (mut client, task, _) = serve(GateTimeouts { write, ..GateTimeouts::default() });
    client.write_all(GET).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    // Only the time of one exchange counts.
    sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    client.write_all(&large()).await.unwrap();
    task.await.unwrap().unwrap_err();
    assert_eq!(seconds(start), 20);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_too_slowly_is_cut_after_the_write_timeout() {
    let write = Some(Duration::from_secs(20));
    let (mut client, task, _) = serve(GateTimeouts { write, ..GateTimeouts::default() });
    client.write_all(&large()).await.unwrap();
    let start = Instant::now();
    let mut buf = [0; 4096];
    while client.read(&mut buf).await.unwrap() > 0 && !task.is_finished() {
        sleep(Duration::from_secs(1)).await;
    }
    task.await.unwrap().unwrap_err();
    assert!((20..=22).contains(&seconds(start)), "{:?}", start.elapsed());
}

/// G-35: a head has less time than a request with its body.
#[tokio::test(start_paused = true)]
async fn a_head_may_have_a_limit_of_its_own() {
    let limits =
        GateTimeouts { head: Some(Duration::from_secs(10)), ..timeouts(BodyTimeout::Total) };
    let (mut client, task, _) = serve(limits);
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 10);
    task.await.unwrap().unwrap();
    let (mut client, task, _) = serve(limits);
    client.write_all(GET).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    for byte in &GET[..9] {
        client.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 10);
    task.await.unwrap().unwrap();
    let (mut client, task, log) = serve(limits);
    client.write_all(CHUNKED).await.unwrap();
    sleep(Duration::from_secs(50)).await;
    client.write_all(b"1\r\nx\r\n0\r\n\r\n").await.unwrap();
    until(&mut client, "\r\n\r\nx").await;
    assert_eq!(log.lock().unwrap().len(), 1, "a body has the time that it had");
    task.abort();
}

/// G-35: what a client has taken before its first head is not given back; a later head has its own time.
#[tokio::test(start_paused = true)]
async fn the_first_head_may_be_due_earlier() {
    let head = Some(Duration::from_secs(10));
    let head_by = Some(Instant::now() + Duration::from_secs(4));
    let limits = GateTimeouts { head, head_by, ..timeouts(BodyTimeout::Total) };
    for begun in [&b""[..], &GET[..9]] {
        let (mut client, task, _) = serve(GateTimeouts {
            head_by: Some(Instant::now() + Duration::from_secs(4)),
            ..limits
        });
        let start = Instant::now();
        client.write_all(begun).await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(seconds(start), 4);
        task.await.unwrap().unwrap();
    }
    let (mut client, task, _) = serve(limits);
    client.write_all(GET).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_secs(100)).await;
    client.write_all(&GET[..9]).await.unwrap();
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(seconds(start), 10);
    task.await.unwrap().unwrap();
}

/// G-34: who takes something now and then goes on, who takes nothing is cut.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut() {
    let stall = Some(Duration::from_secs(20));
    let (mut client, task, _) = serve(GateTimeouts { stall, ..GateTimeouts::default() });
    client.write_all(GET).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    sleep(Duration::from_secs(100)).await;
    client.write_all(&large()).await.unwrap();
    let mut buf = [0; 4096];
    for _ in 0..5 {
        sleep(Duration::from_secs(15)).await;
        assert!(client.read(&mut buf).await.unwrap() > 0);
    }
    let start = Instant::now();
    task.await.unwrap().unwrap_err();
    assert_eq!(seconds(start), 20);
}
