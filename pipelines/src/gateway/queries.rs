//! Questions about flows, answered by their owner in bounded slices.

use engine::table::flow::{EntryId, FlowEntry, FlowKey};

use super::Gateway;
use crate::flow::{FLAG_ORIGINAL, FlowValue};
use crate::stage::conntrack;

/// Pairs that one slice looks at.
const SLICE_PAIRS: u32 = 512;

/// A flow as it was when its owner was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// The first packet as it arrived.
    pub original: FlowKey,
    /// The answer as it arrives.
    pub reply: FlowKey,
    /// State number; its meaning depends on the protocol.
    pub state: u8,
    /// `FLAG_*` of the original direction.
    pub flags: u8,
    /// Milliseconds since its last packet.
    pub idle_ms: u32,
    /// Milliseconds until it ends if nothing comes.
    pub expires_in_ms: u32,
    /// Counter slot of its backend.
    pub backend_slot: u32,
}

/// A question about flows.
pub enum FlowQuery {
    /// "What flows do you have, from this pair on?" Brings the list to fill, so that the owner allocates nothing.
    Slice {
        /// First pair to look at.
        from_pair: u32,
        /// Empty, with as much capacity as may be filled.
        reports: Vec<FlowReport>,
    },
    /// "Do you have the flow of packets with this key?"
    Key(FlowKey),
}

/// The answer to a query, of its kind.
pub enum FlowAnswer {
    /// A slice.
    Slice {
        /// Its flows.
        reports: Vec<FlowReport>,
        /// Where the next slice starts; none: that was all.
        next_pair: Option<u32>,
    },
    /// A copy of the entry with the key, and of the other direction's; none: there is no such flow.
    Key(Option<[FlowEntry<FlowValue>; 2]>),
}

impl Gateway {
    /// Answers at the most one query.
    pub(super) fn answer_queries(&mut self, now_ms: u32) {
        let Some((questions, _)) = &mut self.queries else { return };
        let answer = match questions.pop() {
            Some(FlowQuery::Slice { from_pair, reports }) => self.slice(from_pair, reports, now_ms),
            Some(FlowQuery::Key(key)) => {
                let flows = &self.core.flows;
                let found = flows.find(&key, flows.hash(&key));
                FlowAnswer::Key(found.map(|id: EntryId| [*flows.entry(id), *flows.entry(id.peer())]))
            }
            None => return,
        };
        if let Some((_, answers)) = &mut self.queries {
            // Whoever asks waits for one answer at a time, so the ring has room.
            let _ = answers.push(answer);
        }
    }

    fn slice(&mut self, from_pair: u32, mut reports: Vec<FlowReport>, now_ms: u32) -> FlowAnswer {
        let timeouts = self.tables.load().timeouts;
        let flows = &self.core.flows;
        let capacity = flows.capacity() as u32;
        let end = from_pair.saturating_add(SLICE_PAIRS).min(capacity);
        let mut pair = from_pair;
        while pair < end && reports.len() < reports.capacity() {
            if let Some((first, second)) = flows.pair(pair) {
                let (original, reply) =
                    if first.value.has(FLAG_ORIGINAL) { (first, second) } else { (second, first) };
                let idle_ms = conntrack::idle_ms(&first.value, &second.value, now_ms);
                let timeout_ms = conntrack::timeout_ms(&timeouts, &original.key, original.value.state);
                reports.push(FlowReport {
                    original: original.key,
                    reply: reply.key,
                    state: original.value.state,
                    flags: original.value.flags,
                    idle_ms,
                    expires_in_ms: timeout_ms.saturating_sub(idle_ms),
                    backend_slot: original.value.backend_slot,
                });
            }
            pair += 1;
        }
        FlowAnswer::Slice { reports, next_pair: (pair < capacity).then_some(pair) }
    }
}
