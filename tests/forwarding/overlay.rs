//! The overlay: what is taken out of the tunnel and what is not, and which remote a packet is put in for.

use engine::counters::Account;
use pipelines::gateway::Gauge;
use pnet::packet::arp::ArpOperations;

use crate::support::packets::*;
use crate::support::{World, dynamic, pod_port, reference};

/// A packet from node 2's pod to pod 7.
fn to_pod_7() -> Vec<u8> {
    udp("172.30.9.2:1000", "172.30.76.7:2000", b"inner")
}

fn inner_frame(packet: &[u8]) -> Vec<u8> {
    ethernet(VTEP_MAC, NODE_2_VTEP_MAC, 0x0800, packet)
}

/// Sends what follows the underlay's Ethernet header, and gives what pod 7 gets.
fn underlay(world: &mut World, packet: &[u8]) -> Vec<Vec<u8>> {
    world.exchange("eth0", &to_node(NODE_2_MAC, packet), pod_port(7))
}

#[test]
fn tunnel_packet_is_unpacked_and_routed() {
    let mut world = World::new(&reference());
    let sent = underlay(&mut world, &vxlan_datagram(0x08, 1, &inner_frame(&to_pod_7())));
    let seen = read(&sent[0]);
    assert_eq!((seen.ttl, seen.payload.as_slice()), (63, b"inner".as_slice()));
    assert_eq!((seen.source_mac.as_str(), seen.destination_mac), (BRIDGE_MAC, pod_mac(7)));
    assert_eq!(world.accounts(), "received 1, transmitted 1");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn what_is_no_tunnel_packet_for_this_gateway_is_dropped_by_name() {
    let mut world = World::new(&reference());
    let frame = inner_frame(&to_pod_7());
    let arp_inside = arp_request((NODE_2_VTEP_MAC, "172.30.9.0"), "172.30.76.0");
    let good = vxlan_datagram(0x08, 1, &frame);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("vni_unknown", vxlan_datagram(0x08, 2, &frame)),
        ("vni_unknown", vxlan_datagram(0x08, 0xff_ffff, &frame)),
        (
            "inner_foreign_mac",
            vxlan_datagram(0x08, 1, &ethernet(BRIDGE_MAC, NODE_2_VTEP_MAC, 0x0800, &to_pod_7())),
        ),
        (
            "inner_foreign_mac",
            vxlan_datagram(0x08, 1, &ethernet("ff:ff:ff:ff:ff:ff", NODE_2_VTEP_MAC, 0x0800, &to_pod_7())),
        ),
        ("vxlan_malformed", vxlan_datagram(0x00, 1, &frame)),
        ("tunnel_arp", vxlan_datagram(0x08, 1, &arp_inside)),
        ("vlan_tag", vxlan_datagram(0x08, 1, &ethernet(VTEP_MAC, NODE_2_VTEP_MAC, 0x8100, &to_pod_7()))),
        (
            "ether_type_unsupported",
            vxlan_datagram(0x08, 1, &ethernet(VTEP_MAC, NODE_2_VTEP_MAC, 0x86dd, &to_pod_7())),
        ),
        ("ethernet_truncated", vxlan_datagram(0x08, 1, &frame[..13])),
        ("ipv4_truncated", vxlan_datagram(0x08, 1, &frame[..20])),
        ("ipv4_truncated", vxlan_datagram(0x08, 1, &frame[..frame.len() - 1])),
        (
            "vxlan_malformed",
            ipv4_with(
                "192.168.0.22",
                "192.168.0.21",
                17,
                64,
                &udp("192.168.0.22:9", "192.168.0.21:8472", b"short")[20..],
            ),
        ),
        ("outer_fragment", with_ipv4_byte(&good, 6, 0x20)),
        ("outer_fragment", with_ipv4_byte(&good, 7, 0x10)),
        ("ipv4_source_route", with_options(&good, &[131, 3, 4, 0])),
    ];
    for (name, packet) in &cases {
        let before = world.drops();
        assert!(underlay(&mut world, packet).is_empty());
        let count =
            |drops: &[(&str, u64)]| drops.iter().find(|drop| drop.0 == *name).map_or(0, |drop| drop.1);
        assert_eq!(count(&world.drops()), count(&before) + 1, "{name}: {before:?} {:?}", world.drops());
    }
    assert_eq!(world.accounts(), format!("received {0}, dropped {0}", cases.len()));
    assert_eq!(world.tracked(), 0);
    // Options in the outer header are no obstacle.
    assert_eq!(underlay(&mut world, &with_options(&good, &[1, 1, 1, 0])).len(), 1);
    world.assert_balanced();
}

#[test]
fn outer_checksum_is_verified_when_it_is_given() {
    let mut world = World::new(&reference());
    let right = vxlan_datagram(0x08, 1, &inner_frame(&to_pod_7()));
    let mut zero = right.clone();
    zero[26..28].copy_from_slice(&[0, 0]);
    let mut wrong = right.clone();
    wrong[27] ^= 1;
    let mut damaged = right.clone();
    *damaged.last_mut().unwrap() ^= 0x80;
    assert_eq!(underlay(&mut world, &right).len(), 1);
    assert_eq!(underlay(&mut world, &zero).len(), 1);
    assert!(underlay(&mut world, &wrong).is_empty());
    assert!(underlay(&mut world, &damaged).is_empty());
    world.assert_drops(&[("outer_udp_checksum", 2)]);
    assert_eq!(world.accounts(), "received 4, transmitted 2, dropped 2");
    world.assert_balanced();
}

const NOT_CAPABLE: u8 = 0b00;
const CAPABLE_1: u8 = 0b01;
const CAPABLE_0: u8 = 0b10;
const CONGESTED: u8 = 0b11;

/// RFC 6040, figure 4: what leaves for each inner and outer codepoint; none: dropped. DSCP is the inner packet's.
#[test]
fn congestion_marks_leave_the_tunnel_as_rfc_6040_has_it() {
    let mut world = World::new(&reference());
    let rows = [
        (NOT_CAPABLE, [Some(NOT_CAPABLE), Some(NOT_CAPABLE), Some(NOT_CAPABLE), None]),
        (CAPABLE_0, [Some(CAPABLE_0), Some(CAPABLE_0), Some(CAPABLE_1), Some(CONGESTED)]),
        (CAPABLE_1, [Some(CAPABLE_1), Some(CAPABLE_1), Some(CAPABLE_1), Some(CONGESTED)]),
        (CONGESTED, [Some(CONGESTED), Some(CONGESTED), Some(CONGESTED), Some(CONGESTED)]),
    ];
    let dscp = 0b1011_1000;
    for (inner, row) in rows {
        for (outer, expected) in [NOT_CAPABLE, CAPABLE_0, CAPABLE_1, CONGESTED].into_iter().zip(row) {
            let packet = with_ipv4_byte(&to_pod_7(), 1, dscp | inner);
            let tunnelled = with_ipv4_byte(&vxlan_datagram(0x08, 1, &inner_frame(&packet)), 1, outer);
            let sent = underlay(&mut world, &tunnelled);
            let seen = sent.first().map(|frame| {
                read(frame);
                frame[15]
            });
            assert_eq!(seen, expected.map(|mark| dscp | mark), "inner {inner:02b}, outer {outer:02b}");
        }
    }
    world.assert_drops(&[("congestion_not_capable", 1)]);
    assert_eq!(world.accounts(), "received 16, transmitted 15, dropped 1");
    world.assert_balanced();
}

#[test]
fn congestion_marks_enter_the_tunnel_as_they_are() {
    let mut world = World::new(&reference());
    for mark in [NOT_CAPABLE, CAPABLE_0, CAPABLE_1, CONGESTED] {
        let packet = with_ipv4_byte(&udp("172.30.76.7:1", "172.30.9.2:2", b"x"), 1, 0b1011_1000 | mark);
        let sent = world.exchange(pod_port(7), &from_pod(7, &packet), "eth0");
        read_tunnel(&sent[0]);
        assert_eq!((sent[0][15], sent[0][50 + 15]), (mark, 0b1011_1000 | mark));
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn remote_that_flannel_has_not_written_is_not_there() {
    // No neighbour: 172.30.55.5 is covered by the overlay's route alone. Nobody is asked; ARP has no place in the tunnel.
    let mut world = World::new(&reference());
    let packet = from_pod(7, &udp("172.30.76.7:1", "172.30.55.5:2", b"x"));
    assert!(world.exchange(pod_port(7), &packet, "eth0").is_empty());
    world.assert_drops(&[("neighbour_unresolved", 1)]);
    assert_eq!(world.accounts(), "received 1, dropped 1");
    world.assert_balanced();

    // A neighbour, and no FDB entry for its MAC: it may come with the next reload, so packets wait for a while.
    let fdb = "[[fdb]]\ninterface = \"flannel.1\"\nmac = \"96:8f:2d:49:c5:31\"\nremote = \"192.168.0.22\"\n";
    let mut world = World::new(&reference().replace(fdb, ""));
    let packet = from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", b"x"));
    assert!(world.exchange(pod_port(7), &packet, "eth0").is_empty());
    assert_eq!(world.account(Account::Held), 1);
    world.reload(&reference());
    world.advance_ms(1);
    assert_eq!(world.sent("eth0").len(), 1, "{:?}", world.drops());
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 1, transmitted 1");
    world.assert_balanced();
}

#[test]
fn underlay_next_hop_of_a_remote_is_asked_for_again_after_it_was_given_up() {
    let mut world = World::new(&dynamic().replace(
        "[[neighbours]]\ninterface = \"eth0\"\naddress = \"192.168.0.22\"\nmac = \"02:00:c0:a8:00:22\"\n",
        "",
    ));
    world.advance_ms(10_000);
    let asked = world.sent("eth0").len();
    assert!((4..=11).contains(&asked), "about once a second, no more: {asked}");
    assert!(
        world
            .exchange(pod_port(7), &from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", b"x")), "eth0")
            .is_empty()
    );
    assert_eq!(world.account(Account::Held), 1);
    let reply = arp(ArpOperations::Reply, (NODE_2_MAC, "192.168.0.22"), (NODE_MAC, "192.168.0.21"), NODE_MAC);
    world.exchange("eth0", &reply, "eth0");
    world.advance_ms(1);
    assert_eq!(world.sent("eth0").len(), 1);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_drops(&[]);
    world.assert_balanced();
}
