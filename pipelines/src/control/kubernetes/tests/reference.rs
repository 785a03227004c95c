//! The reference cluster as manifests against its twin in TOML, field by field; and the documentation against the code.

use std::path::PathBuf;

use super::findings;
use crate::control::config;
use crate::control::config::model::Service;
use crate::control::kubernetes::meaning::annotations;
use crate::control::kubernetes::{Kind, ManifestFolder, ObjectStore, limits};
use crate::control::services::desired::{DesiredService, ServiceKey};

fn configs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn manifests() -> ObjectStore {
    let mut store = ObjectStore::new();
    ManifestFolder::new(configs().join("reference-cluster")).refresh(&mut store).unwrap();
    assert_eq!(findings(&store), Vec::<String>::new());
    store
}

#[test]
fn services_are_those_of_the_twin() {
    let store = manifests();
    let twin = config::load(&configs().join("reference-cluster.toml")).unwrap().configuration;
    assert_eq!(store.service_keys().count(), twin.services.len());
    for service in &twin.services {
        let key = ServiceKey::new(&service.namespace, &service.name);
        compare(service, &store.desired(&key).unwrap_or_else(|| panic!("there is no {key}")));
    }
}

fn compare(service: &Service, desired: &DesiredService) {
    assert_eq!(desired.cluster_ip, Some(service.cluster_ip));
    assert_eq!((&*desired.external_ips, &*desired.load_balancer_ips), (&[][..], &[][..]));
    assert_eq!((desired.external_local, desired.internal_local), (false, false));
    assert_eq!((desired.affinity_s, desired.health_check_node_port), (None, None));
    assert_eq!(desired.algorithm, config::model::Algorithm::Random);
    assert_eq!(desired.ports.len(), service.ports.len());
    for (port, desired) in service.ports.iter().zip(&desired.ports) {
        assert_eq!(*desired.name, *port.name);
        assert_eq!(
            (desired.protocol, desired.port, desired.node_port),
            (port.protocol, port.port, port.node_port)
        );
        let wanted: Vec<_> =
            port.backends.iter().map(|backend| (backend.address, backend.port, backend.weight)).collect();
        let told: Vec<_> = desired
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.address, endpoint.port, endpoint.weight))
            .collect();
        assert_eq!(told, wanted);
        for endpoint in &desired.endpoints {
            let node = match endpoint.address.octets() {
                [172, 30, 76, _] => Some("node-1"),
                [172, 30, 9, _] => Some("node-2"),
                _ => None,
            };
            assert_eq!((endpoint.node.as_deref(), endpoint.ready), (node, true));
        }
    }
}

#[test]
fn nodes_tell_what_the_twin_writes_out() {
    let store = manifests();
    let twin = config::load(&configs().join("reference-cluster.toml")).unwrap().configuration;
    assert_eq!(store.nodes().count(), 2);
    let one = store.node("node-1").unwrap();
    assert_eq!(one.addresses, twin.node.addresses);
    assert_eq!(one.pod_cidrs, twin.service_settings.pod_cidrs);
    let overlay = twin.overlay.as_ref().unwrap();
    assert_eq!(one.vtep.unwrap().mac, overlay.mac);
    let two = store.node("node-2").unwrap();
    let vtep = two.vtep.unwrap();
    let fdb = twin.overlay_fdb.first().unwrap();
    assert_eq!((vtep.mac, vtep.public_ip, vtep.vni), (fdb.mac, fdb.remote, overlay.vni));
    let route = twin.routes.iter().find(|route| route.destination == two.pod_cidrs[0]).unwrap();
    let gateway = core::net::Ipv4Addr::from(two.pod_cidrs[0].base());
    assert_eq!(route.via, Some(gateway), "by flannel's rule the base of the node's subnet");
    assert!(
        twin.neighbours.iter().any(|neighbour| neighbour.address == gateway && neighbour.mac == vtep.mac)
    );
}

/// All of the twin but its services and what node 2's Node object tells.
#[test]
fn the_kubernetes_twin_is_the_rest_of_the_twin() {
    let read = |name: &str| std::fs::read_to_string(configs().join(name)).unwrap();
    let keep = |text: &str| -> String {
        text.lines()
            .map(|line| line.split(" #").next().unwrap_or_default().trim_end())
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let full = keep(&read("reference-cluster.toml"));
    let rest = full.split("[[service]]").next().unwrap();
    let told_by_node_2 = [
        "[[routes]]\ndestination = \"172.30.9.0/24\"\nvia = \"172.30.9.0\"\ninterface = \"flannel.1\"\n",
        "[[neighbours]]\ninterface = \"flannel.1\"\naddress = \"172.30.9.0\"\nmac = \"96:8f:2d:49:c5:31\"\n",
        "[[fdb]]\ninterface = \"flannel.1\"\nmac = \"96:8f:2d:49:c5:31\"\nremote = \"192.168.0.22\"\n",
    ];
    let expected = told_by_node_2.iter().fold(rest.to_owned(), |text, told| {
        assert!(text.contains(told), "{told}");
        text.replacen(told, "", 1)
    });
    let kubernetes = keep(&read("reference-cluster-kubernetes.toml")).replacen(
        "manifests = \"reference-cluster\"\n",
        "",
        1,
    );
    assert_eq!(kubernetes, expected);
}

fn documentation() -> String {
    std::fs::read_to_string(configs().join("../docs/kubernetes.md")).unwrap()
}

#[test]
fn the_example_in_the_documentation_is_right() {
    let text = documentation();
    let example = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let service = super::web(example);
    assert_eq!(service.algorithm, config::model::Algorithm::Maglev);
    let weights: Vec<u16> = service.ports[0].endpoints.iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights, [5, 0]);
}

#[test]
fn the_documentation_knows_every_kind_annotation_and_bound() {
    let text = documentation();
    for kind in Kind::ALL {
        assert!(text.contains(&format!("\n| {kind} | `{}` |", kind.api_version())), "{kind}");
    }
    for annotation in [annotations::ALGORITHM, annotations::WEIGHTS, annotations::WEIGHT] {
        assert!(text.contains(&format!("\n| `{annotation}` | ")), "{annotation}");
    }
    let grouped = |number: usize| {
        let digits = number.to_string();
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    for (row, bound) in [
        ("bytes of a file", format!("{} MiB", limits::FILE_BYTES >> 20)),
        ("files of a folder", grouped(limits::FILES)),
        ("objects", grouped(limits::OBJECTS)),
        ("mappings and sequences inside each other in YAML", grouped(limits::YAML_DEPTH)),
        ("keys and values of a YAML document", grouped(limits::YAML_NODES)),
        (
            "bytes that anchors, aliases and merge keys copy in a YAML document",
            format!("{} MiB", limits::YAML_COPIED_BYTES >> 20),
        ),
        ("lists inside lists", grouped(limits::LIST_DEPTH)),
        (
            "external IPs, load balancers' IPs, source ranges of a Service; addresses of a Node",
            format!("{} each", grouped(limits::ADDRESSES)),
        ),
        ("addresses times ports of a Service", grouped(limits::SERVICE_FRONTENDS)),
        (
            "notes on one object, findings of one file",
            format!("{}, {}; the rest is counted", limits::NOTES, grouped(limits::FINDINGS)),
        ),
    ] {
        assert!(text.contains(&format!("\n| {row} | {bound} |")), "{row}: {bound}");
    }
}
