//! Packets that wait for their next hop's MAC: a bounded list, each packet for a bounded time.
//!
//! A packet waits as it arrived, not yet rewritten, and starts over when its next hop is known. These are the packets
//! that count as held.
//!
//! **Invariant:** packets of one worker to one next hop leave in the order that they came: while any waits, later ones
//! wait behind it, also when the next hop is known by then.

use arrayvec::ArrayVec;
use engine::batch::{Batch, Disposition};
use engine::clock::Timestamp;
use engine::packet::Packet;

use crate::drop_reason::DropReason;
use crate::meta::Meta;
use crate::neighbour_machine::{RETRY_MS, TRIES};
use crate::table::interface::InterfaceId;
use crate::table::neighbour::Neighbours;

/// Packets that wait at the most.
pub const WAITING_MAX: usize = 256;
/// Packets that wait for one next hop at the most.
pub const WAITING_PER_HOP: usize = 32;
/// How long: until the next hop has been given up.
const PATIENCE_MS: u32 = RETRY_MS * TRIES as u32;

struct Waiter {
    packet: Packet,
    interface: InterfaceId,
    next_hop: u32,
    visit: u8,
    since_ms: u32,
}

/// The list of one worker.
#[derive(Default)]
pub struct Waiting {
    list: ArrayVec<Waiter, WAITING_MAX>,
    looked_ms: u32,
    /// Packets at the front of the batch that have waited.
    resumed: usize,
}

impl Waiting {
    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the packet at this place of the batch has waited, and so has been looked at before.
    #[inline(always)]
    pub fn has_waited(&self, index: usize) -> bool {
        index < self.resumed
    }

    /// Whether the packet at this place of the batch would overtake one that waits for the same next hop.
    #[inline(always)]
    pub fn would_overtake(&self, index: usize, interface: InterfaceId, next_hop: u32) -> bool {
        !self.list.is_empty()
            && !self.has_waited(index)
            && self.list.iter().any(|waiter| waiter.interface == interface && waiter.next_hop == next_hop)
    }

    /// The batch has been worked through.
    pub fn settle(&mut self) {
        self.resumed = 0;
    }

    /// Whether one more may wait for this next hop.
    pub fn has_place(&self, interface: InterfaceId, next_hop: u32) -> bool {
        let same = |waiter: &&Waiter| waiter.interface == interface && waiter.next_hop == next_hop;
        !self.list.is_full() && self.list.iter().filter(same).count() < WAITING_PER_HOP
    }

    /// Lets a packet wait, for which there is a place.
    pub fn hold(&mut self, packet: Packet, visit: u8, interface: InterfaceId, next_hop: u32, now: Timestamp) {
        debug_assert!(self.has_place(interface, next_hop));
        self.list.push(Waiter { packet, interface, next_hop, visit, since_ms: now.millis() });
    }

    /// Moves packets whose next hop is known into the batch, in the order that they came, and drops those that have
    /// waited too long. Looks at the most once a millisecond. The batch is empty before.
    pub fn resume(&mut self, batch: &mut Batch<Meta>, neighbours: &Neighbours, now: Timestamp) {
        let now_ms = now.millis();
        if self.list.is_empty() || now_ms == self.looked_ms {
            return;
        }
        self.looked_ms = now_ms;
        let mut kept = ArrayVec::<Waiter, WAITING_MAX>::new();
        for waiter in self.list.drain(..) {
            let record = neighbours.find(waiter.interface, waiter.next_hop);
            let is_known =
                record.and_then(|record| neighbours.read(record)).is_some_and(|record| record.is_usable());
            if is_known && batch.room() > 0 {
                // There is room, so the batch takes it.
                let _ = batch.push(waiter.packet, waiter.visit);
            } else if now_ms.wrapping_sub(waiter.since_ms) > PATIENCE_MS && !batch.added.is_full() {
                let reason = Disposition::Drop(DropReason::NeighbourUnresolved.code());
                batch.added.push((waiter.packet, reason));
            } else {
                kept.push(waiter);
            }
        }
        self.list = kept;
        self.resumed = batch.len();
    }
}
