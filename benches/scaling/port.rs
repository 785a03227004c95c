//! The port that hands out frames as fast as they are taken, and takes back what is transmitted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use engine::packet::Packet;
use engine::pool::{MemoryPool, PacketSource};
use engine::port::{Burst, PortQueue};

use crate::traffic::Traffic;

/// Packets a burst, as in the other benchmarks.
pub(crate) const PACKETS: usize = 32;
/// Buffers that a port keeps for itself at the most, and how many it gives away or takes at once: as a mempool's cache of
/// one core (rte_mempool.h, `rte_mempool_create`).
const KEPT: usize = 512;
const EXCHANGED: usize = 256;

/// Buffers that one worker has too many of: packets that were handed on end at another worker than they began at.
#[derive(Default)]
pub(crate) struct Depot {
    packets: Mutex<Vec<Packet>>,
    /// So that whoever waits for buffers need not lock.
    count: AtomicUsize,
}

/// One worker's queue of such a port.
pub(crate) struct TrafficPort<T> {
    number: u16,
    traffic: T,
    free: Vec<Packet>,
    depot: Arc<Depot>,
    pool: MemoryPool,
    is_open: Arc<AtomicBool>,
}

impl<T: Traffic> TrafficPort<T> {
    /// A port of this number with `buffers` buffers of its own.
    pub(crate) fn new(number: u16, traffic: T, buffers: usize, depot: &Arc<Depot>) -> Self {
        Self {
            number,
            traffic,
            free: Vec::with_capacity(KEPT + PACKETS),
            depot: Arc::clone(depot),
            pool: MemoryPool::new(buffers),
            is_open: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The switch that ends what arrives.
    pub(crate) fn switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_open)
    }

    /// Buffers that others left over, or new ones of the pool: at the start, and after drops, which go home to it.
    #[cold]
    fn refill(&mut self) {
        if self.depot.count.load(Ordering::Relaxed) > 0 {
            let mut packets = self.depot.packets.lock().expect("no port has panicked");
            let from = packets.len().saturating_sub(EXCHANGED);
            self.free.extend(packets.drain(from..));
            self.depot.count.store(from, Ordering::Relaxed);
        }
        if self.free.is_empty() {
            let pool = &mut self.pool;
            self.free.extend(std::iter::from_fn(|| pool.allocate()).take(PACKETS));
        }
    }

    #[cold]
    fn give_away(&mut self) {
        let mut packets = self.depot.packets.lock().expect("no port has panicked");
        // The oldest ones: the last ones are still in this core's cache.
        packets.extend(self.free.drain(..EXCHANGED));
        self.depot.count.store(packets.len(), Ordering::Relaxed);
    }
}

impl<T: Traffic> PortQueue for TrafficPort<T> {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        if self.free.len() < PACKETS {
            self.refill();
        }
        for _ in 0..PACKETS.min(limit).min(burst.remaining_capacity()) {
            let Some(mut packet) = self.free.pop() else { return };
            if !self.traffic.next(&mut packet) {
                self.free.push(packet);
                return;
            }
            packet.set_port(self.number);
            burst.push(packet);
        }
    }

    fn transmit(&mut self, burst: &mut Burst) {
        self.free.extend(burst.drain(..));
        if self.free.len() > KEPT {
            self.give_away();
        }
    }
}
