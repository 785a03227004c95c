//! EndpointSlices.
//!
//! Source: pkg/proxy/endpointslicecache.go (`addEndpoints`, `endpointSliceCacheKeys`) for what they mean,
//! pkg/apis/discovery/validation/validation.go for what is refused. One difference on purpose: `serving` that is absent
//! follows `ready`, as the API described it when it came; kube-proxy, and the API's newer text, take it for true.

use core::net::IpAddr;
use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::names::Names;
use super::notes::{Notes, shown};
use super::path::Path;
use super::{EndpointContent, EndpointsContent, Subset, annotations, check};
use crate::control::config::model::Protocol;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::object::ObjectId;
use crate::control::services::desired::ServiceKey;

/// Names the service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What an EndpointSlice means.
pub(super) fn read(slice: &EndpointSlice, id: &ObjectId, notes: &mut Notes) -> EndpointsContent {
    let listed = slice.endpoints.as_deref().unwrap_or_default();
    if listed.len() > limits::SLICE_ENDPOINTS {
        let right =
            format!("give {} at the most, and the others in slices of their own", limits::SLICE_ENDPOINTS);
        notes.error("endpoints", format!("{} endpoints", listed.len()), right);
    }
    let mut names = Names::new(id);
    let mut endpoints = Vec::new();
    for (place, endpoint) in listed.iter().take(limits::SLICE_ENDPOINTS).enumerate() {
        endpoints.extend(read_endpoint(slice, endpoint, place, &mut names, notes));
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

/// An endpoint of a slice; none if it is of another family, or wrong.
fn read_endpoint(
    slice: &EndpointSlice,
    endpoint: &Endpoint,
    place: usize,
    names: &mut Names<'_>,
    notes: &mut Notes,
) -> Option<EndpointContent> {
    let address = slice_address(slice, endpoint, place, notes);
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let path = Path::of("endpoints").item(place);
    let node = names.node(endpoint.node_name.as_deref(), path.field("nodeName"), notes);
    let (zone_hints, node_hints) = names.hints(endpoint.hints.as_ref(), place, notes);
    Some(EndpointContent {
        address: names.v4(address?)?,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node,
        zone_hints,
        node_hints,
        pod: names.pod(endpoint.target_ref.as_ref()),
    })
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
