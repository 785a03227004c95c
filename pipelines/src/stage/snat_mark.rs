//! Masquerade: which address a marked packet leaves with, and which port.
//!
//! The address is that of the interface the packet leaves by: the VTEP's through the tunnel, the bridge's to local pods,
//! the node's on the underlay. Any other would let the answer come back outside the tunnel.

use engine::random::Random;
use engine::table::flow::FlowKey;

use crate::decision::{Decision, MARK_MASQUERADE, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::{Flows, has_identity};
use crate::ownership::Ownership;
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, InterfaceKind};

/// Ports tried before masquerading fails. With three quarters of all tuples to one backend taken, one draw in 10^12
/// runs out of them.
pub const PORT_TRIES: usize = 96;

/// Marks pods that leave the pod network, and gives marked packets their source address.
pub fn decide(tables: &Tables, decision: &mut Decision) {
    if decision.egress == HOST_INTERFACE {
        // Delivered here, nothing is masqueraded: the kernel's POSTROUTING does not see it either.
        decision.mark &= !MARK_MASQUERADE;
        decision.outcome = Outcome::Forward;
        return;
    }
    let interface = tables.interface(decision.egress);
    if let Some(network) = tables.masquerade.egress_network
        && matches!(interface.kind, InterfaceKind::Underlay(_))
        && network.contains(decision.key.source)
        && !network.contains(decision.destination)
    {
        // flannel's ip-masq (pkg/trafficmngr/iptables): -s network ! -d network, multicast never gets here.
        decision.mark |= MARK_MASQUERADE;
    }
    if decision.is_masqueraded() {
        decision.source = match tables.masquerade.snat_address {
            Some(address) if decision.frontend.is_some() => address,
            _ => interface.address,
        };
    }
    decision.outcome = Outcome::Forward;
}

/// A source port with which the flow's answers are nobody else's and come to this worker; none if no try finds one.
///
/// Ports are drawn at random (kube-proxy's `--random-fully`; RFC 6056, section 3.3.1). The same port serves many flows
/// as long as they go to different destinations.
pub fn choose_port(
    decision: &Decision,
    (first, last): (u16, u16),
    flows: &Flows,
    ownership: &Ownership,
    random: &mut Random,
) -> Result<FlowKey, DropReason> {
    let is_free = |key: &FlowKey| {
        let answer = key.reversed();
        ownership.is_own(key.protocol, key.source, key.source_port)
            && flows.find(&answer, flows.hash(&answer)).is_none()
    };
    if !has_identity(decision.key.protocol) {
        // Nothing but the addresses tells such flows apart, so one at a time has a masqueraded address's answers.
        let key = decision.leaving_key(0);
        return if is_free(&key) { Ok(key) } else { Err(DropReason::SnatPortsExhausted) };
    }
    let count = u32::from(last.saturating_sub(first)) + 1;
    for _ in 0..PORT_TRIES {
        let port = first + random.below(count) as u16;
        let key = decision.leaving_key(port);
        if is_free(&key) {
            return Ok(key);
        }
    }
    Err(DropReason::SnatPortsExhausted)
}
