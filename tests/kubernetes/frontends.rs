//! Point 1: by which addresses a service is known, and which services are none. Point 7: what a service's addresses do
//! not serve. Point 15: IPv6.

use std::net::Ipv6Addr;

use pipelines::control::services::desired::ServiceKey;
use pipelines::gateway::Gauge;

use crate::manifests::{gateway, service, slice, world, world_of};
use crate::stations::{Call, Outcome, ask, first, packet};
use crate::support::packets::*;

/// One service of every kind of address, for each protocol.
fn every_kind() -> String {
    let mut text = String::new();
    for (name, protocol, last) in [("web", "TCP", 1), ("dns", "UDP", 2), ("signal", "SCTP", 3)] {
        text += &service(
            name,
            &format!("10.254.1.{last}"),
            &[&format!("main/{protocol}/80/3100{last}")],
            &format!(
                "  type: LoadBalancer\n  externalIPs: [203.0.113.{last}]\nstatus:\n  loadBalancer:\n    ingress:\n      \
                 - {{ ip: 198.51.100.{last} }}\n      - {{ ip: 198.51.100.1{last}, ipMode: VIP }}\n      \
                 - {{ ip: 198.51.100.2{last}, ipMode: Proxy }}"
            ),
        );
        text += &slice(name, name, &[&format!("main/{protocol}/8080")], &["172.30.76.5 node=node-1"]);
    }
    text
}

#[test]
fn a_service_is_known_by_all_of_its_addresses_and_by_its_protocol() {
    let mut world = world(&every_kind());
    let mut calls = 0;
    for (protocol, last) in [("tcp", 1), ("udp", 2), ("sctp", 3)] {
        for (number, address) in [
            format!("10.254.1.{last}:80"),
            format!("203.0.113.{last}:80"),
            format!("198.51.100.{last}:80"),
            format!("198.51.100.1{last}:80"),
            format!("192.168.0.21:3100{last}"),
        ]
        .iter()
        .enumerate()
        {
            for client in ["172.30.76.7", "192.168.0.50", "172.30.9.9", "8.8.8.8", "192.168.0.21"] {
                let client = format!("{client}:{}", 4_000 + number);
                let call = Call::open(&mut world, 0, protocol, &client, address);
                assert_eq!((call.backend.as_str(), call.at.as_str()), ("172.30.76.5:8080", "data-product-1"));
                call.answer(&mut world, 0, SYN | ACK);
                calls += 1;
            }
        }
        // Of another protocol nothing is known there.
        let other = if protocol == "tcp" { "udp" } else { "tcp" };
        let outcome = first(&mut world, other, "172.30.76.7:5000", &format!("10.254.1.{last}:80"));
        assert_eq!(outcome, Outcome::Rejected("service_unknown_port"));
    }
    world.assert_drops(&[("service_unknown_port", 3)]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), calls);
    world.assert_balanced();
}

#[test]
fn what_is_not_captured_is_routed_as_if_there_were_no_service() {
    let mut world = world(&every_kind());
    for to in [
        // The balancer's own business, and what lies beside a service's port on addresses that are not the cluster's.
        "198.51.100.21:80",
        "198.51.100.1:81",
        "203.0.113.1:443",
        // A node port is none on the cluster IP's port, nor on addresses that are not selected.
        "203.0.113.1:31001",
    ] {
        let Outcome::Sent(at, seen) = first(&mut world, "tcp", "172.30.76.7:4000", to) else {
            panic!("{to}")
        };
        assert_eq!(
            (at.as_str(), seen.to(), seen.destination_mac.as_str()),
            ("eth0", to.to_owned(), "02:00:c0:a8:00:01")
        );
    }
    // The bridge's address is the node's too, but no primary one.
    let outcome = first(&mut world, "tcp", "172.30.76.7:4001", "172.30.76.1:31001");
    assert!(
        matches!(&outcome, Outcome::Sent(at, seen) if at == "host" && seen.to() == "172.30.76.1:31001"),
        "{outcome:?}"
    );
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn node_ports_are_on_the_addresses_that_are_selected() {
    let text = gateway().replace(
        "addresses = [\"192.168.0.21\"]",
        "addresses = [\"192.168.0.21\", \"203.0.113.77\", \"172.30.76.1\"]",
    );
    for (selected, on) in [
        ("[\"203.0.113.0/24\"]", ["203.0.113.77"].as_slice()),
        ("[\"203.0.113.0/24\", \"172.30.76.1/32\"]", &["203.0.113.77", "172.30.76.1"]),
        ("[\"0.0.0.0/0\"]", &["192.168.0.21", "203.0.113.77", "172.30.76.1"]),
        // By default the primary one: the Node object's first.
        ("[]", &["192.168.0.21"]),
    ] {
        let settings = format!("node_port_addresses = {selected}\nsnat_port_range");
        let mut world = world_of(&text.replace("snat_port_range", &settings), &every_kind(), 1, 1);
        for address in ["192.168.0.21", "203.0.113.77", "172.30.76.1"] {
            let outcome = first(&mut world, "tcp", "192.168.0.50:4000", &format!("{address}:31001"));
            let Outcome::Sent(at, seen) = outcome else { panic!("{selected} {address}: {outcome:?}") };
            let to = if on.contains(&address) {
                ("data-product-1", "172.30.76.5:8080".to_owned())
            } else {
                ("host", format!("{address}:31001"))
            };
            assert_eq!((at.as_str(), seen.to()), to, "{selected}");
        }
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn services_of_others_are_not_programmed() {
    let ready = &["172.30.76.5 node=node-1"];
    let mut text = String::new();
    for (name, cluster_ip, more) in [
        ("headless", "None", ""),
        ("named", "\"\"", "  type: ExternalName\n  externalName: example.com"),
        ("other-proxy", "10.254.2.1", ""),
        ("labelled", "10.254.2.2", ""),
        ("fqdn", "10.254.2.3", ""),
    ] {
        let service = service(name, cluster_ip, &["/TCP/80"], more);
        text += &match name {
            "other-proxy" => service.replace(
                "  name: other-proxy\n",
                "  name: other-proxy\n  labels: { service.kubernetes.io/service-proxy-name: cilium }\n",
            ),
            "labelled" => service.replace(
                "  name: labelled\n",
                "  name: labelled\n  labels: { service.kubernetes.io/headless: \"\" }\n",
            ),
            _ => service,
        };
        let slice = slice(name, name, &["/TCP/8080"], ready);
        text += &match name {
            "fqdn" => {
                slice.replace("addressType: IPv4", "addressType: FQDN").replace("172.30.76.5", "example.com")
            }
            _ => slice,
        };
    }
    let mut world = world(&text);
    for (address, expected) in [
        // Not a known cluster IP, in the service network.
        ("10.254.2.1", Outcome::Dropped("service_unknown_address")),
        ("10.254.2.2", Outcome::Dropped("service_unknown_address")),
        // Programmed, and no endpoint of it can be used.
        ("10.254.2.3", Outcome::Rejected("service_no_backend")),
    ] {
        assert_eq!(first(&mut world, "tcp", "172.30.76.7:4000", &format!("{address}:80")), expected);
    }
    let tables = world.publisher.current();
    let names: Vec<&str> = tables.services.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["fqdn"]);
    world.assert_drops(&[("service_unknown_address", 2), ("service_no_backend", 1)]);
    world.assert_balanced();
}

#[test]
fn known_addresses_reject_what_they_do_not_serve_and_unknown_ones_drop_it() {
    let mut world = world(&every_kind());
    let mut rejected = 0;
    for protocol in ["tcp", "udp", "sctp"] {
        for client in ["172.30.76.7:4000", "172.30.9.9:4000", "192.168.0.50:4000", "192.168.0.21:4000"] {
            let outcome = first(&mut world, protocol, client, "10.254.1.1:81");
            assert_eq!(outcome, Outcome::Rejected("service_unknown_port"), "{protocol} {client}");
            rejected += 1;
        }
        let outcome = first(&mut world, protocol, "172.30.76.7:4000", "10.254.77.1:80");
        assert_eq!(outcome, Outcome::Dropped("service_unknown_address"));
        // In the middle of a connection that nobody knows, too.
        let outcome = ask(&mut world, 0, &packet(protocol, "172.30.76.7:4001", "10.254.1.1:81", ACK));
        assert_eq!(outcome, Outcome::Rejected("service_unknown_port"));
        rejected += 1;
    }
    let outcome = ask(&mut world, 0, &echo("172.30.76.7", "10.254.1.1", false, 5));
    assert_eq!(outcome, Outcome::Dropped("service_icmp"));
    let outcome = ask(&mut world, 0, &ipv4_with("172.30.76.7", "10.254.1.1", 47, 64, &[0, 0, 8, 0]));
    assert_eq!(outcome, Outcome::Dropped("service_protocol"));
    let outcome = ask(&mut world, 0, &echo("172.30.76.7", "10.254.77.1", false, 5));
    assert_eq!(outcome, Outcome::Dropped("service_unknown_address"));
    world.assert_drops(&[
        ("service_icmp", 1),
        ("service_protocol", 1),
        ("service_unknown_port", rejected),
        ("service_unknown_address", 4),
    ]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 0, "nothing is remembered of them");
    world.assert_balanced();
}

/// A cluster IP is known as long as any port has it, and no longer.
#[test]
fn an_address_is_known_while_a_service_has_it() {
    let mut world = world("");
    let outcome =
        |world: &mut crate::support::World| first(world, "tcp", "172.30.76.7:4000", "10.254.3.1:81");
    assert_eq!(outcome(&mut world), Outcome::Dropped("service_unknown_address"));
    world.replace("more", Some(&service("a", "10.254.3.1", &["web/TCP/80", "dns/UDP/53"], "")));
    assert_eq!(outcome(&mut world), Outcome::Rejected("service_unknown_port"));
    world.replace("more", Some(&service("a", "10.254.3.1", &["dns/UDP/53"], "")));
    assert_eq!(outcome(&mut world), Outcome::Rejected("service_unknown_port"));
    world.replace("more", Some(&service("a", "10.254.3.2", &["dns/UDP/53"], "")));
    assert_eq!(outcome(&mut world), Outcome::Dropped("service_unknown_address"));
    world.replace("more", None);
    assert_eq!(
        first(&mut world, "udp", "172.30.76.7:4000", "10.254.3.2:53"),
        Outcome::Dropped("service_unknown_address")
    );
    world.settle();
    world.assert_drops(&[("service_unknown_port", 2), ("service_unknown_address", 3)]);
    world.assert_balanced();
}

#[test]
fn ipv6_is_read_kept_apart_and_told() {
    let text = service(
        "both",
        "10.254.4.1",
        &["/TCP/80"],
        "  clusterIPs: [10.254.4.1, \"fd00::10\"]\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: PreferDualStack\n  \
         externalIPs: [203.0.113.9, \"2001:db8::9\"]",
    ) + &slice("both", "both-4", &["/TCP/8080"], &["172.30.76.5 node=node-1"])
        + &slice("both", "both-6", &["/TCP/8080"], &["fd00:76::5 node=node-1", "fd00:76::6 node=node-1"])
            .replace("addressType: IPv4", "addressType: IPv6")
        + &service("six", "\"fd00::11\"", &["/TCP/80"], "  ipFamilies: [IPv6]");
    let mut objects = pipelines::control::kubernetes::ObjectStore::new();
    objects.replace_file("services", Some(text.as_bytes()));
    let told: Vec<String> = objects.findings().iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|finding| finding.contains("IPv6")), "{told:#?}");
    let counts = objects.counts();
    assert_eq!((counts.rejected, counts.services_ipv6, counts.endpoints_ipv6), (0, 2, 2));
    let addresses: [Ipv6Addr; 2] = ["fd00::10".parse().unwrap(), "2001:db8::9".parse().unwrap()];
    assert_eq!(objects.ipv6(&ServiceKey::new("default", "both")), addresses);

    let mut world = world("");
    world.replace("services", Some(&text));
    for to in ["10.254.4.1:80", "203.0.113.9:80"] {
        let call = Call::open(&mut world, 0, "tcp", "172.30.76.7:4000", to);
        assert_eq!(call.backend, "172.30.76.5:8080");
        call.answer(&mut world, 0, SYN | ACK);
    }
    let tables = world.publisher.current();
    assert_eq!(tables.services.iter().count(), 1);
    assert!(tables.services.iter().all(|port| port.backends.len() == 1));
    world.assert_drops(&[]);
    world.assert_balanced();
}
