//! A chain of middlewares: what one costs that only looks at the request, and one that waits for
//! the response.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::Criterion;
use doorward::exchange::{Body, Chain, Context, Handler, Middleware, Next, Request, Response};
use doorward::exchange::{ResponseFuture, ready};
use futures_util::FutureExt as _;
use support::{World, context, merged, read};

/// The end of the chain: an empty answer at once.
struct Answer;

impl Handler for Answer {
    fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
        black_box(request);
        ready(Response::new(Body::empty()))
    }
}

/// Sees the response and leaves it as it is.
struct Waits;

impl Middleware for Waits {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        Box::pin(async move { black_box(next.run(cx, request).await) })
    }
}

/// Leaves the request as it is.
struct Passes;

impl Middleware for Passes {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        next.run(cx, black_box(request))
    }
}

fn request() -> Request {
    http::Request::get("/web/login").header("host", "a.example.com").body(Body::empty()).unwrap()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("chain");
    let cx = context();
    let mut measure = |name: &str, chain: &dyn Handler| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                request,
                |request| chain.handle(&cx, request).now_or_never().unwrap(),
                criterion::BatchSize::SmallInput,
            );
        });
    };
    for count in [0, 5, 10] {
        let chain =
            Chain::new((0..count).map(|_| std::sync::Arc::new(Passes) as _).collect(), end());
        measure(&format!("{count} that pass on"), &chain);
    }
    let chain = Chain::new((0..5).map(|_| std::sync::Arc::new(Waits) as _).collect(), end());
    measure("5 that see the response", &chain);
    for count in [5, 10] {
        measure(&format!("{count} of ipAllowList, built by compile"), &*allow_lists(count));
    }
    group.finish();
    criterion.final_summary();
}

fn end() -> std::sync::Arc<dyn Handler> {
    std::sync::Arc::new(Answer)
}

/// A router with so many of the shelf's own middlewares, in front of a service without servers.
fn allow_lists(count: usize) -> Box<dyn Handler> {
    struct First(doorward::compile::Compiled);
    impl Handler for First {
        fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
            let routers = &self.0.table.entry_points.first().unwrap().http;
            routers.iter().next().unwrap().chain.handle(cx, request)
        }
    }
    let mut text = "http:\n  middlewares:\n".to_owned();
    for number in 0..count {
        let _ = writeln!(text, "    m{number}: {{ipAllowList: {{sourceRange: [192.0.2.0/24]}}}}");
    }
    let names: Vec<_> = (0..count).map(|number| format!("m{number}")).collect();
    let _ = write!(
        text,
        "  routers:\n    r: {{rule: PathPrefix(`/`), service: s, middlewares: [{}]}}\n  services:\n    \
         s: {{loadBalancer: {{servers: []}}}}\n",
        names.join(", ")
    );
    Box::new(First(World::new().compile(&merged(&read(&text)), None)))
}
