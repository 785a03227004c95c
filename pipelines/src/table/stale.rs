//! Backends that are gone while flows may still go there: what becomes of those flows.
//!
//! A worker asks this of a packet's flow only while there is anything in it to ask for, and sweeps its flows meanwhile; once
//! all workers have been through all their flows, the backend is taken out, and its counter slot is free for another.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::flow::NO_BACKEND;
use crate::table::filter::Filter;

/// What becomes of a flow to a backend that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends, and its next packet is decided anew.
    End,
    /// It goes on, and is counted in this slot; [`NO_BACKEND`]: nowhere.
    Count(u32),
}

/// The fates, by the counter slot of the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleBackends {
    fates: HashMap<u32, Fate, FxBuildHasher>,
    /// Slots whose flows end: asked for each packet.
    ends: Filter,
}

impl StaleBackends {
    /// From slots and fates.
    pub fn new(fates: impl Iterator<Item = (u32, Fate)>) -> Self {
        let fates: HashMap<u32, Fate, FxBuildHasher> = fates.collect();
        let ends = fates.iter().filter(|(_, fate)| **fate == Fate::End);
        let ends = Filter::new(ends.map(|(slot, _)| u64::from(*slot)));
        Self { fates, ends }
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.fates.is_empty()
    }

    /// Whether the flow of a packet that counts in `slot` has to end before it is used.
    #[inline(always)]
    pub fn must_end(&self, slot: u32) -> bool {
        self.ends.may_have(u64::from(slot)) && slot != NO_BACKEND && self.fate(slot) == Some(Fate::End)
    }

    /// What becomes of flows that count in `slot`.
    pub fn fate(&self, slot: u32) -> Option<Fate> {
        self.fates.get(&slot).copied()
    }
}
