//! Endpoints objects, which came before EndpointSlices: read as if the mirroring controller had made slices of them.
//!
//! Source: staging/src/k8s.io/endpointslice and pkg/controller/endpointslicemirroring for what is mirrored,
//! `validateEndpointSubsets` of pkg/apis/core/validation/validation.go for what is refused.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};

use super::names::Names;
use super::notes::Notes;
use super::path::Path;
use super::{EndpointContent, EndpointsContent, NO_HINTS, Subset, annotations, check};
use crate::control::config::model::Protocol;
use crate::control::kubernetes::object::ObjectId;
use crate::control::services::desired::ServiceKey;

/// Keeps an Endpoints object from being mirrored to slices.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints objects that served as locks of a leader's election say nothing of endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// What an Endpoints object means: as if the mirroring controller had made slices of it.
pub(super) fn read(endpoints: &Endpoints, id: &ObjectId, notes: &mut Notes) -> EndpointsContent {
    let labels = endpoints.metadata.labels.as_ref();
    let annotations = endpoints.metadata.annotations.as_ref();
    let is_skipped = labels.and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|value| value == "true")
        || annotations.is_some_and(|annotations| annotations.contains_key(LEADER))
        || super::is_left_to_others(&endpoints.metadata);
    let key = ServiceKey { namespace: Arc::clone(&id.namespace), name: Arc::clone(&id.name) };
    let mut names = Names::new(id);
    let listed = endpoints.subsets.iter().flatten().enumerate();
    let subsets = listed.map(|(place, subset)| read_subset(subset, place, &mut names, notes)).collect();
    EndpointsContent {
        service: (!is_skipped).then_some(key),
        subsets,
        weight: annotations::weight(annotations, notes),
        ipv6: names.ipv6,
    }
}

fn read_subset(subset: &EndpointSubset, place: usize, names: &mut Names<'_>, notes: &mut Notes) -> Subset {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let unready = subset.not_ready_addresses.as_deref().unwrap_or_default();
    let path = Path::of("subsets").item(place);
    if ready.is_empty() && unready.is_empty() {
        notes.error(path, "this subset has no addresses", "give `addresses` or `notReadyAddresses`");
    }
    let mut endpoints = Vec::with_capacity(ready.len() + unready.len());
    for (is_ready, field, addresses) in [(true, "addresses", ready), (false, "notReadyAddresses", unready)] {
        for (number, address) in addresses.iter().enumerate() {
            endpoints.extend(read_address(address, is_ready, path.field(field).item(number), names, notes));
        }
    }
    Subset { ports: subset_ports(subset, place, notes), endpoints: endpoints.into() }
}

fn read_address(
    listed: &EndpointAddress,
    is_ready: bool,
    path: Path<'_>,
    names: &mut Names<'_>,
    notes: &mut Notes,
) -> Option<EndpointContent> {
    let node = names.node(listed.node_name.as_deref(), path.field("nodeName"), notes);
    Some(EndpointContent {
        address: names.v4(check::address(&listed.ip, path.field("ip"), notes)?)?,
        ready: is_ready,
        serving: is_ready,
        terminating: false,
        node,
        zone_hints: Arc::clone(&NO_HINTS),
        node_hints: Arc::clone(&NO_HINTS),
        pod: names.pod(listed.target_ref.as_ref()),
    })
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
