//! Several queues of one device as one port: what arrives at any of them is received, all is sent by the first.
//!
//! A peer may choose the queue that it sends by: Open vSwitch's forwarding thread sends by its second.

use engine::port::{BURST, Burst, PortQueue};

/// The queues.
pub(super) struct Queues<Q> {
    queues: Vec<Q>,
    /// Which is asked first next time, so that none starves the others.
    next: usize,
}

impl<Q: PortQueue> Queues<Q> {
    /// These queues as one port.
    pub(super) fn new(queues: Vec<Q>) -> Self {
        Self { queues, next: 0 }
    }
}

impl<Q: PortQueue> PortQueue for Queues<Q> {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        let limit = limit.min(BURST);
        for step in 0..self.queues.len() {
            let place = (self.next + step) % self.queues.len();
            if burst.len() < limit {
                self.queues[place].receive(burst, limit - burst.len());
            }
        }
        self.next = (self.next + 1) % self.queues.len().max(1);
    }

    fn transmit(&mut self, burst: &mut Burst) {
        if let Some(first) = self.queues.first_mut() {
            first.transmit(burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::pool::MemoryPool;
    use engine::port::memory::MemoryPort;

    #[test]
    fn all_queues_are_received_from_in_turn_and_the_first_sends() {
        let mut pool = MemoryPool::new(256);
        let ports = [MemoryPort::new(), MemoryPort::new()];
        let mut queues = Queues::new(ports.to_vec());
        for number in 0..40 {
            for (place, port) in ports.iter().enumerate() {
                port.inject(pool.packet(place as u16, &[number]).unwrap());
            }
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut burst = Burst::new();
            queues.receive(&mut burst, BURST);
            assert!(burst.len() <= BURST);
            seen.extend(burst.iter().map(|packet| packet.port()));
            queues.transmit(&mut burst);
        }
        assert_eq!(seen.len(), 80);
        assert_eq!(seen.iter().filter(|port| **port == 1).count(), 40);
        assert_eq!(std::iter::from_fn(|| ports[0].take_transmitted()).count(), 80);
        assert!(ports[1].take_transmitted().is_none());
    }
}
