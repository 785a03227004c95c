//! A batch: the packets that one call of the pipeline works on, with a disposition and typed metadata for each.
//!
//! Metadata lives here and not in the buffers: the same few kilobytes are used for every batch and stay in the
//! first-level cache, and a packet that changes worker is parsed anew by its new owner.

use arrayvec::ArrayVec;

use crate::packet::Packet;

/// Packets that a batch takes from its inputs at the most.
pub const BATCH_CAPACITY: usize = 64;
/// Packets that a pipeline may add to a batch (copies of floods, originated packets) at the most.
pub const ADDED_CAPACITY: usize = 256;

/// A port's number: its place in the configuration.
pub type PortId = u16;
/// A worker's number, from 0.
pub type WorkerId = u8;

/// What becomes of a packet. Every packet has left `Pending` when a pipeline returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Not decided yet.
    Pending,
    /// Leaves by this port.
    Transmit(PortId),
    /// Goes to another worker's ring. `visit` travels with it and has the pipeline's meaning.
    HandOff {
        /// The worker that takes it.
        worker: WorkerId,
        /// What the pipeline wants to know on arrival.
        visit: u8,
    },
    /// Goes to the host's own stack.
    Host,
    /// Ends here: it did its work (learned from, answered).
    Consume,
    /// Kept by the pipeline, which has taken it out of the batch.
    Hold,
    /// Ends here for a reason, the pipeline's or the engine's code.
    Drop(u16),
}

/// Packets, their dispositions and their metadata.
pub struct Batch<M> {
    packets: [Option<Packet>; BATCH_CAPACITY],
    /// What becomes of each packet; `Pending` at first.
    pub dispositions: [Disposition; BATCH_CAPACITY],
    /// The pipeline's metadata of each packet.
    pub meta: [M; BATCH_CAPACITY],
    /// What came with each packet from another worker's ring; 0 from a port.
    pub visits: [u8; BATCH_CAPACITY],
    length: usize,
    /// Packets that the pipeline added, and where they go.
    pub added: ArrayVec<(Packet, Disposition), ADDED_CAPACITY>,
}

impl<M: Copy + Default> Batch<M> {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            packets: [const { None }; BATCH_CAPACITY],
            dispositions: [Disposition::Pending; BATCH_CAPACITY],
            meta: [M::default(); BATCH_CAPACITY],
            visits: [0; BATCH_CAPACITY],
            length: 0,
            added: ArrayVec::new(),
        }
    }

    /// Packets in the batch, the added ones aside.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // The bound is an invariant of push(); said here it lets the optimiser drop checks of indices below it.
        self.length.min(BATCH_CAPACITY)
    }

    /// Whether nothing is in the batch.
    pub fn is_empty(&self) -> bool {
        self.length == 0 && self.added.is_empty()
    }

    /// Places left.
    #[inline(always)]
    pub fn room(&self) -> usize {
        BATCH_CAPACITY - self.len()
    }

    /// Adds a packet, or gives it back when the batch is full.
    #[inline(always)]
    pub fn push(&mut self, packet: Packet, visit: u8) -> Result<(), Packet> {
        let index = self.length;
        if index >= BATCH_CAPACITY {
            return Err(packet);
        }
        self.packets[index] = Some(packet);
        self.dispositions[index] = Disposition::Pending;
        self.visits[index] = visit;
        self.length = index + 1;
        Ok(())
    }

    /// Whether the packet at `index` is still to be decided.
    #[inline(always)]
    pub fn is_pending(&self, index: usize) -> bool {
        matches!(self.dispositions[index], Disposition::Pending)
    }

    /// The packet at `index`; none where it has been taken out.
    #[inline(always)]
    pub fn packet(&self, index: usize) -> Option<&Packet> {
        self.packets[index].as_ref()
    }

    /// The packet at `index`, to write.
    #[inline(always)]
    pub fn packet_mut(&mut self, index: usize) -> Option<&mut Packet> {
        self.packets[index].as_mut()
    }

    /// The packet at `index` and its metadata, to write both.
    #[inline(always)]
    pub fn parts_mut(&mut self, index: usize) -> Option<(&mut Packet, &mut M, &mut Disposition)> {
        let packet = self.packets[index].as_mut()?;
        Some((packet, &mut self.meta[index], &mut self.dispositions[index]))
    }

    /// Takes the packet at `index` out.
    #[inline(always)]
    pub fn take(&mut self, index: usize) -> Option<Packet> {
        self.packets[index].take()
    }

    /// Forgets what is left (packets still inside go back to their pools) and starts over.
    #[inline(always)]
    pub fn clear(&mut self) {
        for slot in &mut self.packets[..self.length.min(BATCH_CAPACITY)] {
            *slot = None;
        }
        self.length = 0;
        self.added.clear();
    }
}

impl<M: Copy + Default> Default for Batch<M> {
    fn default() -> Self {
        Self::new()
    }
}
