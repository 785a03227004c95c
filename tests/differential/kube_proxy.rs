//! What kube-proxy makes of the objects before it writes rules: service ports with their addresses, and for each which
//! endpoints it uses. Follows kubernetes 1.35, with its gates' defaults: pkg/proxy/servicechangetracker.go, serviceport.go, endpointslicecache.go,
//! topology.go, and the informers' selectors in cmd/kube-proxy/app/server.go.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::objects::{Cluster, EndpointSlice, Metadata, Service};

/// kube-proxy's settings that matter here, and the gateway's of the same meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// `--cluster-cidr`: sources within are pods.
    pub(crate) pod_cidr: Option<&'static str>,
    /// `--masquerade-all`.
    pub(crate) masquerade_all: bool,
}

/// A port of a service that is proxied.
#[derive(Debug)]
pub(crate) struct ProxiedPort {
    /// `namespace/name/protocol/port name`, of which chains are named.
    pub(crate) name: String,
    /// As nft writes it: tcp, udp or sctp.
    pub(crate) protocol: String,
    pub(crate) cluster_ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) node_port: u16,
    pub(crate) external_ips: Vec<Ipv4Addr>,
    pub(crate) balancer_ips: Vec<Ipv4Addr>,
    pub(crate) source_ranges: Vec<String>,
    pub(crate) external_local: bool,
    pub(crate) internal_local: bool,
    /// How long a client stays with its endpoint, if it does.
    pub(crate) sticky_s: Option<u32>,
    pub(crate) endpoints: EndpointSets,
}

/// CategorizeEndpoints' results.
#[derive(Debug, Default)]
pub(crate) struct EndpointSets {
    pub(crate) cluster: Vec<SocketAddrV4>,
    pub(crate) local: Vec<SocketAddrV4>,
    /// There are some, even if none is reachable from this node.
    pub(crate) any: bool,
}

impl ProxiedPort {
    /// Reachable by another address than the cluster IP.
    pub(crate) fn is_external(&self) -> bool {
        self.node_port != 0 || !self.balancer_ips.is_empty() || !self.external_ips.is_empty()
    }
}

#[derive(Debug)]
struct Endpoint {
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    zones: Vec<String>,
    nodes: Vec<String>,
}

impl Endpoint {
    fn is_fallback(&self) -> bool {
        self.serving && self.terminating
    }
}

/// All proxied ports of a cluster, seen from a node.
pub(crate) fn ports(cluster: &Cluster, node: &str) -> Vec<ProxiedPort> {
    let zone = cluster
        .nodes
        .iter()
        .find(|known| known.metadata.name == node)
        .and_then(|node| node.metadata.labels.get("topology.kubernetes.io/zone"))
        .map_or("", String::as_str);
    let proxied = cluster.services.iter().filter(|service| is_watched(&service.metadata));
    let mut found = Vec::new();
    for service in proxied.filter(|service| service.spec.kind != "ExternalName") {
        // None for headless services and those of the other family alone.
        let Some(cluster_ip) = service.cluster_ip() else { continue };
        for port in &service.spec.ports {
            let endpoints = endpoints(cluster, service, &port.name, &port.protocol, node);
            let mut proxied = ProxiedPort {
                name: chain_base(service, &port.name, &port.protocol),
                protocol: port.protocol.to_lowercase(),
                cluster_ip,
                port: port.port,
                node_port: port.node_port,
                external_ips: service.external_ips().collect(),
                balancer_ips: service.balancer_ips(true).collect(),
                source_ranges: source_ranges(service),
                external_local: service.spec.external_traffic_policy == "Local",
                internal_local: service.spec.internal_traffic_policy == "Local",
                sticky_s: service.is_sticky().then(|| {
                    // pkg/apis/core: DefaultClientIPServiceAffinitySeconds.
                    service
                        .spec
                        .session_affinity_config
                        .as_ref()
                        .map_or(10_800, |it| it.client_ip.timeout_seconds)
                }),
                endpoints: EndpointSets::default(),
            };
            proxied.endpoints = categorize(&endpoints, &proxied, node, zone);
            found.push(proxied);
        }
    }
    found
}

/// The informers leave out what has one of these labels, services and slices alike.
fn is_watched(metadata: &Metadata) -> bool {
    ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"]
        .iter()
        .all(|label| !metadata.labels.contains_key(*label))
}

/// kube-proxy puts a hash in front, because names have a greatest length.
fn chain_base(service: &Service, port_name: &str, protocol: &str) -> String {
    let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
    format!("{namespace}/{name}/{}/{port_name}", protocol.to_lowercase())
}

fn source_ranges(service: &Service) -> Vec<String> {
    let trimmed = service.spec.load_balancer_source_ranges.iter().map(|range| range.trim().to_owned());
    trimmed.filter(|range| !range.contains(':')).collect()
}

/// The endpoints of one service port, from all its slices.
fn endpoints(
    cluster: &Cluster,
    service: &Service,
    port_name: &str,
    protocol: &str,
    node: &str,
) -> BTreeMap<SocketAddrV4, Endpoint> {
    let belongs = |slice: &&EndpointSlice| {
        let label = slice.metadata.labels.get("kubernetes.io/service-name");
        slice.metadata.namespace == service.metadata.namespace
            && label == Some(&service.metadata.name)
            && slice.address_type == "IPv4"
            && is_watched(&slice.metadata)
    };
    let mut found = BTreeMap::new();
    // kube-proxy goes through a map of slices, in no order; here it is that of the file.
    for slice in cluster.slices.iter().filter(belongs) {
        let ports = slice.ports.iter().filter(|port| port.name == port_name && port.protocol == protocol);
        for port in ports.filter_map(|port| port.port) {
            for endpoint in &slice.endpoints {
                let Some(address) = endpoint.addresses.first() else { continue };
                let address = address.parse().expect("an address of the slice's type");
                let conditions = &endpoint.conditions;
                let names =
                    |hints: &[crate::objects::Name]| hints.iter().map(|hint| hint.name.clone()).collect();
                let endpoint = Endpoint {
                    ready: conditions.ready.unwrap_or(true),
                    serving: conditions.serving.unwrap_or(true),
                    terminating: conditions.terminating.unwrap_or(false),
                    local: endpoint.node_name.as_deref() == Some(node),
                    zones: names(&endpoint.hints.for_zones),
                    nodes: names(&endpoint.hints.for_nodes),
                };
                let key = SocketAddrV4::new(address, port);
                // addEndpoints: of two with the same address, one that does not terminate wins, and the later one.
                if !endpoint.terminating || !found.contains_key(&key) {
                    found.insert(key, endpoint);
                }
            }
        }
    }
    found
}

/// Which of the endpoints each policy uses (CategorizeEndpoints).
fn categorize(
    endpoints: &BTreeMap<SocketAddrV4, Endpoint>,
    port: &ProxiedPort,
    node: &str,
    zone: &str,
) -> EndpointSets {
    let select = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddrV4> {
        endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(key, _)| *key).collect()
    };
    let or_fallback = |ready: Vec<SocketAddrV4>, fallback: &dyn Fn(&Endpoint) -> bool| {
        if ready.is_empty() { select(fallback) } else { ready }
    };
    let mut sets = EndpointSets::default();
    if !port.internal_local || port.is_external() {
        let hinted = hinted(endpoints, node, zone);
        let ready = select(&|endpoint| endpoint.ready && hinted(endpoint));
        sets.cluster = or_fallback(ready, &Endpoint::is_fallback);
        sets.any = !sets.cluster.is_empty();
    }
    if port.internal_local || (port.external_local && port.is_external()) {
        let ready = select(&|endpoint| endpoint.ready && endpoint.local);
        sets.local = or_fallback(ready, &|endpoint| endpoint.is_fallback() && endpoint.local);
        sets.any |= endpoints.values().any(|endpoint| endpoint.ready || endpoint.is_fallback());
    }
    sets
}

/// Whether topology lets an endpoint be used: by hints if every ready endpoint has one and one of them is for us, for
/// nodes before zones; else always (topologyModeFromHints, availableForTopology).
fn hinted<'a>(
    endpoints: &BTreeMap<SocketAddrV4, Endpoint>,
    node: &'a str,
    zone: &'a str,
) -> Box<dyn Fn(&Endpoint) -> bool + 'a> {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let decides = |hints: fn(&Endpoint) -> &Vec<String>, ours: &str| {
        let is_ours = |endpoint| hints(endpoint).iter().any(|hint| hint == ours);
        ready().all(|endpoint| !hints(endpoint).is_empty()) && ready().any(is_ours)
    };
    if decides(|endpoint| &endpoint.nodes, node) {
        Box::new(move |endpoint| endpoint.nodes.iter().any(|hint| hint == node))
    } else if decides(|endpoint| &endpoint.zones, zone) {
        Box::new(move |endpoint| endpoint.zones.iter().any(|hint| hint == zone))
    } else {
        Box::new(|_| true)
    }
}
