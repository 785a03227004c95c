//! Services on the reference cluster: who reaches what, through which way, with which addresses; all counters asserted.

mod support;

use engine::counters::Account;
use pipelines::drop_reason::DropReason;
use pipelines::gateway::Gauge;
use pipelines::table::SlotCounter;
use support::packets::*;
use support::{World, ip, reference};

const DATA_PRODUCT: &str = "10.254.116.224:50051";
const LOCAL_PORTS: [(&str, &str); 2] = [("data-product-1", "172.30.76.5"), ("data-product-2", "172.30.76.3")];

/// Where a pod's packet to the data-product service went: what was sent, and whether through the tunnel.
fn delivered(world: &mut World) -> (Seen, bool) {
    let mut found = Vec::new();
    for (port, _) in LOCAL_PORTS {
        found.extend(world.sent(port).iter().map(|frame| (read(frame), false)));
    }
    found.extend(world.sent("eth0").iter().map(|frame| (read_tunnel(frame).2, true)));
    assert_eq!(found.len(), 1, "exactly one packet leaves: {found:?} {:?}", world.drops());
    found.remove(0)
}

#[test]
fn pod_reaches_local_and_remote_backends_and_their_answers_come_back() {
    let mut world = World::new(&reference());
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..60u16 {
        let client = format!("172.30.76.7:{}", 40_000 + number);
        world.send("business-manager-1", &from_pod(7, &tcp(&client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        let (request, tunnelled) = delivered(&mut world);
        assert_eq!(request.from(), client, "a local pod keeps its address");
        assert_eq!((request.ttl, request.ports.1, request.flags), (63, 50_051, SYN.into()));
        let backend = request.to();
        assert_eq!(tunnelled, backend.starts_with("172.30.9."));
        *seen.entry(backend.clone()).or_insert(0) += 1;

        // The answer: a local backend's goes to the client's MAC over the bridge, a remote one's through the tunnel.
        let answer = tcp(&backend, &client, SYN | ACK, b"");
        let (port, frame, ttl) = if tunnelled {
            ("eth0", from_tunnel(&answer), 63)
        } else if backend.starts_with("172.30.76.5") {
            ("data-product-1", ethernet(&pod_mac(7), &pod_mac(5), 0x0800, &answer), 64)
        } else {
            ("data-product-2", ethernet(&pod_mac(7), &pod_mac(3), 0x0800, &answer), 64)
        };
        let back = world.exchange(port, &frame, "business-manager-1");
        assert_eq!(back.len(), 1, "{:?}", world.drops());
        let back = read(&back[0]);
        assert_eq!((back.from(), back.to(), back.ttl), (DATA_PRODUCT.to_owned(), client, ttl));
        assert_eq!(back.destination_mac, pod_mac(7));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    world.assert_drops(&[]);
    world.assert_balanced();
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.account(Account::Transmitted)), (60, 120));
    let tables = world.publisher.current();
    let service = tables.services.iter().find(|service| &*service.name == "data-product").unwrap();
    for backend in &service.backends {
        let count = seen[&format!("{}:{}", std::net::Ipv4Addr::from(backend.address), backend.port)];
        assert_eq!(world.slot(backend.slot, SlotCounter::Connections), count);
        assert_eq!(world.slot(backend.slot, SlotCounter::PacketsIn), count);
        assert_eq!(world.slot(backend.slot, SlotCounter::PacketsOut), count);
        assert_eq!(world.slot(backend.slot, SlotCounter::BytesIn), count * 40);
    }
}

#[test]
fn tunnel_packets_look_as_flannel_writes_them() {
    let mut world = World::new(&reference());
    // Pods of different nodes, no service.
    let frame = from_pod(7, &udp("172.30.76.7:1000", "172.30.9.2:2000", b"hello"));
    let sent = world.exchange("business-manager-1", &frame, "eth0");
    let (outer, vni, inner) = read_tunnel(&sent[0]);
    assert_eq!((outer.source, outer.destination), (ip("192.168.0.21"), ip("192.168.0.22")));
    assert_eq!((outer.source_mac.as_str(), outer.destination_mac.as_str()), (NODE_MAC, NODE_2_MAC));
    assert_eq!((outer.ttl, vni), (64, 1));
    assert!(outer.ports.0 >= 49_152, "{}", outer.ports.0);
    assert_eq!(&sent[0][40..42], [0, 0], "no outer UDP checksum");
    assert_eq!((inner.source_mac.as_str(), inner.destination_mac.as_str()), (VTEP_MAC, NODE_2_VTEP_MAC));
    assert_eq!((inner.from(), inner.to()), ("172.30.76.7:1000".to_owned(), "172.30.9.2:2000".to_owned()));
    assert_eq!((inner.ttl, inner.payload), (63, b"hello".to_vec()));

    let checked = reference().replace("send_udp_checksum = false", "send_udp_checksum = true");
    let mut world = World::new(&checked);
    let sent = world.exchange("business-manager-1", &frame, "eth0");
    assert_ne!(&sent[0][40..42], [0, 0]);
    read_tunnel(&sent[0]);
    world.assert_balanced();
}

#[test]
fn outer_source_ports_spread_flows_and_keep_each() {
    let mut world = World::new(&reference());
    let mut ports = std::collections::BTreeSet::new();
    for number in 0..64 {
        for _ in 0..2 {
            let packet = udp(&format!("172.30.76.7:{}", 1_000 + number), "172.30.9.2:2000", b"x");
            let sent = world.exchange("business-manager-1", &from_pod(7, &packet), "eth0");
            ports.insert((number, read(&sent[0]).ports.0));
        }
    }
    assert_eq!(ports.len(), 64, "one port a flow");
    assert!(ports.iter().map(|port| port.1).collect::<std::collections::BTreeSet<_>>().len() > 50);
}

#[test]
fn tunnelled_client_is_masqueraded_with_the_vtep_address() {
    let mut world = World::new(&reference());
    let client = "172.30.9.9:40000";
    let mut kinds = std::collections::BTreeSet::new();
    for number in 0..40u16 {
        let client = format!("172.30.9.9:{}", 40_000 + number);
        world.send("eth0", &from_tunnel(&tcp(&client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        let (request, tunnelled) = delivered(&mut world);
        kinds.insert(tunnelled);
        let expected = if tunnelled { "172.30.76.0" } else { "172.30.76.1" };
        assert_eq!(request.source, ip(expected), "the address of the device that it leaves by");
        assert!((32_768..=60_999).contains(&request.ports.0));
        // The answer to that address comes back to this gateway and leaves through the tunnel to the client.
        let answer = tcp(&request.to(), &request.from(), SYN | ACK, b"");
        let (port, frame) = if tunnelled {
            ("eth0", from_tunnel(&answer))
        } else if request.to().starts_with("172.30.76.5") {
            ("data-product-1", from_pod(5, &answer))
        } else {
            ("data-product-2", from_pod(3, &answer))
        };
        // Node 2's client pod has no neighbour entry of its own: the route's next hop leads there.
        let back = world.exchange(port, &frame, "eth0");
        let (_, _, back) = read_tunnel(&back[0]);
        assert_eq!((back.from(), back.to()), (DATA_PRODUCT.to_owned(), client));
    }
    assert_eq!(kinds.len(), 2, "local and remote backends were drawn");
    let _ = client;
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn hairpin_is_masqueraded_with_the_bridge_address() {
    let mut world = World::new(&reference());
    let mut hairpins = 0;
    for number in 0..60u16 {
        let client = format!("172.30.76.5:{}", 40_000 + number);
        world.send("data-product-1", &from_pod(5, &tcp(&client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        let (request, _) = delivered(&mut world);
        if request.destination != ip("172.30.76.5") {
            assert_eq!(request.from(), client);
            continue;
        }
        hairpins += 1;
        assert_eq!((request.source, request.destination_mac.clone()), (ip("172.30.76.1"), pod_mac(5)));
        let answer = from_pod(5, &tcp(&request.to(), &request.from(), SYN | ACK, b""));
        let back = world.exchange("data-product-1", &answer, "data-product-1");
        let back = read(&back[0]);
        assert_eq!((back.from(), back.to()), (DATA_PRODUCT.to_owned(), client));
    }
    assert!(hairpins > 5, "{hairpins}");
    world.assert_balanced();
}

#[test]
fn node_port_works_from_outside_and_masquerades() {
    let mut world = World::new(&reference());
    let request = to_node(CLIENT_MAC, &tcp("192.168.0.50:5555", "192.168.0.21:30799", SYN, b""));
    let sent = world.exchange("eth0", &request, "ingress-nginx");
    let seen = read(&sent[0]);
    assert_eq!((seen.source, seen.to()), (ip("172.30.76.1"), "172.30.76.2:80".to_owned()));
    let answer = from_pod(2, &tcp(&seen.to(), &seen.from(), SYN | ACK, b""));
    let back = world.exchange("ingress-nginx", &answer, "eth0");
    let back = read(&back[0]);
    assert_eq!((back.from(), back.to()), ("192.168.0.21:30799".to_owned(), "192.168.0.50:5555".to_owned()));
    assert_eq!((back.source_mac.as_str(), back.destination_mac.as_str()), (NODE_MAC, CLIENT_MAC));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn pods_leave_the_pod_network_with_the_nodes_address() {
    let mut world = World::new(&reference());
    // The database outside, through its service: not a service's masquerade, flannel's.
    let request = from_pod(7, &tcp("172.30.76.7:4000", "10.254.84.209:3306", SYN, b""));
    let sent = world.exchange("business-manager-1", &request, "eth0");
    let seen = read(&sent[0]);
    assert_eq!((seen.source, seen.to()), (ip("192.168.0.21"), "192.168.0.103:3306".to_owned()));
    let answer = to_node("02:00:c0:a8:00:67", &tcp(&seen.to(), &seen.from(), SYN | ACK, b""));
    let back = world.exchange("eth0", &answer, "business-manager-1");
    let back = read(&back[0]);
    assert_eq!((back.from(), back.to()), ("10.254.84.209:3306".to_owned(), "172.30.76.7:4000".to_owned()));

    // A ping to the outside: the identifier stands for the port.
    let request = from_pod(7, &echo("172.30.76.7", "8.8.8.8", false, 77));
    let sent = world.exchange("business-manager-1", &request, "eth0");
    let seen = read(&sent[0]);
    assert_eq!((seen.source, seen.destination_mac.as_str()), (ip("192.168.0.21"), "02:00:c0:a8:00:01"));
    let answer = to_node("02:00:c0:a8:00:01", &echo("8.8.8.8", "192.168.0.21", true, seen.ports.0));
    let back = world.exchange("eth0", &answer, "business-manager-1");
    assert_eq!((read(&back[0]).destination, read(&back[0]).ports.0), (ip("172.30.76.7"), 77));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn services_refuse_what_they_do_not_serve() {
    let mut world = World::new(&reference());
    let refused = |world: &mut World, packet: &[u8]| {
        let sent = world.exchange("business-manager-1", &from_pod(7, packet), "business-manager-1");
        sent.first().map(|frame| {
            let seen = read(frame);
            assert_eq!(
                (seen.flags, seen.destination, seen.source),
                (0x0303, ip("172.30.76.7"), ip("172.30.76.1"))
            );
            assert_eq!(seen.payload, packet[..packet.len().min(548)], "quotes the packet as it was sent");
        })
    };
    assert!(refused(&mut world, &udp("172.30.76.7:1", "10.254.0.2:53", b"query")).is_some());
    assert!(refused(&mut world, &tcp("172.30.76.7:2", "10.254.0.2:53", SYN, b"")).is_some());
    assert!(refused(&mut world, &tcp("172.30.76.7:3", "10.254.80.22:81", SYN, b"")).is_some());
    assert!(refused(&mut world, &echo("172.30.76.7", "10.254.80.22", false, 5)).is_none());
    assert!(refused(&mut world, &tcp("172.30.76.7:3", "10.254.200.1:80", SYN, b"")).is_none());
    world.assert_drops(&[
        ("service_icmp", 1),
        ("service_unknown_port", 1),
        ("service_unknown_address", 1),
        ("service_no_backend", 2),
    ]);
    world.assert_balanced();
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.account(Account::Originated)), (0, 3));

    // Through the tunnel the refusal comes from the VTEP.
    let request = from_tunnel(&udp("172.30.9.9:1", "10.254.0.2:53", b"query"));
    let sent = world.exchange("eth0", &request, "eth0");
    let (_, _, seen) = read_tunnel(&sent[0]);
    assert_eq!((seen.flags, seen.source, seen.destination), (0x0303, ip("172.30.76.0"), ip("172.30.9.9")));
    assert_eq!(world.dropped(DropReason::ServiceNoBackend), 3);
    world.assert_balanced();
}

/// 30,000 connections through a 5:3:2 service: the shares stand a chi-squared test at p = 0.001, and every packet of a
/// connection goes to one backend.
#[test]
fn weights_are_kept() {
    let text = reference()
        .replace("capacity = 65536", "capacity = 40000")
        .replace("172.30.76.5:50051\", weight = 1", "172.30.76.5:50051\", weight = 5")
        .replace("172.30.76.3:50051\", weight = 1", "172.30.76.3:50051\", weight = 3")
        .replace("172.30.9.2:50051\", weight = 1", "172.30.9.2:50051\", weight = 2");
    let mut world = World::with(&text, 1, 20_261_122);
    let mut chosen = std::collections::HashMap::new();
    for round in 0..2 {
        for number in 0..30_000u32 {
            let client = format!("172.30.76.{}:{}", 6 + number % 2, 1_024 + number);
            let flags = if round == 0 { SYN } else { ACK };
            let port = if number % 2 == 0 { "business-manager-2" } else { "business-manager-1" };
            let last = 6 + (number % 2) as u8;
            world.send(port, &from_pod(last, &tcp(&client, DATA_PRODUCT, flags, b"")));
            world.turn();
            let (seen, _) = delivered(&mut world);
            if round == 0 {
                // The answer, so that the connection is open.
                let answer = tcp(&seen.to(), &client, SYN | ACK, b"");
                let frame = ethernet(BRIDGE_MAC, &pod_mac(5), 0x0800, &answer);
                assert_eq!(world.exchange("data-product-1", &frame, port).len(), 1);
                chosen.insert(client, seen.to());
            } else {
                assert_eq!(chosen[&client], seen.to(), "a connection stays where it is");
            }
        }
    }
    let mut counts = std::collections::BTreeMap::new();
    for backend in chosen.values() {
        *counts.entry(backend.as_str()).or_insert(0.0_f64) += 1.0;
    }
    let expected =
        [("172.30.76.5:50051", 15_000.0), ("172.30.76.3:50051", 9_000.0), ("172.30.9.2:50051", 6_000.0)];
    let chi_squared: f64 =
        expected.iter().map(|(backend, share)| (counts[backend] - share).powi(2) / share).sum();
    // The 0.999 quantile of chi-squared with two degrees of freedom.
    assert!(chi_squared < 13.816, "{counts:?} {chi_squared}");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn draining_backend_keeps_its_connections_and_gets_no_new_ones() {
    let mut world = World::new(&reference());
    let mut before = Vec::new();
    for number in 0..30 {
        let client = format!("172.30.76.7:{}", 40_000 + number);
        world.send("business-manager-1", &from_pod(7, &tcp(&client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        before.push((client, delivered(&mut world).0.to()));
    }
    world.reload(&reference().replace("172.30.76.5:50051\", weight = 1", "172.30.76.5:50051\", weight = 0"));
    for (client, backend) in &before {
        world.send("business-manager-1", &from_pod(7, &tcp(client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        assert_eq!(delivered(&mut world).0.to(), *backend);
    }
    assert!(before.iter().any(|(_, backend)| backend.starts_with("172.30.76.5")));
    for number in 0..60 {
        let client = format!("172.30.76.7:{}", 50_000 + number);
        world.send("business-manager-1", &from_pod(7, &tcp(&client, DATA_PRODUCT, SYN, b"")));
        world.turn();
        assert!(!delivered(&mut world).0.to().starts_with("172.30.76.5"));
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn direct_and_service_connections_that_meet_at_one_backend_are_kept_apart() {
    let text = reference().replace(
        "{ address = \"172.30.76.5:50051\", weight = 1 }, # weight: 1 if not given; 0 drains\n    { address = \"172.30.76.3:50051\", weight = 1 },\n    { address = \"172.30.9.2:50051\", weight = 1 },",
        "{ address = \"172.30.9.2:50051\" }",
    );
    let mut world = World::new(&text);
    let client = "172.30.76.7:40000";
    let direct = from_pod(7, &tcp(client, "172.30.9.2:50051", SYN, b""));
    let first = read_tunnel(&world.exchange("business-manager-1", &direct, "eth0")[0]).2;
    assert_eq!(first.from(), client);
    let through_service = from_pod(7, &tcp(client, DATA_PRODUCT, SYN, b""));
    let second = read_tunnel(&world.exchange("business-manager-1", &through_service, "eth0")[0]).2;
    assert_eq!((second.source, second.to()), (first.source, first.to()));
    assert_ne!(second.ports.0, 40_000, "the second gets another source port");
    for (seen, expected) in [(first, "172.30.9.2:50051"), (second, DATA_PRODUCT)] {
        let answer = from_tunnel(&tcp(&seen.to(), &seen.from(), SYN | ACK, b""));
        let back = world.exchange("eth0", &answer, "business-manager-1");
        assert_eq!((read(&back[0]).from(), read(&back[0]).to()), (expected.to_owned(), client.to_owned()));
    }
    world.assert_balanced();
}
