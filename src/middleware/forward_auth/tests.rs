//! Tests of `forwardAuth` with an authentication server in this process.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use http::header::HOST;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

use super::consult::{DEADLINE, PATIENCE};
use super::*;
use crate::exchange::EntryPointFacts;
use crate::middleware::testing::{Bench, FakeFiles, Setting, body, context, get, over_tls, with};
use crate::values::QualifiedName;

/// Runs a test as a worker runs requests.
fn local<T>(future: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(future)
}

/// An authentication server, and the requests that it got.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers every connection with these bytes, and closes it.
    async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&seen);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let mut piece = [0; 4096];
                while !is_whole(&text) {
                    let length = stream.read(&mut piece).await.unwrap();
                    if length == 0 {
                        break;
                    }
                    text.extend_from_slice(&piece[..length]);
                }
                memory.lock().unwrap().push(String::from_utf8(text).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { address, seen }
    }

    /// Answers with this status, these header lines and this body.
    async fn with(status: u16, lines: &str, body: &str) -> Self {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} X\r\n{lines}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        Self::answering(answer).await
    }

    fn config(&self) -> ForwardAuthConfig {
        ForwardAuthConfig {
            address: format!("{}/auth/check?tenant=1#x", self.address),
            trust_forward_header: Some(false),
            ..ForwardAuthConfig::default()
        }
    }

    /// The latest request, its lines in order of their names.
    fn last(&self) -> Vec<String> {
        let text = self.seen.lock().unwrap().last().cloned().unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
        lines[1..].sort();
        for line in &mut lines[1..] {
            let (name, value) = line.split_once(':').unwrap();
            *line = format!("{}:{value}", name.to_ascii_lowercase());
        }
        lines
    }

    fn header(&self, name: &str) -> Option<String> {
        let start = format!("{name}: ");
        self.last().iter().find_map(|line| Some(line.strip_prefix(&start)?.to_owned()))
    }
}

fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap())
}

fn build(config: &ForwardAuthConfig) -> Result<Arc<dyn Middleware>, BuildError> {
    Setting::default().build(config).map(|(middleware, _)| middleware)
}

fn bench(config: &ForwardAuthConfig) -> Bench {
    Bench::new(vec![build(config).unwrap()])
}

/// RP 7.3
#[test]
fn the_question_names_the_request() {
    local(async {
        let server = Server::with(200, "", "").await;
        let request = || {
            let request = with(get("/a%2Fb?q=1"), "cookie", "s=1");
            let request = with(with(request, "cookie", "t=2"), "x-app", "1");
            let request = with(with(request, "x-forwarded-for", "10.0.0.1"), "te", "trailers");
            let request = with(with(request, "x-forwarded-prefix", "/p"), "connection", "x-hop");
            let request = with(with(request, "x-hop", "1"), "x-forwarded-proto", "wss");
            with(with(request, "proxy-authorization", "Basic x"), "expect", "100-continue")
        };
        let common = ["cookie: s=1; t=2", "x-app: 1", "proxy-authorization: Basic x"];
        for (trust, own) in [
            (
                None,
                &[
                    "x-forwarded-for: 192.0.2.1",
                    "x-forwarded-host: a.test",
                    "x-forwarded-method: GET",
                    "x-forwarded-prefix: /p",
                    "x-forwarded-proto: http",
                    "x-forwarded-uri: /a%2Fb?q=1",
                ][..],
            ),
            (
                Some(false),
                &[
                    "x-forwarded-for: 192.0.2.1",
                    "x-forwarded-host: a.test",
                    "x-forwarded-method: GET",
                    "x-forwarded-port: 80",
                    "x-forwarded-proto: http",
                    "x-forwarded-uri: /a%2Fb?q=1",
                ],
            ),
            (
                Some(true),
                &[
                    "x-forwarded-for: 10.0.0.1, 192.0.2.1",
                    "x-forwarded-host: a.test",
                    "x-forwarded-method: GET",
                    "x-forwarded-port: 443",
                    "x-forwarded-prefix: /p",
                    "x-forwarded-proto: wss",
                    "x-forwarded-uri: /a%2Fb?q=1",
                ],
            ),
        ] {
            let config = ForwardAuthConfig { trust_forward_header: trust, ..server.config() };
            let bench = bench(&config);
            assert_eq!(bench.status(request()).await, 200);
            let host = format!("host: {}", server.address.strip_prefix("http://").unwrap());
            let mut want = vec!["GET /auth/check?tenant=1 HTTP/1.1", &host];
            want.extend(common.iter().chain(own));
            want[1..].sort_unstable();
            assert_eq!(server.last(), want, "{trust:?}");
            // The backend gets the request as it was.
            assert_eq!(bench.seen().headers, *request().headers());
        }
    });
}

#[test]
fn only_listed_headers_are_passed() {
    local(async {
        let server = Server::with(200, "", "").await;
        let request = || {
            let request = with(get("/"), "x-app", "1");
            let request = with(with(request, "x-other", "1"), "x-forwarded-prefix", "/p");
            with(request, "x_forwarded_prefix", "/forged")
        };
        for (trust, prefix) in [(None, false), (Some(false), false), (Some(true), true)] {
            let config = ForwardAuthConfig {
                trust_forward_header: trust,
                auth_request_headers: vec!["X-App".into(), "Host".into(), "X-None".into()],
                ..server.config()
            };
            assert_eq!(bench(&config).status(request()).await, 200);
            assert_eq!(server.header("x-app").as_deref(), Some("1"));
            assert_eq!(server.header("x-other"), None);
            assert_eq!(server.header("x-forwarded-prefix").is_some(), prefix, "{trust:?}");
            assert_eq!(server.header("x_forwarded_prefix"), None);
            assert!(server.header("x-forwarded-uri").is_some());
        }
    });
}

#[test]
fn the_port_is_that_of_the_host_or_of_the_scheme() {
    local(async {
        let server = Server::with(200, "", "").await;
        for (host, tls, want) in [
            ("a.test", false, "80"),
            ("a.test", true, "443"),
            ("a.test:8443", true, "8443"),
            ("[::1]", false, "80"),
            ("[::1]:81", false, "81"),
        ] {
            let cx = context("192.0.2.1");
            let bench = bench(&server.config()).with_context(if tls { over_tls(cx) } else { cx });
            let mut request = get("/");
            request.headers_mut().insert(HOST, host.parse().unwrap());
            bench.send(request).await;
            assert_eq!(server.header("x-forwarded-port").as_deref(), Some(want), "{host}");
            assert_eq!(server.header("x-forwarded-host").as_deref(), Some(host));
            let scheme = if tls { "https" } else { "http" };
            assert_eq!(server.header("x-forwarded-proto").as_deref(), Some(scheme));
        }
    });
}

/// V-44
#[test]
fn the_answers_headers_replace_the_clients() {
    local(async {
        let lines = "X-Auth-User: ann\r\nX-Auth-Group: a\r\nX-Auth-Group: b\r\nX-Other: 1\r\n\
                     Host: evil.test\r\n";
        let server = Server::with(204, lines, "").await;
        let forged = || {
            let names = ["x-auth-user", "x_auth_user", "x-auth-admin", "x_auth.admin", "x-other"];
            let request =
                names.iter().fold(get("/"), |request, name| with(request, name, "forged"));
            with(request, "content-length", "0")
        };
        let listed = ForwardAuthConfig {
            auth_response_headers: vec![
                "X-Auth-User".into(),
                "x-auth-group".into(),
                "X-Auth-Admin".into(),
                "Content-Length".into(),
                "Host".into(),
            ],
            ..server.config()
        };
        let by_pattern = ForwardAuthConfig {
            auth_response_headers_regex: "^(X-Auth-|Host|Content-)".into(),
            ..server.config()
        };
        for config in [listed, by_pattern] {
            let bench = bench(&config);
            assert_eq!(bench.status(forged()).await, 200);
            let headers = bench.seen().headers;
            assert!(headers.get_all("x-auth-user").iter().eq(["ann"]));
            assert!(headers.get_all("x-auth-group").iter().eq(["a", "b"]));
            for name in ["x_auth_user", "x-auth-admin", "x_auth.admin"] {
                assert!(!headers.contains_key(name), "{name}");
            }
            assert_eq!(headers["x-other"], "forged");
            assert_eq!(
                (&headers["host"], &headers["content-length"]),
                (&"a.test".parse().unwrap(), &"0".parse().unwrap())
            );
        }
    });
}

/// RP-7.3.13: Go writes `X_auth_user`, whoever sends it in whatever case.
#[test]
fn a_pattern_with_underscores_leaves_no_lookalike() {
    local(async {
        let server = Server::with(200, "X_Auth_User: ann\r\n", "").await;
        for (pattern, taken) in [("^X_auth_", true), ("^X_Auth_", false), ("(?i)^x_auth_", true)] {
            let config = ForwardAuthConfig {
                auth_response_headers_regex: pattern.into(),
                ..server.config()
            };
            let bench = bench(&config);
            let names = ["x_auth_user", "x-auth-user", "x.auth.user", "x-auth_admin", "x-other"];
            let request = names.iter().fold(get("/"), |request, name| with(request, name, "me"));
            assert_eq!(bench.status(request).await, 200);
            let headers = bench.seen().headers;
            let user = headers.get("x_auth_user").map(|value| value.to_str().unwrap());
            assert_eq!(user, taken.then_some("ann"), "{pattern}");
            for name in ["x-auth-user", "x.auth.user", "x-auth_admin"] {
                assert!(!headers.contains_key(name), "{pattern} {name}");
            }
            assert_eq!(headers["x-other"], "me");
        }
    });
}

#[test]
fn any_other_answer_goes_to_the_client() {
    local(async {
        let lines = "X-Why: no\r\nWWW-Authenticate: Basic\r\nKeep-Alive: 5\r\nUpgrade: x\r\n\
                     X-Hop: 1\r\nConnection: X-Hop\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
        for status in [301, 400, 401, 403, 404, 500, 503] {
            let server = Server::with(status, lines, "go away").await;
            let bench = bench(&server.config());
            let response = bench.send(get("/")).await;
            assert_eq!(response.status(), status);
            let mut names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["set-cookie", "www-authenticate", "x-why"]);
            assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
            assert_eq!(body(response).await, "go away");
            assert_eq!(bench.calls(), 0);
        }
    });
}

#[test]
fn a_relative_location_is_completed() {
    local(async {
        for (location, completed, kept) in [
            ("/login?x=1", "{}/login?x=1", "/login?x=1"),
            ("login", "{}/auth/login", "login"),
            ("https://sso.test/a b", "https://sso.test/a%20b", "https://sso.test/a%20b"),
            ("//sso.test/", "http://sso.test/", "//sso.test/"),
        ] {
            let server = Server::with(302, &format!("Location: {location}\r\n"), "").await;
            for (keeps, want) in [(false, completed), (true, kept)] {
                let config =
                    ForwardAuthConfig { preserve_location_header: keeps, ..server.config() };
                let response = bench(&config).send(get("/")).await;
                let want = want.replace("{}", &server.address);
                assert_eq!(response.headers()["location"], want, "{location}");
            }
        }
        for location in ["https://a.test/%zz", "http://a b/", "https://a\\@evil.test/"] {
            let server = Server::with(302, &format!("Location: {location}\r\n"), "x").await;
            let response = bench(&server.config()).send(get("/")).await;
            assert_eq!(response.status(), 500, "{location}");
            assert_eq!(body(response).await, "");
        }
    });
}

/// RP-7.3.20
#[test]
fn clients_are_sent_to_log_in() {
    local(async {
        for (status, want) in [(401, 302), (403, 403), (200, 200)] {
            let server = Server::with(status, "X-Why: no\r\n", "x").await;
            let config = ForwardAuthConfig {
                auth_signin_url: "https://sso.test/login?next=é&x='".into(),
                ..server.config()
            };
            let response = bench(&config).send(get("/")).await;
            assert_eq!(response.status(), want);
            let location = response.headers().get("location");
            assert_eq!(location.is_some(), status == 401);
            if let Some(location) = location {
                assert_eq!(location, "https://sso.test/login?next=%C3%A9&x='");
                assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
                assert_eq!(response.headers().len(), 2);
                let page = "<a href=\"https://sso.test/login?next=é&amp;x=&#39;\">Found</a>.\n\n";
                assert_eq!(body(response).await, page);
            }
            if status == 401 {
                // As in Go: nobody but GET gets the page.
                for (method, kind) in [("HEAD", true), ("POST", false)] {
                    let mut request = get("/");
                    *request.method_mut() = method.parse().unwrap();
                    let response = bench(&config).send(request).await;
                    assert_eq!(response.headers().contains_key("content-type"), kind);
                    assert_eq!(
                        (response.status().as_u16(), body(response).await),
                        (302, String::new())
                    );
                }
            }
        }
    });
}

#[test]
fn listed_cookies_go_to_the_client() {
    local(async {
        let lines = "Set-Cookie: sso=new; Path=/; Partitioned\r\nSet-Cookie: other=1\r\n";
        let server = Server::with(200, lines, "").await;
        let quiet = Server::with(200, "Set-Cookie: none\r\n", "").await;
        let own = ["sso=old", "app=1; X-Unknown", "nameless"];
        for (server, names, want) in [
            (
                &server,
                &["sso"][..],
                &["app=1; X-Unknown", "nameless", "sso=new; Path=/; Partitioned"][..],
            ),
            (&server, &["app"], &["sso=old", "nameless"]),
            (&server, &[], &own),
            (&quiet, &["sso"], &own),
        ] {
            let config = ForwardAuthConfig {
                add_auth_cookies_to_response: names.iter().map(|&name| name.to_owned()).collect(),
                ..server.config()
            };
            let bench = Bench::answering(vec![build(&config).unwrap()], move |_, _| {
                let mut response = Response::new(Body::empty());
                for line in own {
                    response.headers_mut().append("set-cookie", HeaderValue::from_static(line));
                }
                response
            });
            let response = bench.send(get("/")).await;
            assert!(response.headers().get_all("set-cookie").iter().eq(want), "{names:?}");
        }
    });
}

#[test]
fn the_log_learns_the_user() {
    local(async {
        for status in [200, 403] {
            let server = Server::with(status, "X-User: ann\r\n", "").await;
            let config = ForwardAuthConfig { header_field: "x-user".into(), ..server.config() };
            let bench = bench(&config);
            let response = bench.send(get("/")).await;
            let outcome = response.extensions().get::<Outcome>().unwrap();
            assert_eq!(outcome.user.as_deref(), Some("ann"));
            assert!(bench.calls() == 0 || !bench.seen().headers.contains_key("x-user"));
        }
    });
}

#[test]
fn bodies_go_to_both_and_have_a_limit() {
    local(async {
        let server = Server::with(200, "", "").await;
        let post = |text: &'static str| {
            let body = Body::from_static(text.as_bytes());
            http::Request::post("/").header("host", "a.test").body(body).unwrap()
        };
        for (limit, text, want) in [
            (None, "hello", 200),
            (Some(-1), "hello", 200),
            (Some(5), "hello", 200),
            (Some(4), "hello", 401),
            (Some(0), "hello", 401),
            (Some(0), "", 200),
        ] {
            let before = server.seen.lock().unwrap().len();
            let config = ForwardAuthConfig {
                forward_body: true,
                max_body_size: limit,
                preserve_request_method: true,
                ..server.config()
            };
            let bench = Bench::waiting(vec![build(&config).unwrap()], move |_, request| {
                Box::pin(async move {
                    Response::new(Body::from(
                        request.into_body().collect().await.unwrap().to_bytes(),
                    ))
                })
            });
            let response = bench.send(post(text)).await;
            assert_eq!(response.status(), want, "{limit:?} {text}");
            let echoed = body(response).await;
            assert_eq!(echoed, if want == 200 { text } else { "" });
            let asked = server.seen.lock().unwrap().get(before).cloned();
            assert_eq!(asked.is_some(), want == 200);
            if let Some(asked) = asked {
                assert!(asked.starts_with("POST /auth/check?tenant=1 HTTP/1.1\r\n"), "{asked}");
                assert!(asked.ends_with(&format!("\r\n\r\n{text}")), "{asked}");
            }
        }
        // Without the option the body is the backend's alone.
        let bench = bench(&server.config());
        assert_eq!(bench.status(post("hello")).await, 200);
        assert!(server.last()[0].starts_with("GET "));
        assert_eq!(server.header("content-length"), None);
    });
}

/// Whatever the server does but answer 2xx in time: nobody passes.
#[test]
fn it_fails_closed() {
    local(async {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let down = ForwardAuthConfig { address: nobody, ..ForwardAuthConfig::default() };
        let mut configs = vec![(down, 500)];
        for (answer, want) in [
            ("", 500),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", 500),
            ("nonsense\r\n\r\n", 500),
            ("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 500),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde", 401),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde", 401),
        ] {
            let server = Server::answering(answer).await;
            let config = ForwardAuthConfig { max_response_body_size: Some(4), ..server.config() };
            configs.push((config, want));
        }
        for (config, want) in configs {
            let bench = bench(&config);
            let response = bench.send(get("/")).await;
            assert_eq!(response.status(), want, "{config:?}");
            assert!(response.headers().is_empty());
            assert_eq!(body(response).await, "");
            assert_eq!(bench.calls(), 0);
        }
    });
}

/// The limit of the hardened profile is one of memory: what is not kept need not keep it.
#[test]
fn a_long_yes_lets_pass() {
    local(async {
        let long = "x".repeat(100_000);
        let (yes, no) = (Server::with(200, "", &long).await, Server::with(403, "", &long).await);
        for (server, configured, profile, want) in [
            (&yes, None, Profile::Hardened, 200),
            (&yes, Some(65_536), Profile::Hardened, 401),
            (&no, None, Profile::Hardened, 401),
            (&no, None, Profile::Safe, 403),
        ] {
            let config =
                ForwardAuthConfig { max_response_body_size: configured, ..server.config() };
            let setting = Setting { profile, ..Setting::default() };
            let bench = Bench::new(vec![setting.build(&config).unwrap().0]);
            assert_eq!(bench.status(get("/")).await, want, "{configured:?} {profile:?}");
        }
    });
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ForwardAuthConfig {
            address: format!("http://{}", silent.local_addr().unwrap()),
            ..ForwardAuthConfig::default()
        };
        let bench = bench(&config);
        let start = tokio::time::Instant::now();
        assert_eq!(bench.status(get("/")).await, 500);
        assert!(start.elapsed() <= DEADLINE + Duration::from_secs(1));
        assert_eq!(DEADLINE.as_secs(), 30);
        assert_eq!(bench.calls(), 0);
    });
}

fn cached(server: &Server, cache: AuthCacheConfig) -> ForwardAuthConfig {
    ForwardAuthConfig {
        cache: Some(cache),
        auth_response_headers: vec!["X-User".into()],
        header_field: "X-Name".into(),
        ..server.config()
    }
}

#[test]
fn what_is_allowed_is_remembered() {
    local(async {
        let lines = "X-User: ann\r\nX-Name: Ann\r\nX-Other: 1\r\n";
        let server = Server::with(200, lines, "").await;
        let bench = bench(&cached(&server, AuthCacheConfig::default()));
        let asked = || server.seen.lock().unwrap().len();
        for _ in 0..3 {
            let request = with(with(get("/a"), "cookie", "s=1"), "x_user", "forged");
            let response = bench.send(request).await;
            let outcome = response.extensions().get::<Outcome>().unwrap();
            assert_eq!((response.status().as_u16(), outcome.user.as_deref()), (200, Some("Ann")));
            let seen = bench.seen().headers;
            assert_eq!(seen["x-user"], "ann");
            assert!(!seen.contains_key("x_user") && !seen.contains_key("x-other"));
            assert_eq!(asked(), 1);
        }
        let others = [
            with(get("/a"), "cookie", "s=2"),
            with(get("/b"), "cookie", "s=1"),
            with(with(get("/a"), "cookie", "s=1"), "x-else", "1"),
            get("/a"),
        ];
        for (at, other) in others.into_iter().enumerate() {
            assert_eq!(bench.status(other).await, 200);
            assert_eq!(asked(), at + 2);
        }
        let ignore_headers = vec!["X-Forwarded-Uri".to_owned(), "X-Else".to_owned()];
        let wide = AuthCacheConfig { ignore_headers, ..Default::default() };
        let bench = self::bench(&cached(&server, wide));
        let before = asked();
        for path in ["/a", "/b", "/c"] {
            bench.status(with(get(path), "x-else", path)).await;
        }
        assert_eq!(asked(), before + 1);
        bench.status(with(get("/a"), "x-other", "1")).await;
        assert_eq!(asked(), before + 2);
    });
}

/// What a trusted proxy says of the client counts, whatever is listed.
#[test]
fn another_certificate_is_another_question() {
    local(async {
        let server = Server::with(200, "", "").await;
        let config = ForwardAuthConfig {
            trust_forward_header: Some(true),
            auth_request_headers: vec!["Cookie".into()],
            ..cached(&server, AuthCacheConfig::default())
        };
        let bench = bench(&config);
        let asked = || server.seen.lock().unwrap().len();
        for (certificate, want) in [("A", 1), ("A", 1), ("B", 2), ("A", 2), ("B", 2)] {
            let request = with(get("/"), "x-forwarded-tls-client-cert", certificate);
            assert_eq!(bench.status(request).await, 200);
            assert_eq!(asked(), want, "{certificate}");
        }
        bench.status(get("/")).await;
        assert_eq!(asked(), 3);
        bench.status(with(get("/"), "x-forwarded-uri", "/admin")).await;
        assert_eq!(asked(), 4);
        assert_eq!(server.header("x-forwarded-uri").as_deref(), Some("/admin"));
    });
}

#[test]
fn names_of_requests_do_not_make_questions_differ() {
    local(async {
        let server = Server::with(200, "", "").await;
        let mut bench = bench(&cached(&server, AuthCacheConfig::default()));
        let connection = Arc::get_mut(&mut bench.cx.connection).unwrap();
        connection.entry_point = Arc::new(EntryPointFacts {
            request_id: Some(HeaderName::from_static("x-request-id")),
            ..EntryPointFacts::default()
        });
        for id in ["1", "2", "3"] {
            bench.cx.request_id = Some(HeaderValue::from_static(id));
            assert_eq!(bench.status(with(get("/"), "x-request-id", id)).await, 200);
        }
        assert_eq!(server.seen.lock().unwrap().len(), 1);
        assert_eq!(server.header("x-request-id").as_deref(), Some("1"));
    });
}

/// Of a server that hangs once, as behind a connection that died, one client hears nothing.
#[test]
fn a_question_that_hangs_holds_up_nobody_else_for_long() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::task::spawn_local(async move {
            let mut hanging = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if hanging.is_empty() {
                    hanging.push(stream);
                } else {
                    let answer =
                        b"HTTP/1.1 200 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    // Whoever closes with something unread resets, and nobody may answer what was not asked.
                    let _ = stream.read(&mut [0; 4096]).await;
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        let config = ForwardAuthConfig {
            address,
            cache: Some(AuthCacheConfig::default()),
            ..ForwardAuthConfig::default()
        };
        let bench = bench(&config);
        let mut first = bench.send(get("/"));
        let polled = poll_fn(|task| Poll::Ready(first.as_mut().poll(task).is_pending()));
        assert!(polled.await);
        let start = tokio::time::Instant::now();
        let others = async { tokio::join!(bench.status(get("/")), bench.status(get("/"))) };
        let given = tokio::select! {
            _ = first => panic!("the first one is answered"),
            given = others => given,
        };
        assert_eq!((given.0.as_u16(), given.1.as_u16()), (200, 200));
        assert!((PATIENCE..DEADLINE / 2).contains(&start.elapsed()), "{:?}", start.elapsed());
        // What they learned is known at once, though the first one still waits.
        assert_eq!(bench.status(get("/")).await, 200);
    });
}

#[test]
fn what_is_for_one_client_or_refused_is_not_remembered() {
    local(async {
        for (status, lines, kept) in [
            (200, "", true),
            (200, "Set-Cookie: a=1\r\n", false),
            (200, "Cache-Control: no-store\r\n", false),
            (204, "Cache-Control: max-age=9\r\n", true),
            (302, "Location: /login\r\n", false),
            (401, "Cache-Control: max-age=9\r\n", false),
            (500, "", false),
        ] {
            let server = Server::with(status, lines, "").await;
            let config = ForwardAuthConfig {
                add_auth_cookies_to_response: vec!["a".into()],
                ..cached(&server, AuthCacheConfig::default())
            };
            let bench = bench(&config);
            for _ in 0..2 {
                bench.send(get("/")).await;
            }
            let asked = server.seen.lock().unwrap().len();
            assert_eq!(asked, if kept { 1 } else { 2 }, "{status} {lines}");
        }
    });
}

#[test]
fn of_equal_questions_at_once_one_is_asked() {
    local(async {
        for (status, want) in [(200, 1), (403, 5)] {
            let server = Server::with(status, "", "").await;
            let bench = bench(&cached(&server, AuthCacheConfig::default()));
            let asking = (0..5).map(|_| bench.status(get("/")));
            for given in futures_util::future::join_all(asking).await {
                assert_eq!(given, status);
            }
            assert_eq!(server.seen.lock().unwrap().len(), want);
        }
        // Whoever asks may go away: another asks in its place.
        let server = Server::with(200, "", "").await;
        let bench = bench(&cached(&server, AuthCacheConfig::default()));
        let mut first = bench.send(get("/"));
        let polled = poll_fn(|task| Poll::Ready(first.as_mut().poll(task).is_pending()));
        assert!(polled.await);
        let second = bench.status(get("/"));
        let gone = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        assert_eq!(tokio::join!(second, gone).0, 200);
    });
}

#[test]
fn the_memory_outlives_a_reload_that_does_not_change_it() {
    local(async {
        let server = Server::with(200, "", "").await;
        let setting = Setting::default();
        let config = cached(&server, AuthCacheConfig::default());
        let build = |config: &ForwardAuthConfig| setting.build(config).unwrap().0;
        let first = Bench::new(vec![build(&config)]);
        first.status(get("/")).await;
        let second = Bench::new(vec![build(&config)]);
        second.status(get("/")).await;
        assert_eq!(server.seen.lock().unwrap().len(), 1);
        let other = ForwardAuthConfig { auth_response_headers: Vec::new(), ..config };
        Bench::new(vec![build(&other)]).status(get("/")).await;
        assert_eq!(server.seen.lock().unwrap().len(), 2);
        let bodies = ForwardAuthConfig { forward_body: true, ..other };
        let (_, warnings) = setting.build(&bodies).unwrap();
        assert!(warnings.iter().any(|warning| warning.option == "cache"), "{warnings:?}");
    });
}

/// A server may close a connection that is idle just when a question is on its way.
#[test]
fn a_question_with_a_body_is_asked_again_over_a_new_connection() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&seen);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let memory = Arc::clone(&memory);
                tokio::task::spawn_local(async move {
                    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""] {
                        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
                        while !is_whole(&text) {
                            let length = stream.read(&mut piece).await.unwrap();
                            if length == 0 {
                                return;
                            }
                            text.extend_from_slice(&piece[..length]);
                        }
                        memory.lock().unwrap().push(String::from_utf8(text).unwrap());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        for keeps in [false, true] {
            let config = ForwardAuthConfig {
                address: address.clone(),
                forward_body: true,
                preserve_request_method: keeps,
                ..ForwardAuthConfig::default()
            };
            let bench = bench(&config);
            for _ in 0..2 {
                let body = Body::from_static(b"hello");
                let request = http::Request::post("/").header("host", "a.test").body(body);
                assert_eq!(bench.status(request.unwrap()).await, 200, "{keeps}");
            }
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert_eq!(seen.len(), 3, "{keeps}");
            assert!(seen.iter().all(|text| text.ends_with("\r\n\r\nhello")), "{seen:?}");
        }
    });
}

#[test]
fn credentials_of_the_address_are_sent_and_not_shown() {
    local(async {
        let server = Server::with(200, "", "").await;
        let address = server.address.replace("http://", "http://a%40b:p%3Aw@");
        let config = ForwardAuthConfig { address, ..ForwardAuthConfig::default() };
        let bench = bench(&config);
        bench.send(get("/")).await;
        let want = format!("Basic {}", STANDARD.encode("a@b:p:w"));
        assert_eq!(server.header("authorization"), Some(want));
        assert!(server.last()[0].starts_with("GET / "));
        bench.send(with(get("/"), "authorization", "Bearer t")).await;
        assert_eq!(server.header("authorization").as_deref(), Some("Bearer t"));
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(shown["address"], server.address);
    });
}

#[test]
fn connections_are_shared_by_those_who_believe_the_same() {
    let setting = Setting::default();
    let transport = |tls: Option<ClientTlsConfig>| {
        let config = ForwardAuthConfig { tls, ..ForwardAuthConfig::default() };
        let mut warnings = Vec::new();
        let (name, owner) = (QualifiedName::new("m", "file"), QualifiedName::new("r", "file"));
        let cx = BuildContext {
            name: &name,
            owner: &owner,
            files: &setting.files,
            state: &setting.state,
            profile: setting.profile,
            proxies: &crate::upstream::Proxies::default(),
            service: &mut |_: &str| Err(BuildError::new("none")),
            warnings: &mut warnings,
        };
        config.transport(&cx).unwrap()
    };
    let insecure = || Some(ClientTlsConfig { insecure_skip_verify: true, ..Default::default() });
    let (plain, other) = (transport(None), transport(insecure()));
    assert!(Arc::ptr_eq(&plain, &transport(Some(ClientTlsConfig::default()))));
    assert!(Arc::ptr_eq(&other, &transport(insecure())));
    assert!(!Arc::ptr_eq(&plain, &other));
}

#[test]
fn options_are_checked() {
    let config = |json: &str| -> ForwardAuthConfig { serde_json::from_str(json).unwrap() };
    let setting = Setting {
        files: FakeFiles([("/bad.pem".to_owned(), "x".to_owned())].into()),
        ..Setting::default()
    };
    for (json, option) in [
        ("{}", "address"),
        (r#"{"address": "auth:9000"}"#, "address"),
        (r#"{"address": "h2c://auth"}"#, "address"),
        (r#"{"address": "ftp://auth"}"#, "address"),
        (r#"{"address": "user:password@auth"}"#, "address"),
        (r#"{"address": "http://user:password@"}"#, "address"),
        (r#"{"address": "http://user:password@a b"}"#, "address"),
        (
            r#"{"address": "http://a", "authResponseHeaders": ["X-A", "x a"]}"#,
            "authResponseHeaders[1]",
        ),
        (r#"{"address": "http://a", "authRequestHeaders": [""]}"#, "authRequestHeaders[0]"),
        (r#"{"address": "http://a", "authResponseHeadersRegex": "("}"#, "authResponseHeadersRegex"),
        (r#"{"address": "http://a", "headerField": "a b"}"#, "headerField"),
        (r#"{"address": "http://a", "cache": {"ttl": "0s"}}"#, "cache.ttl"),
        (r#"{"address": "http://a", "authSigninURL": "http://%zz"}"#, "authSigninURL"),
        (r#"{"address": "http://a", "tls": {"cert": "/c"}}"#, "tls.key"),
        (r#"{"address": "http://a", "tls": {"key": "/k"}}"#, "tls.cert"),
        (r#"{"address": "http://a", "tls": {"ca": "/none.pem"}}"#, "tls.ca"),
        (r#"{"address": "http://a", "tls": {"ca": "/bad.pem"}}"#, "tls.ca"),
        (r#"{"address": "http://a", "tls": {"cert": "/bad.pem", "key": "/bad.pem"}}"#, "tls.cert"),
    ] {
        for profile in [Profile::Exact, Profile::Safe] {
            let setting = Setting {
                profile,
                files: FakeFiles(setting.files.0.clone()),
                ..Setting::default()
            };
            let error = setting.build(&config(json)).err().unwrap();
            assert_eq!(error.option, option, "{json}");
            assert!(!error.message.contains("password"), "{error}");
        }
    }
}

#[test]
fn risky_options_are_warned_of() {
    let options = |json: &str, profile: Profile| {
        let config: ForwardAuthConfig = serde_json::from_str(json).unwrap();
        let setting = Setting { profile, ..Setting::default() };
        let (_, warnings) = setting.build(&config).unwrap();
        warnings.into_iter().map(|warning| warning.option).collect::<Vec<_>>()
    };
    let quiet = r#"{"address": "https://a", "trustForwardHeader": true}"#;
    assert!(options(quiet, Profile::Safe).is_empty());
    let risky = r#"{"address": "http://a", "forwardBody": true, "tls": {"caOptional": true},
        "authResponseHeaders": ["Content-Length"]}"#;
    assert_eq!(
        options(risky, Profile::Safe),
        ["authResponseHeaders[0]", "tls.caOptional", "trustForwardHeader", "maxBodySize"]
    );
    assert!(!options(risky, Profile::Hardened).contains(&"maxBodySize".to_owned()));
}

#[test]
fn sizes_are_limited_by_the_profile_where_nothing_is_configured() {
    assert_eq!(limit(None, Some(7)), Some(7));
    assert_eq!(limit(Some(0), Some(7)), Some(0));
    assert_eq!(limit(Some(-1), Some(7)), None);
    assert_eq!(limit(None, None), None);
}
