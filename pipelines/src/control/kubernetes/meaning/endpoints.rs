//! EndpointSlices, and the Endpoints objects that came before them.
//!
//! Source: pkg/proxy/endpointslicecache.go (`addEndpoints`, `endpointSliceCacheKeys`) for what slices mean,
//! pkg/apis/discovery/validation/validation.go and `validateEndpointSubsets` of pkg/apis/core/validation/validation.go for
//! what is refused, staging/src/k8s.io/endpointslice/mirroring for Endpoints. One difference on purpose: `serving` that is
//! absent follows `ready`, as the API's description has it, where kube-proxy takes it for true.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use super::notes::{Notes, shown};
use super::path::Path;
use super::{EndpointContent, EndpointsContent, NO_HINTS, Subset, annotations, check};
use crate::control::config::model::Protocol;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::object::{Kind, ObjectId};
use crate::control::services::desired::ServiceKey;

/// Names the service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Keeps an Endpoints object from being mirrored to slices.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints objects that served as locks of a leader's election say nothing of endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// What an EndpointSlice means.
pub(super) fn read_slice(slice: &EndpointSlice, id: &ObjectId, notes: &mut Notes) -> EndpointsContent {
    let listed = slice.endpoints.as_deref().unwrap_or_default();
    if listed.len() > limits::SLICE_ENDPOINTS {
        let right =
            format!("give {} at the most, and the others in slices of their own", limits::SLICE_ENDPOINTS);
        notes.error("endpoints", format!("{} endpoints", listed.len()), right);
    }
    let mut names = Names::new(id);
    let mut endpoints = Vec::new();
    for (place, endpoint) in listed.iter().take(limits::SLICE_ENDPOINTS).enumerate() {
        endpoints.extend(names.read_endpoint(slice, endpoint, place, id, notes));
    }
    let subset = Subset { ports: slice_ports(slice, notes), endpoints: endpoints.into() };
    EndpointsContent {
        service: service_of(slice, id, notes),
        subsets: Box::new([subset]),
        weight: annotations::weight(slice.metadata.annotations.as_ref(), notes),
        ipv6: names.ipv6,
    }
}

/// The service of a slice, for slices of every family.
fn service_of(slice: &EndpointSlice, id: &ObjectId, notes: &mut Notes) -> Option<ServiceKey> {
    match slice.address_type.as_str() {
        "IPv4" | "IPv6" | "FQDN" => {}
        other => {
            let wrong = format!("{} is no type of addresses", shown(other));
            notes.error("addressType", wrong, "give IPv4, IPv6 or FQDN");
        }
    }
    if super::is_left_to_others(&slice.metadata) {
        return None;
    }
    let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let right = format!("give the label {SERVICE_NAME}");
        notes.warning("metadata.labels", "this slice belongs to no service", right);
        return None;
    };
    Some(ServiceKey { namespace: Arc::clone(&id.namespace), name: name.as_str().into() })
}

/// Ports that have a number. One without stands for all ports, and kube-proxy leaves it out.
fn slice_ports(slice: &EndpointSlice, notes: &mut Notes) -> Box<[(Arc<str>, Protocol, u16)]> {
    let listed = slice.ports.as_deref().unwrap_or_default();
    if listed.len() > limits::SLICE_PORTS {
        let right = format!("give {} at the most", limits::SLICE_PORTS);
        notes.error("ports", format!("{} ports", listed.len()), right);
    }
    let mut names = HashSet::new();
    let mut ports = Vec::new();
    for (place, port) in listed.iter().take(limits::SLICE_PORTS).enumerate() {
        let EndpointPort { name, port, protocol, .. } = port;
        let name = name.as_deref().unwrap_or_default();
        check::port_name(name, Path::of("ports").item(place).field("name"), notes);
        if !names.insert(name) {
            let wrong = format!("{} is the name of another port too", shown(name));
            notes.error(Path::of("ports").item(place).field("name"), wrong, "give each port its own name");
        }
        let protocol =
            check::protocol(protocol.as_deref(), Path::of("ports").item(place).field("protocol"), notes);
        let number = port.filter(|port| *port != 0);
        let number =
            number.and_then(|port| check::port(port, Path::of("ports").item(place).field("port"), notes));
        if let (Some(protocol), Some(number)) = (protocol, number) {
            ports.push((Arc::from(name), protocol, number));
        }
    }
    ports.into()
}

/// Names that endpoints of one object share, so that each is held once.
#[derive(Default)]
struct Names {
    known: HashSet<Arc<str>>,
    hints: HashSet<Arc<[Arc<str>]>>,
    /// Endpoints of IPv6 that were met.
    ipv6: usize,
}

impl Names {
    fn new(id: &ObjectId) -> Self {
        Self { known: HashSet::from([Arc::clone(&id.namespace)]), ..Self::default() }
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }

    /// An endpoint of a slice; none if it is of another family, or wrong.
    fn read_endpoint(
        &mut self,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        place: usize,
        id: &ObjectId,
        notes: &mut Notes,
    ) -> Option<EndpointContent> {
        let address = slice_address(slice, endpoint, place, notes);
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let node = self.node(
            endpoint.node_name.as_deref(),
            Path::of("endpoints").item(place).field("nodeName"),
            notes,
        );
        let hints = endpoint.hints.as_ref();
        let (zone_hints, node_hints) = self.hints(hints, place, notes);
        let address = self.v4(address?)?;
        Some(EndpointContent {
            address,
            ready,
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
            node,
            zone_hints,
            node_hints,
            pod: self.pod(endpoint.target_ref.as_ref(), id),
        })
    }

    /// IPv4 is told, IPv6 is counted.
    fn v4(&mut self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => {
                self.ipv6 += 1;
                None
            }
        }
    }

    fn node(&mut self, name: Option<&str>, path: Path<'_>, notes: &mut Notes) -> Option<Arc<str>> {
        let name = name?;
        if !check::is_dns_subdomain(name) {
            notes.error(path, format!("{} is no name of a node", shown(name)), check::SUBDOMAIN);
            return None;
        }
        Some(self.name(name))
    }

    /// `hints.forZones` and `hints.forNodes`. Whether they count is decided where the node is known.
    fn hints(
        &mut self,
        hints: Option<&EndpointHints>,
        place: usize,
        notes: &mut Notes,
    ) -> (Arc<[Arc<str>]>, Arc<[Arc<str>]>) {
        let Some(hints) = hints else { return (Arc::clone(&NO_HINTS), Arc::clone(&NO_HINTS)) };
        let zones: Vec<&str> = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect();
        let nodes: Vec<&str> = hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect();
        for (field, names) in [("hints.forZones", &zones), ("hints.forNodes", &nodes)] {
            if names.len() > limits::ENDPOINT_HINTS {
                let path = Path::of("endpoints").item(place).field(field);
                let right = format!("give {} at the most", limits::ENDPOINT_HINTS);
                notes.error(path, format!("{} hints", names.len()), right);
            }
        }
        (self.hint_list(&zones), self.hint_list(&nodes))
    }

    /// The pod behind an endpoint.
    fn pod(&mut self, target: Option<&ObjectReference>, id: &ObjectId) -> Option<Arc<ObjectId>> {
        let target = target.filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let name = target.name.as_deref()?.into();
        let namespace = self.name(target.namespace.as_deref().unwrap_or(&id.namespace));
        Some(Arc::new(ObjectId { kind: Kind::Pod, namespace, name }))
    }

    fn hint_list(&mut self, names: &[&str]) -> Arc<[Arc<str>]> {
        if names.is_empty() {
            return Arc::clone(&NO_HINTS);
        }
        let list: Vec<Arc<str>> =
            names.iter().take(limits::ENDPOINT_HINTS).map(|name| self.name(name)).collect();
        if let Some(known) = self.hints.get(list.as_slice()) {
            return Arc::clone(known);
        }
        let list: Arc<[Arc<str>]> = list.into();
        self.hints.insert(Arc::clone(&list));
        list
    }
}

/// The address of an endpoint. All of its addresses are one endpoint's, and consumers use the first alone
/// (kubernetes issue 106267).
fn slice_address(
    slice: &EndpointSlice,
    endpoint: &Endpoint,
    place: usize,
    notes: &mut Notes,
) -> Option<IpAddr> {
    let listed = &endpoint.addresses;
    let path = Path::of("endpoints").item(place).field("addresses");
    if listed.is_empty() {
        notes.error(path, "this endpoint has no address", "give one");
    } else if listed.len() > limits::ENDPOINT_ADDRESSES {
        let right = format!("give {} at the most", limits::ENDPOINT_ADDRESSES);
        notes.error(path, format!("{} addresses", listed.len()), right);
    }
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        return None;
    }
    let mut first = None;
    for (number, text) in listed.iter().take(limits::ENDPOINT_ADDRESSES).enumerate() {
        let path = Path::of("endpoints").item(place).field("addresses").item(number);
        let Some(address) = check::address(text, path, notes) else { continue };
        if address.is_ipv4() != (slice.address_type == "IPv4") {
            let wrong = format!("{address} is not of the family {}", slice.address_type);
            notes.error(path, wrong, "keep the families in slices of their own");
        }
        first = first.or(Some(address));
    }
    first
}

/// What an Endpoints object means: as if the mirroring controller had made slices of it.
pub(super) fn read_endpoints(endpoints: &Endpoints, id: &ObjectId, notes: &mut Notes) -> EndpointsContent {
    let labels = endpoints.metadata.labels.as_ref();
    let annotations = endpoints.metadata.annotations.as_ref();
    let is_skipped = labels.and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|value| value == "true")
        || annotations.is_some_and(|annotations| annotations.contains_key(LEADER))
        || super::is_left_to_others(&endpoints.metadata);
    let key = ServiceKey { namespace: Arc::clone(&id.namespace), name: Arc::clone(&id.name) };
    let mut names = Names::new(id);
    let listed = endpoints.subsets.iter().flatten().enumerate();
    let subsets = listed.map(|(place, subset)| names.read_subset(subset, place, id, notes)).collect();
    EndpointsContent {
        service: (!is_skipped).then_some(key),
        subsets,
        weight: annotations::weight(annotations, notes),
        ipv6: names.ipv6,
    }
}

impl Names {
    fn read_subset(
        &mut self,
        subset: &EndpointSubset,
        place: usize,
        id: &ObjectId,
        notes: &mut Notes,
    ) -> Subset {
        let ready = subset.addresses.as_deref().unwrap_or_default();
        let unready = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && unready.is_empty() {
            let path = Path::of("subsets").item(place);
            notes.error(path, "this subset has no addresses", "give `addresses` or `notReadyAddresses`");
        }
        let mut endpoints = Vec::with_capacity(ready.len() + unready.len());
        for (is_ready, field, addresses) in
            [(true, "addresses", ready), (false, "notReadyAddresses", unready)]
        {
            for (number, address) in addresses.iter().enumerate() {
                let path = Path::of("subsets").item(place).field(field).item(number);
                endpoints.extend(self.read_address(address, is_ready, path, id, notes));
            }
        }
        Subset { ports: subset_ports(subset, place, notes), endpoints: endpoints.into() }
    }

    fn read_address(
        &mut self,
        listed: &EndpointAddress,
        is_ready: bool,
        path: Path<'_>,
        id: &ObjectId,
        notes: &mut Notes,
    ) -> Option<EndpointContent> {
        let node = self.node(listed.node_name.as_deref(), path.field("nodeName"), notes);
        let address = self.v4(check::address(&listed.ip, path.field("ip"), notes)?)?;
        Some(EndpointContent {
            address,
            ready: is_ready,
            serving: is_ready,
            terminating: false,
            node,
            zone_hints: Arc::clone(&NO_HINTS),
            node_hints: Arc::clone(&NO_HINTS),
            pod: self.pod(listed.target_ref.as_ref(), id),
        })
    }
}

fn subset_ports(
    subset: &EndpointSubset,
    place: usize,
    notes: &mut Notes,
) -> Box<[(Arc<str>, Protocol, u16)]> {
    let listed = subset.ports.as_deref().unwrap_or_default();
    let mut ports = Vec::new();
    for (number, port) in listed.iter().enumerate() {
        let path = Path::of("subsets").item(place).field("ports").item(number);
        let name = port.name.as_deref().unwrap_or_default();
        check::port_name(name, path.field("name"), notes);
        if name.is_empty() && listed.len() > 1 {
            let right = "name each port, since there are several";
            notes.error(path.field("name"), "this port has no name", right);
        }
        let protocol = check::protocol(port.protocol.as_deref(), path.field("protocol"), notes);
        let port = check::port(port.port, path.field("port"), notes);
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push((Arc::from(name), protocol, port));
        }
    }
    ports.into()
}
