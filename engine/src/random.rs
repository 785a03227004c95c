//! A small, fast generator of pseudo-random numbers that gives the same numbers for the same seed everywhere.
//!
//! xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47(4), 2021),
//! seeded by SplitMix64 as its authors recommend. It spreads load and picks ports; it keeps no secrets.

/// A generator: 40 bytes of state, a few instructions a number.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
    seed: u64,
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): steps `state` and mixes it.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self { state: core::array::from_fn(|_| split_mix(&mut state)), seed }
    }

    /// An independent generator for `stream` (a worker's number, say). It depends on this one's seed and not on how
    /// many numbers were drawn, so that one stream's use never changes another's numbers.
    pub fn fork(&self, stream: u64) -> Self {
        let mut number = stream;
        let mut seed = self.seed ^ split_mix(&mut number);
        Self::new(split_mix(&mut seed))
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// 32 random bits: the upper half of a number, whose bits are the better mixed ones.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number from 0 to `limit` - 1; 0 for a limit of 0.
    ///
    /// Multiplies and keeps the high half (Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 29(1),
    /// 2019). From 64 bits, no number is likelier than another by more than 2^-32 of its share, so nothing is rejected
    /// and the time is constant.
    #[inline]
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 99.9 % quantile of chi-squared, by Wilson and Hilferty's approximation.
    fn chi_squared_limit(degrees: f64) -> f64 {
        let width = 2.0 / (9.0 * degrees);
        degrees * (1.0 - width + 3.0902 * width.sqrt()).powi(3)
    }

    fn chi_squared(counts: &[u32]) -> f64 {
        let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn split_mix_gives_its_authors_numbers() {
        // splitmix64.c (Vigna), run from this state.
        let mut state = 1_234_567;
        let numbers = [(); 3].map(|()| split_mix(&mut state));
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn xoshiro_gives_its_authors_numbers() {
        // xoshiro256plusplus.c (Blackman and Vigna), run from the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4], seed: 0 };
        let numbers = [(); 5].map(|()| random.next_u64());
        let expected =
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386, 9_228_616_714_210_784_205];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn below_is_even_and_within_bounds() {
        for limit in [2, 3, 10, 97, 1000] {
            let mut random = Random::new(u64::from(limit));
            let mut counts = vec![0; limit as usize];
            for _ in 0..100 * limit {
                counts[random.below(limit) as usize] += 1;
            }
            assert!(chi_squared(&counts) < chi_squared_limit(f64::from(limit - 1)), "{limit}");
        }
        let mut random = Random::new(1);
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert!((0..100).any(|_| random.below(u32::MAX) > u32::MAX / 4 * 3));
    }

    #[test]
    fn each_bit_is_set_half_of_the_time() {
        let mut random = Random::new(2);
        let mut set = [0u32; 64];
        for _ in 0..10_000 {
            let number = random.next_u64();
            for (bit, count) in set.iter_mut().enumerate() {
                *count += (number >> bit & 1) as u32;
            }
        }
        // 5 standard deviations of 50.
        assert!(set.iter().all(|&count| count.abs_diff(5000) < 250), "{set:?}");
    }

    #[test]
    fn neighbouring_numbers_are_independent() {
        let mut random = Random::new(3);
        let mut pairs = vec![0; 256];
        let mut last = random.below(16);
        for _ in 0..100_000 {
            let next = random.below(16);
            pairs[(last * 16 + next) as usize] += 1;
            last = next;
        }
        assert!(chi_squared(&pairs) < chi_squared_limit(255.0));
    }

    #[test]
    fn streams_differ_and_do_not_disturb_each_other() {
        let mut parent = Random::new(4);
        let before = parent.fork(1).next_u64();
        parent.next_u64();
        assert_eq!(parent.fork(1).next_u64(), before);
        let mut pairs = vec![0; 256];
        let (mut one, mut two) = (parent.fork(0), parent.fork(1));
        for _ in 0..100_000 {
            pairs[(one.below(16) * 16 + two.below(16)) as usize] += 1;
        }
        assert!(chi_squared(&pairs) < chi_squared_limit(255.0));
        let mut firsts: Vec<_> = (0..1000).map(|stream| parent.fork(stream).next_u64()).collect();
        firsts.push(Random::new(4).next_u64());
        firsts.extend((0..1000).map(|seed| Random::new(5 + seed).next_u64()));
        let all = firsts.len();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), all);
    }
}
