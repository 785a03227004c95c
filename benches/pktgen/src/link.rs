//! What is around our packets on one port: MAC addresses, and a VXLAN tunnel or none.

use engine::wire::ethernet::MacAddress;
use engine::wire::vxlan::OVERHEAD;

use crate::address::AddressRange;

/// One port's surroundings, as the generator on this side of the cable sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Ours.
    pub mac: MacAddress,
    /// The gateway's.
    pub gateway_mac: MacAddress,
    /// The tunnel that all traffic of this port goes through.
    pub tunnel: Option<Tunnel>,
    /// Addresses that are ours: asked for by ARP, they are said to be at our MAC.
    pub addresses: Option<AddressRange>,
}

/// A VXLAN tunnel (RFC 7348) between us and the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Our end.
    pub local: u32,
    /// The gateway's end.
    pub remote: u32,
    /// The UDP port that the gateway listens at.
    pub udp_port: u16,
    /// The network.
    pub vni: u32,
    /// Our tunnel device's address, in inner frames.
    pub mac: MacAddress,
    /// That of the gateway's.
    pub gateway_mac: MacAddress,
    /// Whether the outer UDP checksum is sent. What comes back is verified whenever it is not zero.
    pub checksum: bool,
}

impl Link {
    /// Where in a frame of this port the inner frame begins.
    #[inline(always)]
    pub fn inner_at(&self) -> usize {
        if self.tunnel.is_some() { OVERHEAD } else { 0 }
    }

    /// The same cable from its other end.
    pub fn reversed(&self) -> Self {
        Self {
            mac: self.gateway_mac,
            gateway_mac: self.mac,
            addresses: None,
            tunnel: self.tunnel.map(|tunnel| Tunnel {
                local: tunnel.remote,
                remote: tunnel.local,
                mac: tunnel.gateway_mac,
                gateway_mac: tunnel.mac,
                ..tunnel
            }),
        }
    }
}
