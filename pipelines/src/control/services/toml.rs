//! What the configuration file wants of a service.

use std::sync::Arc;

use super::desired::{DesiredEndpoint, DesiredPort, DesiredService, Origin, ServiceKey};
use crate::control::config::model::{Backend, Service};

/// What `[[service]]` number `place` wants. Where it is written is its key, looked up when somebody asks.
pub fn desired(service: &Service, place: usize) -> DesiredService {
    let key = ServiceKey::new(&service.namespace, &service.name);
    let origin = Arc::new(Origin {
        kind: "Service",
        namespace: Arc::clone(&key.namespace),
        name: Arc::clone(&key.name),
        source: format!("service[{place}]").into(),
    });
    let endpoint = |backend: &Backend| DesiredEndpoint {
        address: backend.address,
        port: backend.port,
        weight: backend.weight,
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone_hints: Arc::default(),
        node_hints: Arc::default(),
        origin: Arc::clone(&origin),
    };
    let ports = service.ports.iter().map(|port| DesiredPort {
        name: port.name.as_str().into(),
        protocol: port.protocol,
        port: port.port,
        node_port: port.node_port,
        health_check: port.health_check.clone(),
        endpoints: port.backends.iter().map(endpoint).collect(),
    });
    DesiredService {
        key,
        cluster_ip: Some(service.cluster_ip),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        load_balancer_source_ranges: Vec::new(),
        external_local: false,
        internal_local: false,
        affinity_s: service.session_affinity_s,
        algorithm: service.algorithm,
        health_check_node_port: None,
        ports: ports.collect(),
        origin,
    }
}
