//! A worker's turn: what it takes from where, in which order, and how much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::Mutex;

use engine::batch::{Batch, Disposition};
use engine::clock::Timestamp;
use engine::counters::{Account, is_balanced};
use engine::pool::{MemoryPool, PacketSource};
use engine::port::memory::MemoryPort;
use engine::ring::{Producer, ring};
use engine::worker::{Connections, HandOff, Pipeline, Worker, WorkerCounters};

/// Notes the first byte of each packet and sends it out.
struct Note(Arc<Mutex<Vec<u8>>>);

impl Pipeline for Note {
    type Meta = u8;
    fn resume(&mut self, _: &mut Batch<u8>, _: Timestamp) {}
    fn process(&mut self, batch: &mut Batch<u8>, _: Timestamp) {
        for index in 0..batch.len() {
            self.0.lock().unwrap().extend(batch.packet(index).map(|packet| packet.data()[0]));
            batch.dispositions[index] = Disposition::Transmit(0);
        }
    }
    fn tend(&mut self, _: &mut Batch<u8>, _: Timestamp) {}
    fn sleep(&mut self) {}
}

const FROM_PORT: u8 = 100;

fn hand_over(pool: &mut MemoryPool, ring: &mut Producer<HandOff>, from: u8, count: usize) {
    for _ in 0..count {
        let mut packet = pool.allocate().unwrap();
        assert!(packet.fill(&[from; 60]));
        assert!(ring.push(HandOff { packet, visit: 0 }).is_ok());
    }
}

/// Others' packets go first, each inbox in its turn, and no more of them than leave the port and the clock their turn.
#[test]
fn inboxes_go_first_and_within_a_bound() {
    let mut pool = MemoryPool::new(2_048);
    let port = MemoryPort::new();
    let ((mut one, first), (mut other, second)) = (ring(1_024), ring(1_024));
    hand_over(&mut pool, &mut one, 1, 700);
    hand_over(&mut pool, &mut other, 2, 100);
    for _ in 0..40 {
        let mut packet = pool.allocate().unwrap();
        assert!(packet.fill(&[FROM_PORT; 60]));
        port.inject(packet);
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let connections = Connections {
        ports: vec![Some(Box::new(port.clone()))],
        inboxes: vec![first, second],
        outboxes: Vec::new(),
        host: None,
    };
    let mut worker = Worker::new(Note(Arc::clone(&seen)), connections, WorkerCounters::new(1, 16), 32);
    let turn = |worker: &mut Worker<Note>| {
        let taken = worker.turn(Timestamp(0));
        let seen = core::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(seen.len(), taken);
        let of = |from: u8| seen.iter().filter(|byte| **byte == from).count();
        let counts = [of(1), of(2), of(FROM_PORT)];
        let first_of_port = seen.iter().position(|byte| *byte == FROM_PORT).unwrap_or(taken);
        assert!(seen[first_of_port..].iter().all(|byte| *byte == FROM_PORT), "others' go first");
        counts
    };
    assert_eq!(turn(&mut worker), [512, 0, 32]);
    // The next turn begins with the other inbox.
    assert_eq!(turn(&mut worker), [188, 100, 8]);
    assert_eq!(turn(&mut worker), [0, 0, 0]);
    let accounts = worker.counters().account_values();
    assert_eq!((accounts[Account::Received as usize], accounts[Account::HandedIn as usize]), (40, 800));
    assert!(is_balanced(&accounts), "{accounts:?}");
}
