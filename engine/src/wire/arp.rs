//! ARP for IPv4 over Ethernet (RFC 826; conflict rules of RFC 5227).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::ethernet::MacAddress;

/// Length of the packet in bytes.
pub const LENGTH: usize = 28;
/// Who has this address?
pub const OPERATION_REQUEST: u16 = 1;
/// This station has it.
pub const OPERATION_REPLY: u16 = 2;

/// An ARP packet with Ethernet and IPv4 address lengths.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// 1: Ethernet.
    pub hardware_type: U16,
    /// 0x0800: IPv4.
    pub protocol_type: U16,
    /// 6.
    pub hardware_length: u8,
    /// 4.
    pub protocol_length: u8,
    /// Request or reply.
    pub operation: U16,
    /// The speaker's hardware address.
    pub sender_mac: MacAddress,
    /// The speaker's IPv4 address.
    pub sender_address: [u8; 4],
    /// Zero in a request.
    pub target_mac: MacAddress,
    /// The address asked for.
    pub target_address: [u8; 4],
}

impl ArpPacket {
    /// A packet with the fixed fields filled in.
    pub fn new(
        operation: u16,
        sender_mac: MacAddress,
        sender_address: u32,
        target_mac: MacAddress,
        target_address: u32,
    ) -> Self {
        Self {
            hardware_type: U16::new(1),
            protocol_type: U16::new(super::ethernet::TYPE_IPV4),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(operation),
            sender_mac,
            sender_address: sender_address.to_be_bytes(),
            target_mac,
            target_address: target_address.to_be_bytes(),
        }
    }

    /// Whether the fixed fields say Ethernet and IPv4.
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware_type.get() == 1
            && self.protocol_type.get() == super::ethernet::TYPE_IPV4
            && self.hardware_length == 6
            && self.protocol_length == 4
    }
}
