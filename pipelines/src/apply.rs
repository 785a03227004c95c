//! Apply: the only code that writes a forwarded packet's bytes, for first and for later packets alike.
//!
//! What to write comes from a flow entry ([`FlowValue`]) and an adjacency; nothing is decided here. What depends on the
//! single packet and cannot be stored stays here: hop limit, lengths, ECN, a UDP checksum of zero, the outer
//! identification and checksum.

use engine::packet::Packet;
use engine::wire::checksum::{self, delta_u16, fold};
use engine::wire::ipv4::{PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use engine::wire::{sctp, vxlan};

use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ORIGINAL, FLAG_TRANSLATED, FlowValue};
use crate::meta::Meta;
use crate::table::neighbour::{Adjacency, KIND_VXLAN};

/// Offsets in an IPv4 header (RFC 791, section 3.1).
const TRAFFIC_CLASS: usize = 1;
const TIME_TO_LIVE: usize = 8;
const HEADER_CHECKSUM: usize = 10;
const SOURCE: usize = 12;
/// Offsets of the checksum in transport headers.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const ICMP_IDENTIFIER: usize = 4;

/// Source ports of tunnel packets: the dynamic range (RFC 7348, section 5).
const ENTROPY_BASE: u16 = 49_152;

#[inline(always)]
fn read_u16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

#[inline(always)]
fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Rewrites addresses, ports, hop limit, ECN and checksums in place. `hop` is 1 for a routed packet and 0 for a bridged
/// one; the caller has seen that the hop limit allows it.
#[inline(always)]
pub fn rewrite(packet: &mut Packet, meta: &Meta, value: &FlowValue, hop: u8) {
    let transport_offset = usize::from(meta.transport_offset);
    let ip_offset = usize::from(meta.ip_offset);
    let end = ip_offset + usize::from(meta.ip_length);
    let Some(bytes) = packet.data_mut().get_mut(ip_offset..end) else { return };
    let Some((header, transport)) = bytes.split_at_mut_checked(transport_offset - ip_offset) else { return };
    let Some(fixed) = header.first_chunk_mut::<20>() else { return };

    // One sum of all that changes in the header: addresses, hop limit (high byte of its word), ECN (low byte).
    let hop_limit = meta.time_to_live.wrapping_sub(hop);
    let mut delta =
        u64::from(value.ip_delta) + delta_u16(u16::from(meta.time_to_live) << 8, u16::from(hop_limit) << 8);
    if fixed[TRAFFIC_CLASS] != meta.traffic_class {
        delta += delta_u16(u16::from(fixed[TRAFFIC_CLASS]), u16::from(meta.traffic_class));
        fixed[TRAFFIC_CLASS] = meta.traffic_class;
    }
    fixed[TIME_TO_LIVE] = hop_limit;
    let sum = checksum::update(
        u16::from_be_bytes([fixed[HEADER_CHECKSUM], fixed[HEADER_CHECKSUM + 1]]),
        fold(delta),
    );
    fixed[HEADER_CHECKSUM..HEADER_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    if value.flags & FLAG_TRANSLATED != 0 {
        fixed[SOURCE..SOURCE + 4].copy_from_slice(&value.new_source.to_be_bytes());
        fixed[SOURCE + 4..SOURCE + 8].copy_from_slice(&value.new_destination.to_be_bytes());
        rewrite_transport(transport, meta.key.protocol, value);
    }
}

#[inline(always)]
fn rewrite_transport(transport: &mut [u8], protocol: u8, value: &FlowValue) {
    let checksum_offset = match protocol {
        PROTOCOL_TCP => TCP_CHECKSUM,
        PROTOCOL_UDP => UDP_CHECKSUM,
        PROTOCOL_ICMP => ICMP_CHECKSUM,
        PROTOCOL_SCTP => return rewrite_sctp(transport, value),
        _ => return,
    };
    if protocol == PROTOCOL_ICMP {
        let identifier =
            if value.flags & FLAG_ORIGINAL != 0 { value.new_source_port } else { value.new_destination_port };
        write_u16(transport, ICMP_IDENTIFIER, identifier);
    } else {
        write_u16(transport, 0, value.new_source_port);
        write_u16(transport, 2, value.new_destination_port);
    }
    let old = read_u16(transport, checksum_offset);
    if protocol == PROTOCOL_UDP && old == 0 {
        // The sender computed none, and none is what it stays (RFC 768).
        return;
    }
    let new = checksum::update(old, value.transport_delta);
    // A computed zero is sent as all ones, since zero means none (RFC 768).
    write_u16(transport, checksum_offset, if protocol == PROTOCOL_UDP && new == 0 { 0xffff } else { new });
}

fn rewrite_sctp(transport: &mut [u8], value: &FlowValue) {
    let same = read_u16(transport, 0) == value.new_source_port
        && read_u16(transport, 2) == value.new_destination_port;
    if same {
        return;
    }
    // A wrong checksum stays wrong: it is the receiver's to see.
    let was_valid = sctp::is_valid(transport);
    write_u16(transport, 0, value.new_source_port);
    write_u16(transport, 2, value.new_destination_port);
    if was_valid {
        sctp::fill_checksum(transport);
    }
}

/// Cuts a packet down to its IP packet: outer headers and Ethernet padding go.
#[inline(always)]
pub fn strip(packet: &mut Packet, meta: &Meta) -> bool {
    packet.trim_front(usize::from(meta.ip_offset)) && packet.truncate(usize::from(meta.ip_length))
}

/// Puts the adjacency's headers in front of an IP packet. `entropy` is the flow's hash, `identification` a running
/// number for outer headers.
#[inline(always)]
pub fn encapsulate(
    packet: &mut Packet,
    adjacency: &Adjacency,
    entropy: u64,
    identification: u16,
) -> Result<(), DropReason> {
    let header_length = usize::from(adjacency.header_length);
    if !packet.extend_front(header_length) {
        return Err(DropReason::HeadroomExhausted);
    }
    let bytes = packet.data_mut();
    if adjacency.kind != KIND_VXLAN {
        if let Some(header) = bytes.first_chunk_mut::<14>()
            && let Some(template) = adjacency.template.first_chunk::<14>()
        {
            *header = *template;
        }
        return Ok(());
    }
    let frame_length = bytes.len();
    let Some((outer, inner)) = bytes.split_first_chunk_mut::<64>() else {
        return Err(DropReason::HeadroomExhausted);
    };
    *outer = adjacency.template;
    // Lengths from the outer IP header on, and from the outer UDP header on.
    let (ip_length, udp_length) = ((frame_length - 14) as u16, (frame_length - 34) as u16);
    // Normal mode: the inner ECN field is copied out (RFC 6040, section 4.1); DSCP stays the tunnel's own.
    let ecn = inner.get(TRAFFIC_CLASS).map_or(0, |class| class & 0b11);
    outer[15] = ecn;
    outer[16..18].copy_from_slice(&ip_length.to_be_bytes());
    outer[18..20].copy_from_slice(&identification.to_be_bytes());
    let sum =
        u64::from(adjacency.outer_sum) + u64::from(ip_length) + u64::from(identification) + u64::from(ecn);
    outer[24..26].copy_from_slice(&(!fold(sum)).to_be_bytes());
    let port = ENTROPY_BASE | (entropy >> 40) as u16 & 0x3fff;
    outer[34..36].copy_from_slice(&port.to_be_bytes());
    outer[38..40].copy_from_slice(&udp_length.to_be_bytes());
    if adjacency.udp_checksum != 0 {
        fill_outer_udp_checksum(bytes, udp_length);
    }
    Ok(())
}

/// Sums the whole datagram (RFC 768): the price of outer checksums.
fn fill_outer_udp_checksum(bytes: &mut [u8], udp_length: u16) {
    let address = |at: usize| u32::from(read_u16(bytes, at)) << 16 | u32::from(read_u16(bytes, at + 2));
    let pseudo = checksum::pseudo_header(address(26), address(30), PROTOCOL_UDP, udp_length);
    let value = match bytes.get(34..) {
        Some(datagram) => !fold(checksum::sum(datagram, pseudo)),
        None => return,
    };
    write_u16(bytes, 40, if value == 0 { 0xffff } else { value });
}

const _: () = assert!(vxlan::OVERHEAD + 14 == 64);
