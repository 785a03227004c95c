//! Searches for the highest rate at which no more is lost than a goal allows.
//!
//! RFC 2544, section 26.1, defines throughput as the fastest rate without loss and leaves open how it is found. This search
//! takes from MLRsearch (draft-ietf-bmwg-mlrsearch) what saves time: short trials narrow the interval first, longer ones
//! only confirm or move its ends, and a bound that longer trials do not confirm is left in steps that grow. The last word
//! has a trial of full length at the lower bound, as often as is asked for.

use serde::Serialize;

use crate::trial::Trial;

/// What is searched for, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchGoal {
    /// The part that may be lost; 0: nothing.
    pub loss_ratio: f64,
    /// Rates are searched between these, a second.
    pub min_rate: u64,
    /// The upper end.
    pub max_rate: u64,
    /// The search ends when the bounds are this part of the upper one apart.
    pub precision: f64,
    /// Length of the first trials.
    pub initial_s: f64,
    /// Length of the last ones.
    pub final_s: f64,
    /// Lengths from first to last: 2 are those two, further ones lie between.
    pub stages: u32,
    /// Trials of full length at the rate that was found; more than half of them must be good (MLRsearch's exceed ratio
    /// of one half).
    pub confirmations: u32,
}

/// One trial of a search.
#[derive(Clone, Debug, Serialize)]
pub struct SearchStep {
    /// The rate that was asked for.
    pub rate: u64,
    /// The rate that was offered.
    pub offered: u64,
    /// How long was sent, in seconds.
    pub seconds: f64,
    /// Packets lost of those sent.
    pub loss_ratio: f64,
    /// Packets with a fault.
    pub faults: u64,
    /// Whether it was within the goal.
    pub good: bool,
    /// Whether the generator could not keep the rate: a lower one was offered, and is what the trial speaks of.
    pub generator_limited: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct SearchResult {
    /// The highest rate that was within the goal at full length; none: not even the lowest was.
    pub rate: Option<u64>,
    /// The lowest rate that was not; none: the upper end of the search was within the goal.
    pub upper: Option<u64>,
    /// Whether the generator reached its own limit first: the rate is at least that.
    pub generator_limited: bool,
    /// All trials in their order.
    pub steps: Vec<SearchStep>,
    /// The trial of full length at the rate that was found.
    pub confirmation: Option<Trial>,
}

/// Trials at the most: a search that has not ended then never would.
const TRIALS_MAX: usize = 200;

struct Search<'m> {
    goal: SearchGoal,
    measure: &'m mut dyn FnMut(u64, f64) -> Trial,
    /// Within the goal at the length of the stage before.
    lower: Option<u64>,
    upper: Option<Upper>,
    steps: Vec<SearchStep>,
    best: Option<Trial>,
}

/// A rate that was not within the goal.
#[derive(Clone, Copy)]
struct Upper {
    rate: u64,
    /// Because the generator could not keep it, and not because of the gateway.
    generator_limited: bool,
}

/// Runs the search. `measure` makes a trial at a rate for so many seconds.
pub fn search(goal: SearchGoal, measure: &mut dyn FnMut(u64, f64) -> Trial) -> SearchResult {
    let mut search = Search { goal, measure, lower: None, upper: None, steps: Vec::new(), best: None };
    let stages = goal.stages.max(1);
    for stage in 0..stages {
        let part = if stages == 1 { 1.0 } else { f64::from(stage) / f64::from(stages - 1) };
        let seconds = goal.initial_s * (goal.final_s / goal.initial_s).powf(part);
        // Rough at first: each stage halves the width that the one before was content with.
        let width = goal.precision * f64::from(1 << (stages - 1 - stage).min(16));
        search.stage(seconds, width);
    }
    search.confirm();
    SearchResult {
        rate: search.lower,
        upper: search.upper.map(|upper| upper.rate),
        generator_limited: search.lower.is_some()
            && search.upper.is_some_and(|upper| upper.generator_limited),
        steps: search.steps,
        confirmation: search.best,
    }
}

impl Search<'_> {
    /// One trial. Gives the rate that was offered if it was within the goal: mostly the one asked for, less where the
    /// generator could not keep that. Otherwise that rate becomes the upper bound.
    fn trial(&mut self, rate: u64, seconds: f64) -> Option<u64> {
        let trial = (self.measure)(rate, seconds);
        let good = trial.is_within(self.goal.loss_ratio);
        let limited = trial.generator_limited;
        let offered = if limited { (trial.rate_offered as u64).min(rate) } else { rate };
        self.steps.push(SearchStep {
            rate,
            offered,
            seconds: trial.seconds,
            loss_ratio: trial.loss_ratio,
            faults: trial.fault_count(),
            good,
            generator_limited: limited,
        });
        if good {
            self.best = Some(trial);
        }
        if good && limited {
            self.upper = Some(Upper { rate, generator_limited: true });
        } else if !good {
            self.upper = Some(Upper { rate: offered, generator_limited: false });
        }
        good.then_some(offered)
    }

    fn exhausted(&self) -> bool {
        self.steps.len() >= TRIALS_MAX
    }

    /// Narrows the bounds to `width` with trials of this length.
    fn stage(&mut self, seconds: f64, width: f64) {
        self.lower = self.descend(seconds, width);
        self.ascend(seconds, width);
        while let (Some(low), Some(Upper { rate: high, .. })) = (self.lower, self.upper) {
            let apart = high.saturating_sub(low);
            if apart as f64 <= width * high as f64 || apart <= 1 || self.exhausted() {
                break;
            }
            if let Some(offered) = self.trial(low + apart / 2, seconds) {
                self.lower = Some(low.max(offered));
            }
        }
    }

    /// A rate that is within the goal: that of the stage before, or else one further down, in steps that double.
    fn descend(&mut self, seconds: f64, width: f64) -> Option<u64> {
        let floor = self.goal.min_rate;
        let mut step = width;
        let mut rate = self.lower.unwrap_or(self.goal.max_rate);
        while !self.exhausted() {
            if let Some(offered) = self.trial(rate, seconds) {
                return Some(offered);
            }
            if rate <= floor {
                break;
            }
            rate = scaled(rate, 1.0 - step.min(0.5)).max(floor);
            step *= 2.0;
        }
        None
    }

    /// Looks for an upper bound where none is known above the lower: in the first stage the end of the search, later
    /// where the shorter trials' bound was given up.
    fn ascend(&mut self, seconds: f64, width: f64) {
        let mut step = width;
        while let Some(known) = self.lower {
            let bounded = self.upper.is_some_and(|upper| upper.rate > known);
            if bounded || known >= self.goal.max_rate || self.exhausted() {
                break;
            }
            let rate = scaled(known, 1.0 + step).min(self.goal.max_rate);
            step *= 2.0;
            if let Some(offered) = self.trial(rate, seconds) {
                self.lower = Some(known.max(offered));
            }
        }
    }

    /// Trials of full length at the lower bound; it gives way, a step at a time, until it is confirmed.
    fn confirm(&mut self) {
        let wanted = self.goal.confirmations.max(1) as usize;
        while let Some(rate) = self.lower {
            let upper = self.upper;
            let offered: Vec<u64> = (0..wanted).filter_map(|_| self.trial(rate, self.goal.final_s)).collect();
            if offered.len() * 2 > wanted {
                self.lower = offered.iter().min().copied();
                self.upper = upper;
                return;
            }
            let next = scaled(rate, 1.0 - self.goal.precision.max(1e-6)).min(rate.saturating_sub(1));
            self.lower = (next >= self.goal.min_rate && !self.exhausted()).then_some(next);
        }
        self.best = None;
    }
}

fn scaled(rate: u64, factor: f64) -> u64 {
    (rate as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Passed;
    use crate::tag::Direction;
    use crate::tally::Tally;
    use engine::random::Random;
    use proptest::prelude::*;

    const GOAL: SearchGoal = SearchGoal {
        loss_ratio: 0.0,
        min_rate: 1_000,
        max_rate: 20_000_000,
        precision: 0.005,
        initial_s: 0.2,
        final_s: 5.0,
        stages: 3,
        confirmations: 1,
    };

    /// A trial against a gateway that forwards `capacity` a second and has room for `queue` more.
    fn trial(rate: u64, seconds: f64, capacity: f64, queue: f64, generator: f64) -> Trial {
        let offered = (rate as f64).min(generator);
        let (sent, forwarded) = (offered * seconds, (capacity * seconds + queue).min(offered * seconds));
        let mut tally = Tally::default();
        tally.way(Direction::Request).sent = sent as u64;
        tally.way(Direction::Request).received = forwarded as u64;
        let passed = Passed {
            generated: sent as u64,
            missed: ((rate as f64 - offered) * seconds) as u64,
            sending_ns: (seconds * 1e9) as u64,
            arriving_ns: (seconds * 1e9) as u64,
        };
        Trial::new(Some(rate), &passed, &tally)
    }

    #[test]
    fn finds_the_rate_that_full_length_confirms() {
        let capacity = 7_300_000.0;
        let result = search(GOAL, &mut |rate, seconds| trial(rate, seconds, capacity, 50_000.0, 1e12));
        let (rate, upper) = (result.rate.unwrap() as f64, result.upper.unwrap() as f64);
        // The queue hides the loss of short trials; a full trial hides no more than 10,000 a second.
        assert!((capacity * 0.99..=capacity + 10_001.0).contains(&rate), "{rate}");
        assert!(upper > rate && upper - rate <= 0.0051 * upper);
        assert!(!result.generator_limited && result.confirmation.unwrap().seconds == 5.0);
        assert!(result.steps.len() < 40, "{}", result.steps.len());
    }

    #[test]
    fn says_when_nothing_or_all_is_good() {
        let all = search(GOAL, &mut |rate, seconds| trial(rate, seconds, 1e12, 0.0, 1e12));
        assert_eq!((all.rate, all.upper, all.generator_limited), (Some(20_000_000), None, false));
        let none = search(GOAL, &mut |rate, seconds| trial(rate, seconds, 10.0, 0.0, 1e12));
        assert_eq!((none.rate, none.generator_limited, none.confirmation.is_none()), (None, false, true));
        assert!(none.steps.len() < TRIALS_MAX);
    }

    #[test]
    fn says_when_the_generator_was_the_limit() {
        let result = search(GOAL, &mut |rate, seconds| trial(rate, seconds, 1e12, 0.0, 9_000_000.0));
        assert!(result.generator_limited);
        let rate = result.rate.unwrap() as f64;
        // A little may be missed.
        assert!((8_900_000.0..9_300_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_loss_that_is_allowed_is_no_bound() {
        let goal = SearchGoal { loss_ratio: 0.1, ..GOAL };
        let result = search(goal, &mut |rate, seconds| trial(rate, seconds, 900_000.0, 0.0, 1e12));
        let rate = result.rate.unwrap() as f64;
        assert!((990_000.0..=1_000_001.0).contains(&rate), "{rate}");
    }

    proptest! {
        #[test]
        fn noise_neither_hangs_nor_misleads_it(seed: u64, capacity in 2_000.0..19e6f64) {
            let mut random = Random::new(seed);
            let result = search(GOAL, &mut |rate, seconds| {
                let noise = 0.97 + f64::from(random.below(1_000)) / 1_000.0 * 0.03;
                trial(rate, seconds, capacity * noise, 0.0, 1e12)
            });
            prop_assert!(result.steps.len() <= TRIALS_MAX + 1);
            if let Some(rate) = result.rate {
                prop_assert!(rate as f64 <= capacity && rate as f64 > capacity * 0.8, "{} of {}", rate, capacity);
                prop_assert!(result.confirmation.unwrap().lost == 0);
            }
        }
    }
}
