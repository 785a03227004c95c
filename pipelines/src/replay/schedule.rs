//! Virtual time between two packets: fine steps while something may be due, coarser ones through long silence.
//!
//! On devices a worker tends its tables once a millisecond: a slice of flows' expiry, of neighbours' retries, of
//! stations' ageing. Replay does the same for as long as it took anything to happen (held packets and ARP retries are
//! over after [`FINE`]). Then steps grow with the silence, so an hour takes some 32,000 turns and a year 68,000. In front
//! of the next packet there are as many fine ones as a whole sweep takes: whatever was to expire by then has expired.

use core::time::Duration;

use engine::clock::Timestamp;

use crate::gateway::SWEEP_PAIRS;
use crate::neighbour_machine::SWEEP;
use crate::table::neighbour::NEIGHBOURS_MAX;

/// The fine step: that of a worker's housekeeping.
const TICK: Duration = Duration::from_millis(1);
/// Silence through which steps stay fine.
const FINE: Duration = Duration::from_secs(4);
/// Steps in a silence's own length from then on.
const STEPS: u32 = (FINE.as_millis() / TICK.as_millis()) as u32;

/// Where in virtual time the replay is.
pub(super) struct Schedule {
    now: Timestamp,
    /// When the last packet arrived.
    arrived: Timestamp,
    /// Time in which fine steps visit all flows and neighbours.
    sweep: Duration,
}

impl Schedule {
    /// For a flow table of this many flows.
    pub(super) fn new(flow_capacity: usize) -> Self {
        let flows = flow_capacity.div_ceil(SWEEP_PAIRS as usize);
        let neighbours = (NEIGHBOURS_MAX + 1).div_ceil(SWEEP);
        let sweep = TICK * u32::try_from(flows.max(neighbours) + 1).unwrap_or(u32::MAX);
        Self { now: Timestamp::ZERO, arrived: Timestamp::ZERO, sweep }
    }

    /// Begins at `now`.
    pub(super) fn start(&mut self, now: Timestamp) {
        self.now = now;
        self.arrived = now;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// A packet has arrived now.
    pub(super) fn note_arrival(&mut self) {
        self.arrived = self.now;
    }

    /// One step towards `to`. False: it is now. Steps stay fine while packets are held.
    pub(super) fn step(&mut self, to: Timestamp, is_holding: bool) -> bool {
        let left = to.since(self.now);
        if left.is_zero() {
            return false;
        }
        let silent = self.now.since(self.arrived);
        let step = if is_holding || silent < FINE || left <= self.sweep {
            TICK
        } else {
            (silent / STEPS).min(left - self.sweep).max(TICK)
        };
        self.now = self.now + step.min(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(gap: Duration) -> Vec<Duration> {
        let start = Timestamp::from_seconds(1_700_000_000);
        let mut schedule = Schedule::new(65_536);
        schedule.start(start);
        let mut steps = Vec::new();
        let mut before = start;
        while schedule.step(start + gap, false) {
            steps.push(schedule.now().since(before));
            before = schedule.now();
        }
        assert_eq!(before, start + gap);
        steps
    }

    #[test]
    fn short_gaps_are_walked_through() {
        assert_eq!(steps(Duration::ZERO), []);
        assert_eq!(steps(Duration::from_micros(300)), [Duration::from_micros(300)]);
        assert!(steps(Duration::from_secs(4)).iter().all(|step| *step == TICK));
    }

    #[test]
    fn long_gaps_take_a_bounded_number_of_steps_and_end_in_fine_ones() {
        for (seconds, limit) in [(60, 16_000), (3_600, 33_000), (86_400, 46_000), (60 * 365 * 86_400, 90_000)]
        {
            let steps = steps(Duration::from_secs(seconds));
            assert!(steps.len() < limit, "{} steps for {seconds} s", steps.len());
            assert!(steps[..4_000].iter().chain(&steps[steps.len() - 257..]).all(|step| *step == TICK));
        }
    }

    proptest! {
        #[test]
        fn any_gap_is_walked_to_its_end(gaps in proptest::collection::vec((0..40u32, any::<u64>()), 1..20)) {
            let (mut schedule, mut to) = (Schedule::new(1_000), Timestamp::from_seconds(7));
            schedule.start(to);
            // From nanoseconds to a quarter of an hour, as often short as long.
            for (width, gap) in gaps {
                to = to + Duration::from_nanos(gap & ((1 << width) - 1));
                let mut steps = 0;
                while schedule.step(to, gap % 7 == 0 && width < 30) {
                    steps += 1;
                }
                prop_assert!(schedule.now() == to && steps < 30_000, "{} steps", steps);
            }
        }
    }

    #[test]
    fn steps_stay_fine_while_packets_are_held() {
        let mut schedule = Schedule::new(256);
        schedule.start(Timestamp::from_seconds(9));
        schedule.now = Timestamp::from_seconds(90);
        assert!(schedule.step(Timestamp::from_seconds(900), true));
        assert_eq!(schedule.now(), Timestamp::from_millis(90_001));
    }
}
