//! Memory that routing takes from the allocator: none, with ten routers and with ten thousand.
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
