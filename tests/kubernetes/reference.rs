//! The reference cluster, once in TOML and once as Kubernetes objects: the same tables, and the same packets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::sources::{SourcePaths, Sources};
use pipelines::table::Tables;

use crate::manifests::gateway;
use crate::stations::{Outcome, first};
use crate::support::{World, reference};

fn configs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// The tables of one of the twins.
fn tables(file: &str) -> Tables {
    let sources = Sources::load(&SourcePaths::of_config(configs().join(file)))
        .unwrap_or_else(|report| panic!("{report}"));
    let found: Vec<String> = sources.findings().iter().map(ToString::to_string).collect();
    assert_eq!(found, Vec::<String>::new(), "{file}");
    Builder::new(1, HostFacts::default()).build_with(&sources.configuration(), &sources.objects).unwrap()
}

/// What a service table says, by names instead of numbers.
fn services(tables: &Tables) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for port in tables.services.iter() {
        let backends: Vec<String> = port
            .backends
            .iter()
            .map(|backend| {
                format!("{}:{} weight {}", Ipv4Addr::from(backend.address), backend.port, backend.weight)
            })
            .collect();
        let choice = (&port.cluster, &port.local);
        let policy = (port.affinity_s, port.external_local, port.internal_local, &port.source_ranges);
        found.insert(port.title(), format!("{:?} {backends:?} {choice:?} {policy:?}", port.protocol));
    }
    for (key, frontend) in tables.services.frontends.iter() {
        let title = tables.services.port(frontend.service).unwrap().title();
        let name = format!("{}:{}/{}", Ipv4Addr::from(key.address), key.port, key.protocol);
        found.insert(name, format!("{:?} of {title}", frontend.kind));
    }
    for (address, count) in tables.services.addresses.iter() {
        found.insert(Ipv4Addr::from(address).to_string(), format!("of {count}"));
    }
    found
}

#[test]
fn both_twins_build_the_same_tables() {
    let (toml, kubernetes) = (tables("reference-cluster.toml"), tables("reference-cluster-kubernetes.toml"));
    let (of_toml, of_kubernetes) = (services(&toml), services(&kubernetes));
    assert_eq!(of_toml, of_kubernetes);
    // 8 ports, each at its cluster IP, two at node ports too, of 6 services.
    assert_eq!(of_toml.len(), 8 + 8 + 2 + 6);
    assert_eq!(toml.interfaces, kubernetes.interfaces);
    assert_eq!(toml.ports, kubernetes.ports);
    assert_eq!(toml.overlay, kubernetes.overlay);
    assert_eq!(toml.bridge, kubernetes.bridge);
    assert_eq!(toml.neighbours, kubernetes.neighbours);
    assert_eq!(toml.own_addresses, kubernetes.own_addresses);
    assert_eq!(toml.service_cidrs, kubernetes.service_cidrs);
    assert_eq!(toml.masquerade, kubernetes.masquerade);
    assert_eq!(toml.timeouts, kubernetes.timeouts);
    let routes = |tables: &Tables| {
        let mut routes: Vec<String> =
            tables.routes.routes().iter().map(|route| format!("{route:?}")).collect();
        routes.sort();
        routes
    };
    assert_eq!(routes(&toml), routes(&kubernetes));
}

/// The same first packets to both, with the same seed: what leaves differs in nothing.
#[test]
fn both_twins_do_the_same_with_packets() {
    let folder = configs().join("reference-cluster");
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut toml = World::new(&reference().replace("capacity = 65536", "capacity = 4096"));
    let mut kubernetes = World::with_manifests(&gateway(), &files, 1, 1);
    let mut sent = 0;
    for source in ["172.30.76.7", "172.30.76.5", "172.30.9.9", "192.168.0.50", "8.8.8.8", "192.168.0.21"] {
        for (protocol, to) in [
            ("tcp", "10.254.80.22:80"),
            ("tcp", "10.254.116.224:50051"),
            ("tcp", "10.254.0.1:443"),
            ("tcp", "10.254.0.2:53"),
            ("udp", "10.254.0.2:53"),
            ("tcp", "10.254.189.164:443"),
            ("tcp", "192.168.0.21:30799"),
            ("tcp", "192.168.0.21:31522"),
            ("tcp", "10.254.84.209:3306"),
            ("tcp", "10.254.80.22:81"),
            ("sctp", "10.254.80.22:80"),
            ("tcp", "10.254.99.99:80"),
            ("tcp", "172.30.9.3:8080"),
        ] {
            for number in 0..4 {
                let from = format!("{source}:{}", 4_000 + number);
                // Rejections are limited by time.
                toml.advance_ms(2);
                kubernetes.advance_ms(2);
                let (one, other) =
                    (first(&mut toml, protocol, &from, to), first(&mut kubernetes, protocol, &from, to));
                assert_eq!(one, other, "{from} to {to}");
                sent += u64::from(matches!(one, Outcome::Sent(..)));
            }
        }
    }
    assert_eq!(toml.drops(), kubernetes.drops());
    assert_eq!(toml.accounts(), kubernetes.accounts());
    assert!(sent > 150, "{sent}");
    toml.assert_balanced();
    kubernetes.assert_balanced();
}
