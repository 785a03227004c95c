//! Packets without a flow: what goes on when the flow table is full and none of its flows may go ([`stateless`] says what
//! can), and the answers to it.
//!
//! A connection that began without a flow gets one when there is place again and its client speaks; until then its answers
//! must not be taken for a connection of their own. So for as long as a connection may be silent after the last packet that
//! was sent on without a flow, answers of such services are told by the hash. Both directions are looked up at the client's
//! worker first, so one worker's time is enough.

use engine::batch::Disposition;
use engine::clock::Timestamp;

use super::forward::{NotYet, check_limits, count_backend, draw, hold, leave};
use super::{Core, Gauge, Turn};
use crate::apply;
use crate::decision::Decision;
use crate::drop_reason::DropReason;
use crate::flow::FlowValue;
use crate::meta::{BRIDGED, Kind};
use crate::stage::stateless;
use crate::stage::tcp_state::TcpState;
use crate::table::Timeouts;
use crate::table::neighbour::KIND_HOST;

/// When packets were last sent on without a flow.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stateless {
    last_ms: Option<u32>,
}

impl Stateless {
    /// Whether a connection may still be there that has no flow.
    #[inline(always)]
    pub(super) fn is_recent(&self) -> bool {
        self.last_ms.is_some()
    }

    /// Forgets the last packet when any connection has been silent for too long since. To be called more often than
    /// milliseconds come round again (49 days).
    pub(super) fn tend(&mut self, timeouts: &Timeouts, now: Timestamp) {
        let timeout_ms = timeouts.tcp_ms[TcpState::Established as usize].max(timeouts.udp_stream_ms);
        self.last_ms.take_if(|last_ms| now.millis().wrapping_sub(*last_ms) > timeout_ms);
    }
}

impl Core {
    /// Sends a packet on that gets no flow for this reason; drops it for the reason if it needs one.
    pub(super) fn without_flow(
        &mut self,
        turn: &mut Turn<'_>,
        index: usize,
        decision: &Decision,
        reason: DropReason,
    ) {
        let answer = decision.leaving_key(decision.key.source_port).reversed();
        // Answers to it would be another flow's.
        let is_taken = self.flows.find(&answer, self.flows.hash(&answer)).is_some();
        let is_plausible = stateless::is_plausible(&turn.batch.meta[index]);
        match stateless::rewrite(turn.tables, decision).filter(|_| is_plausible && !is_taken) {
            Some(value) => self.forward_stateless(turn, index, &value),
            None => turn.batch.dispositions[index] = Disposition::Drop(reason.code()),
        }
    }

    /// Sends an answer on that belongs to a connection without a flow. False: it is none.
    pub(super) fn answer_without_flow(&mut self, turn: &mut Turn<'_>, index: usize) -> bool {
        let meta = &turn.batch.meta[index];
        if !self.stateless.is_recent() || meta.kind != Kind::Flow || !stateless::is_plausible(meta) {
            return false;
        }
        let Some(value) = stateless::answer(turn.tables, meta) else { return false };
        self.forward_stateless(turn, index, &value);
        true
    }

    fn forward_stateless(&mut self, turn: &mut Turn<'_>, index: usize, value: &FlowValue) {
        let meta = &turn.batch.meta[index];
        // As `try_forward` has it.
        if meta.has(BRIDGED) && value.new_destination == meta.key.destination {
            self.bridge(turn, index, value);
            return self.note_stateless(turn.now);
        }
        let adjacency = match self.next_hop(value.new_destination, turn.tables, turn.events) {
            Ok((adjacency, _)) if adjacency.kind != KIND_HOST => adjacency,
            Ok(_) => {
                turn.batch.dispositions[index] = Disposition::Drop(DropReason::FlowTableFull.code());
                return;
            }
            Err(NotYet::Wait(interface, next_hop)) => return hold(turn, index, interface, next_hop),
            Err(NotYet::Never(reason)) => {
                turn.batch.dispositions[index] = Disposition::Drop(reason.code());
                return;
            }
        };
        if turn.waiting.would_overtake(index, adjacency.interface, adjacency.address) {
            return hold(turn, index, adjacency.interface, adjacency.address);
        }
        let hop = match check_limits(&turn.batch.meta[index], &adjacency) {
            Ok(hop) => hop,
            Err(obstacle) => return self.refuse_for(obstacle, turn, index),
        };
        let identification = draw(&mut self.identification);
        let Some((packet, meta, disposition)) = turn.batch.parts_mut(index) else { return };
        apply::rewrite(packet, meta, value, hop);
        *disposition = leave(packet, meta, &adjacency, identification);
        count_backend(value, meta, turn.tables, self.ownership.worker());
        self.note_stateless(turn.now);
    }

    fn note_stateless(&mut self, now: Timestamp) {
        self.stateless.last_ms = Some(now.millis());
        self.gauges.add(Gauge::PacketsStateless as usize, 1);
    }
}
