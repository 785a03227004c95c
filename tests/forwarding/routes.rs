//! Routes: the longest prefix wins; hop limit and size are checked against the way out, and senders are told.

use engine::counters::Account;
use pipelines::gateway::Gauge;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

const TIME_EXCEEDED: u16 = 0x0b00;
const FRAGMENTATION_NEEDED: u16 = 0x0304;

fn route(destination: &str, via: &str) -> String {
    format!("\n[[routes]]\ndestination = \"{destination}\"\nvia = \"{via}\"\ninterface = \"eth0\"\n")
}

/// The default route, as the reference has it.
const DEFAULT: &str =
    "[[routes]]\ndestination = \"0.0.0.0/0\"\nvia = \"192.168.0.1\"\ninterface = \"eth0\"\n";

#[test]
fn longest_prefix_wins() {
    let text = reference() + &route("8.8.0.0/16", "192.168.0.50") + &route("8.8.8.8/32", "192.168.0.103");
    let mut world = World::new(&text);
    for (destination, next_hop) in [
        ("8.9.0.1:53", "02:00:c0:a8:00:01"),
        ("8.8.0.1:53", "02:00:c0:a8:00:50"),
        ("8.8.8.9:53", "02:00:c0:a8:00:50"),
        ("8.8.8.8:53", "02:00:c0:a8:00:67"),
        ("192.168.0.50:53", "02:00:c0:a8:00:50"),
    ] {
        let sent =
            world.exchange(pod_port(7), &from_pod(7, &udp("172.30.76.7:1", destination, b"?")), "eth0");
        assert_eq!(read(&sent[0]).destination_mac, next_hop, "{destination}");
    }
    // The pod network's /16 leads into the tunnel, this node's /24 of it to the bridge.
    let tunnelled =
        world.exchange(pod_port(7), &from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", b"?")), "eth0");
    read_tunnel(&tunnelled[0]);
    let local = to_node(CLIENT_MAC, &udp("192.168.0.50:1", "172.30.76.6:2", b"?"));
    assert_eq!(world.exchange("eth0", &local, pod_port(6)).len(), 1);
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 7, transmitted 7");
    world.assert_balanced();
}

#[test]
fn destination_without_a_route_is_dropped() {
    let mut world = World::new(&reference().replace(DEFAULT, ""));
    world.send(pod_port(7), &from_pod(7, &udp("172.30.76.7:1", "8.8.8.8:2", b"?")));
    world.turn();
    world.assert_drops(&[("no_route", 1)]);
    assert_eq!((world.accounts().as_str(), world.tracked()), ("received 1, dropped 1", 0));
    world.assert_balanced();
}

#[test]
fn last_hop_is_answered_with_time_exceeded() {
    let mut world = World::new(&reference());
    // Towards a service: the quote is the packet as its sender knows it, not as it would have left.
    for packet in [
        with_ipv4_byte(&tcp("172.30.76.7:1", "10.254.80.22:80", SYN, b""), 8, 1),
        with_ipv4_byte(&udp("172.30.76.7:1", "8.8.8.8:33434", &[0; 600]), 8, 1),
        with_ipv4_byte(&echo("172.30.76.7", "172.30.9.2", false, 7), 8, 1),
    ] {
        let sent = world.exchange(pod_port(7), &from_pod(7, &packet), pod_port(7));
        let seen = read(&sent[0]);
        assert_eq!((seen.flags, seen.source), (TIME_EXCEEDED, ip("172.30.76.1")));
        assert_eq!((seen.destination, seen.destination_mac), (ip("172.30.76.7"), pod_mac(7)));
        assert_eq!(seen.payload, packet[..packet.len().min(548)]);
        assert_eq!(sent[0][14 + 20 + 4..14 + 20 + 8], [0; 4], "unused");
    }
    // Through the tunnel it comes from the VTEP, from the underlay from the node.
    let packet = with_ipv4_byte(&udp("172.30.9.2:1", "172.30.76.7:2", b"x"), 8, 1);
    let (_, _, seen) = read_tunnel(&world.exchange("eth0", &from_tunnel(&packet), "eth0")[0]);
    assert_eq!((seen.flags, seen.source, seen.payload), (TIME_EXCEEDED, ip("172.30.76.0"), packet));
    let packet = with_ipv4_byte(&udp("192.168.0.50:1", "172.30.76.7:2", b"x"), 8, 1);
    let seen = read(&world.exchange("eth0", &to_node(CLIENT_MAC, &packet), "eth0")[0]);
    assert_eq!((seen.flags, seen.source, seen.payload), (TIME_EXCEEDED, ip("192.168.0.21"), packet));
    // Two hops are one more than needed.
    let packet = with_ipv4_byte(&udp("192.168.0.50:1", "172.30.76.7:2", b"x"), 8, 2);
    assert_eq!(read(&world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7))[0]).ttl, 1);
    world.assert_drops(&[("ttl_exceeded", 5)]);
    assert_eq!(world.accounts(), "received 6, originated 5, transmitted 6, dropped 5");
    world.assert_balanced();
}

#[test]
fn packet_larger_than_the_way_out_is_refused_with_its_mtu() {
    let mut world = World::new(&reference());
    // 1,450 bytes fit the tunnel and the bridge, 1,451 do not.
    let payload = vec![0x5a; 1_450 - 28];
    let fits = from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", &payload));
    let (outer, _, inner) = read_tunnel(&world.exchange(pod_port(7), &fits, "eth0")[0]);
    assert_eq!((outer.payload.len(), inner.payload), (8 + 14 + 1_450, payload));

    let large = udp("172.30.76.7:1", "172.30.9.2:2", &[0x5a; 1_451 - 28]);
    let sent = world.exchange(pod_port(7), &from_pod(7, &large), pod_port(7));
    let seen = read(&sent[0]);
    assert_eq!(
        (seen.flags, seen.source, seen.destination),
        (FRAGMENTATION_NEEDED, ip("172.30.76.1"), ip("172.30.76.7"))
    );
    assert_eq!(sent[0][38..42], [0, 0, 0x05, 0xaa], "unused, and 1,450 (RFC 1191, section 4)");
    assert_eq!(seen.payload, large[..548]);

    let from_outside = udp("192.168.0.50:1", "172.30.76.7:2", &[0; 1_451 - 28]);
    let sent = world.exchange("eth0", &to_node(CLIENT_MAC, &from_outside), "eth0");
    assert_eq!((read(&sent[0]).flags, &sent[0][38..42]), (FRAGMENTATION_NEEDED, &[0, 0, 0x05, 0xaa][..]));
    // Full size leaves by the underlay.
    let full = udp("172.30.76.7:1", "192.168.0.50:2", &[0; 1_500 - 28]);
    assert_eq!(read(&world.exchange(pod_port(7), &from_pod(7, &full), "eth0")[0]).payload.len(), 1_472);

    // Without DF it would have to be fragmented, which this gateway does not do: dropped, and nobody is told.
    let fragmentable = with_ipv4_byte(&large, 6, 0);
    world.send(pod_port(7), &from_pod(7, &fragmentable));
    world.turn();
    assert!(world.sent(pod_port(7)).is_empty());
    world.assert_drops(&[("mtu_exceeded", 3)]);
    assert_eq!(world.accounts(), "received 5, originated 2, transmitted 4, dropped 3");
    world.assert_balanced();
}

#[test]
fn errors_are_limited_to_a_rate_and_never_sent_about_errors() {
    let mut world = World::new(&reference());
    for number in 0..60u16 {
        let packet = with_ipv4_byte(&udp(&format!("172.30.76.7:{number}"), "8.8.8.8:33434", b"?"), 8, 1);
        world.send(pod_port(7), &from_pod(7, &packet));
    }
    world.turn();
    assert_eq!(world.sent(pod_port(7)).len(), 50, "a burst");
    world.assert_drops(&[("ttl_exceeded", 60), ("icmp_rate_limited", 10)]);
    assert_eq!(world.accounts(), "received 60, originated 60, transmitted 50, dropped 70");
    // A second later there are as many again.
    world.jump_s(1);
    let error = icmp_error("172.30.76.7", "8.8.8.8", 3, 3, &udp("8.8.8.8:1", "172.30.76.7:2", b"x"));
    world.send(pod_port(7), &from_pod(7, &with_ipv4_byte(&error, 8, 1)));
    world.turn();
    assert!(world.sent(pod_port(7)).is_empty());
    world.assert_drops(&[("icmp_error_untracked", 1), ("ttl_exceeded", 60), ("icmp_rate_limited", 10)]);
    assert_eq!(world.account(Account::Held), 0);
    assert!(world.gauge(Gauge::FlowsCreated) >= 60);
    world.assert_balanced();
}
