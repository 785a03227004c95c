//! Packets in and out: net_null hands out empty buffers, so they are filled here; what is sent is counted and looked at.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use capsule::batch::{PacketRx, PacketTx};
use capsule::packets::{Ethernet, Packet};
use capsule::{Mbuf, PortQueue};

/// Packets received so far. Written by the one worker.
pub static COUNTED: AtomicU64 = AtomicU64::new(0);
/// Packets sent that were looked at and found translated as they must be.
pub static CHECKED: AtomicU64 = AtomicU64::new(0);

/// Bytes of an Ethernet frame without its check sequence: 64 with it.
const FRAME_LENGTH: usize = 60;
type Frame = [u8; FRAME_LENGTH];

/// Backends of each service, 172.30.9.2 and up, as Pollgate's own benchmarks have them.
pub const BACKENDS: u32 = 48;
pub const FIRST_BACKEND: u32 = 0xac1e_0902;
pub const BACKEND_PORT: u16 = 8080;
/// Services: 10.254.128.0 and up, port 80.
pub const FIRST_SERVICE: u32 = 0x0afe_8000;

/// The processor's time-stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it, and it only reads.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// One frame a flow, in an order that no prefetcher guesses.
#[derive(Clone)]
pub struct Frames(Arc<Vec<Frame>>);

impl Frames {
    pub fn new(flows: usize, services: usize) -> Self {
        let frame = |flow: usize| {
            // An odd multiplier shuffles within a power of two.
            let number = flow.wrapping_mul(0x9e37_79b1) % flows.next_power_of_two();
            let source = 0xac1e_0a00 + (number >> 14) as u32;
            let service = FIRST_SERVICE + (number % services) as u32;
            udp(source, 1_024 + (number & 0x3fff) as u16, service)
        };
        Self(Arc::new((0..flows).map(frame).collect()))
    }
}

/// A datagram to port 80 of a service.
fn udp(source: u32, source_port: u16, service: u32) -> Frame {
    let mut frame = [0x5a; FRAME_LENGTH];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0x12, 0x34, 0x40, 0, 64, 17]);
    frame[24..26].fill(0);
    frame[26..30].copy_from_slice(&source.to_be_bytes());
    frame[30..34].copy_from_slice(&service.to_be_bytes());
    frame[34..36].copy_from_slice(&source_port.to_be_bytes());
    frame[36..42].copy_from_slice(&[0, 80, 0, 26, 0, 0]);
    let header = !sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let datagram = !datagram_sum(&frame);
    frame[40..42].copy_from_slice(&datagram.to_be_bytes());
    frame
}

/// RFC 1071.
fn sum(bytes: &[u8], initial: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut total = words.sum::<u32>() + initial;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Of the UDP datagram in a frame and its pseudo-header (RFC 768).
fn datagram_sum(frame: &[u8]) -> u16 {
    sum(&frame[34..], u32::from(sum(&frame[26..34], 17 + (frame.len() - 34) as u32)))
}

/// Whether a frame is one of ours, sent on to a backend with checksums that are right.
fn is_translated(frame: &[u8]) -> bool {
    let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    frame.len() == FRAME_LENGTH
        && frame[22] == 63
        && sum(&frame[14..34], 0) == 0xffff
        && datagram_sum(frame) == 0xffff
        && (FIRST_BACKEND..FIRST_BACKEND + BACKENDS).contains(&word(30))
        && frame[36..38] == BACKEND_PORT.to_be_bytes()
}

/// Counts what is received.
pub struct Counted<Rx>(pub Rx);

impl<Rx: PacketRx> PacketRx for Counted<Rx> {
    fn receive(&mut self) -> Vec<Mbuf> {
        let packets = self.0.receive();
        // No other thread adds.
        COUNTED.store(COUNTED.load(Ordering::Relaxed) + packets.len() as u64, Ordering::Relaxed);
        packets
    }
}

/// Writes a flow's frame into each packet received, one flow after the other.
pub struct Filled {
    port: PortQueue,
    frames: Frames,
    next: usize,
}

impl Filled {
    pub fn new(port: PortQueue, frames: Frames) -> Self {
        Self { port, frames, next: 0 }
    }
}

impl PacketRx for Filled {
    fn receive(&mut self) -> Vec<Mbuf> {
        let mut packets = PacketRx::receive(&mut self.port);
        for packet in &mut packets {
            // net_null's packets have 64 bytes.
            let cut = packet.truncate(FRAME_LENGTH);
            let written = packet.write_data_slice(0, &self.frames.0[self.next]);
            assert!(cut.is_ok() && written.is_ok(), "a packet of net_null has room for a frame");
            self.next = if self.next + 1 < self.frames.0.len() { self.next + 1 } else { 0 };
        }
        packets
    }
}

/// Looks at the first packets that are sent.
pub struct Checked {
    port: PortQueue,
    left: usize,
}

impl Checked {
    pub fn new(port: PortQueue) -> Self {
        Self { port, left: 4_096 }
    }
}

impl PacketTx for Checked {
    fn transmit(&mut self, packets: Vec<Mbuf>) {
        for packet in packets.iter().take(self.left) {
            let bytes = packet.read_data_slice::<u8>(0, packet.data_len());
            // SAFETY: of the packet, which is not written while this reads.
            let good = bytes.is_ok_and(|bytes| is_translated(unsafe { bytes.as_ref() }));
            assert!(good, "a packet was not translated as it must be");
            CHECKED.fetch_add(1, Ordering::Relaxed);
        }
        self.left = self.left.saturating_sub(packets.len());
        PacketTx::transmit(&mut self.port, packets);
    }
}

/// Sends a packet back to whom it is from.
pub fn swap_addresses(packet: Mbuf) -> Result<Ethernet> {
    let mut ethernet = packet.parse::<Ethernet>()?;
    ethernet.swap_addresses();
    Ok(ethernet)
}

/// A backend of a service, by number.
pub fn backend(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_BACKEND + number % BACKENDS)
}
