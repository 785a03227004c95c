//! Which backend is probed when, and what is known of each. Sans-IO: time is an argument, and probes are made by
//! whoever asks [`Schedule::next`] and tells [`Schedule::end`].
//!
//! **Invariant:** a target is probed by one probe at a time, and begins none earlier than its interval after the last.
//! **Invariant:** at most [`PROBES_MAX`] probes are under way, and at most [`SLOW_PROBES_MAX`] of them are of targets
//! whose last probe took all its time: however many backends hang, the others are probed as if those were not there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::random::Random;

use super::check_state::CheckState;
use super::checker::{CheckTarget, CheckerCounters, CheckerError, HealthEvent, TargetStatus};
use super::probe::{ProbeEnd, ProbeFailure};
use crate::control::config::model::HealthCheck;

/// Targets at the most.
pub(super) const TARGETS_MAX: usize = 16_384;
/// Probes under way at the most; each has a descriptor.
pub(super) const PROBES_MAX: usize = 512;
/// Of these, for targets that last answered nothing in time.
pub(super) const SLOW_PROBES_MAX: usize = PROBES_MAX / 2;

/// A probe to be made.
pub(super) struct ProbeStart {
    /// What its end is told by.
    pub(super) key: ProbeKey,
    /// Where to.
    pub(super) address: SocketAddrV4,
    /// What to ask, and for how long.
    pub(super) check: Arc<HealthCheck>,
}

/// Which probe: of which target, and of which of those that had its number one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeKey {
    id: u64,
    generation: u64,
    is_slow: bool,
    began: Instant,
}

struct Target {
    wanted: CheckTarget,
    generation: u64,
    state: CheckState,
    /// When the next probe is due; none while one is under way.
    due: Option<Instant>,
    /// Whether the last probe took all its time.
    is_slow: bool,
    probes: u64,
    failures: u64,
    last: Option<Result<(), ProbeFailure>>,
}

/// All targets.
#[derive(Default)]
pub(super) struct Schedule {
    targets: HashMap<u64, Target>,
    /// Those with no probe under way, by when the next is due.
    prompt: BTreeSet<(Instant, u64)>,
    /// The same for slow ones.
    slow: BTreeSet<(Instant, u64)>,
    probes: usize,
    slow_probes: usize,
    generations: u64,
    events: Vec<HealthEvent>,
    counters: CheckerCounters,
}

impl Schedule {
    /// Makes these the targets. One that asks the same of the same address under the same number keeps its state.
    pub(super) fn apply(&mut self, wanted: Vec<CheckTarget>, now: Instant) -> Vec<CheckerError> {
        let mut errors = Vec::new();
        let chosen = self.choose(wanted, &mut errors);
        let ids: HashSet<u64> = chosen.iter().map(|wanted| wanted.id).collect();
        let gone: Vec<u64> = self.targets.keys().copied().filter(|id| !ids.contains(id)).collect();
        for id in gone {
            self.remove(id);
        }
        for wanted in chosen {
            self.keep_or_add(wanted, now);
        }
        errors
    }

    /// The next probe that is due and may begin.
    pub(super) fn next(&mut self, now: Instant) -> Option<ProbeStart> {
        let (due, id) = self.candidates().min().filter(|(due, _)| *due <= now)?;
        let target = self.targets.get_mut(&id)?;
        self.prompt.remove(&(due, id));
        self.slow.remove(&(due, id));
        target.due = None;
        self.probes += 1;
        self.slow_probes += usize::from(target.is_slow);
        let key = ProbeKey { id, generation: target.generation, is_slow: target.is_slow, began: now };
        Some(ProbeStart { key, address: target.wanted.address, check: Arc::clone(&target.wanted.check) })
    }

    /// When the next probe can begin; none: not before another ends.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.candidates().min().map(|(due, _)| due)
    }

    /// Notes how a probe ended. What became of its target in the meantime does not matter.
    pub(super) fn end(&mut self, key: ProbeKey, end: ProbeEnd, now: Instant) {
        self.probes = self.probes.saturating_sub(1);
        self.slow_probes = self.slow_probes.saturating_sub(usize::from(key.is_slow));
        match end {
            ProbeEnd::Passed => self.counters.passed += 1,
            ProbeEnd::Failed(_) => self.counters.failed += 1,
            ProbeEnd::NotMade => self.counters.not_made += 1,
        }
        let Some(target) = self.targets.get_mut(&key.id).filter(|target| target.generation == key.generation)
        else {
            return;
        };
        let result = match end {
            ProbeEnd::Passed => Some(Ok(())),
            ProbeEnd::Failed(why) => Some(Err(why)),
            ProbeEnd::NotMade => None,
        };
        if let Some(result) = result {
            self.events.extend(target.note(result, now));
        }
        // From start to start, so that a probe that takes long does not slow the next ones down.
        let next = (key.began + target.wanted.check.interval()).max(now);
        self.enqueue(key.id, next);
    }

    /// What has changed since this was asked last, in order.
    pub(super) fn take_events(&mut self) -> Vec<HealthEvent> {
        for event in &self.events {
            match event.healthy {
                true => self.counters.became_healthy += 1,
                false => self.counters.became_unhealthy += 1,
            }
        }
        std::mem::take(&mut self.events)
    }

    /// What is known of each target, by its number.
    pub(super) fn statuses(&self) -> Vec<TargetStatus> {
        let mut statuses: Vec<TargetStatus> = self.targets.values().map(Target::status).collect();
        statuses.sort_by_key(|status| status.id);
        statuses
    }

    /// Counters, and how many are what now.
    pub(super) fn counters(&self) -> CheckerCounters {
        CheckerCounters {
            targets: self.targets.len(),
            unhealthy: self.targets.values().filter(|target| !target.state.is_healthy()).count(),
            probes_under_way: self.probes,
            ..self.counters
        }
    }

    /// The first of each queue that may begin a probe.
    fn candidates(&self) -> impl Iterator<Item = (Instant, u64)> + '_ {
        let prompt = self.prompt.first().filter(|_| self.probes < PROBES_MAX);
        let has_slow_place = self.probes < PROBES_MAX && self.slow_probes < SLOW_PROBES_MAX;
        let slow = self.slow.first().filter(|_| has_slow_place);
        prompt.into_iter().chain(slow).copied()
    }

    /// No number twice, and not too many; those that are here already stay.
    fn choose(&self, wanted: Vec<CheckTarget>, errors: &mut Vec<CheckerError>) -> Vec<CheckTarget> {
        let mut seen = HashSet::new();
        let (mut chosen, mut new) = (Vec::new(), Vec::new());
        for wanted in wanted {
            if !seen.insert(wanted.id) {
                errors.push(CheckerError::Twice { id: wanted.id, address: wanted.address });
            } else if self.targets.contains_key(&wanted.id) {
                chosen.push(wanted);
            } else {
                new.push(wanted);
            }
        }
        let refused = new.split_off(new.len().min(TARGETS_MAX.saturating_sub(chosen.len())));
        if let Some(first) = refused.first() {
            errors.push(CheckerError::TooMany { refused: refused.len(), first: first.address });
        }
        chosen.extend(new);
        chosen
    }

    fn keep_or_add(&mut self, wanted: CheckTarget, now: Instant) {
        let id = wanted.id;
        if let Some(target) = self.targets.get_mut(&id)
            && target.asks_the_same(&wanted)
        {
            let is_faster = wanted.check.interval_ms < target.wanted.check.interval_ms;
            target.wanted = wanted;
            // It need not wait for what was far away.
            if let Some(due) = target.due.filter(|_| is_faster) {
                let sooner = due.min(now + spread(&target.wanted));
                self.dequeue(id);
                self.enqueue(id, sooner);
            }
            return;
        }
        let was_unhealthy = self.remove(id).is_some_and(|target| !target.state.is_healthy());
        if was_unhealthy {
            // Whoever listens knows the number, and must not go on thinking so.
            self.events.push(HealthEvent { id, address: wanted.address, healthy: true, reason: None });
        }
        self.generations += 1;
        let first = now + spread(&wanted);
        let target = Target {
            wanted,
            generation: self.generations,
            state: CheckState::new(now),
            due: None,
            is_slow: false,
            probes: 0,
            failures: 0,
            last: None,
        };
        self.targets.insert(id, target);
        self.enqueue(id, first);
    }

    fn remove(&mut self, id: u64) -> Option<Target> {
        self.dequeue(id);
        self.targets.remove(&id)
    }

    fn enqueue(&mut self, id: u64, due: Instant) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        target.due = Some(due);
        let queue = if target.is_slow { &mut self.slow } else { &mut self.prompt };
        queue.insert((due, id));
    }

    fn dequeue(&mut self, id: u64) {
        let Some(due) = self.targets.get_mut(&id).and_then(|target| target.due.take()) else { return };
        self.prompt.remove(&(due, id));
        self.slow.remove(&(due, id));
    }
}

impl Target {
    fn asks_the_same(&self, wanted: &CheckTarget) -> bool {
        self.wanted.address == wanted.address && self.wanted.check.probe == wanted.check.probe
    }

    fn note(&mut self, result: Result<(), ProbeFailure>, now: Instant) -> Option<HealthEvent> {
        self.probes += 1;
        self.failures += u64::from(result.is_err());
        self.is_slow = result == Err(ProbeFailure::TimedOut);
        self.last = Some(result);
        let check = &self.wanted.check;
        let changed = self.state.note(result.is_ok(), check.rise, check.fall, now);
        changed.then(|| HealthEvent {
            id: self.wanted.id,
            address: self.wanted.address,
            healthy: self.state.is_healthy(),
            reason: result.err(),
        })
    }

    fn status(&self) -> TargetStatus {
        TargetStatus {
            id: self.wanted.id,
            address: self.wanted.address,
            healthy: self.state.is_healthy(),
            since: self.state.since(),
            probes: self.probes,
            failures: self.failures,
            last: self.last,
        }
    }
}

/// How long after it was added a target is probed first: anywhere within its interval, so that thousands added at once
/// are probed evenly from the beginning. The same target always waits as long.
fn spread(wanted: &CheckTarget) -> Duration {
    let address = u64::from(u32::from(*wanted.address.ip())) << 16 | u64::from(wanted.address.port());
    let mut random = Random::new(address).fork(wanted.id);
    Duration::from_millis(u64::from(random.below(wanted.check.interval_ms)))
}

#[cfg(test)]
mod tests;
