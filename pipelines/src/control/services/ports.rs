//! One service port: from what is wanted of it to its record in the tables, and what is remembered of it from one
//! generation to the next.

use std::sync::Arc;

use super::categorize::{NodeIdentity, Place, categorize};
use super::desired::{DesiredEndpoint, DesiredPort, DesiredService};
use crate::control::config::model::Algorithm;
use crate::control::slots::Slots;
use crate::prefix::Ipv4Prefix;
use crate::table::SLOT_COUNTERS;
use crate::table::alias::AliasTable;
use crate::table::maglev::{MaglevTable, Member};
use crate::table::service::{
    BACKENDS_MAX, Backend, BackendFacts, Choice, FrontendKey, FrontendKind, Scope, ServiceFacts, ServicePort,
};

/// A backend that is known: it serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    address: u32,
    port: u16,
    slot: u32,
    /// None: it takes no new connections now.
    incarnation: Option<u32>,
}

impl Known {
    fn name(&self) -> (u32, u16) {
        (self.address, self.port)
    }

    pub(super) fn gone(&self) -> Gone {
        Gone { slot: self.slot, address: self.address, port: self.port }
    }
}

/// A backend that serves no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) slot: u32,
    pub(super) address: u32,
    pub(super) port: u16,
}

/// What is remembered of a service port.
pub(super) struct PortState {
    /// Tells it from a later one that has its number.
    pub(super) identity: u64,
    /// Where its own events are counted.
    pub(super) slot: u32,
    /// Backends that serve, by address and port.
    pub(super) known: Vec<Known>,
    /// What backends that are gone had counted.
    pub(super) gone: [u64; SLOT_COUNTERS],
    /// The addresses that lead to it, or would.
    pub(super) frontends: Vec<(FrontendKey, FrontendKind)>,
    /// UDP: flows to backends that are gone end.
    pub(super) is_udp: bool,
}

impl PortState {
    /// Whether any endpoint serves.
    pub(super) fn serves(&self) -> bool {
        !self.known.is_empty()
    }

    /// Slots of backends that serve and take no new connections.
    fn silent_slots(&self) -> impl Iterator<Item = u32> {
        self.known.iter().filter(|known| known.incarnation.is_none()).map(|known| known.slot)
    }
}

/// What changed for flows.
pub(super) struct Changed {
    pub(super) record: ServicePort,
    /// Backends that serve no more.
    pub(super) removed: Vec<Gone>,
    /// Whether any endpoint serves.
    pub(super) serves: bool,
}

/// What port records are made with.
pub(super) struct Maker<'a> {
    pub(super) node: &'a NodeIdentity,
    /// Its primary address.
    pub(super) node_address: Option<u32>,
    pub(super) is_healthy: &'a dyn Fn(&DesiredEndpoint) -> bool,
    pub(super) slots: &'a mut Slots,
    pub(super) next_incarnation: &'a mut u32,
    /// Takes a slot back from those whose backend is gone, if it is this one's.
    pub(super) revive: &'a mut dyn FnMut(u32, u16) -> Option<u32>,
}

impl Maker<'_> {
    /// The record of a port, and what of its state changed with it.
    pub(super) fn make(
        &mut self,
        service: &DesiredService,
        port: &DesiredPort,
        state: &mut PortState,
    ) -> Changed {
        let endpoints = port.endpoints.get(..BACKENDS_MAX).unwrap_or(&port.endpoints);
        let places = categorize(service, endpoints, self.node, self.is_healthy);
        let old = core::mem::take(&mut state.known);
        let mut record = ServicePort {
            slot: state.slot,
            affinity_s: service.affinity_s.unwrap_or(0),
            external_local: service.external_local,
            internal_local: service.internal_local,
            protocol: port.protocol,
            port: port.port,
            node_port: port.node_port,
            cluster_ip: service.cluster_ip.map_or(0, u32::from),
            source_ranges: source_ranges(service, self.node_address),
            namespace: Arc::clone(&service.key.namespace),
            name: Arc::clone(&service.key.name),
            port_name: Arc::clone(&port.name),
            gone: state.gone,
            facts: ServiceFacts { origin: Arc::clone(&service.origin), ..ServiceFacts::default() },
            ..ServicePort::default()
        };
        record.backends.reserve_exact(endpoints.len());
        record.facts.backends.reserve_exact(endpoints.len());
        state.known.reserve_exact(endpoints.len());
        for (endpoint, place) in endpoints.iter().zip(&places) {
            if place.scopes == 0 {
                record.facts.left_out.push((endpoint.address.into(), endpoint.port, place.left_out));
            }
            if place.serving || place.scopes != 0 {
                let known = self.known(endpoint, place, &old);
                state.known.push(known);
                push(&mut record, endpoint, place, &known);
            }
        }
        state.known.sort_unstable_by_key(Known::name);
        record.cluster = choice(&record.backends, Scope::Cluster, service.algorithm);
        if service.external_local || service.internal_local {
            record.local = choice(&record.backends, Scope::Local, service.algorithm);
        }
        record.facts.other_slots = state.silent_slots().collect();
        let is_gone = |known: &&Known| find(&state.known, known.name()).is_none();
        let removed = old.iter().filter(is_gone).map(Known::gone).collect();
        Changed { record, removed, serves: state.serves() }
    }

    /// A backend that serves keeps its slot, and its incarnation as long as it takes new connections.
    fn known(&mut self, endpoint: &DesiredEndpoint, place: &Place, old: &[Known]) -> Known {
        let (address, port) = (u32::from(endpoint.address), endpoint.port);
        let before = find(old, (address, port));
        let slot = match before {
            Some(known) => known.slot,
            None => (self.revive)(address, port).unwrap_or_else(|| self.slots.take()),
        };
        let incarnation = (place.scopes != 0).then(|| {
            before.and_then(|known| known.incarnation).unwrap_or_else(|| {
                *self.next_incarnation = self.next_incarnation.wrapping_add(1);
                *self.next_incarnation
            })
        });
        Known { address, port, slot, incarnation }
    }
}

fn find(known: &[Known], name: (u32, u16)) -> Option<&Known> {
    known.binary_search_by_key(&name, Known::name).ok().and_then(|place| known.get(place))
}

/// A new connection may go to it.
fn push(record: &mut ServicePort, endpoint: &DesiredEndpoint, place: &Place, known: &Known) {
    let Some(incarnation) = known.incarnation else { return };
    record.backends.push(Backend {
        address: known.address,
        port: known.port,
        weight: endpoint.weight,
        slot: known.slot,
        incarnation,
        scopes: place.scopes,
    });
    record.facts.backends.push(BackendFacts {
        node: endpoint.node.clone(),
        local: place.local,
        origin: Arc::clone(&endpoint.origin),
    });
}

fn choice(backends: &[Backend], scope: Scope, algorithm: Algorithm) -> Choice {
    let weight = |backend: &Backend| if backend.is_in(scope) { backend.weight } else { 0 };
    if algorithm == Algorithm::Maglev {
        let members = backends.iter().enumerate().map(|(index, backend)| Member {
            index: index as u16,
            address: backend.address,
            port: backend.port,
            weight: weight(backend),
        });
        if let Some(table) = MaglevTable::build(members) {
            return Choice::Maglev(Box::new(table));
        }
    }
    Choice::Random(AliasTable::build(backends.iter().map(|backend| u32::from(weight(backend)))))
}

/// Who may use the load-balancer IPs. Where such an IP is one of the node's own addresses, the node's packets to it come
/// from it; they are let in if the node is (pkg/proxy/nftables/proxier.go, `allowFromNode`).
fn source_ranges(service: &DesiredService, node_address: Option<u32>) -> Vec<Ipv4Prefix> {
    let mut ranges = service.load_balancer_source_ranges.clone();
    if node_address.is_some_and(|address| ranges.iter().any(|range| range.contains(address))) {
        ranges.extend(service.load_balancer_ips.iter().map(|address| Ipv4Prefix::host(*address)));
    }
    ranges
}

/// The addresses that lead to a port, the more specific kind first.
pub(super) fn frontends(
    service: &DesiredService,
    port: &DesiredPort,
    node_port_addresses: &[u32],
) -> Vec<(FrontendKey, FrontendKind)> {
    let protocol = port.protocol.number();
    let key = |address: u32, port: u16| FrontendKey { address, port, protocol };
    let mut list = Vec::with_capacity(1 + service.external_ips.len());
    let mut add = |key: FrontendKey, kind| {
        if !list.iter().any(|(other, _)| *other == key) {
            list.push((key, kind));
        }
    };
    if let Some(address) = service.cluster_ip {
        add(key(address.into(), port.port), FrontendKind::ClusterIp);
    }
    // An address that is both is guarded by the source ranges: kube-proxy's `firewall-ips` do not ask what else it is.
    for address in &service.load_balancer_ips {
        add(key((*address).into(), port.port), FrontendKind::LoadBalancer);
    }
    for address in &service.external_ips {
        add(key((*address).into(), port.port), FrontendKind::ExternalIp);
    }
    for address in port.node_port.iter().flat_map(|_| node_port_addresses) {
        add(key(*address, port.node_port.unwrap_or_default()), FrontendKind::NodePort);
    }
    list
}
