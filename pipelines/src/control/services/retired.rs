//! Backends that are gone while flows may still go there, until no worker has any.
//!
//! UDP flows end, as kube-proxy has it (pkg/proxy/conntrack/cleanup.go), unless nothing else serves; TCP flows live on
//! until they end by themselves or the drain time passes. Meanwhile their counter slots are nobody else's.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

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

/// The service port that a backend was of (its number and identity), the backend's address and port, and its slot.
type Name = ((u32, u64), u32, u16, u32);

/// All of them: in order, so that a change of one service costs nothing for those of others, of which there may be many.
#[derive(Default)]
pub(super) struct RetiredBackends {
    list: BTreeMap<Name, Retired>,
    /// Whether the fates differ from those in the last tables.
    pub(super) changed: bool,
}

impl RetiredBackends {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, retired: Retired) {
        let Retired { slot, address, port, owner, .. } = retired;
        self.changed = true;
        self.list.insert((owner, address, port, slot), retired);
    }

    /// Takes a backend back that has returned to its service port.
    pub(super) fn revive(&mut self, owner: (u32, u64), address: u32, port: u16) -> Option<u32> {
        let all = (owner, address, port, 0)..=(owner, address, port, u32::MAX);
        let name = *self.list.range(all).next()?.0;
        self.changed = true;
        self.list.remove(&name).map(|retired| retired.slot)
    }

    /// Gives those of a service port another fate.
    pub(super) fn plan(&mut self, owner: (u32, u64), since: u64, fate: impl Fn(&Retired) -> Option<Planned>) {
        for retired in self.list.range_mut(names_of(owner)).map(|(_, retired)| retired) {
            if let Some(fate) = fate(retired).filter(|fate| *fate != retired.fate) {
                (retired.fate, retired.since) = (fate, since);
                self.changed = true;
            }
        }
    }

    /// Ends the flows of those whose drain time is over.
    pub(super) fn end_drained(&mut self, now_s: u64, since: u64) {
        for retired in self.list.values_mut() {
            let Planned::Drain { seconds, until_s } = &mut retired.fate else { continue };
            if *until_s.get_or_insert(now_s + u64::from(*seconds)) <= now_s {
                (retired.fate, retired.since) = (Planned::Now(Fate::End), since);
                self.changed = true;
            }
        }
    }

    /// Takes those out that no worker's flow refers to: every worker has been through its flows since.
    pub(super) fn take_swept(&mut self, swept: u64) -> Vec<Retired> {
        let is_over = |r: &Retired| matches!(r.fate, Planned::Now(_)) && r.since <= swept;
        let over: Vec<Retired> = self.list.values().copied().filter(is_over).collect();
        for Retired { owner, address, port, slot, .. } in &over {
            self.list.remove(&(*owner, *address, *port, *slot));
        }
        self.changed |= !over.is_empty();
        over
    }

    /// Slots of a service port's backends that are gone.
    pub(super) fn slots_of(&self, owner: (u32, u64)) -> impl Iterator<Item = u32> {
        self.list.range(names_of(owner)).map(|(_, retired)| retired.slot)
    }

    /// The fates, as workers read them.
    pub(super) fn fates(&self) -> StaleBackends {
        StaleBackends::new(self.list.values().filter_map(|retired| match retired.fate {
            Planned::Now(fate) => Some((retired.slot, fate)),
            Planned::Keep | Planned::Drain { .. } => None,
        }))
    }
}

/// The names of all backends that one service port had.
fn names_of(owner: (u32, u64)) -> RangeInclusive<Name> {
    (owner, 0, 0, 0)..=(owner, u32::MAX, u16::MAX, u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_service_port_leaves_others_alone() {
        let mut all = RetiredBackends::default();
        let retired =
            |slot, address, owner| Retired { slot, address, port: 80, owner, fate: Planned::Keep, since: 1 };
        let (one, other) = ((3, 7), (3, 8));
        for (slot, address, owner) in [(1, 10, one), (2, 11, one), (3, 10, other), (4, u32::MAX, one)] {
            all.push(retired(slot, address, owner));
        }
        assert!(all.slots_of(one).eq([1, 2, 4]) && all.slots_of(other).eq([3]));
        assert_eq!(
            (all.revive(one, 11, 80), all.revive(one, 11, 80), all.revive(one, 10, 81)),
            (Some(2), None, None)
        );
        all.plan(one, 5, |_| Some(Planned::Now(Fate::End)));
        assert_eq!((all.fates().fate(1), all.fates().fate(3)), (Some(Fate::End), None));
        assert_eq!(all.take_swept(4).len(), 0, "workers have not been through their flows since");
        assert!(all.take_swept(5).iter().map(|retired| retired.slot).eq([1, 4]));
        assert!(all.slots_of(one).next().is_none() && !all.is_empty());
    }
}
