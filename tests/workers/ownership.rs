//! Every connection is one flow at one worker, however its packets are spread.

use engine::counters::Account;
use engine::random::Random;
use pipelines::gateway::Gauge;

use crate::support::World;
use crate::support::packets::*;
use crate::{assert_whole, frame_from, left, originals, side_of, text};

/// Who decides which worker a packet arrives at.
#[derive(Clone, Copy, Debug)]
enum Spread {
    /// Each packet anywhere.
    Random,
    /// Each direction of each connection always at the same worker, as a NIC's hash has it.
    Sticky,
    /// Never at the worker of the packet before: one after the other.
    Rotating,
    /// Requests at the first worker, answers at the last.
    Apart,
}

/// Which worker gets the next packet.
struct Spreader {
    spread: Spread,
    workers: usize,
    random: Random,
    turn: usize,
}

impl Spreader {
    fn next(&mut self, connection: u16, is_answer: bool) -> usize {
        self.turn += 1;
        match self.spread {
            Spread::Random => self.random.below(self.workers as u32) as usize,
            Spread::Sticky => {
                let seed = u64::from(connection) * 2 + u64::from(is_answer);
                Random::new(seed).below(self.workers as u32) as usize
            }
            Spread::Rotating => self.turn % self.workers,
            Spread::Apart => {
                if is_answer {
                    self.workers - 1
                } else {
                    0
                }
            }
        }
    }
}

/// Kinds of connections: what the client calls, and as whom.
const KINDS: [(&str, &str, &str); 9] = [
    ("a pod's to a service", "172.30.76.7", "10.254.116.224:50051"),
    ("a tunnelled client's, masqueraded", "172.30.9.9", "10.254.116.224:50051"),
    ("an outside client's to a node port", "192.168.0.50", "192.168.0.21:30799"),
    ("a pod's to its own service", "172.30.76.5", "10.254.116.224:50051"),
    ("a pod's to a database outside", "172.30.76.7", "10.254.84.209:3306"),
    ("a pod's to the outside, masqueraded", "172.30.76.6", "8.8.8.8:443"),
    ("an outside client's to a pod", "192.168.0.50", "172.30.76.3:80"),
    ("between pods of two nodes", "172.30.76.3", "172.30.9.2:80"),
    ("between pods of one node", "172.30.76.7", "172.30.76.6:80"),
];

/// One packet through the world: it must leave exactly once.
fn pass(
    world: &mut World,
    worker: usize,
    source: &str,
    destination: &str,
    packet: &[u8],
    what: &str,
) -> (&'static str, Seen) {
    let (port, _) = side_of(source);
    world.send_to(port, worker, &frame_from(source, destination, packet));
    world.turn();
    let mut seen = left(world);
    assert_eq!(seen.len(), 1, "{what}: {seen:?} {:?}", world.drops());
    seen.remove(0)
}

/// A connection with its handshake, data both ways, and perhaps its end.
fn converse(world: &mut World, spreader: &mut Spreader, number: u16, kind: (&str, &str, &str)) {
    let (what, client_address, service) = kind;
    let client = format!("{client_address}:{}", 10_000 + number);
    let what = format!("connection {number}, {what}, {:?} over {}", spreader.spread, spreader.workers);
    let ask = |world: &mut World, spreader: &mut Spreader, flags: u8| {
        let packet = tcp(&client, service, flags, b"");
        let destination = service.split_once(':').map_or(service, |parts| parts.0);
        pass(world, spreader.next(number, false), client_address, destination, &packet, &what)
    };
    let (at, request) = ask(world, spreader, SYN);
    let (server, peer) = (request.to(), request.from());
    let server_address = request.destination.to_string();
    assert_eq!(at, side_of(&server_address).0, "{what}");
    let answer = |world: &mut World, spreader: &mut Spreader, flags: u8| {
        let packet = tcp(&server, &peer, flags, b"");
        let destination = request.source.to_string();
        let worker = spreader.next(number, true);
        let (at, seen) = pass(world, worker, &server_address, &destination, &packet, &what);
        assert_eq!((seen.from().as_str(), seen.to()), (service, client.clone()), "{what}");
        assert_eq!(at, side_of(client_address).0, "{what}");
    };
    answer(world, spreader, SYN | ACK);
    for flags in [ACK, ACK, FIN | ACK] {
        let (_, seen) = ask(world, spreader, flags);
        assert_eq!(
            (seen.to(), seen.from()),
            (server.clone(), peer.clone()),
            "{what}: one backend, one source"
        );
        answer(world, spreader, ACK);
    }
}

#[test]
fn no_connection_is_split_however_its_packets_are_spread() {
    for workers in 2..=8 {
        for spread in [Spread::Random, Spread::Sticky, Spread::Rotating, Spread::Apart] {
            let mut world = World::with(&text(), workers, workers as u64);
            let mut spreader = Spreader { spread, workers, random: Random::new(workers as u64), turn: 0 };
            for number in 0..54 {
                converse(&mut world, &mut spreader, number, KINDS[usize::from(number) % KINDS.len()]);
            }
            assert_whole(&world, 54);
            assert_eq!(world.gauge(Gauge::FlowsCreated), 54);
            world.assert_drops(&[]);
            let used: std::collections::BTreeSet<_> = originals(&world).iter().map(|flow| flow.1).collect();
            assert!(used.len() >= workers.min(4), "flows of {used:?} alone");
            // What one hands off another takes in.
            assert_eq!(world.account(Account::HandedOff), world.account(Account::HandedIn));
            world.assert_balanced();
        }
    }
}

/// Connections that begin together, all at once and by all workers: the first packets and their copies race.
#[test]
fn connections_that_begin_together_are_not_split() {
    for workers in 2..=8 {
        let mut world = World::with(&text(), workers, 7);
        let mut random = Random::new(workers as u64);
        for number in 0..90u16 {
            let (_, client, service) = KINDS[usize::from(number) % KINDS.len()];
            let packet = tcp(&format!("{client}:{}", 10_000 + number), service, SYN, b"");
            let destination = service.split_once(':').map_or(service, |parts| parts.0);
            for _ in 0..3 {
                let worker = random.below(workers as u32) as usize;
                world.send_to(side_of(client).0, worker, &frame_from(client, destination, &packet));
            }
        }
        // The workers run as they like.
        for _ in 0..400 {
            let worker = random.below(workers as u32) as usize;
            let now = world.now;
            world.workers[worker].turn(now);
        }
        world.turn();
        let mut servers = std::collections::HashMap::new();
        let seen = left(&mut world);
        assert_eq!(seen.len(), 270, "{:?}", world.drops());
        for (_, packet) in seen {
            *servers.entry((packet.from(), packet.to())).or_insert(0) += 1;
        }
        assert!(servers.values().all(|count| *count == 3), "each as it was first decided: {servers:?}");
        assert_whole(&world, 90);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// Both sides of an untranslated flow begin at once, at different workers: there may be an entry at either side's worker
/// then, and each serves one direction. Nothing is lost, and what comes later makes no further entry.
#[test]
fn datagrams_that_cross_are_served_both_ways() {
    for workers in 2..=8 {
        let mut world = World::with(&text(), workers, 3);
        let mut random = Random::new(workers as u64);
        let mut both_ways = |world: &mut World, number: u16, settle: bool| {
            let (one, other) = (format!("172.30.76.7:{}", 1_000 + number), "172.30.9.2:7".to_owned());
            for (source, destination) in [(&one, &other), (&other, &one)] {
                let packet = udp(source, destination, b"x");
                let (from, to) = (source.split_once(':').unwrap().0, destination.split_once(':').unwrap().0);
                let worker = random.below(workers as u32) as usize;
                world.send_to(side_of(from).0, worker, &frame_from(from, to, &packet));
            }
            for _ in 0..random.below(6) {
                let worker = random.below(workers as u32) as usize;
                let now = world.now;
                world.workers[worker].turn(now);
            }
            if settle {
                world.turn();
            }
        };
        (0..60).for_each(|number| both_ways(&mut world, number, false));
        world.turn();
        assert_eq!(left(&mut world).len(), 120);
        let created = world.gauge(Gauge::FlowsCreated);
        assert!((60..=120).contains(&created), "{created}");
        (0..60).for_each(|number| both_ways(&mut world, number, true));
        assert_eq!((left(&mut world).len(), world.gauge(Gauge::FlowsCreated)), (120, created));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn pings_and_protocols_without_ports_are_whole_too() {
    for workers in 2..=8 {
        let mut world = World::with(&text(), workers, 5);
        let mut random = Random::new(workers as u64);
        let mut anywhere = || random.below(workers as u32) as usize;
        for identifier in 0..40u16 {
            let request = echo("172.30.76.7", "8.8.8.8", false, identifier);
            let (_, seen) = pass(&mut world, anywhere(), "172.30.76.7", "8.8.8.8", &request, "ping");
            let reply = echo("8.8.8.8", "192.168.0.21", true, seen.ports.0);
            let (at, seen) = pass(&mut world, anywhere(), "8.8.8.8", "192.168.0.21", &reply, "pong");
            assert_eq!(
                (at, seen.ports.0, seen.destination.to_string()),
                (side_of("172.30.76.7").0, identifier, "172.30.76.7".into())
            );
        }
        for last in 1..20 {
            let server = format!("9.9.9.{last}");
            let there = ipv4_with("172.30.76.7", &server, 47, 64, b"there");
            let (_, seen) = pass(&mut world, anywhere(), "172.30.76.7", &server, &there, "tunnel");
            let back = ipv4_with(&server, &seen.source.to_string(), 47, 64, b"back");
            let (_, seen) = pass(&mut world, anywhere(), &server, "192.168.0.21", &back, "tunnel back");
            assert_eq!(seen.destination.to_string(), "172.30.76.7");
        }
        assert_whole(&world, 59);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// An error is looked up where its flow may live, whichever side it comes from.
#[test]
fn errors_find_the_flows_that_they_are_about() {
    for workers in 2..=8 {
        let mut world = World::with(&text(), workers, 5);
        let mut random = Random::new(workers as u64);
        let mut anywhere = || random.below(workers as u32) as usize;
        for number in 0..40u16 {
            let request = udp(&format!("192.168.0.50:{}", 1_000 + number), "172.30.76.3:80", b"x");
            pass(&mut world, anywhere(), "192.168.0.50", "172.30.76.3", &request, "request");
            let error = icmp_error("172.30.76.3", "192.168.0.50", 3, 3, &request);
            world.send_to(
                side_of("172.30.76.3").0,
                anywhere(),
                &frame_from("172.30.76.3", "192.168.0.50", &error),
            );
        }
        world.turn();
        assert!(left(&mut world).is_empty());
        world.assert_drops(&[("icmp_error_tracked", 40)]);
        world.assert_balanced();
    }
}

/// The host's packets come in at the first worker and belong to any.
#[test]
fn hosts_connections_are_whole() {
    for workers in [2, 5, 8] {
        let mut world = World::with(&text(), workers, 5);
        let mut random = Random::new(workers as u64);
        for number in 0..40u16 {
            let host = format!("192.168.0.21:{}", 33_000 + number);
            world.send_from_host(&ethernet(
                NODE_MAC,
                "02:00:00:00:00:99",
                0x0800,
                &tcp(&host, "10.254.116.224:50051", SYN, b""),
            ));
            world.turn();
            let (_, request) = left(&mut world).remove(0);
            let (server, peer) = (request.destination.to_string(), request.source.to_string());
            let answer = tcp(&request.to(), &request.from(), SYN | ACK, b"");
            let worker = random.below(workers as u32) as usize;
            world.send_to(side_of(&server).0, worker, &frame_from(&server, &peer, &answer));
            // And a client's to the host.
            let client = format!("192.168.0.50:{}", 1_000 + number);
            let knock = to_node(CLIENT_MAC, &tcp(&client, "192.168.0.21:22", SYN, b""));
            world.send_to("eth0", random.below(workers as u32) as usize, &knock);
            world.turn();
            let mut heard: Vec<_> = world.sent_to_host().iter().map(|frame| read(frame).from()).collect();
            heard.sort();
            assert_eq!(heard, ["10.254.116.224:50051".to_owned(), client.clone()]);
            world.send_from_host(&ethernet(
                NODE_MAC,
                "02:00:00:00:00:99",
                0x0800,
                &tcp("192.168.0.21:22", &client, SYN | ACK, b""),
            ));
            world.turn();
            assert_eq!(left(&mut world)[0].1.to(), client);
        }
        assert_whole(&world, 80);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}
