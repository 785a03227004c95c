//! The tests that RFC 9693 (Benchmarking Methodology for Stateful NATxy Gateways) adds to RFC 2544's: how fast connections
//! are established and torn down, and how many a gateway holds.
//!
//! Clients are its Initiator, backends its Responder. What it calls the state table, the four-tuples that the Responder
//! saw, are our flows' bindings. Each test needs an empty connection table to begin with (section 4.4); new numbers of
//! the plan are new connections, and emptying the gateway's table is the caller's part.

use serde::Serialize;

use crate::connection::ConnectionError;
use crate::runner::Runner;
use crate::search::{SearchGoal, SearchResult, search};
use crate::trial::Trial;

/// Rates are told apart to this part in the searches of the capacity test, whose question is another.
const CAPACITY_RATE_PRECISION: f64 = 0.05;
/// Connection numbers that a capacity test tries at the most.
const CAPACITY_STEPS_MAX: usize = 100;

/// Empties the gateway's connection table. Called before each test.
pub type Clear<'c> = &'c mut dyn FnMut() -> Result<(), NatError>;

/// Why a test could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// The command that empties the table failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command.
        command: String,
        /// What is known.
        reason: String,
    },
    /// Too many connections at once.
    #[error(transparent)]
    Connections(#[from] ConnectionError),
}

/// What the tests have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NatSettings {
    /// N: connections of each test.
    pub connections: u32,
    /// Alpha: the validation's rate as a part of the rate of establishment.
    pub alpha: f64,
    /// Rate at which connections are opened where that is not what is measured.
    pub open_rate: Option<u64>,
}

/// Section 4.5, "Measurement of the Maximum Connection Establishment Rate": the highest rate at which all N connections are
/// established, which section 4.6, "Validation of Connection Establishment", has proven by a packet back through each.
pub fn establishment_rate(
    runner: &mut Runner,
    settings: &NatSettings,
    goal: SearchGoal,
    clear: Clear<'_>,
) -> Result<SearchResult, NatError> {
    let mut failure = None;
    let result = search(one_length(goal), &mut |rate, _| match clear() {
        Ok(()) => establish(runner, settings.connections, rate, settings.alpha),
        Err(error) => {
            failure.get_or_insert(error);
            Trial::none()
        }
    });
    failure.map_or(Ok(result), Err)
}

/// The length of these trials is given by N and the rate, so there is one stage.
fn one_length(goal: SearchGoal) -> SearchGoal {
    SearchGoal { loss_ratio: 0.0, stages: 1, ..goal }
}

fn establish(runner: &mut Runner, connections: u32, rate: u64, alpha: f64) -> Trial {
    let validation = ((rate as f64 * alpha) as u64).max(1);
    runner.establish(connections, Some(rate), Some(validation)).trial
}

/// What a tear-down by command gave.
#[derive(Clone, Debug, Serialize)]
pub struct CommandTearDown {
    /// Connections that were there.
    pub connections: u64,
    /// How long the command took, in seconds.
    pub seconds: f64,
    /// Connections torn down a second.
    pub rate: f64,
    /// Connections that the gateway still knew afterwards.
    pub remaining: u64,
}

/// Section 4.8, "Measurement of the Connection Tear-Down Rate": N connections are loaded, the whole table is deleted by a
/// means of the gateway's own, and N is divided by the time that took.
pub fn tear_down_by_command(
    runner: &mut Runner,
    settings: &NatSettings,
    clear: Clear<'_>,
    delete: Clear<'_>,
) -> Result<CommandTearDown, NatError> {
    clear()?;
    let mut established = runner.establish(settings.connections, settings.open_rate, settings.open_rate);
    let before = runner.now();
    delete()?;
    let seconds = runner.now().nanoseconds_since(before) as f64 / 1e9;
    let connections = established.validated;
    let remaining = runner.still_known(&mut established, settings.open_rate);
    let gone = connections.saturating_sub(remaining);
    let rate = if seconds > 0.0 { gone as f64 / seconds } else { 0.0 };
    Ok(CommandTearDown { connections, seconds, rate, remaining })
}

/// The other way that section 4.8 tells apart from deleting all at once: N TCP connections are torn down one by one. The
/// highest rate at which all of them are closed by their endpoints without a lost segment.
pub fn closing_rate(
    runner: &mut Runner,
    settings: &NatSettings,
    goal: SearchGoal,
    clear: Clear<'_>,
) -> Result<SearchResult, NatError> {
    let mut failure = None;
    let result = search(one_length(goal), &mut |rate, _| {
        let trial = clear().and_then(|()| {
            Ok(runner.close_connections(settings.connections, settings.open_rate, Some(rate))?)
        });
        trial.unwrap_or_else(|error| {
            failure.get_or_insert(error);
            Trial::none()
        })
    });
    failure.map_or(Ok(result), Err)
}

/// What is searched for in the capacity test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapacityGoal {
    /// C0: connections that surely fit.
    pub start: u32,
    /// Connections that are tried at the most.
    pub max: u32,
    /// Rates are searched up to this one.
    pub max_rate: u64,
    /// The part of the safe rate below which a rate says, while connections are doubled, that they do not fit.
    pub beta: f64,
    /// The same while the interval is halved.
    pub gamma: f64,
    /// E: the capacity is known to so many connections.
    pub error: u32,
}

/// One number of connections that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CapacityStep {
    /// Connections.
    pub connections: u32,
    /// The highest rate at which they were established; 0: at none.
    pub rate: u64,
    /// Whether that rate is one of a table that is not full.
    pub fits: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Connections that fit; none: not even the first number did.
    pub connections: Option<u32>,
    /// The lowest number that did not; none: all that were tried fit.
    pub upper: Option<u32>,
    /// All steps.
    pub steps: Vec<CapacityStep>,
}

/// Section 4.9, "Measurement of the Connection Tracking Table Capacity": as long as connections fit, they are established
/// at about the same rate; where that breaks down the table is full. First their number is doubled until it does, then
/// the interval is halved. `good` tells whether so many connections were all established and validated at a rate.
pub fn capacity(
    goal: &CapacityGoal,
    good: &mut dyn FnMut(u32, u64) -> Result<bool, NatError>,
) -> Result<Capacity, NatError> {
    let mut steps = Vec::new();
    let start = goal.start.clamp(1, goal.max.max(1));
    // Rates below one in a thousand of the highest are no rates of a working gateway.
    let first = highest_rate(start, goal.max_rate, goal.max_rate / 1_000, good)?;
    steps.push(CapacityStep { connections: start, rate: first, fits: first > 0 });
    if first == 0 {
        return Ok(Capacity { connections: None, upper: Some(start), steps });
    }
    let (mut safe, mut safe_rate, mut full) = (start, first, None);
    while full.is_none() && safe < goal.max && steps.len() < CAPACITY_STEPS_MAX {
        let tried = safe.saturating_mul(2).min(goal.max);
        let stop = part_of(safe_rate, goal.beta);
        let rate = highest_rate(tried, safe_rate, stop, good)?;
        let fits = rate >= stop.max(1);
        steps.push(CapacityStep { connections: tried, rate, fits });
        if fits {
            (safe, safe_rate) = (tried, rate);
        } else {
            full = Some(tried);
        }
    }
    while let Some(high) =
        full.filter(|high| high - safe > goal.error.max(1) && steps.len() < CAPACITY_STEPS_MAX)
    {
        let tried = safe + (high - safe) / 2;
        let stop = part_of(safe_rate, goal.gamma);
        let rate = highest_rate(tried, safe_rate, stop, good)?;
        let fits = rate >= stop.max(1);
        steps.push(CapacityStep { connections: tried, rate, fits });
        if fits {
            (safe, safe_rate) = (tried, rate);
        } else {
            full = Some(tried);
        }
    }
    Ok(Capacity { connections: Some(safe), upper: full, steps })
}

fn part_of(rate: u64, part: f64) -> u64 {
    (rate as f64 * part) as u64
}

/// The binary search that the test asks for each number of connections, which ends early once the rate is below `stop`.
/// 0 where none down to there is good.
fn highest_rate(
    connections: u32,
    max: u64,
    stop: u64,
    good: &mut dyn FnMut(u32, u64) -> Result<bool, NatError>,
) -> Result<u64, NatError> {
    if good(connections, max.max(1))? {
        return Ok(max);
    }
    let (mut low, mut high) = (0, max);
    while (high - low) as f64 > CAPACITY_RATE_PRECISION * high as f64 && high - low > 1 {
        let middle = low + (high - low) / 2;
        if good(connections, middle.max(1))? {
            low = middle;
        } else {
            high = middle;
            if middle < stop.max(1) {
                break;
            }
        }
    }
    Ok(low)
}

/// The capacity test on a runner's ports.
pub fn table_capacity(
    runner: &mut Runner,
    settings: &NatSettings,
    goal: &CapacityGoal,
    clear: Clear<'_>,
) -> Result<Capacity, NatError> {
    capacity(goal, &mut |connections, rate| {
        clear()?;
        // Whether the rate was kept does not matter here: connections that are there fit.
        Ok(establish(runner, connections, rate, settings.alpha).is_within(0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOAL: CapacityGoal =
        CapacityGoal { start: 1_000, max: 1 << 24, max_rate: 4_000_000, beta: 0.2, gamma: 0.4, error: 10 };

    #[test]
    fn a_table_too_small_for_the_start_or_larger_than_the_end_is_said() {
        let none = capacity(&GOAL, &mut |connections, _| Ok(connections < 900)).unwrap();
        assert_eq!((none.connections, none.upper), (None, Some(1_000)));
        let all = capacity(&GOAL, &mut |_, rate| Ok(rate < 1_000_000)).unwrap();
        assert_eq!((all.connections, all.upper), (Some(1 << 24), None));
        assert!(all.steps.iter().all(|step| (900_000..1_000_000).contains(&step.rate)));
    }

    #[test]
    fn a_failure_ends_the_test() {
        let error = NatError::Command { command: "clear".into(), reason: "status 1".into() };
        let mut error = Some(error);
        let result = capacity(&GOAL, &mut |_, _| error.take().map_or(Ok(true), Err));
        assert!(matches!(result, Err(NatError::Command { .. })));
    }

    proptest! {
        #[test]
        fn finds_the_size_of_a_table(size in 1_000..10_000_000u32, rate in 50_000..3_000_000u64) {
            // The rate halves while the table gets larger than the cache, and nothing works when it is full.
            let found = capacity(&GOAL, &mut |connections, tried| {
                let possible = if connections > 100_000 { rate / 2 } else { rate };
                Ok(connections <= size && tried <= possible)
            }).unwrap();
            let fits = found.connections.unwrap();
            prop_assert!(fits <= size && size - fits <= 10, "{} of {}", fits, size);
            prop_assert!(found.upper.unwrap() > size);
        }
    }
}
