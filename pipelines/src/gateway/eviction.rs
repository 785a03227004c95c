//! Making place in a full flow table.
//!
//! A flow may make place for another while nobody has answered it, or when it is closed (nf_conntrack's `early_drop`); an
//! established one never. Flows that may are marked in the table as their state changes ([`conntrack::set_state`]), so one is
//! found in a few words however rare they are: no first packet is refused while there is one.

use arrayvec::ArrayVec;
use engine::clock::Timestamp;
use engine::table::flow::EntryId;

use super::first_packet::AT_ONCE;
use super::{Core, Gauge};
use crate::stage::conntrack;
use crate::table::Tables;

/// Pairs looked at for one that is expired when none is marked: the sweep comes by them all, and this is its help.
const EXPIRED_TRIES: u32 = 16;

impl Core {
    /// Makes place for `wanted` flows, as far as there are flows that may go, taking turns through the table.
    pub(super) fn make_place(&mut self, wanted: usize, tables: &Tables, now: Timestamp) {
        let missing = wanted.saturating_sub(self.flows.free_pairs()).min(AT_ONCE);
        let mut leaving = ArrayVec::<u32, AT_ONCE>::new();
        while leaving.len() < missing {
            let Some(pair) = self.flows.next_marked(self.evict_at) else { break };
            if leaving.first() == Some(&pair) {
                break;
            }
            let id = EntryId(pair * 2);
            self.flows.prefetch(id);
            self.flows.prefetch(id.peer());
            self.evict_at = pair + 1;
            leaving.push(pair);
        }
        if leaving.len() < missing {
            self.find_expired(missing, &mut leaving, tables, now.millis());
        }
        self.flows.remove_all(&leaving);
        self.gauges.add(Gauge::FlowsEvicted as usize, leaving.len() as u64);
    }

    /// Adds flows that are over by time and that the sweep has not come by.
    fn find_expired(
        &mut self,
        missing: usize,
        leaving: &mut ArrayVec<u32, AT_ONCE>,
        tables: &Tables,
        now_ms: u32,
    ) {
        let capacity = self.flows.capacity() as u32;
        for _ in 0..EXPIRED_TRIES {
            let pair = if self.evict_at < capacity { self.evict_at } else { 0 };
            self.evict_at = pair + 1;
            if leaving.len() < missing
                && conntrack::is_expired(&self.flows, pair, &tables.timeouts, now_ms)
                && !leaving.contains(&pair)
            {
                leaving.push(pair);
            }
        }
    }
}
