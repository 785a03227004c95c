//! A hash map whose versions share what they have in common: copying it costs one reference a shard, changing a key
//! copies that key's shard. For tables that are published anew with each change, and read by many.
//!
//! Any key that can be hashed will do: 32-bit addresses today, 128-bit ones alike. Hashes have no secret: keys come from
//! trusted sources, and what is looked up changes nothing.

use core::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Shards: with a million keys a change copies a thousand of them.
const SHARDS: usize = 1_024;

type Shard<K, V> = Arc<HashTable<(K, V)>>;

/// The map.
#[derive(Clone, Debug)]
pub struct ShardedMap<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    len: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Default for ShardedMap<K, V> {
    fn default() -> Self {
        // All empty shards are one.
        let empty = Arc::new(HashTable::new());
        Self { shards: Arc::new(vec![empty; SHARDS]), len: 0 }
    }
}

#[inline(always)]
fn hash_of<K: Hash>(key: &K) -> u64 {
    FxBuildHasher.hash_one(key)
}

/// Bits that neither the place within a shard (the low ones) nor its tag (the high ones) is drawn from.
#[inline(always)]
fn shard_of(hash: u64) -> usize {
    (hash >> 20) as usize % SHARDS
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

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<V> {
        let hash = hash_of(key);
        self.shards.get(shard_of(hash))?.find(hash, |(other, _)| other == key).map(|(_, value)| *value)
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter().copied())
    }

    fn shard_mut(&mut self, hash: u64) -> Option<&mut HashTable<(K, V)>> {
        Arc::make_mut(&mut self.shards).get_mut(shard_of(hash)).map(Arc::make_mut)
    }

    /// Sets the value of a key. Gives the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = hash_of(&key);
        let shard = self.shard_mut(hash)?;
        let old = match shard.find_mut(hash, |(other, _)| *other == key) {
            Some((_, place)) => return Some(core::mem::replace(place, value)),
            None => {
                shard.insert_unique(hash, (key, value), |(key, _)| hash_of(key));
                None
            }
        };
        self.len += 1;
        old
    }

    /// Takes a key out. Gives its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let hash = hash_of(key);
        let shard = self.shard_mut(hash)?;
        let (_, value) = shard.find_entry(hash, |(other, _)| other == key).ok()?.remove().0;
        self.len -= 1;
        Some(value)
    }
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
    fn keys_spread_over_the_shards() {
        let mut map = ShardedMap::default();
        for number in 0..100_000u32 {
            map.insert((0x0afe_0000 + number / 4, (number % 4) as u16 * 1_000 + 80, 6u8), number);
        }
        let largest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest < 200, "the mean is 98: {largest}");
    }
}
