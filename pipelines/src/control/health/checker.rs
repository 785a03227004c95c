//! Active health checks: probes backends from the host's own stack and tells when one becomes unhealthy or healthy.
//!
//! One thread makes all probes, many at a time. It starts with the first target, so that a gateway without health checks
//! has none. What becomes of an unhealthy backend is for whoever hears of it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mio::{Interest, Token};
use tracing::info;

use super::poll_thread::{PollThread, Sockets};
use super::probe::{Probe, ProbeEnd, ProbeFailure};
use super::schedule::{ProbeKey, ProbeStart, Schedule, TARGETS_MAX};
use crate::control::config::model::HealthCheck;
use crate::control::view::lock;

/// Probes begun before the thread looks after those under way again.
const STARTED_A_TURN: usize = 64;

/// A backend to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTarget {
    /// The caller's number for it.
    pub id: u64,
    /// Where to probe: [`HealthCheck::target`] of the backend's address.
    pub address: SocketAddrV4,
    /// How, and how often; shared by the backends of a port.
    pub check: Arc<HealthCheck>,
}

/// A backend that counts as something else from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthEvent {
    /// The caller's number for it.
    pub id: u64,
    /// Where it was probed.
    pub address: SocketAddrV4,
    /// What it counts as now.
    pub healthy: bool,
    /// Why the last probe failed, when it counts as unhealthy now.
    pub reason: Option<ProbeFailure>,
}

/// Why targets are not probed. They count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    /// The thread did not start.
    #[error("backends are not probed: {0}; raise the limits on descriptors or threads")]
    Start(#[source] io::Error),
    /// There are too many.
    #[error(
        "{refused} backends, {first} among them, are not probed: {TARGETS_MAX} are at the most; check fewer services"
    )]
    TooMany {
        /// How many are not probed.
        refused: usize,
        /// One of them.
        first: SocketAddrV4,
    },
    /// A number was given to two; the first has it.
    #[error("backend {address} is not probed: another has its number, {id}")]
    Twice {
        /// The number.
        id: u64,
        /// The second one's address.
        address: SocketAddrV4,
    },
}

/// What is known of a target now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// The caller's number for it.
    pub id: u64,
    /// Where it is probed.
    pub address: SocketAddrV4,
    /// Whether it counts as healthy.
    pub healthy: bool,
    /// Since when.
    pub since: Instant,
    /// Probes that ended.
    pub probes: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// How the last one ended; none before the first has.
    pub last: Option<Result<(), ProbeFailure>>,
}

/// What happened since the gateway started, and how many are what now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckerCounters {
    /// Probes that passed.
    pub passed: u64,
    /// Probes that failed.
    pub failed: u64,
    /// Probes that this host could not make, for want of descriptors, ports or memory.
    pub not_made: u64,
    /// Times that a target became healthy.
    pub became_healthy: u64,
    /// Times that a target became unhealthy.
    pub became_unhealthy: u64,
    /// Targets now.
    pub targets: usize,
    /// Those that count as unhealthy now.
    pub unhealthy: usize,
    /// Probes under way now.
    pub probes_under_way: usize,
}

type Report = Box<dyn FnMut(HealthEvent) + Send>;

/// All health checks. Dropping it ends them.
pub struct Checker {
    schedule: Arc<Mutex<Schedule>>,
    report: Arc<Mutex<Report>>,
    thread: Option<PollThread>,
}

impl Checker {
    /// With no targets yet. `report` is called by the checker's thread for each change, in order, and must not wait:
    /// sending into a channel is what it is for.
    ///
    /// An event may still come for a target that [`Self::apply`] has just removed or replaced: number and address say
    /// which it was of.
    pub fn new(report: impl FnMut(HealthEvent) + Send + 'static) -> Self {
        Self { schedule: Arc::default(), report: Arc::new(Mutex::new(Box::new(report))), thread: None }
    }

    /// Makes these the targets, by difference.
    ///
    /// A target of the same number that asks the same of the same address keeps its state, whatever else of its check is
    /// changed. All others begin as healthy; if their number was an unhealthy target's, an event says so. A number that
    /// is not among them any more is forgotten without an event.
    pub fn apply(&mut self, targets: Vec<CheckTarget>) -> Vec<CheckerError> {
        let is_needed = !targets.is_empty();
        let mut errors = lock(&self.schedule).apply(targets, Instant::now());
        if let Some(thread) = &self.thread {
            thread.wake();
        } else if is_needed {
            match self.start() {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => errors.push(CheckerError::Start(error)),
            }
        }
        errors
    }

    /// What is known of each target, by its number.
    pub fn statuses(&self) -> Vec<TargetStatus> {
        lock(&self.schedule).statuses()
    }

    /// What happened, and how many are what.
    pub fn counters(&self) -> CheckerCounters {
        lock(&self.schedule).counters()
    }

    fn start(&self) -> io::Result<PollThread> {
        let (schedule, report) = (Arc::clone(&self.schedule), Arc::clone(&self.report));
        PollThread::start("health-checks", move |sockets| {
            let probes = HashMap::new();
            let mut runner = Runner { sockets, schedule, report, probes, ends: BTreeSet::new(), tokens: 0 };
            while runner.turn() {}
        })
    }
}

struct UnderWay {
    probe: Probe,
    key: ProbeKey,
    /// When it must have ended.
    end: Instant,
}

/// The thread.
struct Runner {
    sockets: Sockets,
    schedule: Arc<Mutex<Schedule>>,
    report: Arc<Mutex<Report>>,
    probes: HashMap<Token, UnderWay>,
    /// Those under way, by when they must have ended.
    ends: BTreeSet<(Instant, Token)>,
    tokens: usize,
}

impl Runner {
    /// Begins probes, waits, and looks after those under way; false when it shall end.
    fn turn(&mut self) -> bool {
        self.start_due();
        self.tell();
        let next = lock(&self.schedule).next_at();
        let next = self.ends.first().map(|(end, _)| *end).into_iter().chain(next).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        let Some(ready) = self.sockets.wait(timeout) else { return false };
        for token in ready {
            self.advance(token);
        }
        self.end_late();
        self.tell();
        true
    }

    fn start_due(&mut self) {
        for _ in 0..STARTED_A_TURN {
            let Some(start) = lock(&self.schedule).next(Instant::now()) else { return };
            let key = start.key;
            if let Err(end) = self.start(start) {
                lock(&self.schedule).end(key, end, Instant::now());
            }
        }
    }

    fn start(&mut self, start: ProbeStart) -> Result<(), ProbeEnd> {
        let mut probe = Probe::start(start.address, &start.check)?;
        let token = Token(self.tokens);
        self.tokens += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.sockets
            .registry()
            .register(probe.stream_mut(), token, interest)
            .map_err(|_| ProbeEnd::NotMade)?;
        let end = Instant::now() + start.check.timeout();
        self.ends.insert((end, token));
        self.probes.insert(token, UnderWay { probe, key: start.key, end });
        Ok(())
    }

    fn advance(&mut self, token: Token) {
        if let Some(end) = self.probes.get_mut(&token).and_then(|under_way| under_way.probe.advance()) {
            self.end(token, end);
        }
    }

    fn end(&mut self, token: Token, end: ProbeEnd) {
        let Some(under_way) = self.probes.remove(&token) else { return };
        self.ends.remove(&(under_way.end, token));
        lock(&self.schedule).end(under_way.key, end, Instant::now());
    }

    fn end_late(&mut self) {
        let now = Instant::now();
        while let Some((_, token)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            // What came in time counts, even if this thread did not run in time to see it.
            let end = self.probes.get_mut(&token).and_then(|under_way| under_way.probe.advance());
            self.end(token, end.unwrap_or(ProbeEnd::Failed(ProbeFailure::TimedOut)));
        }
    }

    fn tell(&self) {
        let events = lock(&self.schedule).take_events();
        for event in events {
            match event.reason {
                Some(reason) => info!(address = %event.address, %reason, "a backend is unhealthy"),
                None => info!(address = %event.address, "a backend is healthy"),
            }
            lock(&self.report)(event);
        }
    }
}

#[cfg(test)]
mod tests;
