//! Answers made here: ICMP errors and echo replies, built in the packet's own buffer.
//!
//! An error quotes the packet as it arrived (nothing has been rewritten when it is decided), up to 576 bytes in all
//! (RFC 1812, section 4.3.2.3), and none is sent about an error, a group's packet or a fragment (RFC 1122, section
//! 3.2.2). What is written starts with the IP header; the caller puts the headers of the way back in front.

use engine::packet::Packet;
use engine::wire::checksum;
use engine::wire::icmp::{
    CODE_FRAGMENTATION_NEEDED, CODE_PORT_UNREACHABLE, CODE_TTL_EXCEEDED, IcmpHeader, TYPE_ECHO_REPLY,
    TYPE_ECHO_REQUEST, TYPE_TIME_EXCEEDED, TYPE_UNREACHABLE,
};
use engine::wire::ipv4::{HEADER_LENGTH, Ipv4Header, PROTOCOL_ICMP};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use crate::apply::strip;
use crate::drop_reason::DropReason;
use crate::meta::{GROUP, Kind, Meta};

/// Hop limit of what is made here: the default of RFC 1122, section 3.2.1.7, as registered with IANA.
const TIME_TO_LIVE: u8 = 64;
/// Bytes of an error message at the most.
const ERROR_LENGTH_MAX: usize = 576;

/// Which error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Nobody serves that port.
    PortUnreachable,
    /// The hop limit was used up here.
    TimeExceeded,
    /// Too large for the next hop, whose MTU this is, and not to be fragmented.
    FragmentationNeeded {
        /// Largest IP packet that would pass, in bytes.
        mtu: u16,
    },
}

/// Makes the packet an ICMP error about itself, from `own_address` to its source. Gives the destination.
pub fn make_error(
    packet: &mut Packet,
    meta: &Meta,
    error: IcmpError,
    own_address: u32,
) -> Result<u32, DropReason> {
    if meta.kind != Kind::Flow || meta.has(GROUP) || own_address == 0 {
        return Err(DropReason::IcmpNotAllowed);
    }
    let (message_type, code, mtu) = match error {
        IcmpError::PortUnreachable => (TYPE_UNREACHABLE, CODE_PORT_UNREACHABLE, 0),
        IcmpError::TimeExceeded => (TYPE_TIME_EXCEEDED, CODE_TTL_EXCEEDED, 0),
        IcmpError::FragmentationNeeded { mtu } => (TYPE_UNREACHABLE, CODE_FRAGMENTATION_NEEDED, mtu),
    };
    let headers = HEADER_LENGTH + size_of::<IcmpHeader>();
    if !strip(packet, meta) {
        return Err(DropReason::Ipv4Truncated);
    }
    let quoted = packet.len().min(ERROR_LENGTH_MAX - headers);
    if !packet.truncate(quoted) || !packet.extend_front(headers) {
        return Err(DropReason::HeadroomExhausted);
    }
    let bytes = packet.data_mut();
    let mut icmp = IcmpHeader {
        message_type,
        code,
        checksum: U16::ZERO,
        identifier: U16::ZERO,
        sequence: U16::new(mtu),
    };
    let quoted_sum = checksum::sum(bytes.get(headers..).unwrap_or_default(), 0);
    icmp.checksum = U16::new(!checksum::fold(checksum::sum(icmp.as_bytes(), quoted_sum)));
    let destination = meta_source(bytes, headers)?;
    let ip = ip_header(bytes.len() as u16, own_address, destination);
    let _ = ip.write_to_prefix(bytes);
    let _ = icmp.write_to_prefix(bytes.get_mut(HEADER_LENGTH..).unwrap_or_default());
    Ok(destination)
}

/// The source of the quoted packet.
fn meta_source(bytes: &[u8], at: usize) -> Result<u32, DropReason> {
    let (header, _) = Ipv4Header::ref_from_prefix(bytes.get(at..).unwrap_or_default())
        .map_err(|_| DropReason::Ipv4Truncated)?;
    Ok(header.source_address())
}

fn ip_header(total_length: u16, source: u32, destination: u32) -> Ipv4Header {
    let mut header = Ipv4Header {
        version_and_length: 0x45,
        traffic_class: 0,
        total_length: U16::new(total_length),
        identification: U16::ZERO,
        // An atomic datagram, so the identification may be any (RFC 6864, section 4.1).
        fragment: U16::new(engine::wire::ipv4::FLAG_DONT_FRAGMENT),
        time_to_live: TIME_TO_LIVE,
        protocol: PROTOCOL_ICMP,
        checksum: U16::ZERO,
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
    };
    header.checksum = U16::new(checksum::checksum(header.as_bytes()));
    header
}

/// Makes an echo request its own reply (RFC 1122, section 3.2.2.6: the data comes back as it is). Gives the destination.
pub fn make_echo_reply(packet: &mut Packet, meta: &Meta) -> Result<u32, DropReason> {
    if !strip(packet, meta) {
        return Err(DropReason::Ipv4Truncated);
    }
    let header_length = usize::from(meta.transport_offset - meta.ip_offset);
    let bytes = packet.data_mut();
    let icmp = bytes.get(header_length..).unwrap_or_default();
    if !checksum::is_valid(icmp) {
        return Err(DropReason::TransportMalformed);
    }
    let (header, transport) = bytes.split_at_mut_checked(header_length).ok_or(DropReason::Ipv4Truncated)?;
    let (ip, _) = Ipv4Header::mut_from_prefix(header).map_err(|_| DropReason::Ipv4Truncated)?;
    core::mem::swap(&mut ip.source, &mut ip.destination);
    ip.time_to_live = TIME_TO_LIVE;
    ip.checksum = U16::ZERO;
    let destination = ip.destination_address();
    let header_sum = checksum::checksum(header);
    if let Ok((ip, _)) = Ipv4Header::mut_from_prefix(header) {
        ip.checksum = U16::new(header_sum);
    }
    let (icmp, _) = IcmpHeader::mut_from_prefix(transport).map_err(|_| DropReason::TransportTruncated)?;
    icmp.message_type = TYPE_ECHO_REPLY;
    let delta = checksum::fold(checksum::delta_u16(
        u16::from(TYPE_ECHO_REQUEST) << 8,
        u16::from(TYPE_ECHO_REPLY) << 8,
    ));
    icmp.checksum = U16::new(checksum::update(icmp.checksum.get(), delta));
    Ok(destination)
}
