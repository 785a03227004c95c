//! IPv4 (RFC 791; ECN and DSCP: RFC 2474, RFC 3168).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header without options, in bytes.
pub const HEADER_LENGTH: usize = 20;
/// ICMP (RFC 792).
pub const PROTOCOL_ICMP: u8 = 1;
/// TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;
/// GRE (RFC 2784).
pub const PROTOCOL_GRE: u8 = 47;
/// SCTP (RFC 9260).
pub const PROTOCOL_SCTP: u8 = 132;
/// Don't fragment.
pub const FLAG_DONT_FRAGMENT: u16 = 0x4000;
/// More fragments follow.
pub const FLAG_MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset's bits.
pub const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of the header. Addresses are byte arrays; as numbers they are in host order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4) in the high half, header length in 32-bit words in the low.
    pub version_and_length: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Header and payload, in bytes.
    pub total_length: U16,
    /// Datagram's number, for its fragments.
    pub identification: U16,
    /// Flags and fragment offset.
    pub fragment: U16,
    /// Hops left.
    pub time_to_live: u8,
    /// What follows.
    pub protocol: u8,
    /// Over the header with its options.
    pub checksum: U16,
    /// From whom.
    pub source: [u8; 4],
    /// To whom.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// The version: 4, if this is IPv4.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_and_length >> 4
    }

    /// Header length with options, in bytes: 20 to 60 when valid.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_and_length & 0x0f) * 4
    }

    /// The source as a number in host order.
    #[inline(always)]
    pub fn source_address(&self) -> u32 {
        u32::from_be_bytes(self.source)
    }

    /// The destination as a number in host order.
    #[inline(always)]
    pub fn destination_address(&self) -> u32 {
        u32::from_be_bytes(self.destination)
    }

    /// Whether this is one fragment of several: not the last, or not the first.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & (FLAG_MORE_FRAGMENTS | FRAGMENT_OFFSET_MASK) != 0
    }
}
