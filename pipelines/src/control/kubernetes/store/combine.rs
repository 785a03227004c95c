//! A service and what tells of its endpoints, made one.
//!
//! Source: pkg/proxy/endpointslicecache.go. Endpoints are united over all slices of a service by address and port. If
//! two tell of the same one, the better one wins: an address may still be in the slice of a pod that ends while another
//! pod has it already, or in two slices while it moves from one to the other. kube-proxy takes the last one that does not
//! terminate, in no defined order; here it is the first ready one, in order of the slices' names.

use core::cmp::Reverse;
use std::sync::Arc;

use super::in_force::{InForce, endpoints_of};
use crate::control::kubernetes::meaning::{
    Content, EndpointContent, EndpointsContent, Programmed, ServiceContent,
};
use crate::control::kubernetes::object::{Kind, ObjectId};
use crate::control::services::desired::{DesiredEndpoint, DesiredPort, DesiredService, Origin, ServiceKey};

/// Endpoints that nobody gave a weight.
const WEIGHT: u16 = 1;

impl InForce {
    /// What is wanted of a service; none if it is not programmed.
    pub(super) fn desired(&self, key: &ServiceKey) -> Option<DesiredService> {
        let standing = self.services.get(key)?;
        let Content::Service(service) = &*standing.content else { return None };
        if service.programmed != Programmed::Yes {
            return None;
        }
        let id = |kind, name: &Arc<str>| ObjectId {
            kind,
            namespace: Arc::clone(&key.namespace),
            name: Arc::clone(name),
        };
        let mut desired = service.desired.clone();
        desired.origin = standing.written.origin(&id(Kind::Service, &key.name));
        let mut told: Vec<(Arc<Origin>, &EndpointsContent)> = Vec::new();
        if let Some(sources) = self.endpoints.get(key) {
            for (name, standing) in &sources.slices {
                let origin = standing.written.origin(&id(Kind::EndpointSlice, name));
                told.extend(endpoints_of(standing).map(|content| (origin, content)));
            }
            if let (Some(standing), true) = (&sources.endpoints, told.is_empty()) {
                let origin = standing.written.origin(&id(Kind::Endpoints, &key.name));
                told.extend(endpoints_of(standing).map(|content| (origin, content)));
            }
        }
        for port in &mut desired.ports {
            for (origin, content) in &told {
                self.add(port, service, content, origin);
            }
            unite(&mut port.endpoints);
        }
        Some(desired)
    }

    /// The endpoints of a port by its name and protocol: `targetPort` is the controllers' concern.
    fn add(
        &self,
        port: &mut DesiredPort,
        service: &ServiceContent,
        content: &EndpointsContent,
        origin: &Arc<Origin>,
    ) {
        for subset in &content.subsets {
            let ports = subset
                .ports
                .iter()
                .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
            for (_, _, number) in ports {
                port.endpoints.extend(subset.endpoints.iter().map(|endpoint| DesiredEndpoint {
                    address: endpoint.address,
                    port: *number,
                    weight: self.weight(service, content, endpoint),
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    node: endpoint.node.clone(),
                    zone_hints: Arc::clone(&endpoint.zone_hints),
                    node_hints: Arc::clone(&endpoint.node_hints),
                    origin: Arc::clone(origin),
                }));
            }
        }
    }

    /// By the service, by the pod, by the slice; whoever says it first.
    fn weight(
        &self,
        service: &ServiceContent,
        content: &EndpointsContent,
        endpoint: &EndpointContent,
    ) -> u16 {
        let by_service = || {
            let place =
                service.weights.binary_search_by_key(&endpoint.address, |(address, _)| *address).ok()?;
            service.weights.get(place).map(|(_, weight)| *weight)
        };
        let by_pod = || match &endpoint.pod {
            Some(pod) if !self.pod_weights.is_empty() => self.pod_weights.get(&**pod).copied(),
            _ => None,
        };
        by_service().or_else(by_pod).or(content.weight).unwrap_or(WEIGHT)
    }
}

/// Leaves each address and port once, at its first place.
fn unite(endpoints: &mut Vec<DesiredEndpoint>) {
    let mut order: Vec<usize> = (0..endpoints.len()).collect();
    // Which one of several wins: ready, then serving, then not terminating, then the first.
    order.sort_unstable_by_key(|place| {
        endpoints.get(*place).map(|endpoint| {
            let worth = (endpoint.ready, endpoint.serving, !endpoint.terminating);
            (endpoint.address, endpoint.port, Reverse(worth), *place)
        })
    });
    let key = |place: &usize| endpoints.get(*place).map(|endpoint| (endpoint.address, endpoint.port));
    if order.windows(2).all(|pair| pair.first().map(key) != pair.last().map(key)) {
        return;
    }
    let mut chosen: Vec<(usize, usize)> = order
        .chunk_by(|one, other| key(one) == key(other))
        .filter_map(|group| Some((*group.iter().min()?, *group.first()?)))
        .collect();
    chosen.sort_unstable();
    let united = chosen.iter().filter_map(|(_, winner)| endpoints.get(*winner).cloned()).collect();
    *endpoints = united;
}
