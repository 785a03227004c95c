//! Frames of the reference cluster, built and taken apart by pnet: nothing here knows how the gateway does it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use engine::port::pcap::CaptureReader;
use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmp::{
    self, IcmpPacket, IcmpTypes, MutableIcmpPacket, echo_request::MutableEchoRequestPacket,
};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::tcp::{self, MutableTcpPacket, TcpPacket};
use pnet::packet::udp::{self, MutableUdpPacket, UdpPacket};
use pnet::util::MacAddr;

pub(crate) const NODE_1: Station = Station { address: "192.168.0.21", mac: "02:00:c0:a8:00:15" };
pub(crate) const NODE_2: Station = Station { address: "192.168.0.22", mac: "02:00:c0:a8:00:16" };
pub(crate) const OUTSIDE: Station = Station { address: "192.168.0.103", mac: "02:00:c0:a8:00:67" };
pub(crate) const BRIDGE: Station = Station { address: "172.30.76.1", mac: "02:42:67:05:b5:30" };
pub(crate) const VTEP_1: Station = Station { address: "172.30.76.0", mac: "8a:22:81:5e:d8:b7" };
pub(crate) const VTEP_2: Station = Station { address: "172.30.9.0", mac: "96:8f:2d:49:c5:31" };
/// Pods of node 1 with the ports that they are behind.
pub(crate) const PODS: [(&str, Station); 4] = [
    ("business-manager-1", Station { address: "172.30.76.7", mac: "02:42:ac:1e:4c:07" }),
    ("data-product-1", Station { address: "172.30.76.5", mac: "02:42:ac:1e:4c:05" }),
    ("data-product-2", Station { address: "172.30.76.3", mac: "02:42:ac:1e:4c:03" }),
    ("ingress-nginx", Station { address: "172.30.76.2", mac: "02:42:ac:1e:4c:02" }),
];
pub(crate) const REMOTE_POD: &str = "172.30.9.9";
pub(crate) const VXLAN_PORT: u16 = 8472;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) address: &'static str,
    pub(crate) mac: &'static str,
}

impl Station {
    pub(crate) fn ip(self) -> Ipv4Addr {
        self.address.parse().unwrap()
    }

    pub(crate) fn hardware(self) -> MacAddr {
        self.mac.parse().unwrap()
    }
}

/// What is in an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Tcp { flags: u8, payload: Vec<u8> },
    Udp { payload: Vec<u8> },
    Icmp { kind: u8, code: u8 },
}

/// An IP packet as one sees it. Ports of ICMP are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: (Ipv4Addr, u16),
    pub(crate) destination: (Ipv4Addr, u16),
    pub(crate) time_to_live: u8,
    pub(crate) content: Content,
}

pub(crate) fn ip(source: (&str, u16), destination: (&str, u16), content: Content) -> Ip {
    let parse = |(address, port): (&str, u16)| (address.parse().unwrap(), port);
    Ip { source: parse(source), destination: parse(destination), time_to_live: 64, content }
}

pub(crate) fn syn(source: (&str, u16), destination: (&str, u16)) -> Ip {
    ip(source, destination, Content::Tcp { flags: tcp::TcpFlags::SYN, payload: Vec::new() })
}

pub(crate) fn datagram(source: (&str, u16), destination: (&str, u16)) -> Ip {
    ip(source, destination, Content::Udp { payload: b"what is the time?".to_vec() })
}

pub(crate) fn ping(source: &str, destination: &str) -> Ip {
    ip((source, 0), (destination, 0), Content::Icmp { kind: IcmpTypes::EchoRequest.0, code: 0 })
}

impl Ip {
    /// The SYN and ACK to a SYN, as the one that it reached sends it.
    pub(crate) fn accepted(&self) -> Self {
        let flags = tcp::TcpFlags::SYN | tcp::TcpFlags::ACK;
        Self {
            source: self.destination,
            destination: self.source,
            time_to_live: 64,
            content: Content::Tcp { flags, payload: Vec::new() },
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (source, destination) = (&self.source.0, &self.destination.0);
        let (protocol, payload) = match &self.content {
            Content::Tcp { flags, payload } => {
                let mut bytes = [vec![0; 20], payload.clone()].concat();
                let mut segment = MutableTcpPacket::new(&mut bytes).unwrap();
                segment.set_source(self.source.1);
                segment.set_destination(self.destination.1);
                segment.set_data_offset(5);
                segment.set_flags(*flags);
                segment.set_sequence(1_000_000);
                segment.set_window(64_240);
                segment.set_checksum(tcp::ipv4_checksum(&segment.to_immutable(), source, destination));
                (IpNextHeaderProtocols::Tcp, bytes)
            }
            Content::Udp { payload } => {
                (IpNextHeaderProtocols::Udp, udp_bytes(self.source, self.destination, payload))
            }
            Content::Icmp { .. } => {
                let mut bytes = vec![0; 40];
                let mut echo = MutableEchoRequestPacket::new(&mut bytes).unwrap();
                echo.set_icmp_type(IcmpTypes::EchoRequest);
                echo.set_identifier(77);
                let checksum = icmp::checksum(&IcmpPacket::new(&bytes).unwrap());
                MutableIcmpPacket::new(&mut bytes).unwrap().set_checksum(checksum);
                (IpNextHeaderProtocols::Icmp, bytes)
            }
        };
        ip_bytes(self.source.0, self.destination.0, self.time_to_live, protocol, &payload)
    }
}

fn udp_bytes(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 8], payload].concat();
    let length = bytes.len() as u16;
    let mut datagram = MutableUdpPacket::new(&mut bytes).unwrap();
    datagram.set_source(source.1);
    datagram.set_destination(destination.1);
    datagram.set_length(length);
    let checksum = udp::ipv4_checksum(&datagram.to_immutable(), &source.0, &destination.0);
    assert_ne!(checksum, 0);
    datagram.set_checksum(checksum);
    bytes
}

fn ip_bytes(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    time_to_live: u8,
    protocol: IpNextHeaderProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = [&[0; 20], payload].concat();
    let length = bytes.len() as u16;
    let mut header = MutableIpv4Packet::new(&mut bytes).unwrap();
    header.set_version(4);
    header.set_header_length(5);
    header.set_total_length(length);
    header.set_ttl(time_to_live);
    header.set_next_level_protocol(protocol);
    header.set_source(source);
    header.set_destination(destination);
    header.set_checksum(ipv4::checksum(&header.to_immutable()));
    bytes
}

pub(crate) fn ethernet(source: MacAddr, destination: MacAddr, kind: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 14], payload].concat();
    let mut frame = MutableEthernetPacket::new(&mut bytes).unwrap();
    frame.set_source(source);
    frame.set_destination(destination);
    frame.set_ethertype(kind);
    bytes
}

/// A packet on a link.
pub(crate) fn frame(source: Station, destination: Station, packet: &Ip) -> Vec<u8> {
    ethernet(source.hardware(), destination.hardware(), EtherTypes::Ipv4, &packet.bytes())
}

/// A packet that node 2 sends through the tunnel, as the kernel does: with an outer UDP checksum.
pub(crate) fn tunnelled(packet: &Ip) -> Vec<u8> {
    tunnelled_as(1, packet)
}

pub(crate) fn tunnelled_as(vni: u32, packet: &Ip) -> Vec<u8> {
    let inner = frame(VTEP_2, VTEP_1, packet);
    let payload = [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], &inner].concat();
    let (source, destination) = (NODE_2.ip(), NODE_1.ip());
    let datagram = udp_bytes((source, 51_234), (destination, VXLAN_PORT), &payload);
    let outer = ip_bytes(source, destination, 64, IpNextHeaderProtocols::Udp, &datagram);
    ethernet(NODE_2.hardware(), NODE_1.hardware(), EtherTypes::Ipv4, &outer)
}

pub(crate) fn arp(operation: ArpOperation, sender: Station, target: Station, target_mac: MacAddr) -> Vec<u8> {
    let mut bytes = [0; 28];
    let mut packet = MutableArpPacket::new(&mut bytes).unwrap();
    packet.set_hardware_type(ArpHardwareTypes::Ethernet);
    packet.set_protocol_type(EtherTypes::Ipv4);
    packet.set_hw_addr_len(6);
    packet.set_proto_addr_len(4);
    packet.set_operation(operation);
    packet.set_sender_hw_addr(sender.hardware());
    packet.set_sender_proto_addr(sender.ip());
    packet.set_target_proto_addr(target.ip());
    ethernet(sender.hardware(), target_mac, EtherTypes::Arp, &bytes)
}

/// "Who has `target`?"
pub(crate) fn arp_request(sender: Station, target: Station) -> Vec<u8> {
    arp(ArpOperations::Request, sender, target, MacAddr::broadcast())
}

/// A frame that the gateway sent, checked on the way: lengths, checksums, and the tunnel's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) time_ns: u64,
    /// Whether it was in the tunnel; the MACs are the inner ones then.
    pub(crate) tunnelled: bool,
    pub(crate) macs: (MacAddr, MacAddr),
    /// None: ARP.
    pub(crate) ip: Option<Ip>,
}

/// Everything in an output capture.
pub(crate) fn read_sent(path: &Path) -> Vec<Sent> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut sent = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        assert!(!record.is_truncated());
        sent.push(Sent { time_ns: record.timestamp.0, ..dissect(record.bytes) });
    }
    sent
}

fn dissect(bytes: &[u8]) -> Sent {
    let frame = EthernetPacket::new(bytes).unwrap();
    let mut sent =
        Sent { time_ns: 0, tunnelled: false, macs: (frame.get_source(), frame.get_destination()), ip: None };
    if frame.get_ethertype() == EtherTypes::Arp {
        assert_eq!(ArpPacket::new(frame.payload()).unwrap().get_protocol_type(), EtherTypes::Ipv4);
        return sent;
    }
    assert_eq!(frame.get_ethertype(), EtherTypes::Ipv4);
    let packet = check_ip(frame.payload());
    let udp = UdpPacket::new(packet.payload())
        .filter(|_| packet.get_next_level_protocol() == IpNextHeaderProtocols::Udp);
    if let Some(udp) = udp.filter(|udp| udp.get_destination() == VXLAN_PORT) {
        return dissect_tunnel(&frame, &packet, &udp);
    }
    sent.ip = Some(check_content(&packet));
    sent
}

/// A tunnel packet must be as flannel's node 1 sends it to node 2.
fn dissect_tunnel(frame: &EthernetPacket<'_>, packet: &Ipv4Packet<'_>, udp: &UdpPacket<'_>) -> Sent {
    assert_eq!((frame.get_source(), frame.get_destination()), (NODE_1.hardware(), NODE_2.hardware()));
    assert_eq!((packet.get_source(), packet.get_destination()), (NODE_1.ip(), NODE_2.ip()));
    assert_eq!((packet.get_ttl(), packet.get_flags()), (64, 0));
    assert_eq!(udp.get_checksum(), 0, "none is sent (RFC 7348, section 5)");
    assert_eq!(usize::from(udp.get_length()), packet.payload().len());
    assert!(udp.get_source() >= 0xc000, "source ports are dynamic ones (RFC 7348, section 5)");
    let (vxlan, inner) = udp.payload().split_at(8);
    assert_eq!(vxlan, [8, 0, 0, 0, 0, 0, 1, 0], "flag, reserved, VNI 1, reserved");
    let inner = Sent { tunnelled: true, ..dissect(inner) };
    assert_eq!(inner.macs, (VTEP_1.hardware(), VTEP_2.hardware()));
    inner
}

fn check_ip(bytes: &[u8]) -> Ipv4Packet<'_> {
    let packet = Ipv4Packet::new(bytes).unwrap();
    assert_eq!(usize::from(packet.get_total_length()), bytes.len());
    assert_eq!(packet.get_checksum(), ipv4::checksum(&packet), "IPv4 header checksum");
    packet
}

fn check_content(packet: &Ipv4Packet<'_>) -> Ip {
    let (source, destination) = (packet.get_source(), packet.get_destination());
    let (ports, content) = match packet.get_next_level_protocol() {
        IpNextHeaderProtocols::Tcp => {
            let segment = TcpPacket::new(packet.payload()).unwrap();
            assert_eq!(
                segment.get_checksum(),
                tcp::ipv4_checksum(&segment, &source, &destination),
                "TCP checksum"
            );
            let content = Content::Tcp { flags: segment.get_flags(), payload: segment.payload().to_vec() };
            ((segment.get_source(), segment.get_destination()), content)
        }
        IpNextHeaderProtocols::Udp => {
            let datagram = UdpPacket::new(packet.payload()).unwrap();
            assert_eq!(
                datagram.get_checksum(),
                udp::ipv4_checksum(&datagram, &source, &destination),
                "UDP checksum"
            );
            (
                (datagram.get_source(), datagram.get_destination()),
                Content::Udp { payload: datagram.payload().to_vec() },
            )
        }
        IpNextHeaderProtocols::Icmp => {
            let message = IcmpPacket::new(packet.payload()).unwrap();
            assert_eq!(message.get_checksum(), icmp::checksum(&message), "ICMP checksum");
            ((0, 0), Content::Icmp { kind: message.get_icmp_type().0, code: message.get_icmp_code().0 })
        }
        other => panic!("nobody sent protocol {other}"),
    };
    Ip {
        source: (source, ports.0),
        destination: (destination, ports.1),
        time_to_live: packet.get_ttl(),
        content,
    }
}

/// A record to write: time in nanoseconds, bytes, length on the wire.
pub(crate) type Written = (u64, Vec<u8>, usize);

/// Writes a capture byte by byte (draft-ietf-opsawg-pcap): little-endian, nanoseconds, Ethernet.
pub(crate) fn write_capture(folder: &Path, name: &str, records: &[Written]) -> PathBuf {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut bytes = words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time_ns, frame, length) in records {
        let (seconds, rest) = ((time_ns / 1_000_000_000) as u32, (time_ns % 1_000_000_000) as u32);
        bytes.extend(words(&[seconds, rest, frame.len() as u32, *length as u32]));
        bytes.extend(frame);
    }
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
