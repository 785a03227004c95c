//! Point 11: masquerade ports: all of them are used, by as many remotes as there are, and none by what is open.

use std::collections::{BTreeMap, BTreeSet};

use pipelines::gateway::Gauge;

use crate::manifests::{gateway, gateway_with, service, slice, world_of};
use crate::stations::{Call, Outcome, ask, first, packet};
use crate::support::World;
use crate::support::packets::*;

/// A gateway with these ports to masquerade with.
fn tiny(range: &str) -> String {
    gateway_with(&format!("snat_port_range = \"{range}\""))
}

/// Services of one backend each, which masquerade everybody who comes by the node ports 31001 to 31003.
fn services(protocol: &str) -> String {
    let mut text = String::new();
    for (last, backend) in [(1, "172.30.76.5"), (2, "172.30.76.3"), (3, "172.30.9.3")] {
        let name = format!("one-{last}");
        text += &service(
            &name,
            &format!("10.254.1.{last}"),
            &[&format!("/{protocol}/80/3100{last}")],
            "  type: NodePort",
        );
        text += &slice(&name, &name, &[&format!("/{protocol}/8080")], &[backend]);
    }
    text
}

fn node_port(last: u8) -> String {
    format!("192.168.0.21:3100{last}")
}

fn client(number: u16) -> String {
    format!("192.168.0.50:{}", 10_000 + number)
}

const EXHAUSTED: Outcome = Outcome::Dropped("snat_ports_exhausted");

#[test]
fn every_port_of_the_range_serves_every_remote_once() {
    for protocol in ["tcp", "udp", "sctp"] {
        let mut world = world_of(&tiny("40000-40009"), &services(&protocol.to_uppercase()), 1, 1);
        let mut calls = Vec::new();
        // Two backends share the bridge's address, the third is behind the VTEP's: each remote has all ten ports.
        for last in 1..=3 {
            let mut ports = BTreeSet::new();
            for number in 0..10 {
                let call = Call::established(&mut world, 0, protocol, &client(number), &node_port(last));
                assert!(ports.insert(endpoint(&call.peer).1), "one flow a port and remote");
                calls.push(call);
            }
            assert_eq!(ports, (40_000..=40_009).collect());
            for number in 10..15 {
                assert_eq!(first(&mut world, protocol, &client(number), &node_port(last)), EXHAUSTED);
            }
        }
        calls.iter().for_each(|call| call.is_alive(&mut world, 0));
        world.assert_drops(&[("snat_ports_exhausted", 15)]);
        assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsEvicted)), (30, 0));
        // A range of one port is a range.
        let mut world = world_of(&tiny("40000-40000"), &services(&protocol.to_uppercase()), 1, 1);
        let one = Call::established(&mut world, 0, protocol, &client(0), &node_port(1));
        assert_eq!(one.peer, "172.30.76.1:40000");
        assert_eq!(first(&mut world, protocol, &client(1), &node_port(1)), EXHAUSTED);
        one.is_alive(&mut world, 0);
        world.assert_balanced();
    }
}

#[test]
fn different_protocols_and_ports_of_one_backend_are_different_remotes() {
    let ports = ["a/TCP/80/31001", "b/TCP/81/31002", "c/UDP/80/31001"];
    let text = service("web", "10.254.1.1", &ports, "  type: NodePort")
        + &slice("web", "web", &["a/TCP/8080", "b/TCP/8081", "c/UDP/8080"], &["172.30.76.5"]);
    let mut world = world_of(&tiny("40000-40004"), &text, 1, 1);
    for (protocol, last) in [("tcp", 1), ("tcp", 2), ("udp", 1)] {
        for number in 0..5 {
            Call::established(&mut world, 0, protocol, &client(number), &node_port(last));
        }
        assert_eq!(first(&mut world, protocol, &client(9), &node_port(last)), EXHAUSTED);
    }
    world.assert_drops(&[("snat_ports_exhausted", 3)]);
    world.assert_balanced();
}

/// The port of a service at the node's address would take the answer: also one that lies outside the range of node ports.
#[test]
fn a_node_port_is_never_taken() {
    let text = services("TCP")
        + &service("in-range", "10.254.2.1", &["/TCP/80/40003"], "  type: NodePort")
        + &service("udp", "10.254.2.2", &["/UDP/80/40004"], "  type: NodePort")
        + &service("balancer", "10.254.2.3", &["/TCP/40005"], "  externalIPs: [192.168.0.21]")
        + &service("outside", "10.254.3.1", &["/TCP/3306/31099"], "  type: NodePort")
        + &slice("outside", "outside", &["/TCP/3306"], &["192.168.0.103"]);
    let mut world = world_of(&tiny("40000-40009"), &text, 1, 1);
    let outside = "192.168.0.21:31099";
    let mut ports = BTreeSet::new();
    for number in 0..8 {
        let call = Call::established(&mut world, 0, "tcp", &client(number), outside);
        let (address, port) = endpoint(&call.peer);
        assert_eq!(address, "192.168.0.21", "by the underlay");
        ports.insert(port);
    }
    // A port of UDP is free for TCP.
    assert_eq!(ports, [40_000, 40_001, 40_002, 40_004, 40_006, 40_007, 40_008, 40_009].into());
    assert_eq!(first(&mut world, "tcp", &client(8), outside), EXHAUSTED);
    // At the bridge's address nothing listens.
    for number in 0..10 {
        Call::established(&mut world, 0, "tcp", &client(number), &node_port(1));
    }
    world.assert_drops(&[("snat_ports_exhausted", 1)]);
    world.assert_balanced();
}

#[test]
fn a_port_rests_until_time_wait_is_over() {
    let mut world = world_of(&tiny("40000-40009"), &services("TCP"), 1, 1);
    let calls: Vec<Call> = (0..10)
        .map(|number| Call::established(&mut world, 0, "tcp", &client(number), &node_port(1)))
        .collect();
    let (closed, open) = calls.split_at(4);
    closed.iter().for_each(|call| call.close(&mut world, 0));
    let mut exhausted = 0;
    for round in 0..11 {
        // A packet now and then keeps the open ones open. 120 seconds of TIME_WAIT.
        open.iter().for_each(|call| call.is_alive(&mut world, 0));
        assert_eq!(
            first(&mut world, "tcp", &client(100 + round), &node_port(1)),
            EXHAUSTED,
            "after {round}0 s"
        );
        exhausted += 1;
        world.jump_s(10);
    }
    world.jump_s(20);
    world.advance_ms(20);
    let rested: BTreeSet<String> = closed.iter().map(|call| call.peer.clone()).collect();
    let again: BTreeSet<String> = (0..4)
        .map(|number| Call::established(&mut world, 0, "tcp", &client(200 + number), &node_port(1)).peer)
        .collect();
    assert_eq!(again, rested);
    open.iter().for_each(|call| call.is_alive(&mut world, 0));
    world.assert_drops(&[("snat_ports_exhausted", exhausted)]);
    world.assert_balanced();
}

/// A full table makes place by ending what is closed, but not the rest of a port: a new flow is refused sooner.
#[test]
fn a_port_rests_also_when_the_table_is_full() {
    let text = tiny("40000-41023").replace("capacity = 4096", "capacity = 1024");
    let mut world = world_of(&text, &services("TCP"), 1, 1);
    let mut resting = BTreeSet::new();
    // Resting and open ones fill the table to the last pair.
    for number in 0..1_024u16 {
        let call = Call::established(&mut world, 0, "tcp", &client(number), &node_port(1));
        if number % 2 == 0 {
            call.close(&mut world, 0);
            resting.insert(call.peer);
        }
    }
    assert_eq!(world.tracked(), 1_024);
    for number in 0..200 {
        let outcome = first(&mut world, "tcp", &client(20_000 + number), &node_port(1));
        assert!([Outcome::Dropped("flow_table_full"), EXHAUSTED].contains(&outcome), "{outcome:?}");
        let outcome = first(&mut world, "tcp", &client(20_000 + number), &node_port(2));
        assert_eq!(outcome, Outcome::Dropped("flow_table_full"));
    }
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsEvicted)), (1_024, 0));
    // A connection without translation that is closed makes place; nothing of it rests.
    world.jump_s(130);
    world.advance_ms(20);
    assert_eq!(world.tracked(), 512);
    for number in 0..512u16 {
        Call::established(&mut world, 0, "tcp", &format!("172.30.76.7:{}", 1_000 + number), "10.254.1.1:80")
            .close(&mut world, 0);
    }
    let fresh = Call::established(&mut world, 0, "tcp", &client(30_000), &node_port(1));
    assert!(resting.contains(&fresh.peer), "all others are open");
    assert_eq!(world.gauge(Gauge::FlowsEvicted), 1);
    let drops = world.drops();
    assert!(
        drops.iter().all(|drop| ["flow_table_full", "snat_ports_exhausted"].contains(&drop.0)),
        "{drops:?}"
    );
    assert_eq!(drops.iter().map(|drop| drop.1).sum::<u64>(), 400);
    world.assert_balanced();
}

/// A connection that was given another port since its own was taken rests as well.
#[test]
fn the_port_of_a_twin_rests_too() {
    let text = gateway().replace("capacity = 4096", "capacity = 1024");
    let mut world = world_of(&text, &services("TCP"), 1, 1);
    let direct = Call::established(&mut world, 0, "tcp", "172.30.76.7:5000", "172.30.76.5:8080");
    let twin = Call::established(&mut world, 0, "tcp", "172.30.76.7:5000", "10.254.1.1:80");
    assert_ne!(twin.peer, direct.peer);
    twin.close(&mut world, 0);
    for number in 0..1_022 {
        Call::established(&mut world, 0, "tcp", &client(number), &node_port(2));
    }
    for number in 0..100 {
        let outcome = first(&mut world, "tcp", &client(20_000 + number), &node_port(2));
        assert_eq!(outcome, Outcome::Dropped("flow_table_full"));
    }
    direct.is_alive(&mut world, 0);
    world.assert_drops(&[("flow_table_full", 100)]);
    world.assert_balanced();
}

/// Of a large range an attempt looks at a bounded part; the next one goes on where it ended.
#[test]
fn a_large_range_is_used_to_its_last_port() {
    let text = tiny("40000-48191").replace("capacity = 4096", "capacity = 16384");
    let mut world = world_of(&text, &services("TCP"), 1, 1);
    let mut peers = BTreeSet::new();
    let mut refused = 0;
    let mut number = 0u32;
    while peers.len() < 8_192 {
        let client = format!("8.8.{}.{}:{}", number / 60_000, 8, 1_024 + number % 60_000);
        number += 1;
        match first(&mut world, "tcp", &client, &node_port(1)) {
            Outcome::Sent(_, seen) => assert!(peers.insert(seen.from())),
            outcome => {
                assert_eq!(outcome, EXHAUSTED);
                refused += 1;
                assert!(refused < 20, "with {} of 8192 in use", peers.len());
            }
        }
    }
    for number in 0..4 {
        assert_eq!(first(&mut world, "tcp", &client(number), &node_port(1)), EXHAUSTED);
    }
    world.assert_drops(&[("snat_ports_exhausted", refused + 4)]);
    world.assert_balanced();
}

/// Exhausted ports are free again as soon as flows end, whichever way.
#[test]
fn ports_of_datagrams_are_free_when_their_flows_end() {
    let mut world = world_of(&tiny("40000-40009"), &services("UDP"), 1, 1);
    for number in 0..10 {
        Call::open(&mut world, 0, "udp", &client(number), &node_port(1));
    }
    assert_eq!(first(&mut world, "udp", &client(10), &node_port(1)), EXHAUSTED);
    // By time.
    world.jump_s(31);
    world.advance_ms(20);
    for number in 10..20 {
        Call::established(&mut world, 0, "udp", &client(number), &node_port(1));
    }
    assert_eq!(first(&mut world, "udp", &client(20), &node_port(1)), EXHAUSTED);
    // By a change: another backend serves, and all its tuples are free.
    world.replace("services", Some(&services("UDP").replace("172.30.76.5", "172.30.76.6")));
    for number in 20..30 {
        let call = Call::open(&mut world, 0, "udp", &client(number), &node_port(1));
        assert_eq!(call.backend, "172.30.76.6:8080");
    }
    world.settle();
    assert_eq!(world.gauge(Gauge::FlowsEnded), 10);
    world.assert_drops(&[("snat_ports_exhausted", 2)]);
    world.assert_balanced();
}

/// Ports that several workers share by the ownership rule: no tuple twice, and together they use every one.
#[test]
fn workers_share_a_range_and_never_a_tuple() {
    for workers in [2, 4, 8] {
        let text = tiny("40000-40063").replace("capacity = 4096", "capacity = 1024");
        let mut world = world_of(&text, &services("TCP"), workers, 7);
        let mut peers = BTreeMap::new();
        let (mut refused, mut number) = (0, 0u16);
        // Clients are spread over the workers by their ports: in the end each worker's share is used up.
        while peers.len() < 64 {
            number += 1;
            assert!(number < 2_000, "{} of 64 ports over {workers} workers", peers.len());
            let client = client(number);
            match ask(&mut world, usize::from(number) % workers, &packet("tcp", &client, &node_port(1), SYN))
            {
                Outcome::Sent(_, seen) => {
                    let other = peers.insert(seen.from(), client);
                    assert_eq!(other, None, "a tuple belongs to one flow");
                }
                outcome => {
                    assert_eq!(outcome, EXHAUSTED);
                    refused += 1;
                }
            }
        }
        // Every answer goes where its request came from, whichever worker it arrives at.
        for (place, (peer, client)) in peers.iter().enumerate() {
            for worker in [place % workers, (place + 1) % workers] {
                let outcome = ask(&mut world, worker, &packet("tcp", "172.30.76.5:8080", peer, SYN | ACK));
                let Outcome::Sent(_, seen) = outcome else { panic!("{outcome:?}") };
                assert_eq!((&seen.from(), &seen.to()), (&node_port(1), client));
            }
        }
        assert!(refused > 0, "a worker's share is used up before the others' are");
        world.assert_drops(&[("snat_ports_exhausted", refused)]);
        world.assert_balanced();
    }
}

/// At random, as `--random-fully` has it: no order that an outsider could foresee.
#[test]
fn ports_are_drawn_at_random_over_the_whole_range() {
    let mut world = world_of(&gateway(), &services("TCP"), 1, 3);
    let mut buckets = [0u32; 16];
    let mut last = 0;
    let mut ascents = 0;
    for number in 0..1_600u16 {
        let port = endpoint(&Call::open(&mut world, 0, "tcp", &client(number), &node_port(1)).peer).1;
        assert!((32_768..=60_999).contains(&port));
        buckets[usize::from(port - 32_768) * 16 / 28_232] += 1;
        ascents += u32::from(port > last);
        last = port;
    }
    let chi_squared: f64 = buckets.iter().map(|count| (f64::from(*count) - 100.0).powi(2) / 100.0).sum();
    // The 0.999 quantile with 15 degrees of freedom.
    assert!(chi_squared < 37.7, "{buckets:?} {chi_squared}");
    assert!((720..880).contains(&ascents), "{ascents} of 1600");
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// What is open keeps its port whatever is tried, also a client that tries over and over.
#[test]
fn exhaustion_harms_nothing_that_is_open() {
    let mut world = world_of(&tiny("40000-40009"), &services("TCP"), 1, 1);
    let calls: Vec<Call> = (0..10)
        .map(|number| Call::established(&mut world, 0, "tcp", &client(number), &node_port(1)))
        .collect();
    let tables = |world: &World| world.tracked();
    for number in 0..500 {
        assert_eq!(first(&mut world, "tcp", &client(1_000 + number), &node_port(1)), EXHAUSTED);
        calls[usize::from(number) % 10].is_alive(&mut world, 0);
    }
    assert_eq!(tables(&world), 10);
    // The answer of a backend to a port that nobody has is nobody's.
    Call::established(&mut world, 0, "tcp", "172.30.76.7:1", "10.254.1.1:80").is_alive(&mut world, 0);
    world.assert_drops(&[("snat_ports_exhausted", 500)]);
    world.assert_balanced();
}
