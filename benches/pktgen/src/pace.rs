//! How much may be sent now: a rate, in bursts of bounded size, and never more than a window in flight.

use engine::clock::Timestamp;

/// Gives out permission at an even rate.
///
/// What is due is counted from the start, so no rounding adds up. A sender that comes late gets a burst at the most; what
/// it missed beyond that is not made up for but counted, and a trial says so: a long burst to catch up would test another
/// rate than the one that was asked for.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// None: as fast as it can be sent.
    rate_per_s: Option<u64>,
    burst: u64,
    start: Timestamp,
    /// Given out, and missed.
    granted: u64,
    missed: u64,
}

/// Without a burst given it is this part of a second's: a loop that is interrupted for as long misses nothing.
const BURST_PART: u64 = 20_000;
/// And at least as many as one call sends.
const BURST_MIN: u64 = 32;

impl Pacer {
    /// A pacer that starts at `start` with nothing due. A burst of 0 follows from the rate: 50 microseconds of it.
    pub fn new(rate_per_s: Option<u64>, burst: u32, start: Timestamp) -> Self {
        let burst = match burst {
            0 => (rate_per_s.unwrap_or(0) / BURST_PART).max(BURST_MIN),
            given => u64::from(given),
        };
        Self { rate_per_s, burst, start, granted: 0, missed: 0 }
    }

    /// How many may be sent at `now`, at most `limit`. What is taken of it is said with [`Self::take`].
    #[inline]
    pub fn due(&mut self, now: Timestamp, limit: usize) -> usize {
        let Some(rate) = self.rate_per_s else { return limit };
        let elapsed = u128::from(now.nanoseconds_since(self.start));
        let total = u64::try_from(elapsed * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        let due = total.saturating_sub(self.granted);
        if due > self.burst {
            self.missed += due - self.burst;
            self.granted += due - self.burst;
        }
        due.min(self.burst).min(limit as u64) as usize
    }

    /// That many were sent.
    #[inline]
    pub fn take(&mut self, count: usize) {
        self.granted += count as u64;
    }

    /// Permissions that lapsed because they were not used in time.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_rate_all_that_fits_is_due() {
        let mut pacer = Pacer::new(None, 4, Timestamp::ZERO);
        assert_eq!((pacer.due(Timestamp::ZERO, 32), pacer.missed()), (32, 0));
    }

    #[test]
    fn what_is_missed_lapses_and_is_counted() {
        let mut pacer = Pacer::new(Some(1_000), 8, Timestamp(5));
        assert_eq!(pacer.due(Timestamp(5), 32), 0);
        let late = Timestamp(5 + 20_000_000);
        assert_eq!(pacer.due(late, 32), 8);
        pacer.take(8);
        assert_eq!((pacer.due(late, 32), pacer.missed()), (0, 12));
        assert_eq!(pacer.due(Timestamp(5 + 23_000_000), 2), 2);
    }

    #[test]
    fn a_burst_follows_from_the_rate() {
        let burst =
            |rate| Pacer::new(Some(rate), 0, Timestamp::ZERO).due(Timestamp::from_seconds(1), 1 << 20);
        assert_eq!((burst(1_000), burst(10_000_000)), (32, 500));
    }

    proptest! {
        #[test]
        fn keeps_the_rate(rate in 1..20_000_000u64, burst in 1..64u32, steps in proptest::collection::vec(0..5_000u64, 1..500)) {
            let mut pacer = Pacer::new(Some(rate), burst, Timestamp::ZERO);
            let (mut now, mut sent) = (0, 0u64);
            for step in steps {
                now += step;
                let due = pacer.due(Timestamp(now), 32);
                prop_assert!(due <= burst as usize);
                pacer.take(due);
                sent += due as u64;
                let exact = u128::from(now) * u128::from(rate) / 1_000_000_000;
                // Sent, missed and still due are together what the rate says.
                let still = exact as u64 - sent - pacer.missed();
                prop_assert!(still <= u64::from(burst));
            }
        }
    }
}
