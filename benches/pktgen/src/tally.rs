//! What one trial counts.

use engine::packet::Packet;

use crate::fault::{Fault, Faults};
use crate::latency::Histogram;
use crate::tag::Direction;

/// Packets and bytes one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Packets sent.
    pub sent: u64,
    /// Their bytes, from the outermost Ethernet header on, without check sequences.
    pub sent_bytes: u64,
    /// Packets that came, each counted once, whatever else was wrong with them.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

impl Way {
    /// Packets that did not come.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// A SYN was sent.
    pub opened: u64,
    /// The handshake came to its end.
    pub established: u64,
    /// All segments of both sides came.
    pub completed: u64,
    /// Given up: a segment did not come in time.
    pub failed: u64,
}

/// All counts.
#[derive(Clone, Default)]
pub struct Tally {
    /// From clients to backends.
    pub requests: Way,
    /// From backends to clients.
    pub replies: Way,
    /// What was wrong.
    pub faults: Faults,
    /// From a packet's making to its return, both ways.
    pub latency: Histogram,
    /// TCP's connections.
    pub connections: ConnectionCounts,
    /// Resets that the gateway sent.
    pub resets: u64,
    /// ICMP messages.
    pub icmp: u64,
    /// ARP requests that were answered.
    pub arp: u64,
    /// Other packets that are no traffic of ours.
    pub other: u64,
}

impl Tally {
    /// Of one way.
    #[inline(always)]
    pub fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Request => &mut self.requests,
            Direction::Reply => &mut self.replies,
        }
    }

    /// Counts a packet that is sent.
    #[inline(always)]
    pub fn sent(&mut self, direction: Direction, bytes: usize) {
        let way = self.way(direction);
        way.sent += 1;
        way.sent_bytes += bytes as u64;
    }

    /// Counts a packet that came.
    #[inline(always)]
    pub fn received(&mut self, direction: Direction, bytes: usize) {
        let way = self.way(direction);
        way.received += 1;
        way.received_bytes += bytes as u64;
    }

    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault, packet: &Packet) {
        self.faults.add(fault, packet);
    }

    /// Packets sent both ways.
    pub fn sent_packets(&self) -> u64 {
        self.requests.sent + self.replies.sent
    }

    /// Packets that came, both ways.
    pub fn received_packets(&self) -> u64 {
        self.requests.received + self.replies.received
    }

    /// Packets that did not come, both ways.
    pub fn lost_packets(&self) -> u64 {
        self.requests.lost() + self.replies.lost()
    }
}
