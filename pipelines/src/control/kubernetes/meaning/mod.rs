//! What objects mean: typed objects to what the store holds, small and checked, and notes on what is wrong.

pub(super) mod annotations;
mod check;
mod cluster_ips;
mod endpoints;
mod names;
mod node;
pub(super) mod notes;
mod path;
mod ports;
mod service;
mod slice;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::notes::{Notes, shown};
use super::object::{Kind, Object, ObjectId};
use crate::control::config::model::Protocol;
use crate::control::services::desired::{DesiredNode, DesiredService, ServiceKey};

/// What the store holds of an object. Says nothing of where it is written, so that two are equal if they mean the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Node(DesiredNode),
    Service(Box<ServiceContent>),
    /// An EndpointSlice or an Endpoints object.
    Endpoints(EndpointsContent),
    Namespace,
    Pod(PodContent),
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceContent {
    /// All of it but the endpoints, and the place, which the store knows.
    pub(super) desired: DesiredService,
    /// Whether it is programmed.
    pub(super) programmed: Programmed,
    /// Its addresses of IPv6: not programmed yet.
    pub(super) ipv6: Box<[Ipv6Addr]>,
    /// Weights of its endpoints, in order of address.
    pub(super) weights: Box<[(Ipv4Addr, u16)]>,
}

/// Whether a service is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programmed {
    /// It is.
    Yes,
    /// Its cluster IPs are of IPv6 alone.
    Ipv6,
    /// Not by any proxy of this kind: headless, an external name, another proxy's, without an address.
    No,
}

/// The endpoints that one object tells of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndpointsContent {
    /// The service they belong to; none if they are not programmed.
    pub(super) service: Option<ServiceKey>,
    /// Endpoints that share ports; one for a slice.
    pub(super) subsets: Box<[Subset]>,
    /// The weight of all of them.
    pub(super) weight: Option<u16>,
    /// How many endpoints of IPv6 there are besides: not programmed yet.
    pub(super) ipv6: usize,
}

impl EndpointsContent {
    /// The pods behind the endpoints.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<ObjectId>> {
        self.subsets.iter().flat_map(|subset| &subset.endpoints).filter_map(|endpoint| endpoint.pod.as_ref())
    }
}

/// Endpoints that share ports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subset {
    /// Ports by name and protocol.
    pub(super) ports: Box<[(Arc<str>, Protocol, u16)]>,
    /// Endpoints of IPv4.
    pub(super) endpoints: Box<[EndpointContent]>,
}

/// An endpoint, at all ports of its subset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndpointContent {
    pub(super) address: Ipv4Addr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) node: Option<Arc<str>>,
    pub(super) zone_hints: Hints,
    pub(super) node_hints: Hints,
    /// The pod behind it.
    pub(super) pod: Option<Arc<ObjectId>>,
}

/// Names of zones or nodes.
pub(super) type Hints = Arc<[Arc<str>]>;

/// No hints: most endpoints have none, and share this.
pub(super) static NO_HINTS: LazyLock<Hints> = LazyLock::new(|| Arc::from([]));

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodContent {
    /// The weight of its endpoints.
    pub(super) weight: Option<u16>,
}

/// A label that leaves an object to another proxy, whatever its value
/// (pkg/proxy/apis/well_known_labels.go, and the informers' selector in cmd/kube-proxy/app/server.go).
pub(super) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// A label that keeps all proxies away.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Whether a label leaves the object to somebody else.
fn is_left_to_others(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(PROXY_NAME) || labels.contains_key(HEADLESS))
}

/// What an object says of itself; notes and none if that is no name.
pub(super) fn identity(
    kind: Kind,
    namespace: Option<&str>,
    name: Option<&str>,
    notes: &mut Notes,
) -> Option<ObjectId> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        notes.error("metadata.name", format!("this {kind} has no name"), "give `metadata.name`");
        return None;
    };
    // Names of services are names in DNS. Digits in front are allowed since Kubernetes 1.34.
    let is_label = matches!(kind, Kind::Service | Kind::Namespace);
    let (is_right, right) = if is_label {
        (check::is_dns_label(name), check::LABEL)
    } else {
        (check::is_dns_subdomain(name), check::SUBDOMAIN)
    };
    if !is_right {
        notes.error("metadata.name", format!("{} is no name of a {kind}", shown(name)), right);
        return None;
    }
    let namespace = namespace.unwrap_or_default();
    if kind.is_namespaced() && !namespace.is_empty() && !check::is_dns_label(namespace) {
        notes.error(
            "metadata.namespace",
            format!("{} is no name of a namespace", shown(namespace)),
            check::LABEL,
        );
        return None;
    }
    Some(ObjectId::new(kind, namespace, name))
}

/// What an object means; none if it is refused, and then the notes say why.
pub(super) fn read(object: &Object, id: &ObjectId, notes: &mut Notes) -> Option<Content> {
    let content = match object {
        Object::Node(object) => Content::Node(node::read(object, id, notes)),
        Object::Service(object) => Content::Service(Box::new(service::read(object, id, notes))),
        Object::EndpointSlice(object) => Content::Endpoints(slice::read(object, id, notes)),
        Object::Endpoints(object) => Content::Endpoints(endpoints::read(object, id, notes)),
        Object::Namespace(_) => Content::Namespace,
        Object::Pod(object) => Content::Pod(PodContent {
            weight: annotations::weight(object.metadata.annotations.as_ref(), notes),
        }),
    };
    (!notes.is_refused()).then_some(content)
}

/// The metadata of an object.
pub(super) fn metadata(object: &Object) -> &ObjectMeta {
    match object {
        Object::Node(object) => &object.metadata,
        Object::Service(object) => &object.metadata,
        Object::EndpointSlice(object) => &object.metadata,
        Object::Endpoints(object) => &object.metadata,
        Object::Namespace(object) => &object.metadata,
        Object::Pod(object) => &object.metadata,
    }
}
