//! Stations around node 1: they send packets from where they are, and say what came of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::support::packets::*;
use crate::support::{World, pod_port};

/// What became of a first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It left, once, by this port (`host`: the host's own stack), and is this innermost packet.
    Sent(String, Seen),
    /// It was answered with "port unreachable", and counted for this reason.
    Rejected(&'static str),
    /// It was dropped for this reason.
    Dropped(&'static str),
}

/// A packet of a protocol; what follows a connection's first packet has other `flags`.
pub fn packet(protocol: &str, from: &str, to: &str, flags: u8) -> Vec<u8> {
    match protocol {
        "tcp" => tcp(from, to, flags, b""),
        "udp" => udp(from, to, b"hello"),
        "sctp" => {
            let ((source, source_port), (destination, destination_port)) = (endpoint(from), endpoint(to));
            ipv4_with(source, destination, 132, 64, &sctp(source_port, destination_port))
        }
        _ => panic!("no protocol {protocol}"),
    }
}

fn addresses(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    (address(12), address(16))
}

/// Lets a packet arrive from the station that has its source address. It is not worked on yet.
pub fn send(world: &mut World, worker: usize, packet: &[u8]) {
    let (source, destination) = addresses(packet);
    match source.octets() {
        [172, 30, 76, 1] | [192, 168, 0, 21] => {
            world.send_from_host(&ethernet("02:70:67:00:00:01", "02:00:00:00:00:99", 0x0800, packet));
        }
        [172, 30, 76, last] => {
            // Pods of one node speak to each other over the bridge.
            let to = match destination.octets() {
                [172, 30, 76, to] if to > 1 => pod_mac(to),
                _ => BRIDGE_MAC.to_owned(),
            };
            world.send_to(pod_port(last), worker, &ethernet(&to, &pod_mac(last), 0x0800, packet));
        }
        [172, 30, 9, _] => world.send_to("eth0", worker, &from_tunnel(packet)),
        [192, 168, 0, last] => {
            // Its own MAC: decimal digits read as hexadecimal ones.
            let last = if last == 103 { "67".to_owned() } else { format!("{last:02}") };
            world.send_to("eth0", worker, &to_node(&format!("02:00:c0:a8:00:{last}"), packet));
        }
        _ => world.send_to("eth0", worker, &to_node("02:00:c0:a8:00:01", packet)),
    }
}

/// All that left since it was last asked: by which port, and the innermost packet.
pub fn left(world: &mut World) -> Vec<(String, Seen)> {
    let mut found = Vec::new();
    for last in [7, 6, 5, 3, 2] {
        for frame in world.sent(pod_port(last)) {
            let seen = read(&frame);
            assert_eq!(seen.destination_mac, pod_mac(last), "at the pod's own MAC");
            found.push((pod_port(last).to_owned(), seen));
        }
    }
    for frame in world.sent("eth0") {
        let seen = read(&frame);
        let is_tunnelled = seen.protocol == 17 && seen.ports.1 == 8472;
        found.push(("eth0".to_owned(), if is_tunnelled { read_tunnel(&frame).2 } else { seen }));
    }
    found.extend(world.sent_to_host().iter().map(|frame| ("host".to_owned(), read(frame))));
    for (_, seen) in &mut found {
        if seen.protocol == 132 {
            assert_eq!(seen.payload[8..12], crc32c(&seen.payload), "SCTP checksum");
            let port = |at: usize| u16::from_be_bytes([seen.payload[at], seen.payload[at + 1]]);
            seen.ports = (port(0), port(2));
        }
    }
    found
}

/// Lets one packet arrive, and says what became of it.
pub fn ask(world: &mut World, worker: usize, packet: &[u8]) -> Outcome {
    let before = world.drops();
    send(world, worker, packet);
    world.turn();
    let mut frames = left(world);
    let stood = |name: &str| before.iter().find(|drop| drop.0 == name).map_or(0, |drop| drop.1);
    let dropped: Vec<(&str, u64)> = world
        .drops()
        .into_iter()
        .map(|(name, count)| (name, count - stood(name)))
        .filter(|drop| drop.1 > 0)
        .collect();
    match (frames.len(), &dropped[..]) {
        (1, []) => {
            let (port, seen) = frames.remove(0);
            Outcome::Sent(port, seen)
        }
        (1, [(reason, 1)]) => {
            let seen = &frames[0].1;
            // Destination unreachable, port unreachable; it quotes the packet as it was sent (RFC 1812, section 4.3.2.3).
            assert_eq!((seen.protocol, seen.flags), (1, 0x0303), "{reason}: {seen:?}");
            assert_eq!((seen.destination, &seen.payload[..]), (addresses(packet).0, packet));
            Outcome::Rejected(reason)
        }
        (0, [(reason, 1)]) => Outcome::Dropped(reason),
        _ => panic!("{frames:?} left, {dropped:?} was dropped"),
    }
}

/// What becomes of a new connection's first packet.
pub fn first(world: &mut World, protocol: &str, from: &str, to: &str) -> Outcome {
    ask(world, 0, &packet(protocol, from, to, SYN))
}

/// A connection that was let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub protocol: &'static str,
    pub client: String,
    pub service: String,
    /// Address and port that its packets go to.
    pub backend: String,
    /// Address and port that the backend sees them come from.
    pub peer: String,
    /// The port that it leaves by.
    pub at: String,
}

impl Call {
    /// Sends a connection's first packet, which must leave.
    pub fn open(
        world: &mut World,
        worker: usize,
        protocol: &'static str,
        client: &str,
        service: &str,
    ) -> Self {
        match ask(world, worker, &packet(protocol, client, service, SYN)) {
            Outcome::Sent(at, seen) => Self {
                protocol,
                client: client.to_owned(),
                service: service.to_owned(),
                backend: seen.to(),
                peer: seen.from(),
                at,
            },
            outcome => panic!("{client} to {service}: {outcome:?}"),
        }
    }

    /// Opens it with a handshake.
    pub fn established(
        world: &mut World,
        worker: usize,
        protocol: &'static str,
        client: &str,
        service: &str,
    ) -> Self {
        let call = Self::open(world, worker, protocol, client, service);
        call.answer(world, worker, SYN | ACK);
        call.go_on(world, worker, ACK);
        call
    }

    pub fn backend_address(&self) -> &str {
        endpoint(&self.backend).0
    }

    pub fn is_masqueraded(&self) -> bool {
        endpoint(&self.peer).0 != endpoint(&self.client).0
    }

    /// One more packet of the client: to the same backend, from the same peer.
    pub fn go_on(&self, world: &mut World, worker: usize, flags: u8) {
        let outcome = ask(world, worker, &packet(self.protocol, &self.client, &self.service, flags));
        let Outcome::Sent(at, seen) = outcome else { panic!("{self:?}: {outcome:?}") };
        assert_eq!((&seen.to(), &seen.from(), &at), (&self.backend, &self.peer, &self.at), "{self:?}");
    }

    /// One packet of the backend: it comes to the client as the service's.
    pub fn answer(&self, world: &mut World, worker: usize, flags: u8) {
        let outcome = ask(world, worker, &packet(self.protocol, &self.backend, &self.peer, flags));
        let Outcome::Sent(_, seen) = outcome else { panic!("{self:?}: {outcome:?}") };
        assert_eq!((&seen.from(), &seen.to()), (&self.service, &self.client), "{self:?}");
    }

    /// A packet each way.
    pub fn is_alive(&self, world: &mut World, worker: usize) {
        self.go_on(world, worker, ACK);
        self.answer(world, worker, ACK);
    }

    /// Closes a TCP connection from both sides: TIME_WAIT.
    pub fn close(&self, world: &mut World, worker: usize) {
        self.go_on(world, worker, FIN | ACK);
        self.answer(world, worker, FIN | ACK);
        self.go_on(world, worker, ACK);
    }
}

/// The backends that `count` new connections of a client go to, with how often, from ports `first` on; and whether they
/// were masqueraded.
pub fn spread(
    world: &mut World,
    protocol: &'static str,
    client: &str,
    service: &str,
    first: u16,
    count: u16,
) -> BTreeMap<(String, bool), u32> {
    let mut found = BTreeMap::new();
    for number in 0..count {
        let call = Call::open(world, 0, protocol, &format!("{client}:{}", first + number), service);
        *found.entry((call.backend.clone(), call.is_masqueraded())).or_insert(0) += 1;
    }
    found
}

/// Asserts which backends take a client's new connections, each masqueraded or not as given.
pub fn assert_spread(
    world: &mut World,
    protocol: &'static str,
    client: &str,
    service: &str,
    ports: u16,
    expected: &[(&str, bool)],
) {
    // Of N equal ones the chance that one is never drawn is N × (1 - 1/N)^count: below 10^-6 for three and 40.
    let count = 14 * expected.len().max(1) as u16;
    let found: BTreeSet<(String, bool)> =
        spread(world, protocol, client, service, ports, count).into_keys().collect();
    let expected: BTreeSet<(String, bool)> =
        expected.iter().map(|(backend, masqueraded)| ((*backend).to_owned(), *masqueraded)).collect();
    assert_eq!(found, expected, "{client} to {service}");
}
