//! A list whose versions share what they have in common: copying it costs one reference a chunk, changing a place copies
//! that place's chunk. For tables that are published anew with each change.

use std::sync::Arc;

/// Places of a chunk: a change copies this many, a new version this fraction of all as references.
const CHUNK: usize = 256;

/// The list.
#[derive(Clone, Debug)]
pub struct ChunkedVec<T> {
    chunks: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for ChunkedVec<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> ChunkedVec<T> {
    /// Places in the list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is at a place.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Clone> ChunkedVec<T> {
    /// Adds a place at the end.
    pub fn push(&mut self, value: T) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(value),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(Arc::new(chunk));
            }
        }
        self.len += 1;
    }

    /// Replaces what is at a place; false: there is no such place.
    pub fn set(&mut self, index: usize, value: T) -> bool {
        let Some(chunk) = self.chunks.get_mut(index / CHUNK) else { return false };
        let Some(place) = Arc::make_mut(chunk).get_mut(index % CHUNK) else { return false };
        *place = value;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every version stays what it was, whatever is done to later ones.
        #[test]
        fn versions_are_apart(steps in proptest::collection::vec((any::<bool>(), 0usize..700, any::<u32>()), 1..900)) {
            let (mut list, mut model) = (ChunkedVec::default(), Vec::new());
            let mut versions = Vec::new();
            for (number, (push, place, value)) in steps.into_iter().enumerate() {
                if push {
                    list.push(value);
                    model.push(value);
                } else {
                    prop_assert_eq!(list.set(place, value), place < model.len());
                    if let Some(old) = model.get_mut(place) {
                        *old = value;
                    }
                }
                if number % 97 == 0 {
                    versions.push((list.clone(), model.clone()));
                }
            }
            versions.push((list, model));
            for (list, model) in versions {
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.iter()));
                prop_assert_eq!(list.get(model.len()), None);
            }
        }
    }
}
