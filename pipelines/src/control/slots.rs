//! Counter slots: a number for each backend and service port that stays the same from one generation to the next.
//!
//! A slot of what is gone is given to another only when no flow counts in it any more ([`crate::table::stale`]). What it
//! had counted until then is its base: values are read above it. The number of slots is bounded; what finds none is
//! counted in the last one together with others.

use engine::table::sharded_map::ShardedMap;

use crate::table::SLOT_COUNTERS;

/// Slots at the most: 64 bytes a slot and worker.
pub const SLOTS_MAX: usize = 1 << 20;

/// What a slot's counters stood at when it was given to another.
pub type SlotBases = ShardedMap<u32, [u64; SLOT_COUNTERS]>;

/// Which slots are free.
#[derive(Default)]
pub struct Slots {
    used: usize,
    free: Vec<u32>,
    bases: SlotBases,
}

impl Slots {
    /// A slot for something new.
    pub fn take(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.used.min(SLOTS_MAX - 1) as u32;
        self.used = (self.used + 1).min(SLOTS_MAX);
        slot
    }

    /// Whether a slot may be many's: it never goes with one of them.
    pub fn is_shared(slot: u32) -> bool {
        slot as usize == SLOTS_MAX - 1
    }

    /// Frees a slot that nothing counts in any more and that stands at `values`. The last one may be many's, and stays.
    pub fn give_back(&mut self, slot: u32, values: [u64; SLOT_COUNTERS]) {
        if !Self::is_shared(slot) {
            self.bases.insert(slot, values);
            self.free.push(slot);
        }
    }

    /// Slots that counters must have room for.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none was ever given out.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Slots in use.
    pub fn in_use(&self) -> usize {
        self.used - self.free.len()
    }

    /// What slots stood at when they were given out again.
    pub fn bases(&self) -> SlotBases {
        self.bases.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_and_used_again() {
        let mut slots = Slots::default();
        let (first, second) = (slots.take(), slots.take());
        assert_ne!(first, second);
        slots.give_back(first, [7; SLOT_COUNTERS]);
        assert_eq!((slots.take(), slots.len(), slots.in_use()), (first, 2, 2));
        assert_eq!(slots.bases().get(&first), Some([7; SLOT_COUNTERS]));
    }

    #[test]
    fn beyond_the_bound_the_last_is_shared() {
        let mut slots = Slots { used: SLOTS_MAX - 1, ..Slots::default() };
        assert_eq!([slots.take(), slots.take()], [(SLOTS_MAX - 1) as u32; 2]);
        slots.give_back((SLOTS_MAX - 1) as u32, [0; SLOT_COUNTERS]);
        assert_eq!((slots.take(), slots.len()), ((SLOTS_MAX - 1) as u32, SLOTS_MAX));
    }
}
