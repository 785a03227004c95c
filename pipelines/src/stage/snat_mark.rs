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
use crate::table::service::FrontendKey;

/// Ports drawn at random. With three quarters of all tuples to one backend taken, one flow in 10^12 finds none among them.
pub const PORT_TRIES: usize = 96;
/// Ports tried one after the other when no draw was free: a range of no more is used to its last port. Of a larger one each
/// attempt goes on where the last one ended, so that every port has its turn, and the time of one attempt is bounded.
pub const PORT_SCAN: u32 = 4_096;

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
/// `scan_at` is where the last scan of the range ended.
///
/// Ports are drawn at random (kube-proxy's `--random-fully`; RFC 6056, section 3.3.1). The same port serves many flows
/// as long as they go to different destinations, and is never one that a service listens on at the new source, nor one
/// of the range in which it may: answers to those are not looked for here. A closed TCP connection's entry lives through
/// TIME_WAIT, and its port rests as long.
pub fn choose_port(
    decision: &Decision,
    tables: &Tables,
    flows: &Flows,
    ownership: &Ownership,
    random: &mut Random,
    scan_at: &mut u32,
) -> Result<FlowKey, DropReason> {
    let (first, last) = tables.masquerade.snat_ports;
    let is_free = |key: &FlowKey| {
        let answer = key.reversed();
        ownership.is_own(key.protocol, key.source, key.source_port)
            && !ownership.never_originates(key.source, key.source_port)
            && flows.find(&answer, flows.hash(&answer)).is_none()
            && !is_service(tables, key)
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
    let from = *scan_at % count;
    let tries = count.min(PORT_SCAN);
    let mut scan = (0..tries).map(|step| decision.leaving_key(first + ((from + step) % count) as u16));
    let found = scan.find(is_free);
    *scan_at = from + tries;
    found.ok_or(DropReason::SnatPortsExhausted)
}

/// Whether answers to this source would be taken for a service's.
fn is_service(tables: &Tables, key: &FlowKey) -> bool {
    let frontend = FrontendKey { address: key.source, port: key.source_port, protocol: key.protocol };
    tables.services.frontends.get(&frontend).is_some()
}

#[cfg(test)]
mod tests {
    use engine::table::flow::HashSecret;
    use engine::wire::ipv4::PROTOCOL_TCP;

    use super::*;
    use crate::control::build::{Builder, HostFacts};
    use crate::control::testing::{CONFIGURATION, parsed};
    use crate::flow::flow_key;

    #[test]
    fn ports_where_answers_are_not_looked_for_are_never_taken() {
        const NODE: u32 = 0xc0a8_0015;
        let mut tables = Builder::new(1, HostFacts::default()).build(&parsed(CONFIGURATION)).unwrap();
        // As after a reload to a range that overlaps with the one in which node ports lay when the workers started.
        tables.masquerade.snat_ports = (32_760, 32_770);
        let ownership = Ownership::new(0, 1, Vec::new(), vec![NODE], (30_000, 32_767));
        let mut decision = Decision::new(flow_key(PROTOCOL_TCP, 7, 40_000, 8, 80), 1, false);
        (decision.source, decision.mark) = (NODE, MARK_MASQUERADE);
        let flows = Flows::new(8, HashSecret::new(1, 2)).unwrap();
        let mut random = Random::new(1);
        for _ in 0..200 {
            let key = choose_port(&decision, &tables, &flows, &ownership, &mut random, &mut 0).unwrap();
            assert!((32_768..=32_770).contains(&key.source_port), "{}", key.source_port);
        }
    }
}
