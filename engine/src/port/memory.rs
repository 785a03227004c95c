//! A port in memory: what a test or a benchmark puts in is received, what is transmitted can be looked at.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::packet::Packet;
use crate::port::{BURST, Burst, PortQueue};

struct Queues {
    arriving: VecDeque<Packet>,
    transmitted: VecDeque<Packet>,
    transmit_capacity: Option<usize>,
}

impl Default for Queues {
    /// With room for a burst each way: who counts what a turn allocates must not find the port's own growth.
    fn default() -> Self {
        let queue = || VecDeque::with_capacity(BURST);
        Self { arriving: queue(), transmitted: queue(), transmit_capacity: None }
    }
}

/// Both ends of a port in memory. Clones share the queues.
#[derive(Clone, Default)]
pub struct MemoryPort {
    queues: Arc<Mutex<Queues>>,
}

impl MemoryPort {
    /// An empty port that takes any number of packets.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, work: impl FnOnce(&mut Queues) -> R) -> R {
        work(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets `packet` arrive.
    pub fn inject(&self, packet: Packet) {
        self.with(|queues| queues.arriving.push_back(packet));
    }

    /// The oldest packet that was transmitted and not taken yet.
    pub fn take_transmitted(&self) -> Option<Packet> {
        self.with(|queues| queues.transmitted.pop_front())
    }

    /// Lets the port refuse packets once `capacity` of them wait to be taken: a slow device.
    pub fn limit_transmit(&self, capacity: usize) {
        self.with(|queues| queues.transmit_capacity = Some(capacity));
    }
}

impl PortQueue for MemoryPort {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        self.with(|queues| {
            let count = limit.min(BURST - burst.len()).min(queues.arriving.len());
            burst.extend(queues.arriving.drain(..count));
        });
    }

    fn transmit(&mut self, burst: &mut Burst) {
        self.with(|queues| {
            let room = queues
                .transmit_capacity
                .map_or(usize::MAX, |capacity| capacity.saturating_sub(queues.transmitted.len()));
            let count = room.min(burst.len());
            queues.transmitted.extend(burst.drain(..count));
        });
    }
}
