//! From a flow entry to the way out: the next hop, the hop limit and size checks, and apply.

use engine::batch::{Disposition, WorkerId};
use engine::counters::Account;
use engine::packet::Packet;
use engine::table::flow::EntryId;
use engine::wire::ipv4::FLAG_DONT_FRAGMENT;

use super::{Core, Turn};
use crate::apply;
use crate::drop_reason::DropReason;
use crate::events::Events;
use crate::flow::{FLAG_ORIGINAL, FlowValue, NO_ADJACENCY, NO_BACKEND};
use crate::meta::{BRIDGED, Meta};
use crate::neighbour_machine::Event;
use crate::stage::reject::{self, IcmpError};
use crate::stage::{fdb_lookup, route_lookup};
use crate::table::interface::{HOST_INTERFACE, InterfaceId, InterfaceKind};
use crate::table::neighbour::{Adjacency, HOST_ADJACENCY, KIND_FREE, KIND_HOST, Neighbours};
use crate::table::{SlotCounter, Tables};

/// Why a next hop cannot be used now.
pub(crate) enum NotYet {
    /// It has been asked for: the packet may wait.
    Wait(InterfaceId, u32),
    /// There is none.
    Never(DropReason),
}

/// The next hop that the last packet used: packets of a batch often share theirs, and a record is read once for all.
pub(crate) struct Hop {
    record: u32,
    adjacency: Adjacency,
}

impl Hop {
    /// Nothing read yet.
    pub(crate) const NONE: Self = Self { record: NO_ADJACENCY, adjacency: Adjacency::FREE };

    /// Forgets what was read. At the start of each batch, so that no batch works with an older record than its tables.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        self.record = NO_ADJACENCY;
        self.adjacency.kind = KIND_FREE;
    }

    /// The record of a next hop that packets can leave by.
    pub(crate) fn to(interface: InterfaceId, next_hop: u32, neighbours: &Neighbours) -> Option<Self> {
        let record = neighbours.find(interface, next_hop)?;
        let hop = Self { record, adjacency: neighbours.read(record)? };
        // Between the two reads the record may have been freed and made another next hop's.
        hop.leads_to(interface, next_hop).then_some(hop)
    }

    /// Whether packets can leave by it to this next hop.
    #[inline(always)]
    pub(crate) fn leads_to(&self, interface: InterfaceId, next_hop: u32) -> bool {
        self.adjacency.is_usable()
            && (self.adjacency.interface, self.adjacency.address) == (interface, next_hop)
    }

    /// The record's number and epoch, for flows to remember.
    pub(crate) fn identity(&self) -> (u32, u32) {
        (self.record, self.adjacency.epoch)
    }

    /// Reads a record unless it is the last one.
    #[inline(always)]
    fn turn_to(&mut self, record: u32, neighbours: &Neighbours) {
        if self.record != record {
            self.record = record;
            self.adjacency = neighbours.read(record).unwrap_or(Adjacency::FREE);
        }
    }
}

/// Why a packet with a flow does not simply leave.
pub(crate) enum Obstacle {
    Bridge,
    Host,
    Overtakes(InterfaceId, u32),
    Unresolved,
    HopLimit,
    Size(u16),
}

/// The next running number for an outer header.
#[inline(always)]
pub(crate) fn draw(identification: &mut u16) -> u16 {
    let drawn = *identification;
    *identification = drawn.wrapping_add(1);
    drawn
}

/// Hop limit and size of a packet that is to leave by this next hop. Gives what the hop limit loses.
#[inline(always)]
pub(crate) fn check_limits(meta: &Meta, adjacency: &Adjacency) -> Result<u8, Obstacle> {
    // The host's own packets start here, and what is for it ends here: neither is a hop.
    let hop = u8::from(meta.interface != HOST_INTERFACE && adjacency.kind != KIND_HOST);
    if hop == 1 && meta.time_to_live <= 1 {
        return Err(Obstacle::HopLimit);
    }
    if meta.ip_length > adjacency.mtu {
        return Err(Obstacle::Size(adjacency.mtu));
    }
    Ok(hop)
}

/// The next hop towards an address, by route and neighbour tables.
pub(crate) fn find_next_hop(
    destination: u32,
    tables: &Tables,
    neighbours: &Neighbours,
) -> Result<(Adjacency, u32), NotYet> {
    let (interface, next_hop) =
        route_lookup::way_out(tables, destination).ok_or(NotYet::Never(DropReason::NoRoute))?;
    if interface == HOST_INTERFACE {
        let host = neighbours.read(HOST_ADJACENCY).filter(|_| tables.host_rate_pps > 0);
        return host
            .filter(Adjacency::is_usable)
            .map(|adjacency| (adjacency, HOST_ADJACENCY))
            .ok_or(NotYet::Never(DropReason::HostAbsent));
    }
    if let Some(hop) = Hop::to(interface, next_hop, neighbours) {
        return Ok((hop.adjacency, hop.record));
    }
    let is_overlay = matches!(tables.interface(interface).kind, InterfaceKind::Overlay { .. });
    if is_overlay && !tables.neighbours.contains_key(&(interface, next_hop)) {
        // Nobody answers ARP inside the tunnel: what flannel has not written is not there.
        return Err(NotYet::Never(DropReason::NeighbourUnresolved));
    }
    Err(NotYet::Wait(interface, next_hop))
}

impl Core {
    /// Sends a packet on as its flow entry says.
    #[inline(always)]
    pub(crate) fn forward(&mut self, turn: &mut Turn<'_>, index: usize, id: EntryId) {
        if let Err(obstacle) = self.try_forward(turn, index, id, false) {
            self.overcome(obstacle, turn, index, id, false);
        }
    }

    /// As [`Self::forward`], for a packet that the host's own stack may have if it is the host's.
    pub(crate) fn forward_admitted(&mut self, turn: &mut Turn<'_>, index: usize, id: EntryId) {
        if let Err(obstacle) = self.try_forward(turn, index, id, true) {
            self.overcome(obstacle, turn, index, id, true);
        }
    }

    /// The way of nearly all packets: next hop known, hop limit and size right. Changes nothing when it fails.
    #[inline(always)]
    fn try_forward(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        id: EntryId,
        admitted: bool,
    ) -> Result<(), Obstacle> {
        let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) else { return Ok(()) };
        let value = &self.flows.entry(id).value;
        if meta.has(BRIDGED) && value.new_destination == meta.key.destination {
            return Err(Obstacle::Bridge);
        }
        self.hop.turn_to(value.adjacency, &self.neighbours);
        let adjacency = &self.hop.adjacency;
        if adjacency.epoch != value.epoch || !adjacency.is_usable() {
            return Err(Obstacle::Unresolved);
        }
        if adjacency.kind == KIND_HOST && !admitted {
            return Err(Obstacle::Host);
        }
        if turn.waiting.would_overtake(index, adjacency.interface, adjacency.address) {
            return Err(Obstacle::Overtakes(adjacency.interface, adjacency.address));
        }
        let hop = check_limits(meta, adjacency)?;
        let identification = draw(&mut self.identification);
        apply::rewrite(packet, meta, value, hop);
        *disposition = leave(packet, meta, adjacency, identification);
        count_backend(value, meta, turn.tables, self.ownership.worker());
        Ok(())
    }

    #[cold]
    fn overcome(
        &mut self,
        obstacle: Obstacle,
        turn: &mut Turn<'_>,
        index: usize,
        id: EntryId,
        admitted: bool,
    ) {
        match obstacle {
            Obstacle::Bridge => {
                let value = self.flows.entry(id).value;
                self.bridge(turn, index, &value);
            }
            Obstacle::Host => match self.admit_later(id, &turn.batch.meta[index], turn.tables, turn.now) {
                Ok(()) => self.forward_admitted(turn, index, id),
                Err(reason) => turn.batch.dispositions[index] = Disposition::Drop(reason.code()),
            },
            Obstacle::Overtakes(interface, next_hop) => hold(turn, index, interface, next_hop),
            Obstacle::HopLimit | Obstacle::Size(_) => self.refuse_for(obstacle, turn, index),
            Obstacle::Unresolved => {
                let destination = self.flows.entry(id).value.new_destination;
                match self.next_hop(destination, turn.tables, turn.events) {
                    Ok((adjacency, record)) => {
                        // A worker in the middle of a batch may look up in older tables than the record's epoch
                        // speaks of: good for this packet, and the next one looks again.
                        let is_outdated = self.neighbours.generation() > turn.tables.generation;
                        let record = if is_outdated { NO_ADJACENCY } else { record };
                        let stored = self.flows.value_mut(id);
                        stored.adjacency = record;
                        stored.epoch = adjacency.epoch;
                        self.hop = Hop { record, adjacency };
                        // The record is usable now, so at the most another obstacle is left.
                        let again = if admitted { Self::forward_admitted } else { Self::forward };
                        again(self, turn, index, id);
                    }
                    Err(NotYet::Never(reason)) => {
                        turn.batch.dispositions[index] = Disposition::Drop(reason.code())
                    }
                    Err(NotYet::Wait(interface, next_hop)) => hold(turn, index, interface, next_hop),
                }
            }
        }
    }

    /// Refuses a packet for what [`check_limits`] found.
    pub(super) fn refuse_for(&mut self, obstacle: Obstacle, turn: &mut Turn<'_>, index: usize) {
        match obstacle {
            Obstacle::HopLimit => {
                self.refuse(turn, index, IcmpError::TimeExceeded, DropReason::TtlExceeded);
            }
            Obstacle::Size(mtu) => self.too_large(turn, index, mtu),
            _ => {}
        }
    }

    /// Keeps a packet on the bridge: translated if its flow is, MACs and hop limit as they were.
    pub(super) fn bridge(&mut self, turn: &mut Turn<'_>, index: usize, value: &FlowValue) {
        if let Some((packet, meta, _)) = turn.batch.parts_mut(index) {
            apply::rewrite(packet, meta, value, 0);
            count_backend(value, meta, turn.tables, self.ownership.worker());
        }
        let flooded =
            fdb_lookup::forward(turn.batch, index, turn.tables, &self.stations, self.source.as_mut());
        self.count_flooded(flooded);
    }

    /// As [`find_next_hop`]; what is to be waited for is asked for.
    pub(crate) fn next_hop(
        &self,
        destination: u32,
        tables: &Tables,
        events: &mut Events,
    ) -> Result<(Adjacency, u32), NotYet> {
        let found = find_next_hop(destination, tables, &self.neighbours);
        if let Err(NotYet::Wait(interface, address)) = found {
            // Also what is being asked for: a static one whose port is not known waits for somebody to need it.
            events.raise(Event::Resolve { interface, address });
        }
        found
    }

    fn too_large(&mut self, turn: &mut Turn<'_>, index: usize, mtu: u16) {
        let ip_offset = usize::from(turn.batch.meta[index].ip_offset);
        let flags = turn
            .batch
            .packet(index)
            .and_then(|packet| packet.data().get(ip_offset + 6..ip_offset + 8))
            .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        if flags & FLAG_DONT_FRAGMENT == 0 {
            turn.batch.dispositions[index] = Disposition::Drop(DropReason::MtuExceeded.code());
            return;
        }
        let error = IcmpError::FragmentationNeeded { mtu };
        self.refuse(turn, index, error, DropReason::MtuExceeded);
    }

    /// Drops a packet for a reason and answers its sender with an ICMP error, where that is allowed. False: the way back
    /// is not known yet, and the packet waits for it.
    ///
    /// The packet is counted as dropped for `reason`; the error, made in its buffer, as originated.
    pub(crate) fn refuse(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        error: IcmpError,
        reason: DropReason,
    ) -> bool {
        if self.waits_for_way_back(turn, index) {
            return false;
        }
        self.count(Account::Dropped, 1);
        self.counters.drops.add(usize::from(reason.code()), 1);
        self.count(Account::Originated, 1);
        let own_address = turn.tables.interface(turn.batch.meta[index].interface).address;
        let limited = !self.icmp_limit.take(turn.now);
        let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) else { return true };
        let made = if limited {
            Err(DropReason::IcmpRateLimited)
        } else {
            reject::make_error(packet, meta, error, own_address)
        };
        let sent =
            made.and_then(|destination| self.send_back(packet, meta, destination, turn.tables, turn.events));
        *disposition = sent.unwrap_or_else(|reason| Disposition::Drop(reason.code()));
        true
    }

    /// Lets a packet wait that is to be answered and whose sender's next hop is being asked for: an answer is made in the
    /// packet's own buffer, so it must be able to leave at once.
    pub(crate) fn waits_for_way_back(&mut self, turn: &mut Turn<'_>, index: usize) -> bool {
        let source = turn.batch.meta[index].key.source;
        match self.next_hop(source, turn.tables, turn.events) {
            Err(NotYet::Wait(interface, next_hop)) => {
                hold(turn, index, interface, next_hop);
                true
            }
            _ => false,
        }
    }

    /// Sends an answer that starts with its IP header to `destination`.
    pub(crate) fn send_back(
        &mut self,
        packet: &mut Packet,
        meta: &Meta,
        destination: u32,
        tables: &Tables,
        events: &mut Events,
    ) -> Result<Disposition, DropReason> {
        let (adjacency, _) = self.next_hop(destination, tables, events).map_err(|not_yet| match not_yet {
            NotYet::Never(reason) => reason,
            NotYet::Wait(..) => DropReason::NeighbourUnresolved,
        })?;
        let identification = draw(&mut self.identification);
        apply::encapsulate(packet, &adjacency, meta.hash, identification)?;
        Ok(way(&adjacency))
    }
}

#[inline(always)]
pub(crate) fn count_backend(value: &FlowValue, meta: &Meta, tables: &Tables, worker: WorkerId) {
    if value.backend_slot == NO_BACKEND {
        return;
    }
    let Some(counters) = tables.counters_of(worker) else { return };
    let (packets, bytes) = if value.has(FLAG_ORIGINAL) {
        (SlotCounter::PacketsIn, SlotCounter::BytesIn)
    } else {
        (SlotCounter::PacketsOut, SlotCounter::BytesOut)
    };
    counters.add(value.backend_slot, packets, 1);
    counters.add(value.backend_slot, bytes, u64::from(meta.ip_length));
}

#[inline(always)]
pub(crate) fn leave(
    packet: &mut Packet,
    meta: &Meta,
    adjacency: &Adjacency,
    identification: u16,
) -> Disposition {
    if !apply::strip(packet, meta) {
        return Disposition::Drop(DropReason::Ipv4Truncated.code());
    }
    match apply::encapsulate(packet, adjacency, meta.hash, identification) {
        Ok(()) => way(adjacency),
        Err(reason) => Disposition::Drop(reason.code()),
    }
}

#[inline(always)]
fn way(adjacency: &Adjacency) -> Disposition {
    if adjacency.kind == KIND_HOST { Disposition::Host } else { Disposition::Transmit(adjacency.port) }
}

pub(crate) fn hold(turn: &mut Turn<'_>, index: usize, interface: InterfaceId, next_hop: u32) {
    let visit = turn.batch.visits[index];
    // Asked before it is taken out: what may not wait ends in its own place, whatever else is in the batch.
    if !turn.waiting.has_place(interface, next_hop) {
        turn.batch.dispositions[index] = Disposition::Drop(DropReason::NeighbourUnresolved.code());
    } else if let Some(packet) = turn.batch.take(index) {
        turn.batch.dispositions[index] = Disposition::Hold;
        turn.waiting.hold(packet, visit, interface, next_hop, turn.now);
    }
}
