//! Nodes.

use super::{findings, store};
use crate::control::kubernetes::ObjectStore;
use crate::control::services::desired::Vtep;

fn node(metadata: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: node-1\n{metadata}{rest}")
}

fn flannel(annotations: &str) -> String {
    let lines: String =
        annotations.lines().map(|line| format!("    flannel.alpha.coreos.com/{line}\n")).collect();
    node(&format!("  annotations:\n{lines}"), "")
}

fn vtep(store: &ObjectStore) -> Option<Vtep> {
    store.node("node-1").unwrap().vtep
}

#[test]
fn addresses_networks_and_zone() {
    let text = node(
        "  labels: {topology.kubernetes.io/zone: zone-a}\n",
        "spec:
  podCIDR: 172.30.76.0/24
  podCIDRs: [172.30.76.0/24, 'fd00:76::/64']
status:
  addresses:
  - {type: ExternalIP, address: 203.0.113.1}
  - {type: Hostname, address: node-1}
  - {type: InternalIP, address: 'fd00::1'}
  - {type: InternalIP, address: 192.168.0.21}
  - {type: InternalIP, address: 192.168.1.21}
  - {type: ExternalIP, address: 192.168.0.21}
",
    );
    let store = store(&text);
    assert_eq!(findings(&store), Vec::<String>::new());
    let node = store.node("node-1").unwrap();
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.0.21", "192.168.1.21", "203.0.113.1"]);
    assert_eq!(node.pod_cidrs, ["172.30.76.0/24".parse().unwrap()]);
    assert_eq!((node.zone.as_deref(), node.vtep), (Some("zone-a"), None));
    assert_eq!((node.origin.kind, &*node.origin.source, &*node.origin.namespace), ("Node", "f.yaml:1", ""));
}

#[test]
fn a_single_pod_cidr_will_do_and_bad_ones_are_refused() {
    let cidrs = |spec: &str| {
        let store = store(&node("", &format!("spec: {{{spec}}}\n")));
        let found = store.findings();
        found.first().map(|finding| format!("{}: {}", finding.field, finding.wrong)).ok_or_else(|| {
            store.node("node-1").unwrap().pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()
        })
    };
    assert_eq!(cidrs("podCIDR: 172.30.76.0/24"), Err(vec!["172.30.76.0/24".to_owned()]));
    assert_eq!(cidrs("podCIDR: 'fd00::/64'"), Err(vec![]));
    assert_eq!(cidrs(""), Err(vec![]));
    for (spec, expected) in [
        ("podCIDR: 172.30.76.0", "spec.podCIDR: `172.30.76.0` is no prefix"),
        (
            "podCIDRs: [172.30.76.0/24, 172.30.77.0/24]",
            "spec.podCIDRs[1]: 172.30.77.0/24 is the second prefix of IPv4",
        ),
        (
            "podCIDR: 10.0.0.0/8, podCIDRs: [172.30.76.0/24]",
            "spec.podCIDRs: it begins with `172.30.76.0/24`, and `podCIDR` is `10.0.0.0/8`",
        ),
    ] {
        assert_eq!(cidrs(spec).as_deref(), Ok(expected));
    }
}

#[test]
fn flannels_annotations_tell_the_end_of_the_tunnel() {
    let expected = |vni, ip: &str| {
        Some(Vtep { vni, mac: "8a:22:81:5e:d8:b7".parse().unwrap(), public_ip: ip.parse().unwrap() })
    };
    for (annotations, told) in [
        (
            "backend-type: vxlan\nbackend-data: '{\"VNI\":7,\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}'\npublic-ip: 192.168.0.21",
            expected(7, "192.168.0.21"),
        ),
        (
            "backend-type: vxlan\nbackend-data: '{\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}'\npublic-ip: 192.168.0.21",
            expected(1, "192.168.0.21"),
        ),
        (
            "backend-type: vxlan\nbackend-data: '{\"VNI\":1,\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}'\npublic-ip: 192.168.0.21\npublic-ip-overwrite: 203.0.113.1",
            expected(1, "203.0.113.1"),
        ),
        ("backend-type: host-gw\nbackend-data: 'null'\npublic-ip: 192.168.0.21", None),
        ("public-ip: 192.168.0.21", None),
    ] {
        let store = store(&flannel(annotations));
        assert_eq!((vtep(&store), findings(&store).len()), (told, 0), "{annotations}");
    }
}

#[test]
fn bad_annotations_leave_the_node_without_a_tunnel() {
    for (data, public_ip, field) in [
        ("null", "192.168.0.21", "backend-data"),
        ("{", "192.168.0.21", "backend-data"),
        ("{\"VNI\":16777216,\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}", "192.168.0.21", "backend-data"),
        ("{\"VNI\":1,\"VtepMAC\":\"ff:ff:ff:ff:ff:ff\"}", "192.168.0.21", "backend-data"),
        ("{\"VNI\":1,\"VtepMAC\":\"8a:22\"}", "192.168.0.21", "backend-data"),
        ("{\"VNI\":1,\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}", "node-1", "public-ip"),
        ("{\"VNI\":1,\"VtepMAC\":\"8a:22:81:5e:d8:b7\"}", "0.0.0.0", "public-ip"),
    ] {
        let store =
            store(&flannel(&format!("backend-type: vxlan\nbackend-data: '{data}'\npublic-ip: {public_ip}")));
        assert_eq!(vtep(&store), None);
        let found = store.findings();
        assert_eq!(found.len(), 1);
        let field = format!("metadata.annotations[flannel.alpha.coreos.com/{field}]");
        assert!(
            !crate::control::config::Diagnostic::from(&found[0]).is_error() && found[0].field == field,
            "{found:?}"
        );
    }
}

#[test]
fn addresses_that_are_none_are_left_out() {
    let text = node(
        "",
        "status: {addresses: [{type: InternalIP, address: node-1}, {type: InternalIP, address: 192.168.0.21}]}\n",
    );
    let store = store(&text);
    assert_eq!(store.node("node-1").unwrap().addresses.len(), 1);
    assert_eq!(
        findings(&store),
        [
            "f.yaml:5:50: warning: Node node-1: status.addresses[0].address: `node-1` is no address of a node, so it is left out; give an address, as in 10.0.0.1"
        ]
    );
}

#[test]
fn nodes_that_change_are_told_of() {
    let mut store = store(&node("", ""));
    let zone = node("  labels: {topology.kubernetes.io/zone: zone-a}\n", "");
    assert!(store.replace_file("f.yaml", Some(zone.as_bytes())).nodes);
    let other = zone.replace("labels: {", "labels: {a: b, ");
    assert!(!store.replace_file("f.yaml", Some(other.as_bytes())).nodes, "nothing that counts");
    assert!(!store.replace_file("f.yaml", Some(format!("\n\n{other}").as_bytes())).nodes);
    assert_eq!(&*store.node("node-1").unwrap().origin.source, "f.yaml:3");
    assert!(store.replace_file("f.yaml", None).nodes && store.nodes().count() == 0);
}
