//! Services: which one a packet is for, and which backend takes it.
//!
//! As kube-proxy (pkg/proxy/nftables/proxier.go): an address, port and protocol names a service port; its policies and
//! where the packet comes from say which of its backends are asked and who must be masqueraded; one is drawn, or the
//! client's last one is taken again. Masquerading is marked for later, when the way out is known.

use engine::random::Random;
use engine::wire::ipv4::PROTOCOL_ICMP;

use crate::decision::{Decision, MARK_MASQUERADE, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::has_ports;
use crate::gateway::Situation;
use crate::table::affinity::Client;
use crate::table::maglev::Connection;
use crate::table::service::{FrontendKey, FrontendKind, Scope, ServicePort};
use crate::table::{MasqueradeRules, Tables};

/// Redirects packets for services.
pub fn decide(situation: &Situation<'_>, random: &mut Random, decision: &mut Decision) {
    let tables = situation.tables;
    let key = decision.key;
    let frontend_key = FrontendKey::of_destination(&key);
    let Some((frontend, service)) =
        has_ports(key.protocol).then(|| tables.services.find(&frontend_key)).flatten()
    else {
        return refuse_unknown(tables, decision);
    };
    decision.frontend = Some(frontend);
    if frontend.kind == FrontendKind::LoadBalancer && !service.admits(key.source) {
        decision.outcome = Outcome::Drop(DropReason::ServiceSourceRange);
        return;
    }
    let selection = select(tables, service, frontend.kind, key.source);
    let chosen = choose(situation, random, decision, service, selection.scope);
    let Some((place, backend)) = chosen.and_then(|place| Some((place, service.backends.get(place)?))) else {
        // Endpoints elsewhere take no part in a local policy: a load balancer is to try another node.
        let is_elsewhere = selection.scope == Scope::Local && !service.cluster.is_empty();
        decision.outcome = if is_elsewhere {
            Outcome::Drop(DropReason::ServiceNoLocalBackend)
        } else {
            Outcome::Reject(DropReason::ServiceNoBackend)
        };
        return;
    };
    if let Some(affinity) = &mut decision.affinity {
        affinity.backend = backend.incarnation;
    }
    decision.backend = Some(place as u32);
    decision.backend_slot = backend.slot;
    decision.destination = backend.address;
    decision.destination_port = backend.port;
    decision.bridged = false;
    if let Some(refusal) = refuse_virtual_backend(tables, backend.address) {
        decision.outcome = refusal;
        return;
    }
    if selection.masquerade || is_hairpin(key.source, backend.address) {
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

/// A backend is a host. kube-proxy's `cluster-ips-check` sees packets after they are redirected, so nothing gets from one
/// service to the address of another, nor to one of the service network that is nobody's.
fn refuse_virtual_backend(tables: &Tables, backend: u32) -> Option<Outcome> {
    if tables.services.is_virtual(backend) {
        return Some(Outcome::Reject(DropReason::ServiceNoBackend));
    }
    let is_unknown = tables.service_cidrs.iter().any(|prefix| prefix.contains(backend));
    is_unknown.then_some(Outcome::Drop(DropReason::ServiceUnknownAddress))
}

/// A pod that is its own backend would answer itself: masqueraded under every policy.
pub(crate) fn is_hairpin(source: u32, backend: u32) -> bool {
    source == backend
}

/// Which backends are asked, and whether the source must be another for those that are not the source itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) scope: Scope,
    pub(crate) masquerade: bool,
}

/// What the service's policies say of a source.
pub(crate) fn select(tables: &Tables, service: &ServicePort, kind: FrontendKind, source: u32) -> Selection {
    let rules = &tables.masquerade;
    if kind == FrontendKind::ClusterIp {
        let scope = if service.internal_local { Scope::Local } else { Scope::Cluster };
        return Selection { scope, masquerade: comes_from_outside(rules, source) };
    }
    if !service.external_local {
        // The answer must come back through this node, whichever node the backend is on.
        return Selection { scope: Scope::Cluster, masquerade: true };
    }
    if rules.pod_cidrs.iter().any(|prefix| prefix.contains(source)) {
        // As if it had gone out to the load balancer and come in again anywhere. So do the node's own packets that have
        // an address of the pod network: answers find the way to it from everywhere (proxier.go asks in this order, too).
        return Selection { scope: Scope::Cluster, masquerade: false };
    }
    // The node itself too, but an answer from elsewhere has to find the way back here.
    let is_node = tables.is_own(source);
    Selection { scope: if is_node { Scope::Cluster } else { Scope::Local }, masquerade: is_node }
}

/// Whether a cluster IP's answers would miss this gateway if the source stayed.
fn comes_from_outside(rules: &MasqueradeRules, source: u32) -> bool {
    rules.masquerade_all
        || (!rules.pod_cidrs.is_empty() && !rules.pod_cidrs.iter().any(|prefix| prefix.contains(source)))
}

/// The backend of a new connection: its client's last one, or one that is drawn.
fn choose(
    situation: &Situation<'_>,
    random: &mut Random,
    decision: &mut Decision,
    service: &ServicePort,
    scope: Scope,
) -> Option<usize> {
    let key = decision.key;
    let mut connection =
        Connection { source: key.source, source_port: key.source_port, protocol: key.protocol };
    if service.affinity_s == 0 {
        return service.choice(scope).choose(random, connection);
    }
    let client = Client { service: service.slot + 1, address: key.source };
    let now_s = (situation.now.seconds() as u32).max(1);
    decision.affinity = Some(Affinity { client, backend: 0, window_s: service.affinity_s });
    let last = situation.affinity.find(client, now_s, service.affinity_s);
    if let Some(place) = last.and_then(|incarnation| service.incarnation(incarnation, scope)) {
        return Some(place);
    }
    // All of a client's connections alike, so that two workers that decide its first two at one moment agree; and another
    // draw in another window and after a backend has come, so that a client is not tied to one for ever, nor to one that
    // has come back.
    connection.source_port = 0;
    let window = u64::from(now_s / service.affinity_s);
    let newest = service.backends.iter().map(|backend| backend.incarnation).max().unwrap_or_default();
    let salt = situation.affinity.secret() ^ (u64::from(newest) << 32 | window);
    let mut random = Random::new(client.hash(salt));
    service.choice(scope).choose(&mut random, connection)
}

/// What is to be noted of a client once its connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The client of the service port.
    pub client: Client,
    /// The backend's incarnation.
    pub backend: u32,
    /// Seconds for which it holds.
    pub window_s: u32,
}
