//! The reference cluster from manifests makes the same tables as its twin that is written out in TOML.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::sources::{SourcePaths, Sources};
use pipelines::table::Tables;
use pipelines::table::service::{Scope, ServicePort};

fn tables(name: &str) -> Tables {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    let sources = Sources::load(&SourcePaths::of_config(path)).unwrap_or_else(|report| panic!("{report}"));
    Builder::new(1, HostFacts::default()).build_with(&sources.configuration(), &sources.objects).unwrap()
}

/// What the data path sees of a service port, in an order of its own.
fn essence(port: &ServicePort) -> String {
    let mut backends: Vec<String> = port
        .backends
        .iter()
        .map(|b| {
            let scopes = (b.is_in(Scope::Cluster), b.is_in(Scope::Local));
            format!("{:08x}:{} weight {} in {scopes:?}", b.address, b.port, b.weight)
        })
        .collect();
    backends.sort();
    format!(
        "{:?} {:08x}:{} node port {:?}, local {} {}, affinity {}, ranges {:?}, {} and {} empty, {backends:?}",
        port.protocol,
        port.cluster_ip,
        port.port,
        port.node_port,
        port.external_local,
        port.internal_local,
        port.affinity_s,
        port.source_ranges,
        port.cluster.is_empty(),
        port.local.is_empty(),
    )
}

fn services(tables: &Tables) -> BTreeMap<String, String> {
    tables.services.iter().map(|port| (port.title(), essence(port))).collect()
}

/// Where each address, port and protocol leads.
fn frontends(tables: &Tables) -> BTreeMap<String, String> {
    let lead = |(key, frontend): (_, pipelines::table::service::Frontend)| {
        let title = tables.services.port(frontend.service).map(ServicePort::title).unwrap_or_default();
        (format!("{key:?}"), format!("{} {title}", frontend.kind.name()))
    };
    tables.services.frontends.iter().map(lead).collect()
}

#[test]
fn manifests_and_toml_build_the_same_tables() {
    let (written, objects) = (tables("reference-cluster.toml"), tables("reference-cluster-kubernetes.toml"));
    assert_eq!(services(&written), services(&objects));
    assert_eq!(services(&written).len(), 8);
    assert_eq!(frontends(&written), frontends(&objects));
    assert_eq!(frontends(&written).len(), 10);
    let addresses = |tables: &Tables| tables.services.addresses.iter().collect::<BTreeMap<u32, u32>>();
    assert_eq!(addresses(&written), addresses(&objects));

    let routes = |tables: &Tables| {
        let mut routes: Vec<String> =
            tables.routes.routes().iter().map(|route| format!("{route:?}")).collect();
        routes.sort();
        routes
    };
    assert_eq!(routes(&written), routes(&objects));
    assert_eq!(written.neighbours, objects.neighbours);
    assert_eq!((&written.overlay, &written.bridge), (&objects.overlay, &objects.bridge));
    assert_eq!(written.own_addresses, objects.own_addresses);
    assert_eq!((&written.masquerade, &written.service_cidrs), (&objects.masquerade, &objects.service_cidrs));
}
