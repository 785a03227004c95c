//! First packets: from a decision to a flow entry pair.

use engine::batch::{Batch, Disposition};
use engine::clock::Timestamp;
use engine::table::flow::{EntryId, FlowKey, InsertError};

use super::{Core, Gauge, decide};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::events::Events;
use crate::flow::{FLAG_ASSURED, FLAG_ORIGINAL, FlowValue};
use crate::meta::{BRIDGED, Kind, Meta};
use crate::ownership::visit;
use crate::stage::conntrack::{self, Step};
use crate::stage::reject::{self, IcmpError};
use crate::stage::snat_mark;
use crate::table::interface::HOST_INTERFACE;
use crate::table::{SlotCounter, Tables};
use crate::waiting::Waiting;

/// Pairs looked at for one to evict when the table is full.
const EVICTION_TRIES: u32 = 16;

impl Core {
    /// Decides a packet that no flow is known for.
    #[allow(clippy::too_many_arguments, reason = "the parts of one turn, borrowed one by one")]
    pub(crate) fn first_packet(
        &mut self,
        batch: &mut Batch<Meta>,
        index: usize,
        tables: &Tables,
        events: &mut Events,
        waiting: &mut Waiting,
        now: Timestamp,
    ) {
        let meta = batch.meta[index];
        let drop = |reason: DropReason| Disposition::Drop(reason.code());
        match meta.kind {
            Kind::Flow | Kind::IcmpError => {}
            Kind::IcmpOther => {
                batch.dispositions[index] = drop(DropReason::IcmpTypeUnsupported);
                return;
            }
            _ => return,
        }
        if meta.kind == Kind::Flow && self.join_flow(batch, index, tables, events, waiting, now) {
            return;
        }
        let visited = batch.visits[index];
        if let Some((worker, visit)) = self.ownership.after_miss(&meta.key, visited) {
            batch.dispositions[index] = Disposition::HandOff { worker, visit };
            return;
        }
        if meta.kind == Kind::IcmpError {
            return self.untracked_error(batch, index, tables, now);
        }
        let mut decision = Decision::new(meta.key, meta.interface, meta.has(BRIDGED));
        decide(tables, &mut self.random, &mut decision);
        match decision.outcome {
            // Tracked like any flow, so that the host's answers are known; without an exception port it is no flow.
            // What the host has sent itself is not given back to it: it would forward it here again.
            Outcome::Deliver if tables.host_rate_pps == 0 || meta.interface == HOST_INTERFACE => {
                batch.dispositions[index] = drop(DropReason::HostAbsent)
            }
            Outcome::Forward | Outcome::Bridge | Outcome::Deliver => {
                if !decision.bridged {
                    batch.meta[index].flags &= !BRIDGED;
                }
                match self.create(batch, index, &decision, tables, now) {
                    Ok(id) => self.forward(batch, index, id, tables, events, waiting, now),
                    Err(disposition) => batch.dispositions[index] = disposition,
                }
            }
            Outcome::Answer => self.answer_echo(batch, index, tables, events, now),
            Outcome::Reject(reason) => {
                self.count_refused(&decision, tables);
                self.refuse(batch, index, IcmpError::PortUnreachable, reason, tables, events, now);
            }
            Outcome::Drop(reason) => batch.dispositions[index] = drop(reason),
            Outcome::Undecided => {}
        }
    }

    /// Lets a packet follow a flow that an earlier packet of the batch has made; takes a closed connection out of its
    /// way. True: the packet is done with.
    #[allow(clippy::too_many_arguments, reason = "the parts of one turn, borrowed one by one")]
    fn join_flow(
        &mut self,
        batch: &mut Batch<Meta>,
        index: usize,
        tables: &Tables,
        events: &mut Events,
        waiting: &mut Waiting,
        now: Timestamp,
    ) -> bool {
        let meta = batch.meta[index];
        let (Some(id), Some(packet)) = (self.flows.find(&meta.key, meta.hash), batch.packet(index)) else {
            return false;
        };
        match conntrack::advance(&mut self.flows, id, packet, &meta, now.millis()) {
            Step::Pass => self.forward(batch, index, id, tables, events, waiting, now),
            Step::Invalid => batch.dispositions[index] = Disposition::Drop(DropReason::TcpInvalid.code()),
            Step::Reopen => {
                self.flows.remove(id);
                self.gauges.add(Gauge::FlowsReopened as usize, 1);
                return false;
            }
        }
        true
    }

    /// Makes the flow entry pair of a decision.
    fn create(
        &mut self,
        batch: &Batch<Meta>,
        index: usize,
        decision: &Decision,
        tables: &Tables,
        now: Timestamp,
    ) -> Result<EntryId, Disposition> {
        let meta = &batch.meta[index];
        let drop = |reason: DropReason| Disposition::Drop(reason.code());
        let state = conntrack::initial_state(meta).map_err(drop)?;
        let leaving = self.leaving_key(decision, tables).map_err(drop)?;
        if leaving == decision.key
            && batch.visits[index] != visit::CREATE
            && let Some((worker, visit)) = self.ownership.untranslated_home(&decision.key)
        {
            return Err(Disposition::HandOff { worker, visit });
        }
        let id = self.insert(decision, &leaving, state, tables, now).map_err(drop)?;
        if let Some(packet) = batch.packet(index) {
            conntrack::note_first(&mut self.flows, id, packet, meta);
        }
        self.gauges.add(Gauge::FlowsCreated as usize, 1);
        self.count_connection(decision, tables);
        Ok(id)
    }

    /// What the packet looks like when it leaves. A masqueraded one gets a port; any other keeps its own unless the
    /// answers would be taken for another flow's (a client that reaches one backend directly and through a service).
    fn leaving_key(&mut self, decision: &Decision, tables: &Tables) -> Result<FlowKey, DropReason> {
        let ports = tables.masquerade.snat_ports;
        let unchanged = decision.leaving_key(decision.key.source_port);
        if !decision.is_masqueraded() {
            let answer = unchanged.reversed();
            if self.flows.find(&answer, self.flows.hash(&answer)).is_none() {
                return Ok(unchanged);
            }
        }
        snat_mark::choose_port(decision, ports, &self.flows, &self.ownership, &mut self.random)
    }

    fn insert(
        &mut self,
        decision: &Decision,
        leaving: &FlowKey,
        state: u8,
        tables: &Tables,
        now: Timestamp,
    ) -> Result<EntryId, DropReason> {
        let now_ms = now.millis();
        let answer = leaving.reversed();
        let value = |from: &FlowKey, to: &FlowKey, flags: u8| {
            let rewrite = FlowValue::rewrite(from, to);
            FlowValue {
                state,
                flags: rewrite.flags | flags,
                last_seen_ms: now_ms,
                backend_slot: decision.backend_slot,
                ..rewrite
            }
        };
        let first = (decision.key, value(&decision.key, leaving, FLAG_ORIGINAL));
        let second = (answer, value(&answer, &decision.key.reversed(), 0));
        for _ in 0..2 {
            match self.flows.insert(first, second) {
                Ok(id) => return Ok(id),
                Err(InsertError::Full) if self.evict(tables, now_ms) => {}
                Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
                // Neither can be: both keys were looked up just before.
                Err(InsertError::FirstExists | InsertError::SecondExists) => {
                    return Err(DropReason::SnatPortsExhausted);
                }
            }
        }
        Err(DropReason::FlowTableFull)
    }

    /// Makes place in a full table: ends an expired flow, or one whose other side never spoke or that is closed
    /// (nf_conntrack's early_drop). Established flows are never evicted. Looks at a bounded number.
    fn evict(&mut self, tables: &Tables, now_ms: u32) -> bool {
        let capacity = self.flows.capacity() as u32;
        for _ in 0..EVICTION_TRIES {
            let pair = self.evict_at;
            self.evict_at = if pair + 1 < capacity { pair + 1 } else { 0 };
            let Some((first, _)) = self.flows.pair(pair) else { continue };
            let is_weak = !first.value.has(FLAG_ASSURED)
                || (first.key.protocol == engine::wire::ipv4::PROTOCOL_TCP
                    && crate::stage::tcp_state::TcpState::from_number(first.value.state).is_over());
            if is_weak || conntrack::is_expired(&self.flows, pair, &tables.timeouts, now_ms) {
                self.flows.remove(EntryId(pair * 2));
                self.gauges.add(Gauge::FlowsEvicted as usize, 1);
                return true;
            }
        }
        false
    }

    fn untracked_error(&mut self, batch: &mut Batch<Meta>, index: usize, tables: &Tables, now: Timestamp) {
        let meta = batch.meta[index];
        let destination = batch.packet(index).and_then(|packet| {
            let at = usize::from(meta.ip_offset) + 16;
            packet.data().get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
        });
        if destination.is_some_and(|address| tables.routes.is_local(address))
            && meta.interface != HOST_INTERFACE
        {
            // About something that the host's own stack sent, perhaps: it knows.
            self.deliver_packet(batch, index, tables, now);
        } else {
            batch.dispositions[index] = Disposition::Drop(DropReason::IcmpErrorUntracked.code());
        }
    }

    fn answer_echo(
        &mut self,
        batch: &mut Batch<Meta>,
        index: usize,
        tables: &Tables,
        events: &mut Events,
        now: Timestamp,
    ) {
        let limited = !self.icmp_limit.take(now);
        let Some((packet, meta, disposition)) = batch.parts_mut(index) else { return };
        let made =
            if limited { Err(DropReason::IcmpRateLimited) } else { reject::make_echo_reply(packet, meta) };
        *disposition = match made {
            Err(reason) => Disposition::Drop(reason.code()),
            Ok(destination) => {
                self.count_originated(1);
                self.send_back(packet, meta, destination, tables, events)
                    .unwrap_or_else(|reason| Disposition::Drop(reason.code()))
            }
        };
    }

    fn deliver_packet(&mut self, batch: &mut Batch<Meta>, index: usize, tables: &Tables, now: Timestamp) {
        let allowed = self.deliver(&batch.meta[index], tables, now);
        let Some((packet, meta, disposition)) = batch.parts_mut(index) else { return };
        let host = self.neighbours.read(crate::table::neighbour::HOST_ADJACENCY);
        let sent = allowed.and_then(|()| {
            let host = host.filter(|host| host.is_usable()).ok_or(DropReason::HostAbsent)?;
            if !crate::apply::strip(packet, meta) {
                return Err(DropReason::Ipv4Truncated);
            }
            crate::apply::encapsulate(packet, &host, meta.hash, 0)
        });
        *disposition = match sent {
            Ok(()) => Disposition::Host,
            Err(reason) => Disposition::Drop(reason.code()),
        };
    }

    fn count_connection(&self, decision: &Decision, tables: &Tables) {
        let Some(counters) = tables.backend_counters.get(usize::from(self.ownership.worker())) else {
            return;
        };
        if decision.backend.is_some() {
            counters.add(decision.backend_slot, SlotCounter::Connections, 1);
        }
    }

    fn count_refused(&self, decision: &Decision, tables: &Tables) {
        let Some(counters) = tables.backend_counters.get(usize::from(self.ownership.worker())) else {
            return;
        };
        let service =
            decision.frontend.and_then(|frontend| tables.services.services.get(frontend.service as usize));
        if let Some(service) = service {
            counters.add(service.slot, SlotCounter::Refused, 1);
        }
    }
}
