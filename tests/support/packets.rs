//! Packets in and out, built and read by pnet.

use std::net::Ipv4Addr;

use pnet::packet::Packet as _;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmp::{self, IcmpPacket, IcmpTypes, MutableIcmpPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::tcp::{self, MutableTcpPacket, TcpPacket};
use pnet::packet::udp::{self, MutableUdpPacket, UdpPacket};
use pnet::util::MacAddr;

use super::ip;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;

pub const BRIDGE_MAC: &str = "02:42:67:05:b5:30";
pub const NODE_MAC: &str = "02:00:c0:a8:00:15";
pub const VTEP_MAC: &str = "8a:22:81:5e:d8:b7";
pub const NODE_2_MAC: &str = "02:00:c0:a8:00:22";
pub const NODE_2_VTEP_MAC: &str = "96:8f:2d:49:c5:31";
pub const CLIENT_MAC: &str = "02:00:c0:a8:00:50";

pub fn mac(text: &str) -> MacAddr {
    text.parse().expect("a MAC")
}

/// The bytes of a MAC in text.
pub fn octets(text: &str) -> [u8; 6] {
    mac(text).octets()
}

/// The MAC of a pod on node 1 in the reference world.
pub fn pod_mac(last: u8) -> String {
    format!("02:42:ac:1e:4c:{last:02x}")
}

pub fn ethernet(destination: &str, source: &str, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = MutableEthernetPacket::new(&mut bytes).unwrap();
    frame.set_destination(mac(destination));
    frame.set_source(mac(source));
    frame.set_ethertype(pnet::packet::ethernet::EtherType(ether_type));
    frame.set_payload(payload);
    bytes
}

/// Makes the IPv4 header's checksum right again after a change.
pub fn fix_ipv4(packet: &mut [u8]) {
    let mut packet = MutableIpv4Packet::new(packet).unwrap();
    let checksum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
}

/// The packet with one byte of its IPv4 header changed and the checksum made right.
pub fn with_ipv4_byte(packet: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] = value;
    fix_ipv4(&mut packet);
    packet
}

/// The packet with these options (a multiple of four bytes) in its IPv4 header.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..20], options, &packet[20..]].concat();
    bytes[0] = 0x45 + (options.len() / 4) as u8;
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    fix_ipv4(&mut bytes);
    bytes
}

pub fn ipv4_with(source: &str, destination: &str, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length((20 + payload.len()) as u16);
    packet.set_identification(0x1234);
    packet.set_flags(ipv4::Ipv4Flags::DontFragment);
    packet.set_ttl(ttl);
    packet.set_next_level_protocol(IpNextHeaderProtocol(protocol));
    packet.set_source(ip(source));
    packet.set_destination(ip(destination));
    packet.set_payload(payload);
    let checksum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
    bytes
}

/// `a.b.c.d:port`.
pub fn endpoint(text: &str) -> (&str, u16) {
    let (address, port) = text.rsplit_once(':').expect("address:port");
    (address, port.parse().expect("a port"))
}

pub fn tcp(source: &str, destination: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_numbered(source, destination, flags, 1_000, 2_000, payload)
}

pub fn tcp_numbered(
    source: &str,
    destination: &str,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    payload: &[u8],
) -> Vec<u8> {
    let ((source, source_port), (destination, destination_port)) = (endpoint(source), endpoint(destination));
    let mut bytes = vec![0; 20 + payload.len()];
    let mut segment = MutableTcpPacket::new(&mut bytes).unwrap();
    segment.set_source(source_port);
    segment.set_destination(destination_port);
    segment.set_sequence(sequence);
    segment.set_acknowledgement(acknowledgement);
    segment.set_data_offset(5);
    segment.set_flags(flags);
    segment.set_window(64_000);
    segment.set_payload(payload);
    let checksum = tcp::ipv4_checksum(&segment.to_immutable(), &ip(source), &ip(destination));
    segment.set_checksum(checksum);
    ipv4_with(source, destination, 6, 64, &bytes)
}

pub fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (endpoint(source), endpoint(destination));
    let bytes = udp_bytes(source, destination, payload, true);
    ipv4_with(source.0, destination.0, 17, 64, &bytes)
}

fn udp_bytes(source: (&str, u16), destination: (&str, u16), payload: &[u8], checksum: bool) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload.len()];
    let mut datagram = MutableUdpPacket::new(&mut bytes).unwrap();
    datagram.set_source(source.1);
    datagram.set_destination(destination.1);
    datagram.set_length((8 + payload.len()) as u16);
    datagram.set_payload(payload);
    if checksum {
        let sum = udp::ipv4_checksum(&datagram.to_immutable(), &ip(source.0), &ip(destination.0));
        datagram.set_checksum(sum);
    }
    bytes
}

/// CRC32c bit by bit (RFC 9260, appendix A), as an SCTP packet carries it, with the field as zero.
pub fn crc32c(packet: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for (place, byte) in packet.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&place) { 0 } else { *byte });
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

/// An SCTP packet with an INIT chunk's worth of bytes, from its common header on.
pub fn sctp(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut packet = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend((0..37).map(|byte| byte * 7));
    let crc = crc32c(&packet);
    packet[8..12].copy_from_slice(&crc);
    packet
}

pub fn echo(source: &str, destination: &str, is_reply: bool, identifier: u16) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let kind = if is_reply { IcmpTypes::EchoReply } else { IcmpTypes::EchoRequest };
    bytes[4..6].copy_from_slice(&identifier.to_be_bytes());
    bytes[20] = 0x5a;
    let mut message = MutableIcmpPacket::new(&mut bytes).unwrap();
    message.set_icmp_type(kind);
    let checksum = icmp::checksum(&message.to_immutable());
    message.set_checksum(checksum);
    ipv4_with(source, destination, 1, 64, &bytes)
}

/// An ICMP error about `quoted`.
pub fn icmp_error(source: &str, destination: &str, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[0] = kind;
    bytes[1] = code;
    bytes.extend_from_slice(&quoted[..quoted.len().min(28)]);
    let checksum = icmp::checksum(&IcmpPacket::new(&bytes).unwrap());
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    ipv4_with(source, destination, 1, 64, &bytes)
}

pub fn arp(
    operation: ArpOperation,
    sender: (&str, &str),
    target: (&str, &str),
    destination: &str,
) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut packet = MutableArpPacket::new(&mut bytes).unwrap();
    packet.set_hardware_type(ArpHardwareTypes::Ethernet);
    packet.set_protocol_type(EtherTypes::Ipv4);
    packet.set_hw_addr_len(6);
    packet.set_proto_addr_len(4);
    packet.set_operation(operation);
    packet.set_sender_hw_addr(mac(sender.0));
    packet.set_sender_proto_addr(ip(sender.1));
    packet.set_target_hw_addr(mac(target.0));
    packet.set_target_proto_addr(ip(target.1));
    ethernet(destination, sender.0, 0x0806, &bytes)
}

/// Who has `address`? asked by a station.
pub fn arp_request(sender: (&str, &str), address: &str) -> Vec<u8> {
    arp(ArpOperations::Request, sender, ("00:00:00:00:00:00", address), "ff:ff:ff:ff:ff:ff")
}

/// A frame from a pod on node 1 to the bridge.
pub fn from_pod(last: u8, packet: &[u8]) -> Vec<u8> {
    ethernet(BRIDGE_MAC, &pod_mac(last), 0x0800, packet)
}

/// A frame on the underlay to the gateway.
pub fn to_node(source_mac: &str, packet: &[u8]) -> Vec<u8> {
    ethernet(NODE_MAC, source_mac, 0x0800, packet)
}

/// A packet from node 2 through the tunnel, with an outer checksum as the kernel sends it.
pub fn from_tunnel(packet: &[u8]) -> Vec<u8> {
    tunnel_with(1, VTEP_MAC, packet)
}

pub fn tunnel_with(vni: u32, inner_destination: &str, packet: &[u8]) -> Vec<u8> {
    let frame = ethernet(inner_destination, NODE_2_VTEP_MAC, 0x0800, packet);
    to_node(NODE_2_MAC, &vxlan_datagram(0x08, vni, &frame))
}

/// A tunnel packet of node 2 from its outer IP header on, around any inner frame.
pub fn vxlan_datagram(flags: u8, vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut payload = vec![flags, 0, 0, 0];
    payload.extend_from_slice(&(vni << 8).to_be_bytes());
    payload.extend_from_slice(frame);
    let datagram = udp_bytes(("192.168.0.22", 51_000), ("192.168.0.21", 8472), &payload, true);
    ipv4_with("192.168.0.22", "192.168.0.21", 17, 64, &datagram)
}

/// What a frame says, checked as a receiver would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub destination_mac: String,
    pub source_mac: String,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub ttl: u8,
    pub protocol: u8,
    /// TCP's and UDP's; an echo's identifier twice.
    pub ports: (u16, u16),
    /// TCP flags, or ICMP type and code.
    pub flags: u16,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn from(&self) -> String {
        format!("{}:{}", self.source, self.ports.0)
    }

    pub fn to(&self) -> String {
        format!("{}:{}", self.destination, self.ports.1)
    }
}

/// Reads an Ethernet frame with an IPv4 packet, and checks every checksum on the way.
pub fn read(frame: &[u8]) -> Seen {
    let ethernet = EthernetPacket::new(frame).expect("an Ethernet header");
    assert_eq!(ethernet.get_ethertype(), EtherTypes::Ipv4);
    let mut seen = read_ip(ethernet.payload());
    seen.destination_mac = ethernet.get_destination().to_string();
    seen.source_mac = ethernet.get_source().to_string();
    seen
}

pub fn read_ip(bytes: &[u8]) -> Seen {
    let packet = Ipv4Packet::new(bytes).expect("an IPv4 header");
    assert_eq!(packet.get_checksum(), ipv4::checksum(&packet), "IPv4 header checksum");
    assert_eq!(usize::from(packet.get_total_length()), bytes.len(), "no padding, nothing missing");
    let header = usize::from(packet.get_header_length()) * 4;
    let (source, destination) = (packet.get_source(), packet.get_destination());
    let transport = &bytes[header..];
    let (ports, flags, payload) = match packet.get_next_level_protocol() {
        IpNextHeaderProtocols::Tcp => {
            let tcp = TcpPacket::new(transport).expect("a TCP header");
            assert_eq!(tcp.get_checksum(), tcp::ipv4_checksum(&tcp, &source, &destination), "TCP checksum");
            ((tcp.get_source(), tcp.get_destination()), u16::from(tcp.get_flags()), tcp.payload().to_vec())
        }
        IpNextHeaderProtocols::Udp => {
            let udp = UdpPacket::new(transport).expect("a UDP header");
            assert_eq!(usize::from(udp.get_length()), transport.len());
            if udp.get_checksum() != 0 {
                assert_eq!(
                    udp.get_checksum(),
                    udp::ipv4_checksum(&udp, &source, &destination),
                    "UDP checksum"
                );
            }
            ((udp.get_source(), udp.get_destination()), 0, udp.payload().to_vec())
        }
        IpNextHeaderProtocols::Icmp => {
            let message = IcmpPacket::new(transport).expect("an ICMP header");
            assert_eq!(message.get_checksum(), icmp::checksum(&message), "ICMP checksum");
            let identifier = u16::from_be_bytes([transport[4], transport[5]]);
            let flags = u16::from(transport[0]) << 8 | u16::from(transport[1]);
            ((identifier, identifier), flags, transport[8..].to_vec())
        }
        _ => ((0, 0), 0, transport.to_vec()),
    };
    Seen {
        destination_mac: String::new(),
        source_mac: String::new(),
        source,
        destination,
        ttl: packet.get_ttl(),
        protocol: packet.get_next_level_protocol().0,
        ports,
        flags,
        payload,
    }
}

/// A tunnel packet: what the outer headers say, the VNI, and the inner packet.
pub fn read_tunnel(frame: &[u8]) -> (Seen, u32, Seen) {
    let outer = read(frame);
    assert_eq!((outer.protocol, outer.ports.1), (17, 8472));
    assert_eq!(outer.payload[0], 0x08, "the VNI flag alone");
    let vni = u32::from_be_bytes(outer.payload[4..8].try_into().unwrap());
    assert_eq!(vni & 0xff, 0, "reserved");
    let inner = read(&outer.payload[8..]);
    (outer, vni >> 8, inner)
}

/// An ARP packet: operation, sender and target.
pub fn read_arp(frame: &[u8]) -> (u16, (String, Ipv4Addr), (String, Ipv4Addr)) {
    let ethernet = EthernetPacket::new(frame).unwrap();
    assert_eq!(ethernet.get_ethertype(), EtherTypes::Arp);
    let arp = ArpPacket::new(ethernet.payload()).unwrap();
    (
        arp.get_operation().0,
        (arp.get_sender_hw_addr().to_string(), arp.get_sender_proto_addr()),
        (arp.get_target_hw_addr().to_string(), arp.get_target_proto_addr()),
    )
}
