//! A token bucket: how often something may happen, without a clock of its own.

use crate::clock::Timestamp;

/// What one event costs. Credit is counted in tokens times nanoseconds, so that no rate is rounded.
const COST: u64 = 1_000_000_000;

/// Allows `rate` events a second on average and a burst of some at once. Starts full.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate_per_s: u32,
    credit_max: u64,
    credit: u64,
    filled_at: Timestamp,
}

impl TokenBucket {
    /// A full bucket. With a rate of 0 it never fills again; with a burst of 0 nothing passes.
    pub fn new(rate_per_s: u32, burst: u32) -> Self {
        // At the most 2^32 times 10^9, which is below 2^62.
        let credit_max = u64::from(burst) * COST;
        Self { rate_per_s, credit_max, credit: credit_max, filled_at: Timestamp::ZERO }
    }

    /// Whether one more may pass at `now`; takes its token if so. A time before the last one counts as the last.
    #[inline]
    pub fn take(&mut self, now: Timestamp) -> bool {
        let elapsed = now.nanoseconds_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let earned = elapsed.saturating_mul(u64::from(self.rate_per_s));
        self.credit = self.credit.saturating_add(earned).min(self.credit_max);
        let passes = self.credit >= COST;
        if passes {
            self.credit -= COST;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(bucket: &mut TokenBucket, nanoseconds: u64, attempts: u32) -> usize {
        (0..attempts).filter(|_| bucket.take(Timestamp(nanoseconds))).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(3, 2);
        assert_eq!(passed(&mut bucket, 5, 10), 2);
        // A third of a second earns one token, but not a nanosecond earlier.
        assert_eq!(passed(&mut bucket, 5 + 333_333_333, 10), 0);
        assert_eq!(passed(&mut bucket, 5 + 333_333_334, 10), 1);
        assert_eq!(passed(&mut bucket, 5 + 100_000_000_000, 10), 2);
    }

    #[test]
    fn time_that_goes_back_earns_nothing() {
        let mut bucket = TokenBucket::new(1000, 1);
        assert_eq!(passed(&mut bucket, 2_000_000_000, 5), 1);
        assert_eq!(passed(&mut bucket, 0, 5), 0);
        assert_eq!(passed(&mut bucket, 2_000_000_000, 5), 0);
    }

    #[test]
    fn extremes() {
        assert_eq!(passed(&mut TokenBucket::new(1000, 0), u64::MAX, 5), 0);
        let mut once = TokenBucket::new(0, 1);
        assert_eq!((passed(&mut once, 0, 5), passed(&mut once, u64::MAX, 5)), (1, 0));
        let mut fast = TokenBucket::new(u32::MAX, u32::MAX);
        assert_eq!((passed(&mut fast, 0, 50), passed(&mut fast, u64::MAX, 50)), (50, 50));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 0..5000u32, burst in 0..50u32, steps in proptest::collection::vec(0..3_000_000u64, 1..300),
        ) {
            let mut bucket = TokenBucket::new(rate, burst);
            let (mut now, mut passed) = (0, 0u64);
            for step in steps {
                now += step;
                passed += u64::from(bucket.take(Timestamp(now)));
                prop_assert!(passed * COST <= u64::from(burst) * COST + now * u64::from(rate));
            }
        }
    }
}
