//! A set of small numbers that finds its next member in a handful of words, however sparse it is.
//!
//! One bit a number, and above each 64 of them one bit that says whether any is set, up to a single word: a million
//! numbers take four levels, 124 KiB.

/// Bits of a word, and how many words one bit above stands for.
const WORD: usize = u64::BITS as usize;

/// The set.
#[derive(Clone, Debug)]
pub struct BitTree {
    /// The numbers' own bits first, the single word last.
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    /// A set of numbers below `length`, empty.
    pub fn new(length: usize) -> Self {
        let mut levels = Vec::new();
        let mut bits = length.max(1);
        loop {
            let words = bits.div_ceil(WORD);
            levels.push(vec![0; words]);
            if words == 1 {
                return Self { levels };
            }
            bits = words;
        }
    }

    /// Bytes of memory it holds.
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.len() * size_of::<u64>()).sum()
    }

    /// Whether a number is in the set.
    #[inline]
    pub fn contains(&self, number: usize) -> bool {
        self.levels[0].get(number / WORD).is_some_and(|word| word >> (number % WORD) & 1 == 1)
    }

    /// Puts a number in. Numbers beyond the length are not taken.
    #[inline]
    pub fn insert(&mut self, number: usize) {
        let mut place = number;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(place / WORD) else { return };
            let before = core::mem::replace(word, *word | 1 << (place % WORD));
            if before != 0 {
                return;
            }
            place /= WORD;
        }
    }

    /// Takes a number out.
    #[inline]
    pub fn remove(&mut self, number: usize) {
        let mut place = number;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(place / WORD) else { return };
            let before = core::mem::replace(word, *word & !(1 << (place % WORD)));
            if before == 0 || *word != 0 {
                return;
            }
            place /= WORD;
        }
    }

    /// The first number in the set that is `from` or more: two words of each level at the most.
    #[inline]
    pub fn next(&self, from: usize) -> Option<usize> {
        let (mut level, mut place) = (0, from);
        // Up, until a word has a bit at or behind the place; the next word's bit is asked for one level higher.
        let mut found = loop {
            let bits = self.levels.get(level)?.get(place / WORD).map_or(0, |word| word >> (place % WORD));
            if bits != 0 {
                break place + bits.trailing_zeros() as usize;
            }
            place = place / WORD + 1;
            level += 1;
        };
        // Down, to the first bit of each word.
        while level > 0 {
            level -= 1;
            found = found * WORD + self.levels[level].get(found)?.trailing_zeros() as usize;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(
            length in 1usize..300_000,
            steps in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 1..200),
        ) {
            let (mut tree, mut model) = (BitTree::new(length), BTreeSet::new());
            for (insert, number, from) in steps {
                // Near the front, so that numbers come again, and everywhere.
                let number = number as usize % if number % 2 == 0 { length } else { length.min(200) };
                let from = from as usize % (length + 2);
                if insert {
                    tree.insert(number);
                    model.insert(number);
                } else {
                    tree.remove(number);
                    model.remove(&number);
                }
                prop_assert_eq!(tree.contains(number), insert);
                prop_assert_eq!(tree.next(from), model.range(from..).next().copied());
                prop_assert_eq!(tree.next(0), model.first().copied());
            }
            for number in model {
                tree.remove(number);
            }
            prop_assert!(tree.levels.iter().flatten().all(|word| *word == 0));
        }
    }

    #[test]
    fn numbers_beyond_the_length_are_not_there() {
        let mut tree = BitTree::new(64);
        tree.insert(64);
        assert!(!tree.contains(64) && tree.next(0).is_none() && tree.next(1 << 40).is_none());
        tree.insert(63);
        assert_eq!((tree.next(0), tree.next(63), tree.next(64)), (Some(63), Some(63), None));
    }
}
