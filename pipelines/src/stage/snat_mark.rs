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

/// A port for a masqueraded flow to begin with, drawn at random; [`choose_port`] sees whether it is free. 0 for protocols
/// without ports.
pub fn draw_port(decision: &Decision, tables: &Tables, ownership: &Ownership, random: &mut Random) -> u16 {
    let protocol = decision.key.protocol;
    if !has_identity(protocol) {
        return 0;
    }
    let (first, last) = tables.masquerade.snat_ports;
    let count = u32::from(last.saturating_sub(first)) + 1;
    let mut port = first;
    for _ in 0..PORT_TRIES {
        port = first + random.below(count) as u16;
        if ownership.is_own(protocol, decision.source, port) {
            break;
        }
    }
    port
}

/// A source port with which the flow's answers are nobody else's and come to this worker; none if no try finds one. Gives
/// the key that the packet leaves with, and the hash of its answers. `first` is tried before any other, with that hash;
/// `scan_at` is where the last scan of the range ended.
///
/// Ports are drawn at random (kube-proxy's `--random-fully`; RFC 6056, section 3.3.1). The same port serves many flows
/// as long as they go to different destinations, and is never one that a service listens on at the new source, nor one
/// of the range in which it may: answers to those are not looked for here. A closed TCP connection's entry lives through
/// TIME_WAIT, and its port rests as long.
pub fn choose_port(
    decision: &Decision,
    first: Option<(FlowKey, u64)>,
    tables: &Tables,
    flows: &Flows,
    ownership: &Ownership,
    random: &mut Random,
    scan_at: &mut u32,
) -> Result<(FlowKey, u64), DropReason> {
    let may_be = |key: &FlowKey| {
        ownership.is_own(key.protocol, key.source, key.source_port)
            && !ownership.never_originates(key.source, key.source_port)
    };
    let is_free = |(key, answer_hash): &(FlowKey, u64)| {
        flows.find(&key.reversed(), *answer_hash).is_none()
            && !tables.services.listens(key.source, key.source_port, key.protocol)
            // As its own answer it would be one direction and not two.
            && key.reversed() != decision.key
    };
    // Only for this worker's ports is a hash worth its while.
    let with_port = |port: u16| {
        let key = decision.leaving_key(port);
        may_be(&key).then(|| (key, flows.hash(&key.reversed()))).filter(is_free)
    };
    if let Some(first) = first.filter(|(key, _)| may_be(key)).filter(is_free) {
        return Ok(first);
    }
    if !has_identity(decision.key.protocol) {
        // Nothing but the addresses tells such flows apart, so one at a time has a masqueraded address's answers.
        return with_port(0).ok_or(DropReason::SnatPortsExhausted);
    }
    let (first, last) = tables.masquerade.snat_ports;
    let count = u32::from(last.saturating_sub(first)) + 1;
    for _ in 0..PORT_TRIES {
        if let Some(drawn) = with_port(first + random.below(count) as u16) {
            return Ok(drawn);
        }
    }
    let from = *scan_at % count;
    let tries = count.min(PORT_SCAN);
    let found = (0..tries).find_map(|step| with_port(first + ((from + step) % count) as u16));
    *scan_at = from + tries;
    found.ok_or(DropReason::SnatPortsExhausted)
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
            let drawn = draw_port(&decision, &tables, &ownership, &mut random);
            let first = decision.leaving_key(drawn);
            let first = Some((first, flows.hash(&first.reversed())));
            let (key, hash) =
                choose_port(&decision, first, &tables, &flows, &ownership, &mut random, &mut 0).unwrap();
            assert!((32_768..=32_770).contains(&key.source_port), "{}", key.source_port);
            assert_eq!(hash, flows.hash(&key.reversed()));
        }
    }
}
