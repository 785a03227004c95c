//! Packets of the trials: of any kind, from and to anywhere, in any shape.

use std::net::Ipv4Addr;

use engine::table::flow::FlowKey;
use pipelines::flow::flow_key;
use proptest::prelude::*;

use crate::scene::{NODE, PLACES};
use crate::support::packets::*;
use crate::support::{ip, pod_port};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const SCTP: u8 = 132;
const PUSH: u8 = 0x08;

/// Where packets come from: pods here, clients on the underlay, pods behind the tunnel, the world, the host itself.
const SOURCES: [&str; 8] = [
    "172.30.76.7",
    "172.30.76.5",
    "172.30.76.6",
    "192.168.0.50",
    "172.30.9.9",
    "172.30.9.2",
    "8.8.8.8",
    NODE,
];

/// Where they go to, beside services and node ports.
const DESTINATIONS: [&str; 11] = [
    "172.30.76.6",
    "172.30.76.5",
    "172.30.9.2",
    "172.30.9.3",
    "8.8.8.8",
    "9.9.9.9",
    "192.168.0.50",
    BY_EITHER,
    NODE,
    "172.30.76.1",
    "10.254.99.99",
];

/// Behind the tunnel or on the underlay, as the route of now says. Only hosts outside the pod network speak to it: whether
/// others are masqueraded hangs on the way out, and a flow keeps what it began with.
const BY_EITHER: &str = "10.99.0.1";

/// Source port of pods' packets that go to another pod's MAC whatever they are for.
const INGRESS_AS_ROUTER: u16 = 20_002;

/// All of a packet that no decision hangs on, or should.
#[derive(Clone, Debug)]
pub struct Shape {
    traffic_class: u8,
    pub time_to_live: u8,
    pub has_options: bool,
    pub payload_length: u16,
    /// UDP without a checksum.
    is_unsummed: bool,
    /// The transport's checksum is wrong.
    pub is_damaged: bool,
    may_fragment: bool,
    /// To the other pod's MAC, where sender and receiver are on the bridge.
    is_bridged: bool,
    outer_is_unsummed: bool,
    outer_ecn: u8,
}

impl Shape {
    /// For the packet that opens a flow before another.
    pub fn plain() -> Self {
        Self {
            traffic_class: 0,
            time_to_live: 64,
            has_options: false,
            payload_length: 8,
            is_unsummed: false,
            is_damaged: false,
            may_fragment: false,
            is_bridged: false,
            outer_is_unsummed: true,
            outer_ecn: 0,
        }
    }
}

pub fn shape() -> impl Strategy<Value = Shape> {
    let length = prop_oneof![6 => 0u16..64, 1 => 64u16..1_360, 1 => 1_360u16..1_480];
    let time_to_live = prop_oneof![10 => 3u8..=255, 1 => 0u8..3];
    let seldom = || prop::bool::weighted(0.15);
    let flags = (seldom(), seldom(), seldom(), seldom(), any::<[bool; 2]>());
    (any::<u8>(), time_to_live, length, flags, 0u8..4).prop_map(
        |(traffic_class, time_to_live, payload_length, flags, outer_ecn)| Shape {
            traffic_class,
            time_to_live,
            payload_length,
            has_options: flags.0,
            is_unsummed: flags.1,
            is_damaged: flags.2,
            may_fragment: flags.3,
            is_bridged: flags.4[0],
            outer_is_unsummed: flags.4[1],
            outer_ecn,
        },
    )
}

/// What a client sends first.
pub fn opening() -> impl Strategy<Value = FlowKey> {
    let protocol =
        prop_oneof![3 => Just(TCP), 3 => Just(UDP), 2 => Just(SCTP), 2 => Just(ICMP), 1 => Just(GRE)];
    let to_service = prop::bool::weighted(0.6);
    (0..SOURCES.len(), 0u16..3, to_service, 0..PLACES.len(), any::<bool>(), 0..DESTINATIONS.len(), protocol)
        .prop_map(|(source, port, to_service, place, is_node_port, destination, protocol)| {
            let address = |text: &str| u32::from(ip(text));
            let (source, port) = (SOURCES[source], 20_000 + port);
            if to_service {
                let place = &PLACES[place];
                let (to, to_port) =
                    if is_node_port { (NODE, place.node_port) } else { (place.address, place.port) };
                return flow_key(place.protocol, address(source), port, address(to), to_port);
            }
            let is_pod = source.starts_with("172.30.");
            let to = match DESTINATIONS[destination] {
                BY_EITHER if is_pod => "9.9.9.9",
                to => to,
            };
            // The ports of backends, so that clients meet them directly as well.
            let (port, to_port) = match protocol {
                TCP => (port, 8_080),
                UDP => (port, 5_353),
                SCTP => (port, 3_900),
                ICMP => (port, 0),
                _ => (0, 0),
            };
            flow_key(protocol, address(source), port, address(to), to_port)
        })
}

/// TCP's flags in a later packet.
pub fn later_flags() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(ACK), 3 => Just(PUSH | ACK), 1 => Just(FIN | ACK), 1 => Just(RST | ACK), 1 => Just(SYN)]
}

/// A packet as it arrives.
#[derive(Clone, Debug)]
pub struct Sent {
    pub key: FlowKey,
    /// TCP's.
    pub flags: u8,
    pub shape: Shape,
    /// From its IP header on.
    pub packet: Vec<u8>,
    /// Where it arrives, and as what frame.
    pub port: &'static str,
    pub frame: Vec<u8>,
}

impl Sent {
    pub fn new(key: FlowKey, flags: u8, shape: &Shape) -> Self {
        let packet = packet(&key, flags, shape);
        let (port, frame) = arrives(&key, &packet, shape);
        Self { key, flags, shape: shape.clone(), packet, port, frame }
    }

    pub fn is_tunnelled(&self) -> bool {
        self.frame.len() > self.packet.len() + 40
    }

    pub fn is_bridged(&self) -> bool {
        self.port != "eth0" && self.port != "host" && self.frame[..6] != octets(BRIDGE_MAC)
    }
}

fn text(address: u32) -> String {
    Ipv4Addr::from(address).to_string()
}

fn packet(key: &FlowKey, flags: u8, shape: &Shape) -> Vec<u8> {
    let (from, to) = (text(key.source), text(key.destination));
    let (source, destination) =
        (format!("{from}:{}", key.source_port), format!("{to}:{}", key.destination_port));
    let payload: Vec<u8> = (0..shape.payload_length).map(|byte| (byte * 7) as u8).collect();
    let (mut packet, checksum) = match key.protocol {
        TCP => (tcp(&source, &destination, flags, &payload), Some(36)),
        UDP => (udp(&source, &destination, &payload), Some(26)),
        ICMP => {
            // A reply has its identifier where its receiver's port would be.
            let is_reply = key.source_port == 0;
            let identifier = key.source_port.max(key.destination_port);
            (echo(&from, &to, is_reply, identifier), Some(22))
        }
        SCTP => (ipv4_with(&from, &to, SCTP, 64, &sctp(key.source_port, key.destination_port)), Some(28)),
        _ => (ipv4_with(&from, &to, GRE, 64, &payload), None),
    };
    if key.protocol == UDP && shape.is_unsummed {
        packet[26..28].fill(0);
    } else if let Some(checksum) = checksum.filter(|_| shape.is_damaged) {
        packet[checksum] ^= 0x11;
    }
    packet[1] = shape.traffic_class;
    packet[8] = shape.time_to_live;
    if shape.may_fragment {
        packet[6] = 0;
    }
    fix_ipv4(&mut packet);
    if shape.has_options { with_options(&packet, &[7, 7, 4, 0, 0, 0, 0, 0]) } else { packet }
}

/// The last byte of a pod of this node.
fn pod(address: u32) -> Option<u8> {
    let last = address as u8;
    (address >> 8 == 0x00ac_1e4c && [2, 3, 5, 6, 7].contains(&last)).then_some(last)
}

fn arrives(key: &FlowKey, packet: &[u8], shape: &Shape) -> (&'static str, Vec<u8>) {
    const HOST_MAC: &str = "02:00:00:00:00:99";
    if let Some(last) = pod(key.source) {
        // Pod 3's MAC is another now and then, so who bridges to it would flood.
        // Some take the ingress pod for their router, for all of a flow: who is bridged is not masqueraded, and a flow keeps
        // what it began with.
        let router = (key.source_port == INGRESS_AS_ROUTER).then_some(2);
        let peer = pod(key.destination).filter(|_| shape.is_bridged).or(router);
        let to = peer.filter(|peer| ![last, 3].contains(peer)).map_or(BRIDGE_MAC.to_owned(), pod_mac);
        return (pod_port(last), ethernet(&to, &pod_mac(last), 0x0800, packet));
    }
    match Ipv4Addr::from(key.source).octets() {
        [172, 30, 9, _] => {
            let mut frame = from_tunnel(packet);
            frame[15] = shape.outer_ecn;
            fix_ipv4(&mut frame[14..]);
            if shape.outer_is_unsummed {
                frame[40..42].fill(0);
            }
            ("eth0", frame)
        }
        [192, 168, 0, 21] | [172, 30, 76, 0 | 1] => {
            ("host", ethernet("02:00:00:00:00:01", HOST_MAC, 0x0800, packet))
        }
        [192, 168, 0, 50] => ("eth0", to_node(CLIENT_MAC, packet)),
        _ => ("eth0", to_node("02:00:c0:a8:00:01", packet)),
    }
}
