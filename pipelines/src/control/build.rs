//! From a configuration and objects to tables.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use engine::table::lpm::LpmError;
use engine::wire::ethernet::MacAddress;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::control::config::model::{Configuration, Conntrack, InterfaceName, PortRole, Service};
use crate::control::kubernetes::ObjectStore;
use crate::control::services::builder::{BackendName, ServiceBuilder, ServiceSettings};
use crate::control::services::categorize::NodeIdentity;
use crate::control::services::desired::ServiceKey;
use crate::control::services::desired_of_toml;
use crate::prefix::Ipv4Prefix;
use crate::table::interface::{HOST_INTERFACE, Interface, InterfaceId, InterfaceKind, PortRecord};
use crate::table::route::{Route, RouteSource, RouteTable};
use crate::table::service::ServiceTable;
use crate::table::{
    BridgeTable, MasqueradeRules, OverlayTable, SlotCounter, SlotCounters, Tables, Timeouts, slot_sum,
};

/// What only the running process knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFacts {
    /// MAC of the exception link's Linux side.
    pub host_mac: MacAddress,
    /// Largest IP packet of the exception link; 0: none.
    pub host_mtu: u16,
}

/// Which source a service comes from: the lower goes first where two claim one address.
const SOURCE_TOML: u8 = 0;
const SOURCE_KUBERNETES: u8 = 1;

/// Builds one generation after another: all of it when the configuration changes, and what changed of the services when
/// objects do.
pub struct Builder {
    facts: HostFacts,
    services: ServiceBuilder,
    /// The configuration's services as they were built last, each with its place there.
    written: HashMap<ServiceKey, (usize, Service), FxBuildHasher>,
    generation: u64,
    counters: Arc<Vec<SlotCounters>>,
    last: Option<Tables>,
}

impl Builder {
    /// A builder for this many workers.
    pub fn new(worker_count: usize, facts: HostFacts) -> Self {
        Self {
            facts,
            services: ServiceBuilder::default(),
            written: HashMap::default(),
            generation: 0,
            counters: Arc::new(vec![SlotCounters::default(); worker_count.max(1)]),
            last: None,
        }
    }

    /// The tables of a configuration without any objects. Fails only with more routes than a table holds.
    pub fn build(&mut self, configuration: &Configuration) -> Result<Tables, LpmError> {
        self.build_with(configuration, &ObjectStore::new())
    }

    /// The tables of a configuration and all objects.
    pub fn build_with(
        &mut self,
        configuration: &Configuration,
        objects: &ObjectStore,
    ) -> Result<Tables, LpmError> {
        let numbering = Numbering::new(configuration);
        // First what can fail, so that it changes nothing.
        let routes = Arc::new(RouteTable::build(routes(configuration, &numbering))?);
        self.apply_services(configuration, objects);
        let settings = &configuration.service_settings;
        let mut own: Vec<u32> = own_addresses(configuration).into_iter().map(u32::from).collect();
        own.extend(node_port_addresses(configuration));
        own.sort_unstable();
        own.dedup();
        let tables = Tables {
            generation: 0,
            ports: Arc::new(ports(configuration, &numbering)),
            overlay: overlay(configuration, &numbering).map(Arc::new),
            bridge: bridge(configuration, &numbering).map(Arc::new),
            neighbours: Arc::new(neighbours(configuration, &numbering)),
            own_addresses: Arc::new(own),
            routes,
            services: ServiceTable::default(),
            service_cidrs: settings.service_cidrs.clone(),
            masquerade: MasqueradeRules {
                pod_cidrs: settings.pod_cidrs.clone(),
                masquerade_all: settings.masquerade_all,
                egress_network: configuration
                    .overlay
                    .as_ref()
                    .filter(|overlay| overlay.masquerade_egress)
                    .and_then(|overlay| overlay.pod_network),
                snat_address: settings.snat_address.map(u32::from),
                snat_ports: settings.snat_port_range,
            },
            timeouts: timeouts(&configuration.conntrack),
            host_rate_pps: configuration.exception.as_ref().map_or(0, |exception| exception.rate_pps),
            host_macs: (
                self.facts.host_mac,
                configuration.exception.as_ref().map_or(MacAddress::default(), |exception| exception.mac),
            ),
            backend_counters: Arc::clone(&self.counters),
            slot_bases: self.services.slot_bases(),
            interfaces: Arc::new(interfaces(configuration, &numbering, &self.facts)),
        };
        Ok(self.finish(tables))
    }

    /// The tables of the last configuration after objects changed. None: nothing was built yet.
    pub fn update(&mut self, objects: &ObjectStore, changed: &BTreeSet<ServiceKey>) -> Option<Tables> {
        let last = self.last.take()?;
        self.apply_objects(objects, changed);
        Some(self.finish(last))
    }

    /// Takes over what objects say of these services; [`Self::update`] puts it into tables.
    pub fn apply_objects(&mut self, objects: &ObjectStore, changed: &BTreeSet<ServiceKey>) {
        for key in changed {
            self.apply_object(objects, key);
        }
    }

    /// Makes everything in the tables that services and their counters need the next generation's.
    fn finish(&mut self, mut tables: Tables) -> Tables {
        self.generation += 1;
        tables.generation = self.generation;
        tables.services = self.services.table(self.generation);
        let slots = self.services.slot_count();
        if self.counters.iter().any(|counters| counters.capacity() < slots) {
            self.counters = Arc::new(self.counters.iter().map(|counters| counters.grown(slots)).collect());
        }
        tables.backend_counters = Arc::clone(&self.counters);
        tables.slot_bases = self.services.slot_bases();
        self.last = Some(tables.clone());
        tables
    }

    fn apply_services(&mut self, configuration: &Configuration, objects: &ObjectStore) {
        let all_anew = self.services.set(service_settings(configuration, objects));
        let mut gone: HashSet<ServiceKey> = self.services.keys().cloned().collect();
        let before = core::mem::take(&mut self.written);
        for (place, service) in configuration.services.iter().enumerate() {
            let key = ServiceKey::new(&service.namespace, &service.name);
            gone.remove(&key);
            let is_same = before.get(&key).is_some_and(|old| (old.0, &old.1) == (place, service));
            if all_anew || !is_same {
                self.services.apply(&desired_of_toml(service, place), SOURCE_TOML);
            }
            self.written.insert(key, (place, service.clone()));
        }
        for key in objects.service_keys() {
            if self.apply_object(objects, key) {
                gone.remove(key);
            }
        }
        gone.iter().for_each(|key| self.services.remove(key));
    }

    /// Takes over what objects say of one service. One of the same name in the configuration goes first. False: there is
    /// none now.
    fn apply_object(&mut self, objects: &ObjectStore, key: &ServiceKey) -> bool {
        if self.written.contains_key(key) {
            return true;
        }
        let desired = objects.desired(key);
        match &desired {
            Some(desired) => self.services.apply(desired, SOURCE_KUBERNETES),
            None => self.services.remove(key),
        }
        desired.is_some()
    }

    /// Takes over what a health check says of a backend. True: the next tables differ.
    pub fn set_health(&mut self, backend: BackendName, is_healthy: bool) -> bool {
        let key = backend.service.clone();
        if !self.services.set_health(backend, is_healthy) {
            return false;
        }
        let Some((place, service)) = self.written.get(&key) else { return false };
        self.services.apply(&desired_of_toml(service, *place), SOURCE_TOML);
        true
    }

    /// The service table's builder: health, time, what is not in force.
    pub fn services(&mut self) -> &mut ServiceBuilder {
        &mut self.services
    }

    /// Frees what no flow refers to any more, as all workers have been through their flows with tables of generation
    /// `swept` or later. True: new tables are due.
    pub fn reclaim(&mut self, swept: u64) -> bool {
        let counters = Arc::clone(&self.counters);
        let values = |slot| SlotCounter::ALL.map(|counter| slot_sum(&counters, slot, counter));
        self.services.reclaim(swept, &values)
    }
}

/// What building services depends on beside them.
fn service_settings(configuration: &Configuration, objects: &ObjectStore) -> ServiceSettings {
    let name = configuration.node.name.as_str();
    let node_port_addresses = node_port_addresses(configuration);
    ServiceSettings {
        node: NodeIdentity { name: name.into(), zone: objects.node(name).and_then(|node| node.zone.clone()) },
        node_address: primary_addresses(configuration).first().map(|address| u32::from(*address)),
        node_port_addresses,
        drain_timeout_s: configuration.service_settings.drain_timeout_s,
    }
}

/// Which interface has which number: the host's, the underlays' in port order, the bridge's, the overlay's.
struct Numbering {
    underlays: Vec<usize>,
    has_bridge: bool,
}

impl Numbering {
    fn new(configuration: &Configuration) -> Self {
        let is_underlay = |port: &usize| configuration.ports[*port].role == PortRole::Underlay;
        Self {
            underlays: (0..configuration.ports.len()).filter(is_underlay).collect(),
            has_bridge: configuration.bridge.is_some(),
        }
    }

    fn number(&self, name: InterfaceName) -> InterfaceId {
        let underlays = self.underlays.len() as InterfaceId;
        match name {
            InterfaceName::Underlay(port) => self
                .underlays
                .iter()
                .position(|underlay| *underlay == port)
                .map_or(HOST_INTERFACE, |place| place as InterfaceId + 1),
            InterfaceName::Bridge => underlays + 1,
            InterfaceName::Overlay => underlays + 1 + InterfaceId::from(self.has_bridge),
        }
    }
}

fn interfaces(configuration: &Configuration, numbering: &Numbering, facts: &HostFacts) -> Vec<Interface> {
    let mut interfaces = vec![Interface {
        name: "host".to_owned(),
        kind: InterfaceKind::Host,
        mac: configuration.exception.as_ref().map_or(MacAddress::default(), |exception| exception.mac),
        address: configuration.node.addresses.first().map_or(0, |address| u32::from(*address)),
        mtu: if facts.host_mtu == 0 { 1500 } else { facts.host_mtu },
    }];
    for port in &numbering.underlays {
        let record = &configuration.ports[*port];
        interfaces.push(Interface {
            name: record.name.clone(),
            kind: InterfaceKind::Underlay(*port as u16),
            mac: record.mac.unwrap_or_default(),
            address: record.address.map_or(0, u32::from),
            mtu: record.mtu,
        });
    }
    if let Some(bridge) = &configuration.bridge {
        interfaces.push(Interface {
            name: bridge.name.clone(),
            kind: InterfaceKind::Bridge,
            mac: bridge.mac,
            address: bridge.address.into(),
            mtu: bridge.mtu,
        });
    }
    if let Some(overlay) = &configuration.overlay {
        interfaces.push(Interface {
            name: overlay.name.clone(),
            kind: InterfaceKind::Overlay {
                underlay: numbering.number(InterfaceName::Underlay(overlay.underlay)),
            },
            mac: overlay.mac,
            address: overlay.address.into(),
            mtu: overlay.mtu,
        });
    }
    interfaces
}

fn ports(configuration: &Configuration, numbering: &Numbering) -> Vec<PortRecord> {
    let records = configuration.ports.iter().enumerate().map(|(index, port)| match port.role {
        PortRole::Underlay => PortRecord {
            name: port.name.clone(),
            interface: numbering.number(InterfaceName::Underlay(index)),
            bridged: false,
            mac: port.mac.unwrap_or_default(),
        },
        PortRole::Pod => PortRecord {
            name: port.name.clone(),
            interface: numbering.number(InterfaceName::Bridge),
            bridged: true,
            mac: configuration.bridge.as_ref().map_or(MacAddress::default(), |bridge| bridge.mac),
        },
    });
    records.collect()
}

fn overlay(configuration: &Configuration, numbering: &Numbering) -> Option<OverlayTable> {
    let overlay = configuration.overlay.as_ref()?;
    let local = configuration.ports.get(overlay.underlay)?.address?;
    Some(OverlayTable {
        interface: numbering.number(InterfaceName::Overlay),
        underlay: numbering.number(InterfaceName::Underlay(overlay.underlay)),
        vni: overlay.vni,
        udp_port: overlay.udp_port,
        mac: overlay.mac,
        local: local.into(),
        send_udp_checksum: overlay.send_udp_checksum,
        fdb: configuration.overlay_fdb.iter().map(|entry| (entry.mac, u32::from(entry.remote))).collect(),
    })
}

fn bridge(configuration: &Configuration, numbering: &Numbering) -> Option<BridgeTable> {
    let bridge = configuration.bridge.as_ref()?;
    let is_member = |port: &usize| configuration.ports[*port].role == PortRole::Pod;
    Some(BridgeTable {
        interface: numbering.number(InterfaceName::Bridge),
        members: (0..configuration.ports.len()).filter(is_member).map(|port| port as u16).collect(),
        stations: configuration.bridge_fdb.iter().map(|entry| (entry.mac, entry.port as u16)).collect(),
        ageing_ms: bridge.ageing_s.saturating_mul(1_000),
    })
}

fn neighbours(
    configuration: &Configuration,
    numbering: &Numbering,
) -> HashMap<(InterfaceId, u32), MacAddress, FxBuildHasher> {
    let entries = configuration.neighbours.iter().map(|neighbour| {
        ((numbering.number(neighbour.interface), u32::from(neighbour.address)), neighbour.mac)
    });
    entries.collect()
}

/// Own addresses first: they win over anything else of the same length.
fn routes(configuration: &Configuration, numbering: &Numbering) -> Vec<Route> {
    let local = |address: core::net::Ipv4Addr| Route {
        prefix: Ipv4Prefix::host(address),
        via: None,
        interface: HOST_INTERFACE,
        source: RouteSource::Local,
    };
    let connected = |prefix: Ipv4Prefix, name: InterfaceName| Route {
        prefix,
        via: None,
        interface: numbering.number(name),
        source: RouteSource::Connected,
    };
    let mut routes: Vec<Route> = own_addresses(configuration).into_iter().map(local).collect();
    for (index, port) in configuration.ports.iter().enumerate() {
        routes.extend(port.prefix.map(|prefix| connected(prefix, InterfaceName::Underlay(index))));
    }
    routes
        .extend(configuration.bridge.as_ref().map(|bridge| connected(bridge.prefix, InterfaceName::Bridge)));
    routes.extend(configuration.routes.iter().map(|route| Route {
        prefix: route.destination,
        via: route.via.map(u32::from),
        interface: numbering.number(route.interface),
        source: RouteSource::Static,
    }));
    routes
}

/// Every address that the gateway itself owns.
pub fn own_addresses(configuration: &Configuration) -> Vec<core::net::Ipv4Addr> {
    let mut addresses = configuration.node.addresses.clone();
    addresses.extend(configuration.ports.iter().filter_map(|port| port.address));
    addresses.extend(configuration.bridge.as_ref().map(|bridge| bridge.address));
    addresses.extend(configuration.overlay.as_ref().map(|overlay| overlay.address));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The node's primary addresses: all of them unless some are named.
fn primary_addresses(configuration: &Configuration) -> &[core::net::Ipv4Addr] {
    let node = &configuration.node;
    if node.primary_addresses.is_empty() { &node.addresses } else { &node.primary_addresses }
}

/// The node's addresses that node ports are answered on.
pub fn node_port_addresses(configuration: &Configuration) -> Vec<u32> {
    let settings = &configuration.service_settings;
    let node = &configuration.node;
    if settings.node_port_addresses.is_empty() {
        return primary_addresses(configuration).iter().copied().map(u32::from).collect();
    }
    let selected =
        |address: &u32| settings.node_port_addresses.iter().any(|prefix| prefix.contains(*address));
    node.addresses.iter().copied().map(u32::from).filter(selected).collect()
}

fn timeouts(conntrack: &Conntrack) -> Timeouts {
    let milliseconds = |seconds: u32| seconds.saturating_mul(1_000);
    Timeouts {
        // In the order of TcpState: none, syn_sent, syn_received, established, fin_wait, close_wait, last_ack,
        // time_wait, close, syn_sent2.
        tcp_ms: [
            conntrack.tcp_syn_sent_s,
            conntrack.tcp_syn_sent_s,
            conntrack.tcp_syn_received_s,
            conntrack.tcp_established_s,
            conntrack.tcp_fin_wait_s,
            conntrack.tcp_close_wait_s,
            conntrack.tcp_last_ack_s,
            conntrack.tcp_time_wait_s,
            conntrack.tcp_close_s,
            conntrack.tcp_syn_sent_s,
        ]
        .map(milliseconds),
        udp_ms: milliseconds(conntrack.udp_s),
        udp_stream_ms: milliseconds(conntrack.udp_stream_s),
        icmp_ms: milliseconds(conntrack.icmp_s),
        generic_ms: milliseconds(conntrack.generic_s),
    }
}
