//! The host's own stack: what it gets, and what is its own to say.
//!
//! What is addressed to the gateway and claimed by no table is delivered under a rate limit. The flow is remembered, so
//! that the host's answers are known as such.

use engine::batch::Disposition;
use engine::clock::Timestamp;
use engine::table::flow::EntryId;

use super::first_packet::{MadeHere, Opening};
use super::forward::{NotYet, draw, hold, leave};
use super::{Core, Turn};
use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ORIGINAL, FLAG_TRANSLATED};
use crate::meta::Meta;
use crate::stage::conntrack;
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, InterfaceId};
use crate::table::neighbour::HOST_ADJACENCY;

/// Whether packets of an interface can reach the host's stack at all.
pub(crate) fn check_entrance(interface: InterfaceId, tables: &Tables) -> Result<(), DropReason> {
    if tables.host_rate_pps == 0 || interface == HOST_INTERFACE {
        return Err(DropReason::HostAbsent);
    }
    Ok(())
}

impl Core {
    /// Whether the host's stack may get another packet now.
    fn admit(&mut self, meta: &Meta, tables: &Tables, now: Timestamp) -> Result<(), DropReason> {
        check_entrance(meta.interface, tables)?;
        if self.host_limit.take(now) { Ok(()) } else { Err(DropReason::HostRateLimited) }
    }

    /// As [`Self::admit`] for a later packet of a flow. Limited are flows that others opened to the host itself, not those
    /// that it opened nor those of a service.
    pub(crate) fn admit_later(
        &mut self,
        id: EntryId,
        meta: &Meta,
        tables: &Tables,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let is_direct = self.flows.entry(id).value.flags & (FLAG_ORIGINAL | FLAG_TRANSLATED) == FLAG_ORIGINAL;
        if is_direct { self.admit(meta, tables, now) } else { Ok(()) }
    }

    /// Admits the first packet of a flow to the host. Gives the entry to forward it by; none: it is done with.
    pub(crate) fn open_to_host(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        opening: &Opening,
        made: &mut MadeHere,
    ) -> Option<EntryId> {
        let meta = turn.batch.meta[index];
        let Ok(state) = conntrack::initial_state(&meta) else {
            // The rest of a connection that is not known here any more: the host knows what to say to it.
            self.deliver_packet(turn, index);
            return None;
        };
        let created = match self.admit(&meta, turn.tables, turn.now) {
            Ok(()) => self.create(turn, index, opening, state, made),
            Err(reason) => Err(reason),
        };
        created.map_err(|reason| turn.batch.dispositions[index] = Disposition::Drop(reason.code())).ok()
    }

    /// Delivers a packet that no flow is remembered for.
    fn deliver_packet(&mut self, turn: &mut Turn<'_>, index: usize) {
        let admitted = self.admit(&turn.batch.meta[index], turn.tables, turn.now);
        let host = self.neighbours.read(HOST_ADJACENCY).filter(|host| host.is_usable());
        let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) else { return };
        *disposition = match admitted.and_then(|()| host.ok_or(DropReason::HostAbsent)) {
            Ok(host) => leave(packet, meta, &host, 0),
            Err(reason) => Disposition::Drop(reason.code()),
        };
    }

    /// Takes an ICMP error that is the host's own to say or to hear: about no flow, or about one that nothing is rewritten
    /// of. False: it is not.
    pub(crate) fn error_of_host(&mut self, turn: &mut Turn<'_>, index: usize) -> bool {
        let meta = turn.batch.meta[index];
        let at = usize::from(meta.ip_offset) + 16;
        let bytes =
            turn.batch.packet(index).and_then(|packet| packet.data().get(at..at + 4)?.try_into().ok());
        let Some(destination) = bytes.map(u32::from_be_bytes) else { return false };
        if meta.interface == HOST_INTERFACE {
            self.pass_on(turn, index, destination);
        } else if turn.tables.routes.is_local(destination) {
            self.deliver_packet(turn, index);
        } else {
            return false;
        }
        true
    }

    /// Sends a packet of the host's on as it is.
    fn pass_on(&mut self, turn: &mut Turn<'_>, index: usize, destination: u32) {
        let adjacency = match self.next_hop(destination, turn.tables, turn.events) {
            Ok((adjacency, _)) => adjacency,
            Err(NotYet::Wait(interface, next_hop)) => {
                return hold(turn, index, interface, next_hop);
            }
            Err(NotYet::Never(reason)) => {
                turn.batch.dispositions[index] = Disposition::Drop(reason.code());
                return;
            }
        };
        if turn.batch.meta[index].ip_length > adjacency.mtu {
            // No error is sent about an error.
            turn.batch.dispositions[index] = Disposition::Drop(DropReason::MtuExceeded.code());
            return;
        }
        let identification = draw(&mut self.identification);
        if let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) {
            *disposition = leave(packet, meta, &adjacency, identification);
        }
    }
}
