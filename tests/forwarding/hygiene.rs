//! Bad and odd input: each kind has its own counter, and none leaves.

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

/// Nothing leaves by any port.
fn assert_silent(world: &mut World, what: &str) {
    for port in ["eth0", pod_port(7), pod_port(6), pod_port(5), pod_port(3), pod_port(2)] {
        assert!(world.sent(port).is_empty(), "{what} left by {port}");
    }
    assert!(world.sent_to_host().is_empty(), "{what} went to the host");
}

/// Each frame arrives by its port and ends under its name, which is counted once.
fn assert_dropped(cases: &[(&str, &str, Vec<u8>)]) {
    let mut world = World::new(&reference());
    let mut expected = std::collections::BTreeMap::new();
    for (name, port, frame) in cases {
        world.send(port, frame);
        world.turn();
        *expected.entry(*name).or_insert(0) += 1;
        let counted: std::collections::BTreeMap<_, _> = world.drops().into_iter().collect();
        assert_eq!(counted, expected, "{frame:02x?}");
        assert_silent(&mut world, name);
    }
    assert_eq!(world.accounts(), format!("received {0}, dropped {0}", cases.len()));
    assert_eq!(world.tracked(), 0);
    world.assert_balanced();
}

#[test]
fn frames_that_are_none() {
    let good = from_pod(7, &udp("172.30.76.7:1", "8.8.8.8:2", b"x"));
    let packet = &good[14..];
    let typed = |ether_type| ethernet(BRIDGE_MAC, &pod_mac(7), ether_type, packet);
    assert_dropped(&[
        ("ethernet_truncated", pod_port(7), vec![]),
        ("ethernet_truncated", pod_port(7), good[..13].to_vec()),
        ("ipv4_truncated", pod_port(7), good[..14].to_vec()),
        ("vlan_tag", pod_port(7), typed(0x8100)),
        ("vlan_tag", pod_port(7), typed(0x88a8)),
        ("vlan_tag", pod_port(7), ethernet(&pod_mac(6), &pod_mac(7), 0x8100, packet)),
        ("ether_type_unsupported", pod_port(7), typed(0x0046)),
        ("source_mac_invalid", pod_port(7), ethernet(BRIDGE_MAC, "01:00:5e:00:00:01", 0x0800, packet)),
        ("source_mac_invalid", pod_port(7), ethernet(BRIDGE_MAC, "00:00:00:00:00:00", 0x0800, packet)),
        ("foreign_mac", "eth0", ethernet("02:00:c0:a8:00:16", CLIENT_MAC, 0x0800, packet)),
        ("foreign_mac", "eth0", ethernet(VTEP_MAC, CLIENT_MAC, 0x0800, packet)),
        ("arp_malformed", pod_port(7), ethernet(BRIDGE_MAC, &pod_mac(7), 0x0806, &[0; 27])),
        ("arp_malformed", pod_port(7), ethernet(BRIDGE_MAC, &pod_mac(7), 0x0806, &[0; 28])),
    ]);
}

#[test]
fn ip_packets_that_are_none() {
    let packet = udp("172.30.76.7:1", "8.8.8.8:2", b"xyz");
    let pod = |packet: &[u8]| from_pod(7, packet);
    let mut bad_checksum = packet.clone();
    bad_checksum[10] ^= 1;
    let case = |name, packet: &[u8]| (name, pod_port(7), pod(packet));
    assert_dropped(&[
        case("ipv4_truncated", &packet[..19]),
        case("ipv4_truncated", &packet[..packet.len() - 1]),
        case("ipv4_malformed", &with_ipv4_byte(&packet, 0, 0x65)),
        case("ipv4_malformed", &with_ipv4_byte(&packet, 0, 0x44)),
        case("ipv4_malformed", &with_ipv4_byte(&packet, 3, 19)),
        case("ipv4_checksum", &bad_checksum),
        case("fragment", &with_ipv4_byte(&packet, 6, 0x20)),
        case("fragment", &with_ipv4_byte(&packet, 7, 1)),
        case("ipv4_source_route", &with_options(&packet, &[131, 7, 4, 8, 8, 8, 8, 0])),
        case("ipv4_source_route", &with_options(&packet, &[1, 137, 3, 4])),
        case("transport_truncated", &ipv4_with("172.30.76.7", "8.8.8.8", 17, 64, &[0; 7])),
        case("transport_truncated", &ipv4_with("172.30.76.7", "8.8.8.8", 6, 64, &[0; 19])),
        case("transport_truncated", &ipv4_with("172.30.76.7", "8.8.8.8", 1, 64, &[8; 7])),
        case("transport_truncated", &ipv4_with("172.30.76.7", "8.8.8.8", 132, 64, &[0; 11])),
        // UDP longer than its packet, and shorter than its header.
        case("transport_malformed", &ipv4_with("172.30.76.7", "8.8.8.8", 17, 64, &[0, 1, 0, 2, 0, 9, 0, 0])),
        case("transport_malformed", &ipv4_with("172.30.76.7", "8.8.8.8", 17, 64, &[0, 1, 0, 2, 0, 7, 0, 0])),
        case("transport_malformed", &ipv4_with("172.30.76.7", "8.8.8.8", 6, 64, &[0; 20])),
        case(
            "icmp_type_unsupported",
            &ipv4_with("172.30.76.7", "8.8.8.8", 1, 64, &[13, 0, 0, 0, 0, 0, 0, 0]),
        ),
        case("tcp_invalid", &tcp("172.30.76.7:1", "8.8.8.8:2", 0, b"")),
        case("tcp_invalid", &tcp("172.30.76.7:1", "8.8.8.8:2", FIN | ACK, b"")),
    ]);
}

#[test]
fn addresses_that_no_packet_may_have() {
    let pod = |source: &str, destination: &str| {
        let (source, destination) = (format!("{source}:1"), format!("{destination}:2"));
        from_pod(7, &udp(&source, &destination, b"x"))
    };
    let mut cases = Vec::new();
    // Its own addresses come from nobody else either.
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "172.30.76.1",
        "192.168.0.21",
        "172.30.76.0",
    ] {
        cases.push(("martian_source", pod_port(7), pod(source, "8.8.8.8")));
    }
    for destination in ["0.0.0.0", "127.0.0.1", "240.0.0.1"] {
        cases.push(("martian_destination", pod_port(7), pod("172.30.76.7", destination)));
    }
    for destination in ["224.0.0.251", "239.255.255.250", "255.255.255.255"] {
        cases.push(("multicast", pod_port(7), pod("172.30.76.7", destination)));
        cases.push((
            "multicast",
            "eth0",
            to_node(CLIENT_MAC, &udp("192.168.0.50:1", &format!("{destination}:2"), b"x")),
        ));
    }
    cases.push(("martian_source", "eth0", from_tunnel(&udp("192.168.0.21:1", "172.30.76.7:2", b"x"))));
    cases.push(("multicast", "eth0", from_tunnel(&udp("172.30.9.2:1", "224.0.0.251:2", b"x"))));
    assert_dropped(&cases);
}

/// RFC 1812, section 5.3.4: what came as a link-layer broadcast is not forwarded.
#[test]
fn unicast_packets_in_group_frames_are_not_routed() {
    let packet = udp("192.168.0.50:1", "172.30.76.7:2", b"x");
    let own = tcp("192.168.0.50:1", "192.168.0.21:22", SYN, b"");
    let ping = echo("192.168.0.50", "192.168.0.21", false, 1);
    let broadcast = |packet: &[u8]| ethernet("ff:ff:ff:ff:ff:ff", CLIENT_MAC, 0x0800, packet);
    assert_dropped(&[
        ("multicast", "eth0", broadcast(&packet)),
        ("multicast", "eth0", ethernet("01:00:5e:00:00:01", CLIENT_MAC, 0x0800, &packet)),
        ("multicast", "eth0", broadcast(&own)),
        ("multicast", "eth0", broadcast(&ping)),
    ]);
}

/// A packet from an address to itself ("land"): nobody sends one, and one flow cannot be both directions at once.
#[test]
fn packet_to_its_own_sender_is_dropped() {
    let mut world = World::new(&reference());
    for packet in [
        udp("172.30.76.7:5", "172.30.76.7:5", b"x"),
        tcp("172.30.76.7:5", "172.30.76.7:5", SYN, b""),
        ipv4_with("172.30.76.7", "172.30.76.7", 47, 64, &[0; 8]),
    ] {
        world.send(pod_port(7), &from_pod(7, &packet));
    }
    world.turn();
    assert_silent(&mut world, "a packet to its sender");
    world.assert_drops(&[("martian_source", 3)]);
    assert_eq!((world.tracked(), world.accounts().as_str()), (0, "received 3, dropped 3"));
    world.assert_balanced();
}

#[test]
fn options_are_passed_on_and_ports_are_behind_them() {
    let mut world = World::new(&reference());
    // Record route, router alert, and a length that leads nowhere.
    for (number, options) in
        [&[7, 7, 4, 0, 0, 0, 0, 0][..], &[148, 4, 0, 0], &[7, 0, 0, 0], &[7, 60, 0, 0], &[1; 40]]
            .into_iter()
            .enumerate()
    {
        let client = format!("172.30.76.7:{}", 4_000 + number);
        let packet = with_options(&tcp(&client, "10.254.84.209:3306", SYN, b"payload"), options);
        let sent = world.exchange(pod_port(7), &from_pod(7, &packet), "eth0");
        let seen = read(&sent[0]);
        assert_eq!((seen.source, seen.to()), (ip("192.168.0.21"), "192.168.0.103:3306".to_owned()));
        assert_eq!((&sent[0][34..34 + options.len()], seen.payload.as_slice()), (options, &b"payload"[..]));
    }
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 5, transmitted 5");
    world.assert_balanced();
}

#[test]
fn padding_is_not_payload() {
    let mut world = World::new(&reference());
    let packet = tcp("172.30.76.7:1", "172.30.9.2:80", SYN, b"");
    let mut frame = from_pod(7, &packet);
    frame.resize(60, 0xaa);
    let (_, _, inner) = read_tunnel(&world.exchange(pod_port(7), &frame, "eth0")[0]);
    assert!(inner.payload.is_empty());
    // Nor is what stands behind the datagram in the tunnel's packet.
    let mut tunnelled = from_tunnel(&tcp("172.30.9.2:80", "172.30.76.7:1", SYN | ACK, b""));
    tunnelled.extend([0xaa; 7]);
    assert!(read(&world.exchange("eth0", &tunnelled, pod_port(7))[0]).payload.is_empty());
    // Nor in an answer.
    let mut request = from_pod(7, &echo("172.30.76.7", "172.30.76.1", false, 1));
    request.extend([0xaa; 30]);
    assert_eq!(read(&world.exchange(pod_port(7), &request, pod_port(7))[0]).payload.len(), 56);
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 3, originated 1, transmitted 3, consumed 1");
    world.assert_balanced();
}
