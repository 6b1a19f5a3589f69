//! From a configuration of 10,000 tenants to a table: from nothing, and with one router changed, which
//! serves clear text or TLS, or stands beside as many middlewares that nobody uses.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use doorward::config::dynamic_config::DynamicConfig;
use support::{World, merged, read, tenants};

const TENANTS: usize = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("compile");
    let text = tenants(TENANTS, None);
    group.bench_function("read the file", |bencher| bencher.iter_with_large_drop(|| read(&text)));
    let before = read(&text);
    let mut after = DynamicConfig::clone(&read(&tenants(TENANTS, Some(TENANTS / 2))));
    after.reuse(&before);
    let after = Arc::new(after);
    group.bench_function("merge", |bencher| bencher.iter_with_large_drop(|| merged(&after)));
    let (before, after) = (merged(&before), merged(&after));
    group.bench_function("from nothing", |bencher| {
        bencher.iter_batched(
            World::new,
            |world| {
                let compiled = world.compile(&before, None);
                (world, compiled)
            },
            BatchSize::PerIteration,
        );
    });
    one_router_changed(&mut group, "one router changed", &before, &after);
    let with_tls = |renamed| {
        let text = tenants(TENANTS, renamed);
        read(&text.replace("      service: ", "      tls: {}\n      service: "))
    };
    let before = with_tls(None);
    let mut after = DynamicConfig::clone(&with_tls(Some(TENANTS / 2)));
    after.reuse(&before);
    let (before, after) = (merged(&before), merged(&Arc::new(after)));
    one_router_changed(&mut group, "one router with TLS changed", &before, &after);
    let with_unused = |renamed| {
        let mut text = tenants(TENANTS, renamed) + "  middlewares:\n";
        for number in 0..TENANTS {
            let _ = writeln!(text, "    m{number}: {{addPrefix: {{prefix: /x}}}}");
        }
        read(&text)
    };
    let before = with_unused(None);
    let mut after = DynamicConfig::clone(&with_unused(Some(TENANTS / 2)));
    after.reuse(&before);
    let (before, after) = (merged(&before), merged(&Arc::new(after)));
    one_router_changed(&mut group, "one router beside unused middlewares changed", &before, &after);
    group.finish();
    criterion.final_summary();
}

/// Each compile starts from the result of the one before, as reloads do, and drops it.
fn one_router_changed(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    before: &DynamicConfig,
    after: &DynamicConfig,
) {
    let world = World::new();
    let mut compiled = world.compile(before, None);
    let mut turn = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            turn += 1;
            let config = if turn % 2 == 0 { before } else { after };
            compiled = world.compile(config, Some(&compiled.memo));
        });
    });
    assert_eq!(compiled.report.routers.len(), TENANTS);
}
