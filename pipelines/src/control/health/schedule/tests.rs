//! In virtual time: probes begin, take as long as they are said to, and end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::control::config::model::Probe;

fn check(interval_ms: u32, timeout_ms: u32) -> HealthCheck {
    HealthCheck { probe: Probe::Tcp, port: None, interval_ms, timeout_ms, rise: 2, fall: 3 }
}

fn address(id: u64) -> SocketAddrV4 {
    SocketAddrV4::new(u32::try_from(0xac1e_0000 + id).unwrap().into(), 8080)
}

fn target(id: u64, check: &Arc<HealthCheck>) -> CheckTarget {
    CheckTarget { id, address: address(id), check: Arc::clone(check) }
}

fn targets(ids: impl IntoIterator<Item = u64>) -> Vec<CheckTarget> {
    let check = Arc::new(check(2_000, 1_000));
    ids.into_iter().map(|id| target(id, &check)).collect()
}

const PASSES: (Duration, ProbeEnd) = (Duration::from_millis(1), ProbeEnd::Passed);
const REFUSES: (Duration, ProbeEnd) = (Duration::ZERO, ProbeEnd::Failed(ProbeFailure::Refused));
const HANGS: (Duration, ProbeEnd) = (Duration::from_secs(1), ProbeEnd::Failed(ProbeFailure::TimedOut));

struct Simulation {
    schedule: Schedule,
    begin: Instant,
    now: Instant,
    /// By when it ends, and whose it is.
    under_way: BTreeMap<(Instant, u64), (ProbeKey, ProbeEnd)>,
    /// When each probe was due and when it began, by target.
    starts: HashMap<u64, Vec<(Instant, Instant)>>,
}

impl Simulation {
    fn new() -> Self {
        let begin = Instant::now();
        let (under_way, starts) = (BTreeMap::new(), HashMap::new());
        Self { schedule: Schedule::default(), begin, now: begin, under_way, starts }
    }

    fn apply(&mut self, wanted: Vec<CheckTarget>) -> Vec<CheckerError> {
        self.schedule.apply(wanted, self.now)
    }

    /// Goes on for `duration`; `behaviour` says how long a probe of a target takes and how it ends.
    fn run(&mut self, duration: Duration, behaviour: impl Fn(u64) -> (Duration, ProbeEnd)) {
        let until = self.now + duration;
        loop {
            loop {
                let due = self.schedule.next_at();
                let Some(start) = self.schedule.next(self.now) else { break };
                let ProbeKey { id, generation, .. } = start.key;
                assert!(!self.under_way.keys().any(|(_, other)| *other == generation), "one at a time");
                let (takes, end) = behaviour(id);
                self.under_way.insert((self.now + takes, generation), (start.key, end));
                self.starts.entry(id).or_default().push((due.unwrap(), self.now));
            }
            assert!(self.under_way.len() <= PROBES_MAX);
            assert_eq!(self.schedule.counters().probes_under_way, self.under_way.len());
            let slow = self.under_way.values().filter(|(key, _)| key.is_slow).count();
            assert!(slow <= SLOW_PROBES_MAX && slow == self.schedule.slow_probes);
            let ends = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = self.schedule.next_at().into_iter().chain(ends).min().filter(|at| *at <= until)
            else {
                break;
            };
            assert!(next >= self.now);
            self.now = next;
            while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= self.now) {
                let (key, end) = first.remove();
                self.schedule.end(key, end, self.now);
            }
        }
        self.now = until;
    }

    fn events(&mut self) -> Vec<(u64, bool, Option<ProbeFailure>)> {
        let events = self.schedule.take_events();
        events.into_iter().map(|event| (event.id, event.healthy, event.reason)).collect()
    }

    fn starts_of(&self, id: u64) -> Vec<Duration> {
        self.starts.get(&id).into_iter().flatten().map(|(_, at)| *at - self.begin).collect()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let mut simulation = Simulation::new();
    assert!(simulation.apply(targets(0..2_000)).is_empty());
    simulation.run(Duration::from_millis(1_999), |_| PASSES);
    let mut tenths = [0; 20];
    for id in 0..2_000 {
        let starts = simulation.starts_of(id);
        assert_eq!(starts.len(), 1);
        tenths[starts[0].as_millis() as usize / 100] += 1;
    }
    // 100 each would be perfect.
    assert!(tenths.iter().all(|count| (60..150).contains(count)), "{tenths:?}");
}

#[test]
fn the_rhythm_is_kept_whatever_probes_take() {
    for behaviour in [PASSES, REFUSES, HANGS] {
        let mut simulation = Simulation::new();
        simulation.apply(targets([7]));
        simulation.run(seconds(60), |_| behaviour);
        let starts = simulation.starts_of(7);
        assert_eq!(starts.len(), 30);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == seconds(2)), "{starts:?}");
    }
}

#[test]
fn a_probe_that_outlasts_its_interval_holds_up_the_next() {
    let mut simulation = Simulation::new();
    let check = Arc::new(check(500, 1_000));
    simulation.apply(vec![target(1, &check)]);
    simulation.run(seconds(30), |_| HANGS);
    let starts = simulation.starts_of(1);
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == seconds(1)), "{starts:?}");
}

#[test]
fn hanging_targets_do_not_delay_the_others() {
    let mut simulation = Simulation::new();
    // 2,000 that hang would have 1,000 probes under way at any time, four times as many as they may.
    simulation.apply(targets(0..6_000));
    let behaviour = |id: u64| if id < 2_000 { HANGS } else { PASSES };
    simulation.run(seconds(30), behaviour);
    simulation.starts.clear();
    simulation.run(seconds(20), behaviour);
    for (id, starts) in &simulation.starts {
        let late = starts.iter().map(|(due, at)| *at - *due).max().unwrap_or_default();
        match *id {
            // 256 a second.
            0..2_000 => assert!(late <= seconds(8), "{id}: {late:?}"),
            _ => assert!(late.is_zero() && starts.len() == 10, "{id}: {late:?}, {}", starts.len()),
        }
    }
    let counters = simulation.schedule.counters();
    assert_eq!((counters.targets, counters.unhealthy), (6_000, 2_000));
}

#[test]
fn when_all_hang_each_gets_its_turn() {
    let mut simulation = Simulation::new();
    simulation.apply(targets(0..4_000));
    simulation.run(seconds(120), |_| HANGS);
    // 256 a second for 4,000, and 512 a second at first.
    let counts: Vec<usize> = simulation.starts.values().map(Vec::len).collect();
    assert!(counts.len() == 4_000 && counts.iter().all(|count| (6..=10).contains(count)), "{counts:?}");
    simulation.run(seconds(60), |_| PASSES);
    assert_eq!(simulation.schedule.counters().unhealthy, 0, "and all come back");
}

#[test]
fn changes_are_told_once_with_their_reason() {
    let mut simulation = Simulation::new();
    simulation.apply(targets([1, 2]));
    simulation.run(seconds(20), |id| if id == 1 { REFUSES } else { PASSES });
    assert_eq!(simulation.events(), [(1, false, Some(ProbeFailure::Refused))]);
    simulation.run(seconds(20), |_| PASSES);
    assert_eq!(simulation.events(), [(1, true, None)]);
    let counters = simulation.schedule.counters();
    assert_eq!((counters.passed, counters.failed, counters.not_made), (30, 10, 0));
    assert_eq!((counters.became_unhealthy, counters.became_healthy), (1, 1));
    let status = simulation.schedule.statuses()[0];
    assert_eq!((status.id, status.healthy, status.probes, status.failures), (1, true, 20, 10));
    assert_eq!(status.last, Some(Ok(())));
}

#[test]
fn a_target_that_stays_keeps_its_state() {
    let mut simulation = Simulation::new();
    simulation.apply(targets([1, 2]));
    simulation.run(seconds(20), |_| REFUSES);
    assert_eq!(simulation.events().len(), 2);
    // One goes and another comes; 1 gets other times, and 2 is forgotten.
    let other = Arc::new(HealthCheck { rise: 1, ..check(500, 100) });
    simulation.apply(vec![target(3, &other), target(1, &other)]);
    assert_eq!(simulation.events(), [], "a change of times is none of state");
    assert_eq!(simulation.schedule.statuses().iter().map(|status| status.id).collect::<Vec<_>>(), [1, 3]);
    simulation.starts.clear();
    simulation.run(seconds(1), |_| PASSES);
    assert_eq!(simulation.events(), [(1, true, None)], "by its new rise");
    assert_eq!(simulation.starts_of(1).len(), 2, "at its new pace, at once");
}

#[test]
fn another_question_begins_anew() {
    let mut simulation = Simulation::new();
    simulation.apply(targets([1, 2]));
    simulation.run(seconds(20), |id| if id == 1 { REFUSES } else { PASSES });
    assert_eq!(simulation.events().len(), 1);
    let probe = Probe::Http { path: "/".to_owned(), status: (200, 200) };
    let http = Arc::new(HealthCheck { probe, ..check(2_000, 1_000) });
    simulation.apply(vec![target(1, &http), target(2, &http)]);
    assert_eq!(simulation.events(), [(1, true, None)], "the one that was unhealthy is so no more");
    simulation.run(seconds(20), |_| REFUSES);
    assert_eq!(simulation.events().len(), 2);
    let moved = CheckTarget { address: address(9), ..target(1, &http) };
    simulation.apply(vec![moved, target(2, &http)]);
    assert_eq!(simulation.events(), [(1, true, None)], "as is one that moved");
}

#[test]
fn ends_of_what_is_gone_change_nothing() {
    let mut simulation = Simulation::new();
    let check = Arc::new(HealthCheck { fall: 1, ..check(2_000, 1_000) });
    simulation.apply(vec![target(1, &check)]);
    while simulation.under_way.is_empty() {
        simulation.run(Duration::from_millis(1), |_| HANGS);
    }
    simulation.apply(Vec::new());
    assert_eq!(simulation.schedule.counters().targets, 0);
    // The same number again, before the probe of the first has ended.
    simulation.apply(vec![target(1, &check)]);
    let status = simulation.schedule.statuses()[0];
    simulation.run(seconds(60), |_| PASSES);
    assert!(status.healthy && simulation.schedule.statuses()[0].failures == 0);
    assert_eq!(simulation.events(), []);
    assert_eq!((simulation.schedule.probes, simulation.schedule.slow_probes), (0, 0));
}

#[test]
fn what_could_not_be_probed_keeps_its_state() {
    let mut simulation = Simulation::new();
    simulation.apply(targets([1]));
    simulation.run(seconds(20), |_| (Duration::ZERO, ProbeEnd::NotMade));
    assert_eq!(simulation.events(), []);
    let status = simulation.schedule.statuses()[0];
    assert_eq!((status.healthy, status.probes, status.last), (true, 0, None));
    assert_eq!(simulation.schedule.counters().not_made, 10, "and is tried again at its pace");
}

#[test]
fn targets_are_bounded_and_those_that_are_there_stay() {
    let mut simulation = Simulation::new();
    let most = TARGETS_MAX as u64;
    assert!(simulation.apply(targets(0..most)).is_empty());
    // 3 new ones stand before those that are there.
    let errors = simulation.apply(targets((most..most + 3).chain(0..most - 1)));
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    let expected =
        format!("2 backends, {} among them, are not probed: 16384 are at the most", address(most + 1));
    assert!(said[0].starts_with(&expected), "{said:?}");
    let ids: Vec<u64> = simulation.schedule.statuses().iter().map(|status| status.id).collect();
    assert_eq!(ids, (0..most - 1).chain([most]).collect::<Vec<_>>());
}

#[test]
fn a_number_is_one_targets() {
    let mut simulation = Simulation::new();
    let check = Arc::new(check(2_000, 1_000));
    let second = CheckTarget { address: address(9), ..target(1, &check) };
    let errors = simulation.apply(vec![target(1, &check), second]);
    assert!(matches!(&errors[..], [CheckerError::Twice { id: 1, .. }]), "{errors:?}");
    assert_eq!(simulation.schedule.statuses()[0].address, address(1));
}

/// Something that happens to a schedule.
#[derive(Clone, Debug)]
enum Step {
    /// Some targets, by number, each with one of a few questions.
    Apply(Vec<(u64, bool)>),
    /// Time goes by, and probes pass, fail, hang or are not made, by target.
    Run(u64, [u8; 8]),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec((0u64..8, any::<bool>()), 0..10).prop_map(Step::Apply),
        (0u64..8_000, any::<[u8; 8]>()).prop_map(|(ms, ends)| Step::Run(ms, ends)),
    ]
}

proptest! {
    /// Whoever believes the events, and believes of what is new that it is healthy, believes what is.
    #[test]
    fn listeners_know_the_state(steps in proptest::collection::vec(step(), 0..40)) {
        let mut simulation = Simulation::new();
        let checks = [Probe::Tcp, Probe::Http { path: "/".to_owned(), status: (200, 299) }]
            .map(|probe| Arc::new(HealthCheck { probe, ..check(1_000, 1_000) }));
        let mut believed: BTreeMap<u64, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Apply(wanted) => {
                    let wanted: Vec<CheckTarget> =
                        wanted.iter().map(|(id, which)| target(*id, &checks[usize::from(*which)])).collect();
                    believed.retain(|id, _| wanted.iter().any(|wanted| wanted.id == *id));
                    for wanted in &wanted {
                        believed.entry(wanted.id).or_insert(true);
                    }
                    simulation.apply(wanted);
                }
                Step::Run(ms, ends) => simulation.run(Duration::from_millis(ms), |id| {
                    match ends[id as usize] % 4 {
                        0 => HANGS,
                        1 => REFUSES,
                        2 => (Duration::ZERO, ProbeEnd::NotMade),
                        _ => PASSES,
                    }
                }),
            }
            for (id, healthy, reason) in simulation.events() {
                prop_assert_eq!(healthy, reason.is_none());
                // What is told of a number that is not known is not listened to.
                believed.entry(id).and_modify(|believed| *believed = healthy);
            }
            let known: BTreeMap<u64, bool> =
                simulation.schedule.statuses().iter().map(|status| (status.id, status.healthy)).collect();
            prop_assert_eq!(&believed, &known);
        }
    }
}
