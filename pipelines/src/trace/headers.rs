//! The bytes of a packet that was asked for in words: headers alone, all that the data path reads.

use core::net::Ipv6Addr;

use engine::wire::checksum;
use engine::wire::ethernet::{EthernetHeader, MacAddress, TYPE_IPV4, TYPE_IPV6};
use engine::wire::icmp::{IcmpHeader, TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST};
use engine::wire::ipv4::{FLAG_DONT_FRAGMENT, HEADER_LENGTH, Ipv4Header, PROTOCOL_ICMP, PROTOCOL_UDP};
use engine::wire::tcp::TcpHeader;
use engine::wire::udp::UdpHeader;
use engine::wire::vxlan::VxlanHeader;
use zerocopy::network_endian::U16;
use zerocopy::{FromZeros, IntoBytes};

use super::packet::{Addresses, PROTOCOL_ICMPV6, PacketSpec, Transport};
use crate::table::OverlayTable;

/// A station that is not the gateway.
const STATION: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 1]);
/// Hop limit of tunnel packets that arrive.
const OUTER_TIME_TO_LIVE: u8 = 64;
/// Headers between a tunnel's outer IP header and its inner frame: UDP and VXLAN.
pub(super) const TUNNEL_HEADERS: usize = size_of::<UdpHeader>() + size_of::<VxlanHeader>();
/// An ICMPv6 echo request (RFC 4443, section 4.1).
const ICMPV6_ECHO_REQUEST: u8 = 128;

/// The frame without its MACs: from the EtherType on.
pub(super) fn tail(packet: &PacketSpec) -> Vec<u8> {
    match packet.addresses {
        Addresses::V4(source, destination) => {
            let header = Ipv4Header {
                protocol: packet.transport.number(),
                fragment: U16::new(if packet.dont_fragment { FLAG_DONT_FRAGMENT } else { 0 }),
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::new_zeroed()
            };
            let ip = finish_ip(header, packet.time_to_live, &transport(packet.transport, TYPE_ECHO_REQUEST));
            with_ether_type(TYPE_IPV4, &ip)
        }
        Addresses::V6(source, destination) => {
            with_ether_type(TYPE_IPV6, &ipv6_packet(packet, source, destination))
        }
    }
}

/// A bare IP packet behind its EtherType.
pub(super) fn with_ether_type(ether_type: u16, ip: &[u8]) -> Vec<u8> {
    [&ether_type.to_be_bytes(), ip].concat()
}

/// A frame from a station that is not the gateway.
pub(super) fn frame(destination: MacAddress, tail: &[u8]) -> Vec<u8> {
    let header = EthernetHeader { destination, source: STATION, ether_type: U16::ZERO };
    let (macs, _) = header.as_bytes().split_at(12);
    [macs, tail].concat()
}

/// A frame's tail in a tunnel packet from `remote`, whose MAC is `outer`.
pub(super) fn tunnelled(
    outer: MacAddress,
    overlay: &OverlayTable,
    vni: u32,
    remote: u32,
    tail: &[u8],
) -> Vec<u8> {
    let inner = frame(overlay.mac, tail);
    let mut udp = UdpHeader::new_zeroed();
    udp.destination_port = U16::new(overlay.udp_port);
    let length = size_of::<UdpHeader>() + size_of::<VxlanHeader>() + inner.len();
    udp.length = U16::new(length as u16);
    let payload = [udp.as_bytes(), VxlanHeader::new(vni).as_bytes(), &inner].concat();
    let header = Ipv4Header {
        protocol: PROTOCOL_UDP,
        source: remote.to_be_bytes(),
        destination: overlay.local.to_be_bytes(),
        ..Ipv4Header::new_zeroed()
    };
    frame(outer, &with_ether_type(TYPE_IPV4, &finish_ip(header, OUTER_TIME_TO_LIVE, &payload)))
}

fn finish_ip(header: Ipv4Header, time_to_live: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header {
        version_and_length: 0x45,
        total_length: U16::new((HEADER_LENGTH + payload.len()) as u16),
        time_to_live,
        ..header
    };
    header.checksum = U16::new(checksum::checksum(header.as_bytes()));
    [header.as_bytes(), payload].concat()
}

/// RFC 8200, section 3: version, traffic class and flow label; payload length; next header; hop limit; addresses.
fn ipv6_packet(packet: &PacketSpec, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let payload = transport(packet.transport, ICMPV6_ECHO_REQUEST);
    let next_header = match packet.transport.number() {
        PROTOCOL_ICMP => PROTOCOL_ICMPV6,
        other => other,
    };
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let fixed = [0x60, 0, 0, 0, high, low, next_header, packet.time_to_live];
    [&fixed[..], &source.octets(), &destination.octets(), &payload].concat()
}

/// The transport header. What the data path does not check (its sums) is left zero.
fn transport(transport: Transport, echo_request: u8) -> Vec<u8> {
    let ports = transport.ports().unwrap_or_default();
    match transport {
        Transport::Tcp(_, _, flags) => {
            let mut header = TcpHeader::new_zeroed();
            (header.source_port, header.destination_port) = (U16::new(ports.0), U16::new(ports.1));
            (header.data_offset, header.flags) = (0x50, flags);
            header.as_bytes().to_vec()
        }
        Transport::Udp(..) => {
            let mut header = UdpHeader::new_zeroed();
            (header.source_port, header.destination_port) = (U16::new(ports.0), U16::new(ports.1));
            header.length = U16::new(size_of::<UdpHeader>() as u16);
            header.as_bytes().to_vec()
        }
        Transport::Echo(identifier) => icmp(echo_request, 0, identifier),
        Transport::EchoReply(identifier) => icmp(TYPE_ECHO_REPLY, 0, identifier),
        Transport::Icmp(kind, code) => icmp(kind, code, 0),
        Transport::Sctp(..) | Transport::Gre | Transport::Other(_) => {
            let mut bytes = vec![0; transport.header_length()];
            if transport.ports().is_some() {
                bytes[..2].copy_from_slice(&ports.0.to_be_bytes());
                bytes[2..4].copy_from_slice(&ports.1.to_be_bytes());
            }
            bytes
        }
    }
}

fn icmp(message_type: u8, code: u8, identifier: u16) -> Vec<u8> {
    let mut header = IcmpHeader::new_zeroed();
    (header.message_type, header.code, header.identifier) = (message_type, code, U16::new(identifier));
    header.as_bytes().to_vec()
}
