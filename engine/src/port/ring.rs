//! Two ports joined by rings in one process: what one end transmits the other receives, and the buffers change hands
//! without a copy. The shortest way between two pipelines on two cores.
//!
//! **Invariant:** each direction is one bounded ring with one writer and one reader. What does not fit stays with who
//! transmits it, as with a device's full queue.

use crate::packet::Packet;
use crate::port::{BURST, Burst, PortQueue};
use crate::ring::{Consumer, Producer, ring};

/// One end of the pair.
pub struct RingPort {
    number: u16,
    arriving: Consumer<Packet>,
    leaving: Producer<Packet>,
}

impl RingPort {
    /// Both ends of a link that holds `capacity` packets in each direction (rounded up to a power of two), with the
    /// numbers that packets carry which are received there.
    pub fn pair(capacity: usize, numbers: (u16, u16)) -> (Self, Self) {
        let (to_second, from_first) = ring(capacity);
        let (to_first, from_second) = ring(capacity);
        (
            Self { number: numbers.0, arriving: from_second, leaving: to_second },
            Self { number: numbers.1, arriving: from_first, leaving: to_first },
        )
    }
}

impl PortQueue for RingPort {
    #[inline]
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        let (number, held) = (self.number, burst.len());
        self.arriving.pop_batch(limit.min(BURST - held), |packet| burst.push(packet));
        // The other core wrote the headers last: asked for all at once, they come while the first is waited for.
        for packet in &burst[held..] {
            packet.prefetch_header();
        }
        for packet in &mut burst[held..] {
            packet.set_port(number);
        }
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Burst) {
        self.leaving.push_batch(burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MemoryPool;

    #[test]
    fn what_one_end_sends_the_other_gets_and_a_full_link_refuses() {
        let mut pool = MemoryPool::new(64);
        let (mut near, mut far) = RingPort::pair(4, (1, 2));
        let mut burst: Burst = (0..6).filter_map(|number| pool.packet(9, &[number])).collect();
        near.transmit(&mut burst);
        assert_eq!(burst.len(), 2);
        let mut received = Burst::new();
        far.receive(&mut received, 3);
        far.receive(&mut received, BURST);
        let seen: Vec<_> = received.iter().map(|packet| (packet.port(), packet.data()[0])).collect();
        assert_eq!(seen, [(2, 0), (2, 1), (2, 2), (2, 3)]);
        far.transmit(&mut received);
        near.receive(&mut burst, BURST);
        assert_eq!((burst.len(), burst[2].port(), received.len()), (6, 1, 0));
        drop((near, far, burst));
        assert_eq!(pool.in_use(), 0);
    }
}
