//! Names that the endpoints of one object share, each held once.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::EndpointHints;

use super::notes::{Notes, shown};
use super::path::Path;
use super::{Hints, NO_HINTS, check};
use crate::control::kubernetes::limits;
use crate::control::kubernetes::object::{Kind, ObjectId};

/// Names that endpoints of one object share, so that each is held once.
pub(super) struct Names<'a> {
    /// The object.
    id: &'a ObjectId,
    known: HashSet<Arc<str>>,
    hints: HashSet<Hints>,
    /// Endpoints of IPv6 that were met.
    pub(super) ipv6: usize,
}

impl<'a> Names<'a> {
    /// For the endpoints of this object.
    pub(super) fn new(id: &'a ObjectId) -> Self {
        Self { id, known: HashSet::from([Arc::clone(&id.namespace)]), hints: HashSet::new(), ipv6: 0 }
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }

    /// IPv4 is told, IPv6 is counted.
    pub(super) fn v4(&mut self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => {
                self.ipv6 += 1;
                None
            }
        }
    }

    /// The node of an endpoint.
    pub(super) fn node(&mut self, name: Option<&str>, path: Path<'_>, notes: &mut Notes) -> Option<Arc<str>> {
        let name = name?;
        if !check::is_dns_subdomain(name) {
            notes.error(path, format!("{} is no name of a node", shown(name)), check::SUBDOMAIN);
            return None;
        }
        Some(self.name(name))
    }

    /// `hints.forZones` and `hints.forNodes`. Whether they count is decided where the node is known.
    pub(super) fn hints(
        &mut self,
        hints: Option<&EndpointHints>,
        place: usize,
        notes: &mut Notes,
    ) -> (Hints, Hints) {
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
    pub(super) fn pod(&mut self, target: Option<&ObjectReference>) -> Option<Arc<ObjectId>> {
        let target = target.filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let name = target.name.as_deref()?.into();
        let namespace = self.name(target.namespace.as_deref().unwrap_or(&self.id.namespace));
        Some(Arc::new(ObjectId { kind: Kind::Pod, namespace, name }))
    }

    fn hint_list(&mut self, names: &[&str]) -> Hints {
        if names.is_empty() {
            return Arc::clone(&NO_HINTS);
        }
        let list: Vec<Arc<str>> =
            names.iter().take(limits::ENDPOINT_HINTS).map(|name| self.name(name)).collect();
        if let Some(known) = self.hints.get(list.as_slice()) {
            return Arc::clone(known);
        }
        let list: Hints = list.into();
        self.hints.insert(Arc::clone(&list));
        list
    }
}
