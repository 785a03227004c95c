//! A few of many: tells of nearly everything that it is not among them, by one bit.

/// Bits of the filter: two cache lines. With ten members one of a hundred others is asked for in vain.
const BITS: u64 = 1_024;

/// The filter: a bit for each member's hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    words: [u64; BITS as usize / 64],
}

/// A number's bit: Fibonacci hashing, by the product's highest bits.
#[inline(always)]
fn bit_of(number: u64) -> (usize, u64) {
    let bit = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS.trailing_zeros());
    ((bit / 64) as usize, 1 << (bit % 64))
}

impl Filter {
    /// Of these numbers.
    pub fn new(numbers: impl Iterator<Item = u64>) -> Self {
        let mut filter = Self::default();
        for number in numbers {
            let (word, bit) = bit_of(number);
            filter.words[word] |= bit;
        }
        filter
    }

    /// Whether a number may be one of them. Never false for one that is.
    #[inline(always)]
    pub fn may_have(&self, number: u64) -> bool {
        let (word, bit) = bit_of(number);
        self.words[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_had_and_few_others() {
        let filter = Filter::new((0..10).map(|number| 0x0afe_0001_0050_0600 + (number << 32)));
        assert!((0..10).all(|number| filter.may_have(0x0afe_0001_0050_0600 + (number << 32))));
        let others = (10..10_010).filter(|number| filter.may_have(0x0afe_0001_0050_0600 + (number << 32)));
        assert!(others.count() < 300);
        assert!(!Filter::default().may_have(0));
    }
}
