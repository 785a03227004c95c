//! Services: which one a packet is for, and which backend takes it.
//!
//! As kube-proxy (pkg/proxy/nftables/proxier.go): an address, port and protocol names a service port; a backend is
//! drawn at random by weight; who must be masqueraded is marked for later, when the way out is known.

use engine::random::Random;

use crate::decision::{Decision, MARK_MASQUERADE, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::has_ports;
use crate::table::service::{Backend, FrontendKey, FrontendKind};
use crate::table::{MasqueradeRules, Tables};
use engine::wire::ipv4::PROTOCOL_ICMP;

/// Redirects packets for services.
pub fn decide(tables: &Tables, random: &mut Random, decision: &mut Decision) {
    let key = decision.key;
    let frontend_key =
        FrontendKey { address: key.destination, port: key.destination_port, protocol: key.protocol };
    let Some((frontend, service)) =
        has_ports(key.protocol).then(|| tables.services.find(&frontend_key)).flatten()
    else {
        return refuse_unknown(tables, decision);
    };
    decision.frontend = Some(frontend);
    let chosen = service.choose(random);
    let Some((place, backend)) = chosen.and_then(|place| Some((place, service.backends.get(place)?))) else {
        decision.outcome = Outcome::Reject(DropReason::ServiceNoBackend);
        return;
    };
    decision.backend = Some(place as u32);
    decision.backend_slot = backend.slot;
    decision.destination = backend.address;
    decision.destination_port = backend.port;
    decision.bridged = false;
    if must_masquerade(&tables.masquerade, frontend.kind, key.source, backend) {
        decision.mark |= MARK_MASQUERADE;
    }
}

/// A service is rules, not a host: what is for its address and for no port of it goes nowhere.
fn refuse_unknown(tables: &Tables, decision: &mut Decision) {
    let address = decision.key.destination;
    let protocol = decision.key.protocol;
    if tables.services.is_virtual(address) {
        decision.outcome = match protocol {
            PROTOCOL_ICMP => Outcome::Drop(DropReason::ServiceIcmp),
            _ if has_ports(protocol) => Outcome::Reject(DropReason::ServiceUnknownPort),
            _ => Outcome::Drop(DropReason::ServiceProtocol),
        };
    } else if tables.service_cidrs.iter().any(|prefix| prefix.contains(address)) {
        decision.outcome = Outcome::Drop(DropReason::ServiceUnknownAddress);
    }
}

/// Whether the answer would miss this gateway if the source stayed.
pub(crate) fn must_masquerade(
    rules: &MasqueradeRules,
    kind: FrontendKind,
    source: u32,
    backend: &Backend,
) -> bool {
    // A pod that is its own backend would answer itself.
    if source == backend.address {
        return true;
    }
    match kind {
        FrontendKind::NodePort => true,
        FrontendKind::ClusterIp => {
            rules.masquerade_all
                || (!rules.pod_cidrs.is_empty()
                    && !rules.pod_cidrs.iter().any(|prefix| prefix.contains(source)))
        }
    }
}
