//! UDP (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 8;

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// From which port.
    pub source_port: U16,
    /// To which port.
    pub destination_port: U16,
    /// Header and payload, in bytes.
    pub length: U16,
    /// Over pseudo-header, header and payload; 0: none.
    pub checksum: U16,
}
