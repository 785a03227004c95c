//! Point 9: how a backend is chosen: at random by weight, or by a consistent hash.

use std::collections::BTreeMap;

use crate::manifests::{gateway, service, slice, world_of};
use crate::stations::{Call, spread};
use crate::support::World;

const WEB: &str = "10.254.1.1:80";

/// A service of these endpoints with these annotations.
fn web(annotations: &str, endpoints: &[&str]) -> String {
    let text =
        service("web", "10.254.1.1", &["/UDP/80"], "") + &slice("web", "web-1", &["/UDP/8080"], endpoints);
    text.replacen("  name: web\n", &format!("  name: web\n  annotations: {{ {annotations} }}\n"), 1)
}

fn world(manifests: &str, seed: u64) -> World {
    world_of(&gateway().replace("capacity = 4096", "capacity = 16384"), manifests, 1, seed)
}

/// How far counts are from shares of these weights.
fn chi_squared(counts: &BTreeMap<(String, bool), u32>, weights: &[(&str, u32)]) -> f64 {
    let total: u32 = counts.values().sum();
    let all: u32 = weights.iter().map(|weight| weight.1).sum();
    let distance = |(address, weight): &(&str, u32)| {
        let expected = f64::from(total) * f64::from(*weight) / f64::from(all);
        let count = counts.get(&(format!("{address}:8080"), false)).copied().unwrap_or_default();
        (f64::from(count) - expected).powi(2) / expected
    };
    weights.iter().map(distance).sum()
}

const ENDPOINTS: [&str; 4] = ["172.30.76.5", "172.30.76.3", "172.30.9.3", "172.30.9.4"];

#[test]
fn new_connections_follow_weights() {
    for algorithm in ["random", "maglev"] {
        for (weights, expected, quantile) in [
            // Equal, if nothing is said; else as said. The 0.999 quantiles of chi-squared with three and two degrees.
            ("", [1, 1, 1, 1], 16.27),
            ("172.30.76.5=5, 172.30.76.3=3, 172.30.9.3=2, 172.30.9.4=0", [5, 3, 2, 0], 13.82),
            ("172.30.76.5=60000, 172.30.76.3=30000, 172.30.9.3=30000, 172.30.9.4=30000", [2, 1, 1, 1], 16.27),
        ] {
            let weighted = if weights.is_empty() {
                String::new()
            } else {
                format!(", pollgate.io/weights: \"{weights}\"")
            };
            let mut world =
                world(&web(&format!("pollgate.io/algorithm: {algorithm}{weighted}"), &ENDPOINTS), 5);
            let counts = spread(&mut world, "udp", "172.30.76.7", WEB, 10_000, 10_000);
            let pairs: Vec<(&str, u32)> =
                ENDPOINTS.into_iter().zip(expected).filter(|pair| pair.1 > 0).collect();
            assert_eq!(counts.len(), pairs.len(), "weight 0 takes none: {counts:?}");
            let distance = chi_squared(&counts, &pairs);
            assert!(distance < quantile, "{algorithm} {weights}: {counts:?} {distance}");
            world.assert_drops(&[]);
            world.assert_balanced();
        }
    }
}

/// Where each of a client's connections goes: by its port.
fn choices(world: &mut World, count: u16) -> Vec<String> {
    (0..count)
        .map(|number| Call::open(world, 0, "udp", &format!("172.30.76.7:{}", 10_000 + number), WEB).backend)
        .collect()
}

#[test]
fn consistent_choices_are_the_same_on_every_gateway() {
    let maglev = "pollgate.io/algorithm: maglev";
    let mut one = world(&web(maglev, &ENDPOINTS), 1);
    // Another one's randomness, order, slices, and past.
    let mut turned = ENDPOINTS;
    turned.reverse();
    let mut other = world(&web(maglev, &["172.30.76.2", "172.30.76.6"]), 99);
    choices(&mut other, 10);
    let files = web(maglev, &turned[..1]) + &slice("web", "web-0", &["/UDP/8080"], &turned[1..]);
    other.replace("services", Some(&files));
    other.settle();
    let (of_one, of_other) = (choices(&mut one, 2_000), choices(&mut other, 2_000));
    assert_eq!(of_one, of_other);
    // By chance they are not.
    let mut random = world(&web("pollgate.io/algorithm: random", &ENDPOINTS), 1);
    let same = choices(&mut random, 2_000).iter().zip(&of_one).filter(|(one, other)| one == other).count();
    assert!((400..600).contains(&same), "{same}");
    for world in [&mut one, &mut other, &mut random] {
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// What docs/decisions.md says of it.
#[test]
fn few_connections_move_when_one_of_n_backends_goes() {
    for (count, most) in [(2u8, 0.51), (5, 0.24), (10, 0.14), (50, 0.06)] {
        let endpoints: Vec<String> = (1..=count).map(|last| format!("172.30.9.{last}")).collect();
        let listed: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let gone = format!("{}:8080", listed[0]);
        let maglev = "pollgate.io/algorithm: maglev";
        let mut all = world(&web(maglev, &listed), 1);
        let mut fewer = world(&web(maglev, &listed[1..]), 2);
        let (before, after) = (choices(&mut all, 5_000), choices(&mut fewer, 5_000));
        let moved = before.iter().zip(&after).filter(|(one, other)| one != other).count();
        let must = before.iter().filter(|backend| **backend == gone).count();
        let share = moved as f64 / 5_000.0;
        println!("{count} backends: {share:.4} moved, {:.4} had to", must as f64 / 5_000.0);
        assert!(moved >= must && share < most, "{count} backends: {share}");
        for world in [&mut all, &mut fewer] {
            world.assert_drops(&[]);
            world.assert_balanced();
        }
    }
}

/// A connection keeps its backend however the table changes; only new ones follow it.
#[test]
fn a_change_of_the_table_moves_no_open_connection() {
    let maglev = "pollgate.io/algorithm: maglev";
    let mut world = world(&web(maglev, &ENDPOINTS), 1);
    let calls: Vec<Call> = (0..200)
        .map(|number| Call::open(&mut world, 0, "udp", &format!("172.30.76.7:{}", 10_000 + number), WEB))
        .collect();
    let more = [&ENDPOINTS[..], &["172.30.9.5", "172.30.9.6"]].concat();
    world.replace("services", Some(&web(maglev, &more)));
    world.settle();
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    world.replace("services", Some(&web("pollgate.io/algorithm: random", &more)));
    world.settle();
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}
