//! The generator against a gateway in memory that does everything right: nothing is lost and nothing is wrong, whatever
//! the traffic; and the counts add up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pktgen::connection::{Connections, Course};
use pktgen::datagram::Datagrams;
use pktgen::received::Peer;
use pktgen::runner::{Kind, Load};
use pktgen::scenario::Scenario;
use pktgen::sizes::SizeMix;
use pktgen::traffic::Traffic;
use pktgen::trial::Trial;
use support::{load, overlay, plain_link, plan, runner, tunnel_link, two_cables};

fn assert_clean(trial: &Trial) {
    assert!(trial.clean, "{trial:#?}");
    assert_eq!((trial.lost, trial.received, trial.fault_count()), (0, trial.sent, 0));
    assert_eq!(trial.latency.samples, trial.received);
    assert!(!trial.flows_repeat && trial.warm_up_lost == 0);
}

fn trial(scenario: Scenario, load: Load, rate: Option<u64>, seconds: f64) -> Trial {
    let (mut runner, _) = runner(scenario, load, |gateway| gateway);
    runner.trial(rate, seconds).unwrap()
}

#[test]
fn every_scenario_carries_every_traffic() {
    let masqueraded = || plan(&["172.30.9.2-172.30.9.49:8080"], &["172.30.76.0"]);
    let mixed = vec![plain_link(1), tunnel_link()];
    let scenarios = [
        overlay(),
        two_cables(),
        Scenario { plan: masqueraded(), ..overlay() },
        Scenario { plan: masqueraded(), ..two_cables() },
        Scenario { links: mixed, backend_port: 1, ..overlay() },
        Scenario { plan: plan(&[], &[]), ..overlay() },
        Scenario { sizes: SizeMix::imix(), ..overlay() },
        Scenario { peer: Peer::Mirror, hops: 0, plan: plan(&[], &[]), ..overlay() },
        Scenario { peer: Peer::Mirror, hops: 0, plan: plan(&[], &[]), ..two_cables() },
    ];
    for (number, scenario) in scenarios.into_iter().enumerate() {
        for kind in [Kind::Flows, Kind::NewFlows, Kind::Connections] {
            for answering in [false, true] {
                let load = Load { answering, ..load(kind) };
                let trial = trial(scenario.clone(), load, None, 0.002);
                assert!(trial.clean && trial.sent > 1_000, "scenario {number}, {kind:?}: {trial:#?}");
                assert_clean(&trial);
                let both_ways = answering || kind == Kind::Connections;
                assert_eq!(trial.replies.sent > 0, both_ways);
            }
        }
    }
}

#[test]
fn the_rate_is_kept_and_counted() {
    let trial = trial(overlay(), load(Kind::Flows), Some(300_000), 0.1);
    assert_clean(&trial);
    assert!((29_990..=30_000).contains(&trial.sent), "{}", trial.sent);
    assert!((299_000.0..300_100.0).contains(&trial.rate_offered) && !trial.generator_limited);
    // In virtual time a loop of some microseconds, 32 packets in each at the most.
    let limited = self::trial(overlay(), load(Kind::Flows), Some(1_000_000_000), 0.01);
    assert!(limited.generator_limited && limited.clean);
}

#[test]
fn each_flow_is_one_of_the_plan_and_sends_in_turn() {
    let load = Load { flows: 5_000, warm_up_rounds: 2, ..load(Kind::Flows) };
    let (mut runner, gateway) = runner(overlay(), load, |gateway| gateway);
    assert_clean(&runner.trial(None, 0.01).unwrap());
    assert_clean(&runner.trial(None, 0.01).unwrap());
    // Later trials use the same flows: the gateway learned no other.
    assert_eq!(gateway.lock().unwrap().connections(), 5_000);
}

#[test]
fn new_flows_are_new_until_the_plan_is_used_up() {
    let mut small = overlay();
    small.plan = pktgen::plan::Plan::new(
        "100.64.0.0".parse().unwrap(),
        "1-5000".parse().unwrap(),
        &[pktgen::plan::Group {
            addresses: "10.254.128.0".parse().unwrap(),
            port: 80,
            backends: vec!["172.30.9.2:8080".parse().unwrap()],
        }],
        vec![],
    )
    .unwrap();
    let (mut runner, gateway) = runner(small, load(Kind::NewFlows), |gateway| gateway);
    let first = runner.trial(Some(1_000_000), 0.003).unwrap();
    assert_clean(&first);
    assert_eq!(gateway.lock().unwrap().connections() as u64, first.sent);
    let second = runner.trial(Some(1_000_000), 0.003).unwrap();
    assert!(second.clean && second.flows_repeat);
    assert_eq!(gateway.lock().unwrap().connections(), 5_000);
}

#[test]
fn connections_are_whole_and_their_segments_as_many_as_were_asked_for() {
    for exchanges in [0, 1, 5, 30] {
        let load = Load { exchanges, ..load(Kind::Connections) };
        let trial = trial(overlay(), load, Some(5_000), 0.02);
        assert_clean(&trial);
        let counts = trial.connections.unwrap();
        assert!(counts.opened >= 95);
        assert_eq!((counts.established, counts.completed, counts.failed), (counts.opened, counts.opened, 0));
        assert_eq!(trial.sent, counts.completed * u64::from(6 + 4 * exchanges));
    }
}

#[test]
fn a_window_bounds_what_is_in_flight() {
    let load = Load { window: 7, burst: 100, ..load(Kind::Flows) };
    let trial = trial(overlay(), load, None, 0.01);
    assert_clean(&trial);
    assert!(trial.sent > 100);
}

#[test]
fn what_cannot_be_numbered_is_refused() {
    let scenario = std::sync::Arc::new(Scenario { sizes: SizeMix::new(&[(1518, 1)]).unwrap(), ..overlay() });
    // 30 exchanges of 1,460 bytes need 16 bits, which leaves 15 for places.
    let of = |count| Connections::new(std::sync::Arc::clone(&scenario), count, 30, 0, 1);
    assert!(of(1 << 15).is_ok() && of(0).is_err());
    let error = of((1 << 15) + 1).err().unwrap().to_string();
    assert!(error.contains("32768 do"), "{error}");
    let mut connections = of(4).unwrap();
    connections.set_course(Course::Open);
    assert_eq!((connections.parked(), connections.in_flight()), (0, 0));
    assert_eq!(Datagrams::flows(scenario, 1_000, 0).numbers(), 1_024);
}
