//! Whatever arrives, in whatever order, at whichever worker and moment: nothing panics, every packet is accounted for,
//! every buffer comes back, and what leaves is sound.
//!
//! `POLLGATE_ANY_BYTES_CASES` sets the number of cases of each property; the default takes seconds.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use engine::clock::Timestamp;
use engine::counters::{Account, is_balanced};
use engine::wire::checksum;
use engine::wire::ethernet::MacAddress;
use pipelines::table::interface::HOST_PORT;
use pnet::packet::arp::ArpOperations;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::packets::*;
use support::{World, dynamic, pod_port, reference};

fn settings() -> ProptestConfig {
    let cases =
        std::env::var("POLLGATE_ANY_BYTES_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Configurations that are loaded one after the other: full tables, exhausted ports, low rates, no exception port, other
/// routes and services.
fn texts() -> Vec<String> {
    let small = |text: String| {
        text.replace("capacity = 65536", "capacity = 64")
            .replace("rate_pps = 10000", "rate_pps = 100\nring = 64")
            .replace("[workers]", "[workers]\nhandoff_ring = 64")
    };
    let few_ports = |text: String| text.replace("\"32768-60999\"", "\"40000-40003\"");
    let services = "\n[[service]]\nnamespace = \"default\"\nname = \"any\"\ncluster_ip = \"10.254.9.9\"\n\n\
        [[service.ports]]\nname = \"udp\"\nprotocol = \"udp\"\nport = 53\nnode_port = 30053\n\
        backends = [{ address = \"172.30.76.5:5353\" }, { address = \"192.168.0.21:53\" }]\n\n\
        [[service.ports]]\nname = \"sctp\"\nprotocol = \"sctp\"\nport = 53\nbackends = [{ address = \"172.30.76.3:54\" }]\n";
    let no_default =
        |text: String| text.replace("destination = \"0.0.0.0/0\"", "destination = \"8.0.0.0/8\"");
    vec![
        small(reference() + services),
        small(dynamic() + services),
        small(few_ports(reference() + services)),
        small(no_default(dynamic()).replace("send_udp_checksum = false", "send_udp_checksum = true")),
    ]
}

/// Well-formed frames of every kind that the pipeline tells apart, each with the port it arrives by.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut frames = vec![
        (
            "host",
            ethernet(
                "02:00:00:00:00:01",
                "02:00:00:00:00:99",
                0x0800,
                &tcp("192.168.0.21:33000", "10.254.116.224:50051", SYN, b""),
            ),
        ),
        (
            "host",
            ethernet(
                "02:00:00:00:00:01",
                "02:00:00:00:00:99",
                0x0800,
                &udp("172.30.76.1:33000", "172.30.76.7:53", b"?"),
            ),
        ),
        ("host", arp_request(("02:00:00:00:00:99", "192.168.0.21"), "8.8.8.8")),
        ("eth0", arp_request((CLIENT_MAC, "192.168.0.50"), "192.168.0.21")),
        (
            "eth0",
            arp(
                ArpOperations::Reply,
                ("02:00:c0:a8:00:4d", "192.168.0.77"),
                (NODE_MAC, "192.168.0.21"),
                NODE_MAC,
            ),
        ),
        (pod_port(7), arp_request((&pod_mac(7), "172.30.76.7"), "172.30.76.6")),
        (
            pod_port(6),
            arp(ArpOperations::Reply, (&pod_mac(6), "172.30.76.6"), (BRIDGE_MAC, "172.30.76.1"), BRIDGE_MAC),
        ),
        (pod_port(7), ethernet("33:33:00:00:00:01", &pod_mac(7), 0x86dd, &[0x60; 60])),
        (
            pod_port(7),
            ethernet(
                "ff:ff:ff:ff:ff:ff",
                &pod_mac(7),
                0x0800,
                &udp("0.0.0.0:68", "255.255.255.255:67", b"?"),
            ),
        ),
        (pod_port(5), ethernet(&pod_mac(6), &pod_mac(5), 0x8100, &[0; 60])),
    ];
    let inner = ethernet(VTEP_MAC, NODE_2_VTEP_MAC, 0x0806, &[0; 28]);
    frames.push(("eth0", to_node(NODE_2_MAC, &vxlan_datagram(0x08, 1, &inner))));
    for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST] {
        for (port, to_frame, source, destination) in connections() {
            frames.push((port, to_frame(&tcp(source, destination, flags, b"data"))));
        }
    }
    for (port, to_frame, source, destination) in connections() {
        let (from, to) = (endpoint(source).0, endpoint(destination).0);
        let packet = udp(source, destination, &[0x5a; 40]);
        frames.push((port, to_frame(&packet)));
        frames.push((port, to_frame(&udp(source, &format!("{to}:53"), b"?"))));
        frames.push((port, to_frame(&echo(from, to, false, 5))));
        frames.push((port, to_frame(&echo(from, to, true, 5))));
        frames.push((port, to_frame(&icmp_error(from, to, 3, 4, &udp(destination, source, b"x")))));
        frames.push((port, to_frame(&ipv4_with(from, to, 132, 64, &[0; 40]))));
        frames.push((port, to_frame(&ipv4_with(from, to, 47, 64, &[0; 40]))));
        frames.push((port, to_frame(&with_options(&packet, &[7, 7, 4, 0, 0, 0, 0, 0]))));
        frames.push((port, to_frame(&with_ipv4_byte(&packet, 8, 1))));
        frames.push((port, to_frame(&with_ipv4_byte(&packet, 6, 0x20))));
        frames.push((port, to_frame(&udp(source, destination, &[0; 1_440]))));
    }
    frames
}

type ToFrame = fn(&[u8]) -> Vec<u8>;

/// Ways through the gateway: the port, the frame around the packet, source and destination.
fn connections() -> [(&'static str, ToFrame, &'static str, &'static str); 12] {
    [
        (pod_port(7), |packet| from_pod(7, packet), "172.30.76.7:4000", "10.254.116.224:50051"),
        (pod_port(5), |packet| from_pod(5, packet), "172.30.76.5:4000", "10.254.116.224:50051"),
        (
            pod_port(5),
            |packet| ethernet(&pod_mac(7), &pod_mac(5), 0x0800, packet),
            "172.30.76.5:50051",
            "172.30.76.7:4000",
        ),
        (pod_port(6), |packet| from_pod(6, packet), "172.30.76.6:4000", "8.8.8.8:443"),
        (pod_port(6), |packet| from_pod(6, packet), "172.30.76.6:4000", "192.168.0.77:443"),
        (pod_port(3), |packet| from_pod(3, packet), "172.30.76.3:4000", "10.254.0.2:53"),
        (pod_port(3), |packet| from_pod(3, packet), "172.30.76.3:4000", "10.254.9.9:53"),
        ("eth0", |packet| to_node(CLIENT_MAC, packet), "192.168.0.50:4000", "192.168.0.21:30799"),
        ("eth0", |packet| to_node(CLIENT_MAC, packet), "192.168.0.50:4000", "192.168.0.21:22"),
        ("eth0", |packet| to_node("02:00:c0:a8:00:01", packet), "8.8.8.8:443", "192.168.0.21:40000"),
        ("eth0", from_tunnel, "172.30.9.9:4000", "10.254.116.224:50051"),
        ("eth0", from_tunnel, "172.30.9.2:50051", "172.30.76.7:4000"),
    ]
}

/// What is done to a well-formed frame before it is sent.
#[derive(Clone, Debug)]
struct Damage {
    /// Bits to flip, by their place in the frame, scaled to its length.
    flips: Vec<(u16, u8)>,
    /// Bytes cut off or added at the end.
    length: i16,
    /// Whether IPv4 checksums are made right afterwards, so that the damage is looked at by what comes behind.
    mended: bool,
}

#[derive(Clone, Debug)]
enum Act {
    /// A frame from the list, damaged; by the port it belongs to or by any.
    Frame { which: u16, port: Option<u8>, worker: u8, damage: Damage },
    /// Any bytes at any port.
    Bytes { port: u8, worker: u8, bytes: Vec<u8> },
    /// One worker's turn.
    Turn { worker: u8 },
    /// Time passes, at once.
    Jump { milliseconds: u32 },
    /// Another configuration.
    Reload { which: u8 },
}

fn damage() -> impl Strategy<Value = Damage> {
    let flips = prop_oneof![
        3 => Just(Vec::new()),
        2 => proptest::collection::vec((any::<u16>(), 0u8..8), 1..6),
    ];
    let length = prop_oneof![4 => Just(0i16), 1 => -80i16..0, 1 => 1i16..80];
    (flips, length, any::<bool>()).prop_map(|(flips, length, mended)| Damage { flips, length, mended })
}

fn act() -> impl Strategy<Value = Act> {
    let milliseconds = prop_oneof![
        Just(0u32),
        Just(1),
        2u32..40,
        Just(1_000),
        Just(3_001),
        Just(31_000),
        Just(121_000),
        Just(90_000_000)
    ];
    prop_oneof![
        12 => (any::<u16>(), proptest::option::weighted(0.1, any::<u8>()), any::<u8>(), damage())
            .prop_map(|(which, port, worker, damage)| Act::Frame { which, port, worker, damage }),
        3 => (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(port, worker, bytes)| Act::Bytes { port, worker, bytes }),
        3 => any::<u8>().prop_map(|worker| Act::Turn { worker }),
        2 => milliseconds.prop_map(|milliseconds| Act::Jump { milliseconds }),
        1 => any::<u8>().prop_map(|which| Act::Reload { which }),
    ]
}

/// Recomputes the checksum of the IPv4 header at `at` if there is one, and of one inside a tunnel packet.
fn mend(frame: &mut [u8], at: usize) {
    let Some(packet) = frame.get_mut(at..).filter(|packet| packet.len() >= 20) else { return };
    let header_length = usize::from(packet[0] & 0x0f) * 4;
    if !(20..=packet.len()).contains(&header_length) {
        return;
    }
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum::checksum(&packet[..header_length]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    if at == 14 && frame.len() > 64 && frame[23] == 17 && frame[36..38] == 8_472u16.to_be_bytes() {
        frame[40..42].copy_from_slice(&[0, 0]);
        mend(frame, 64);
    }
}

fn damaged(frame: &[u8], damage: &Damage) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let length = frame.len().saturating_add_signed(isize::from(damage.length));
    frame.resize(length, 0xa5);
    for (place, bit) in &damage.flips {
        if !frame.is_empty() {
            // The first bytes are the interesting ones.
            let place = usize::from(*place) % frame.len().min(110);
            frame[place] ^= 1 << bit;
        }
    }
    if damage.mended {
        mend(&mut frame, 14);
    }
    frame
}

/// A world under test, and what it was given.
struct Trial {
    world: World,
    texts: Vec<String>,
    frames: Vec<(&'static str, Vec<u8>)>,
    ports: Vec<String>,
    given: u64,
    sent: u64,
}

impl Trial {
    fn new(workers: usize, seed: u64) -> Self {
        let texts = texts();
        let world = World::with(&texts[0], workers, seed);
        let mut ports: Vec<String> = world.configuration.ports.iter().map(|port| port.name.clone()).collect();
        ports.push("host".to_owned());
        Self { world, texts, frames: frames(), ports, given: 0, sent: 0 }
    }

    fn send(&mut self, port: &str, worker: u8, frame: &[u8]) {
        if port == "host" {
            let packet = self.world.pool.packet(HOST_PORT, frame).expect("a buffer");
            let ring = &mut self.world.handles[0].from_host;
            // A full ring is its sender's affair.
            self.given += u64::from(ring.push(engine::worker::HandOff { packet, visit: 0 }).is_ok());
            return;
        }
        let worker = usize::from(worker) % self.world.workers.len();
        self.world.send_to(port, worker, frame);
        self.given += 1;
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Frame { which, port, worker, damage } => {
                let (own, frame) = &self.frames[usize::from(*which) % self.frames.len()];
                let frame = damaged(frame, damage);
                let port = port.map_or((*own).to_owned(), |port| self.any_port(port));
                self.send(&port, *worker, &frame);
            }
            Act::Bytes { port, worker, bytes } => {
                let port = self.any_port(*port);
                self.send(&port, *worker, bytes);
            }
            Act::Turn { worker } => {
                let worker = usize::from(*worker) % self.world.workers.len();
                let now = self.world.now;
                self.world.workers[worker].turn(now);
            }
            Act::Jump { milliseconds } => {
                self.world.turn();
                self.world.now = Timestamp(self.world.now.0 + u64::from(*milliseconds) * 1_000_000);
                self.world.turn();
            }
            Act::Reload { which } => {
                self.world.turn();
                let text = self.texts[usize::from(*which) % self.texts.len()].clone();
                self.world.reload(&text);
            }
        }
        self.check();
    }

    fn any_port(&self, number: u8) -> String {
        self.ports[usize::from(number) % self.ports.len()].clone()
    }

    /// The equation at each worker, and the soundness of all that left.
    fn check(&mut self) {
        for handle in &self.world.handles {
            let values = handle.counters.account_values();
            assert!(is_balanced(&values), "{values:?} {:?}", self.world.drops());
        }
        for port in 0..self.ports.len() - 1 {
            let port = self.ports[port].clone();
            for frame in self.world.sent(&port) {
                self.sent += 1;
                assert_sound(&frame);
            }
        }
        for frame in self.world.sent_to_host() {
            self.sent += 1;
            assert_sound(&frame);
        }
    }

    /// All that is held comes to its end, and everything adds up.
    fn finish(mut self) {
        self.world.turn();
        for _ in 0..3 {
            self.world.jump_s(4);
            self.check();
        }
        let world = &self.world;
        assert_eq!(world.account(Account::Held), 0);
        let drops = world.drops();
        let dropped: u64 = drops.iter().map(|drop| drop.1).sum();
        assert_eq!(dropped, world.account(Account::Dropped), "each drop has a reason: {drops:?}");
        for defect in ["undecided", "reserved", "unknown", "hand_off_loop", "segmented", "flood_no_room"] {
            assert!(drops.iter().all(|drop| drop.0 != defect), "{drops:?}");
        }
        // Rings between workers cancel out; what is left of them is the host's.
        let come = world.account(Account::Received) + world.account(Account::HandedIn);
        let gone = world.account(Account::Transmitted) + world.account(Account::HandedOff);
        assert_eq!(come - self.given, gone - self.sent, "what one worker hands off another takes in");
        self.world.assert_balanced();
    }
}

/// What a receiver would complain about: a frame shorter than its headers, an IPv4 header that is wrong, a source that is
/// no station.
fn assert_sound(frame: &[u8]) {
    assert!(frame.len() >= 14, "{frame:02x?}");
    let source = MacAddress(frame[6..12].try_into().expect("six bytes"));
    assert!(source.is_unicast(), "{frame:02x?}");
    if frame[12..14] != [8, 0] {
        return;
    }
    let packet = &frame[14..];
    let (header_length, total_length) =
        (usize::from(packet[0] & 0x0f) * 4, u16::from_be_bytes([packet[2], packet[3]]));
    assert!(packet[0] >> 4 == 4 && header_length >= 20, "{frame:02x?}");
    assert!(
        header_length <= usize::from(total_length) && usize::from(total_length) <= packet.len(),
        "{frame:02x?}"
    );
    assert!(checksum::is_valid(&packet[..header_length]), "{frame:02x?}");
    assert!(packet[6] & 0x3f == 0 && packet[7] == 0, "no fragment leaves: {frame:02x?}");
    let is_own_tunnel =
        packet[9] == 17 && packet[12..16] == [192, 168, 0, 21] && packet[22..24] == 8_472u16.to_be_bytes();
    if is_own_tunnel && source == MacAddress(octets(NODE_MAC)) {
        assert_sound(&packet[36..]);
    }
}

proptest! {
    #![proptest_config(settings())]

    /// Sequences of damaged frames, noise, turns, time and reloads.
    #[test]
    fn any_sequence_is_accounted_for(
        workers in 1usize..=3,
        seed in any::<u64>(),
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut trial = Trial::new(workers, seed);
        for act in &acts {
            trial.act(act);
        }
        trial.finish();
    }

    /// Each byte of each kind of frame, changed.
    #[test]
    fn any_change_of_a_frame_is_accounted_for(
        workers in 1usize..=3,
        which in any::<u16>(),
        changes in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..60),
    ) {
        let mut trial = Trial::new(workers, 1);
        let (port, frame) = trial.frames[usize::from(which) % trial.frames.len()].clone();
        for (place, value, mended) in changes {
            let mut changed = frame.clone();
            let place = usize::from(place) % changed.len();
            changed[place] = value;
            if mended {
                mend(&mut changed, 14);
            }
            trial.send(port, value, &changed);
            trial.world.turn();
            trial.check();
        }
        trial.finish();
    }

    /// Noise of any length at any port.
    #[test]
    fn any_bytes_are_accounted_for(
        workers in 1usize..=3,
        packets in proptest::collection::vec((any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..2_048)), 1..40),
    ) {
        let mut trial = Trial::new(workers, 1);
        for (port, worker, bytes) in &packets {
            trial.act(&Act::Bytes { port: *port, worker: *worker, bytes: bytes.clone() });
        }
        trial.world.turn();
        trial.finish();
    }
}

/// Each kind of frame at each length, cut and padded.
#[test]
fn every_length_of_every_frame_is_accounted_for() {
    let mut trial = Trial::new(2, 1);
    for (port, frame) in trial.frames.clone() {
        for length in (0..frame.len().min(130)).chain(frame.len()..frame.len() + 3) {
            let mut cut = frame.clone();
            cut.resize(length, 0xa5);
            trial.send(port, length as u8, &cut);
            if length % 16 == 0 {
                trial.world.turn();
                trial.check();
            }
        }
        trial.world.turn();
        trial.check();
    }
    assert!(trial.sent > 100, "some get through");
    trial.finish();
}

/// The generators reach what they are for: most of the catalogue's reasons, flows, answers, and every way out.
#[test]
fn generators_reach_most_of_the_pipeline() {
    let mut trial = Trial::new(3, 7);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let acts = proptest::collection::vec(act(), 6_000);
    let tree = acts.new_tree(&mut runner).expect("a tree");
    for act in &tree.current() {
        trial.act(act);
    }
    let reasons = trial.world.drops().len();
    assert!(reasons >= 30, "{reasons}: {:?}", trial.world.drops());
    for account in [Account::Originated, Account::Copied, Account::Consumed] {
        assert!(trial.world.account(account) > 50, "{}", trial.world.accounts());
    }
    assert!(trial.world.gauge(pipelines::gateway::Gauge::FlowsCreated) > 500);
    trial.finish();
}
