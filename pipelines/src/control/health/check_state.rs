//! Whether a backend counts as healthy: rise and fall.
//!
//! It does at first, innocent until proven otherwise: a gateway that starts, and a backend that is new, take connections
//! at once, as without health checks. Then it takes `fall` failures in a row to become unhealthy and `rise` successes in
//! a row to become healthy again, so that one lost probe changes nothing, and a backend that comes and goes changes
//! only when it has stayed.

use std::time::Instant;

/// The state of one backend. Time is an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckState {
    is_healthy: bool,
    /// Probes in a row that spoke against `is_healthy`.
    against: u32,
    since: Instant,
}

impl CheckState {
    /// A backend of which nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self { is_healthy: true, against: 0, since: now }
    }

    /// Whether it counts as healthy.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    /// Since when it does or does not.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Notes a probe that ended at `now`; true when that changes whether the backend counts as healthy.
    ///
    /// `rise` and `fall` may differ from call to call: a reload changes them without forgetting what is known. A value of
    /// 0 is as good as 1.
    pub fn note(&mut self, succeeded: bool, rise: u32, fall: u32, now: Instant) -> bool {
        if succeeded == self.is_healthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.is_healthy { fall } else { rise };
        if self.against < needed {
            return false;
        }
        *self = Self { is_healthy: succeeded, against: 0, since: now };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const RISE: u32 = 2;
    const FALL: u32 = 3;

    /// What counts after each probe: `+` succeeds, `-` fails; upper case is healthy.
    fn run(probes: &str) -> String {
        let mut state = CheckState::new(Instant::now());
        probes
            .chars()
            .map(|probe| {
                state.note(probe == '+', RISE, FALL, Instant::now());
                if state.is_healthy() { 'H' } else { 'u' }
            })
            .collect()
    }

    #[test]
    fn it_takes_several_in_a_row() {
        assert_eq!(run("+++"), "HHH");
        assert_eq!(run("--"), "HH");
        assert_eq!(run("---"), "HHu");
        assert_eq!(run("---+"), "HHuu");
        assert_eq!(run("---++"), "HHuuH");
    }

    #[test]
    fn flapping_is_damped() {
        assert_eq!(run("--+--+--+-+-+"), "HHHHHHHHHHHHH", "never three in a row");
        assert_eq!(run("---+-+-+-+-+-"), "HHuuuuuuuuuuu", "never two in a row");
        assert_eq!(run("---++--+---"), "HHuuHHHHHHu");
    }

    #[test]
    fn it_tells_since_when() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut state = CheckState::new(begin);
        assert!(state.is_healthy() && state.since() == begin);
        assert!(!state.note(false, 1, 2, at(1)));
        assert_eq!(state.since(), begin);
        assert!(state.note(false, 1, 2, at(2)));
        assert_eq!((state.is_healthy(), state.since()), (false, at(2)));
        assert!(!state.note(false, 1, 2, at(3)));
        assert!(state.note(true, 1, 2, at(4)));
        assert_eq!((state.is_healthy(), state.since()), (true, at(4)));
    }

    #[test]
    fn zero_is_as_good_as_one() {
        let mut state = CheckState::new(Instant::now());
        assert!(state.note(false, 0, 0, Instant::now()));
        assert!(state.note(true, 0, 0, Instant::now()));
    }

    proptest! {
        /// Against the definition, which looks at the whole history: it changes when the last `rise` or `fall` probes
        /// all spoke against it and none of them is older than the last change.
        #[test]
        fn it_is_what_the_definition_says(
            probes in proptest::collection::vec(any::<bool>(), 0..200),
            rise in 1u32..6,
            fall in 1u32..6,
        ) {
            let now = Instant::now();
            let mut state = CheckState::new(now);
            let (mut is_healthy, mut changed_after) = (true, 0);
            for count in 1..=probes.len() {
                let changed = state.note(probes[count - 1], rise, fall, now);
                let needed = if is_healthy { fall } else { rise } as usize;
                let expected = count - changed_after >= needed
                    && probes[count - needed..count].iter().all(|succeeded| *succeeded != is_healthy);
                if expected {
                    (is_healthy, changed_after) = (!is_healthy, count);
                }
                prop_assert_eq!(changed, expected);
                prop_assert_eq!(state.is_healthy(), is_healthy);
            }
        }

        /// Changes are never nearer than `rise` or `fall` probes: the bound on what a flapping backend can do.
        #[test]
        fn changes_are_rare(probes in proptest::collection::vec(any::<bool>(), 1..300), rise in 1u32..6, fall in 1u32..6) {
            let now = Instant::now();
            let mut state = CheckState::new(now);
            let changes = probes.iter().filter(|probe| state.note(**probe, rise, fall, now)).count();
            prop_assert!(changes <= probes.len().div_ceil(rise.min(fall) as usize));
        }
    }
}
