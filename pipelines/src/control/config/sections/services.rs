//! `[services]` and `[[service]]`.

use std::collections::HashSet;

use super::health_check;
use crate::control::config::draft::{Backend, Service, ServicePort, ServiceSettings};
use crate::control::config::model::{Algorithm, Protocol};
use crate::control::config::notes::At;
use crate::control::config::reader::Table;
use crate::control::config::values::{Label, PortRange};

pub(super) fn settings(table: &Table<'_>) -> ServiceSettings {
    let settings = ServiceSettings {
        pod_cidrs: table.list("pod_cidrs"),
        service_cidrs: table.list("service_cidrs"),
        masquerade_all: table.with_default("masquerade_all", false),
        node_port_addresses: table.list("node_port_addresses"),
        // kube-apiserver's --service-node-port-range.
        node_port_range: table.with_default("node_port_range", PortRange { first: 30_000, last: 32_767 }),
        snat_address: table.optional("snat_address"),
        // net.ipv4.ip_local_port_range, Documentation/networking/ip-sysctl.rst.
        snat_port_range: table.with_default("snat_port_range", PortRange { first: 32_768, last: 60_999 }),
        drain_timeout_s: table.optional_integer("drain_timeout_s", 0..=31_536_000),
        affinity_capacity: table.integer("affinity_capacity", 4..=16_777_216, 65_536),
    };
    if let (Some(node_ports), Some(snat)) = (settings.node_port_range, settings.snat_port_range)
        && node_ports.value.first <= snat.value.last
        && snat.value.first <= node_ports.value.last
    {
        // At the one that was written; a default stands where the section begins.
        let offset = snat.offset.max(node_ports.offset);
        table.notes().error(
            offset,
            format!("`node_port_range` {} and `snat_port_range` {} overlap", node_ports.value, snat.value),
            "move one: an answer to a masqueraded connection would be taken for a node port's",
        );
    }
    if let Some(At { value, offset }) = settings.snat_port_range
        && value.last - value.first < 1_023
    {
        table.notes().warning(
            offset,
            format!("`snat_port_range` {value} has fewer than 1024 ports"),
            "widen it: connections to one backend beyond that number are refused",
        );
    }
    settings
}

pub(super) fn service(table: &Table<'_>) -> Service {
    let service = Service {
        namespace: label(table.with_default("namespace", Label("default".to_owned()))),
        name: label(table.required("name", "\"business-manager\"")),
        cluster_ip: table.required("cluster_ip", "\"10.254.80.22\""),
        algorithm: table.with_default("algorithm", Algorithm::Random),
        // Kubernetes' bound for sessionAffinityConfig.clientIP.timeoutSeconds: a day.
        session_affinity_s: table.optional_integer("session_affinity_s", 1..=86_400),
        ports: table.each("ports", port),
    };
    if !table.has("ports") {
        table.missing("ports", "add a `[[service.ports]]` below it");
    }
    check_port_names(table, &service.ports);
    service
}

fn label(name: Option<At<Label>>) -> Option<At<String>> {
    name.map(|name| name.map(|label| label.0))
}

fn port(table: &Table<'_>) -> ServicePort {
    let port = ServicePort {
        offset: table.offset(),
        has_name: table.has("name"),
        name: label(table.optional("name")),
        protocol: table.with_default("protocol", Protocol::Tcp),
        port: table.required_integer("port", 1..=65_535, "80"),
        node_port: table.optional_integer("node_port", 1..=65_535),
        health_check: table.section("health_check", health_check::health_check),
        backends: table.each("backends", backend),
    };
    if !table.has("backends") {
        table.missing(
            "backends",
            "add them, as in `backends = [{ address = \"172.30.76.7:8080\" }]`; with `[]` connections are refused",
        );
    }
    check_backends(table, &port);
    health_check::check_protocol(table, &port);
    port
}

fn backend(table: &Table<'_>) -> Backend {
    Backend {
        address: table.required("address", "\"172.30.76.7:8080\""),
        weight: table.integer("weight", 0..=65_535, 1),
    }
}

/// With several ports each needs a name that tells it apart, as Kubernetes has it.
fn check_port_names(table: &Table<'_>, ports: &[ServicePort]) {
    let mut seen = HashSet::new();
    for port in ports {
        match &port.name {
            Some(name) if !seen.insert(&name.value) => table.notes().error(
                name.offset,
                format!("the service has two ports named \"{}\"", name.value),
                "give each a name of its own",
            ),
            None if ports.len() > 1 && !port.has_name => table.notes().error(
                port.offset,
                "the service has several ports, and this one has no `name`",
                "give it one, as in `name = \"http\"`",
            ),
            _ => {}
        }
    }
}

fn check_backends(table: &Table<'_>, port: &ServicePort) {
    let mut seen = HashSet::new();
    for address in port.backends.iter().filter_map(|backend| backend.address) {
        if !seen.insert(address.value) {
            let wrong = format!("backend {} is there twice", address.value);
            table.notes().error(address.offset, wrong, "keep one, with the sum of their weights");
        }
    }
    let weighs_nothing = |backend: &Backend| backend.weight.is_some_and(|weight| weight.value == 0);
    if let Some(first) = port.backends.first().and_then(|backend| backend.weight)
        && port.backends.iter().all(weighs_nothing)
    {
        table.notes().warning(
            first.offset,
            "every backend has weight 0, so that no new connection is taken",
            "give one a weight of 1 or more, or write `backends = []` to refuse connections",
        );
    }
}
