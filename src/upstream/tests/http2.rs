//! HTTP/2 with prior knowledge.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

pub(super) type Answer = http::Response<BoxBody<Bytes, Infallible>>;

pub(super) async fn serve_h2<S, F>(stream: TcpStream, max_streams: u32, answer: S)
where
    S: Fn(http::Request<hyper::body::Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(max_streams)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Echoes the body, and the request's pseudo headers, as a gRPC server would.
async fn echo(request: http::Request<hyper::body::Incoming>) -> Answer {
    let about = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get("te"));
    let collected = request.into_body().collect().await.unwrap();
    assert!(collected.trailers().is_none(), "request trailers are not forwarded");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(collected.to_bytes())), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    http::Response::builder().header("x-about", about).body(BoxBody::new(body)).unwrap()
}

#[tokio::test(flavor = "local")]
async fn grpc_like_exchanges_share_one_connection() {
    let (address, accepted) = server(|_, stream| serve_h2(stream, 100, echo)).await;
    let (forwarder, cx) = (forwarder(&format!("h2c://{address}")), context());
    let one = |index: usize| {
        let (forwarder, cx) = (&forwarder, &cx);
        async move {
            let (feed, body) = fed_body();
            let mut request = request("POST", "/pkg.Service/Call?x=1", body);
            *request.version_mut() = http::Version::HTTP_2;
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            feed.send(Ok(Bytes::from(format!("message {index}")))).await.unwrap();
            drop(feed);
            let response = forwarder.forward(cx, request).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(
                response.headers()["x-about"],
                "POST http://odoo.example/pkg.Service/Call?x=1 Some(\"trailers\")"
            );
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(collected.to_bytes(), format!("message {index}"));
        }
    };
    futures_util::future::join_all((0..20).map(one)).await;
    one(20).await;
    assert_eq!(*accepted.borrow(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_second_connection_is_made_when_streams_run_out() {
    let (address, accepted) = server(|_, stream| {
        serve_h2(stream, 2, |request| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            echo(request).await
        })
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("h2c://{address}")), context());
    let one = || async {
        let response = forwarder.forward(&cx, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await;
    };
    one().await;
    tokio::join!(one(), one(), one());
    assert_eq!(*accepted.borrow(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_shared_connection_that_died_is_replaced() {
    let (address, accepted) = server(|number, stream| async move {
        let serving = serve_h2(stream, 100, echo);
        if number == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(60), serving).await;
        } else {
            serving.await;
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("h2c://{address}")), context());
    assert_eq!(forwarder.forward(&cx, get("/")).await.status(), StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(forwarder.forward(&cx, get("/")).await.status(), StatusCode::OK);
    assert_eq!(*accepted.borrow(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_refused_connection_fails_everybody_who_waits_for_it() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (forwarder, cx) = (forwarder(&format!("h2c://{free}")), context());
    let one = || async { forwarder.forward(&cx, get("/")).await.status() };
    let answers = tokio::join!(one(), one(), one());
    assert_eq!(
        answers,
        (StatusCode::BAD_GATEWAY, StatusCode::BAD_GATEWAY, StatusCode::BAD_GATEWAY)
    );
}

/// A server whose process stands still: the system keeps the connection, nobody answers.
async fn stand_still(mut stream: TcpStream, answered: usize) {
    let mut connection = h2::server::handshake(&mut stream).await.unwrap();
    for _ in 0..answered {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
    }
    // What was answered goes out; from then on nothing is read, so no ping is answered.
    let flush = std::future::poll_fn(|cx| {
        let _ = connection.poll_closed(cx);
        std::task::Poll::Ready(())
    });
    flush.await;
    std::future::pending::<()>().await;
}

fn asking_for_life() -> ServersTransportConfig {
    ServersTransportConfig {
        forwarding_timeouts: Some(ForwardingTimeoutsConfig {
            read_idle_timeout: GoDuration::from_millis(100),
            ping_timeout: GoDuration::from_millis(100),
            ..ForwardingTimeoutsConfig::default()
        }),
        ..ServersTransportConfig::default()
    }
}

/// RP-6.1 `readIdleTimeout`, `pingTimeout`: a request on a connection that is dead fails, and the next one gets another.
#[tokio::test(flavor = "local")]
async fn a_connection_that_answers_no_ping_is_given_up() {
    let (address, accepted) = server(|number, stream| async move {
        if number == 0 { stand_still(stream, 0).await } else { serve_h2(stream, 100, echo).await }
    })
    .await;
    let (forwarder, cx) =
        (forwarder_with(&format!("h2c://{address}"), &asking_for_life()), context());
    let start = Instant::now();
    let response = forwarder.forward(&cx, get("/")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(outcome(&response).error, Some(ProxyError::UpstreamClosed));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(forwarder.forward(&cx, get("/")).await.status(), StatusCode::OK);
    assert_eq!(*accepted.borrow(), 2);
}

/// RP-6.1: also while nothing is asked, so that no request finds out.
#[tokio::test(flavor = "local")]
async fn a_dead_connection_is_removed_while_it_is_idle() {
    let (address, accepted) = server(|number, stream| async move {
        if number == 0 { stand_still(stream, 1).await } else { serve_h2(stream, 100, echo).await }
    })
    .await;
    let (forwarder, cx) =
        (forwarder_with(&format!("h2c://{address}"), &asking_for_life()), context());
    assert_eq!(forwarder.forward(&cx, get("/")).await.status(), StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let start = Instant::now();
    assert_eq!(forwarder.forward(&cx, get("/")).await.status(), StatusCode::OK);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(*accepted.borrow(), 2);
}

/// Refuses every stream but each `answered`th, and counts them all.
async fn refuse(mut stream: TcpStream, answered: usize, count: Rc<RefCell<usize>>) {
    let mut connection = h2::server::handshake(&mut stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        *count.borrow_mut() += 1;
        if (*count.borrow()).is_multiple_of(answered) {
            respond.send_response(http::Response::new(()), true).unwrap();
        } else {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    }
}

/// F-20: a server that refuses requests for want of room gets no multiple of them because of it.
#[tokio::test(flavor = "local")]
async fn whoever_refuses_all_is_not_asked_again_and_again() {
    for (answered, most) in [(usize::MAX, 300 + 100), (4, 300 * 4 / 3 + 100)] {
        let asked = Rc::new(RefCell::new(0));
        let count = Rc::clone(&asked);
        let (address, accepted) =
            server(move |_, stream| refuse(stream, answered, Rc::clone(&count))).await;
        let (forwarder, cx) = (forwarder(&format!("h2c://{address}")), context());
        for number in 0..300 {
            let status = forwarder.forward(&cx, get("/")).await.status();
            assert!(answered == 4 || status == StatusCode::BAD_GATEWAY, "{number}: {status}");
        }
        assert!((301..=most).contains(&*asked.borrow()), "{answered}: {asked:?}");
        assert_eq!(*accepted.borrow(), 1);
    }
}

/// F-20: what came before the server could say how many streams it allows costs nothing.
#[tokio::test(flavor = "local")]
async fn a_server_that_says_how_much_it_takes_is_asked_again() {
    let (address, accepted) = server(|_, stream| serve_h2(stream, 5, echo)).await;
    let (forwarder, cx) = (forwarder(&format!("h2c://{address}")), context());
    let one = || async { forwarder.forward(&cx, get("/")).await.status() };
    let answers = futures_util::future::join_all((0..20).map(|_| one())).await;
    assert!(answers.iter().all(|&status| status == StatusCode::OK), "{answers:?}");
    assert!(*accepted.borrow() > 1, "none was refused");
    let refusals = forwarder.origin().refusals.as_ref().unwrap();
    assert_eq!((0..200).filter(|_| refusals.spend()).count(), 100, "nothing was paid");
}
