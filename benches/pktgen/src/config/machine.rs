//! The sections on what the generator stands on: ports, tunnels, cores, memory.

use core::net::Ipv4Addr;
use core::str::FromStr;

use engine::wire::ethernet::MacAddress;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::address::AddressRange;
use crate::link::{Link, Tunnel};

/// `[[ports]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// A DPDK device, or `loop`.
    pub device: String,
    /// Our MAC address.
    #[serde(deserialize_with = "from_text")]
    pub mac: MacAddress,
    /// The gateway's.
    #[serde(deserialize_with = "from_text")]
    pub gateway_mac: MacAddress,
    /// Addresses for which ARP is answered.
    #[serde(default)]
    pub addresses: Option<AddressRange>,
    /// Largest packet of the device.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// The tunnel.
    #[serde(default)]
    pub vxlan: Option<Vxlan>,
}

/// `[ports.vxlan]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vxlan {
    /// Our end.
    pub local: Ipv4Addr,
    /// The gateway's.
    pub remote: Ipv4Addr,
    /// The port that both listen at.
    #[serde(default = "default_udp_port")]
    pub udp_port: u16,
    /// The network.
    #[serde(default = "default_vni")]
    pub vni: u32,
    /// Our tunnel device's MAC address.
    #[serde(deserialize_with = "from_text")]
    pub mac: MacAddress,
    /// The gateway's.
    #[serde(deserialize_with = "from_text")]
    pub gateway_mac: MacAddress,
    /// Whether outer checksums are sent.
    #[serde(default)]
    pub checksum: bool,
}

/// Which memory DPDK uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Hugepages when enough are free.
    #[default]
    Auto,
    /// Hugepages.
    Huge,
    /// Ordinary pages.
    None,
}

/// `[machine]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// The core that sends and receives.
    pub core: Option<usize>,
    /// Which memory.
    pub memory: Memory,
    /// Packet buffers.
    pub buffers: u32,
    /// Descriptors of each queue.
    pub descriptors: u16,
    /// Pairs of queues of each port, all of them received from.
    pub queues: u16,
    /// Passed to DPDK as they are.
    pub extra_arguments: Vec<String>,
    /// How long is waited for links to come up.
    pub link_wait_ms: u64,
    /// Which port clients are behind.
    pub client_port: Option<u16>,
    /// Which port backends are behind.
    pub backend_port: Option<u16>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            core: None,
            memory: Memory::Auto,
            buffers: 16_384,
            descriptors: 1_024,
            queues: 1,
            extra_arguments: Vec::new(),
            link_wait_ms: 5_000,
            client_port: None,
            backend_port: None,
        }
    }
}

fn default_mtu() -> u16 {
    1_500
}

fn default_udp_port() -> u16 {
    8_472
}

fn default_vni() -> u32 {
    1
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: core::fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

impl Port {
    pub(super) fn link(&self) -> Link {
        let tunnel = self.vxlan.as_ref().map(|vxlan| Tunnel {
            local: vxlan.local.into(),
            remote: vxlan.remote.into(),
            udp_port: vxlan.udp_port,
            vni: vxlan.vni & 0x00ff_ffff,
            mac: vxlan.mac,
            gateway_mac: vxlan.gateway_mac,
            checksum: vxlan.checksum,
        });
        let own = self.vxlan.as_ref().and_then(|vxlan| vxlan.local.to_string().parse().ok());
        Link { mac: self.mac, gateway_mac: self.gateway_mac, tunnel, addresses: self.addresses.or(own) }
    }
}
