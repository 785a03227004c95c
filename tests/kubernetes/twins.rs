//! Point 11: a client's direct connection and its connection through a service meet at one backend: the second gets another
//! source port, not the first one's stream.

use engine::random::Random;

use crate::manifests::{gateway, service, slice, world_of};
use crate::stations::{Call, Outcome, ask, packet};
use crate::support::World;
use crate::support::packets::*;

/// Two services before one backend: local, on node 2, outside.
const BACKENDS: [&str; 3] = ["172.30.76.5", "172.30.9.3", "192.168.0.103"];

fn services(protocol: &str, backend: &str) -> String {
    let mut text = String::new();
    for (name, last) in [("one", 1), ("two", 2)] {
        text += &service(
            name,
            &format!("10.254.1.{last}"),
            &[&format!("/{protocol}/80/3100{last}")],
            "  type: NodePort",
        );
        text += &slice(name, name, &[&format!("/{protocol}/8080")], &[backend]);
    }
    text
}

fn world(protocol: &str, backend: &str, workers: usize, seed: u64) -> World {
    let text = gateway().replace("capacity = 4096", "capacity = 512");
    world_of(&text, &services(&protocol.to_uppercase(), backend), workers, seed)
}

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn answers_never_go_to_the_twin_whatever_comes_first() {
    for workers in [1, 2, 3, 5, 8] {
        for protocol in ["tcp", "udp", "sctp"] {
            for backend in BACKENDS {
                let mut world = world(protocol, backend, workers, 11);
                let mut random = Random::new(workers as u64);
                let direct = format!("{backend}:8080");
                let called = [direct.as_str(), "10.254.1.1:80", "10.254.1.2:80"];
                for (round, order) in ORDERS.into_iter().enumerate() {
                    // Of local pods, pods behind the tunnel and hosts outside: with and without masquerading.
                    for source in ["172.30.76.7", "172.30.9.9", "192.168.0.50"] {
                        let client = format!("{source}:{}", 7_000 + round);
                        converse(
                            &mut world,
                            protocol,
                            &client,
                            order.map(|place| called[place]),
                            &mut random,
                        );
                    }
                }
                world.assert_drops(&[]);
                world.assert_balanced();
            }
        }
    }
}

/// Calls of one client port to all three, each packet anywhere, then every answer and every next packet in every order.
fn converse(world: &mut World, protocol: &'static str, client: &str, called: [&str; 3], random: &mut Random) {
    let workers = world.workers.len() as u32;
    let mut anywhere = || random.below(workers) as usize;
    let calls: Vec<Call> =
        called.into_iter().map(|to| Call::open(world, anywhere(), protocol, client, to)).collect();
    let mut peers: Vec<&str> = calls.iter().map(|call| call.peer.as_str()).collect();
    peers.sort_unstable();
    peers.dedup();
    assert_eq!(peers.len(), 3, "the backend can tell them apart: {calls:?}");
    for flags in [SYN | ACK, ACK, ACK] {
        for place in [2, 0, 1] {
            calls[place].answer(world, anywhere(), flags);
        }
        for place in [1, 2, 0] {
            calls[place].go_on(world, anywhere(), ACK);
        }
    }
}

/// The first packets of all three in one turn, each at another worker, so that none knows of the others yet.
#[test]
fn twins_that_begin_at_one_moment_are_told_apart_too() {
    for workers in [1, 2, 4, 8] {
        let mut world = world("tcp", "172.30.76.5", workers, 5);
        for round in 0..24usize {
            let client = format!("172.30.76.7:{}", 9_000 + round);
            let called = ["172.30.76.5:8080", "10.254.1.1:80", "10.254.1.2:80"];
            for place in ORDERS[round % 6] {
                crate::stations::send(
                    &mut world,
                    (round + place) % workers,
                    &packet("tcp", &client, called[place], SYN),
                );
            }
            world.turn();
            let peers: std::collections::BTreeSet<String> =
                crate::stations::left(&mut world).iter().map(|(_, seen)| seen.from()).collect();
            assert_eq!(peers.len(), 3, "{workers} workers: {peers:?}");
            // Whose is whose shows in the answers: each goes to the client as somebody it called, each once.
            let mut answered: Vec<String> = Vec::new();
            for (place, peer) in peers.iter().enumerate() {
                let outcome =
                    ask(&mut world, place % workers, &packet("tcp", "172.30.76.5:8080", peer, SYN | ACK));
                let Outcome::Sent(_, seen) = outcome else { panic!("{outcome:?}") };
                assert_eq!(seen.to(), client);
                answered.push(seen.from());
            }
            answered.sort_unstable();
            assert_eq!(answered, ["10.254.1.1:80", "10.254.1.2:80", "172.30.76.5:8080"]);
        }
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// A client that is masqueraded by chance to the very port that another uses by itself, or that the host does.
#[test]
fn a_masqueraded_port_is_never_one_that_somebody_uses_by_itself() {
    let text = gateway().replace("snat_port_range = \"32768-60999\"", "snat_port_range = \"40000-40003\"");
    for workers in [1, 3] {
        let mut world = world_of(&text, &services("TCP", "192.168.0.103"), workers, 2);
        // The node itself has two of the four ports open to that remote.
        let host: Vec<Call> = (40_000..40_002)
            .map(|port| {
                Call::established(&mut world, 0, "tcp", &format!("192.168.0.21:{port}"), "192.168.0.103:8080")
            })
            .collect();
        let mut masqueraded = std::collections::BTreeSet::new();
        let mut exhausted = 0;
        for number in 0..60 {
            let client = format!("192.168.0.50:{}", 5_000 + number);
            match ask(&mut world, number % workers, &packet("tcp", &client, "192.168.0.21:31001", SYN)) {
                Outcome::Sent(_, seen) => assert!(masqueraded.insert(seen.from())),
                Outcome::Dropped("snat_ports_exhausted") => exhausted += 1,
                outcome => panic!("{outcome:?}"),
            }
        }
        let expected = ["192.168.0.21:40002".to_owned(), "192.168.0.21:40003".to_owned()];
        assert_eq!(masqueraded, expected.into());
        // And the other way round: the host calls from a port that is masqueraded to, and gets another one.
        let late = Call::open(&mut world, 0, "tcp", "192.168.0.21:40002", "192.168.0.103:8081");
        assert_eq!(late.peer, "192.168.0.21:40002", "to another remote it is free");
        let outcome = ask(&mut world, 0, &packet("tcp", "192.168.0.21:40002", "192.168.0.103:8080", SYN));
        assert_eq!(outcome, Outcome::Dropped("snat_ports_exhausted"), "and here there is no other");
        host.iter().for_each(|call| call.is_alive(&mut world, 0));
        world.assert_drops(&[("snat_ports_exhausted", exhausted + 1)]);
        world.assert_balanced();
    }
}
