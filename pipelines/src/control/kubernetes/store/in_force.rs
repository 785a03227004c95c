//! The versions of objects that count, by what is asked of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Standing, Written};
use crate::control::kubernetes::changes::Changes;
use crate::control::kubernetes::meaning::{Content, EndpointsContent, PodContent, Programmed};
use crate::control::kubernetes::object::{Kind, ObjectId};
use crate::control::services::desired::{DesiredNode, Origin, ServiceKey};

#[derive(Debug, Default)]
pub(super) struct InForce {
    pub(super) nodes: BTreeMap<Arc<str>, DesiredNode>,
    pub(super) services: BTreeMap<ServiceKey, Standing>,
    pub(super) endpoints: HashMap<ServiceKey, Sources>,
    /// Weights of pods that have one.
    pub(super) pod_weights: HashMap<ObjectId, u16>,
    /// Which services have endpoints in a pod, and in how many places.
    pod_services: HashMap<Arc<ObjectId>, BTreeMap<ServiceKey, usize>>,
    /// Services with addresses of IPv6.
    pub(super) ipv6_services: BTreeSet<ServiceKey>,
    /// Services that no proxy of this kind programs.
    pub(super) not_proxied: usize,
    /// Endpoints of IPv6.
    pub(super) ipv6_endpoints: usize,
    /// Objects of each kind, as [`Kind::ALL`] has them.
    pub(super) counts: BTreeMap<Kind, usize>,
}

/// Where a service's endpoints are told of.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// EndpointSlices by name.
    pub(super) slices: BTreeMap<Arc<str>, Standing>,
    /// The Endpoints object, which counts only if there is no slice.
    pub(super) endpoints: Option<Standing>,
}

impl InForce {
    /// One object is another than before.
    pub(super) fn replace(
        &mut self,
        id: &ObjectId,
        before: Option<Standing>,
        after: Option<Standing>,
        changes: &mut Changes,
    ) {
        if before == after {
            return;
        }
        self.count(id.kind, before.as_ref(), after.as_ref());
        let is_moved = matches!((&before, &after), (Some(before), Some(after)) if before.means(after));
        match id.kind {
            Kind::Node => self.replace_node(id, after, is_moved, changes),
            Kind::Service => self.replace_service(id, before, after, is_moved, changes),
            Kind::EndpointSlice | Kind::Endpoints => {
                self.replace_endpoints(id, before, after, is_moved, changes)
            }
            Kind::Pod => self.replace_pod(id, after, changes),
            Kind::Namespace => {}
        }
    }

    fn count(&mut self, kind: Kind, before: Option<&Standing>, after: Option<&Standing>) {
        let count = self.counts.entry(kind).or_default();
        *count = (*count + usize::from(after.is_some())).saturating_sub(usize::from(before.is_some()));
    }

    fn replace_node(
        &mut self,
        id: &ObjectId,
        after: Option<Standing>,
        is_moved: bool,
        changes: &mut Changes,
    ) {
        match after.as_ref().map(|standing| (&*standing.content, &standing.written)) {
            Some((Content::Node(node), written)) => {
                let node = DesiredNode { origin: written.origin(id), ..node.clone() };
                self.nodes.insert(Arc::clone(&id.name), node);
            }
            _ => {
                self.nodes.remove(&id.name);
            }
        }
        changes.nodes |= !is_moved;
    }

    fn replace_service(
        &mut self,
        id: &ObjectId,
        before: Option<Standing>,
        after: Option<Standing>,
        is_moved: bool,
        changes: &mut Changes,
    ) {
        let key = ServiceKey { namespace: Arc::clone(&id.namespace), name: Arc::clone(&id.name) };
        let not_proxied =
            |standing: &Option<Standing>| match standing.as_ref().map(|standing| &*standing.content) {
                Some(Content::Service(service)) => usize::from(service.programmed == Programmed::No),
                _ => 0,
            };
        self.not_proxied = (self.not_proxied + not_proxied(&after)).saturating_sub(not_proxied(&before));
        let has_ipv6 = after.as_ref().is_some_and(
            |standing| matches!(&*standing.content, Content::Service(service) if !service.ipv6.is_empty()),
        );
        let written =
            |standing: &Option<Standing>| standing.as_ref().map(|standing| standing.written.clone());
        changes.findings |= if has_ipv6 {
            self.ipv6_services.insert(key.clone()) || written(&before) != written(&after)
        } else {
            self.ipv6_services.remove(&key)
        };
        match after {
            Some(after) => self.services.insert(key.clone(), after),
            None => self.services.remove(&key),
        };
        concerns(changes, key, is_moved);
    }

    fn replace_endpoints(
        &mut self,
        id: &ObjectId,
        before: Option<Standing>,
        after: Option<Standing>,
        is_moved: bool,
        changes: &mut Changes,
    ) {
        if let Some(content) = before.as_ref().and_then(endpoints_of) {
            self.ipv6_endpoints = self.ipv6_endpoints.saturating_sub(content.ipv6);
            if let Some(key) = &content.service {
                if !is_moved {
                    self.forget_pods(key, content);
                }
                self.place(id, key, None);
                concerns(changes, key.clone(), is_moved);
            }
        }
        if let Some(content) = after.as_ref().and_then(endpoints_of) {
            self.ipv6_endpoints += content.ipv6;
            if let Some(key) = &content.service {
                if !is_moved {
                    self.remember_pods(key, content);
                }
                self.place(id, key, after.clone());
                concerns(changes, key.clone(), is_moved);
            }
        }
    }

    /// Puts a slice or an Endpoints object to its service, or takes it away.
    fn place(&mut self, id: &ObjectId, key: &ServiceKey, standing: Option<Standing>) {
        let sources = self.endpoints.entry(key.clone()).or_default();
        match (id.kind, standing) {
            (Kind::Endpoints, standing) => sources.endpoints = standing,
            (_, Some(standing)) => {
                sources.slices.insert(Arc::clone(&id.name), standing);
            }
            (_, None) => {
                sources.slices.remove(&id.name);
            }
        }
        if sources.slices.is_empty() && sources.endpoints.is_none() {
            self.endpoints.remove(key);
        }
    }

    fn remember_pods(&mut self, key: &ServiceKey, content: &EndpointsContent) {
        for pod in content.pods() {
            *self.pod_services.entry(Arc::clone(pod)).or_default().entry(key.clone()).or_default() += 1;
        }
    }

    fn forget_pods(&mut self, key: &ServiceKey, content: &EndpointsContent) {
        for pod in content.pods() {
            let Some(services) = self.pod_services.get_mut(pod) else { continue };
            if let Some(places) = services.get_mut(key) {
                *places -= 1;
                if *places == 0 {
                    services.remove(key);
                }
            }
            if services.is_empty() {
                self.pod_services.remove(pod);
            }
        }
    }

    fn replace_pod(&mut self, id: &ObjectId, after: Option<Standing>, changes: &mut Changes) {
        let weight = after.and_then(|standing| match &*standing.content {
            Content::Pod(PodContent { weight }) => *weight,
            _ => None,
        });
        let before = match weight {
            Some(weight) => self.pod_weights.insert(id.clone(), weight),
            None => self.pod_weights.remove(id),
        };
        if before != weight
            && let Some(services) = self.pod_services.get(id)
        {
            services.keys().for_each(|key| concerns(changes, key.clone(), false));
        }
    }
}

/// A service is another than before, or only written somewhere else.
fn concerns(changes: &mut Changes, key: ServiceKey, is_moved: bool) {
    if !is_moved {
        changes.moved.remove(&key);
        changes.services.insert(key);
    } else if !changes.services.contains(&key) {
        changes.moved.insert(key);
    }
}

/// What a slice or an Endpoints object tells.
pub(super) fn endpoints_of(standing: &Standing) -> Option<&EndpointsContent> {
    match &*standing.content {
        Content::Endpoints(content) => Some(content),
        _ => None,
    }
}

impl Written {
    /// The object that is written here, for people.
    pub(super) fn origin(&self, id: &ObjectId) -> Arc<Origin> {
        let source = match self.spot {
            Some(spot) => format!("{}:{}", self.source, spot.line.saturating_add(1)).into(),
            None => Arc::clone(&self.source),
        };
        Arc::new(Origin {
            kind: id.kind.name(),
            namespace: Arc::clone(&id.namespace),
            name: Arc::clone(&id.name),
            source,
        })
    }
}
