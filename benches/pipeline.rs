//! The whole pipeline on a port in memory: packet kinds × flows, bursts of 32.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "benchmarks fail by panicking")]
#![allow(missing_docs, reason = "no API")]

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{Bench, Load};

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(32)).sample_size(30);
    for load in Load::ALL {
        for flows in [1_000, 64_000, 1_000_000] {
            let mut bench = Bench::new(load, flows, 10);
            group.bench_function(BenchmarkId::new(load.name(), flows), |bencher| {
                bencher.iter(|| bench.turns(1))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
