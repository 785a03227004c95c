//! First packets of flows: as text for the gateway, as bytes for the kernel, and how to know them again on another wire.

use std::fmt;
use std::net::Ipv4Addr;

use pnet::packet::Packet;
use pnet::packet::icmp::IcmpTypes;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::tcp::{self, MutableTcpPacket, TcpFlags};
use pnet::packet::udp::{self, MutableUdpPacket};

/// How every packet ends, before its tag; quoted by ICMP errors, unchanged by NAT.
const MAGIC: [u8; 6] = *b"pgdiff";
const MARK_LENGTH: usize = MAGIC.len() + 2;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Echo,
    Gre,
}

impl Protocol {
    pub(crate) fn number(self) -> IpNextHeaderProtocol {
        match self {
            Protocol::Tcp => IpNextHeaderProtocols::Tcp,
            Protocol::Udp => IpNextHeaderProtocols::Udp,
            Protocol::Sctp => IpNextHeaderProtocols::Sctp,
            Protocol::Echo => IpNextHeaderProtocols::Icmp,
            Protocol::Gre => IpNextHeaderProtocols::Gre,
        }
    }

    /// The protocol that an object names.
    pub(crate) fn named(name: &str) -> Protocol {
        match name {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("services have no protocol {other}"),
        }
    }
}

/// A packet whose source port, or echo identifier, is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FirstPacket {
    pub(crate) protocol: Protocol,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    /// 0 for protocols that have none.
    pub(crate) port: u16,
}

impl FirstPacket {
    /// In the grammar of `pollgate trace --packet`.
    pub(crate) fn text(&self, source_port: u16) -> String {
        let FirstPacket { source, destination, port, .. } = self;
        match self.protocol {
            Protocol::Tcp => format!("tcp {source}:{source_port} > {destination}:{port}"),
            Protocol::Udp => format!("udp {source}:{source_port} > {destination}:{port}"),
            Protocol::Sctp => format!("sctp {source}:{source_port} > {destination}:{port}"),
            Protocol::Echo => format!("icmp echo {source} > {destination} id {source_port}"),
            Protocol::Gre => format!("gre {source} > {destination}"),
        }
    }

    /// The IPv4 packet, with a tag by which it is known again.
    pub(crate) fn bytes(&self, source_port: u16, tag: u16) -> Vec<u8> {
        let mark = [MAGIC.as_slice(), &tag.to_be_bytes()].concat();
        let payload = match self.protocol {
            Protocol::Tcp => self.tcp(source_port, &mark),
            Protocol::Udp => self.udp(source_port, &mark),
            Protocol::Sctp => self.sctp(source_port, &mark),
            Protocol::Echo => echo(source_port, &mark),
            // RFC 2784: no options, and a payload of the first EtherType for experiments.
            Protocol::Gre => [[0, 0, 0x88, 0xb5].as_slice(), &mark].concat(),
        };
        let mut bytes = vec![0; 20 + payload.len()];
        let mut packet = MutableIpv4Packet::new(&mut bytes).expect("room for a header");
        packet.set_version(4);
        packet.set_header_length(5);
        packet.set_total_length(20 + payload.len() as u16);
        packet.set_identification(tag.max(1));
        packet.set_ttl(64);
        packet.set_next_level_protocol(self.protocol.number());
        packet.set_source(self.source);
        packet.set_destination(self.destination);
        packet.set_payload(&payload);
        let checksum = ipv4::checksum(&packet.to_immutable());
        packet.set_checksum(checksum);
        bytes
    }

    fn tcp(&self, source_port: u16, mark: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20 + mark.len()];
        let mut segment = MutableTcpPacket::new(&mut bytes).expect("room for a header");
        segment.set_source(source_port);
        segment.set_destination(self.port);
        segment.set_sequence(1);
        segment.set_data_offset(5);
        segment.set_flags(TcpFlags::SYN);
        segment.set_window(64_000);
        segment.set_payload(mark);
        let checksum = tcp::ipv4_checksum(&segment.to_immutable(), &self.source, &self.destination);
        segment.set_checksum(checksum);
        bytes
    }

    fn udp(&self, source_port: u16, mark: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8 + mark.len()];
        let mut datagram = MutableUdpPacket::new(&mut bytes).expect("room for a header");
        datagram.set_source(source_port);
        datagram.set_destination(self.port);
        datagram.set_length(8 + mark.len() as u16);
        datagram.set_payload(mark);
        let checksum = udp::ipv4_checksum(&datagram.to_immutable(), &self.source, &self.destination);
        datagram.set_checksum(checksum);
        bytes
    }

    /// RFC 9260, sections 3.1 and 3.3.2: INIT, with the mark in a parameter that may be skipped.
    fn sctp(&self, source_port: u16, mark: &[u8]) -> Vec<u8> {
        let mut bytes = [source_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        bytes.extend([0; 8]); // verification tag, checksum
        let length = (20 + 4 + mark.len()) as u16;
        bytes.extend([1, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]); // tag, window, streams, first number
        bytes.extend([0x80, 0xff]);
        bytes.extend((4 + mark.len() as u16).to_be_bytes());
        bytes.extend(mark);
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

impl fmt::Display for FirstPacket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = format!("{:?}", self.protocol).to_lowercase();
        write!(formatter, "{protocol} {} > {}:{}", self.source, self.destination, self.port)
    }
}

fn echo(identifier: u16, mark: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + mark.len()];
    let mut message = MutableEchoRequestPacket::new(&mut bytes).expect("room for a header");
    message.set_icmp_type(IcmpTypes::EchoRequest);
    message.set_identifier(identifier);
    message.set_payload(mark);
    let checksum = pnet::util::checksum(message.packet(), 1);
    message.set_checksum(checksum);
    bytes
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
        sum
    })
}

/// What has become of a packet, as a wire shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It goes on, with these addresses and ports; ports are 0 where there are none.
    Sent { source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16) },
    /// Its sender is told so, with an ICMP error of this type and code.
    Refused { kind: u8, code: u8 },
}

/// The tag of one of our packets, or of the one that an ICMP error quotes, and what is seen of it.
pub(crate) fn recognize(bytes: &[u8]) -> Option<(u16, Sight)> {
    let packet = Ipv4Packet::new(bytes)?;
    let bytes = bytes.get(..packet.get_total_length().into())?;
    let tag = u16::from_be_bytes(bytes.last_chunk::<2>().copied()?);
    let mark = bytes.get(bytes.len().checked_sub(MARK_LENGTH)?..)?;
    if !mark.starts_with(&MAGIC) {
        return None;
    }
    let transport = bytes.get(usize::from(packet.get_header_length()) * 4..)?;
    let number = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
    let protocol = packet.get_next_level_protocol();
    let ports = match protocol {
        IpNextHeaderProtocols::Icmp if transport[0] == 0 => return None, // a stack's answer to an echo
        IpNextHeaderProtocols::Icmp if transport[0] == 8 => (number(4)?, 0),
        IpNextHeaderProtocols::Icmp => {
            return Some((tag, Sight::Refused { kind: transport[0], code: transport[1] }));
        }
        IpNextHeaderProtocols::Gre => (0, 0),
        _ => (number(0)?, number(2)?),
    };
    let (source, destination) = ((packet.get_source(), ports.0), (packet.get_destination(), ports.1));
    Some((tag, Sight::Sent { source, destination }))
}
