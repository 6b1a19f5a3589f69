//! What a decision of `rateLimit` in memory costs: with as many sources as it knows, and with a
//! hundred thousand, of which it keeps forgetting some. `limit/none` is what is around it.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use criterion::Criterion;
use doorward::exchange::{
    Body, Chain, Connection, Context, Handler, OpenWork, Request, Response, ResponseFuture, ready,
};
use doorward::middleware::{BuildContext, MiddlewareConfig};
use doorward::values::{BuildError, Disk, Profile, QualifiedName};
use futures_util::FutureExt as _;
use support::{World, context};

const SOURCES: usize = 100_000;

/// The end of a chain.
struct Answer;

impl Handler for Answer {
    fn handle<'a>(&'a self, _: &'a Context, _: Request) -> ResponseFuture<'a> {
        ready(Response::new(Body::empty()))
    }
}

fn chain(options: Option<&str>) -> Chain {
    let world = World::new();
    let middlewares = options.map(|options| {
        let config: MiddlewareConfig = serde_json::from_str(options).unwrap();
        let (_, build) = config.set()[0];
        build
            .unwrap()
            .build(&mut BuildContext {
                name: &QualifiedName::new("limit", "file"),
                owner: &QualifiedName::new("router", "file"),
                files: &Disk,
                state: &world.state,
                profile: Profile::default(),
                service: &mut |_| Err(BuildError::new("none")),
                warnings: &mut Vec::new(),
            })
            .unwrap()
    });
    Chain::new(middlewares.into_iter().collect(), Arc::new(Answer))
}

/// Contexts of as many clients, each with its own address.
fn clients(count: usize) -> Vec<Context> {
    let like = context();
    let client = |number: usize| {
        let network = u128::try_from(number).unwrap() << 64;
        let ip = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | network | 1));
        let connection = Connection {
            entry_point: Arc::clone(&like.connection.entry_point),
            peer: SocketAddr::new(ip, 40_000),
            peer_ip: ip,
            peer_ip_text: like.connection.peer_ip_text.clone(),
            local: like.connection.local,
            tls: None,
            opened: like.connection.opened,
            work: OpenWork::default(),
        };
        Context { connection: Arc::new(connection), ..like.clone() }
    };
    (0..count).map(client).collect()
}

fn decide(criterion: &mut Criterion, name: &str, options: Option<&str>, clients: &[Context]) {
    let chain = chain(options);
    let next = Cell::new(0);
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            // Neighbours in memory are none in time.
            let at = (next.get() + 7_919) % clients.len();
            next.set(at);
            let request = Request::new(Body::empty());
            let response = chain.handle(&clients[at], request).now_or_never();
            black_box(response.unwrap())
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (one, many) = (clients(1), clients(SOURCES));
    let endless = r#"{"rateLimit": {"average": 1000000000}}"#;
    let roomy = r#"{"rateLimit": {"average": 1000, "burst": 1000}}"#;
    let telling = r#"{"rateLimit": {"average": 1000, "burst": 1000, "responseHeaders": true}}"#;
    let refusing = r#"{"rateLimit": {"average": 1, "period": "24h"}}"#;
    decide(&mut criterion, "limit/none", None, &many);
    decide(&mut criterion, "limit/passed/1 source", Some(endless), &one);
    decide(&mut criterion, "limit/passed/60,000 sources", Some(roomy), &many[..60_000]);
    decide(&mut criterion, "limit/passed/100,000 sources", Some(roomy), &many);
    decide(&mut criterion, "limit/passed, told/60,000 sources", Some(telling), &many[..60_000]);
    decide(&mut criterion, "limit/refused/1 source", Some(refusing), &one);
    decide(&mut criterion, "limit/refused/100,000 sources", Some(refusing), &many);
    criterion.final_summary();
}
