//! From a configuration of 10,000 tenants to a table: from nothing, and with one router changed.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

mod support;

use std::sync::Arc;

use criterion::{BatchSize, Criterion};
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
    // Each compile starts from the result of the one before, as reloads do, and drops it.
    let world = World::new();
    let mut compiled = world.compile(&before, None);
    let mut turn = 0;
    group.bench_function("one router changed", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let config = if turn % 2 == 0 { &before } else { &after };
            compiled = world.compile(config, Some(&compiled.memo));
        });
    });
    assert_eq!(compiled.report.routers.len(), TENANTS);
    group.finish();
    criterion.final_summary();
}
