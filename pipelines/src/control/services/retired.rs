//! Backends that are gone while flows may still go there, until no worker has any.
//!
//! UDP flows end, as kube-proxy has it (pkg/proxy/conntrack/cleanup.go), unless nothing else serves; TCP flows live on
//! until they end by themselves or the drain time passes. Meanwhile their counter slots are nobody else's.

use crate::table::stale::{Fate, StaleBackends};

/// A backend that is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    pub(super) slot: u32,
    pub(super) address: u32,
    pub(super) port: u16,
    /// The service port it was of: its number and identity.
    pub(super) owner: (u32, u64),
    pub(super) fate: Planned,
    /// The first generation of tables that has this fate in it.
    pub(super) since: u64,
}

/// What is to become of its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planned {
    /// They stay as they are, since there is nowhere else to go.
    Keep,
    /// They go on for so many seconds, and then they end. The time runs from when it is first looked at: what the time is
    /// when a change is applied, nobody has said for as long as nothing changed.
    Drain { seconds: u32, until_s: Option<u64> },
    /// Now.
    Now(Fate),
}

/// All of them.
#[derive(Default)]
pub(super) struct RetiredBackends {
    list: Vec<Retired>,
    /// Whether the fates differ from those in the last tables.
    pub(super) changed: bool,
}

impl RetiredBackends {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, retired: Retired) {
        self.changed = true;
        self.list.push(retired);
    }

    /// Takes a backend back that has returned to its service port.
    pub(super) fn revive(&mut self, owner: (u32, u64), address: u32, port: u16) -> Option<u32> {
        let place = self.list.iter().position(|r| (r.owner, r.address, r.port) == (owner, address, port))?;
        self.changed = true;
        Some(self.list.swap_remove(place).slot)
    }

    /// Gives those of a service port another fate.
    pub(super) fn plan(&mut self, owner: (u32, u64), since: u64, fate: impl Fn(&Retired) -> Option<Planned>) {
        for retired in self.list.iter_mut().filter(|retired| retired.owner == owner) {
            if let Some(fate) = fate(retired).filter(|fate| *fate != retired.fate) {
                (retired.fate, retired.since) = (fate, since);
                self.changed = true;
            }
        }
    }

    /// Ends the flows of those whose drain time is over.
    pub(super) fn end_drained(&mut self, now_s: u64, since: u64) {
        for retired in &mut self.list {
            let Planned::Drain { seconds, until_s } = &mut retired.fate else { continue };
            if *until_s.get_or_insert(now_s + u64::from(*seconds)) <= now_s {
                (retired.fate, retired.since) = (Planned::Now(Fate::End), since);
                self.changed = true;
            }
        }
    }

    /// Takes those out that no worker's flow refers to: every worker has been through its flows since.
    pub(super) fn take_swept(&mut self, swept: u64) -> Vec<Retired> {
        let is_over = |r: &mut Retired| matches!(r.fate, Planned::Now(_)) && r.since <= swept;
        let over: Vec<Retired> = self.list.extract_if(.., is_over).collect();
        self.changed |= !over.is_empty();
        over
    }

    /// Slots of a service port's backends that are gone.
    pub(super) fn slots_of(&self, owner: (u32, u64)) -> impl Iterator<Item = u32> {
        self.list.iter().filter(move |retired| retired.owner == owner).map(|retired| retired.slot)
    }

    /// The fates, as workers read them.
    pub(super) fn fates(&self) -> StaleBackends {
        StaleBackends::new(self.list.iter().filter_map(|retired| match retired.fate {
            Planned::Now(fate) => Some((retired.slot, fate)),
            Planned::Keep | Planned::Drain { .. } => None,
        }))
    }
}
