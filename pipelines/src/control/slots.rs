//! Counter slots: a number for each backend and service port that stays the same from one generation to the next.
//!
//! Slots of what is gone are not given to others while the process runs, so counters never change their meaning; the
//! number of slots is bounded, and what finds none is counted in the last one together.

use std::collections::HashMap;

/// Slots at the most: 128 bytes a slot and worker.
pub const SLOTS_MAX: usize = 1 << 20;

/// Which slot counts what.
#[derive(Default)]
pub struct Slots {
    numbers: HashMap<String, u32>,
}

impl Slots {
    /// The slot of what is called `name`; a new one if there is none.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len().min(SLOTS_MAX - 1) as u32;
        if self.numbers.len() < SLOTS_MAX {
            self.numbers.insert(name.to_owned(), number);
        }
        number
    }

    /// Slots given out.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether none was given out.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_distinct() {
        let mut slots = Slots::default();
        let (first, second) = (slots.number("a"), slots.number("b"));
        assert_ne!(first, second);
        assert_eq!((slots.number("a"), slots.number("b"), slots.len()), (first, second, 2));
    }
}
