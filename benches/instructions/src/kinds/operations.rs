//! Single operations on tables and packets.

use std::hint::black_box;
use std::sync::Arc;

use engine::batch::Batch;
use engine::clock::Timestamp;
use engine::pool::MemoryPool;
use engine::port::BURST;
use engine::table::flow::{BUCKET_SLOTS, EntryId};
use engine::wire::checksum;
use pipelines::apply;
use pipelines::flow::{FlowValue, flow_key};
use pipelines::meta::Meta;
use pipelines::neighbour_machine::{Frames, NeighbourMachine};
use pipelines::stage::parse;
use pipelines::table::bridge_mac::BridgeMacs;
use pipelines::table::neighbour::Neighbours;

use super::scene::PACKETS;
use super::stages::{flows, tables};
use crate::loads::{self, Load};
use crate::meter::Meter;

/// The flow table and the route table.
pub(crate) fn tables_and_routes(meter: &mut Meter) {
    let mut flows = flows();
    let key = |number: u32| flow_key(17, 0xac1e_0a01 + number, 20_000, 0x0a00_0001, 80);
    let value = FlowValue::default();
    let numbers = 0..PACKETS as u32;
    meter.count(PACKETS, || {
        for number in numbers.clone() {
            let key = key(number);
            assert!(flows.insert((key, value), (key.reversed(), value)).is_ok());
        }
    });
    meter.ends("flow table, insert a pair");
    let mut found = 0;
    meter.count(PACKETS, || {
        for number in numbers.clone() {
            let key = key(number);
            found += usize::from(flows.find(&key, flows.hash(&key)).is_some());
        }
    });
    assert_eq!(found, PACKETS);
    meter.ends("flow table, find one");
    meter.count(PACKETS, || numbers.clone().for_each(|number| flows.remove(EntryId(number * 2))));
    assert!(flows.is_empty());
    meter.ends("flow table, remove a pair");

    longest_insert(meter);

    let tables = tables();
    let mut routed = 0;
    meter.count(PACKETS, || {
        for number in numbers.clone() {
            routed += usize::from(tables.routes.lookup(black_box(0xac1e_0902 + number)).is_some());
        }
    });
    assert_eq!(routed, PACKETS);
    meter.ends("route table, find one");
}

/// The worst that an insert can meet: both buckets full, and 24 moves that help nothing. Keys for it can only be chosen by who
/// knows the secret and where the table puts a hash (engine/tests/flow_table.rs holds it to that).
fn longest_insert(meter: &mut Meter) {
    let mut flows = flows();
    let count = ((2 * flows.capacity()) as f64 / (BUCKET_SLOTS as f64 * 0.8)).ceil() as u64 + 1;
    let value = FlowValue::default();
    let mut refused = 0;
    for number in 0..u32::MAX {
        let key = flow_key(17, number, 20_000, 0x0a00_0001, 80);
        let hash = flows.hash(&key);
        let first = ((hash >> 32) * count) >> 32;
        let second = (u64::from(hash as u32) * count) >> 32;
        if first > 1 || second > 1 {
            continue;
        }
        if flows.insert((key, value), (key.reversed(), value)).is_err() {
            let mut insert = || black_box(flows.insert((key, value), (key.reversed(), value))).is_err();
            meter.count(1, || assert!(insert()));
            refused += 1;
        }
        if refused == 8 {
            break;
        }
    }
    assert!(
        flows.len() >= 2 * BUCKET_SLOTS && flows.len() < PACKETS,
        "two buckets are full, the table is not"
    );
    meter.ends("flow table, longest insert");
}

/// What is done to an established packet's bytes, in its three steps.
pub(crate) fn writing(meter: &mut Meter) {
    let (tables, flows) = (tables(), flows());
    let neighbours = Arc::new(Neighbours::new(64));
    let mut machine = NeighbourMachine::new(Arc::clone(&neighbours), Arc::new(BridgeMacs::default()));
    machine.step(&tables, Timestamp::from_seconds(1), [], &mut Frames::new());
    let overlay = tables.overlay.as_ref().expect("an overlay").interface;
    let record = neighbours.find(overlay, 0xac1e_0900).expect("a static next hop");
    let adjacency = neighbours.read(record).expect("a record");
    meter.count(BURST, || {
        for _ in 0..BURST {
            black_box(neighbours.read(black_box(record)));
        }
    });
    meter.ends("adjacency, read");

    let frames = loads::frames(Load::Dnat, PACKETS, 10);
    let mut pool = MemoryPool::new(BURST);
    let to = flow_key(17, 0xac1e_4c00, 40_000, 0xac1e_0902, 8080);
    for (step, name) in ["apply::rewrite", "apply::strip", "apply::encapsulate"].into_iter().enumerate() {
        for burst in frames.chunks(BURST) {
            let mut batch = Batch::<Meta>::new();
            for frame in burst {
                assert!(batch.push(pool.packet(0, frame).expect("a buffer"), 0).is_ok());
            }
            parse::run(&mut batch, &tables, &flows);
            let values: Vec<FlowValue> =
                batch.meta[..BURST].iter().map(|meta| FlowValue::rewrite(&meta.key, &to)).collect();
            let mut each = |work: &dyn Fn(&mut engine::packet::Packet, &Meta, &FlowValue)| {
                for (index, value) in values.iter().enumerate() {
                    let Some((packet, meta, _)) = batch.parts_mut(index) else { continue };
                    work(packet, meta, value);
                }
            };
            let rewrite = |packet: &mut _, meta: &_, value: &_| apply::rewrite(packet, meta, value, 1);
            let strip = |packet: &mut _, meta: &_, _: &_| assert!(apply::strip(packet, meta));
            let encapsulate = |packet: &mut _, meta: &Meta, _: &_| {
                assert!(apply::encapsulate(packet, &adjacency, meta.hash, 1).is_ok());
            };
            match step {
                0 => meter.count(BURST, || each(&rewrite)),
                1 => meter.count(BURST, || each(&strip)),
                _ => {
                    each(&strip);
                    meter.count(BURST, || each(&encapsulate));
                }
            }
        }
        meter.ends(name);
    }
    let bytes = [0x5a; 1_480];
    meter.count(1, || {
        black_box(checksum::checksum(black_box(&bytes)));
    });
    meter.ends("checksum of 1,480 bytes");
}
