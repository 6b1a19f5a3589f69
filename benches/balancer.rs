//! Picking a server: weighted turns among services that answer at once, and whole requests to
//! servers picked in turns (`wrr`) and as the less busy of two (`p2c`).

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use doorward::exchange::{Body, Context, Handler, Request, Response, ResponseFuture, ready};
use doorward::service::WeightedServiceConfig;
use doorward::service::{Service, ServiceConfig, ServiceContext, WeightedConfig};
use doorward::values::{Profile, QualifiedName};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use support::{World, backend, context, merged, read};

/// A service that answers at once.
struct Answer;

impl Handler for Answer {
    fn handle<'a>(&'a self, _: &'a Context, _: Request) -> ResponseFuture<'a> {
        ready(Response::new(Body::empty()))
    }
}

impl Service for Answer {
    fn is_up(&self) -> bool {
        true
    }

    fn checks_health(&self) -> bool {
        true
    }
}

fn request() -> Request {
    http::Request::get("/web/login").header("host", "a.example.com").body(Body::empty()).unwrap()
}

fn weighted(world: &World, count: usize) -> Arc<dyn Service> {
    let child = |at: usize| WeightedServiceConfig {
        name: format!("child{at}"),
        weight: Some(i64::try_from(1 + at % 3).unwrap()),
    };
    let weighted =
        WeightedConfig { services: (0..count).map(child).collect(), ..WeightedConfig::default() };
    let config = ServiceConfig { weighted: Some(weighted), ..ServiceConfig::default() };
    config
        .build(&mut ServiceContext {
            name: &QualifiedName::new("weighted", "file"),
            transport: None,
            child: &mut |_| Ok(Arc::new(Answer)),
            state: &world.state,
            profile: Profile::default(),
            metrics: None,
            server_up: Arc::clone(&world.server_up),
            warnings: &mut Vec::new(),
        })
        .unwrap()
}

/// A router to a balancer with this strategy. All servers are one backend under many addresses.
fn servers(strategy: &str, count: usize, port: u16) -> doorward::compile::Compiled {
    let mut text = format!(
        "http:\n  routers:\n    r: {{rule: PathPrefix(`/`), service: s}}\n  services:\n    s:\n      \
         loadBalancer:\n        strategy: {strategy}\n        servers:\n"
    );
    for number in 1..=count {
        let _ = writeln!(text, "          - url: http://127.0.0.{number}:{port}");
    }
    World::new().compile(&merged(&read(&text)), None)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let cx = context();
    let world = World::new();
    let mut group = criterion.benchmark_group("balancer");
    for count in [2, 10, 100] {
        let service = weighted(&world, count);
        group.bench_function(format!("weighted, {count} services"), |bencher| {
            bencher.iter_batched(
                request,
                |request| service.handle(&cx, request).now_or_never().unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    let port = backend().port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    for strategy in ["wrr", "p2c"] {
        for count in [2, 10, 100] {
            let compiled = servers(strategy, count, port);
            let routers = &compiled.table.entry_points.first().unwrap().http;
            let chain = &routers.iter().next().unwrap().chain;
            group.bench_function(format!("a request by {strategy}, {count} servers"), |bencher| {
                bencher.iter(|| {
                    local.block_on(&runtime, async {
                        let response = chain.handle(&cx, request()).await;
                        assert_eq!(response.status(), 200);
                        response.into_body().collect().await.unwrap()
                    })
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
