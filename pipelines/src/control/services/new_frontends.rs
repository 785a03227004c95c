//! Frontends that lead where they did not: flows to them that began before may be astray, until every worker has looked.

use std::collections::VecDeque;

use crate::table::filter::Filter;
use crate::table::service::FrontendKey;

/// Generations kept apart; older ones are looked for together with the next.
const GENERATIONS_MAX: usize = 64;

/// Those that workers have still to look for, by the generation of tables that they came with.
#[derive(Default)]
pub(super) struct NewFrontends {
    /// Since the last table.
    added: Vec<FrontendKey>,
    waiting: VecDeque<(u64, Vec<FrontendKey>)>,
    has_changed: bool,
}

impl NewFrontends {
    /// A frontend leads where it did not.
    pub(super) fn add(&mut self, key: FrontendKey) {
        self.added.push(key);
    }

    /// Whether any has still to be looked for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A table of this generation is made: what workers are to look for with it, if that is other than before. No flow began
    /// before the first.
    pub(super) fn publish(&mut self, generation: u64) -> Option<Filter> {
        let added = core::mem::take(&mut self.added);
        if !added.is_empty() && generation > 1 {
            self.waiting.push_back((generation, added));
            self.has_changed = true;
        }
        if self.waiting.len() > GENERATIONS_MAX
            && let Some((_, oldest)) = self.waiting.pop_front()
            && let Some((_, next)) = self.waiting.front_mut()
        {
            next.extend(oldest);
        }
        core::mem::take(&mut self.has_changed)
            .then(|| Filter::new(self.waiting.iter().flat_map(|(_, keys)| keys).map(FrontendKey::number)))
    }

    /// Every worker has looked through its flows with tables of this generation or a later one. True: some are done with.
    pub(super) fn take_swept(&mut self, swept: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(generation, _)| *generation > swept);
        let is_less = self.waiting.len() < before;
        self.has_changed |= is_less;
        is_less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> FrontendKey {
        FrontendKey { address: number, port: 80, protocol: 6 }
    }

    #[test]
    fn each_is_looked_for_until_it_was() {
        let mut new = NewFrontends::default();
        new.add(key(0));
        assert_eq!(
            (new.publish(1), new.is_waiting()),
            (None, false),
            "no flow is older than the first table"
        );
        let mut last = Filter::default();
        for number in 2..=200 {
            new.add(key(number));
            last = new.publish(u64::from(number)).unwrap();
        }
        assert!((2..=200).all(|number| last.may_have(key(number).number())));
        assert_eq!(new.publish(201), None, "nothing else than before");
        assert!(new.take_swept(198) && !new.take_swept(198));
        let filter = new.publish(202).unwrap();
        assert!(filter.may_have(key(199).number()) && filter.may_have(key(200).number()));
        let others = (2..199).filter(|number| filter.may_have(key(*number).number())).count();
        assert!(new.is_waiting() && others < 10, "{others}");
        assert!(new.take_swept(200) && !new.is_waiting());
        assert_eq!(new.publish(203), Some(Filter::default()));
    }
}
