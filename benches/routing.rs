//! Finding a router: the same with ten routers and with a hundred thousand.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::Criterion;
use doorward::exchange::view::RequestView;
use http::{HeaderMap, Method};
use support::{World, host, merged, read, tenants};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("routing");
    for count in [10, 1_000, 100_000] {
        let compiled = World::new().compile(&merged(&read(&tenants(count, None))), None);
        let routers = &compiled.table.entry_points.first().unwrap().http;
        // Requests that go from tenant to tenant, so that a larger table also costs its memory.
        let hosts: Vec<String> = (0..count).map(|n| host(n * 7_919 % count)).collect();
        let mut next = hosts.iter().cycle();
        let headers = HeaderMap::new();
        let find = |host: &str| {
            let view = RequestView {
                host,
                flat_host: None,
                path: "/web/login",
                query: None,
                method: &Method::GET,
                headers: &headers,
                client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            routers.find(black_box(&view)).is_some()
        };
        group.bench_function(format!("{count} routers, one host"), |bencher| {
            let last = host(count - 1);
            bencher.iter(|| assert!(find(&last)));
        });
        group.bench_function(format!("{count} routers, all hosts"), |bencher| {
            bencher.iter(|| assert!(find(next.next().unwrap())));
        });
        group.bench_function(format!("{count} routers, unknown host"), |bencher| {
            bencher.iter(|| assert!(!find("nobody.example.com")));
        });
    }
    group.finish();
    criterion.final_summary();
}
