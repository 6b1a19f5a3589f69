//! Memory that routing takes from the allocator: none, with ten routers and with ten thousand. And
//! what limits take for the sources that they know.
//!
//! A binary of its own, because it counts what the whole process allocates.

#[cfg(test)]
mod routing {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use doorward::exchange::view::RequestView;
    use doorward::exchange::{
        Body, Chain, Context, Handler, Request, Response, ResponseFuture, ready,
    };
    use doorward::router::{HttpRouter, HttpRouters};
    use doorward::rule::Rule;
    use http::{HeaderMap, Method};

    struct Nothing;

    impl Handler for Nothing {
        fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
            ready(Response::new(Body::empty()))
        }
    }

    fn router(name: &str, rule: &str) -> Arc<HttpRouter> {
        Arc::new(HttpRouter {
            name: name.into(),
            service: "app@file".into(),
            rule: Arc::new(Rule::parse(rule).unwrap()),
            priority: 0,
            chain: Chain::new(Vec::new(), Arc::new(Nothing)),
            tls_options: None,
            encoded_characters: None,
            metrics: None,
            count: true,
            access_log: true,
            broken: false,
        })
    }

    /// `count` tenants, with rules of the usual kinds.
    fn routers(count: usize) -> HttpRouters {
        let mut routers = Vec::with_capacity(count * 2 + 2);
        for number in 0..count {
            let host = format!("t{number}.example.com");
            let chat = format!("Host(`{host}`) && PathPrefix(`/websocket`)");
            routers.push(router("chat@file", &chat));
            routers.push(router("tenant@file", &format!("Host(`{host}`)")));
        }
        routers.push(router("wildcard@file", "Host(`*.example.org`) && Header(`X-Tier`, `gold`)"));
        routers.push(router("pattern@file", "HostRegexp(`^[a-z]+\\.example\\.net$`)"));
        HttpRouters::new(routers)
    }

    #[test]
    fn routing_allocates_the_same_with_ten_routers_and_with_ten_thousand() {
        let (few, many) = (routers(10), routers(10_000));
        let mut headers = HeaderMap::new();
        headers.insert("x-tier", "gold".parse().unwrap());
        for (host, path, wanted) in [
            ("t7.example.com", "/web", Some("tenant@file")),
            ("t7.example.com", "/websocket", Some("chat@file")),
            ("a.example.org", "/", Some("wildcard@file")),
            ("shop.example.net", "/", Some("pattern@file")),
            ("unknown.example.com", "/", None),
            ("", "/", None),
        ] {
            let view = RequestView {
                host,
                flat_host: None,
                path,
                query: Some("debug=1"),
                method: &Method::GET,
                headers: &headers,
                client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            let measured = |routers: &HttpRouters| {
                // A regular expression makes its scratch space when it is first used.
                let found = routers.find(&view).map(|router| router.name.to_string());
                assert_eq!(found.as_deref(), wanted, "{host}{path}");
                let info = allocation_counter::measure(|| {
                    std::hint::black_box(routers.find(&view));
                });
                (info.count_total, info.bytes_total)
            };
            let (with_few, with_many) = (measured(&few), measured(&many));
            assert_eq!(with_few, with_many, "{host}{path}");
            assert_eq!(with_many, (0, 0), "{host}{path}");
        }
    }
}

#[cfg(test)]
mod limits {
    use std::sync::Arc;

    use doorward::exchange::{
        Body, Chain, Connection, Context, EntryPointFacts, Handler, OpenWork, Request, Response,
        ResponseFuture, ready,
    };
    use doorward::middleware::{BuildContext, MiddlewareConfig};
    use doorward::state::SharedState;
    use doorward::values::{BuildError, Disk, Profile, QualifiedName};
    use futures_util::FutureExt as _;
    use http::{HeaderValue, StatusCode};
    use tokio::time::Instant;

    struct Answer;

    impl Handler for Answer {
        fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
            ready(Response::new(Body::empty()))
        }
    }

    fn chain(options: Option<&str>) -> Chain {
        let middleware = options.map(|options| {
            let config: MiddlewareConfig = serde_json::from_str(options).unwrap();
            let (_, build) = config.set()[0];
            build.unwrap().build(&mut BuildContext {
                name: &QualifiedName::new("limit", "file"),
                owner: &QualifiedName::new("router", "file"),
                files: &Disk,
                state: &SharedState::default(),
                profile: Profile::default(),
                proxies: &doorward::upstream::Proxies::default(),
                service: &mut |_| Err(BuildError::new("none")),
                warnings: &mut Vec::new(),
            })
        });
        Chain::new(middleware.into_iter().map(Result::unwrap).collect(), Arc::new(Answer))
    }

    fn context() -> Context {
        let local = "127.0.0.1:80".parse().unwrap();
        let connection = Connection {
            entry_point: Arc::new(EntryPointFacts {
                name: "web".into(),
                ..EntryPointFacts::default()
            }),
            peer: local,
            peer_ip: local.ip(),
            peer_ip_text: HeaderValue::from_static("127.0.0.1"),
            local,
            tls: None,
            opened: Instant::now(),
            work: OpenWork::default(),
            own: std::sync::OnceLock::new(),
        };
        Context {
            connection: Arc::new(connection),
            host: "a.test".into(),
            authority: None,
            start: Instant::now(),
            request_id: None,
        }
    }

    fn ask(chain: &Chain, cx: &Context, source: u32) -> StatusCode {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("x-key", HeaderValue::from(source));
        chain.handle(cx, request).now_or_never().unwrap().status()
    }

    #[test]
    fn a_limit_takes_its_memory_for_sources_and_none_for_requests() {
        let cx = context();
        let limit = |more: &str| {
            chain(Some(&format!(
                "{{\"rateLimit\": {{\"average\": 1, \"period\": \"1h\", \"burst\": 9,
                 \"sourceCriterion\": {{\"requestHeaderName\": \"X-Key\"}}{more}}}}}"
            )))
        };
        let (bare, silent) = (chain(None), limit(""));
        let of_one = |chain: &Chain| {
            assert_eq!(ask(chain, &cx, 1), 200);
            allocation_counter::measure(|| {
                assert_eq!(ask(chain, &cx, 1), 200);
            })
            .count_total
        };
        let without = of_one(&bare);
        assert_eq!(of_one(&silent), without);
        assert!(of_one(&limit(", \"responseHeaders\": true")) > without);
        // As many as it knows, and then as many again.
        for round in [0, 1] {
            let info = allocation_counter::measure(|| {
                for source in 0..70_000 {
                    ask(&silent, &cx, round * 70_000 + source);
                }
            });
            // 66 bytes a source, 4.3 MB in all.
            let most = if round == 0 { 4_400_000 } else { 0 };
            assert!(info.bytes_current <= most, "{} bytes", info.bytes_current);
        }
    }
}
