//! A configuration as far as it could be read, with the place of everything that checks may point at.
//!
//! **Invariant:** what is `None` here is either optional, or its absence has been noted as an error. So
//! [`Draft::finish`] succeeds for every draft that was read without an error.

use core::net::{Ipv4Addr, SocketAddrV4};

use engine::wire::ethernet::MacAddress;

use super::model::{self, Algorithm, Configuration, InterfaceName, PortRole, Protocol};
use super::notes::At;
use super::values::{HttpPath, InterfaceAddress, PortRange, ProbeKind, StatusRange};
use crate::prefix::Ipv4Prefix;

pub(crate) struct Draft {
    pub(crate) node: Node,
    pub(crate) dpdk: Option<model::Dpdk>,
    pub(crate) workers: Workers,
    pub(crate) control: Control,
    pub(crate) metrics: Option<model::Metrics>,
    pub(crate) ports: Vec<Port>,
    pub(crate) exception: Option<Exception>,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) fdb: Vec<Fdb>,
    pub(crate) conntrack: Option<model::Conntrack>,
    pub(crate) settings: ServiceSettings,
    pub(crate) services: Vec<Service>,
}

pub(crate) struct Node {
    pub(crate) name: Option<At<String>>,
    pub(crate) addresses: Vec<At<Ipv4Addr>>,
    pub(crate) primary_addresses: Vec<At<Ipv4Addr>>,
}

pub(crate) struct Workers {
    pub(crate) cores: Vec<At<usize>>,
    /// With no cores in it.
    pub(crate) rest: Option<model::Workers>,
}

pub(crate) struct Control {
    pub(crate) cores: Vec<At<usize>>,
    /// With no cores in it.
    pub(crate) rest: Option<model::Control>,
}

pub(crate) struct Port {
    pub(crate) name: Option<At<String>>,
    pub(crate) role: Option<At<PortRole>>,
    pub(crate) device: Option<At<String>>,
    pub(crate) mac: Option<At<MacAddress>>,
    /// None for a pod port without one: it gets the bridge's.
    pub(crate) mtu: Option<At<u16>>,
    pub(crate) address: Option<At<InterfaceAddress>>,
}

impl Port {
    pub(crate) fn has_role(&self, role: PortRole) -> bool {
        self.role.is_some_and(|own| own.value == role)
    }
}

pub(crate) struct Exception {
    pub(crate) device: Option<At<String>>,
    pub(crate) mac: Option<At<MacAddress>>,
    pub(crate) rate_pps: Option<At<u32>>,
    pub(crate) ring: Option<At<usize>>,
}

pub(crate) struct Bridge {
    pub(crate) name: Option<At<String>>,
    pub(crate) address: Option<At<InterfaceAddress>>,
    pub(crate) mac: Option<At<MacAddress>>,
    pub(crate) mtu: Option<At<u16>>,
    pub(crate) ageing_s: Option<At<u32>>,
}

pub(crate) struct Overlay {
    pub(crate) name: Option<At<String>>,
    pub(crate) underlay: Option<At<String>>,
    /// Place in `ports` of the port that `underlay` names, once that is known.
    pub(crate) underlay_port: Option<usize>,
    pub(crate) vni: Option<At<u32>>,
    pub(crate) udp_port: Option<At<u16>>,
    pub(crate) address: Option<At<Ipv4Addr>>,
    pub(crate) mac: Option<At<MacAddress>>,
    pub(crate) mtu: Option<At<u16>>,
    pub(crate) pod_network: Option<At<Ipv4Prefix>>,
    pub(crate) masquerade_egress: Option<At<bool>>,
    pub(crate) send_udp_checksum: Option<At<bool>>,
}

/// The name of an interface, and which one that is once it is known.
pub(crate) struct InterfaceReference {
    pub(crate) name: Option<At<String>>,
    pub(crate) interface: Option<InterfaceName>,
}

pub(crate) struct Route {
    pub(crate) destination: Option<At<Ipv4Prefix>>,
    pub(crate) via: Option<At<Ipv4Addr>>,
    pub(crate) on: InterfaceReference,
}

pub(crate) struct Neighbour {
    pub(crate) on: InterfaceReference,
    pub(crate) address: Option<At<Ipv4Addr>>,
    pub(crate) mac: Option<At<MacAddress>>,
}

pub(crate) struct Fdb {
    pub(crate) offset: usize,
    pub(crate) on: InterfaceReference,
    pub(crate) mac: Option<At<MacAddress>>,
    pub(crate) remote: Option<At<Ipv4Addr>>,
    pub(crate) port: Option<At<String>>,
    /// Place in `ports` of the port that `port` names, once that is known.
    pub(crate) port_place: Option<usize>,
    /// Whether the file has the keys, readable or not.
    pub(crate) has_remote: bool,
    pub(crate) has_port: bool,
}

pub(crate) struct ServiceSettings {
    pub(crate) pod_cidrs: Vec<At<Ipv4Prefix>>,
    pub(crate) service_cidrs: Vec<At<Ipv4Prefix>>,
    pub(crate) masquerade_all: Option<At<bool>>,
    pub(crate) node_port_addresses: Vec<At<Ipv4Prefix>>,
    pub(crate) node_port_range: Option<At<PortRange>>,
    pub(crate) snat_address: Option<At<Ipv4Addr>>,
    pub(crate) snat_port_range: Option<At<PortRange>>,
    pub(crate) drain_timeout_s: Option<At<u32>>,
    pub(crate) affinity_capacity: Option<At<usize>>,
}

pub(crate) struct Service {
    pub(crate) namespace: Option<At<String>>,
    pub(crate) name: Option<At<String>>,
    pub(crate) cluster_ip: Option<At<Ipv4Addr>>,
    pub(crate) algorithm: Option<At<Algorithm>>,
    pub(crate) session_affinity_s: Option<At<u32>>,
    pub(crate) ports: Vec<ServicePort>,
}

pub(crate) struct ServicePort {
    pub(crate) offset: usize,
    /// Whether the file has the key, readable or not.
    pub(crate) has_name: bool,
    pub(crate) name: Option<At<String>>,
    pub(crate) protocol: Option<At<Protocol>>,
    pub(crate) port: Option<At<u16>>,
    pub(crate) node_port: Option<At<u16>>,
    pub(crate) health_check: Option<HealthCheck>,
    pub(crate) backends: Vec<Backend>,
}

pub(crate) struct HealthCheck {
    pub(crate) offset: usize,
    pub(crate) kind: Option<At<ProbeKind>>,
    pub(crate) path: Option<At<HttpPath>>,
    pub(crate) status: Option<At<StatusRange>>,
    pub(crate) port: Option<At<u16>>,
    /// Whether the file has the key, readable or not.
    pub(crate) has_port: bool,
    pub(crate) interval_ms: Option<At<u32>>,
    pub(crate) timeout_ms: Option<At<u32>>,
    pub(crate) rise: Option<At<u32>>,
    pub(crate) fall: Option<At<u32>>,
}

pub(crate) struct Backend {
    pub(crate) address: Option<At<SocketAddrV4>>,
    pub(crate) weight: Option<At<u16>>,
}

fn values<T: Copy>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|element| element.value).collect()
}

fn value<T>(field: Option<At<T>>) -> Option<T> {
    field.map(|field| field.value)
}

impl Draft {
    /// The configuration. None when an error was noted on the way here.
    pub(crate) fn finish(self) -> Option<Configuration> {
        let bridge = self.bridge.map(|bridge| bridge.finish().ok_or(())).transpose().ok()?;
        let bridge_mtu = bridge.as_ref().map(|bridge| bridge.mtu);
        let (bridge_fdb, overlay_fdb) = finish_fdb(self.fdb)?;
        Some(Configuration {
            node: self.node.finish()?,
            dpdk: self.dpdk?,
            workers: model::Workers { cores: values(&self.workers.cores), ..self.workers.rest? },
            control: model::Control { cores: values(&self.control.cores), ..self.control.rest? },
            metrics: self.metrics,
            ports: self.ports.into_iter().map(|port| port.finish(bridge_mtu)).collect::<Option<_>>()?,
            exception: self.exception.map(|exception| exception.finish().ok_or(())).transpose().ok()?,
            bridge,
            overlay: self.overlay.map(|overlay| overlay.finish().ok_or(())).transpose().ok()?,
            routes: self.routes.into_iter().map(Route::finish).collect::<Option<_>>()?,
            neighbours: self.neighbours.into_iter().map(Neighbour::finish).collect::<Option<_>>()?,
            bridge_fdb,
            overlay_fdb,
            conntrack: self.conntrack?,
            service_settings: self.settings.finish()?,
            services: self.services.into_iter().map(Service::finish).collect::<Option<_>>()?,
        })
    }
}

impl Node {
    fn finish(self) -> Option<model::Node> {
        let addresses = values(&self.addresses);
        let primary = values(&self.primary_addresses);
        Some(model::Node { name: value(self.name)?, primary_addresses: primary, addresses })
    }
}

impl Port {
    fn finish(self, bridge_mtu: Option<u16>) -> Option<model::Port> {
        Some(model::Port {
            name: value(self.name)?,
            role: value(self.role)?,
            device: value(self.device),
            mac: value(self.mac),
            mtu: value(self.mtu).or(bridge_mtu)?,
            address: self.address.map(|at| at.value.address),
            prefix: self.address.map(|at| at.value.prefix),
        })
    }
}

impl Exception {
    fn finish(self) -> Option<model::Exception> {
        Some(model::Exception {
            device: value(self.device)?,
            rate_pps: value(self.rate_pps)?,
            mac: value(self.mac)?,
            ring: value(self.ring)?,
        })
    }
}

impl Bridge {
    fn finish(self) -> Option<model::Bridge> {
        let InterfaceAddress { address, prefix } = value(self.address)?;
        Some(model::Bridge {
            name: value(self.name)?,
            address,
            prefix,
            mac: value(self.mac)?,
            mtu: value(self.mtu)?,
            ageing_s: value(self.ageing_s)?,
        })
    }
}

impl Overlay {
    fn finish(self) -> Option<model::Overlay> {
        Some(model::Overlay {
            name: value(self.name)?,
            underlay: self.underlay_port?,
            vni: value(self.vni)?,
            udp_port: value(self.udp_port)?,
            address: value(self.address)?,
            mac: value(self.mac)?,
            mtu: value(self.mtu)?,
            pod_network: value(self.pod_network),
            masquerade_egress: value(self.masquerade_egress)?,
            send_udp_checksum: value(self.send_udp_checksum)?,
        })
    }
}

impl Route {
    fn finish(self) -> Option<model::Route> {
        Some(model::Route {
            destination: value(self.destination)?,
            via: value(self.via),
            interface: self.on.interface?,
        })
    }
}

impl Neighbour {
    fn finish(self) -> Option<model::Neighbour> {
        Some(model::Neighbour {
            interface: self.on.interface?,
            address: value(self.address)?,
            mac: value(self.mac)?,
        })
    }
}

/// Entries by what they belong to: the bridge's, then the overlay's.
fn finish_fdb(entries: Vec<Fdb>) -> Option<(Vec<model::BridgeFdb>, Vec<model::OverlayFdb>)> {
    let (mut bridge, mut overlay) = (Vec::new(), Vec::new());
    for entry in entries {
        let mac = value(entry.mac)?;
        match entry.on.interface? {
            InterfaceName::Bridge => bridge.push(model::BridgeFdb { mac, port: entry.port_place? }),
            InterfaceName::Overlay => overlay.push(model::OverlayFdb { mac, remote: value(entry.remote)? }),
            InterfaceName::Underlay(_) => return None,
        }
    }
    Some((bridge, overlay))
}

impl ServiceSettings {
    fn finish(self) -> Option<model::ServiceSettings> {
        let range = |field: Option<At<PortRange>>| value(field).map(|range| (range.first, range.last));
        Some(model::ServiceSettings {
            pod_cidrs: values(&self.pod_cidrs),
            service_cidrs: values(&self.service_cidrs),
            masquerade_all: value(self.masquerade_all)?,
            node_port_addresses: values(&self.node_port_addresses),
            node_port_range: range(self.node_port_range)?,
            snat_address: value(self.snat_address),
            snat_port_range: range(self.snat_port_range)?,
            drain_timeout_s: value(self.drain_timeout_s),
            affinity_capacity: value(self.affinity_capacity)?,
        })
    }
}

impl Service {
    fn finish(self) -> Option<model::Service> {
        Some(model::Service {
            namespace: value(self.namespace)?,
            name: value(self.name)?,
            cluster_ip: value(self.cluster_ip)?,
            algorithm: value(self.algorithm)?,
            session_affinity_s: value(self.session_affinity_s),
            ports: self.ports.into_iter().map(ServicePort::finish).collect::<Option<_>>()?,
        })
    }
}

impl ServicePort {
    fn finish(self) -> Option<model::ServicePort> {
        Some(model::ServicePort {
            name: value(self.name).unwrap_or_default(),
            protocol: value(self.protocol)?,
            port: value(self.port)?,
            node_port: value(self.node_port),
            health_check: self.health_check.map(|check| check.finish().ok_or(())).transpose().ok()?,
            backends: self.backends.into_iter().map(Backend::finish).collect::<Option<_>>()?,
        })
    }
}

impl HealthCheck {
    fn finish(self) -> Option<model::HealthCheck> {
        let probe = match value(self.kind)? {
            ProbeKind::Tcp => model::Probe::Tcp,
            ProbeKind::Http => {
                let StatusRange { first, last } = value(self.status)?;
                model::Probe::Http { path: value(self.path)?.0, status: (first, last) }
            }
        };
        Some(model::HealthCheck {
            probe,
            port: value(self.port),
            interval_ms: value(self.interval_ms)?,
            timeout_ms: value(self.timeout_ms)?,
            rise: value(self.rise)?,
            fall: value(self.fall)?,
        })
    }
}

impl Backend {
    fn finish(self) -> Option<model::Backend> {
        let address = value(self.address)?;
        Some(model::Backend { address: *address.ip(), port: address.port(), weight: value(self.weight)? })
    }
}
