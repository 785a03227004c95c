//! Parse and validate: every check of a packet's bytes, once, before any table is read.
//!
//! A packet that passes has all its headers inside its bytes, so later stages need not ask again. One VXLAN tunnel is
//! looked into: the key is the inner packet's. RFC 791, 768, 792, 9293, 7348; the order of checks is the kernel's
//! (net/ipv4/ip_input.c, ip_rcv_core).

use engine::batch::{Batch, Disposition};
use engine::packet::Packet;
use engine::wire::arp::ArpPacket;
use engine::wire::checksum;
use engine::wire::ethernet::{self, EthernetHeader, TYPE_ARP, TYPE_IPV4, TYPE_SERVICE_VLAN, TYPE_VLAN};
use engine::wire::icmp::{self, IcmpHeader, TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST};
use engine::wire::ipv4::{self, Ipv4Header, PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use engine::wire::tcp::{self, TcpHeader};
use engine::wire::udp::{self, UdpHeader};
use engine::wire::vxlan::{self, FLAG_VNI, VxlanHeader};
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::flow::{Flows, flow_key, has_ports};
use crate::meta::{BRIDGED, GROUP, Kind, Meta, NO_ENTRY, TUNNELLED};
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, HOST_PORT};

/// IP options that let the sender choose the path: loose and strict source route (RFC 791, section 3.1). Dropped, as
/// RFC 7126, sections 4.3 and 4.4 advise.
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// Packets between the one that is parsed and the one whose bytes are asked for: a device or another worker has written them.
const AHEAD: usize = 4;

/// Parses every pending packet of the batch, and asks the cache for its flow's bucket.
pub fn run(batch: &mut Batch<Meta>, tables: &Tables, flows: &Flows) {
    for index in 0..batch.len() {
        if index + AHEAD < batch.len()
            && let Some(packet) = batch.packet(index + AHEAD)
        {
            packet.prefetch_headers();
        }
        let Some((packet, meta, disposition)) = batch.parts_mut(index) else { continue };
        *meta = Meta { entry: NO_ENTRY, ..Meta::default() };
        if let Err(reason) = frame(packet, tables, meta) {
            *disposition = Disposition::Drop(reason.code());
            continue;
        }
        if matches!(meta.kind, Kind::Flow | Kind::IcmpError) {
            meta.hash = flows.hash(&meta.key);
            flows.prefetch_bucket(meta.hash);
        }
    }
}

#[inline(always)]
fn frame(packet: &Packet, tables: &Tables, meta: &mut Meta) -> Result<(), DropReason> {
    if packet.segment_count() != 1 {
        return Err(DropReason::Segmented);
    }
    let data = packet.data();
    let (header, _) = EthernetHeader::ref_from_prefix(data).map_err(|_| DropReason::EthernetTruncated)?;
    if !header.source.is_unicast() {
        return Err(DropReason::SourceMacInvalid);
    }
    let group = header.destination.is_multicast();
    if packet.port() == HOST_PORT {
        meta.interface = HOST_INTERFACE;
    } else {
        let record = tables.port(packet.port()).ok_or(DropReason::ForeignMac)?;
        meta.interface = record.interface;
        if header.destination != record.mac {
            if record.bridged {
                meta.flags |= BRIDGED;
            } else if !group {
                return Err(DropReason::ForeignMac);
            } else if header.ether_type.get() == TYPE_IPV4 {
                // An IP packet to everybody is not forwarded, whatever its address (RFC 1812, section 5.3.4).
                return Err(DropReason::Multicast);
            }
        }
    }
    if group {
        meta.flags |= GROUP;
    }
    match header.ether_type.get() {
        // Not forwarded, whatever its IP address says (RFC 1812, section 5.3.4; ip_forward's PACKET_HOST), nor answered.
        TYPE_IPV4 if group && !meta.has(BRIDGED) => Err(DropReason::Multicast),
        TYPE_IPV4 => ipv4_packet(data, ethernet::HEADER_LENGTH, tables, meta),
        TYPE_ARP => {
            let arp = data.get(ethernet::HEADER_LENGTH..).unwrap_or_default();
            let (arp, _) = ArpPacket::ref_from_prefix(arp).map_err(|_| DropReason::ArpMalformed)?;
            meta.kind = Kind::Arp;
            if arp.is_ethernet_ipv4() { Ok(()) } else { Err(DropReason::ArpMalformed) }
        }
        TYPE_VLAN | TYPE_SERVICE_VLAN => Err(DropReason::VlanTag),
        _ if meta.has(BRIDGED) => {
            meta.kind = Kind::Frame;
            Ok(())
        }
        _ => Err(DropReason::EtherTypeUnsupported),
    }
}

/// An IPv4 packet at `offset`; a tunnel's if it is one.
#[inline(always)]
fn ipv4_packet(data: &[u8], offset: usize, tables: &Tables, meta: &mut Meta) -> Result<(), DropReason> {
    let bytes = data.get(offset..).unwrap_or_default();
    let (header, payload) = ipv4_header(bytes)?;
    if let Some(overlay) = &tables.overlay
        && header.protocol == PROTOCOL_UDP
        && header.destination_address() == overlay.local
        && meta.interface == overlay.underlay
    {
        if header.is_fragment() {
            return Err(DropReason::OuterFragment);
        }
        let (udp, _) = UdpHeader::ref_from_prefix(payload).map_err(|_| DropReason::TransportTruncated)?;
        if udp.destination_port.get() == overlay.udp_port {
            let transport = offset + header.header_length();
            return tunnel(data, transport, header, udp, payload, meta);
        }
    }
    inner(header, payload, offset, meta)
}

/// The header, and the payload that its length fields allow: Ethernet padding is cut off here.
#[inline(always)]
fn ipv4_header(bytes: &[u8]) -> Result<(&Ipv4Header, &[u8]), DropReason> {
    let (fixed, _) = bytes.split_first_chunk().ok_or(DropReason::Ipv4Truncated)?;
    let header: &Ipv4Header = zerocopy::transmute_ref!(fixed);
    // Nearly all headers have no options: version and length are one byte's value, and the header's end is where it is.
    if header.version_and_length == 0x45
        && let Some(payload) = bytes.get(ipv4::HEADER_LENGTH..usize::from(header.total_length.get()))
        && checksum::is_valid_20(fixed)
    {
        return Ok((header, payload));
    }
    unusual_ipv4_header(bytes)
}

/// A header with options, or what is wrong with it.
#[cold]
fn unusual_ipv4_header(bytes: &[u8]) -> Result<(&Ipv4Header, &[u8]), DropReason> {
    let (header, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| DropReason::Ipv4Truncated)?;
    let (header_length, total_length) = (header.header_length(), usize::from(header.total_length.get()));
    if header.version() != 4 || header_length < ipv4::HEADER_LENGTH || total_length < header_length {
        return Err(DropReason::Ipv4Malformed);
    }
    let packet = bytes.get(..total_length).ok_or(DropReason::Ipv4Truncated)?;
    let (header_bytes, payload) = packet.split_at_checked(header_length).ok_or(DropReason::Ipv4Truncated)?;
    if !checksum::is_valid(header_bytes) {
        return Err(DropReason::Ipv4Checksum);
    }
    if header_length > ipv4::HEADER_LENGTH && has_source_route(&header_bytes[ipv4::HEADER_LENGTH..]) {
        return Err(DropReason::Ipv4SourceRoute);
    }
    Ok((header, payload))
}

/// Walks the options (RFC 791, section 3.1): 0 ends the list, 1 is one byte, all others carry their length.
fn has_source_route(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match *kind {
            0 => return false,
            1 => options = rest,
            OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE => return true,
            // A length below 2 or beyond the header cannot be followed; nothing behind it is read by anyone either.
            _ => match rest.first().and_then(|length| options.get(usize::from(*length).max(2)..)) {
                Some(next) => options = next,
                None => return false,
            },
        }
    }
    false
}

/// A VXLAN datagram for this gateway: checks the outer headers and parses the inner frame.
#[inline(always)]
fn tunnel(
    data: &[u8],
    transport: usize,
    outer: &Ipv4Header,
    udp: &UdpHeader,
    payload: &[u8],
    meta: &mut Meta,
) -> Result<(), DropReason> {
    let length = usize::from(udp.length.get());
    let datagram = payload.get(..length).ok_or(DropReason::TransportMalformed)?;
    if length < udp::HEADER_LENGTH + vxlan::HEADER_LENGTH {
        return Err(DropReason::VxlanMalformed);
    }
    if udp.checksum.get() != 0 {
        // Zero means none (RFC 768), and such a datagram must be accepted; one that is given may be verified, and is
        // (RFC 7348, section 5; the kernel's vxlan sends it by default).
        let pseudo = checksum::pseudo_header(
            outer.source_address(),
            outer.destination_address(),
            PROTOCOL_UDP,
            udp.length.get(),
        );
        if checksum::fold(checksum::sum(datagram, pseudo)) != 0xffff {
            return Err(DropReason::OuterUdpChecksum);
        }
    }
    let vxlan = datagram.get(udp::HEADER_LENGTH..).unwrap_or_default();
    let (vxlan, inner_frame) = VxlanHeader::ref_from_prefix(vxlan).map_err(|_| DropReason::VxlanMalformed)?;
    if vxlan.flags & FLAG_VNI == 0 {
        return Err(DropReason::VxlanMalformed);
    }
    let (ethernet, bytes) =
        EthernetHeader::ref_from_prefix(inner_frame).map_err(|_| DropReason::EthernetTruncated)?;
    meta.flags = TUNNELLED | if ethernet.destination.is_multicast() { GROUP } else { 0 };
    meta.vni = vxlan.vni();
    meta.remote = outer.source_address();
    meta.outer_ecn = outer.traffic_class & 0x03;
    let frame_offset = transport + udp::HEADER_LENGTH + vxlan::HEADER_LENGTH;
    meta.frame_offset = frame_offset as u16;
    debug_assert!(frame_offset < data.len());
    match ethernet.ether_type.get() {
        TYPE_IPV4 => {
            let (header, payload) = ipv4_header(bytes)?;
            inner(header, payload, frame_offset + ethernet::HEADER_LENGTH, meta)
        }
        TYPE_ARP => Err(DropReason::TunnelArp),
        TYPE_VLAN | TYPE_SERVICE_VLAN => Err(DropReason::VlanTag),
        _ => Err(DropReason::EtherTypeUnsupported),
    }
}

/// The packet that is routed or bridged: its key.
#[inline(always)]
fn inner(header: &Ipv4Header, payload: &[u8], offset: usize, meta: &mut Meta) -> Result<(), DropReason> {
    meta.ip_offset = offset as u16;
    meta.transport_offset = (offset + header.header_length()) as u16;
    meta.ip_length = header.total_length.get();
    meta.time_to_live = header.time_to_live;
    meta.traffic_class = header.traffic_class;
    meta.kind = Kind::Flow;
    if header.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let (source, destination) = (header.source_address(), header.destination_address());
    let (source_port, destination_port) = match header.protocol {
        PROTOCOL_TCP => tcp_ports(payload, meta)?,
        PROTOCOL_UDP => udp_ports(payload)?,
        PROTOCOL_ICMP => return icmp_message(source, destination, payload, meta),
        PROTOCOL_SCTP => sctp_ports(payload)?,
        _ => (0, 0),
    };
    meta.key = flow_key(header.protocol, source, source_port, destination, destination_port);
    Ok(())
}

#[inline(always)]
fn tcp_ports(payload: &[u8], meta: &mut Meta) -> Result<(u16, u16), DropReason> {
    let (header, _) = TcpHeader::ref_from_prefix(payload).map_err(|_| DropReason::TransportTruncated)?;
    let header_length = header.header_length();
    if header_length < tcp::HEADER_LENGTH || header_length > payload.len() {
        return Err(DropReason::TransportMalformed);
    }
    meta.tcp_flags = header.flags;
    meta.payload_length = (payload.len() - header_length) as u16;
    Ok((header.source_port.get(), header.destination_port.get()))
}

#[inline(always)]
fn udp_ports(payload: &[u8]) -> Result<(u16, u16), DropReason> {
    let (header, _) = UdpHeader::ref_from_prefix(payload).map_err(|_| DropReason::TransportTruncated)?;
    let length = usize::from(header.length.get());
    if length < udp::HEADER_LENGTH || length > payload.len() {
        return Err(DropReason::TransportMalformed);
    }
    Ok((header.source_port.get(), header.destination_port.get()))
}

/// SCTP's common header starts with the ports as TCP's does (RFC 9260, section 3.1).
fn sctp_ports(payload: &[u8]) -> Result<(u16, u16), DropReason> {
    match payload {
        [a, b, c, d, _, _, _, _, _, _, _, _, ..] => {
            Ok((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
        }
        _ => Err(DropReason::TransportTruncated),
    }
}

/// ICMP: an echo's identifier stands where its sender's port would; an error gets the key of the flow it is about.
fn icmp_message(source: u32, destination: u32, payload: &[u8], meta: &mut Meta) -> Result<(), DropReason> {
    let (header, quoted) =
        IcmpHeader::ref_from_prefix(payload).map_err(|_| DropReason::TransportTruncated)?;
    meta.key = flow_key(PROTOCOL_ICMP, source, 0, destination, 0);
    match header.message_type {
        TYPE_ECHO_REQUEST => meta.key.source_port = header.identifier.get(),
        TYPE_ECHO_REPLY => {
            meta.key.destination_port = header.identifier.get();
            // An echo reply never starts a flow; the flag byte, which is TCP's elsewhere, says which it is.
            meta.tcp_flags = ECHO_REPLY;
        }
        kind if icmp::is_error(kind) => {
            meta.kind = Kind::IcmpError;
            meta.key = quoted_key(quoted).unwrap_or(meta.key);
        }
        _ => meta.kind = Kind::IcmpOther,
    }
    Ok(())
}

/// In [`Meta::tcp_flags`] of ICMP: an echo reply.
pub const ECHO_REPLY: u8 = 1;

/// The key of packets from where the quoted one went: what it quotes, reversed. At least 8 bytes behind the quoted IP
/// header are there (RFC 792); less names no flow.
fn quoted_key(quoted: &[u8]) -> Option<engine::table::flow::FlowKey> {
    let (header, _) = Ipv4Header::ref_from_prefix(quoted).ok()?;
    let transport = quoted.get(header.header_length().max(ipv4::HEADER_LENGTH)..)?;
    let (source, destination) = (header.source_address(), header.destination_address());
    let word = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
    let (source_port, destination_port) = match header.protocol {
        protocol if has_ports(protocol) => (word(0)?, word(2)?),
        PROTOCOL_ICMP => match *transport.first()? {
            TYPE_ECHO_REQUEST => (word(4)?, 0),
            TYPE_ECHO_REPLY => (0, word(4)?),
            _ => return None,
        },
        _ => (0, 0),
    };
    Some(flow_key(header.protocol, source, source_port, destination, destination_port).reversed())
}
