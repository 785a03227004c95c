//! Each stage and table by itself: nanoseconds for a batch of 32 packets, or for one operation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "benchmarks fail by panicking")]
#![allow(missing_docs, reason = "no API")]

mod support;

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Batch;
use engine::clock::Timestamp;
use engine::packet::Packet;
use engine::pool::{MemoryPool, PacketSource};
use engine::random::Random;
use engine::table::flow::{EntryId, HashSecret};
use pipelines::apply;
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::decision::Decision;
use pipelines::flow::{FlowValue, Flows, flow_key};
use pipelines::gateway::{DECIDE, Situation, decide};
use pipelines::meta::Meta;
use pipelines::neighbour_machine::{Frames, NeighbourMachine};
use pipelines::stage::{conntrack, parse, vxlan_decap};
use pipelines::table::Tables;
use pipelines::table::affinity::AffinityTable;
use pipelines::table::bridge_mac::BridgeMacs;
use pipelines::table::neighbour::Neighbours;
use support::{Load, configuration, frames};

const FLOWS: usize = 64_000;

fn tables(services: usize) -> Tables {
    let text = configuration(Load::Masquerade, FLOWS, services);
    let loaded = config::parse(&text, "bench.toml").unwrap_or_else(|report| panic!("{report}"));
    Builder::new(1, HostFacts::default()).build(&loaded.configuration).expect("tables")
}

fn flows() -> Flows {
    Flows::new(FLOWS, HashSecret::new(3, 5)).expect("memory")
}

fn batch(pool: &mut MemoryPool, frames: &[Vec<u8>]) -> Batch<Meta> {
    let mut batch = Batch::new();
    for frame in frames.iter().take(32) {
        let packet = pool.packet(0, frame).expect("a buffer");
        batch.push(packet, 0).expect("room");
    }
    batch
}

fn batch_stages(criterion: &mut Criterion) {
    let (tables, flows) = (tables(10), flows());
    let mut pool = MemoryPool::new(64);
    let frames = frames(Load::Dnat, 1_024, 10);
    let mut group = criterion.benchmark_group("stage, 32 packets");
    group.throughput(Throughput::Elements(32));
    let mut parsed = batch(&mut pool, &frames);
    group.bench_function("parse", |bencher| bencher.iter(|| parse::run(&mut parsed, &tables, &flows)));
    group.bench_function("vxlan_decap", |bencher| bencher.iter(|| vxlan_decap::run(&mut parsed, &tables)));
    group.bench_function("conntrack find, nothing there", |bencher| {
        bencher.iter(|| {
            conntrack::prefetch(&mut parsed, &flows);
            parsed.meta.iter_mut().take(32).for_each(|meta| conntrack::find(meta, &flows));
        });
    });
    group.finish();
}

fn first_packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first packet");
    for services in [10, 5_000] {
        let tables = tables(services);
        let affinity = AffinityTable::new(4, 1);
        let situation = Situation { tables: &tables, affinity: &affinity, now: Timestamp::default() };
        let mut random = Random::new(1);
        let mut number = 0u32;
        let mut decision = || {
            number = number.wrapping_add(0x9e37_79b1);
            let service = 0x0afe_8000 + number % services as u32;
            Decision::new(flow_key(17, 0xac1e_0a01, number as u16, service, 80), 3, false)
        };
        group.bench_function(format!("decide, {services} services"), |bencher| {
            bencher.iter(|| {
                let mut decision = decision();
                decide(&situation, &mut random, &mut decision);
                decision
            });
        });
        for (name, stage) in DECIDE {
            group.bench_function(format!("{name}, {services} services"), |bencher| {
                bencher.iter(|| {
                    let mut decision = decision();
                    stage(&situation, &mut random, &mut decision);
                    decision
                });
            });
        }
    }
    group.finish();
}

fn flow_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow table");
    for capacity in [1_000u32, 64_000, 1_000_000] {
        let mut flows = Flows::new(capacity as usize, HashSecret::new(3, 5)).expect("memory");
        let key = |number: u32| flow_key(17, number, 1, 0x0a00_0001, 80);
        let insert = |flows: &mut Flows, number: u32| {
            let (key, value) = (key(number), FlowValue::default());
            flows.insert((key, value), (key.reversed(), value))
        };
        for number in 0..capacity {
            insert(&mut flows, number).expect("room");
        }
        let mut random = Random::new(7);
        group.bench_function(format!("find one, {capacity}"), |bencher| {
            bencher.iter(|| {
                let key = key(random.below(capacity));
                flows.find(&key, flows.hash(&key))
            });
        });
        let mut next = capacity;
        group.bench_function(format!("remove and insert, {capacity}"), |bencher| {
            bencher.iter(|| {
                flows.remove(EntryId(random.below(capacity) * 2));
                next = next.wrapping_add(1);
                insert(&mut flows, next)
            });
        });
    }
    group.finish();
}

fn apply_stage(criterion: &mut Criterion) {
    let tables = tables(10);
    let flows = flows();
    let neighbours = Arc::new(Neighbours::new(64));
    let mut machine = NeighbourMachine::new(Arc::clone(&neighbours), Arc::new(BridgeMacs::default()));
    machine.step(&tables, Timestamp::from_seconds(1), [], &mut Frames::new());
    let overlay = tables.overlay.as_ref().expect("an overlay").interface;
    let record = neighbours.find(overlay, 0xac1e_0900).expect("a static next hop");
    let frames = frames(Load::Dnat, 64, 10);
    let mut pool = MemoryPool::new(64);
    let mut parsed = batch(&mut pool, &frames);
    parse::run(&mut parsed, &tables, &flows);
    let meta = parsed.meta[0];
    let to = flow_key(17, 0xac1e_4c00, 40_000, 0xac1e_0902, 8080);
    let value = FlowValue::rewrite(&meta.key, &to);
    let mut group = criterion.benchmark_group("apply, one packet");
    group.bench_function("read adjacency", |bencher| bencher.iter(|| neighbours.read(record)));
    let adjacency = neighbours.read(record).expect("a record");
    let fresh = |packet: &mut Option<Packet>| {
        let mut packet = packet.take().or_else(|| pool.allocate()).expect("a buffer");
        assert!(packet.fill(&frames[0]));
        packet
    };
    let mut fresh = fresh;
    group.bench_function("rewrite and encapsulate", |bencher| {
        bencher.iter_batched(
            || fresh(&mut None),
            |mut packet| {
                apply::rewrite(&mut packet, &meta, &value, 1);
                let whole = apply::strip(&mut packet, &meta);
                (apply::encapsulate(&mut packet, &adjacency, meta.hash, 1), whole, packet)
            },
            BatchSize::NumIterations(32),
        );
    });
    group.finish();
}

criterion_group!(benches, batch_stages, first_packets, flow_table, apply_stage);
criterion_main!(benches);
