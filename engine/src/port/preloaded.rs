//! A port that receives the same frames over and over, from memory, and takes back what is transmitted: what a pipeline
//! costs without a device.

use std::sync::Arc;

use crate::packet::Packet;
use crate::pool::{MemoryPool, PacketSource};
use crate::port::{BURST, Burst, PortQueue};

/// Changes a frame on its way in; gets the running number of the packet.
pub type Alter = fn(&mut [u8], u64);

/// One worker's queue of such a port.
pub struct PreloadedPort {
    frames: Arc<Vec<Vec<u8>>>,
    number: u16,
    next: usize,
    repeat_from: usize,
    count: u64,
    free: Vec<Packet>,
    alter: Option<Alter>,
    burst: usize,
}

impl PreloadedPort {
    /// A port that receives `frames` in order, for ever, `burst` at a time, in buffers of `pool`.
    pub fn new(number: u16, frames: Arc<Vec<Vec<u8>>>, burst: usize, pool: &mut MemoryPool) -> Self {
        let free = std::iter::from_fn(|| pool.allocate()).take(BURST * 4).collect();
        Self {
            frames,
            number,
            next: 0,
            repeat_from: 0,
            count: 0,
            free,
            alter: None,
            burst: burst.clamp(1, BURST),
        }
    }

    /// Lets the frames before this one be received once only.
    #[must_use]
    pub fn repeating_from(mut self, frame: usize) -> Self {
        self.repeat_from = frame;
        self
    }

    /// Lets every frame be changed on its way in.
    #[must_use]
    pub fn altered(mut self, alter: Alter) -> Self {
        self.alter = Some(alter);
        self
    }
}

impl PortQueue for PreloadedPort {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        for _ in 0..self.burst.min(limit).min(burst.remaining_capacity()) {
            let (Some(frame), Some(mut packet)) = (self.frames.get(self.next), self.free.pop()) else {
                return;
            };
            self.next = if self.next + 1 < self.frames.len() { self.next + 1 } else { self.repeat_from };
            packet.set_port(self.number);
            if packet.fill(frame) {
                if let Some(alter) = self.alter {
                    alter(packet.data_mut(), self.count);
                }
                self.count += 1;
                burst.push(packet);
            }
        }
    }

    fn transmit(&mut self, burst: &mut Burst) {
        self.free.extend(burst.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_round_and_buffers_are_used_again() {
        let mut pool = MemoryPool::new(256);
        let frames = Arc::new(vec![vec![1], vec![2], vec![3]]);
        let mut port = PreloadedPort::new(4, frames, 2, &mut pool)
            .altered(|bytes, count| bytes[0] = bytes[0].wrapping_add(count as u8));
        let mut seen = Vec::new();
        for _ in 0..300 {
            let mut burst = Burst::new();
            port.receive(&mut burst, BURST);
            seen.extend(burst.iter().map(|packet| (packet.data()[0], packet.port())));
            port.transmit(&mut burst);
        }
        assert_eq!(seen.len(), 600);
        assert_eq!(&seen[..5], [(1, 4), (3, 4), (5, 4), (4, 4), (6, 4)]);
    }
}
