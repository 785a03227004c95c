//! A hash map whose versions share what they have in common: copying it costs one reference a shard, changing a key
//! copies that key's shard. For tables that are published anew with each change, and read by many.
//!
//! A shard is a list of places, at the most half of them taken; a key lies at its own place or behind it, up to the next
//! free one. So a lookup reads one cache line beside the list of shards nearly always, and that line can be read ahead.
//!
//! Any key that can be hashed will do: 32-bit addresses today, 128-bit ones alike. Hashes have no secret: keys come from
//! trusted sources, and what is looked up changes nothing.

use core::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

/// Shards: with a million keys a change copies a thousand of them.
const SHARDS: usize = 1_024;
/// Places of the smallest shard.
const PLACES_MIN: usize = 4;

/// Places, a power of two of them, or none.
type Shard<K, V> = Arc<[Option<(K, V)>]>;

/// The map.
#[derive(Clone, Debug)]
pub struct ShardedMap<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    /// Keys in each shard.
    taken: Arc<Vec<u32>>,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Default for ShardedMap<K, V> {
    fn default() -> Self {
        // All empty shards are one.
        let empty: Shard<K, V> = Arc::from([]);
        Self { shards: Arc::new(vec![empty; SHARDS]), taken: Arc::new(vec![0; SHARDS]), len: 0 }
    }
}

/// Where a key belongs: its shard, and bits that its place there is drawn from.
#[inline(always)]
fn home<K: Hash>(key: &K) -> (usize, usize) {
    // The hasher leaves its best bits in different places for different keys' lengths: mixed once more, they are on top.
    let mixed = FxBuildHasher.hash_one(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 54) as usize % SHARDS, (mixed >> 32) as usize)
}

/// The place of a key, or the free one where it would be; none in a shard without places.
#[inline(always)]
fn search<K: Eq, V>(shard: &[Option<(K, V)>], key: &K, bits: usize) -> Option<usize> {
    let mask = shard.len().wrapping_sub(1);
    let mut place = bits & mask;
    loop {
        match shard.get(place)? {
            Some((other, _)) if other != key => place = (place + 1) & mask,
            _ => return Some(place),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> ShardedMap<K, V> {
    /// Keys in the map.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the line in which a key probably is, for nothing but to have it.
    #[inline(always)]
    pub fn touch(&self, key: &K) {
        let (shard, bits) = home(key);
        if let Some(shard) = self.shards.get(shard)
            && let Some(place) = shard.get(bits & shard.len().wrapping_sub(1))
        {
            core::hint::black_box(place.is_some());
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<V> {
        let (shard, bits) = home(key);
        let shard = self.shards.get(shard)?;
        shard.get(search(shard, key, bits)?)?.map(|(_, value)| value)
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter().flatten().copied())
    }

    /// Sets the value of a key. Gives the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (number, bits) = home(&key);
        let shard = Arc::make_mut(&mut self.shards).get_mut(number)?;
        let taken = Arc::make_mut(&mut self.taken).get_mut(number)?;
        let is_there = search(shard, &key, bits).is_some_and(|place| shard[place].is_some());
        if !is_there {
            if (*taken as usize + 1) * 2 > shard.len() {
                *shard = grown(shard);
            }
            *taken += 1;
            self.len += 1;
        }
        let place = search(shard, &key, bits)?;
        Arc::make_mut(shard).get_mut(place)?.replace((key, value)).map(|(_, old)| old)
    }

    /// Takes a key out. Gives its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.get(key)?;
        let (number, bits) = home(key);
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(number)?);
        let mut free = search(shard, key, bits)?;
        shard[free] = None;
        *Arc::make_mut(&mut self.taken).get_mut(number)? -= 1;
        self.len -= 1;
        // Those behind that were pushed past the free place come forward, or they would not be found any more.
        let mask = shard.len() - 1;
        let mut place = (free + 1) & mask;
        while let Some((other, _)) = shard[place] {
            let way_from_home = place.wrapping_sub(home(&other).1) & mask;
            if way_from_home >= place.wrapping_sub(free) & mask {
                shard.swap(place, free);
                free = place;
            }
            place = (place + 1) & mask;
        }
        Some(value)
    }
}

/// The same keys with twice the places.
fn grown<K: Copy + Eq + Hash, V: Copy>(shard: &[Option<(K, V)>]) -> Shard<K, V> {
    let mut places = vec![None; (shard.len() * 2).max(PLACES_MIN)];
    for pair in shard.iter().flatten() {
        if let Some(place) = search(&places, &pair.0, home(&pair.0).1) {
            places[place] = Some(*pair);
        }
    }
    places.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Every version stays what it was, whatever is done to later ones.
        #[test]
        fn versions_are_apart(steps in proptest::collection::vec((any::<bool>(), 0u64..300, any::<u16>()), 1..600)) {
            let (mut map, mut model) = (ShardedMap::default(), HashMap::new());
            let mut versions = Vec::new();
            for (number, (insert, key, value)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                if number % 53 == 0 {
                    versions.push((map.clone(), model.clone()));
                }
            }
            versions.push((map, model));
            for (map, model) in versions {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.iter().collect::<HashMap<_, _>>(), model.clone());
                for key in 0..300 {
                    prop_assert_eq!(map.get(&key), model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn keys_are_near_their_places() {
        let mut map = ShardedMap::default();
        for number in 0..50_000u32 {
            map.insert((0x0afe_0000 + number, 80u16, 6u8), number);
        }
        let steps = map.iter().map(|(key, _)| {
            let (shard, bits) = home(&key);
            let mask = map.shards[shard].len() - 1;
            search(&map.shards[shard], &key, bits).unwrap().wrapping_sub(bits) & mask
        });
        let (far, farthest) =
            steps.fold((0, 0), |(far, most), steps| (far + (steps > 3) as u32, most.max(steps)));
        assert!(far < 2_500 && farthest < 40, "{far} {farthest}");
    }

    #[test]
    fn keys_spread_over_the_shards() {
        let mut map = ShardedMap::default();
        for number in 0..100_000u32 {
            map.insert((0x0afe_0000 + number / 4, (number % 4) as u16 * 1_000 + 80, 6u8), number);
        }
        let largest = map.taken.iter().max().unwrap();
        assert!(*largest < 160, "the mean is 98: {largest}");
    }
}
