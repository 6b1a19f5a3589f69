//! The kinds of services and what goes around them: hashes, times, mirrors, second tries, and gRPC health
//! (RP 5).

use std::convert::Infallible;
use std::net::TcpStream as Socket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::harness::certs::{Ca, Pair};
use crate::harness::{Ask, NOBODY, Origin, Proxy, Reply, block_on, http2, pause, until};

/// A router for everything to service `app`, and these services.
fn services(text: &str) -> String {
    format!(
        "http:\n  routers:\n    all:\n      rule: PathPrefix(`/`)\n      service: app\n  services:\n{text}"
    )
}

/// A service of one server.
fn plain(name: &str, origin: &Origin) -> String {
    format!("    {name}: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n", origin.url())
}

fn two_servers(options: &str, a: &Origin, b: &Origin) -> String {
    services(&format!(
        "    app:\n      loadBalancer:\n        {options}\n        servers:\n          - url: {}\n          - url: {}\n",
        a.url(),
        b.url()
    ))
}

/// Traefik's choice between two names of weight 1, by its formula: with equal weights the higher hash wins.
fn hashed_higher<'a>(client: &str, one: &'a str, other: &'a str) -> &'a str {
    let hash = |name: &str| {
        let bytes = client.bytes().chain(name.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    if hash(one) > hash(other) { one } else { other }
}

/// RP-5.3
#[test]
fn hrw_keeps_a_client_at_the_server_that_traefik_would_choose() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&two_servers("strategy: hrw", &a, &b));
    let want = if hashed_higher("127.0.0.1", &a.url(), &b.url()) == a.url() { "a" } else { "b" };
    for n in 0..10 {
        // Nobody chooses for himself.
        let ask = Ask::get("/").header("X-Forwarded-For", &format!("10.0.0.{n}"));
        assert_eq!(proxy.send(&ask).origin(), want);
    }
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(
        (&view["type"], &view["loadBalancer"]["strategy"]),
        (&"loadbalancer".into(), &"hrw".into())
    );
}

/// RP-5.3
#[test]
fn leasttime_prefers_the_quicker_server() {
    let quick = Origin::named("quick");
    let slow = Origin::with(|_| {
        pause(Duration::from_millis(300));
        Reply::ok("slow").header("X-Origin", "slow")
    });
    let proxy = Proxy::start(&two_servers("strategy: leasttime", &slow, &quick));
    for _ in 0..20 {
        proxy.get("/");
    }
    assert_eq!(slow.count(), 1, "tried once, because nobody knew");
    assert_eq!(quick.count(), 19);
}

/// RP-5.6
#[test]
fn highest_random_weight_keeps_a_client_at_its_service() {
    let healthy = Arc::new(AtomicBool::new(true));
    let switched = |name: &'static str| {
        let switch = Arc::clone(&healthy);
        Origin::with(move |seen| {
            if seen.target == "/health" && !switch.load(Ordering::Acquire) {
                return Reply::status(500);
            }
            Reply::ok(name).header("X-Origin", name)
        })
    };
    let expected = hashed_higher("127.0.0.1", "one", "two");
    let (first, second) = (switched("first"), Origin::named("second"));
    let (one, two) = if expected == "one" { (&first, &second) } else { (&second, &first) };
    let leaf = |name: &str, origin: &Origin| {
        format!(
            "    {name}:
      loadBalancer:
        healthCheck: {{path: /health, interval: 50ms}}
        servers: [{{url: '{}'}}]
",
            origin.url()
        )
    };
    let proxy = Proxy::start(&services(&format!(
        "    app:
      highestRandomWeight:
        services:
          - name: one
          - name: two
        healthCheck: {{}}
{}{}",
        leaf("one", one),
        leaf("two", two)
    )));
    for _ in 0..5 {
        assert_eq!(proxy.who("/"), (200, "first".to_owned()));
    }
    healthy.store(false, Ordering::Release);
    until("the other stands in", || proxy.who("/").1 == "second");
    healthy.store(true, Ordering::Release);
    until("clients come back", || proxy.who("/").1 == "first");
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(view["type"], "highestrandomweight");
    assert_eq!(view["highestRandomWeight"]["services"][0]["weight"], 1);
}

/// RP-5.1
#[test]
fn middlewares_of_a_service_come_behind_those_of_its_routers() {
    let origin = Origin::start();
    let config = |prefix: &str| {
        format!(
            "http:
  routers:
    one: {{rule: Host(`one.test`), service: app, middlewares: [outer]}}
    two: {{rule: Host(`two.test`), service: app}}
  middlewares:
    outer: {{addPrefix: {{prefix: /outer}}}}
    inner: {{addPrefix: {{prefix: {prefix}}}}}
    limit: {{rateLimit: {{average: 1, period: 1h, burst: 3}}}}
    all: {{chain: {{middlewares: [inner, limit]}}}}
  services:
    app:
      middlewares: [all]
      loadBalancer:
        servers: [{{url: '{}'}}]
",
            origin.url()
        )
    };
    let proxy = Proxy::start(&config("/inner"));
    assert_eq!(proxy.get("one.test/x").status, 200);
    assert_eq!(origin.last().target, "/inner/outer/x");
    assert_eq!(proxy.get("two.test/x").status, 200);
    assert_eq!(origin.last().target, "/inner/x");
    // All routers of the service share what its middlewares know.
    assert_eq!(proxy.get("one.test/x").status, 200);
    assert_eq!(proxy.get("two.test/x").status, 429);
    // A reload does not forget, and changes what has changed.
    proxy.reload(&config("/other"));
    assert_eq!(proxy.get("one.test/x").status, 429);
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(view["middlewares"], serde_json::json!(["all"]));
    assert_eq!((&view["type"], &view["status"]), (&"loadbalancer".into(), &"enabled".into()));
}

/// RP-5.1, RP-3.5: as a router, a service does not do without its middleware.
#[test]
fn a_service_whose_middleware_is_missing_is_in_error() {
    let origin = Origin::start();
    let proxy = Proxy::start(&services(&format!(
        "    app:
      middlewares: [gone]
      loadBalancer:
        servers: [{{url: '{}'}}]
",
        origin.url()
    )));
    assert_eq!((proxy.get("/").status, origin.count()), (503, 0));
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(view["status"], "disabled");
    assert_eq!(view["error"][0], "middleware \"gone@file\" does not exist");
}

fn with_fallback(errors: &str, main: &Origin, spare: &Origin) -> String {
    services(&format!(
        "    app:
      failover:
        service: main
        fallback: spare
        errors: {errors}
{}{}",
        plain("main", main),
        plain("spare", spare)
    ))
}

/// RP-5.8
#[test]
fn the_fallback_gets_the_original_request_when_the_main_answer_has_a_status() {
    let main = Origin::with(|seen| {
        let status = seen.target.trim_start_matches('/').parse().unwrap_or(200);
        Reply::status(status).header("X-Origin", "main").header("X-Main", "1")
    });
    let spare = Origin::named("spare");
    let config = with_fallback("{status: ['500-504', '404']}", &main, &spare);
    let proxy = Proxy::start(&config);
    for (status, who) in
        [(200, "main"), (404, "spare"), (499, "main"), (502, "spare"), (505, "main")]
    {
        let ask = Ask::post(&format!("/{status}"), "payload").header("X-App", "one").chunked();
        let answer = proxy.send(&ask);
        assert_eq!(answer.origin(), who, "{status}");
        let seen = if who == "main" { main.last() } else { spare.last() };
        assert_eq!(&*seen.body, b"payload", "{status}");
        assert_eq!((&*seen.target, seen.header("x-app")), (&*format!("/{status}"), Some("one")));
        if who == "spare" {
            assert_eq!((answer.status, answer.header("x-main")), (200, None));
            assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "once, and not twice");
        }
    }
    let counted = |code: u16| {
        let service = "code=\"CODE\",method=\"POST\",protocol=\"http\",service=\"main@file\"";
        let line = service.replace("CODE", &code.to_string());
        proxy.metric(&format!("traefik_service_requests_total{{{line}}}"))
    };
    assert!((counted(404) - 1.0).abs() < f64::EPSILON, "what nobody saw counts as well");
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(view["failover"]["errors"]["maxRequestBodyBytes"], -1);
}

/// RP-5.8, RP-14
#[test]
fn a_dead_main_service_is_a_status_too_and_a_long_body_is_refused() {
    let spare = Origin::named("spare");
    let proxy = Proxy::start(&services(&format!(
        "    app:
      failover:
        service: main
        fallback: spare
        errors: {{status: ['502'], maxRequestBodyBytes: 4}}
    main: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
{}",
        plain("spare", &spare)
    )));
    assert_eq!(proxy.send(&Ask::post("/", "1234")).origin(), "spare");
    for ask in [Ask::post("/", "12345"), Ask::post("/", "12345").chunked()] {
        let answer = proxy.send(&ask);
        assert_eq!((answer.status, &*answer.text()), (413, "Request body too large\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(spare.count(), 1);
}

fn mirrored(options: &str, main: &Origin, mirror: &Origin) -> String {
    services(&format!(
        "    app:
      mirroring:
        service: main
        {options}
{}{}",
        plain("main", main),
        plain("mirror", mirror)
    ))
}

const ALL: &str = "mirrors: [{name: mirror, percent: 100}]";

/// RP-5.7
#[test]
fn a_mirror_gets_what_the_main_service_gets() {
    let (main, mirror) = (Origin::named("main"), Origin::named("mirror"));
    let proxy = Proxy::start(&mirrored(ALL, &main, &mirror));
    let long = vec![b'x'; 300_000];
    for ask in [
        Ask::get("shop.test/a?b=c").header("X-App", "1"),
        Ask::post("shop.test/a", "payload"),
        Ask::post("shop.test/a", long).chunked(),
    ] {
        let before = mirror.count();
        assert_eq!(proxy.send(&ask).origin(), "main");
        until("the mirror has it", || mirror.count() > before);
        let (one, other) = (main.last(), mirror.last());
        assert_eq!(
            (one.method, one.target, one.body),
            (other.method.clone(), other.target.clone(), other.body.clone())
        );
        for name in ["host", "x-forwarded-for", "x-app", "x-forwarded-host"] {
            assert_eq!(main.last().header(name), mirror.last().header(name), "{name} is the same");
        }
        assert_eq!(mirror.last().header("host"), Some("shop.test"));
    }
    let line = "code=\"200\",method=\"GET\",protocol=\"http\",service=\"mirror@file\"";
    until("the mirror is counted", || {
        proxy.metric(&format!("traefik_service_requests_total{{{line}}}")) > 0.0
    });
    let view = proxy.api("/api/http/services/app@file");
    assert_eq!(
        (&view["type"], &view["mirroring"]["mirrorBody"], &view["mirroring"]["maxBodySize"]),
        (&"mirroring".into(), &true.into(), &(-1).into())
    );
}

/// RP-5.7
#[test]
fn shares_limits_and_bodies_are_as_told() {
    let (main, mirror) = (Origin::named("main"), Origin::named("mirror"));
    let share = "mirrors: [{name: mirror, percent: 25}]";
    let proxy = Proxy::start(&mirrored(share, &main, &mirror));
    for _ in 0..8 {
        assert_eq!(proxy.who("/"), (200, "main".to_owned()));
    }
    until("a quarter is mirrored", || mirror.count() == 2);

    let limited = format!("{ALL}\n        maxBodySize: 4");
    proxy.reload(&mirrored(&limited, &main, &mirror));
    assert_eq!(proxy.send(&Ask::post("/", "12345").chunked()).text(), "12345");
    assert_eq!(proxy.send(&Ask::post("/", "1234")).text(), "1234");
    until("the short one is mirrored", || mirror.count() == 3);
    assert_eq!(&*mirror.last().body, b"1234");

    let bare = format!("{ALL}\n        mirrorBody: false");
    proxy.reload(&mirrored(&bare, &main, &mirror));
    assert_eq!(proxy.send(&Ask::post("/", "payload")).text(), "payload");
    until("the head is mirrored", || mirror.count() == 4);
    assert_eq!((&*mirror.last().method, mirror.last().body.len()), ("POST", 0));
}

/// RP-5.7: whatever a mirror does, the client does not notice.
#[test]
fn a_bad_mirror_hurts_nobody() {
    let main = Origin::named("main");
    let endless = Origin::raw(|mut stream, _| {
        use std::io::Write as _;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"4\r\nxxxx\r\n").is_ok() {
            pause(Duration::from_millis(5));
        }
    });
    let mut proxy = Proxy::start(&mirrored(ALL, &main, &endless));
    for _ in 0..50 {
        assert_eq!(proxy.send(&Ask::post("/", "payload")).text(), "payload");
    }
    until("mirrors are asked", || endless.connections() > 0);
    // Nobody is there at all.
    let nobody = services(&format!(
        "    app:
      mirroring:
        service: main
        {ALL}
    mirror: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
{}",
        plain("main", &main)
    ));
    proxy.reload(&nobody);
    for _ in 0..5 {
        assert_eq!(proxy.who("/"), (200, "main".to_owned()));
    }
    proxy = Proxy::start(&nobody);
    assert_eq!(proxy.who("/"), (200, "main".to_owned()));
}

/// A mirror whose answer never ends keeps no place among the connections of the client's address.
#[test]
fn a_slow_mirror_is_not_the_clients_matter() {
    let main = Origin::named("main");
    let silent = Origin::raw(|mut stream, _| {
        use std::io::Write as _;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let options = serde_json::json!({"limits": {"connections": {"perAddress": 2}}});
    let proxy = Proxy::with(options).start(&mirrored(ALL, &main, &silent));
    for sent in 1..=5 {
        until("the connection before has ended", || {
            let answer = proxy.client().send(&Ask::post("/", "payload"));
            answer.is_ok_and(|answer| answer.text() == "payload")
        });
        until("the mirror is asked", || silent.connections() >= sent);
    }
}

/// RP-5.7: over HTTP/2 as well, where the end of a body is told in another way.
#[test]
fn what_comes_over_http2_is_mirrored() {
    let (main, mirror) = (Origin::named("main"), Origin::named("mirror"));
    let proxy = Proxy::start(&mirrored(ALL, &main, &mirror));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        for body in [&b"payload"[..], b""] {
            let request = Request::builder().method("POST").uri("http://shop.test/a");
            let received = http2::send(&mut sender, request, body).await;
            assert_eq!(received.response.status, 200);
        }
    });
    until("both are mirrored", || mirror.count() == 2);
    // Copies of two requests may overtake each other.
    let bodies = |origin: &Origin| {
        let all = origin.all().into_iter();
        let mut all: Vec<_> =
            all.map(|seen| (seen.body.clone(), seen.header("host").map(str::to_owned))).collect();
        all.sort();
        all
    };
    assert_eq!(bodies(&main), bodies(&mirror));
    assert_eq!(bodies(&mirror)[1].0, b"payload");
}

/// RP-5.8: what cannot be read whole is shown to nobody.
#[test]
fn a_body_that_breaks_off_reaches_neither_service() {
    let (main, spare) = (Origin::named("main"), Origin::named("spare"));
    let proxy = Proxy::start(&with_fallback("{status: ['500']}", &main, &spare));
    let mut client = proxy.client();
    client
        .write_raw(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        )
        .unwrap();
    let answer = client.read("POST").unwrap();
    assert_eq!((answer.status, &*answer.text()), (500, "Internal Server Error\n"));
    assert_eq!((main.count(), spare.count()), (0, 0));
}

/// A backend whose health service says what the number says: 0 is none at all.
fn grpc_health(tls: Option<&Pair>) -> (Origin, Arc<AtomicU8>) {
    let status = Arc::new(AtomicU8::new(1));
    let shown = Arc::clone(&status);
    let acceptor = tls.map(|identity| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PemObject::from_pem_slice(identity.key.as_bytes()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.der()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let origin = Origin::raw(move |stream, _| serve_grpc(stream, acceptor.as_ref(), &shown));
    (origin, status)
}

fn serve_grpc(stream: Socket, acceptor: Option<&TlsAcceptor>, status: &Arc<AtomicU8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        match acceptor {
            None => speak_grpc(stream, status).await,
            Some(acceptor) => {
                if let Ok(stream) = acceptor.accept(stream).await {
                    speak_grpc(stream, status).await;
                }
            }
        }
    });
}

async fn speak_grpc<S>(stream: S, status: &Arc<AtomicU8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let status = Arc::clone(status);
        async move { answer_grpc(request, status.load(Ordering::Acquire)).await }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Answered = Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

async fn answer_grpc(request: Request<Incoming>, status: u8) -> Result<Answered, Infallible> {
    let probe = request.uri().path() == "/grpc.health.v1.Health/Check"
        && request.method() == "POST"
        && request.headers()["content-type"] == "application/grpc"
        && request.headers()["te"] == "trailers";
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let (code, message) = match (probe, status) {
        (true, 0) => ("12", Bytes::new()),
        (true, status) if body.is_ok_and(|body| body == [0; 5][..]) => {
            ("0", Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]))
        }
        _ => ("0", Bytes::from_static(b"app")),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// RP-5.5
#[test]
fn grpc_servers_are_asked_in_their_own_way() {
    let (origin, status) = grpc_health(None);
    let url = origin.url().replace("http://", "h2c://");
    follow_grpc(&url, &status);
    let (origin, status) = grpc_health(Some(&Ca::new().issue(&["grpc.test"])));
    follow_grpc(&origin.url().replace("http://", "https://"), &status);
}

fn follow_grpc(url: &str, status: &AtomicU8) {
    let text = services(&format!(
        "    app:
      loadBalancer:
        serversTransport: any
        healthCheck: {{mode: grpc, interval: 50ms, path: /no/matter}}
        servers: [{{url: '{url}'}}]
  serversTransports:
    any: {{insecureSkipVerify: true}}
"
    ));
    let proxy = Proxy::start(&text);
    let shown = || {
        proxy.api("/api/http/services/app@file")["serverStatus"][url].as_str().unwrap().to_owned()
    };
    assert_eq!((proxy.get("/").status, &*shown()), (200, "UP"));
    // NOT_SERVING, SERVING, no health service, SERVING.
    for (says, want) in [(2, "DOWN"), (1, "UP"), (0, "DOWN"), (1, "UP")] {
        status.store(says, Ordering::Release);
        until("the probe has seen it", || shown() == want);
        assert_eq!(proxy.get("/").status, if want == "UP" { 200 } else { 503 });
    }
}

/// Every wrong value is an error at its place.
#[test]
fn wrong_values_are_shown_where_they_stand() {
    let origin = Origin::start();
    let wrong = |options: &str| {
        let proxy =
            Proxy::start(&services(&format!("    app:\n{options}{}", plain("good", &origin))));
        assert_eq!(proxy.get("/").status, 503, "{options}");
        proxy.api("/api/http/services/app@file")["error"][0].as_str().unwrap().to_owned()
    };
    for (options, message) in [
        ("      loadBalancer: {strategy: HRW}\n", "unsupported load-balancer strategy \"HRW\""),
        (
            "      mirroring: {service: good, mirrors: [{name: good, percent: 101}]}\n",
            "percent must be between 0 and 100",
        ),
        (
            "      failover: {service: good, fallback: good, errors: {status: ['5xx']}}\n",
            "\"5xx\" is neither a status nor a range such as 500-599",
        ),
        (
            "      highestRandomWeight: {services: [{name: gone}]}\n",
            "the service \"gone@file\" does not exist",
        ),
    ] {
        assert_eq!(wrong(options), message);
    }
}
