//! Requests that are polled in random order, and given up at random, over connections that end at random: each gets its
//! own answer or is gone, and no connection is lost or lent twice. A failure says its seed.

use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http_body_util::combinators::BoxBody;

use super::*;
use crate::upstream::pool::idle_here;

const ROUNDS: u64 = 60;
const REQUESTS: u64 = 24;

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// Lets others go first at random, and ends with `None` after so many turns.
struct Shuffled<F> {
    future: Pin<Box<F>>,
    random: Random,
    turns: Option<u64>,
}

impl<F: Future> Future for Shuffled<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        if self.random.below(2) == 0 {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(turns) = &mut self.turns {
            let Some(left) = turns.checked_sub(1) else { return Poll::Ready(None) };
            *turns = left;
        }
        self.future.as_mut().poll(task).map(Some)
    }
}

fn shuffled<F: Future>(future: F, seed: u64) -> Shuffled<F> {
    let mut random = Random::new(seed);
    // A third of the clients goes away, some before anything was sent.
    let turns = (random.below(3) == 0).then(|| random.below(6));
    Shuffled { future: Box::pin(future), random, turns }
}

/// Sends requests that say which they are, and looks at their answers; returns how many were answered.
async fn round(forwarder: &Rc<Forwarder>, cx: &Rc<Context>, seed: u64) -> usize {
    let sent: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let (forwarder, cx) = (Rc::clone(forwarder), Rc::clone(cx));
            let path = format!("/{seed}/{number}");
            let exchange = async move {
                let response = forwarder.forward(&cx, get(&path)).await;
                assert_eq!(
                    response.status(),
                    StatusCode::OK,
                    "seed {seed}: {:?}",
                    outcome(&response).error
                );
                assert_eq!(text(response).await, path, "seed {seed}: another's answer");
            };
            tokio::task::spawn_local(shuffled(exchange, seed * 1000 + number))
        })
        .collect();
    let mut answered = 0;
    for one in sent {
        let over = tokio::time::timeout(Duration::from_secs(20), one).await;
        let over = over.unwrap_or_else(|_| panic!("seed {seed}: a request hangs"));
        answered += usize::from(over.unwrap().is_some());
    }
    answered
}

/// Answers with the path, and now and then ends the connection, with a word or without one.
async fn fickle(number: usize, mut stream: TcpStream) {
    let mut random = Random::new(number as u64 + 1);
    while let Some(head) = read_head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let last = random.below(8);
        let word = if last == 0 { "Connection: close\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 200 OK\r\n{word}Content-Length: {}\r\n\r\n{path}", path.len());
        if stream.write_all(answer.as_bytes()).await.is_err() || last <= 1 {
            return;
        }
    }
}

/// A pooled connection is never given to two requests, and none after it was closed.
#[tokio::test(flavor = "local")]
async fn connections_are_lent_to_one_at_a_time() {
    let (address, _) = server(fickle).await;
    let config = ServersTransportConfig { max_idle_conns_per_host: 5, ..Default::default() };
    let forwarder = Rc::new(forwarder_with(&format!("http://{address}"), &config));
    let cx = Rc::new(context());
    let mut answered = 0;
    for seed in 1..=ROUNDS {
        answered += round(&forwarder, &cx, seed).await;
        let origin = forwarder.origin();
        assert_eq!(origin.idle.count(), idle_here(origin), "seed {seed}: the count is wrong");
        assert!(idle_here(origin) <= 5, "seed {seed}: more are kept than may be");
    }
    assert!(answered > 600, "{answered} answers");
}

/// Whoever waits for a shared connection gets one, also when the one who made it went away.
#[tokio::test(flavor = "local")]
async fn who_waits_for_a_shared_connection_is_not_forgotten() {
    let mut answered = 0;
    for seed in 1..=ROUNDS {
        let (address, _) = server(|_, stream| {
            http2::serve_h2(stream, 5, |request| async move {
                let path = Bytes::from(request.uri().path().to_owned());
                http::Response::new(BoxBody::new(http_body_util::Full::new(path)))
            })
        })
        .await;
        let forwarder = Rc::new(forwarder(&format!("h2c://{address}")));
        answered += round(&forwarder, &Rc::new(context()), seed).await;
    }
    assert!(answered > 600, "{answered} answers");
}
