//! Endpoints: what slices and Endpoints objects tell, and what weighs.

use super::{findings, key, service, slice, store, web};
use crate::control::kubernetes::ObjectStore;
use crate::control::services::desired::DesiredEndpoint;

/// Address, port, ready, serving, terminating, of each endpoint of the first port.
fn conditions(endpoints: &[DesiredEndpoint]) -> Vec<(String, bool, bool, bool)> {
    let told = |endpoint: &DesiredEndpoint| {
        let address = format!("{}:{}", endpoint.address, endpoint.port);
        (address, endpoint.ready, endpoint.serving, endpoint.terminating)
    };
    endpoints.iter().map(told).collect()
}

fn endpoints(text: &str) -> Vec<DesiredEndpoint> {
    web(text).ports.remove(0).endpoints
}

fn weights(store: &ObjectStore) -> Vec<u16> {
    store
        .desired(&key("web"))
        .unwrap()
        .ports
        .remove(0)
        .endpoints
        .iter()
        .map(|endpoint| endpoint.weight)
        .collect()
}

#[test]
fn conditions_that_are_absent() {
    for (written, expected) in [
        ("", (true, true, false)),
        ("conditions: {}", (true, true, false)),
        ("conditions: {ready: true}", (true, true, false)),
        ("conditions: {ready: false}", (false, false, false)),
        ("conditions: {ready: false, serving: true}", (false, true, false)),
        ("conditions: {ready: false, serving: true, terminating: true}", (false, true, true)),
        ("conditions: {ready: false, terminating: true}", (false, false, true)),
        ("conditions: {serving: false}", (true, false, false)),
        ("conditions: {ready: true, terminating: true}", (true, true, true)),
        ("conditions: {ready: null, serving: null, terminating: null}", (true, true, false)),
    ] {
        let text = service("") + &slice("web-1", &[&format!("{{addresses: [10.0.0.1], {written}}}")]);
        let (ready, serving, terminating) = expected;
        assert_eq!(
            conditions(&endpoints(&text)),
            [("10.0.0.1:8080".to_owned(), ready, serving, terminating)],
            "{written}"
        );
    }
}

#[test]
fn ports_are_found_by_name_and_protocol() {
    let text = service(
        "ports:
- {name: http, port: 80, targetPort: 9999}
- {name: dns, port: 53, protocol: UDP}
- {name: dns-tcp, port: 53}
- {name: all, port: 1}
- {name: none, port: 2}",
    );
    let slice = slice("web-1", &["{addresses: [10.0.0.1]}"]).replace(
        "[{name: http, port: 8080}]",
        "[{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354, protocol: UDP}, {name: all}, {name: zero, port: 0}]",
    );
    let service = web(&(text + &slice));
    let told: Vec<(&str, Vec<u16>)> = service
        .ports
        .iter()
        .map(|port| (&*port.name, port.endpoints.iter().map(|endpoint| endpoint.port).collect()))
        .collect();
    assert_eq!(
        told,
        [("http", vec![8080]), ("dns", vec![5353]), ("dns-tcp", vec![]), ("all", vec![]), ("none", vec![])]
    );
    // A port without a name is the port of this service that has none.
    let text = super::service("ports: [{port: 80}]")
        + &super::slice("web-1", &["{addresses: [10.0.0.1]}"]).replace("{name: http, port", "{port");
    assert_eq!(endpoints(&text).len(), 1);
}

#[test]
fn slices_are_united_and_the_ready_one_wins() {
    let text = service("")
        + &slice(
            "b",
            &[
                "{addresses: [10.0.0.2], nodeName: node-b}",
                "{addresses: [10.0.0.1], nodeName: node-b}",
                "{addresses: [10.0.0.4]}",
            ],
        )
        + &slice(
            "a",
            &[
                "{addresses: [10.0.0.1], nodeName: node-a, conditions: {ready: false, serving: true, terminating: true}}",
                "{addresses: [10.0.0.3], conditions: {ready: false}}",
                "{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}",
                "{addresses: [10.0.0.2], nodeName: node-a}",
            ],
        );
    let endpoints = endpoints(&text);
    let told: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            (
                endpoint.address.octets()[3],
                endpoint.ready,
                endpoint.serving,
                endpoint.node.as_deref(),
                &*endpoint.origin.name,
            )
        })
        .collect();
    // In order of the slices' names, each at its first place, told by the better of two.
    assert_eq!(
        told,
        [
            (1, true, true, Some("node-b"), "b"),
            (3, false, true, None, "a"),
            (2, true, true, Some("node-a"), "a"),
            (4, true, true, None, "b")
        ]
    );
    assert_eq!(&*endpoints[0].origin.source, "f.yaml:10");
}

#[test]
fn hints_and_nodes_are_told() {
    let text = service("")
        + &slice(
            "web-1",
            &[
                "{addresses: [10.0.0.1, 10.0.0.9], nodeName: node-1, zone: z, hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: node-1}]}}",
                "{addresses: [10.0.0.2]}",
            ],
        );
    let endpoints = endpoints(&text);
    assert_eq!(endpoints.len(), 2, "the first of an endpoint's addresses counts");
    assert_eq!(&*endpoints[0].zone_hints, ["a".into(), "b".into()]);
    assert_eq!(&*endpoints[0].node_hints, ["node-1".into()]);
    assert_eq!(endpoints[0].node.as_deref(), Some("node-1"));
    assert!(
        endpoints[1].zone_hints.is_empty()
            && endpoints[1].node_hints.is_empty()
            && endpoints[1].node.is_none()
    );
}

#[test]
fn slices_of_other_families_and_other_proxies_give_nothing() {
    let plain = slice("web-1", &["{addresses: [10.0.0.1]}"]);
    let fqdn = plain.replace("IPv4", "FQDN").replace("10.0.0.1", "db.example.org");
    let ipv6 = plain.replace("IPv4", "IPv6").replace("10.0.0.1", "'fd00::1'");
    let headless = plain.replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    let foreign = plain.replace("labels: {", "labels: {service.kubernetes.io/service-proxy-name: x, ");
    for text in [&fqdn, &ipv6, &headless, &foreign] {
        assert_eq!(endpoints(&(service("") + text)), [], "{text}");
    }
    assert_eq!(store(&ipv6).counts().endpoints_ipv6, 1);
    assert_eq!(endpoints(&(service("") + &plain)).len(), 1);
    let without = store(&(service("") + &plain.replace("kubernetes.io/service-name: web", "a: b")));
    assert_eq!(
        findings(&without),
        [
            "f.yaml:14:11: warning: EndpointSlice default/web-1: metadata.labels: this slice belongs to no service; give the label kubernetes.io/service-name"
        ]
    );
}

const ENDPOINTS: &str = "---
apiVersion: v1
kind: Endpoints
metadata:
  name: web
subsets:
- addresses: [{ip: 10.0.1.1, nodeName: node-1}, {ip: 'fd00::1'}]
  notReadyAddresses: [{ip: 10.0.1.2}]
  ports: [{name: http, port: 8081}, {name: other, port: 1, protocol: UDP}]
- addresses: [{ip: 10.0.1.3}]
  ports: [{name: http, port: 8082}]
";

#[test]
fn endpoints_objects_stand_in_where_there_is_no_slice() {
    let alone = service("") + ENDPOINTS;
    let told = endpoints(&alone);
    assert_eq!(
        conditions(&told),
        [
            ("10.0.1.1:8081".to_owned(), true, true, false),
            ("10.0.1.2:8081".to_owned(), false, false, false),
            ("10.0.1.3:8082".to_owned(), true, true, false)
        ]
    );
    assert_eq!(
        (told[0].node.as_deref(), told[0].origin.kind, &*told[0].origin.name),
        (Some("node-1"), "Endpoints", "web")
    );
    // A slice makes them count no more, also one without an endpoint.
    let both = alone.clone() + &slice("web-1", &["{addresses: [10.0.0.1]}"]);
    assert_eq!(conditions(&endpoints(&both)), [("10.0.0.1:8080".to_owned(), true, true, false)]);
    assert_eq!(endpoints(&(alone.clone() + &slice("web-1", &[]))), []);
    for metadata in [
        "labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}",
        "annotations: {control-plane.alpha.kubernetes.io/leader: '{}'}",
        "labels: {service.kubernetes.io/headless: ''}",
    ] {
        let skipped = alone
            .replace("kind: Endpoints\nmetadata:\n", &format!("kind: Endpoints\nmetadata:\n  {metadata}\n"));
        assert_eq!(endpoints(&skipped), [], "{metadata}");
    }
}

#[test]
fn endpoints_outside_the_cluster_are_like_any_other() {
    let text = service("ports: [{name: http, port: 3306}]")
        + &slice("web-1", &["{addresses: [192.168.0.103]}", "{addresses: [192.168.0.104]}"]);
    let told = endpoints(&text);
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|endpoint| endpoint.ready && endpoint.node.is_none() && endpoint.weight == 1));
}

/// A service, a slice and a pod, each with a weight for the same endpoint or not: the nearest to the operator wins.
#[test]
fn weights_of_service_pod_and_slice() {
    let annotated = |text: &str, name: &str, annotation: Option<&str>| match annotation {
        Some(annotation) => text.replace(
            &format!("  name: {name}\n"),
            &format!("  name: {name}\n  annotations: {{{annotation}}}\n"),
        ),
        None => text.to_owned(),
    };
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-1\nspec: {containers: []}\n";
    let plain = slice(
        "web-1",
        &["{addresses: [10.0.0.1], targetRef: {kind: Pod, name: pod-1}}", "{addresses: [10.0.0.2]}"],
    );
    let (by_service, by_pod, by_slice) = (
        Some("pollgate.io/weights: '10.0.0.1=7'"),
        Some("pollgate.io/weight: '5'"),
        Some("pollgate.io/weight: '3'"),
    );
    for (service_annotation, pod_annotation, slice_annotation, expected) in [
        (None, None, None, [1, 1]),
        (by_service, None, None, [7, 1]),
        (None, by_pod, None, [5, 1]),
        (None, None, by_slice, [3, 3]),
        (None, by_pod, by_slice, [5, 3]),
        (by_service, by_pod, by_slice, [7, 3]),
        (Some("pollgate.io/weights: '10.0.0.2=0'"), by_pod, None, [5, 0]),
    ] {
        let text = annotated(&service(""), "web", service_annotation)
            + &annotated(&plain, "web-1", slice_annotation)
            + &annotated(pod, "pod-1", pod_annotation);
        assert_eq!(weights(&store(&text)), expected, "{text}");
    }
    let bad = annotated(&service(""), "web", Some("pollgate.io/weights: '10.0.0.1=many'")) + &plain;
    assert_eq!((weights(&store(&bad)), findings(&store(&bad)).len()), (vec![1, 1], 1));
}

#[test]
fn a_pod_that_changes_concerns_its_services_alone() {
    let mut store = store(
        &(service("")
            + &super::named_service("other", "clusterIP: 10.254.0.2")
            + &slice("web-1", &["{addresses: [10.0.0.1], targetRef: {kind: Pod, name: pod-1}}"])),
    );
    let pod = |weight: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-1, annotations: {{pollgate.io/weight: '{weight}'}}}}\n"
        )
    };
    let changes = store.replace_file("pod.yaml", Some(pod("5").as_bytes()));
    assert_eq!(changes.services.iter().collect::<Vec<_>>(), [&key("web")]);
    assert_eq!(weights(&store), [5]);
    let same = pod("5").replace("metadata", "spec: {containers: []}\nmetadata");
    assert!(store.replace_file("pod.yaml", Some(same.as_bytes())).is_empty(), "nothing that counts changed");
    let changes = store.replace_file("pod.yaml", None);
    assert_eq!(changes.services.iter().collect::<Vec<_>>(), [&key("web")]);
    assert_eq!(weights(&store), [1]);
    // A slice that lets go of the pod ends the matter.
    store.replace_file("f.yaml", Some(service("").as_bytes()));
    assert!(store.replace_file("pod.yaml", Some(pod("5").as_bytes())).is_empty());
}

/// What the API server refuses of slices: the field and what is said.
#[test]
fn slices_that_are_wrong_are_refused() {
    let good = slice("web-1", &["{addresses: [10.0.0.1], nodeName: node-1}"]);
    let many = |count: usize, item: &str| vec![item; count].join(", ");
    let names = |count: usize| {
        (0..count).map(|number| format!("{{name: p{number}, port: 1}}")).collect::<Vec<_>>().join(", ")
    };
    for (from, to, expected) in [
        ("IPv4", "IPv5".to_owned(), "addressType: `IPv5` is no type of addresses"),
        ("addressType: IPv4\n", String::new(), "addressType: `` is no type of addresses"),
        ("IPv4", "IPv6".to_owned(), "endpoints[0].addresses[0]: 10.0.0.1 is not of the family IPv6"),
        ("10.0.0.1", "web".to_owned(), "endpoints[0].addresses[0]: `web` is no IP address"),
        ("10.0.0.1", "127.0.0.1".to_owned(), "endpoints[0].addresses[0]: `127.0.0.1` is a loopback address"),
        (
            "10.0.0.1",
            "169.254.1.1".to_owned(),
            "endpoints[0].addresses[0]: `169.254.1.1` is a link-local address",
        ),
        ("10.0.0.1", "224.0.0.1".to_owned(), "endpoints[0].addresses[0]: `224.0.0.1` is a multicast address"),
        (
            "10.0.0.1",
            "10.0.0.1, 0.0.0.0".to_owned(),
            "endpoints[0].addresses[1]: `0.0.0.0` is the unspecified address",
        ),
        ("10.0.0.1", String::new(), "endpoints[0].addresses: this endpoint has no address"),
        ("10.0.0.1", many(101, "10.0.0.1"), "endpoints[0].addresses: 101 addresses"),
        (
            "nodeName: node-1",
            "nodeName: Node".to_owned(),
            "endpoints[0].nodeName: `Node` is no name of a node",
        ),
        (
            "nodeName: node-1",
            format!("hints: {{forZones: [{}]}}", many(9, "{name: a}")),
            "endpoints[0].hints.forZones: 9 hints",
        ),
        ("port: 8080", "port: 65536".to_owned(), "ports[0].port: 65536 is no port"),
        ("port: 8080", "port: -1".to_owned(), "ports[0].port: -1 is no port"),
        ("port: 8080", "port: 1, protocol: QUIC".to_owned(), "ports[0].protocol: `QUIC` is no protocol"),
        ("name: http", "name: HTTP".to_owned(), "ports[0].name: `HTTP` is no name of a port"),
        (
            "{name: http, port: 8080}",
            "{name: a, port: 1}, {name: a, port: 2}".to_owned(),
            "ports[1].name: `a` is the name of another port too",
        ),
        ("{name: http, port: 8080}", names(101), "ports: 101 ports"),
        (
            "endpoints:\n",
            format!("endpoints:\n{}", "- {addresses: [10.0.0.1]}\n".repeat(1_000)),
            "endpoints: 1001 endpoints",
        ),
    ] {
        let store = store(&good.replace(from, &to));
        let found = store.findings();
        let first = found.first().unwrap();
        assert_eq!(format!("{}: {}", first.field, first.wrong), expected);
        assert_eq!(store.counts().rejected, 1, "{to}");
    }
}

#[test]
fn endpoints_objects_that_are_wrong_are_refused() {
    for (from, to, expected) in [
        (
            "10.0.1.1",
            "::ffff:10.0.1.1",
            "subsets[0].addresses[0].ip: `::ffff:10.0.1.1` is IPv4 written as IPv6",
        ),
        ("10.0.1.2", "127.0.0.1", "subsets[0].notReadyAddresses[0].ip: `127.0.0.1` is a loopback address"),
        ("node-1", "Node", "subsets[0].addresses[0].nodeName: `Node` is no name of a node"),
        ("port: 8082", "port: 0", "subsets[1].ports[0].port: 0 is no port"),
        ("name: other, ", "", "subsets[0].ports[1].name: this port has no name"),
        ("- addresses: [{ip: 10.0.1.3}]\n  ports", "- ports", "subsets[1]: this subset has no addresses"),
    ] {
        let store = store(&ENDPOINTS.replace(from, to));
        let found = store.findings();
        let first = found.first().unwrap();
        assert_eq!(format!("{}: {}", first.field, first.wrong), expected);
    }
}
