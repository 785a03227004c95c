//! Time: a number of nanoseconds that is handed in, and the one clock that workers read.
//!
//! Whatever decides takes a [`Timestamp`] as an argument; a worker reads its [`MonotonicClock`] once a batch, replay
//! takes the captures' own times.
#![allow(unsafe_code, reason = "the time-stamp counter is read through intrinsics")]

use core::ops::Add;
use core::time::Duration;
use std::time::Instant;

/// A point in time as nanoseconds since its clock's start. Arithmetic saturates: it neither wraps nor fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The clock's start.
    pub const ZERO: Self = Self(0);
    /// Later than anything: 584 years.
    pub const MAX: Self = Self(u64::MAX);

    /// This many seconds after the start.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// This many milliseconds after the start.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since the start.
    #[inline]
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Whole milliseconds since the start, modulo 2^32: a tick that fits in a table's entry and wraps after 49.7
    /// days. Differences by `wrapping_sub` are right up to that.
    #[inline]
    pub const fn millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// Nanoseconds from `earlier` to this; 0 if it is not earlier.
    #[inline]
    pub const fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this; none if it is not earlier.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds_since(earlier))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// The processor's time-stamp counter: cycles at its nominal rate, for measurements. Nanoseconds of [`Instant`] where
/// there is none.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is part of every x86-64 processor and only reads; Linux leaves it enabled (CR4.TSD clear).
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        nanoseconds(START.elapsed())
    }
}

/// Whether the counter runs at one rate in every power state and so measures time: CPUID 8000_0007h, EDX bit 8
/// (Intel SDM, volume 3, "Invariant TSC"; AMD APM, volume 3, CPUID Fn8000_0007_EDX).
fn counter_is_invariant() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::__cpuid;
        // SAFETY: every x86-64 processor has CPUID and answers leaf 8000_0000h with its highest extended leaf, which
        // is asked before the one that is wanted.
        #[allow(unused_unsafe, reason = "safe to call from Rust 1.94 on, unsafe before")]
        unsafe {
            __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that never goes back. Starts at zero when made; copies of it agree, whichever thread reads them.
///
/// Reads the time-stamp counter where that is invariant, which takes some 12 ns and no system call. Its rate is
/// measured against the kernel's CLOCK_MONOTONIC (as [`Instant`]) when the clock is made, to within some 10 parts in a
/// million: a second a day. Elsewhere it reads CLOCK_MONOTONIC itself.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    start: Instant,
    start_cycles: u64,
    /// Nanoseconds a cycle, times 2^32; none where the counter is not to be trusted.
    nanoseconds_per_cycle: Option<u64>,
}

/// How long the counter's rate is measured.
const CALIBRATION: Duration = Duration::from_millis(20);
/// Rates outside this range are no processor's, so something went wrong while measuring.
const CYCLES_PER_SECOND: core::ops::RangeInclusive<u64> = 100_000_000..=20_000_000_000;

impl MonotonicClock {
    /// A clock that starts now. Takes 20 milliseconds where it has a counter to measure.
    pub fn new() -> Self {
        let (start, start_cycles) = both();
        let mut clock = Self { start, start_cycles, nanoseconds_per_cycle: None };
        if counter_is_invariant() {
            std::thread::sleep(CALIBRATION);
            let (end, end_cycles) = both();
            let elapsed = nanoseconds(end.saturating_duration_since(start));
            clock.nanoseconds_per_cycle = rate(elapsed, end_cycles.saturating_sub(start_cycles));
        }
        clock
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Timestamp {
        match self.nanoseconds_per_cycle {
            Some(factor) => self.at_cycles(cycles(), factor),
            None => Timestamp(nanoseconds(self.start.elapsed())),
        }
    }

    #[inline]
    fn at_cycles(&self, cycles: u64, factor: u64) -> Timestamp {
        let elapsed = u128::from(cycles.saturating_sub(self.start_cycles));
        Timestamp(((elapsed * u128::from(factor)) >> 32) as u64)
    }

    /// The rate of [`cycles`], as measured; none where the clock does not use it.
    pub fn cycles_per_second(&self) -> Option<u64> {
        self.nanoseconds_per_cycle.map(|factor| (1_000_000_000 << 32) / factor.max(1))
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Nanoseconds a cycle times 2^32, if that is plausible.
fn rate(elapsed_nanoseconds: u64, elapsed_cycles: u64) -> Option<u64> {
    let (elapsed, cycles) = (u128::from(elapsed_nanoseconds), u128::from(elapsed_cycles));
    let cycles_per_second = u64::try_from((cycles * 1_000_000_000).checked_div(elapsed)?).ok()?;
    if !CYCLES_PER_SECOND.contains(&cycles_per_second) {
        return None;
    }
    u64::try_from((elapsed << 32).checked_div(cycles)?).ok()
}

/// Both clocks at one moment: of several attempts the one that took the fewest cycles, so was not interrupted.
fn both() -> (Instant, u64) {
    let attempt = || {
        let before = cycles();
        let instant = Instant::now();
        let width = cycles().saturating_sub(before);
        (width, instant, before + width / 2)
    };
    let mut best = attempt();
    for _ in 0..15 {
        let next = attempt();
        if next.0 < best.0 {
            best = next;
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_saturate() {
        let time = Timestamp::from_millis(1500);
        assert_eq!(
            (time.seconds(), time.millis(), time + Duration::from_millis(500)),
            (1, 1500, Timestamp::from_seconds(2))
        );
        assert_eq!(time.since(Timestamp::ZERO), Duration::from_millis(1500));
        assert_eq!(Timestamp::ZERO.since(time), Duration::ZERO);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::from_seconds(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn the_millisecond_tick_wraps() {
        let (before, after) = (Timestamp::from_millis((1 << 32) - 5), Timestamp::from_millis((1 << 32) + 5));
        assert_eq!((after.millis(), after.millis().wrapping_sub(before.millis())), (5, 10));
    }

    #[test]
    fn implausible_rates_are_refused() {
        assert_eq!(rate(1_000_000_000, 2_000_000_000), Some(1 << 31));
        assert_eq!([rate(0, 5), rate(1_000_000_000, 0), rate(1, 1_000_000)], [None; 3]);
    }

    #[test]
    fn a_day_of_cycles_is_a_day() {
        let clock =
            MonotonicClock { start: Instant::now(), start_cycles: 77, nanoseconds_per_cycle: Some(1 << 31) };
        let day = clock.at_cycles(77 + 2 * 86_400_000_000_000, 1 << 31);
        assert_eq!((day, clock.at_cycles(0, 1 << 31)), (Timestamp::from_seconds(86_400), Timestamp::ZERO));
        assert_eq!(clock.cycles_per_second(), Some(2_000_000_000));
    }

    #[test]
    fn follows_the_kernels_clock_and_never_goes_back() {
        let clock = MonotonicClock::new();
        let (start, first) = (Instant::now(), clock.now());
        let mut last = first;
        while start.elapsed() < Duration::from_millis(50) {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        let elapsed = start.elapsed();
        let measured = clock.now().since(first);
        // A loaded machine may pause between the two readings; a wrong rate would be off by far more.
        assert!(measured.abs_diff(elapsed) < Duration::from_millis(15), "{measured:?} against {elapsed:?}");
    }
}
