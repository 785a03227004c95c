//! Several workers: whichever of them a packet arrives at, its flow is one, and its packets keep their order.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

#[path = "workers/order.rs"]
mod order;
#[path = "workers/ownership.rs"]
mod ownership;
#[path = "workers/rings.rs"]
mod rings;
#[path = "workers/threads.rs"]
mod threads;

use engine::table::flow::FlowKey;
use pipelines::flow::FLAG_ORIGINAL;
use support::packets::*;
use support::{World, pod_port, reference};

/// The reference with flow tables that are made quickly.
fn text() -> String {
    reference().replace("capacity = 65536", "capacity = 2048")
}

/// The port that a packet to or from `address` uses, and whether it is in the tunnel there.
fn side_of(address: &str) -> (&'static str, bool) {
    match address.strip_prefix("172.30.76.") {
        Some(last) => (pod_port(last.parse().expect("a pod")), false),
        None => ("eth0", address.starts_with("172.30.9.")),
    }
}

/// A frame with this packet as the station that has `source` sends it.
fn frame_from(source: &str, destination: &str, packet: &[u8]) -> Vec<u8> {
    if source.starts_with("172.30.9.") {
        return from_tunnel(packet);
    }
    let pod = |address: &str| -> Option<u8> { address.strip_prefix("172.30.76.")?.parse().ok() };
    match (pod(source), pod(destination)) {
        // Pods of one node speak to each other over the bridge.
        (Some(from), Some(to)) if to > 1 => ethernet(&pod_mac(to), &pod_mac(from), 0x0800, packet),
        (Some(from), _) => from_pod(from, packet),
        (None, _) => {
            to_node(&format!("02:00:c0:a8:00:{}", if source == "192.168.0.50" { "50" } else { "01" }), packet)
        }
    }
}

/// All that left since it was last asked, innermost packet and port, in the order of each port.
fn left(world: &mut World) -> Vec<(&'static str, Seen)> {
    let mut found = Vec::new();
    for last in [7, 6, 5, 3, 2] {
        found.extend(world.sent(pod_port(last)).iter().map(|frame| (pod_port(last), read(frame))));
    }
    for frame in world.sent("eth0") {
        let seen = read(&frame);
        let is_tunnelled = seen.protocol == 17 && seen.ports.1 == 8472;
        found.push(("eth0", if is_tunnelled { read_tunnel(&frame).2 } else { seen }));
    }
    found
}

/// The keys of all flows as their first packets arrived, each with its worker.
fn originals(world: &World) -> Vec<(FlowKey, usize)> {
    let mut keys = Vec::new();
    for (worker, flows) in world.workers.iter().map(|worker| worker.pipeline.flows()).enumerate() {
        let pairs = (0..flows.capacity() as u32).filter_map(|pair| flows.pair(pair));
        for (first, second) in pairs {
            let original = if first.value.has(FLAG_ORIGINAL) { first } else { second };
            keys.push((original.key, worker));
        }
    }
    keys
}

/// No flow is in two tables, nor twice in one, nor in its two directions.
fn assert_whole(world: &World, expected: usize) {
    let keys = originals(world);
    let mut seen = std::collections::HashMap::new();
    for (key, worker) in &keys {
        for key in [*key, key.reversed()] {
            if let Some(other) = seen.insert(key, worker) {
                panic!("{key:?} is tracked by workers {other} and {worker}");
            }
        }
    }
    assert_eq!(keys.len(), expected, "flows in all tables");
}
