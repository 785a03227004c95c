//! Making the flow entry pair of a decision.

use engine::table::flow::{EntryId, FlowKey, InsertError};

use super::first_packet::{MadeHere, Opening};
use super::forward::Hop;
use super::{Core, Gauge, Turn};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ORIGINAL, FlowValue, NO_ADJACENCY};
use crate::stage::conntrack;
use crate::stage::snat_mark;
use crate::table::interface::HOST_INTERFACE;
use crate::table::{SlotCounter, Tables};

impl Core {
    /// Makes the flow entry pair of a decision, in the state that its first packet puts it in.
    pub(crate) fn create(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        opening: &Opening,
        state: u8,
        made: &mut MadeHere,
    ) -> Result<EntryId, DropReason> {
        let meta = turn.batch.meta[index];
        let decision = &opening.decision;
        let (leaving, answer_hash) = self.leaving_key(opening, turn.tables)?;
        let hashes = [meta.hash, answer_hash];
        let id = self.insert(decision, &leaving, hashes, state, turn)?;
        made.note(hashes);
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

    /// What the packet looks like when it leaves, and the hash of its answers. A masqueraded one gets a port; any other keeps
    /// its own unless the answers would be taken for another flow's (a client that reaches one backend directly and through
    /// a service).
    fn leaving_key(&mut self, opening: &Opening, tables: &Tables) -> Result<(FlowKey, u64), DropReason> {
        let Opening { decision, leaving, answer_hash, .. } = opening;
        let answer = leaving.reversed();
        if !decision.is_masqueraded() && self.flows.find(&answer, *answer_hash).is_none() {
            // From an address to itself, port and all, there is only one direction.
            let has_directions = answer != decision.key;
            return has_directions.then_some((*leaving, *answer_hash)).ok_or(DropReason::SnatPortsExhausted);
        }
        let Self { flows, ownership, random, scan_at, .. } = self;
        let first = decision.is_masqueraded().then_some((*leaving, *answer_hash));
        snat_mark::choose_port(decision, first, tables, flows, ownership, random, scan_at)
    }

    fn insert(
        &mut self,
        decision: &Decision,
        leaving: &FlowKey,
        hashes: [u64; 2],
        state: u8,
        turn: &Turn<'_>,
    ) -> Result<EntryId, DropReason> {
        let (adjacency, epoch) = self.known_hop(decision, turn.tables);
        let [mut there, mut back] = FlowValue::rewrite_both(&decision.key, leaving);
        for value in [&mut there, &mut back] {
            value.state = state;
            value.last_seen_ms = turn.now.millis();
            value.backend_slot = decision.backend_slot;
        }
        there.flags |= FLAG_ORIGINAL;
        (there.adjacency, there.epoch) = (adjacency, epoch);
        let flow = [(decision.key, there), (leaving.reversed(), back)];
        for _ in 0..2 {
            match self.flows.insert_absent(flow, hashes) {
                Ok(id) => {
                    self.flows.set_mark(id, true);
                    return Ok(id);
                }
                // There is place, so the buckets of these keys are full, and perhaps not without the next flow to go.
                Err(InsertError::Full) => self.make_place(self.flows.free_pairs() + 1, turn.tables, turn.now),
                // Neither can be: both keys were looked up just before.
                Err(InsertError::FirstExists | InsertError::SecondExists) => break,
            }
        }
        Err(DropReason::FlowTableFull)
    }

    /// The next hop that was decided, if its record can be used: later packets find it in the flow, and so does this one.
    /// Otherwise the packet's way to it is looked up when it is sent on.
    fn known_hop(&mut self, decision: &Decision, tables: &Tables) -> (u32, u32) {
        let none = (NO_ADJACENCY, 0);
        let is_routed = decision.outcome == Outcome::Forward && decision.egress != HOST_INTERFACE;
        if !is_routed {
            return none;
        }
        if !self.hop.leads_to(decision.egress, decision.next_hop) {
            match Hop::to(decision.egress, decision.next_hop, &self.neighbours) {
                Some(hop) => self.hop = hop,
                None => return none,
            }
        }
        // A record's epoch may speak of later tables than the decision was made with. To be asked after it was read.
        if self.neighbours.generation() > tables.generation { none } else { self.hop.identity() }
    }

    fn count_connection(&self, decision: &Decision, tables: &Tables) {
        let Some(counters) = tables.counters_of(self.ownership.worker()) else {
            return;
        };
        if decision.backend.is_some() {
            counters.add(decision.backend_slot, SlotCounter::Connections, 1);
        }
    }
}
