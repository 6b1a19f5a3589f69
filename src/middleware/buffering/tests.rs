//! Whole requests through `buffering`, and its options.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::*;
use crate::exchange::BodyError;
use crate::middleware::testing::{Bench, Setting, body, build, get};

fn config() -> BufferingConfig {
    BufferingConfig::default()
}

fn post(body: Body) -> Request {
    let mut request = get("/");
    *request.method_mut() = Method::POST;
    *request.body_mut() = body;
    request
}

/// A body whose length is not known before.
fn chunked(pieces: &'static [&'static [u8]]) -> Body {
    let frames = pieces.iter().map(|&piece| Ok(Frame::data(Bytes::from_static(piece))));
    Body::boxed(StreamBody::new(stream::iter(frames)))
}

/// A backend that sends back what it got, once it has all of it.
fn echo(config: &BufferingConfig) -> Bench {
    Bench::waiting(vec![build(config).unwrap()], |_, request| {
        Box::pin(async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Body::from(bytes))
        })
    })
}

/// RP 7.6: stored, and sent again with its length.
#[tokio::test]
async fn a_request_is_sent_with_its_length() {
    for memory in [0, 3, 1 << 20] {
        let config = BufferingConfig { mem_request_body_bytes: memory, ..config() };
        let bench = echo(&config);
        let mut request = post(chunked(&[b"one", b"two"]));
        for (name, value) in [("transfer-encoding", "chunked"), ("expect", "100-continue")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let response = bench.send(request).await;
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(body(response).await, "onetwo");
        let seen = bench.seen().headers;
        assert_eq!(seen["content-length"], "6");
        assert!(!seen.contains_key("transfer-encoding") && !seen.contains_key("expect"));
    }
}

#[tokio::test]
async fn a_request_without_a_body_stays_one() {
    let bench = echo(&config());
    bench.send(get("/")).await;
    assert!(!bench.seen().headers.contains_key("content-length"));
    bench.send(post(chunked(&[]))).await;
    assert_eq!(bench.seen().headers["content-length"], "0");
}

/// RP 7.6: 413, `Request Entity Too Large`, and no server is asked.
#[tokio::test]
async fn a_long_request_is_refused() {
    let config = BufferingConfig { max_request_body_bytes: 6, ..config() };
    for (body_of, status) in [
        (chunked(&[b"one", b"two"]), 200),
        (chunked(&[b"one", b"two", b"!"]), 413),
        (Body::from_static(b"onetwo"), 200),
        (Body::from_static(b"onetwo!"), 413),
    ] {
        let bench = echo(&config);
        let response = bench.send(post(body_of)).await;
        assert_eq!(response.status(), status);
        assert_eq!(bench.calls(), usize::from(status == 200));
        if status == 413 {
            assert!(response.headers().is_empty());
            assert_eq!(body(response).await, "Request Entity Too Large");
        }
    }
}

#[tokio::test]
async fn a_request_that_fails_is_not_sent() {
    for (error, status) in
        [(BodyError::Timeout, 408), (BodyError::Malformed("x"), 400), (gone(), 499)]
    {
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err(error)]);
        let bench = echo(&config());
        let request = post(Body::boxed(StreamBody::new(frames)));
        assert_eq!(bench.status(request).await.as_u16(), status);
        assert_eq!(bench.calls(), 0);
    }
}

fn gone() -> BodyError {
    BodyError::Source("gone".into())
}

fn answering(config: &BufferingConfig, answer: fn(usize) -> Response) -> Bench {
    Bench::answering(vec![build(config).unwrap()], move |call, _| answer(call))
}

/// RP 7.6: 500, `Internal Server Error`.
#[tokio::test]
async fn a_long_response_becomes_an_error() {
    let config = BufferingConfig { max_response_body_bytes: 6, ..config() };
    for (answer, status, text) in [
        ((|_| Response::new(chunked(&[b"one", b"two"]))) as fn(usize) -> Response, 200, "onetwo"),
        (|_| Response::new(chunked(&[b"one", b"two", b"!"])), 500, "Internal Server Error"),
        (|_| Response::new(Body::from_static(b"onetwo!")), 500, "Internal Server Error"),
    ] {
        let response = answering(&config, answer).send(get("/")).await;
        assert_eq!(response.status(), status);
        assert_eq!(body(response).await, text);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_bad_gateway() {
    let bench = answering(&config(), |_| {
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err(gone())]);
        let mut response = Response::new(Body::boxed(StreamBody::new(frames)));
        Outcome::of(&mut response).service = Some("app".into());
        response
    });
    let mut response = bench.send(get("/")).await;
    assert_eq!(response.status(), 502);
    let outcome = Outcome::of(&mut response);
    assert_eq!(outcome.error, Some(ProxyError::UpstreamClosed));
    assert_eq!(outcome.service.as_deref(), Some("app"));
}

#[tokio::test]
async fn trailers_stay_trailers() {
    let bench = answering(&config(), |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
        Response::new(Body::boxed(StreamBody::new(stream::iter(frames))))
    });
    let response = bench.send(get("/")).await;
    assert!(!response.headers().contains_key("content-length"));
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn responses_without_a_body_are_left_alone() {
    let mut head = get("/");
    *head.method_mut() = Method::HEAD;
    for (request, status, grpc) in [
        (head, 200, None),
        (get("/"), 101, None),
        (get("/"), 204, None),
        (get("/"), 304, None),
        (get("/"), 200, Some("7")),
    ] {
        let config = BufferingConfig { max_response_body_bytes: 1, ..config() };
        let bench = Bench::answering(vec![build(&config).unwrap()], move |_, _| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1000"));
            if let Some(grpc) = grpc {
                headers.insert("grpc-status", HeaderValue::from_static(grpc));
            }
            response
        });
        let response = bench.send(request).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["content-length"], "1000");
    }
}

fn retrying(expression: &str) -> BufferingConfig {
    BufferingConfig { retry_expression: expression.into(), ..config() }
}

/// RP 7.6: the same body each time, ten times more at most.
#[tokio::test]
async fn a_request_is_sent_again_as_the_expression_says() {
    for (expression, calls) in [
        ("IsNetworkError()", 11),
        ("IsNetworkError() && Attempts() < 3", 3),
        ("ResponseCode() == 503", 1),
        ("RequestMethod() == \"POST\" && Attempts() <= 2", 3),
    ] {
        let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let seen = Arc::clone(&bodies);
        let config = BufferingConfig { mem_request_body_bytes: 2, ..retrying(expression) };
        let bench = Bench::waiting(vec![build(&config).unwrap()], move |_, request| {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(bytes);
                bare(StatusCode::BAD_GATEWAY)
            })
        });
        let response = bench.send(post(Body::from_static(b"body"))).await;
        assert_eq!(response.status(), 502);
        assert_eq!(bench.calls(), calls, "{expression}");
        assert!(bodies.lock().unwrap().iter().all(|seen| seen == "body"));
    }
}

/// RP 7.6: "only when the request has a body".
#[tokio::test]
async fn a_request_without_a_body_is_sent_once() {
    let bench = answering(&retrying("Attempts() < 5"), |_| bare(StatusCode::BAD_GATEWAY));
    assert_eq!(bench.status(get("/")).await, 502);
    assert_eq!(bench.status(post(chunked(&[]))).await, 502);
    assert_eq!(bench.calls(), 2);
}

#[tokio::test]
async fn the_last_answer_goes_to_the_client() {
    let bench = answering(&retrying("IsNetworkError()"), |call| match call {
        1 => bare(StatusCode::BAD_GATEWAY),
        2 => {
            let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err(gone())]);
            Response::new(Body::boxed(StreamBody::new(frames)))
        }
        _ => Response::new(Body::from_static(b"third")),
    });
    let response = bench.send(post(Body::from_static(b"body"))).await;
    assert_eq!((response.status().as_u16(), &*body(response).await), (200, "third"));
}

#[tokio::test]
async fn an_upgrade_is_final() {
    let bench = answering(&retrying("Attempts() < 5"), |_| bare(StatusCode::SWITCHING_PROTOCOLS));
    assert_eq!(bench.status(post(Body::from_static(b"body"))).await, 101);
    assert_eq!(bench.calls(), 1);
}

#[tokio::test]
async fn a_failing_service_is_not_flooded() {
    for (profile, least, most) in [(Profile::Safe, 401, 520), (Profile::Exact, 1200, 1200)] {
        let setting = Setting { profile, ..Setting::default() };
        let (middleware, _) = setting.build(&retrying("Attempts() < 4")).unwrap();
        let bench = Bench::answering(vec![middleware], |_, _| bare(StatusCode::BAD_GATEWAY));
        for _ in 0..300 {
            bench.send(post(Body::from_static(b"body"))).await;
        }
        let calls = bench.calls();
        assert!((least..=most).contains(&calls), "{profile:?} {calls}");
    }
}

#[test]
fn options_are_checked() {
    for (config, option) in [
        (BufferingConfig { max_request_body_bytes: -1, ..config() }, "maxRequestBodyBytes"),
        (BufferingConfig { mem_request_body_bytes: -1, ..config() }, "memRequestBodyBytes"),
        (BufferingConfig { max_response_body_bytes: -1, ..config() }, "maxResponseBodyBytes"),
        (BufferingConfig { mem_response_body_bytes: -1, ..config() }, "memResponseBodyBytes"),
        (retrying("Attempts()"), "retryExpression"),
    ] {
        assert_eq!(build(&config).err().unwrap().option, option);
    }
    let config: BufferingConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config.mem_request_body_bytes, 1_048_576);
    assert_eq!(config.mem_response_body_bytes, 1_048_576);
}

/// Nothing says how much a client may send: one that is hardened does.
#[tokio::test]
async fn no_limit_is_one_when_hardened() {
    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            unreachable!("a length that is known is not read")
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(HARDENED_MOST + 1)
        }
    }
    let setting = Setting { profile: Profile::Hardened, ..Setting::default() };
    let (middleware, _) = setting.build(&config()).unwrap();
    let bench = Bench::new(vec![middleware]);
    assert_eq!(bench.status(post(Body::boxed(Endless))).await, 413);
}
