//! How long the longest single insert into the flow table takes: cycles of each, while a table is filled to its capacity, and
//! while at capacity one flow goes for each that comes.
//!
//! `cargo bench --bench insert -- [--quick]`
//!
//! An insert is bounded: two look-ups, and for each direction two buckets and at the most 24 moves, each with the entry
//! that would move and that one's other bucket. What the table does is exact (engine/tests/flow_table.rs, and an instruction
//! count in benches/instructions.toml); what is measured here is cache misses on top, and whatever the system interrupts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "benchmarks fail by panicking")]
#![allow(missing_docs, reason = "no API")]

use std::hint::black_box;

use engine::clock::cycles;
use engine::random::Random;
use engine::table::flow::{EntryId, FlowKey, HashSecret};
use pipelines::flow::{FlowValue, Flows, flow_key};

/// Clients of a service, with an address and a port each.
fn key(number: u32) -> FlowKey {
    flow_key(17, 0x6400_0000 + (number >> 4), 1_024 + (number & 15) as u16, 0x0afe_8000, 80)
}

fn insert(flows: &mut Flows, number: u32) -> u64 {
    let key = key(number);
    let value = FlowValue::rewrite(&key, &key);
    let started = cycles();
    let inserted = black_box(flows.insert((key, value), (key.reversed(), value)));
    let taken = cycles() - started;
    assert!(inserted.is_ok(), "{number}: {inserted:?}");
    taken
}

/// What reading the counter twice takes by itself.
fn overhead() -> u64 {
    let pairs = (0..1_000).map(|_| {
        let started = cycles();
        black_box(());
        cycles() - started
    });
    pairs.min().unwrap_or_default()
}

fn report(name: &str, flows: usize, mut taken: Vec<u32>) {
    taken.sort_unstable();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
    println!(
        "{name:<28} {flows:>9}  {:>6} {:>6} {:>7} {:>8} {:>9} {:>9}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(0.99999),
        at(1.0)
    );
}

fn run(count: usize) {
    let mut flows = Flows::new(count, HashSecret::new(3, 5)).expect("memory");
    // Once, so that the measured inserts find every page of the table in its place.
    (0..count as u32).for_each(|number| {
        insert(&mut flows, number);
    });
    (0..count as u32).for_each(|pair| flows.remove(EntryId(pair * 2)));
    assert!(flows.is_empty());
    let overhead = overhead();
    let clipped = |taken: u64| u32::try_from(taken.saturating_sub(overhead)).unwrap_or(u32::MAX);
    let filling = (0..count as u32).map(|number| clipped(insert(&mut flows, number))).collect();
    assert_eq!(flows.len(), flows.capacity());
    report("filled to its capacity", count, filling);
    let mut random = Random::new(1);
    let churn = count.min(1 << 20) as u32;
    let at_capacity = (0..churn).map(|step| {
        flows.remove(EntryId(random.below(count as u32) * 2));
        clipped(insert(&mut flows, count as u32 + step))
    });
    let at_capacity = at_capacity.collect();
    report("at capacity, one goes first", count, at_capacity);
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    println!("TSC cycles of one insert, both directions ({} of reading the counter taken off)", overhead());
    println!(
        "{:<28} {:>9}  {:>6} {:>6} {:>7} {:>8} {:>9} {:>9}",
        "", "flows", "p50", "p99", "p99.9", "p99.99", "p99.999", "longest"
    );
    let sizes: &[usize] = if quick { &[65_536] } else { &[65_536, 1 << 20, 1 << 23] };
    sizes.iter().for_each(|count| run(*count));
}
