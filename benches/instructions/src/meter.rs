//! Marks what is counted. Callgrind is told by name of the two functions that must stay functions.

use std::hint::black_box;

/// Callgrind counts while this runs.
#[inline(never)]
pub(crate) fn counted_region(work: &mut dyn FnMut()) {
    black_box(&mut *work)();
    // Something to come back to: a call in the last place would be a jump, which callgrind does not see end.
    black_box(());
}

/// Callgrind writes down what it has counted when this is entered, and starts at zero again.
#[inline(never)]
pub(crate) fn kind_ends(name: &str, operations: u64) {
    // The program's output tells which of callgrind's parts is which.
    println!("{}\t{}", black_box(name), black_box(operations));
}

/// Counts one kind after the other.
#[derive(Default)]
pub(crate) struct Meter {
    operations: u64,
}

impl Meter {
    /// Counts `work`, which does something `operations` times.
    pub(crate) fn count(&mut self, operations: usize, mut work: impl FnMut()) {
        counted_region(&mut work);
        self.operations += operations as u64;
    }

    /// All that was counted since the last call was of this kind.
    pub(crate) fn ends(&mut self, name: &str) {
        assert!(self.operations > 0, "{name}: nothing was counted");
        kind_ends(name, std::mem::take(&mut self.operations));
    }
}
