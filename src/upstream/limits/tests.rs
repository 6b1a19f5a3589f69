//! What limits do to exchanges, with the clock paused.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::exchange::{
    Body, BodyError, Chain, Context, Handler, Middleware, Outcome, ProxyError, Replay, Request,
    Response, ResponseFuture, replay,
};
use crate::upstream::tests::context;

fn timeouts(json: &str) -> TimeoutsConfig {
    serde_json::from_str(json).unwrap()
}

fn limits(json: &str, max_bytes: Option<i64>) -> Limits {
    let mut wrong = Vec::new();
    let body = RequestBodyConfig { max_bytes };
    let limits = Limits::read(Some(&timeouts(json)), body, &mut wrong, &mut Vec::new());
    assert_eq!(wrong, []);
    limits
}

/// A handler that does what a test says.
struct Answer<F>(F);

impl<F> Handler for Answer<F>
where
    F: Fn(Request) -> ResponseFuture<'static> + Send + Sync,
{
    fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
        (self.0)(request)
    }
}

/// Keepers one behind the other, outer ones first.
fn chain<F, R>(keepers: Vec<Keeper>, answer: F) -> Chain
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + 'static,
{
    let keepers = keepers.into_iter().map(|keeper| Arc::new(keeper) as Arc<dyn Middleware>);
    let answer = move |request| -> ResponseFuture<'static> { Box::pin(answer(request)) };
    Chain::new(keepers.collect(), Arc::new(Answer(answer)))
}

/// A handler that reads the body and says how much it was, or why it was not there.
async fn counted(request: Request) -> Response {
    let (_, mut body) = request.into_parts();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.into_data().map_or(0, |data| data.len()),
            Err(error) => return replay::refusal(&error).into_response(),
        }
    }
    Response::new(Body::from(bytes.to_string()))
}

fn request(body: Body) -> Request {
    http::Request::builder().method("POST").uri("/").body(body).unwrap()
}

type Feed = mpsc::UnboundedSender<Result<Frame<Bytes>, BodyError>>;

/// A body of unknown length that is written piece by piece.
#[expect(clippy::disallowed_methods, reason = "a test that writes a few pieces")]
fn fed() -> (Feed, Body) {
    let (feed, mut pieces) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    (feed, Body::boxed(StreamBody::new(stream)))
}

#[expect(clippy::unnecessary_wraps, reason = "frames of a stream are results")]
fn piece(length: usize) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from(vec![b'x'; length])))
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn seconds(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(500)).as_secs()
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    let config = timeouts(
        r#"{"firstByte": "-1s", "idle": "-1", "total": "-1ms", "bodyMinRate": -1, "bodyMinRateGrace": "-2s"}"#,
    );
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let body = RequestBodyConfig { max_bytes: Some(-1) };
    Limits::read(Some(&config), body, &mut errors, &mut warnings);
    let options: Vec<_> = errors.iter().map(|error| error.option.as_str()).collect();
    assert_eq!(
        options,
        [
            "timeouts.firstByte",
            "timeouts.idle",
            "timeouts.total",
            "timeouts.bodyMinRateGrace",
            "timeouts.bodyMinRate",
            "requestBody.maxBytes"
        ]
    );
    assert!(errors.iter().all(|error| error.message.contains("or 0 for no limit")), "{errors:?}");
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].option, "timeouts.bodyMinRateGrace");
}

#[test]
fn zero_is_no_limit_and_silence_is_not_zero() {
    let zero =
        limits(r#"{"firstByte": "0", "idle": "0", "total": "0", "bodyMinRate": 0}"#, Some(0));
    assert!(!zero.is_empty() && limits("{}", None).is_empty());
    let some =
        limits(r#"{"firstByte": "1", "idle": "2", "total": "3", "bodyMinRate": 4}"#, Some(5));
    assert_eq!(zero.or(some), zero);
    assert_eq!(limits("{}", None).or(some), some);
    assert!(some.without(zero).is_empty());
    assert_eq!(some.without(limits(r#"{"idle": "9"}"#, None)).idle, None);
    let since = Instant::now();
    assert_eq!(zero.more_until(since, Duration::ZERO, 0), None);
}

#[tokio::test(start_paused = true)]
async fn a_total_ends_the_waiting_for_an_answer() {
    let slow = |_| async {
        sleep(Duration::from_secs(20)).await;
        Response::new(Body::from_static(b"late"))
    };
    let ten = || limits(r#"{"total": "10"}"#, None);
    let start = Instant::now();
    let chain_of_ten = chain(vec![Keeper::of_router(ten())], slow);
    let mut response = chain_of_ten.handle(&context(), request(Body::empty())).await;
    assert_eq!((response.status().as_u16(), seconds(start)), (504, 10));
    assert_eq!(Outcome::of(&mut response).error, Some(ProxyError::TotalTimeout));
    // Routers below have the last word, services only where no router says anything.
    for (inner, status) in [
        (Keeper::of_router(limits(r#"{"total": "30"}"#, None)), 200),
        (Keeper::of_router(limits(r#"{"total": "0"}"#, None)), 200),
        (Keeper::of_router(limits(r#"{"total": "5"}"#, None)), 504),
        (Keeper::of_service(limits(r#"{"total": "30"}"#, None)), 504),
    ] {
        let keepers = vec![Keeper::of_router(ten()), inner];
        let chain = chain(keepers, slow);
        assert_eq!(chain.handle(&context(), request(Body::empty())).await.status(), status);
    }
    let keepers = vec![
        Keeper::of_router(limits(r#"{"idle": "1"}"#, None)),
        Keeper::of_service(limits(r#"{"total": "5"}"#, None)),
    ];
    let start = Instant::now();
    let response = chain(keepers, slow).handle(&context(), request(Body::empty())).await;
    assert_eq!((response.status().as_u16(), seconds(start)), (504, 5));
}

#[tokio::test(start_paused = true)]
async fn a_total_cuts_an_answer_that_goes_on() {
    let endless = |_| async {
        let pieces = futures_util::stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            Some((piece(1), ()))
        });
        Response::new(Body::boxed(StreamBody::new(pieces)))
    };
    let start = Instant::now();
    let chain = chain(vec![Keeper::of_router(limits(r#"{"total": "10"}"#, None))], endless);
    let cx = context();
    let mut response = chain.handle(&cx, request(Body::empty())).await;
    let outcome = std::mem::take(Outcome::of(&mut response));
    assert_eq!(outcome.until, Some(cx.start + Duration::from_secs(10)));
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(seconds(start), 10);
    assert_eq!(outcome.later.unwrap().get(), Some(&ProxyError::TotalTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_client_may_pause_for_as_long_as_idle_says() {
    let chain = chain(vec![Keeper::of_router(limits(r#"{"idle": "10"}"#, None))], counted);
    let cx = context();
    let (feed, body) = fed();
    let feeding = async {
        for _ in 0..5 {
            sleep(Duration::from_secs(9)).await;
            feed.send(piece(1)).unwrap();
        }
        let start = Instant::now();
        feed.closed().await;
        assert_eq!(seconds(start), 10);
    };
    let (response, ()) = tokio::join!(chain.handle(&cx, request(body)), feeding);
    assert_eq!(response.status(), 408);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_its_time_is_no_pause_of_the_client() {
    let late = |request: Request| async {
        sleep(Duration::from_mins(5)).await;
        counted(request).await
    };
    let strict = limits(r#"{"idle": "1", "bodyMinRate": 1000, "bodyMinRateGrace": "1"}"#, None);
    let chain = chain(vec![Keeper::of_router(strict)], late);
    let (feed, body) = fed();
    feed.send(piece(10)).unwrap();
    drop(feed);
    assert_eq!(text(chain.handle(&context(), request(body)).await).await, "10");
}

/// On average after the grace, and idle as well.
#[tokio::test(start_paused = true)]
async fn a_body_has_a_rate() {
    let rate = limits(r#"{"bodyMinRate": 100, "bodyMinRateGrace": "5.5s"}"#, None);
    for (each, cut) in [(130, None), (90, Some(6950)), (1, Some(5500))] {
        let chain = chain(vec![Keeper::of_router(rate)], counted);
        let cx = context();
        let (feed, body) = fed();
        let start = Instant::now();
        let feeding = async move {
            // A quick start earns time: 100 bytes are a second.
            feed.send(piece(if each == 90 { 155 } else { 0 })).unwrap();
            for _ in 0..20 {
                sleep(Duration::from_secs(1)).await;
                if feed.send(piece(each)).is_err() {
                    return;
                }
            }
        };
        let answering = async {
            let response = chain.handle(&cx, request(body)).await;
            (response, start.elapsed().as_millis())
        };
        let ((response, at), ()) = tokio::join!(answering, feeding);
        let status = response.status().as_u16();
        match cut {
            None => assert_eq!((status, text(response).await.as_str()), (200, "2600")),
            Some(cut) => assert_eq!((status, at.abs_diff(cut) < 10), (408, true), "{each}: {at}"),
        }
    }
}

#[tokio::test]
async fn a_body_has_a_length() {
    let keeper = |most| Keeper::of_router(limits("{}", Some(most)));
    for (most, pieces, want) in
        [(6, 2, "6"), (5, 2, "Request Entity Too Large"), (0, 2, "6"), (1 << 40, 3, "9")]
    {
        let (feed, body) = fed();
        for _ in 0..pieces {
            feed.send(piece(3)).unwrap();
        }
        drop(feed);
        let chain = chain(vec![keeper(most)], counted);
        let response = chain.handle(&context(), request(body)).await;
        assert_eq!(response.status(), if want.len() > 1 { 413 } else { 200 }, "{most}");
        assert_eq!(text(response).await, want, "{most}");
    }
    // What is announced is refused before anybody reads from it; routers below have the last word.
    let large = || request(Body::from_static(b"0123456789"));
    for (inner, status) in [(None, 413), (Some(9), 413), (Some(10), 200), (Some(0), 200)] {
        let unread = move |request: Request| async move {
            let refused = request.extensions().get::<Watch>().unwrap().refuses(request.body());
            assert_eq!(refused, status == 413);
            let mut body = request.into_body();
            let frame = body.frame().await.unwrap();
            assert_eq!((frame.is_err(), body.delivered()), (refused, if refused { 0 } else { 10 }));
            Response::new(Body::empty())
        };
        let keepers = || {
            let outer = Keeper::of_router(limits("{}", Some(5)));
            vec![outer, Keeper::of_router(limits("{}", inner))]
        };
        chain(keepers(), unread).handle(&context(), large()).await;
        let response = chain(keepers(), counted).handle(&context(), large()).await;
        assert_eq!(response.status(), status, "{inner:?}");
    }
}

#[tokio::test]
async fn a_cut_body_never_looks_whole() {
    let reading = |request: Request| async {
        let mut body = request.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        for _ in 0..3 {
            let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(frame),
                Poll::Pending => panic!("it is cut"),
            });
            assert!(matches!(frame.await, Some(Err(BodyError::TooLarge(5)))));
            assert!(!body.is_end_stream());
        }
        Response::new(Body::empty())
    };
    let (feed, body) = fed();
    feed.send(piece(3)).unwrap();
    feed.send(piece(3)).unwrap();
    let chain = chain(vec![Keeper::of_router(limits("{}", Some(5)))], reading);
    assert_eq!(chain.handle(&context(), request(body)).await.status(), 200);
}

#[tokio::test]
async fn what_keeps_bodies_in_memory_is_limited_too() {
    let kept = |request: Request| async {
        match Replay::buffered(request, Some(1 << 20)).await {
            Ok(_) => Response::new(Body::empty()),
            Err(error) => error.into_response(),
        }
    };
    let (feed, body) = fed();
    feed.send(piece(6)).unwrap();
    drop(feed);
    let chain = chain(vec![Keeper::of_router(limits("{}", Some(5)))], kept);
    assert_eq!(chain.handle(&context(), request(body)).await.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_server_may_pause_for_as_long_as_idle_says() {
    let (feed, body) = fed();
    let later = crate::exchange::error::Later::default();
    let body = answered_by(body, Duration::from_secs(10), &later);
    let start = Instant::now();
    let feeding = async move {
        for _ in 0..3 {
            sleep(Duration::from_secs(9)).await;
            feed.send(piece(1)).unwrap();
        }
        feed.closed().await;
    };
    let (read, ()) = tokio::join!(body.collect(), feeding);
    assert!(read.is_err());
    assert_eq!(seconds(start), 37);
    assert_eq!(later.get(), Some(&ProxyError::AnswerStalled));
}
