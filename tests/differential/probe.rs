//! Which packets are sent: from every kind of source to every address, port and protocol that the objects name, to others
//! beside them, and from every endpoint to its own services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::kube_proxy::ProxiedPort;
use crate::objects::{Cluster, Service};
use crate::packet::{FirstPacket, Protocol};

/// The service CIDR, and an address in it that no service has.
pub(crate) const SERVICE_CIDR: &str = "10.254.0.0/16";
const UNALLOCATED: Ipv4Addr = Ipv4Addr::new(10, 254, 250, 1);
/// A port that no service has.
const UNKNOWN_PORT: u16 = 9;
/// Clients of a kind have neighbours, for services whose clients stay with an endpoint.
const NEIGHBOURS: u32 = 64;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// A client in the node's network.
    Near,
    /// A client behind a router.
    Far,
    /// A pod of this node that is no endpoint.
    Pod,
    /// A pod of another node.
    RemotePod,
    /// The node itself, by its primary address.
    Node,
    /// The node itself, by the address it has in the pod network.
    NodeAsPod,
    /// An endpoint of the service that is asked.
    Endpoint,
}

const CLIENTS: [(Origin, Ipv4Addr); 6] = [
    (Origin::Near, Ipv4Addr::new(192, 168, 0, 128)),
    (Origin::Far, Ipv4Addr::new(203, 0, 113, 128)),
    (Origin::Pod, Ipv4Addr::new(172, 30, 76, 128)),
    (Origin::RemotePod, Ipv4Addr::new(172, 30, 9, 128)),
    (Origin::Node, Ipv4Addr::new(192, 168, 0, 21)),
    (Origin::NodeAsPod, Ipv4Addr::new(172, 30, 76, 1)),
];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Aim {
    ClusterIp,
    ExternalIp,
    BalancerIp,
    NodePort,
    /// A node port on an address of the node that is not a primary one.
    NodePortElsewhere,
    /// A cluster IP in force, with a port or a protocol that its service has not.
    UnknownPort,
    /// Another address that a service has, or has in its object alone, likewise.
    NotServed,
    /// An address in the service CIDR that no service has.
    Unallocated,
    /// An endpoint, past all services.
    Direct,
}

/// One kind of packet.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) packet: FirstPacket,
    /// The packet's source first; more where it matters that clients differ.
    pub(crate) sources: Vec<Ipv4Addr>,
    pub(crate) origin: Origin,
    pub(crate) aim: Aim,
    /// The service whose address this is, by name.
    pub(crate) service: String,
    /// A client stays with its endpoint.
    pub(crate) is_sticky: bool,
}

impl Probe {
    /// A service's address, port and protocol are asked for.
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.aim, Aim::ClusterIp | Aim::ExternalIp | Aim::BalancerIp | Aim::NodePort)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { packet, origin, aim, service, .. } = self;
        write!(formatter, "{packet} ({origin:?} to {aim:?} {service})")
    }
}

/// All probes for a cluster, each once. `ports` tell which endpoints are whose.
pub(crate) fn probes(cluster: &Cluster, ports: &[ProxiedPort], node_address: Ipv4Addr) -> Vec<Probe> {
    let mut found = BTreeMap::new();
    for service in &cluster.services {
        served(service, ports, node_address, &mut found);
    }
    let named: Vec<(Ipv4Addr, String)> = cluster.services.iter().flat_map(addresses).collect();
    for (address, service) in named {
        let is_cluster_ip = ports.iter().any(|port| port.cluster_ip == address);
        let aim = if is_cluster_ip { Aim::UnknownPort } else { Aim::NotServed };
        not_served(address, aim, &service, &mut found);
    }
    not_served(UNALLOCATED, Aim::Unallocated, "", &mut found);
    let endpoints: BTreeSet<SocketAddrV4> =
        ports.iter().flat_map(|port| port.endpoints.cluster.iter().copied()).collect();
    for endpoint in endpoints.iter().take(4) {
        for (origin, source) in CLIENTS {
            if source != *endpoint.ip() {
                let packet = packet(Protocol::Tcp, source, *endpoint.ip(), endpoint.port());
                add(packet, origin, Aim::Direct, "", &mut found);
            }
        }
    }
    found.into_values().collect()
}

type Found = BTreeMap<FirstPacket, Probe>;

fn packet(protocol: Protocol, source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> FirstPacket {
    FirstPacket { protocol, source, destination, port }
}

fn add<'a>(
    packet: FirstPacket,
    origin: Origin,
    aim: Aim,
    service: &str,
    found: &'a mut Found,
) -> &'a mut Probe {
    let probe = Probe {
        packet,
        sources: vec![packet.source],
        origin,
        aim,
        service: service.to_owned(),
        is_sticky: false,
    };
    // What is asked for by two reasons is asked once, for the first.
    found.entry(packet).or_insert(probe)
}

/// The addresses that a service has, and those that it would have if it were proxied.
fn addresses(service: &Service) -> Vec<(Ipv4Addr, String)> {
    let cluster_ip = service.cluster_ip().into_iter();
    let all = cluster_ip.chain(service.external_ips()).chain(service.balancer_ips(false));
    all.map(|address| (address, service.metadata.name.clone())).collect()
}

/// Every way to every port of a service, from everywhere and from each of its endpoints.
fn served(service: &Service, ports: &[ProxiedPort], node_address: Ipv4Addr, found: &mut Found) {
    for port in &service.spec.ports {
        let protocol = Protocol::named(&port.protocol);
        let mut ways: Vec<(Aim, Ipv4Addr, u16)> = Vec::new();
        ways.extend(service.cluster_ip().map(|address| (Aim::ClusterIp, address, port.port)));
        ways.extend(service.external_ips().map(|address| (Aim::ExternalIp, address, port.port)));
        ways.extend(service.balancer_ips(false).map(|address| (Aim::BalancerIp, address, port.port)));
        if port.node_port != 0 {
            ways.push((Aim::NodePort, node_address, port.node_port));
            ways.push((Aim::NodePortElsewhere, Ipv4Addr::new(172, 30, 76, 1), port.node_port));
        }
        let own = ports.iter().filter(|proxied| {
            let base = format!("{}/{}/", service.metadata.namespace, service.metadata.name);
            proxied.name.starts_with(&base) && proxied.name.ends_with(&format!("/{}", port.name))
        });
        let own: BTreeSet<Ipv4Addr> = own
            .flat_map(|proxied| proxied.endpoints.cluster.iter().chain(&proxied.endpoints.local))
            .map(|endpoint| *endpoint.ip())
            .collect();
        for (aim, address, number) in ways {
            let clients = CLIENTS.into_iter();
            for (origin, source) in clients.chain(own.iter().map(|address| (Origin::Endpoint, *address))) {
                if source == address {
                    // No wire has packets from an address to itself, and the gateway's pipeline not even those of the
                    // node: its own stack keeps them.
                    continue;
                }
                let packet = packet(protocol, source, address, number);
                let probe = add(packet, origin, aim, &service.metadata.name, found);
                probe.is_sticky = service.is_sticky();
                if probe.is_sticky && !matches!(origin, Origin::Node | Origin::NodeAsPod | Origin::Endpoint) {
                    let first = u32::from(source);
                    probe.sources = (first..first + NEIGHBOURS).map(Ipv4Addr::from).collect();
                }
            }
        }
    }
}

/// Every protocol to a port of an address that nobody has.
fn not_served(address: Ipv4Addr, aim: Aim, service: &str, found: &mut Found) {
    use Origin::{Near, Node, Pod};
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Echo, Protocol::Gre];
    for (origin, source) in CLIENTS.into_iter().filter(|(origin, _)| matches!(origin, Near | Pod | Node)) {
        for protocol in protocols.into_iter().filter(|_| source != address) {
            let has_ports = !matches!(protocol, Protocol::Echo | Protocol::Gre);
            let port = if has_ports { UNKNOWN_PORT } else { 0 };
            add(packet(protocol, source, address, port), origin, aim, service, found);
        }
    }
}
