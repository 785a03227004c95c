//! Point 2: who is masqueraded, and with which address.

use pipelines::gateway::Gauge;

use crate::manifests::{gateway, gateway_with, service, slice, world_of};
use crate::stations::{Call, assert_spread};
use crate::support::World;
use crate::support::packets::*;

/// A local backend, one on node 2, one outside the cluster, and one on the node itself, each behind a service of its own
/// that is reached by every kind of address; and `all` before three of them.
fn services(more: &str) -> String {
    let mut text = String::new();
    for (name, last, endpoint) in [
        ("local", 1, "172.30.76.5 node=node-1"),
        ("remote", 2, "172.30.9.3 node=node-2"),
        ("outside", 3, "192.168.0.103"),
        ("node", 4, "192.168.0.21 node=node-1"),
    ] {
        let more = format!(
            "  type: LoadBalancer\n{more}  externalIPs: [203.0.113.{last}]\nstatus:\n  loadBalancer:\n    ingress: \
             [{{ ip: 198.51.100.{last} }}]"
        );
        text += &service(name, &format!("10.254.1.{last}"), &[&format!("/TCP/80/3100{last}")], &more);
        text += &slice(name, name, &["/TCP/8080"], &[endpoint]);
    }
    let all = ["172.30.76.5 node=node-1", "172.30.9.3 node=node-2", "192.168.0.103"];
    text + &service("all", "10.254.1.9", &["/TCP/80/31009"], &format!("  type: NodePort\n{more}"))
        + &slice("all", "all", &["/TCP/8080"], &all)
}

const SOURCES: [&str; 5] = ["172.30.76.7", "172.30.9.9", "192.168.0.50", "8.8.8.8", "192.168.0.21"];

/// The service's addresses that come from outside.
fn external(last: u8) -> [String; 3] {
    [format!("203.0.113.{last}:80"), format!("198.51.100.{last}:80"), format!("192.168.0.21:3100{last}")]
}

/// Opens a connection, lets it be answered, and gives the address that the backend sees.
fn seen_from(world: &mut World, number: u16, source: &str, to: &str) -> String {
    let call = Call::established(world, 0, "tcp", &format!("{source}:{}", 20_000 + number), to);
    endpoint(&call.peer).0.to_owned()
}

/// The address of the device that a packet to this service leaves by.
fn device(last: u8) -> &'static str {
    match last {
        1 => "172.30.76.1",
        2 => "172.30.76.0",
        _ => "192.168.0.21",
    }
}

/// What a cluster IP's backend sees of a source: pods leave the pod network for the underlay with the node's address
/// whatever the service says (flannel's ip-masq).
fn cluster_ip_peer(source: &'static str, last: u8, masquerades: bool) -> &'static str {
    let is_pod = source.starts_with("172.30.");
    if masquerades || (is_pod && last == 3) { device(last) } else { source }
}

#[test]
fn a_cluster_ip_masquerades_sources_outside_the_pods_networks_alone() {
    for (settings, outside) in [
        ("snat_port_range = \"32768-60999\"", [false, true, true, true, true].as_slice()),
        // No prefixes, no masquerading; unless everything is.
        ("@none", &[false; 5]),
        ("masquerade_all = true", &[true; 5]),
        ("@none masquerade_all = true", &[true; 5]),
    ] {
        let text = gateway_with(settings.trim_start_matches("@none"));
        let text = if settings.starts_with("@none") {
            text.replace("pod_cidrs = [\"172.30.76.0/24\"]", "pod_cidrs = []")
        } else {
            text
        };
        let mut world = world_of(&text, &services(""), 1, 1);
        let mut number = 0;
        for (source, masquerades) in SOURCES.into_iter().zip(outside) {
            for last in 1..=3 {
                number += 1;
                let expected = cluster_ip_peer(source, last, *masquerades);
                let seen = seen_from(&mut world, number, source, &format!("10.254.1.{last}:80"));
                assert_eq!(seen, expected, "{source} to {last} with {settings}");
            }
        }
        world.assert_drops(&[]);
        assert_eq!(world.gauge(Gauge::FlowsCreated), 15);
        world.assert_balanced();
    }
}

#[test]
fn what_comes_from_outside_is_masqueraded_pods_too_with_the_devices_address() {
    let mut world = world_of(&gateway(), &services(""), 1, 1);
    let mut number = 0;
    for source in SOURCES {
        for last in 1..=3 {
            for to in external(last) {
                number += 1;
                assert_eq!(seen_from(&mut world, number, source, &to), device(last), "{source} to {to}");
            }
        }
    }
    // With no pod networks configured, all the same: external traffic is masqueraded for its way back.
    let text = gateway().replace("pod_cidrs = [\"172.30.76.0/24\"]", "pod_cidrs = []");
    let mut without = world_of(&text, &services(""), 1, 1);
    assert_eq!(seen_from(&mut without, 1, "172.30.76.7", "192.168.0.21:31002"), "172.30.76.0");
    for world in [&mut world, &mut without] {
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn the_override_is_for_services_alone() {
    let text = gateway_with("snat_address = \"192.168.0.21\"");
    let mut world = world_of(&text, &services(""), 1, 1);
    for (number, last) in [(1, 1), (2, 2), (3, 3)] {
        let to = format!("192.168.0.21:3100{last}");
        assert_eq!(seen_from(&mut world, number, "192.168.0.50", &to), "192.168.0.21");
    }
    // A local pod to a cluster IP keeps its address.
    assert_eq!(seen_from(&mut world, 4, "172.30.76.7", "10.254.1.1:80"), "172.30.76.7");
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// A backend on the node itself gets what is for it as it is: the kernel's POSTROUTING sees no packet that is delivered.
#[test]
fn what_the_node_itself_serves_is_delivered_with_the_clients_address() {
    let mut world = world_of(&gateway(), &services(""), 1, 1);
    for (number, source) in ["172.30.76.7", "172.30.9.9", "192.168.0.50", "8.8.8.8"].into_iter().enumerate() {
        for (place, to) in external(4).iter().enumerate() {
            let client = format!("{source}:{}", 5_000 + 10 * number + place);
            let call = Call::established(&mut world, 0, "tcp", &client, to);
            assert_eq!((call.at.as_str(), call.backend.as_str()), ("host", "192.168.0.21:8080"));
            assert!(!call.is_masqueraded());
        }
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn a_backend_that_draws_itself_is_masqueraded_under_every_policy_and_address() {
    for policy in [
        "",
        "  externalTrafficPolicy: Local\n",
        "  internalTrafficPolicy: Local\n",
        "  externalTrafficPolicy: Local\n  internalTrafficPolicy: Local\n",
    ] {
        let mut world = world_of(&gateway(), &services(policy), 1, 1);
        for (number, to) in ["10.254.1.1:80"].into_iter().map(str::to_owned).chain(external(1)).enumerate() {
            let seen = seen_from(&mut world, number as u16, "172.30.76.5", &to);
            assert_eq!(seen, "172.30.76.1", "{policy} {to}");
        }
        // One on another node comes in by the tunnel, and out again with the VTEP's address.
        let to_remote = if policy.contains("internal") { vec![] } else { vec!["10.254.1.2:80".to_owned()] };
        // From there it is no pod of this node: under Local it gets local backends alone, and here are none.
        let external = if policy.contains("external") { vec![] } else { external(2).to_vec() };
        for (number, to) in to_remote.into_iter().chain(external).enumerate() {
            let seen = seen_from(&mut world, 100 + number as u16, "172.30.9.3", &to);
            assert_eq!(seen, "172.30.76.0", "{policy} {to}");
        }
        // The database outside that calls its own service.
        if !policy.contains("internal") {
            assert_eq!(seen_from(&mut world, 200, "192.168.0.103", "10.254.1.3:80"), "192.168.0.21");
        }
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// Whether it is a hairpin is decided with the backend that was drawn.
#[test]
fn of_several_backends_the_caller_itself_alone_is_masqueraded() {
    let mut world = world_of(&gateway(), &services(""), 1, 1);
    assert_spread(
        &mut world,
        "tcp",
        "172.30.76.5",
        "10.254.1.9:80",
        1_000,
        // The last by flannel's rule, not the service's.
        &[("172.30.76.5:8080", true), ("172.30.9.3:8080", false), ("192.168.0.103:8080", true)],
    );
    assert_spread(
        &mut world,
        "tcp",
        "172.30.76.5",
        "192.168.0.21:31009",
        2_000,
        &[("172.30.76.5:8080", true), ("172.30.9.3:8080", true), ("192.168.0.103:8080", true)],
    );
    world.assert_drops(&[]);
    world.assert_balanced();
}
