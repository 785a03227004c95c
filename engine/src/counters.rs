//! Counters: words with one writer, readable by all at any time.
//!
//! A worker adds with a load and a store, no locked instruction; the control thread reads whenever it likes and sees
//! values that are right each, if not of one instant together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use crate::prefetch::prefetch_read;
use crate::table::pages::PageArray;

/// A row of counters of one writer. Clones show the same row.
#[derive(Clone)]
pub struct Counters {
    values: Arc<Lines>,
}

/// A cache line of its own, so that no other writer's counters share it.
#[derive(Default, FromZeros)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// Where the lines are.
enum Lines {
    Heap(Box<[Line]>),
    Pages(PageArray<Line>),
}

impl core::ops::Deref for Lines {
    type Target = [Line];
    #[inline(always)]
    fn deref(&self) -> &[Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Pages(lines) => lines,
        }
    }
}

impl Counters {
    /// `count` counters at zero.
    pub fn new(count: usize) -> Self {
        Self { values: Arc::new(Lines::Heap((0..count.div_ceil(8)).map(|_| Line::default()).collect())) }
    }

    /// The same on large pages, where they are to be had: for rows that are used here and there, so that each use does not
    /// wait for a page's address as well.
    pub fn on_large_pages(count: usize) -> Self {
        match PageArray::new(count.div_ceil(8)) {
            Ok(lines) => Self { values: Arc::new(Lines::Pages(lines)) },
            Err(_) => Self::new(count),
        }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.values.get(index / 8).map(|line| &line.0[index % 8])
    }

    /// Asks the cache for a counter's line.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        if let Some(line) = self.values.get(index / 8) {
            prefetch_read(&raw const *line);
        }
    }

    /// Adds. Only the row's writer may. An index beyond the row counts nowhere.
    #[inline(always)]
    pub fn add(&self, index: usize, amount: u64) {
        if let Some(word) = self.word(index) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Sets a gauge. Only the row's writer may.
    #[inline(always)]
    pub fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The value as of now; 0 beyond the row.
    pub fn get(&self, index: usize) -> u64 {
        self.word(index).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Counters in the row, rounded up to a full line.
    pub fn len(&self) -> usize {
        self.values.len() * 8
    }

    /// Whether the row has none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// What became of packets, as one equation that holds at every quiet moment:
/// received + handed in + originated + copied = transmitted + handed off + consumed + dropped + held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Account {
    /// Came in by a port.
    Received,
    /// Came in from another worker's or the host's ring.
    HandedIn,
    /// Made here: answers, errors, requests.
    Originated,
    /// Made here as a copy of another packet.
    Copied,
    /// Left by a port.
    Transmitted,
    /// Left by another worker's or the host's ring.
    HandedOff,
    /// Ended having done its work.
    Consumed,
    /// Ended for a named reason.
    Dropped,
    /// Is inside, waiting: a gauge.
    Held,
}

impl Account {
    /// All terms, in the order of the equation.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Received, "received"),
        (Self::HandedIn, "handed_in"),
        (Self::Originated, "originated"),
        (Self::Copied, "copied"),
        (Self::Transmitted, "transmitted"),
        (Self::HandedOff, "handed_off"),
        (Self::Consumed, "consumed"),
        (Self::Dropped, "dropped"),
        (Self::Held, "held"),
    ];
}

/// Whether the equation holds for these values, which are in the order of [`Account::ALL`].
pub fn is_balanced(values: &[u64; 9]) -> bool {
    let (come, gone) = values.split_at(4);
    come.iter().sum::<u64>() == gone.iter().sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ignores_what_lies_beyond() {
        for counters in [Counters::new(9), Counters::on_large_pages(9)] {
            counts(counters);
        }
    }

    fn counts(counters: Counters) {
        let reader = counters.clone();
        counters.add(8, 2);
        counters.add(8, 3);
        counters.set(0, 7);
        counters.add(99, 1);
        assert_eq!((reader.get(8), reader.get(0), reader.get(99), reader.len()), (5, 7, 0, 16));
    }

    #[test]
    fn equation_is_checked() {
        assert!(is_balanced(&[5, 1, 1, 1, 4, 1, 1, 1, 1]));
        assert!(!is_balanced(&[5, 1, 1, 1, 4, 1, 1, 1, 0]));
    }
}
