//! The bridge: stations are learned, aged and moved; what has no known station is flooded; IP packets between pods keep
//! their MACs and hop limit.

use engine::counters::Account;
use pipelines::gateway::Gauge;
use pnet::packet::arp::ArpOperations;

use crate::support::packets::*;
use crate::support::{World, dynamic, pod_port, reference};

const PODS: [u8; 5] = [7, 6, 5, 3, 2];

/// The pods whose ports something was sent to, how often each.
fn reached(world: &mut World) -> Vec<(u8, usize)> {
    PODS.into_iter()
        .map(|last| (last, world.sent(pod_port(last)).len()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A packet from one pod straight to another's MAC.
fn between(from: u8, to: u8) -> Vec<u8> {
    let packet = udp(&format!("172.30.76.{from}:1000"), &format!("172.30.76.{to}:2000"), b"hello");
    ethernet(&pod_mac(to), &pod_mac(from), 0x0800, &packet)
}

#[test]
fn unknown_unicast_and_broadcast_are_flooded_as_copies() {
    let mut world = World::new(&dynamic());
    let frame = between(7, 6);
    world.send(pod_port(7), &frame);
    world.turn();
    for last in [6, 5, 3, 2] {
        assert_eq!(world.sent(pod_port(last)), std::slice::from_ref(&frame), "as it was, at .{last}");
    }
    assert!(world.sent(pod_port(7)).is_empty() && world.sent("eth0").is_empty());
    assert_eq!(world.accounts(), "received 1, copied 3, transmitted 4");

    let broadcast =
        ethernet("ff:ff:ff:ff:ff:ff", &pod_mac(7), 0x0800, &udp("0.0.0.0:68", "255.255.255.255:67", b"?"));
    let multicast = ethernet(
        "01:00:5e:00:00:fb",
        &pod_mac(7),
        0x0800,
        &udp("172.30.76.7:5353", "224.0.0.251:5353", b"?"),
    );
    for frame in [broadcast, multicast] {
        world.send(pod_port(7), &frame);
        world.turn();
        assert_eq!(reached(&mut world), [(6, 1), (5, 1), (3, 1), (2, 1)]);
    }
    assert_eq!(world.accounts(), "received 3, copied 9, transmitted 12");
    world.assert_drops(&[]);
    // The broadcasts are no flows; the first packet is one, bridged or not.
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_balanced();
}

#[test]
fn learned_station_gets_its_frames_alone_until_it_has_been_silent_too_long() {
    let mut world = World::new(&dynamic());
    world.exchange(pod_port(6), &between(6, 7), pod_port(7));
    reached(&mut world);
    world.send(pod_port(7), &between(7, 6));
    world.turn();
    assert_eq!(reached(&mut world), [(6, 1)]);
    world.jump_s(299);
    world.send(pod_port(7), &between(7, 6));
    world.turn();
    assert_eq!(reached(&mut world), [(6, 1)]);
    world.jump_s(3);
    world.send(pod_port(7), &between(7, 6));
    world.turn();
    assert_eq!(reached(&mut world).len(), 4, "forgotten, so flooded");
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 4, copied 6, transmitted 10");
    world.assert_balanced();
}

#[test]
fn static_station_does_not_move() {
    let mut world = World::new(&reference());
    // Pod 7's MAC, spoken by whoever is on pod 6's port.
    world.exchange(pod_port(6), &between(7, 5), pod_port(5));
    world.jump_s(400);
    world.send(pod_port(5), &between(5, 7));
    world.turn();
    assert_eq!(reached(&mut world), [(7, 1)]);
    assert_eq!(world.accounts(), "received 2, transmitted 2");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn frame_to_a_station_behind_its_own_port_is_dropped() {
    let mut world = World::new(&reference());
    world.send(pod_port(7), &ethernet(&pod_mac(7), "02:42:ac:1e:4c:77", 0x86dd, &[0; 40]));
    world.turn();
    assert!(reached(&mut world).is_empty());
    world.assert_drops(&[("bridge_same_port", 1)]);
    world.assert_balanced();
}

#[test]
fn bridge_with_one_port_has_nobody_to_flood_to() {
    let text = dynamic();
    let (before, rest) = text.split_once("[[ports]]\nname = \"business-manager-2\"").unwrap();
    let (_, after) = rest.split_once("[exception]").unwrap();
    let (before_services, _) = after.split_once("[[service]]").unwrap();
    let mut world = World::new(&format!("{before}[exception]{before_services}"));
    world.send(pod_port(7), &between(7, 6));
    world.turn();
    world.assert_drops(&[("bridge_no_port", 1)]);
    // The request is for the tunnel's other end.
    assert_eq!(world.accounts(), "received 1, originated 1, transmitted 1, dropped 1");
    world.assert_balanced();
}

#[test]
fn bridged_packets_keep_hop_limit_and_macs() {
    let mut world = World::new(&reference());
    for ttl in [64, 1] {
        let packet = with_ipv4_byte(&udp("172.30.76.7:1", "172.30.76.6:2", b"x"), 8, ttl);
        let frame = ethernet(&pod_mac(6), &pod_mac(7), 0x0800, &packet);
        assert_eq!(world.exchange(pod_port(7), &frame, pod_port(6)), [frame]);
    }
    world.assert_drops(&[]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_balanced();
}

#[test]
fn arp_between_pods_is_bridged() {
    let mut world = World::new(&dynamic());
    let request = arp_request((&pod_mac(7), "172.30.76.7"), "172.30.76.6");
    world.send(pod_port(7), &request);
    world.turn();
    assert_eq!(world.sent(pod_port(6)), [request]);
    assert_eq!(reached(&mut world), [(5, 1), (3, 1), (2, 1)]);
    let reply =
        arp(ArpOperations::Reply, (&pod_mac(6), "172.30.76.6"), (&pod_mac(7), "172.30.76.7"), &pod_mac(7));
    world.send(pod_port(6), &reply);
    world.turn();
    assert_eq!(world.sent(pod_port(7)), [reply]);
    assert!(reached(&mut world).is_empty(), "the asker's port was learned from its request");
    assert_eq!(world.accounts(), "received 2, copied 3, transmitted 5");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn other_protocols_are_bridged_between_pods_and_end_at_the_gateway() {
    let mut world = World::new(&reference());
    let frame = ethernet(&pod_mac(6), &pod_mac(7), 0x86dd, &[0x60; 60]);
    assert_eq!(world.exchange(pod_port(7), &frame, pod_port(6)), [frame]);
    let solicitation = ethernet("33:33:00:00:00:02", &pod_mac(7), 0x86dd, &[0x60; 60]);
    world.send(pod_port(7), &solicitation);
    world.turn();
    assert_eq!(reached(&mut world).len(), 4);
    world.exchange(pod_port(7), &ethernet(BRIDGE_MAC, &pod_mac(7), 0x86dd, &[0x60; 60]), "eth0");
    world.exchange("eth0", &ethernet(NODE_MAC, CLIENT_MAC, 0x86dd, &[0x60; 60]), "eth0");
    world.exchange("eth0", &ethernet("33:33:00:00:00:01", CLIENT_MAC, 0x86dd, &[0x60; 60]), "eth0");
    world.assert_drops(&[("ether_type_unsupported", 3)]);
    assert_eq!(world.accounts(), "received 5, copied 3, transmitted 5, dropped 3");
    world.assert_balanced();
}

#[test]
fn flood_without_buffers_is_counted() {
    let mut world = World::new(&dynamic());
    let mut taken = Vec::new();
    let frame = ethernet("ff:ff:ff:ff:ff:ff", &pod_mac(7), 0x88b5, &[0; 46]);
    world.send(pod_port(7), &frame);
    // All buffers but one are elsewhere.
    while world.pool.in_use() < world.pool.capacity() - 1 {
        taken.push(world.pool.packet(0, &[]).unwrap());
    }
    world.turn();
    assert_eq!(reached(&mut world).len(), 2, "the frame itself and one copy");
    drop(taken);
    world.assert_drops(&[("flood_no_room", 2)]);
    assert_eq!(world.accounts(), "received 1, copied 3, transmitted 2, dropped 2");
    assert_eq!(world.account(Account::Held), 0);
    world.assert_balanced();
}

#[test]
fn bridged_connection_is_tracked_but_not_translated() {
    let mut world = World::new(&reference());
    let there =
        ethernet(&pod_mac(6), &pod_mac(7), 0x0800, &tcp("172.30.76.7:1000", "172.30.76.6:80", SYN, b""));
    let back = ethernet(
        &pod_mac(7),
        &pod_mac(6),
        0x0800,
        &tcp("172.30.76.6:80", "172.30.76.7:1000", SYN | ACK, b""),
    );
    assert_eq!(world.exchange(pod_port(7), &there, pod_port(6)), [there]);
    assert_eq!(world.exchange(pod_port(6), &back, pod_port(7)), [back]);
    // What fits no connection does not pass the bridge either, as kube-proxy's forward chain has it.
    let stray = ethernet(
        &pod_mac(7),
        &pod_mac(6),
        0x0800,
        &tcp("172.30.76.6:81", "172.30.76.7:1000", SYN | ACK, b""),
    );
    assert!(world.exchange(pod_port(6), &stray, pod_port(7)).is_empty());
    world.assert_drops(&[("tcp_invalid", 1)]);
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.tracked()), (1, 1));
    world.assert_balanced();
}
