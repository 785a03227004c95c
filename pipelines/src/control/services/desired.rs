//! What is wanted of a service, whichever source says so: the configuration file, manifests, later the Kubernetes API.
//!
//! Addresses are IPv4 alone: what a dual-stack object says of IPv6 is kept apart and reported by the source. Nothing here
//! depends on the node that the gateway stands for but [`DesiredEndpoint::node`], which the build compares with its name.

use core::fmt;
use core::net::Ipv4Addr;
use std::sync::Arc;

use engine::wire::ethernet::MacAddress;

use crate::control::config::model::{Algorithm, HealthCheck, Protocol};
use crate::prefix::Ipv4Prefix;

/// Name of a service; unique over all sources, since the first one that names it keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// From text.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The object that something comes from, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Kind of the object: `Service`, `EndpointSlice`, `Endpoints`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Where it is written: `FILE:LINE`, or a key of the configuration that is looked up when somebody asks.
    pub source: Arc<str>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    /// Its name.
    pub key: ServiceKey,
    /// Where it is written.
    pub origin: Arc<Origin>,
    /// The cluster IP; none if the service has none of this family.
    pub cluster_ip: Option<Ipv4Addr>,
    /// `spec.externalIPs`
    pub external_ips: Vec<Ipv4Addr>,
    /// Load-balancer IPs that are captured here: those with `ipMode: VIP` or none.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load-balancer IPs; empty: everybody.
    pub load_balancer_source_ranges: Vec<Ipv4Prefix>,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// Session affinity by the client's address: seconds for which it holds after each new connection.
    pub affinity_s: Option<u32>,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Where load balancers ask whether this node has endpoints: only with a load balancer under `external_local`.
    pub health_check_node_port: Option<u16>,
    /// Its ports.
    pub ports: Vec<DesiredPort>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPort {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on the node's addresses.
    pub node_port: Option<u16>,
    /// Active health checks of its endpoints.
    pub health_check: Option<HealthCheck>,
    /// All endpoints, unready ones too; each address and port once.
    pub endpoints: Vec<DesiredEndpoint>,
}

/// One endpoint of a service's port.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredEndpoint {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Share of new connections; 0: drains.
    pub weight: u16,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, if it is asked; also while it terminates.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// `hints.forZones`; empty: none given.
    pub zone_hints: Arc<[Arc<str>]>,
    /// `hints.forNodes`; empty: none given.
    pub node_hints: Arc<[Arc<str>]>,
    /// The slice or other object that it comes from.
    pub origin: Arc<Origin>,
}

/// A node of the cluster, this one or another.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredNode {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is written.
    pub origin: Arc<Origin>,
    /// Its addresses, internal ones first; the first one is its primary address.
    pub addresses: Vec<Ipv4Addr>,
    /// Its pods' networks.
    pub pod_cidrs: Vec<Ipv4Prefix>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// Its end of flannel's tunnel, by flannel's annotations.
    pub vtep: Option<Vtep>,
}

/// A node's end of flannel's VXLAN network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Network identifier.
    pub vni: u32,
    /// MAC of its VXLAN device.
    pub mac: MacAddress,
    /// Where tunnel packets for it go.
    pub public_ip: Ipv4Addr,
}
