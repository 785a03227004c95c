//! Interfaces: where packets come in and leave, as routing sees them.

use engine::batch::PortId;
use engine::wire::ethernet::MacAddress;

/// An interface's number: its place in [`crate::table::Tables::interfaces`].
pub type InterfaceId = u8;

/// The host's own stack, always first.
pub const HOST_INTERFACE: InterfaceId = 0;
/// Port number of packets that the host's own stack sends.
pub const HOST_PORT: PortId = PortId::MAX;

/// What kind of interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// The host's own stack, behind the exception port.
    Host,
    /// A port with an address of its own.
    Underlay(PortId),
    /// The pods' bridge.
    Bridge,
    /// VXLAN, carried by an underlay interface.
    Overlay {
        /// That interface.
        underlay: InterfaceId,
    },
}

/// An interface. Addresses in host order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the configuration.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// The gateway's MAC on it.
    pub mac: MacAddress,
    /// The gateway's address on it, used to masquerade and to send errors from; 0: none.
    pub address: u32,
    /// Largest IP packet that leaves by it, in bytes.
    pub mtu: u16,
}

/// A port as the pipeline sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRecord {
    /// Its name in the configuration.
    pub name: String,
    /// The interface it is, or is a member of.
    pub interface: InterfaceId,
    /// Whether it is a member of the bridge.
    pub bridged: bool,
    /// The MAC that frames must be for; of the bridge for its members.
    pub mac: MacAddress,
}
