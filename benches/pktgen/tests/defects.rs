//! The generator against gateways that do one thing wrong: each is found, and called by its name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pktgen::defect::Defect;
use pktgen::runner::{Kind, Load};
use pktgen::scenario::Scenario;
use pktgen::trial::Trial;
use support::{load, overlay, plan, runner, two_cables};

const EVERY: u64 = 97;

fn trial(scenario: Scenario, kind: Kind, defect: Defect, answering: bool) -> Trial {
    // Few flows, so that a packet that is late is overtaken by its own flow's.
    let load = Load { flows: 3, answering, ..load(kind) };
    let (mut runner, _) = runner(scenario, load, |gateway| gateway.with_defect(defect, EVERY));
    runner.trial(Some(1_000_000), 0.01).unwrap()
}

/// The names of all faults, and whether packets are missing.
fn found(trial: &Trial) -> (Vec<&'static str>, bool) {
    assert!(!trial.clean);
    let packets = trial.sent / EVERY;
    if let Some(most) = trial.faults.values().max() {
        // About each one that the gateway spoiled, and twice that where what moved moves back.
        assert!((packets / 4..=2 * packets + 2).contains(most), "{most} of {packets}");
        assert_eq!(trial.examples.len(), 8.min(trial.fault_count() as usize));
    }
    (trial.faults.keys().copied().collect(), trial.lost > 0)
}

#[test]
fn datagrams_show_every_defect() {
    let cases: [(Defect, &[&str], bool); 13] = [
        (Defect::Lose, &[], true),
        (Defect::Delay(7), &["out_of_order"], false),
        (Defect::Repeat, &["duplicate"], true),
        (Defect::WrongBackend, &["wrong_backend"], false),
        (Defect::LeaveUntranslated, &["address"], false),
        (Defect::OuterChecksum, &["outer_checksum"], true),
        (Defect::IpChecksum, &["ip_checksum"], true),
        (Defect::TransportChecksum, &["transport_checksum"], true),
        (Defect::Hops, &["time_to_live"], false),
        (Defect::Network, &["tunnel"], true),
        (Defect::Station, &["link_address"], true),
        (Defect::Truncate, &["length"], true),
        (Defect::MoveBackend, &["moved_backend"], false),
    ];
    for (defect, faults, loses) in cases {
        for answering in [false, true] {
            let trial = trial(overlay(), Kind::Flows, defect, answering);
            let (seen, lost) = found(&trial);
            assert_eq!(
                (seen.as_slice(), lost),
                (faults, loses),
                "{defect:?}, answering {answering}: {trial:#?}"
            );
        }
    }
}

#[test]
fn a_moved_backend_moves_back_and_is_seen_both_times() {
    let trial = trial(overlay(), Kind::Flows, Defect::MoveBackend, false);
    let moved = trial.faults["moved_backend"];
    assert!(moved.abs_diff(2 * (trial.sent / EVERY)) <= 2, "{moved} of {}", trial.sent);
}

#[test]
fn a_changed_payload_is_seen_though_the_checksum_agrees() {
    let sizes = pktgen::sizes::SizeMix::new(&[(128, 1)]).unwrap();
    for kind in [Kind::Flows, Kind::NewFlows, Kind::Connections] {
        let trial = trial(Scenario { sizes: sizes.clone(), ..overlay() }, kind, Defect::Payload, false);
        assert!(trial.faults.get("payload").is_some_and(|count| *count > 5), "{kind:?}: {trial:#?}");
        assert!(trial.faults.keys().all(|name| *name == "payload"), "{:?}", trial.faults);
    }
}

#[test]
fn a_masquerade_that_changes_is_seen() {
    let scenario = Scenario { plan: plan(&["172.30.9.2-172.30.9.49:8080"], &["172.30.76.0"]), ..overlay() };
    let trial = trial(scenario, Kind::Flows, Defect::MoveSource, false);
    assert_eq!(found(&trial), (vec!["moved_source"], false));
    // Without a masquerade there is one right source.
    let trial = self::trial(overlay(), Kind::Flows, Defect::MoveSource, false);
    assert_eq!(found(&trial), (vec!["address"], false));
}

#[test]
fn new_flows_show_defects_too() {
    for (defect, fault) in [
        (Defect::WrongBackend, "wrong_backend"),
        (Defect::TransportChecksum, "transport_checksum"),
        (Defect::Hops, "time_to_live"),
        (Defect::Station, "link_address"),
        (Defect::Repeat, "duplicate"),
    ] {
        for scenario in [overlay(), two_cables()] {
            let trial = trial(scenario, Kind::NewFlows, defect, false);
            assert_eq!(found(&trial).0, [fault]);
        }
    }
    let trial = trial(overlay(), Kind::NewFlows, Defect::Lose, false);
    assert_eq!(trial.lost, trial.sent / EVERY);
}

#[test]
fn connections_show_defects_and_fail_when_segments_are_lost() {
    for (defect, fault) in [
        (Defect::WrongBackend, Some("wrong_backend")),
        (Defect::MoveBackend, Some("moved_backend")),
        (Defect::LeaveUntranslated, Some("address")),
        (Defect::IpChecksum, Some("ip_checksum")),
        (Defect::TransportChecksum, Some("transport_checksum")),
        (Defect::Hops, Some("time_to_live")),
        (Defect::Lose, None),
    ] {
        let load = Load { connections: 500, ..load(Kind::Connections) };
        let (mut runner, _) = runner(overlay(), load, |gateway| gateway.with_defect(defect, EVERY));
        let trial = runner.trial(Some(50_000), 0.01).unwrap();
        assert!(!trial.clean, "{defect:?}");
        let counts = trial.connections.unwrap();
        assert_eq!(counts.opened, counts.completed + counts.failed, "{defect:?}: {counts:?}");
        if let Some(fault) = fault {
            assert!(
                trial.faults.get(fault).is_some_and(|count| *count > 10),
                "{defect:?}: {:?}",
                trial.faults
            );
        }
        // The answers of another backend than the flow's are nobody's.
        let loses = !matches!(defect, Defect::WrongBackend | Defect::LeaveUntranslated | Defect::Hops);
        // A SYN at the wrong endpoint is not answered.
        let fails = loses || matches!(defect, Defect::WrongBackend | Defect::LeaveUntranslated);
        assert_eq!((trial.lost > 0, counts.failed > 0), (loses, fails), "{defect:?}: {trial:#?}");
    }
}

#[test]
fn segments_that_overtake_each_other_are_seen() {
    // One connection at a time: the client's ACK and its data, and the backend's, go one behind the other. Where the one
    // that is late is alone, nothing comes behind which it could come, and the connection fails.
    let load = Load { connections: 1, exchanges: 20, patience_ns: 500_000, ..load(Kind::Connections) };
    let (mut runner, _) = runner(overlay(), load, |gateway| gateway.with_defect(Defect::Delay(0), 7));
    let trial = runner.trial(None, 0.1).unwrap();
    assert!(trial.faults.get("out_of_order").is_some_and(|count| *count > 5), "{trial:#?}");
}
