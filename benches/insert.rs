//! How long the longest single insert into the flow table takes: cycles of each, while a table is filled to its capacity, and
//! while at capacity one flow goes for each that comes.
//!
//! `cargo bench --bench insert -- [--quick]`
//!
//! An insert is bounded: two look-ups, and for each direction two buckets and at the most 24 moves, each with the entry
//! that would move and that one's other bucket. What the table does is exact (engine/tests/flow_table.rs, and an instruction
//! count in benches/instructions.toml); what is measured here is cache misses on top. The same inserts are done several times
//! and the least time of each counts, so that the longest is an insert's and no interrupt's; the last column has those.

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

/// The same inserts over and over, so that what an interrupt adds to one of them can be told from what it takes.
const ROUNDS: usize = 5;

/// What each insert of a row takes: the least of the rounds, and the longest of all.
struct Taken {
    least: Vec<u32>,
    longest: u32,
}

impl Taken {
    fn new(count: usize) -> Self {
        Self { least: vec![u32::MAX; count], longest: 0 }
    }

    fn note(&mut self, place: usize, taken: u64) {
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        self.least[place] = self.least[place].min(taken);
        self.longest = self.longest.max(taken);
    }

    fn report(mut self, name: &str, flows: usize) {
        self.least.sort_unstable();
        let at = |share: f64| self.least[((self.least.len() - 1) as f64 * share) as usize];
        println!(
            "{name:<28} {flows:>9}  {:>6} {:>6} {:>7} {:>8} {:>8} {:>12}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0),
            self.longest
        );
    }
}

fn run(count: usize) {
    let mut flows = Flows::new(count, HashSecret::new(3, 5)).expect("memory");
    let overhead = overhead();
    let churn = count.min(1 << 20) as u32;
    let (mut filling, mut at_capacity) = (Taken::new(count), Taken::new(churn as usize));
    // The first round finds no page of the table in its place, and is not noted.
    for round in 0..=ROUNDS {
        for number in 0..count as u32 {
            let taken = insert(&mut flows, number).saturating_sub(overhead);
            if round > 0 {
                filling.note(number as usize, taken);
            }
        }
        assert_eq!(flows.len(), flows.capacity());
        // The same flows go in each round.
        let mut random = Random::new(1);
        for step in 0..churn {
            let old = key(random.below(count as u32));
            if let Some(id) = flows.find(&old, flows.hash(&old)) {
                flows.remove(id);
                let taken = insert(&mut flows, count as u32 + step).saturating_sub(overhead);
                if round > 0 {
                    at_capacity.note(step as usize, taken);
                }
            }
        }
        (0..count as u32).for_each(|pair| flows.remove(EntryId(pair * 2)));
        assert!(flows.is_empty());
    }
    // Of flows that had gone already, no step came.
    at_capacity.least.retain(|taken| *taken < u32::MAX);
    filling.report("filled to its capacity", count);
    at_capacity.report("at capacity, one goes first", count);
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    println!("TSC cycles of one insert, both directions: the least of {ROUNDS} rounds of the same inserts");
    println!(
        "{:<28} {:>9}  {:>6} {:>6} {:>7} {:>8} {:>8} {:>12}",
        "", "flows", "p50", "p99", "p99.9", "p99.99", "longest", "interrupted"
    );
    let sizes: &[usize] = if quick { &[65_536] } else { &[65_536, 1 << 20, 1 << 23] };
    sizes.iter().for_each(|count| run(*count));
}
