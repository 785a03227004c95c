//! Ports: where packets come in and leave. Each is used by one worker through one receive and one transmit queue.

pub mod device;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod pcap;
pub mod preloaded;
pub mod ring;

use arrayvec::ArrayVec;

use crate::packet::Packet;

/// Packets that one call receives or transmits at the most.
pub const BURST: usize = 32;
/// Packets on their way through a port in one call.
pub type Burst = ArrayVec<Packet, BURST>;

/// One worker's pair of queues of a port.
pub trait PortQueue: Send {
    /// Adds the packets that have arrived, `limit` at the most and as many as `burst` has room for, each marked with
    /// the port's number.
    fn receive(&mut self, burst: &mut Burst, limit: usize);

    /// Hands packets to the port. What it does not take stays in `burst`, in order.
    fn transmit(&mut self, burst: &mut Burst);
}
