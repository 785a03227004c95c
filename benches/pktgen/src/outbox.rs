//! Packets on their way out, and buffers for more of them.

use std::collections::VecDeque;

use engine::packet::Packet;
use engine::pool::PacketSource;
use engine::port::{BURST, Burst, PortQueue};

/// Buffers that are kept for the next packets instead of going back to their pool.
const SPARE_MAX: usize = 1_024;
/// Packets of a port that wait for its transmit queue; with more than that waiting, nothing is received.
pub const BACKLOG_MAX: usize = 256;

/// A queue for each port, and spare buffers.
///
/// A packet that came back is a buffer for the next one: in the steady state no pool is asked, so the generator costs
/// the same over all kinds of ports.
pub struct Outbox {
    queues: Vec<VecDeque<Packet>>,
    spare: Vec<Packet>,
    source: Box<dyn PacketSource + Send>,
}

impl Outbox {
    /// For this many ports; buffers come from `source`.
    pub fn new(ports: usize, source: Box<dyn PacketSource + Send>) -> Self {
        let queue = || VecDeque::with_capacity(2 * BACKLOG_MAX);
        Self { queues: (0..ports).map(|_| queue()).collect(), spare: Vec::with_capacity(SPARE_MAX), source }
    }

    /// A buffer; none when all are out.
    #[inline(always)]
    pub fn buffer(&mut self) -> Option<Packet> {
        self.spare.pop().or_else(|| self.source.allocate())
    }

    /// Takes a buffer that nobody needs any more.
    #[inline(always)]
    pub fn recycle(&mut self, packet: Packet) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(packet);
        }
    }

    /// Puts a packet behind those that leave by this port.
    #[inline(always)]
    pub fn push(&mut self, port: u16, packet: Packet) {
        if let Some(queue) = self.queues.get_mut(usize::from(port)) {
            queue.push_back(packet);
        }
    }

    /// Packets that wait for this port.
    #[inline(always)]
    pub fn backlog(&self, port: u16) -> usize {
        self.queues.get(usize::from(port)).map_or(0, VecDeque::len)
    }

    /// Hands the ports as much as they take. What they refuse waits, in order.
    pub fn flush(&mut self, ports: &mut [Box<dyn PortQueue>]) {
        for (queue, port) in self.queues.iter_mut().zip(ports) {
            while !queue.is_empty() {
                let count = queue.len().min(BURST);
                let mut burst: Burst = queue.drain(..count).collect();
                port.transmit(&mut burst);
                if !burst.is_empty() {
                    while let Some(packet) = burst.pop() {
                        queue.push_front(packet);
                    }
                    break;
                }
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Gives all buffers back to their pools, those that wait to be sent as well.
    pub fn clear(&mut self) {
        self.spare.clear();
        self.queues.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::pool::MemoryPool;
    use engine::port::memory::MemoryPort;

    #[test]
    fn what_a_port_refuses_waits_in_order() {
        let mut pool = MemoryPool::new(256);
        let port = MemoryPort::new();
        port.limit_transmit(40);
        let mut ports: Vec<Box<dyn PortQueue>> = vec![Box::new(port.clone())];
        let mut outbox = Outbox::new(1, Box::new(pool.clone()));
        for number in 0..100 {
            outbox.push(0, pool.packet(0, &[number]).unwrap());
        }
        outbox.flush(&mut ports);
        assert_eq!((outbox.backlog(0), outbox.is_empty()), (60, false));
        let mut seen = Vec::new();
        while !outbox.is_empty() {
            seen.extend(std::iter::from_fn(|| port.take_transmitted()).map(|packet| packet.data()[0]));
            outbox.flush(&mut ports);
        }
        seen.extend(std::iter::from_fn(|| port.take_transmitted()).map(|packet| packet.data()[0]));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn buffers_go_round_and_back() {
        let pool = MemoryPool::new(2);
        let mut outbox = Outbox::new(1, Box::new(pool.clone()));
        let (first, second) = (outbox.buffer().unwrap(), outbox.buffer().unwrap());
        assert!(outbox.buffer().is_none());
        outbox.recycle(first);
        assert!(outbox.buffer().is_some());
        outbox.push(0, second);
        outbox.clear();
        assert_eq!(pool.in_use(), 0);
    }
}
