//! A fixed array of small records, written by one thread and read by all without locks.
//!
//! Each record has a sequence number that is odd while it is being written. A reader copies the words and takes them
//! only if the number was even and the same before and after (as in Linux, include/linux/seqlock.h). All words are
//! atomics, so a torn read is never undefined, only thrown away; readers try a bounded number of times.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::prefetch::prefetch_read;

/// Words of a record: with its sequence number it fills two cache lines.
pub const WORDS: usize = 15;
/// Copies a reader tries before it takes the record for absent. A writer needs some tens of cycles.
const TRIES: usize = 64;

#[repr(C, align(128))]
struct Slot {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The array. Writing takes `&Writer`, of which there is one.
pub struct SeqlockArray {
    slots: Box<[Slot]>,
}

impl SeqlockArray {
    /// `length` records of zeros.
    pub fn new(length: usize) -> Self {
        let slots = (0..length)
            .map(|_| Slot { sequence: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] })
            .collect();
        Self { slots }
    }

    /// Records in the array.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the array has none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Asks for a record.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            prefetch_read(slot);
            prefetch_read(&raw const slot.words[7]);
        }
    }

    /// A copy of a record of one moment. None beyond the array, or while it is being written all the time.
    #[inline(always)]
    pub fn read(&self, index: usize) -> Option<[u64; WORDS]> {
        let slot = self.slots.get(index)?;
        for _ in 0..TRIES {
            let before = slot.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let words = core::array::from_fn(|word| slot.words[word].load(Ordering::Relaxed));
                fence(Ordering::Acquire);
                if slot.sequence.load(Ordering::Relaxed) == before {
                    return Some(words);
                }
            }
            core::hint::spin_loop();
        }
        None
    }

    /// One word of a record; consistent by itself alone.
    #[inline(always)]
    pub fn word(&self, index: usize, word: usize) -> u64 {
        self.slots.get(index).map_or(0, |slot| slot.words[word % WORDS].load(Ordering::Acquire))
    }

    /// Replaces a record. Only one thread at a time may write to the array: the caller's promise, which costs readers
    /// their consistency (not memory safety) when broken.
    pub fn write(&self, index: usize, words: &[u64; WORDS]) {
        let Some(slot) = self.slots.get(index) else { return };
        let sequence = slot.sequence.load(Ordering::Relaxed);
        slot.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in slot.words.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        slot.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn readers_never_see_a_mixture() {
        let array = Arc::new(SeqlockArray::new(2));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (array, stop) = (Arc::clone(&array), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut seen = 0;
                loop {
                    // Asked before the last read, which then sees all that was written.
                    let is_last = stop.load(Ordering::Acquire);
                    if let Some(words) = array.read(1) {
                        assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
                        seen = seen.max(words[0]);
                    }
                    if is_last {
                        return seen;
                    }
                }
            })
        };
        for value in 1..=100_000 {
            array.write(1, &[value; WORDS]);
        }
        stop.store(true, Ordering::Release);
        assert_eq!(reader.join().unwrap(), 100_000);
        assert_eq!(array.read(0), Some([0; WORDS]));
        assert_eq!(array.read(2), None);
    }
}
