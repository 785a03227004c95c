//! Next hops: what is known of each, and the header that packets to it get.
//!
//! One record of two cache lines for each (interface, next hop address), shared by all workers and written by the
//! neighbour machine alone. Flows remember a record's number and epoch, so an established flow finds its outer headers
//! without looking anything up; when a record comes to mean something else its epoch changes and flows look again.
//! When only its content changes (a new MAC, another port) it changes in place and flows notice nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::batch::PortId;
use engine::table::atomic_map::AtomicMap;
use engine::table::seqlock::{SeqlockArray, WORDS};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::interface::InterfaceId;

/// Records at the most.
pub const NEIGHBOURS_MAX: usize = 16_384;
/// The record of the host's own stack.
pub const HOST_ADJACENCY: u32 = 0;
/// Bytes of the longest header: Ethernet, IPv4, UDP, VXLAN, inner Ethernet.
pub const TEMPLATE_LENGTH: usize = 64;

/// No such next hop.
pub const KIND_FREE: u8 = 0;
/// Asked for, not answered yet.
pub const KIND_INCOMPLETE: u8 = 1;
/// An Ethernet header in front leads there.
pub const KIND_ETHERNET: u8 = 2;
/// A VXLAN tunnel leads there.
pub const KIND_VXLAN: u8 = 3;
/// The host's own stack.
pub const KIND_HOST: u8 = 4;

/// A next hop, as the data path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Adjacency {
    /// Changes when the record comes to mean something else.
    pub epoch: u32,
    /// `KIND_*`.
    pub kind: u8,
    /// Interface that it is on.
    pub interface: InterfaceId,
    /// Port that packets leave by.
    pub port: PortId,
    /// Largest IP packet that it takes, in bytes.
    pub mtu: u16,
    /// Bytes of `template` that go in front of the IP packet.
    pub header_length: u16,
    /// The next hop's address in host order.
    pub address: u32,
    /// Of a tunnel: the other end, in host order.
    pub remote: u32,
    /// Of a tunnel: sum of the outer IPv4 header with length and identification zero.
    pub outer_sum: u32,
    /// Of a tunnel: whether outer UDP checksums are sent.
    pub udp_checksum: u8,
    /// Zero.
    pub reserved: [u8; 31],
    /// Headers, all but what depends on the packet.
    pub template: [u8; TEMPLATE_LENGTH],
}

const _: () =
    assert!(size_of::<Adjacency>() == WORDS * 8 && core::mem::offset_of!(Adjacency, template) == 56);

impl Adjacency {
    /// A record without content.
    pub const FREE: Self = Self {
        epoch: 0,
        kind: KIND_FREE,
        interface: 0,
        port: 0,
        mtu: 0,
        header_length: 0,
        address: 0,
        remote: 0,
        outer_sum: 0,
        udp_checksum: 0,
        reserved: [0; 31],
        template: [0; TEMPLATE_LENGTH],
    };

    /// Whether packets can leave by it.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        self.kind >= KIND_ETHERNET
    }
}

/// All next hops. Read by every worker, written by the neighbour machine.
pub struct Neighbours {
    index: AtomicMap,
    records: SeqlockArray,
    /// Tables that the records' epochs speak of. Written by the neighbour machine, before it draws new ones.
    generation: AtomicU64,
}

impl Neighbours {
    /// Room for `capacity` next hops besides the host.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(8, NEIGHBOURS_MAX);
        Self {
            index: AtomicMap::new(capacity * 2),
            records: SeqlockArray::new(capacity + 1),
            generation: AtomicU64::new(0),
        }
    }

    /// Records, the host's included.
    pub fn capacity(&self) -> usize {
        self.records.len()
    }

    #[inline(always)]
    fn key(interface: InterfaceId, address: u32) -> u64 {
        (u64::from(interface) + 1) << 32 | u64::from(address)
    }

    /// The record for a next hop, if there is one.
    #[inline]
    pub fn find(&self, interface: InterfaceId, address: u32) -> Option<u32> {
        self.index.find(Self::key(interface, address)).map(|(_, record)| record as u32)
    }

    /// Asks the cache for a record.
    #[inline(always)]
    pub fn prefetch(&self, record: u32) {
        self.records.prefetch(record as usize);
    }

    /// A record as of now.
    #[inline(always)]
    pub fn read(&self, record: u32) -> Option<Adjacency> {
        let words = self.records.read(record as usize)?;
        Some(zerocopy::transmute!(words))
    }

    /// All records in use with their numbers, the host's first. For looking at them: each is of one moment.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Adjacency)> + '_ {
        (0..self.records.len() as u32)
            .filter_map(|record| Some((record, self.read(record)?)))
            .filter(|(_, adjacency)| adjacency.kind != KIND_FREE)
    }

    /// A record's epoch as of now.
    #[inline(always)]
    pub fn epoch(&self, record: u32) -> u32 {
        // The first word of the record; little-endian puts the epoch in its low half.
        let bytes = self.records.word(record as usize, 0).to_ne_bytes();
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The tables that epochs read before this call speak of at the most. Whoever looked a route up in older ones must
    /// not remember the epoch: it says that the route was looked up in these.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says that epochs drawn from now on speak of these tables. For the neighbour machine alone.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Replaces a record. For the neighbour machine alone.
    pub fn write(&self, record: u32, adjacency: &Adjacency) {
        self.records.write(record as usize, &zerocopy::transmute!(*adjacency));
    }

    /// Lets a next hop be found. False if there is no place for it. For the neighbour machine alone.
    pub fn link(&self, interface: InterfaceId, address: u32, record: u32) -> bool {
        self.index.set(Self::key(interface, address), u64::from(record)).is_some()
    }

    /// Lets a next hop not be found any more. For the neighbour machine alone.
    pub fn unlink(&self, interface: InterfaceId, address: u32) {
        self.index.remove(Self::key(interface, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_comes_back_as_written() {
        let neighbours = Neighbours::new(8);
        let adjacency = Adjacency {
            epoch: 7,
            kind: KIND_VXLAN,
            port: 3,
            template: core::array::from_fn(|byte| byte as u8),
            ..Adjacency::FREE
        };
        neighbours.write(2, &adjacency);
        assert!(neighbours.link(1, 0x0a00_0001, 2));
        let record = neighbours.find(1, 0x0a00_0001).unwrap();
        assert_eq!((neighbours.read(record), neighbours.epoch(record)), (Some(adjacency), 7));
        neighbours.unlink(1, 0x0a00_0001);
        assert_eq!(neighbours.find(1, 0x0a00_0001), None);
        assert!(neighbours.read(9).is_none());
    }
}
