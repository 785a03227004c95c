//! TCP (RFC 9293, section 3.1).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header without options, in bytes.
pub const HEADER_LENGTH: usize = 20;
/// No more data from the sender.
pub const FLAG_FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const FLAG_SYN: u8 = 0x02;
/// Reset the connection.
pub const FLAG_RST: u8 = 0x04;
/// Push.
pub const FLAG_PSH: u8 = 0x08;
/// The acknowledgement field counts.
pub const FLAG_ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const FLAG_URG: u8 = 0x20;

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// From which port.
    pub source_port: U16,
    /// To which port.
    pub destination_port: U16,
    /// Number of the first byte.
    pub sequence: U32,
    /// Number of the next byte expected.
    pub acknowledgement: U32,
    /// Header length in 32-bit words, in the high half.
    pub data_offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Bytes the sender takes, before scaling.
    pub window: U16,
    /// Over pseudo-header, header and payload.
    pub checksum: U16,
    /// Offset of urgent data.
    pub urgent: U16,
}

impl TcpHeader {
    /// Header length with options, in bytes: 20 to 60 when valid.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }
}
