//! What bytes say they are, read for people: lenient where `parse` is strict, so that what it drops can be named too.

use core::net::{Ipv4Addr, Ipv6Addr};

use engine::wire::icmp::{TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST};
use engine::wire::ipv4::{
    self, FLAG_DONT_FRAGMENT, FRAGMENT_OFFSET_MASK, Ipv4Header, PROTOCOL_GRE, PROTOCOL_ICMP, PROTOCOL_SCTP,
    PROTOCOL_TCP, PROTOCOL_UDP,
};
use zerocopy::FromBytes;

use super::packet::{Addresses, IPV6_HEADER_LENGTH, PROTOCOL_ICMPV6, PacketSpec, Transport};

/// ICMPv6's echo request and reply (RFC 4443, section 4).
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Describes an IP packet, or says why there is no header to describe it by.
pub(super) fn packet(bytes: &[u8]) -> Result<PacketSpec, String> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        Some(version) => Err(format!("its version is {version}, not 4 or 6")),
        None => Err("the frame ends before it".to_owned()),
    }
}

fn ipv4(bytes: &[u8]) -> Result<PacketSpec, String> {
    let (header, _) = Ipv4Header::ref_from_prefix(bytes)
        .map_err(|_| format!("IPv4's has {} bytes, and {} are there", ipv4::HEADER_LENGTH, bytes.len()))?;
    let length = header.total_length.get();
    let packet = bytes.get(..usize::from(length)).unwrap_or(bytes);
    let payload = packet.get(header.header_length()..).unwrap_or_default();
    // Only the first fragment has the transport's header.
    let is_later = header.fragment.get() & FRAGMENT_OFFSET_MASK != 0;
    let payload = if is_later { &[][..] } else { payload };
    let (source, destination) = (header.source_address(), header.destination_address());
    Ok(PacketSpec {
        addresses: Addresses::V4(Ipv4Addr::from(source), Ipv4Addr::from(destination)),
        transport: transport(header.protocol, payload, (TYPE_ECHO_REQUEST, TYPE_ECHO_REPLY)),
        time_to_live: header.time_to_live,
        length,
        dont_fragment: header.fragment.get() & FLAG_DONT_FRAGMENT != 0,
    })
}

fn ipv6(bytes: &[u8]) -> Result<PacketSpec, String> {
    let Some((header, payload)) = bytes.split_first_chunk::<IPV6_HEADER_LENGTH>() else {
        return Err(format!("IPv6's has {IPV6_HEADER_LENGTH} bytes, and {} are there", bytes.len()));
    };
    let address = |at: usize| Ipv6Addr::from(core::array::from_fn::<u8, 16, _>(|byte| header[at + byte]));
    let length = u16::from_be_bytes([header[4], header[5]]);
    Ok(PacketSpec {
        addresses: Addresses::V6(address(8), address(24)),
        transport: transport(header[6], payload, (ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY)),
        time_to_live: header[7],
        length: length.saturating_add(IPV6_HEADER_LENGTH as u16),
        dont_fragment: false,
    })
}

/// The transport header's fields; a header that is not there whole has none. `echo` are the types of requests and replies.
fn transport(protocol: u8, payload: &[u8], echo: (u8, u8)) -> Transport {
    let byte = |at: usize| payload.get(at).copied().unwrap_or_default();
    let word = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    let known = match protocol {
        PROTOCOL_TCP => Transport::Tcp(word(0), word(2), byte(13)),
        PROTOCOL_UDP => Transport::Udp(word(0), word(2)),
        PROTOCOL_SCTP => Transport::Sctp(word(0), word(2)),
        PROTOCOL_GRE => Transport::Gre,
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => match byte(0) {
            kind if kind == echo.0 => Transport::Echo(word(4)),
            kind if kind == echo.1 => Transport::EchoReply(word(4)),
            kind => Transport::Icmp(kind, byte(1)),
        },
        other => Transport::Other(other),
    };
    if payload.len() < known.header_length() { Transport::Other(protocol) } else { known }
}
