//! From a configuration to tables: pure, but for the counter slots it remembers.

use std::sync::Arc;

use engine::table::lpm::LpmError;
use engine::wire::ethernet::MacAddress;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::control::config::model::{Configuration, Conntrack, InterfaceName, PortRole, Service};
use crate::control::slots::Slots;
use crate::prefix::Ipv4Prefix;
use crate::table::interface::{HOST_INTERFACE, Interface, InterfaceId, InterfaceKind, PortRecord};
use crate::table::route::{Route, RouteSource, RouteTable};
use crate::table::service::{Backend, ServicePort, ServiceTable};
use crate::table::{BridgeTable, MasqueradeRules, OverlayTable, SlotCounters, Tables, Timeouts};

/// What only the running process knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFacts {
    /// MAC of the exception link's Linux side.
    pub host_mac: MacAddress,
    /// Largest IP packet of the exception link; 0: none.
    pub host_mtu: u16,
}

/// Builds one generation after another.
pub struct Builder {
    facts: HostFacts,
    worker_count: usize,
    slots: Slots,
    /// Slots of all backends that each service port has ever had, by its title.
    backend_slots: std::collections::HashMap<String, std::collections::BTreeSet<u32>>,
    generation: u64,
    counters: Arc<Vec<SlotCounters>>,
}

impl Builder {
    /// A builder for this many workers.
    pub fn new(worker_count: usize, facts: HostFacts) -> Self {
        let counters = Arc::new(vec![SlotCounters::default(); worker_count.max(1)]);
        Self {
            facts,
            worker_count: worker_count.max(1),
            slots: Slots::default(),
            backend_slots: std::collections::HashMap::new(),
            generation: 0,
            counters,
        }
    }

    /// The tables of a configuration. Fails only with more routes than a table holds.
    pub fn build(&mut self, configuration: &Configuration) -> Result<Tables, LpmError> {
        let numbering = Numbering::new(configuration);
        let interfaces = interfaces(configuration, &numbering, &self.facts);
        let services = self.services(configuration);
        let slot_count = self.slots.len();
        let grown: Vec<SlotCounters> =
            self.counters.iter().map(|counters| counters.grown(slot_count)).collect();
        debug_assert_eq!(grown.len(), self.worker_count);
        self.counters = Arc::new(grown);
        self.generation += 1;
        let settings = &configuration.service_settings;
        Ok(Tables {
            generation: self.generation,
            ports: ports(configuration, &numbering),
            overlay: overlay(configuration, &numbering),
            bridge: bridge(configuration, &numbering),
            neighbours: neighbours(configuration, &numbering),
            routes: Arc::new(RouteTable::build(routes(configuration, &numbering))?),
            services: ServiceTable::build(services, &node_port_addresses(configuration)),
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
            interfaces,
        })
    }

    fn services(&mut self, configuration: &Configuration) -> Vec<Arc<ServicePort>> {
        let mut ports = Vec::new();
        for service in &configuration.services {
            for index in 0..service.ports.len() {
                ports.push(Arc::new(self.service_port(service, index)));
            }
        }
        ports
    }

    fn service_port(&mut self, service: &Service, index: usize) -> ServicePort {
        let port = &service.ports[index];
        let mut service_port = ServicePort {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port_name: port.name.clone(),
            protocol: port.protocol,
            cluster_ip: service.cluster_ip.into(),
            port: port.port,
            node_port: port.node_port,
            ..ServicePort::default()
        };
        let title = format!("{} {}/{}", service_port.title(), port.port, port.protocol.name());
        service_port.slot = self.slots.number(&title);
        service_port.backends = port
            .backends
            .iter()
            .map(|backend| Backend {
                address: backend.address.into(),
                port: backend.port,
                weight: backend.weight,
                slot: self.slots.number(&format!("{title} {}:{}", backend.address, backend.port)),
            })
            .collect();
        let counted = self.backend_slots.entry(title).or_default();
        counted.extend(service_port.backends.iter().map(|backend| backend.slot));
        service_port.counted_slots = counted.iter().copied().collect();
        service_port.prepare()
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

/// The node's addresses that node ports are answered on.
pub fn node_port_addresses(configuration: &Configuration) -> Vec<u32> {
    let settings = &configuration.service_settings;
    let node = &configuration.node;
    if settings.node_port_addresses.is_empty() {
        let primary =
            if node.primary_addresses.is_empty() { &node.addresses } else { &node.primary_addresses };
        return primary.iter().copied().map(u32::from).collect();
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
