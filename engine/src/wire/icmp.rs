//! ICMP for IPv4 (RFC 792; which messages are errors: RFC 1122, section 3.2.2).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 8;
/// Echo reply.
pub const TYPE_ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const TYPE_UNREACHABLE: u8 = 3;
/// Source quench (deprecated by RFC 6633).
pub const TYPE_SOURCE_QUENCH: u8 = 4;
/// Redirect.
pub const TYPE_REDIRECT: u8 = 5;
/// Echo request.
pub const TYPE_ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TYPE_TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const TYPE_PARAMETER_PROBLEM: u8 = 12;
/// Of unreachable: network.
pub const CODE_NETWORK_UNREACHABLE: u8 = 0;
/// Of unreachable: host.
pub const CODE_HOST_UNREACHABLE: u8 = 1;
/// Of unreachable: port.
pub const CODE_PORT_UNREACHABLE: u8 = 3;
/// Of unreachable: fragmentation needed, with the next hop's MTU (RFC 1191).
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
/// Of time exceeded: in transit.
pub const CODE_TTL_EXCEEDED: u8 = 0;

/// The header. The last four bytes depend on the type: identifier and sequence of an echo.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// What kind of message.
    pub message_type: u8,
    /// Which of that kind.
    pub code: u8,
    /// Over header and payload, without a pseudo-header.
    pub checksum: U16,
    /// Identifier of an echo.
    pub identifier: U16,
    /// Sequence number of an echo; next hop's MTU of fragmentation needed.
    pub sequence: U16,
}

/// Whether a message of this type reports an error about a packet that it quotes (RFC 1122, section 3.2.2).
#[inline(always)]
pub fn is_error(message_type: u8) -> bool {
    matches!(
        message_type,
        TYPE_UNREACHABLE | TYPE_SOURCE_QUENCH | TYPE_REDIRECT | TYPE_TIME_EXCEEDED | TYPE_PARAMETER_PROBLEM
    )
}
