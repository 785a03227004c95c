//! VXLAN (RFC 7348, section 5).

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 8;
/// Ethernet, IPv4, UDP and VXLAN headers in front of an inner frame, in bytes.
pub const OVERHEAD: usize = 14 + 20 + 8 + HEADER_LENGTH;
/// Flag I: the VNI counts.
pub const FLAG_VNI: u8 = 0x08;

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VxlanHeader {
    /// Flag I, and reserved bits that are zero when sent and ignored when received.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 3],
    /// The network identifier in the high 24 bits; the low 8 are reserved.
    pub vni_and_reserved: U32,
}

impl VxlanHeader {
    /// A header for this network.
    pub fn new(vni: u32) -> Self {
        Self { flags: FLAG_VNI, reserved: [0; 3], vni_and_reserved: U32::new(vni << 8) }
    }

    /// The network identifier.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        self.vni_and_reserved.get() >> 8
    }
}
