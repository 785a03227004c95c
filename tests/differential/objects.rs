//! The Kubernetes objects of a scenario, as the API server would hand them out: with its defaults filled in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::yaml;

/// What a service proxy watches.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    pub(crate) slices: Vec<EndpointSlice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metadata {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    #[expect(dead_code, reason = "no service proxy reads it; the manifests have it as clusters do")]
    spec: Value,
    pub(crate) status: NodeStatus,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) metadata: Metadata,
    pub(crate) spec: ServiceSpec,
    #[serde(default)]
    pub(crate) status: ServiceStatus,
}

/// Fields that no service proxy reads are known by name, so that a misspelt one is found.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) ip_families: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: Vec<IpAddr>,
    pub(crate) external_traffic_policy: String,
    pub(crate) internal_traffic_policy: String,
    pub(crate) load_balancer_source_ranges: Vec<String>,
    pub(crate) session_affinity: String,
    pub(crate) session_affinity_config: Option<AffinityConfig>,
    pub(crate) ports: Vec<ServicePort>,
    #[serde(rename = "selector")]
    _selector: Value,
    #[serde(rename = "externalName")]
    _external_name: Value,
    #[serde(rename = "healthCheckNodePort")]
    _health_check_node_port: Value,
    #[serde(rename = "ipFamilyPolicy")]
    _ip_family_policy: Value,
    #[serde(rename = "publishNotReadyAddresses")]
    _publish_not_ready_addresses: Value,
    #[serde(rename = "trafficDistribution")]
    _traffic_distribution: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: ClientIp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClientIp {
    pub(crate) timeout_seconds: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default = "tcp")]
    pub(crate) protocol: String,
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) node_port: u16,
    #[serde(default, rename = "targetPort")]
    _target_port: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ServiceStatus {
    pub(crate) load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoadBalancer {
    pub(crate) ingress: Vec<Ingress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Ingress {
    pub(crate) ip: Option<IpAddr>,
    #[serde(default)]
    pub(crate) ip_mode: Option<String>,
    #[serde(default, rename = "hostname")]
    _hostname: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Metadata,
    pub(crate) address_type: String,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointPort {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default = "tcp")]
    pub(crate) protocol: String,
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub(crate) addresses: Vec<String>,
    pub(crate) node_name: Option<String>,
    #[serde(default)]
    pub(crate) conditions: Conditions,
    #[serde(default)]
    pub(crate) hints: Hints,
    #[serde(default, rename = "zone")]
    _zone: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Hints {
    pub(crate) for_zones: Vec<Name>,
    pub(crate) for_nodes: Vec<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Name {
    pub(crate) name: String,
}

/// The API server's default for the protocol of a port (pkg/apis/core/v1/defaults.go, pkg/apis/discovery/v1/defaults.go).
fn tcp() -> String {
    "TCP".to_owned()
}

impl Cluster {
    pub(crate) fn read(file: &Path) -> Cluster {
        let text = std::fs::read_to_string(file).expect("the manifests are readable");
        let mut cluster = Cluster::default();
        for document in yaml::documents(&text) {
            cluster.add(document);
        }
        cluster
    }

    fn add(&mut self, mut object: Value) {
        let kind = object["kind"].as_str().expect("every object has a kind").to_owned();
        let members = object.as_object_mut().expect("an object is a mapping");
        members.remove("kind");
        members.remove("apiVersion").expect("every object has an apiVersion");
        match kind.as_str() {
            "List" => {
                let items = members.remove("items").and_then(|items| items.as_array().cloned());
                items.expect("a list has items").into_iter().for_each(|item| self.add(item));
            }
            "Node" => self.nodes.push(typed(object)),
            "Service" => self.services.push(typed(object)),
            "EndpointSlice" => self.slices.push(typed(object)),
            // kube-proxy reads slices alone.
            "Endpoints" => {}
            other => panic!("no kind {other} is used here"),
        }
    }

    /// IPv4 addresses of a node that are of type InternalIP.
    pub(crate) fn internal_addresses(&self, node: &str) -> Vec<Ipv4Addr> {
        let node = self.nodes.iter().find(|known| known.metadata.name == node).expect("the node is there");
        let internal = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
        internal.filter_map(|address| address.address.parse().ok()).collect()
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> T {
    let text = object.to_string();
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error} in {text}"))
}

impl Service {
    /// The cluster IP of IPv4, if it has one (pkg/proxy/util/utils.go, GetClusterIPByFamily).
    pub(crate) fn cluster_ip(&self) -> Option<Ipv4Addr> {
        let spec = &self.spec;
        let family = spec.ip_families.iter().position(|family| family == "IPv4");
        let text = match family {
            Some(place) => spec.cluster_ips.get(place)?,
            None if spec.ip_families.is_empty() => &spec.cluster_ip,
            None => return None,
        };
        text.parse().ok()
    }

    pub(crate) fn external_ips(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.spec.external_ips.iter().filter_map(|address| ipv4(*address))
    }

    /// Addresses of load balancers of IPv4; of mode VIP, or of any mode.
    pub(crate) fn balancer_ips(&self, vip_only: bool) -> impl Iterator<Item = Ipv4Addr> {
        let captured =
            move |ingress: &&Ingress| !vip_only || ingress.ip_mode.as_ref().is_none_or(|mode| mode == "VIP");
        let ingress = self.status.load_balancer.ingress.iter().filter(captured);
        ingress.filter_map(|ingress| ipv4(ingress.ip?))
    }

    pub(crate) fn is_sticky(&self) -> bool {
        self.spec.session_affinity == "ClientIP"
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
