//! RFC 9693's tests against a gateway in memory whose rates and table are known.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use engine::pool::MemoryPool;
use pktgen::ideal::IdealGateway;
use pktgen::nat::{
    CapacityGoal, NatError, NatSettings, closing_rate, establishment_rate, table_capacity,
    tear_down_by_command,
};
use pktgen::runner::{Kind, Runner};
use pktgen::search::SearchGoal;
use support::{load, overlay, virtual_clock};

const SETTINGS: NatSettings = NatSettings { connections: 3_000, alpha: 0.5, open_rate: Some(1_000_000) };
const GOAL: SearchGoal = SearchGoal {
    loss_ratio: 0.0,
    min_rate: 1_000,
    max_rate: 4_000_000,
    precision: 0.02,
    initial_s: 1.0,
    final_s: 1.0,
    stages: 3,
    confirmations: 1,
};

/// A gateway that takes so many new connections a second and holds so many.
fn world(new_per_s: u32, capacity: usize) -> (Runner, Arc<Mutex<IdealGateway>>) {
    let (clock, reader) = virtual_clock();
    let gateway = IdealGateway::new(overlay()).with_capacity(capacity).with_new_per_s(new_per_s, 40, reader);
    let (ports, gateway) = gateway.into_ports();
    let runner = Runner::new(overlay(), load(Kind::Flows), ports, Box::new(MemoryPool::new(4_096)), clock);
    (runner, gateway)
}

fn forget(gateway: &Mutex<IdealGateway>) -> Result<(), NatError> {
    gateway.lock().unwrap().forget();
    Ok(())
}

#[test]
fn the_rate_of_establishment_is_the_gateways() {
    let (mut runner, gateway) = world(700_000, usize::MAX);
    let result = establishment_rate(&mut runner, &SETTINGS, GOAL, &mut || forget(&gateway)).unwrap();
    let rate = result.rate.unwrap();
    assert!((680_000..=730_000).contains(&rate), "{rate}");
    assert!(result.steps.iter().any(|step| !step.good) && !result.generator_limited);
    let last = result.confirmation.unwrap();
    assert_eq!((last.requests.received, last.replies.received), (3_000, 3_000));
}

#[test]
fn a_table_that_is_not_emptied_fails_the_test() {
    let (mut runner, _) = world(1_000_000_000, 5_000);
    let result = establishment_rate(&mut runner, &SETTINGS, GOAL, &mut || Ok(())).unwrap();
    assert_eq!(result.rate, None);
    let failing = &mut || Err(NatError::Command { command: "clear".into(), reason: "status 1".into() });
    assert!(establishment_rate(&mut runner, &SETTINGS, GOAL, failing).is_err());
}

#[test]
fn capacity_is_that_of_the_table() {
    let (mut runner, gateway) = world(1_000_000_000, 12_345);
    let goal =
        CapacityGoal { start: 1_000, max: 100_000, max_rate: 1_000_000, beta: 0.2, gamma: 0.4, error: 50 };
    let found = table_capacity(&mut runner, &SETTINGS, &goal, &mut || forget(&gateway)).unwrap();
    let fits = found.connections.unwrap();
    assert!((12_295..=12_345).contains(&fits), "{found:?}");
    assert!(found.upper.is_some_and(|upper| upper > 12_345));
}

#[test]
fn tear_down_is_timed_and_verified() {
    let (mut runner, gateway) = world(1_000_000_000, usize::MAX);
    let delete = &mut || forget(&gateway);
    let down = tear_down_by_command(&mut runner, &SETTINGS, &mut || Ok(()), delete).unwrap();
    assert_eq!((down.connections, down.remaining), (3_000, 0));
    // The clock goes on by a microsecond each time it is read.
    assert!((down.seconds - 1e-6).abs() < 1e-9 && (down.rate / 3e9 - 1.0).abs() < 1e-6, "{down:?}");
    let kept = tear_down_by_command(&mut runner, &SETTINGS, &mut || Ok(()), &mut || Ok(())).unwrap();
    assert_eq!((kept.remaining, kept.rate), (3_000, 0.0));
}

#[test]
fn connections_are_closed_one_by_one() {
    let (mut runner, _) = world(1_000_000_000, usize::MAX);
    let result = closing_rate(&mut runner, &SETTINGS, GOAL, &mut || Ok(())).unwrap();
    // Nothing slows this gateway down: the generator is the limit, and says so.
    assert!(result.rate.is_some());
    let last = result.confirmation.unwrap();
    let counts = last.connections.unwrap();
    assert_eq!((counts.completed, counts.failed, last.warm_up_lost, last.sent), (3_000, 0, 0, 9_000));
}
