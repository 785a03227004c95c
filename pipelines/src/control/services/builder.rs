//! Builds the service table, and changes it service by service: a change costs what it touches.
//!
//! **Invariant:** the table depends on what is wanted alone, not on the order in which it was said. Where two service
//! ports claim one address and port, the one of the earlier source and name has it, and the other gets it when that goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use engine::table::sharded_map::ShardedMap;

use super::categorize::{NodeIdentity, is_local, is_ready};
use super::desired::{DesiredEndpoint, DesiredPort, DesiredService, ServiceKey};
use super::hashed::HashedBackends;
use super::new_frontends::NewFrontends;
use super::ports::{Changed, Gone, Known, Maker, PortState, frontends};
use super::retired::{Planned, Retired, RetiredBackends};
use crate::control::config::model::Protocol;
use crate::control::health::HealthNodePort;
use crate::control::slots::{SlotBases, Slots};
use crate::flow::NO_BACKEND;
use crate::table::SLOT_COUNTERS;
use crate::table::service::{Frontend, FrontendKey, FrontendKind, ServicePort, ServiceTable};
use crate::table::stale::Fate;

/// What building depends on beside the services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The node that the gateway stands for.
    pub node: NodeIdentity,
    /// Its primary address.
    pub node_address: Option<u32>,
    /// Addresses that node ports are answered on, in host order.
    pub node_port_addresses: Vec<u32>,
    /// Seconds for which TCP flows to a removed backend live on; none: until they end.
    pub drain_timeout_s: Option<u32>,
}

/// One backend of one service port, for health checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendName {
    /// The service.
    pub service: ServiceKey,
    /// Name of the port.
    pub port_name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Address and port of the backend.
    pub address: core::net::SocketAddrV4,
}

/// Where a service port stands when several claim one address: by source, name and port name.
type Rank = (u8, ServiceKey, Arc<str>, Protocol);

struct ServiceState {
    ports: Vec<(Arc<str>, Protocol, u32)>,
    cluster_ip: Option<u32>,
}

struct Numbered {
    state: PortState,
    rank: Rank,
}

/// The builder.
#[derive(Default)]
pub struct ServiceBuilder {
    settings: ServiceSettings,
    services: HashMap<ServiceKey, ServiceState>,
    ports: Vec<Option<Numbered>>,
    free_numbers: BTreeSet<u32>,
    /// Claims to an address and port that another has.
    contested: HashMap<FrontendKey, Vec<(u32, FrontendKind)>>,
    hashed: HashedBackends,
    table: ServiceTable,
    slots: Slots,
    retired: RetiredBackends,
    next_identity: u64,
    next_incarnation: u32,
    unhealthy: HashSet<BackendName>,
    health_ports: BTreeMap<ServiceKey, HealthNodePort>,
    /// Frontends that lead where they did not.
    new_frontends: NewFrontends,
    /// Number of the next table.
    generation: u64,
    now_s: u64,
}

impl ServiceBuilder {
    /// Takes other settings over. True: they matter to every service, and all must be applied again.
    pub fn set(&mut self, settings: ServiceSettings) -> bool {
        let drain = core::mem::replace(&mut self.settings.drain_timeout_s, settings.drain_timeout_s);
        let is_same = ServiceSettings { drain_timeout_s: drain, ..settings.clone() }
            == ServiceSettings { drain_timeout_s: drain, ..self.settings.clone() };
        self.settings = settings;
        !is_same
    }

    /// The second by which drain times are counted.
    pub fn set_time(&mut self, now_s: u64) {
        self.now_s = now_s;
    }

    /// All services that are in the table.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// Makes the table say of a service what is wanted. `source` ranks the source that says so: the lowest goes first.
    pub fn apply(&mut self, desired: &DesiredService, source: u8) {
        let known = self.services.remove(&desired.key);
        let (old_ports, old_ip) =
            known.map_or_else(Default::default, |known| (known.ports, known.cluster_ip));
        let mut left = old_ports;
        let mut ports = Vec::with_capacity(desired.ports.len());
        for port in &desired.ports {
            let is_same = |(name, protocol, _): &(Arc<str>, Protocol, u32)| {
                (name, *protocol) == (&port.name, port.protocol)
            };
            let number = match left.iter().position(is_same) {
                Some(place) => {
                    let number = left.swap_remove(place).2;
                    self.rank_anew(number, source);
                    number
                }
                None => self.open(desired, port, source),
            };
            self.set_port(number, desired, port);
            ports.push((Arc::clone(&port.name), port.protocol, number));
        }
        for (.., number) in left {
            self.close(number);
        }
        self.note_health_port(desired);
        let cluster_ip = desired.cluster_ip.map(u32::from).filter(|_| !ports.is_empty());
        self.move_address(old_ip, cluster_ip);
        self.services.insert(desired.key.clone(), ServiceState { ports, cluster_ip });
    }

    /// Takes a service out.
    pub fn remove(&mut self, key: &ServiceKey) {
        let Some(known) = self.services.remove(key) else { return };
        self.health_ports.remove(key);
        for (.., number) in known.ports {
            self.close(number);
        }
        self.move_address(known.cluster_ip, None);
    }

    /// Notes what a health check says of a backend. True: that is new, and the service must be applied again.
    pub fn set_health(&mut self, backend: BackendName, is_healthy: bool) -> bool {
        if is_healthy { self.unhealthy.remove(&backend) } else { self.unhealthy.insert(backend) }
    }

    /// How many endpoints load balancers are told of: ready ones on this node, each address once
    /// (pkg/proxy/endpointschangetracker.go, `LocalReadyEndpoints`).
    fn note_health_port(&mut self, desired: &DesiredService) {
        let Some(port) = desired.health_check_node_port else {
            self.health_ports.remove(&desired.key);
            return;
        };
        let endpoints = desired.ports.iter().flat_map(|port| &port.endpoints);
        let local =
            endpoints.filter(|endpoint| is_ready(endpoint) && is_local(endpoint, &self.settings.node));
        let local_endpoints = local.map(|endpoint| endpoint.address).collect::<HashSet<_>>().len();
        let (namespace, name) = (desired.key.namespace.to_string(), desired.key.name.to_string());
        let health = HealthNodePort { port, namespace, name, local_endpoints };
        self.health_ports.insert(desired.key.clone(), health);
    }

    /// The health check node ports that are wanted.
    pub fn health_ports(&self) -> Vec<HealthNodePort> {
        self.health_ports.values().cloned().collect()
    }

    /// A new service port's number and state.
    fn open(&mut self, service: &DesiredService, port: &DesiredPort, source: u8) -> u32 {
        self.next_identity += 1;
        let state = PortState {
            identity: self.next_identity,
            slot: self.slots.take(),
            known: Vec::new(),
            gone: [0; SLOT_COUNTERS],
            frontends: Vec::new(),
            is_udp: port.protocol == Protocol::Udp,
        };
        let rank = (source, service.key.clone(), Arc::clone(&port.name), port.protocol);
        let numbered = Some(Numbered { state, rank });
        match self.free_numbers.pop_first() {
            Some(number) => {
                self.ports[number as usize] = numbered;
                number
            }
            None => {
                self.ports.push(numbered);
                self.table.ports.push(None);
                self.ports.len() as u32 - 1
            }
        }
    }

    /// A service port is another source's than before, so that its claims count otherwise: they are made anew.
    fn rank_anew(&mut self, number: u32, source: u8) {
        let Some(Some(numbered)) = self.ports.get_mut(number as usize) else { return };
        if numbered.rank.0 == source {
            return;
        }
        let claims = core::mem::take(&mut numbered.state.frontends);
        for (key, _) in claims {
            self.release(number, key);
        }
        if let Some(Some(numbered)) = self.ports.get_mut(number as usize) {
            numbered.rank.0 = source;
        }
    }

    /// Makes the record of a service port, and its frontends lead there.
    fn set_port(&mut self, number: u32, service: &DesiredService, port: &DesiredPort) {
        let Some(mut numbered) = self.ports.get_mut(number as usize).and_then(Option::take) else { return };
        let state = &mut numbered.state;
        let owner = (number, state.identity);
        let Self { settings, slots, next_incarnation, retired, unhealthy, .. } = self;
        let is_healthy = |endpoint: &DesiredEndpoint| {
            unhealthy.is_empty() || !unhealthy.contains(&backend_name(service, port, endpoint))
        };
        let mut maker = Maker {
            node: &settings.node,
            node_address: settings.node_address,
            is_healthy: &is_healthy,
            slots,
            next_incarnation,
            revive: &mut |address, port| retired.revive(owner, address, port),
        };
        let served = state.serves();
        let Changed { mut record, removed, serves } = maker.make(service, port, state);
        // Datagrams past a service stay as long as nothing serves.
        let serves_anew = state.is_udp && serves && !served;
        self.retire(owner, state, &removed, serves);
        record.facts.other_slots.extend(self.retired.slots_of(owner));
        let wanted = frontends(service, port, &self.settings.node_port_addresses);
        if serves_anew {
            wanted.iter().for_each(|(key, _)| self.new_frontends.add(*key));
        }
        let before = core::mem::replace(&mut state.frontends, wanted.clone());
        self.ports[number as usize] = Some(numbered);
        self.hashed.set(&mut self.table.hashed, number, Some(&record));
        self.table.ports.set(number as usize, Some(Arc::new(record)));
        for claim in before.iter().filter(|claim| !wanted.contains(claim)) {
            self.release(number, claim.0);
        }
        for claim in wanted.iter().filter(|claim| !before.contains(claim)) {
            self.claim(number, *claim);
        }
    }

    /// Decides what becomes of flows to backends that serve no more.
    fn retire(&mut self, owner: (u32, u64), state: &PortState, removed: &[Gone], serves: bool) {
        let fate = match (state.is_udp, self.settings.drain_timeout_s) {
            (true, _) if serves => Planned::Now(Fate::End),
            (true, _) => Planned::Keep,
            (false, Some(seconds)) => Planned::Drain { seconds, until_s: None },
            (false, None) => Planned::Now(Fate::Count(state.slot)),
        };
        if state.is_udp {
            let since = self.generation + 1;
            self.retired.plan(owner, since, |_| Some(fate));
        }
        for gone in removed {
            let Gone { slot, address, port } = *gone;
            let since = self.generation + 1;
            if !Slots::is_shared(slot) {
                self.retired.push(Retired { slot, address, port, owner, fate, since });
            }
        }
    }

    /// Takes a service port out. What its flows count is nobody's any more; they go on until they end, as kube-proxy
    /// leaves them.
    fn close(&mut self, number: u32) {
        let Some(numbered) = self.ports.get_mut(number as usize).and_then(Option::take) else { return };
        let Numbered { state, .. } = numbered;
        let owner = (number, state.identity);
        let since = self.generation + 1;
        let fate = match self.settings.drain_timeout_s.filter(|_| !state.is_udp) {
            Some(seconds) => Planned::Drain { seconds, until_s: None },
            None => Planned::Now(Fate::Count(NO_BACKEND)),
        };
        self.retired.plan(owner, since, |retired| match retired.fate {
            Planned::Keep | Planned::Now(Fate::Count(_)) => Some(fate),
            Planned::Drain { .. } | Planned::Now(Fate::End) => None,
        });
        let own = Gone { slot: state.slot, address: 0, port: 0 };
        for Gone { slot, address, port } in state.known.iter().map(Known::gone).chain([own]) {
            if !Slots::is_shared(slot) {
                self.retired.push(Retired { slot, address, port, owner, fate, since });
            }
        }
        for (key, _) in &state.frontends {
            self.release(number, *key);
        }
        self.hashed.set(&mut self.table.hashed, number, None);
        self.table.ports.set(number as usize, None);
        self.free_numbers.insert(number);
    }

    fn rank(&self, number: u32) -> Option<&Rank> {
        self.ports.get(number as usize)?.as_ref().map(|numbered| &numbered.rank)
    }

    /// Makes an address and port lead to a service port, unless one of a better rank has it.
    fn claim(&mut self, number: u32, (key, kind): (FrontendKey, FrontendKind)) {
        let holder = self.table.frontends.get(&key);
        let mut claimant = Frontend { service: number, kind };
        if let Some(holder) = holder.filter(|holder| holder.service != number) {
            if self.rank(holder.service) <= self.rank(number) {
                self.contested.entry(key).or_default().push((number, kind));
                return;
            }
            self.contested.entry(key).or_default().push((holder.service, holder.kind));
        }
        self.new_frontends.add(key);
        claimant.service = number;
        if self.table.frontends.insert(key, claimant).is_none() {
            count(&mut self.table.frontend_addresses, key.address, 1);
        }
    }

    /// Takes a service port's claim back; the next in rank gets what it had.
    fn release(&mut self, number: u32, key: FrontendKey) {
        let is_holder = self.table.frontends.get(&key).is_some_and(|holder| holder.service == number);
        let Some(claims) = self.contested.get_mut(&key) else {
            if is_holder {
                self.table.frontends.remove(&key);
                count(&mut self.table.frontend_addresses, key.address, -1);
            }
            return;
        };
        if is_holder {
            let rank = |number: u32| self.ports.get(number as usize)?.as_ref().map(|port| &port.rank);
            let next = (0..claims.len()).min_by_key(|place| rank(claims[*place].0));
            // There always is one: a key without claims is not among the contested.
            if let Some((service, kind)) = next.map(|place| claims.swap_remove(place)) {
                self.new_frontends.add(key);
                self.table.frontends.insert(key, Frontend { service, kind });
            }
        } else {
            claims.retain(|(claimant, _)| *claimant != number);
        }
        if claims.is_empty() {
            self.contested.remove(&key);
        }
    }

    fn move_address(&mut self, from: Option<u32>, to: Option<u32>) {
        if from == to {
            return;
        }
        if let Some(address) = from {
            count(&mut self.table.addresses, address, -1);
        }
        if let Some(address) = to {
            let (first, last) = self.table.address_range.unwrap_or((address, address));
            self.table.address_range = Some((first.min(address), last.max(address)));
            count(&mut self.table.addresses, address, 1);
        }
    }

    /// The table of generation `generation`, which is later than any before.
    pub fn table(&mut self, generation: u64) -> ServiceTable {
        self.generation = generation;
        if core::mem::take(&mut self.retired.changed) {
            self.table.stale = Arc::new(self.retired.fates());
        }
        if let Some(filter) = self.new_frontends.publish(generation) {
            self.table.has_new_frontends = self.new_frontends.is_waiting();
            self.table.new_frontends = filter;
        }
        self.table.clone()
    }

    /// Frees what no flow refers to any more: every worker has been through its flows with tables of generation `swept`
    /// or later. `values` reads a slot's counters. True: the next table differs.
    pub fn reclaim(&mut self, swept: u64, values: &dyn Fn(u32) -> [u64; SLOT_COUNTERS]) -> bool {
        self.retired.end_drained(self.now_s, self.generation + 1);
        let mut changed = self.new_frontends.take_swept(swept);
        for retired in self.retired.take_swept(swept) {
            changed = true;
            let (stood, now) =
                (self.slots.bases().get(&retired.slot).unwrap_or_default(), values(retired.slot));
            self.slots.give_back(retired.slot, now);
            self.fold(retired, core::array::from_fn(|place| now[place].wrapping_sub(stood[place])));
        }
        changed || self.retired.changed
    }

    /// Adds what a backend that is gone had counted to its service port.
    fn fold(&mut self, retired: Retired, counted: [u64; SLOT_COUNTERS]) {
        let (number, identity) = retired.owner;
        let Some(Some(numbered)) = self.ports.get_mut(number as usize) else { return };
        let Some(record) = self.table.port(number).filter(|_| numbered.state.identity == identity) else {
            return;
        };
        for (sum, value) in numbered.state.gone.iter_mut().zip(counted) {
            *sum += value;
        }
        let mut record = ServicePort { gone: numbered.state.gone, ..record.clone() };
        record.facts.other_slots.retain(|slot| *slot != retired.slot);
        self.table.ports.set(number as usize, Some(Arc::new(record)));
    }

    /// Whether anything waits for workers' sweeps or for time.
    pub fn is_waiting(&self) -> bool {
        self.new_frontends.is_waiting() || !self.retired.is_empty()
    }

    /// Slots that counters must have room for.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// What slots stood at when they were given out again.
    pub fn slot_bases(&self) -> SlotBases {
        self.slots.bases()
    }

    /// Claims that are not in force: the address and port, who claims it, and who has it.
    pub fn conflicts(&self) -> Vec<(FrontendKey, String, String)> {
        let title = |number: u32| {
            let port = self.table.port(number);
            port.map(|port| format!("{} ({})", port.title(), port.facts.origin.source)).unwrap_or_default()
        };
        let mut list = BTreeMap::new();
        for (key, claims) in &self.contested {
            let holder = self.table.frontends.get(key).map(|holder| title(holder.service));
            for (number, _) in claims {
                list.insert((*key, title(*number)), holder.clone().unwrap_or_default());
            }
        }
        list.into_iter().map(|((key, claimant), holder)| (key, claimant, holder)).collect()
    }
}

fn backend_name(service: &DesiredService, port: &DesiredPort, endpoint: &DesiredEndpoint) -> BackendName {
    BackendName {
        service: service.key.clone(),
        port_name: Arc::clone(&port.name),
        protocol: port.protocol,
        address: core::net::SocketAddrV4::new(endpoint.address, endpoint.port),
    }
}

/// One more or one less at an address; addresses without any are not in the map.
fn count(counts: &mut ShardedMap<u32, u32>, address: u32, change: i32) {
    match counts.get(&address).unwrap_or(0).saturating_add_signed(change) {
        0 => counts.remove(&address),
        count => counts.insert(address, count),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::services::desired_of_toml;
    use crate::control::testing::{CONFIGURATION, parsed};

    /// Two services claim one address; which one has it depends on who says so now, not on who said so before.
    #[test]
    fn a_service_that_another_source_takes_over_is_ranked_by_that_source() {
        let services = parsed(CONFIGURATION).services;
        let web = desired_of_toml(&services[0], 0);
        let mut alike = web.clone();
        alike.key = ServiceKey::new("default", "alike");
        let mut builder = ServiceBuilder::default();
        let holder = |builder: &mut ServiceBuilder, generation| {
            let table = builder.table(generation);
            let address = web.cluster_ip.unwrap().into();
            let key = FrontendKey { address, port: 80, protocol: Protocol::Tcp.number() };
            let (_, service) = table.find(&key).unwrap();
            assert_eq!(builder.conflicts().len(), 1);
            service.name.to_string()
        };
        builder.apply(&alike, 1);
        builder.apply(&web, 0);
        assert_eq!(holder(&mut builder, 1), "web");
        builder.apply(&web, 1);
        assert_eq!(holder(&mut builder, 2), "alike", "of one source the first in order of name");
        builder.apply(&web, 0);
        assert_eq!(holder(&mut builder, 3), "web");
        builder.remove(&web.key);
        builder.remove(&alike.key);
        assert!(builder.table(4).frontends.is_empty() && builder.conflicts().is_empty());
    }
}
