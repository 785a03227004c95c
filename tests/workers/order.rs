//! Order. Packets of one flow that arrive in order at one worker:
//!
//! leave in that order, whatever the flow, wherever it lives, known or new: all of them go the way of the first one.

use engine::random::Random;
use pipelines::gateway::Gauge;

use crate::support::World;
use crate::support::packets::*;
use crate::{assert_whole, frame_from, left, originals, side_of, text};

/// Kinds of flows: source address and destination.
const KINDS: [(&str, &str); 6] = [
    ("172.30.76.7", "10.254.7.1:53"),
    ("172.30.9.9", "10.254.7.1:53"),
    ("172.30.76.6", "8.8.8.8:53"),
    ("192.168.0.50", "172.30.76.3:53"),
    ("172.30.76.3", "172.30.9.2:53"),
    ("172.30.76.7", "172.30.76.6:53"),
];

fn with_udp_service() -> String {
    text()
        + "\n[[service]]\nnamespace = \"default\"\nname = \"resolver\"\ncluster_ip = \"10.254.7.1\"\n\n\
        [[service.ports]]\nprotocol = \"udp\"\nport = 53\n\
        backends = [{ address = \"172.30.76.5:53\" }, { address = \"172.30.9.2:53\" }]\n"
}

/// Lets a datagram of flow `flow` arrive: the payload says which one it is.
fn send(world: &mut World, worker: usize, flow: usize, number: u16) {
    let (source, destination) = KINDS[flow % KINDS.len()];
    let payload = [flow as u8, (number >> 8) as u8, number as u8];
    let packet = udp(&format!("{source}:{}", 2_000 + flow), destination, &payload);
    let to = destination.split_once(':').map_or(destination, |parts| parts.0);
    world.send_to(side_of(source).0, worker, &frame_from(source, to, &packet));
}

/// Some turns of some workers, in any order.
fn stir(world: &mut World, random: &mut Random, turns: u32) {
    for _ in 0..turns {
        let worker = random.below(world.workers.len() as u32) as usize;
        let now = world.now;
        world.workers[worker].turn(now);
    }
}

/// What left so far, by flow, in the order of leaving.
fn collect(world: &mut World, numbers: &mut [Vec<u16>]) {
    for (_, seen) in left(world) {
        numbers[usize::from(seen.payload[0])].push(u16::from_be_bytes([seen.payload[1], seen.payload[2]]));
    }
}

/// Packets of `flows` flows, each flow at one worker, while the workers run at random. What left, by flow.
fn race(
    world: &mut World,
    random: &mut Random,
    flows: &[usize],
    numbers: std::ops::Range<u16>,
) -> Vec<Vec<u16>> {
    let workers = world.workers.len() as u32;
    let mut left = vec![Vec::new(); flows.iter().max().map_or(0, |most| most + 1)];
    let at: Vec<usize> = left.iter().map(|_| random.below(workers) as usize).collect();
    for number in numbers {
        for flow in flows {
            send(world, at[*flow], *flow, number);
        }
        let turns = random.below(12);
        stir(world, random, turns);
        // Several workers send by one port, each by a queue of its own: looked at often, queues tell the order.
        collect(world, &mut left);
    }
    world.turn();
    collect(world, &mut left);
    left
}

#[test]
fn known_flows_keep_their_order() {
    for workers in 2..=8 {
        let mut world = World::with(&with_udp_service(), workers, 9);
        let mut random = Random::new(workers as u64);
        let flows: Vec<usize> = (0..36).collect();
        for flow in &flows {
            send(&mut world, 0, *flow, 0);
            world.turn();
        }
        left(&mut world);
        for numbers in race(&mut world, &mut random, &flows, 1..60) {
            assert_eq!(numbers, (1..60).collect::<Vec<u16>>(), "over {workers}");
        }
        assert_whole(&world, 36);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// Translated or not: the first packet's way is that of all that come before its flow is known.
#[test]
fn new_flows_keep_their_order_from_the_first_packet_on() {
    for workers in 2..=8 {
        for seed in 0..4 {
            let mut world = World::with(&with_udp_service(), workers, 9);
            let mut random = Random::new(seed * 100 + workers as u64);
            let flows: Vec<usize> = (0..36).collect();
            for flow in race(&mut world, &mut random, &flows, 0..20) {
                assert_eq!(flow, (0..20).collect::<Vec<u16>>(), "over {workers}");
            }
            assert_whole(&world, flows.len());
            assert_eq!(world.gauge(Gauge::FlowsCreated), flows.len() as u64);
            world.assert_drops(&[]);
            world.assert_balanced();
        }
    }
}

/// A connection's own packets cannot overtake each other: each waits for an answer.
#[test]
fn flows_live_at_one_of_their_two_workers() {
    for workers in 2..=8 {
        let mut world = World::with(&with_udp_service(), workers, 9);
        for flow in 0..36 {
            send(&mut world, flow % workers, flow, 0);
        }
        world.turn();
        assert_eq!(left(&mut world).len(), 36);
        // Sent again by anybody, each is found where it is: nothing new is made.
        let before = originals(&world);
        for worker in 0..workers {
            for flow in 0..36 {
                send(&mut world, worker, flow, 1);
            }
            world.turn();
        }
        assert_eq!(originals(&world), before);
        assert_eq!(left(&mut world).len(), 36 * workers);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}
