//! What threads share, used by real threads at once: rings, pools, snapshots, the seqlock array, the atomic map, counters.
//!
//! In an ordinary build a mistake shows here only with luck; under ThreadSanitizer (`scripts/sanitize.sh thread`) every
//! access that nothing orders is reported. loom's models beside the code look at every interleaving of a few steps; these
//! take many steps of the real thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::counters::Counters;
use engine::packet::Packet;
use engine::pool::{MemoryPool, PacketSource};
use engine::ring::ring;
use engine::snapshot::snapshot;
use engine::table::atomic_map::AtomicMap;
use engine::table::seqlock::{SeqlockArray, WORDS};

/// Steps of a writer.
const STEPS: u64 = 4_000;

/// Buffers go round: written by one thread, read and written by the next, read by the last and back in the pool from there.
#[test]
fn packets_are_handed_on_whole_and_come_back() {
    const PACKETS: u64 = STEPS;
    let pool = MemoryPool::new(32);
    let (mut first, mut middle_in) = ring::<Packet>(8);
    let (mut middle_out, mut last) = ring::<Packet>(4);
    std::thread::scope(|scope| {
        let mut source = pool.clone();
        scope.spawn(move || {
            for number in 0..PACKETS {
                let mut packet = loop {
                    match source.allocate() {
                        Some(packet) => break packet,
                        None => std::thread::yield_now(),
                    }
                };
                assert!(packet.fill(&[number as u8; 64]));
                while let Err(refused) = first.push(packet) {
                    packet = refused;
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(move || {
            let mut handed = 0;
            while handed < PACKETS {
                let Some(mut packet) = middle_in.pop() else {
                    std::thread::yield_now();
                    continue;
                };
                assert!(packet.data().iter().all(|byte| *byte == handed as u8));
                packet.data_mut().fill(!(handed as u8));
                while let Err(refused) = middle_out.push(packet) {
                    packet = refused;
                    std::thread::yield_now();
                }
                handed += 1;
            }
        });
        let mut taken = 0;
        while taken < PACKETS {
            match last.pop() {
                Some(packet) => {
                    assert!(packet.data().iter().all(|byte| *byte == !(taken as u8)), "{taken}");
                    taken += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
    assert_eq!(pool.in_use(), 0);
}

/// Batches of any size in both directions, as workers hand strays to each other.
#[test]
fn batches_cross_in_both_directions() {
    let (to_right, from_left) = ring::<Box<u64>>(64);
    let (to_left, from_right) = ring::<Box<u64>>(64);
    let side = |mut out: engine::ring::Producer<Box<u64>>, mut inbox: engine::ring::Consumer<Box<u64>>| {
        move || {
            let (mut sent, mut seen) = (0, 0);
            let mut batch = arrayvec::ArrayVec::<Box<u64>, 32>::new();
            while sent < STEPS || seen < STEPS {
                while sent < STEPS && batch.len() < 1 + (sent % 31) as usize {
                    batch.push(Box::new(sent));
                    sent += 1;
                }
                out.push_batch(&mut batch);
                let taken = inbox.pop_batch(1 + (seen % 17) as usize, |number| {
                    assert_eq!(*number, seen);
                    seen += 1;
                });
                if taken == 0 {
                    std::thread::yield_now();
                }
            }
            while !batch.is_empty() {
                out.push_batch(&mut batch);
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(side(to_right, from_right));
        scope.spawn(side(to_left, from_left));
    });
}

/// Tables of plain memory, replaced and freed while workers read, sleep and wake.
#[test]
fn snapshots_are_read_and_freed_at_once() {
    let tables = |number: u64| Arc::new(vec![number; 32]);
    let (mut publisher, readers) = snapshot(tables(0), 3);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (place, mut reader) in readers.into_iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let (mut last, mut rounds) = (0, 0);
                while !done.load(Ordering::Relaxed) {
                    let seen = reader.load();
                    assert!(seen.iter().all(|number| *number == seen[0]) && seen[0] >= last);
                    (last, rounds) = (seen[0], rounds + 1);
                    if rounds % (2 + place) == 0 {
                        reader.sleep();
                        std::thread::yield_now();
                    }
                }
            });
        }
        for number in 1..STEPS / 4 {
            publisher.publish(tables(number));
            publisher.reclaim();
        }
        done.store(true, Ordering::Relaxed);
    });
    publisher.reclaim();
    assert_eq!(publisher.retired(), 0);
}

/// Next hops: found by one table, read from another, while both change.
#[test]
fn records_are_found_and_read_while_they_change() {
    const KEYS: u64 = 24;
    let (map, records) = (AtomicMap::new(64), SeqlockArray::new(KEYS as usize + 1));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for first in 1..=3 {
            let (map, records, done) = (&map, &records, &done);
            scope.spawn(move || {
                let mut key = first;
                while !done.load(Ordering::Relaxed) {
                    key = key % KEYS + 1;
                    let Some((_, record)) = map.find(key) else { continue };
                    assert_eq!(record, key, "a value is its key's or absent");
                    if let Some(words) = records.read(record as usize) {
                        assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
                    }
                }
            });
        }
        for step in 0..STEPS {
            let key = step * 7 % KEYS + 1;
            records.write(key as usize, &[step; WORDS]);
            match step % 5 {
                0 => map.remove(key),
                _ => assert!(map.set(key, key).is_some()),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// One writer, and readers that see counts grow.
#[test]
fn counters_are_read_while_they_count() {
    let counters = Counters::new(8);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (counters, done) = (&counters, &done);
        scope.spawn(move || {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = counters.get(3);
                assert!(seen >= last);
                last = seen;
            }
        });
        (0..STEPS).for_each(|_| counters.add(3, 1));
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(counters.get(3), STEPS);
}
