//! A histogram of latencies: fixed memory, a few instructions a sample, and quantiles within 1.6 % of the truth.
//!
//! Buckets as in HdrHistogram (Tene): each power of two is cut into 64 equal parts, so a value is known to a part in 64
//! from a nanosecond to the end of 64 bits.

use serde::Serialize;

/// Parts of each power of two, as a power of two.
const PART_BITS: u32 = 6;
const PARTS: usize = 1 << PART_BITS;
/// Values below `2 * PARTS` have a bucket each; each further power of two has `PARTS`.
const BUCKETS: usize = (64 - PART_BITS as usize + 1) * PARTS;

/// How often each latency was seen, in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Histogram {
    /// Adds a sample.
    #[inline(always)]
    pub fn add(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(nanoseconds);
        self.min = self.min.min(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// The latency that this part of all samples (0 to 1) does not exceed; 0 without samples.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (part * self.count as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= wanted {
                return highest(index).clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// What a report says of it.
    pub fn summary(&self) -> LatencySummary {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        LatencySummary {
            samples: self.count,
            min_us: if self.count == 0 { 0.0 } else { microseconds(self.min) },
            mean_us: if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 / 1e3 },
            p50_us: microseconds(self.quantile(0.5)),
            p90_us: microseconds(self.quantile(0.9)),
            p99_us: microseconds(self.quantile(0.99)),
            p99_9_us: microseconds(self.quantile(0.999)),
            p99_99_us: microseconds(self.quantile(0.9999)),
            max_us: microseconds(self.max),
        }
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Packets whose latency was taken.
    pub samples: u64,
    /// The shortest.
    pub min_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// Half of all are not above.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p99_9_us: f64,
    /// 9,999 of 10,000.
    pub p99_99_us: f64,
    /// The longest.
    pub max_us: f64,
}

#[inline(always)]
fn bucket(value: u64) -> usize {
    // Bits to cut off so that PART_BITS + 1 are left, the highest of them set.
    let shift = (64 - PART_BITS - 1).saturating_sub(value.leading_zeros());
    (shift as usize) * PARTS + (value >> shift) as usize
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    let shift = (index / PARTS).saturating_sub(1);
    let part = (index - shift * PARTS) as u64;
    ((part + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_join_without_gaps() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(highest(index)), index);
            assert_eq!(bucket(highest(index) + 1), index + 1);
        }
        assert_eq!((bucket(0), bucket(u64::MAX), highest(BUCKETS - 1)), (0, BUCKETS - 1, u64::MAX));
    }

    #[test]
    fn nothing_seen_is_nothing() {
        let summary = Histogram::default().summary();
        assert_eq!((summary.samples, summary.min_us, summary.mean_us, summary.max_us), (0, 0.0, 0.0, 0.0));
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    proptest! {
        #[test]
        fn quantiles_are_close(mut values in proptest::collection::vec(0..10_000_000_000u64, 1..400), part in 0.0..1.0f64) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let place = ((part * values.len() as f64).ceil() as usize).max(1) - 1;
            let (truth, found) = (values[place], histogram.quantile(part));
            prop_assert!(found >= truth && found - truth <= truth / 64, "{} for {}", found, truth);
            prop_assert_eq!(histogram.quantile(1.0), values[values.len() - 1]);
        }
    }
}
