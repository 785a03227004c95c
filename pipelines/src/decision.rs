//! A decision: what the stages made of a flow's first packet.
//!
//! Stages append to it in the order that [`crate::gateway`] lists; none writes a packet. A decision to forward is
//! compiled into a flow entry pair, which all packets of the flow, this first one too, are then applied from.

use engine::table::flow::FlowKey;

use crate::drop_reason::DropReason;
use crate::flow::NO_BACKEND;
use crate::stage::dnat::Affinity;
use crate::table::interface::{HOST_INTERFACE, InterfaceId};
use crate::table::service::Frontend;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No stage has spoken yet.
    Undecided,
    /// Leaves by the egress interface, as the new addresses say; the flow is remembered.
    Forward,
    /// Stays on the bridge; the flow is remembered.
    Bridge,
    /// Answered here: an echo to one of the gateway's addresses.
    Answer,
    /// To the host's own stack; the flow is remembered, so that what the host answers is known as an answer.
    Deliver,
    /// Refused with ICMP port unreachable, and dropped for the reason.
    Reject(DropReason),
    /// Dropped.
    Drop(DropReason),
}

/// kube-proxy's packet mark for "masquerade on the way out".
pub const MARK_MASQUERADE: u32 = 0x4000;

/// A decision in the making. Addresses and ports in host order.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// The packet as it arrived.
    pub key: FlowKey,
    /// The interface that it came by.
    pub interface: InterfaceId,
    /// It is for another station of the bridge.
    pub bridged: bool,
    /// What it is to be done. A stage that finds it decided leaves it alone.
    pub outcome: Outcome,
    /// The service it was for.
    pub frontend: Option<Frontend>,
    /// The backend chosen: place in the service's list.
    pub backend: Option<u32>,
    /// Where the backend's traffic is counted.
    pub backend_slot: u32,
    /// The client of a service with session affinity.
    pub affinity: Option<Affinity>,
    /// Where it goes.
    pub destination: u32,
    /// Port it goes to.
    pub destination_port: u16,
    /// `MARK_*`.
    pub mark: u32,
    /// Where it seems to come from.
    pub source: u32,
    /// Interface it leaves by.
    pub egress: InterfaceId,
    /// Next hop on that interface.
    pub next_hop: u32,
    /// Place of the route in the table.
    pub route: Option<u32>,
}

impl Decision {
    /// Nothing decided: the packet goes where it says.
    pub fn new(key: FlowKey, interface: InterfaceId, bridged: bool) -> Self {
        Self {
            key,
            interface,
            bridged,
            outcome: Outcome::Undecided,
            frontend: None,
            backend: None,
            backend_slot: NO_BACKEND,
            affinity: None,
            destination: key.destination,
            destination_port: key.destination_port,
            mark: 0,
            source: key.source,
            egress: HOST_INTERFACE,
            next_hop: 0,
            route: None,
        }
    }

    /// Whether a stage may still speak.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Undecided
    }

    /// Whether the destination is not the packet's own any more.
    #[inline(always)]
    pub fn is_redirected(&self) -> bool {
        self.destination != self.key.destination || self.destination_port != self.key.destination_port
    }

    /// Whether the source is to be another.
    #[inline(always)]
    pub fn is_masqueraded(&self) -> bool {
        self.mark & MARK_MASQUERADE != 0
    }

    /// The key of the packet as it leaves, if it leaves with this source port.
    pub fn leaving_key(&self, source_port: u16) -> FlowKey {
        FlowKey {
            source: self.source,
            source_port,
            destination: self.destination,
            destination_port: self.destination_port,
            ..self.key
        }
    }
}
