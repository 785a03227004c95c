//! First packets: from a decision to a flow entry pair.
//!
//! Those of a burst are worked on together. Each needs lines of memory that nothing has touched lately: the service's, its
//! backends', the buckets of both directions, the flow that makes place. So the steps are taken for all of them in turn, and
//! each step asks for what the next one reads. Only the last one, which makes flows, goes packet by packet, since a packet may
//! belong to a flow that one before it in the burst has made.

use arrayvec::ArrayVec;
use engine::batch::{BATCH_CAPACITY, Disposition};
use engine::table::flow::FlowKey;
use engine::wire::ipv4::PROTOCOL_ICMP;

use super::{Core, Gauge, Situation, Turn, changes, decide};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::has_ports;
use crate::meta::{BRIDGED, Kind, Meta, NO_ENTRY};
use crate::stage::conntrack;
use crate::stage::parse::ECHO_REPLY;
use crate::stage::reject::{self, IcmpError};
use crate::stage::snat_mark;
use crate::table::service::FrontendKey;
use crate::table::{SlotCounter, Tables};

/// First packets worked on together: enough to hide a miss behind the others' work, and few enough for the first-level cache.
pub(super) const AT_ONCE: usize = 32;

/// A first packet that is decided.
pub(crate) struct Opening {
    index: usize,
    pub(super) decision: Decision,
    /// What it probably leaves as: with its own source port, or the first that was drawn.
    pub(super) leaving: FlowKey,
    /// The hash of that flow's answers.
    pub(super) answer_hash: u64,
}

impl Core {
    /// Works on the first packets of a burst.
    pub(super) fn first_packets(&mut self, turn: &mut Turn<'_>, indices: &ArrayVec<u8, BATCH_CAPACITY>) {
        let mut made = MadeHere::default();
        for indices in indices.chunks(AT_ONCE) {
            let keys: ArrayVec<FrontendKey, AT_ONCE> = indices
                .iter()
                .filter_map(|index| frontend_key(&turn.batch.meta[usize::from(*index)].key))
                .collect();
            turn.tables.services.read_ahead(&keys);
            let mut openings = ArrayVec::<Opening, AT_ONCE>::new();
            for index in indices.iter().map(|index| usize::from(*index)) {
                if self.is_to_be_decided(turn, index) {
                    openings.push(self.decide_first(turn, index));
                }
            }
            for opening in openings.iter().filter(|opening| makes_flow(opening.decision.outcome)) {
                self.flows.prefetch_second_bucket(opening.answer_hash);
            }
            self.make_place(flows_to_make(&openings, &turn.batch.meta, made), turn.tables, turn.now);
            let mut openings = openings.iter().peekable();
            for index in indices.iter().map(|index| usize::from(*index)) {
                let opening = openings.next_if(|opening| opening.index == index);
                self.first_packet(turn, index, opening, &mut made);
            }
        }
    }

    /// Whether a packet will have to be decided here, unless it belongs to a flow that one before it makes.
    fn is_to_be_decided(&self, turn: &Turn<'_>, index: usize) -> bool {
        let meta = &turn.batch.meta[index];
        meta.kind == Kind::Flow
            && !is_echo_reply(meta)
            && self.ownership.after_miss(&meta.key, turn.batch.visits[index]).is_none()
    }

    /// Does with a packet that no flow was found for what is to be done, in its turn.
    fn first_packet(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        opening: Option<&Opening>,
        made: &mut MadeHere,
    ) {
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
        let may_have_flow = meta.entry != NO_ENTRY || made.may_have(meta.hash);
        if meta.kind == Kind::Flow && may_have_flow && self.join_flow(turn, index) {
            return;
        }
        // Before others are asked: it was sent on here, without a flow.
        if self.answer_without_flow(turn, index) {
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
        if is_echo_reply(&meta) {
            // Before it is asked whom it is for: an answer to an answer would go to and fro for ever.
            turn.batch.dispositions[index] = drop(DropReason::IcmpUnsolicited);
            return;
        }
        match opening {
            Some(opening) => self.carry_out(turn, opening, made),
            None => {
                let opening = self.decide_first(turn, index);
                self.carry_out(turn, &opening, made);
            }
        }
    }

    /// Decides a first packet, and asks for what making its flow will read.
    fn decide_first(&mut self, turn: &Turn<'_>, index: usize) -> Opening {
        let meta = &turn.batch.meta[index];
        let mut decision = Decision::new(meta.key, meta.interface, meta.has(BRIDGED));
        let situation = Situation { tables: turn.tables, affinity: &self.affinity, now: turn.now };
        decide(&situation, &mut self.random, &mut decision);
        let port = if decision.is_masqueraded() {
            snat_mark::draw_port(&decision, turn.tables, &self.ownership, &mut self.random)
        } else {
            decision.key.source_port
        };
        let leaving = decision.leaving_key(port);
        let answer_hash = self.flows.hash(&leaving.reversed());
        if makes_flow(decision.outcome) {
            self.flows.prefetch_bucket(answer_hash);
            if let Some(counters) = turn.tables.counters_of(self.ownership.worker()) {
                counters.prefetch(decision.backend_slot);
            }
        }
        Opening { index, decision, leaving, answer_hash }
    }

    /// Does with a packet what was decided.
    fn carry_out(&mut self, turn: &mut Turn<'_>, opening: &Opening, made: &mut MadeHere) {
        let Opening { index, decision, .. } = opening;
        let index = *index;
        match decision.outcome {
            Outcome::Forward | Outcome::Bridge => {
                if !decision.bridged {
                    turn.batch.meta[index].flags &= !BRIDGED;
                }
                self.open(turn, index, opening, made);
            }
            Outcome::Answer => self.answer_echo(turn, index),
            Outcome::Deliver => {
                if let Some(id) = self.open_to_host(turn, index, opening, made) {
                    self.forward_admitted(turn, index, id);
                }
            }
            Outcome::Reject(reason) => {
                if self.refuse(turn, index, IcmpError::PortUnreachable, reason) {
                    self.count_refused(decision, turn.tables);
                }
            }
            Outcome::Drop(reason) => turn.batch.dispositions[index] = Disposition::Drop(reason.code()),
            Outcome::Undecided => {}
        }
    }

    /// Makes the flow of a packet that is to go on, and sends it on; without a flow if there is no place for one.
    fn open(&mut self, turn: &mut Turn<'_>, index: usize, opening: &Opening, made: &mut MadeHere) {
        let decision = &opening.decision;
        let state = match conntrack::initial_state(&turn.batch.meta[index]) {
            Ok(state) => state,
            // Perhaps the end of a connection that never had a flow.
            Err(reason) if self.stateless.is_recent() => {
                return self.without_flow(turn, index, decision, reason);
            }
            Err(reason) => {
                turn.batch.dispositions[index] = Disposition::Drop(reason.code());
                return;
            }
        };
        if self.flows.free_pairs() == 0 {
            // Place was made for the burst as far as there were flows to go. By now there may be one more: one that this burst
            // has made itself, or closed.
            self.make_place(1, turn.tables, turn.now);
        }
        if self.flows.free_pairs() == 0 {
            return self.without_flow(turn, index, decision, DropReason::FlowTableFull);
        }
        match self.create(turn, index, opening, state, made) {
            Ok(id) => self.forward(turn, index, id),
            Err(reason @ DropReason::FlowTableFull) => self.without_flow(turn, index, decision, reason),
            Err(reason) => turn.batch.dispositions[index] = Disposition::Drop(reason.code()),
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

    fn count_refused(&self, decision: &Decision, tables: &Tables) {
        let Some(counters) = tables.counters_of(self.ownership.worker()) else {
            return;
        };
        let service = decision.frontend.and_then(|frontend| tables.services.port(frontend.service));
        if let Some(service) = service {
            counters.add(service.slot, SlotCounter::Refused, 1);
        }
    }
}

fn is_echo_reply(meta: &Meta) -> bool {
    meta.key.protocol == PROTOCOL_ICMP && meta.tcp_flags == ECHO_REPLY
}

/// Whether an outcome needs a flow.
fn makes_flow(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Forward | Outcome::Bridge | Outcome::Deliver)
}

/// How many flows these packets will make: of several packets of one flow the first does. A few may be overlooked, never one
/// too many counted.
fn flows_to_make(openings: &[Opening], meta: &[Meta], made: MadeHere) -> usize {
    let mut seen = made;
    let mut count = 0;
    for opening in openings.iter().filter(|opening| makes_flow(opening.decision.outcome)) {
        let meta = &meta[opening.index];
        if !seen.may_have(meta.hash) && conntrack::initial_state(meta).is_ok() {
            seen.note([meta.hash; 2]);
            count += 1;
        }
    }
    count
}

/// What a packet would be to a service.
fn frontend_key(key: &FlowKey) -> Option<FrontendKey> {
    has_ports(key.protocol).then(|| FrontendKey::of_destination(key))
}

/// Which keys flows made for this burst have, roughly: one bit of 64 for each hash. Without its bit a packet has no flow here,
/// and need not be looked up again.
#[derive(Clone, Copy, Default)]
pub(crate) struct MadeHere(u64);

impl MadeHere {
    fn bit(hash: u64) -> u64 {
        1 << (hash >> 24 & 63)
    }

    fn may_have(&self, hash: u64) -> bool {
        self.0 & Self::bit(hash) != 0
    }

    /// Notes both directions of a flow that was made.
    pub(super) fn note(&mut self, hashes: [u64; 2]) {
        self.0 |= Self::bit(hashes[0]) | Self::bit(hashes[1]);
    }
}
