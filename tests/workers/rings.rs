//! The rings between workers: full ones are counted drops, and the neighbour machine hears of what others saw.

use engine::counters::{Account, is_balanced};
use pipelines::gateway::Gauge;
use pnet::packet::arp::ArpOperations;

use crate::support::packets::*;
use crate::support::{World, dynamic, ip, pod_port};
use crate::{assert_whole, left, originals, text};

#[test]
fn full_ring_is_a_counted_drop() {
    let text = text().replace("[workers]", "[workers]\nhandoff_ring = 64");
    let mut world = World::with(&text, 2, 1);
    let frame = from_pod(7, &udp("172.30.76.7:1000", "172.30.9.2:2000", b"x"));
    world.send(pod_port(7), &frame);
    world.turn();
    let owner = originals(&world)[0].1;
    left(&mut world);
    // 200 packets arrive at the other worker, and the owner does not get to run.
    for _ in 0..200 {
        world.send_to(pod_port(7), 1 - owner, &frame);
    }
    let now = world.now;
    for _ in 0..10 {
        world.workers[1 - owner].turn(now);
    }
    world.assert_drops(&[("hand_off_full", 136)]);
    let values = world.handles[1 - owner].counters.account_values();
    assert!(is_balanced(&values), "{values:?}");
    assert_eq!(world.pool.in_use(), 64, "in the ring");
    world.turn();
    assert_eq!(left(&mut world).len(), 64);
    world.assert_drops(&[("hand_off_full", 136)]);
    assert_eq!(world.account(Account::HandedOff), world.account(Account::HandedIn));
    assert_whole(&world, 1);
    world.assert_balanced();
}

#[test]
fn neighbours_are_learned_from_what_any_worker_hears() {
    const STRANGER: (&str, &str) = ("02:00:c0:a8:00:4d", "192.168.0.77");
    for heard_by in 0..4 {
        let mut world = World::with(&dynamic(), 4, 1);
        for number in 0..8u8 {
            let packet =
                udp(&format!("172.30.76.7:{}", 1_000 + u16::from(number)), "192.168.0.77:9", &[number]);
            world.send_to(pod_port(7), usize::from(number) % 4, &from_pod(7, &packet));
        }
        world.turn();
        world.advance_ms(1);
        assert_eq!(world.account(Account::Held), 8);
        let holders =
            world.handles.iter().filter(|handle| handle.counters.accounts.get(Account::Held as usize) > 0);
        assert!(holders.count() > 1, "each waits at its owner");
        let requests = world.sent("eth0");
        assert_eq!((requests.len(), read_arp(&requests[0]).2.1), (1, ip(STRANGER.1)), "asked once for all");
        let answer = arp(ArpOperations::Reply, STRANGER, (NODE_MAC, "192.168.0.21"), NODE_MAC);
        world.send_to("eth0", heard_by, &answer);
        world.turn();
        world.advance_ms(2);
        let mut numbers: Vec<u8> = left(&mut world).iter().map(|(_, seen)| seen.payload[0]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7], "heard by worker {heard_by}");
        assert_eq!((world.gauge(Gauge::NeighbourRequests), world.gauge(Gauge::EventsLost)), (1, 0));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn stations_are_learned_by_all_from_what_any_worker_hears() {
    let mut world = World::with(&dynamic(), 3, 1);
    let frame = |from: u8, to: u8| ethernet(&pod_mac(to), &pod_mac(from), 0x86dd, &[0x60; 46]);
    world.send_to(pod_port(6), 2, &frame(6, 7));
    world.turn();
    world.advance_ms(2);
    assert_eq!(world.account(Account::Copied), 3, "not known yet");
    for worker in 0..3 {
        world.send_to(pod_port(7), worker, &frame(7, 6));
        world.turn();
        assert_eq!(world.sent(pod_port(6)).len(), 1);
    }
    assert_eq!(world.account(Account::Copied), 3);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn time_over_is_time_over_at_every_worker() {
    let mut world = World::with(&text().replace("capacity = 2048", "capacity = 64"), 4, 1);
    for number in 0..40u16 {
        let packet = udp(&format!("172.30.76.7:{}", 1_000 + number), "172.30.9.2:9", b"x");
        world.send_to(pod_port(7), usize::from(number) % 4, &from_pod(7, &packet));
    }
    world.turn();
    assert_whole(&world, 40);
    world.jump_s(30);
    assert_whole(&world, 40);
    world.advance_ms(1);
    assert_whole(&world, 0);
    assert_eq!((world.gauge(Gauge::FlowsExpired), world.gauge(Gauge::Flows)), (40, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}
