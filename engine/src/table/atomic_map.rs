//! A fixed map from 64-bit keys to 64-bit values, written by one thread and read by all without locks.
//!
//! Open addressing with a bounded probe: what finds no place within [`PROBES`] is refused. A reader takes a value only
//! if the key stands there before and after, so a place that is reused meanwhile reads as absent, never as another's.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places looked at for a key, at the most.
pub const PROBES: usize = 32;
/// Key of a place that was never used; ends a probe.
const EMPTY: u64 = 0;
/// Key of a place that was used and freed; does not end a probe.
const FREED: u64 = u64::MAX;

struct Place {
    key: AtomicU64,
    value: AtomicU64,
}

/// The map. Keys 0 and `u64::MAX` are not allowed and never found.
pub struct AtomicMap {
    places: Box<[Place]>,
}

impl AtomicMap {
    /// A map with at least twice as many places as `capacity`.
    pub fn new(capacity: usize) -> Self {
        let places = (capacity.max(8) * 2).next_power_of_two();
        Self {
            places: (0..places)
                .map(|_| Place { key: AtomicU64::new(EMPTY), value: AtomicU64::new(0) })
                .collect(),
        }
    }

    /// Places in the map; `find` gives one of them.
    pub fn place_count(&self) -> usize {
        self.places.len()
    }

    #[inline(always)]
    fn start(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }

    #[inline(always)]
    fn probe(&self, key: u64) -> impl Iterator<Item = (usize, &Place)> {
        let (start, mask) = (self.start(key), self.places.len() - 1);
        (0..PROBES).map(move |step| {
            let place = (start + step) & mask;
            (place, &self.places[place])
        })
    }

    /// The place and value of a key.
    #[inline(always)]
    pub fn find(&self, key: u64) -> Option<(usize, u64)> {
        if key == EMPTY || key == FREED {
            return None;
        }
        for (index, place) in self.probe(key) {
            let found = place.key.load(Ordering::Acquire);
            if found == key {
                let value = place.value.load(Ordering::Acquire);
                return (place.key.load(Ordering::Acquire) == key).then_some((index, value));
            }
            if found == EMPTY {
                return None;
            }
        }
        None
    }

    /// Sets the value of a key, new or old. Gives its place; none if there is none within reach. One writer only.
    pub fn set(&self, key: u64, value: u64) -> Option<usize> {
        if key == EMPTY || key == FREED {
            return None;
        }
        let mut free = None;
        for (index, place) in self.probe(key) {
            let found = place.key.load(Ordering::Relaxed);
            if found == key {
                place.value.store(value, Ordering::Release);
                return Some(index);
            }
            if found == FREED || found == EMPTY {
                free = free.or(Some(index));
            }
            if found == EMPTY {
                break;
            }
        }
        let place = &self.places[free?];
        // The value first: whoever sees the key sees at least this value.
        place.value.store(value, Ordering::Release);
        place.key.store(key, Ordering::Release);
        free
    }

    /// Takes a key out. One writer only.
    pub fn remove(&self, key: u64) {
        if let Some((index, _)) = self.find(key) {
            self.places[index].key.store(FREED, Ordering::Release);
        }
    }

    /// Everything in the map as of now: place, key, value.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64, u64)> + '_ {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let key = place.key.load(Ordering::Acquire);
            (key != EMPTY && key != FREED).then(|| (index, key, place.value.load(Ordering::Acquire)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((0u8..3, 1u64..40, any::<u64>()), 1..300)) {
            let (map, mut model) = (AtomicMap::new(64), HashMap::new());
            for (step, key, value) in steps {
                match step {
                    0 | 1 => {
                        prop_assert!(map.set(key, value).is_some());
                        model.insert(key, value);
                    }
                    _ => {
                        map.remove(key);
                        model.remove(&key);
                    }
                }
                for key in 0..40 {
                    prop_assert_eq!(map.find(key).map(|found| found.1), model.get(&key).copied());
                }
            }
            prop_assert_eq!(map.iter().map(|(_, key, value)| (key, value)).collect::<HashMap<_, _>>(), model);
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        let map = AtomicMap::new(8);
        let held = (1..=100).filter(|key| map.set(*key, 0).is_some()).count();
        assert_eq!((held, map.set(0, 1), map.set(u64::MAX, 1)), (16, None, None));
    }
}
