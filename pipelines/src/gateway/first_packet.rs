//! First packets: from a decision to a flow entry pair.

use engine::batch::Disposition;
use engine::clock::Timestamp;
use engine::table::flow::{EntryId, FlowEntry, FlowKey, InsertError};
use engine::wire::ipv4::{PROTOCOL_ICMP, PROTOCOL_TCP};

use super::{Core, Gauge, Situation, Turn, changes, decide};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ASSURED, FLAG_ORIGINAL, FlowValue};
use crate::meta::{BRIDGED, Kind};
use crate::stage::conntrack;
use crate::stage::parse::ECHO_REPLY;
use crate::stage::reject::{self, IcmpError};
use crate::stage::snat_mark;
use crate::stage::tcp_state::TcpState;
use crate::table::{SlotCounter, Tables};

/// Whether a flow may make place for another: nobody has answered it, or it is closed. A port that a connection was given
/// here rests through TIME_WAIT all the same: its backend takes no other connection from there before.
fn is_weak(first: &FlowEntry<FlowValue>) -> bool {
    if !first.value.has(FLAG_ASSURED) {
        return true;
    }
    let state = TcpState::from_number(first.value.state);
    let (key, value) = (&first.key, &first.value);
    let is_given = (value.new_source, value.new_source_port) != (key.source, key.source_port);
    let rests = state == TcpState::TimeWait && is_given;
    first.key.protocol == PROTOCOL_TCP && state.is_over() && !rests
}

/// Pairs looked at for one to evict when the table is full.
const EVICTION_TRIES: u32 = 16;

impl Core {
    /// Decides a packet that no flow is known for.
    pub(crate) fn first_packet(&mut self, turn: &mut Turn<'_>, index: usize) {
        let meta = turn.batch.meta[index];
        let drop = |reason: DropReason| Disposition::Drop(reason.code());
        match meta.kind {
            Kind::Flow | Kind::IcmpError => {}
            Kind::IcmpOther => {
                turn.batch.dispositions[index] = drop(DropReason::IcmpTypeUnsupported);
                return;
            }
            _ => return,
        }
        if meta.kind == Kind::Flow && self.join_flow(turn, index) {
            return;
        }
        let visited = turn.batch.visits[index];
        if let Some((worker, visit)) = self.ownership.after_miss(&meta.key, visited) {
            turn.batch.dispositions[index] = Disposition::HandOff { worker, visit };
            return;
        }
        if meta.kind == Kind::IcmpError {
            if !self.error_of_host(turn, index) {
                turn.batch.dispositions[index] = drop(DropReason::IcmpErrorUntracked);
            }
            return;
        }
        if meta.key.protocol == PROTOCOL_ICMP && meta.tcp_flags == ECHO_REPLY {
            // Before it is asked whom it is for: an answer to an answer would go to and fro for ever.
            turn.batch.dispositions[index] = drop(DropReason::IcmpUnsolicited);
            return;
        }
        let mut decision = Decision::new(meta.key, meta.interface, meta.has(BRIDGED));
        let situation = Situation { tables: turn.tables, affinity: &self.affinity, now: turn.now };
        decide(&situation, &mut self.random, &mut decision);
        match decision.outcome {
            Outcome::Forward | Outcome::Bridge => {
                if !decision.bridged {
                    turn.batch.meta[index].flags &= !BRIDGED;
                }
                match self.create(turn, index, &decision) {
                    Ok(id) => self.forward(turn, index, id),
                    Err(disposition) => turn.batch.dispositions[index] = disposition,
                }
            }
            Outcome::Answer => self.answer_echo(turn, index),
            Outcome::Deliver => {
                if let Some(id) = self.open_to_host(turn, index, &decision) {
                    self.forward_admitted(turn, index, id);
                }
            }
            Outcome::Reject(reason) => {
                if self.refuse(turn, index, IcmpError::PortUnreachable, reason) {
                    self.count_refused(&decision, turn.tables);
                }
            }
            Outcome::Drop(reason) => turn.batch.dispositions[index] = drop(reason),
            Outcome::Undecided => {}
        }
    }

    /// Lets a packet follow a flow that an earlier packet of the batch has made; takes a connection that is closed or whose
    /// time is over out of its way. True: the packet is done with.
    fn join_flow(&mut self, turn: &mut Turn<'_>, index: usize) -> bool {
        let meta = turn.batch.meta[index];
        let Some(id) = self.flows.find(&meta.key, meta.hash) else { return false };
        let has_ended = conntrack::has_ended(&self.flows, id, &turn.tables.timeouts, turn.now.millis());
        let services = &turn.tables.services;
        let is_outdated = services.needs_sweep() && changes::is_outdated(&self.flows, id, services);
        if !has_ended && !is_outdated && self.later_packet(turn, index, id) {
            return true;
        }
        self.flows.remove(id);
        let gauge = match (has_ended, is_outdated) {
            (true, _) => Gauge::FlowsExpired,
            (false, true) => Gauge::FlowsEnded,
            (false, false) => Gauge::FlowsReopened,
        };
        self.gauges.add(gauge as usize, 1);
        false
    }

    /// Makes the flow entry pair of a decision.
    pub(crate) fn create(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        decision: &Decision,
    ) -> Result<EntryId, Disposition> {
        let meta = turn.batch.meta[index];
        let drop = |reason: DropReason| Disposition::Drop(reason.code());
        let state = conntrack::initial_state(&meta).map_err(drop)?;
        let leaving = self.leaving_key(decision, turn.tables).map_err(drop)?;
        let id = self.insert(decision, &leaving, state, turn.tables, turn.now).map_err(drop)?;
        if let Some(packet) = turn.batch.packet(index) {
            conntrack::note_first(&mut self.flows, id, packet, &meta);
        }
        if let Some(affinity) = &decision.affinity {
            let now_s = (turn.now.seconds() as u32).max(1);
            self.affinity.note(affinity.client, affinity.backend, now_s, affinity.window_s);
        }
        self.gauges.add(Gauge::FlowsCreated as usize, 1);
        self.count_connection(decision, turn.tables);
        Ok(id)
    }

    /// What the packet looks like when it leaves. A masqueraded one gets a port; any other keeps its own unless the
    /// answers would be taken for another flow's (a client that reaches one backend directly and through a service).
    fn leaving_key(&mut self, decision: &Decision, tables: &Tables) -> Result<FlowKey, DropReason> {
        let unchanged = decision.leaving_key(decision.key.source_port);
        if !decision.is_masqueraded() {
            let answer = unchanged.reversed();
            if self.flows.find(&answer, self.flows.hash(&answer)).is_none() {
                return Ok(unchanged);
            }
        }
        let Self { flows, ownership, random, scan_at, .. } = self;
        snat_mark::choose_port(decision, tables, flows, ownership, random, scan_at)
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
            if is_weak(first) || conntrack::is_expired(&self.flows, pair, &tables.timeouts, now_ms) {
                self.flows.remove(EntryId(pair * 2));
                self.gauges.add(Gauge::FlowsEvicted as usize, 1);
                return true;
            }
        }
        false
    }

    fn answer_echo(&mut self, turn: &mut Turn<'_>, index: usize) {
        if self.waits_for_way_back(turn, index) {
            return;
        }
        let limited = !self.icmp_limit.take(turn.now);
        let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) else { return };
        let made =
            if limited { Err(DropReason::IcmpRateLimited) } else { reject::make_echo_reply(packet, meta) };
        *disposition = match made {
            Err(reason) => Disposition::Drop(reason.code()),
            Ok(destination) => {
                self.count_originated(1);
                self.send_back(packet, meta, destination, turn.tables, turn.events)
                    .unwrap_or_else(|reason| Disposition::Drop(reason.code()))
            }
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
        let service = decision.frontend.and_then(|frontend| tables.services.port(frontend.service));
        if let Some(service) = service {
            counters.add(service.slot, SlotCounter::Refused, 1);
        }
    }
}
