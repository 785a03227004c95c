//! ICMP errors about flows, and fragments: dropped by name, never routed untranslated.

use pipelines::gateway::Gauge;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

const PORT_UNREACHABLE: (u8, u8) = (3, 3);

fn assert_silent(world: &mut World) {
    for port in ["eth0", pod_port(7), pod_port(6), pod_port(5), pod_port(3), pod_port(2)] {
        assert!(world.sent(port).is_empty(), "an error left by {port}");
    }
    assert!(world.sent_to_host().is_empty());
}

/// All kinds of errors about `quoted`, from `source` to `destination`.
fn errors(source: &str, destination: &str, quoted: &[u8]) -> Vec<Vec<u8>> {
    [PORT_UNREACHABLE, (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)]
        .into_iter()
        .map(|(kind, code)| icmp_error(source, destination, kind, code, quoted))
        .collect()
}

/// The IP packet of a frame that left, as its receiver would quote it.
fn packet_of(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

#[test]
fn errors_about_translated_flows_go_nowhere() {
    let mut world = World::new(&reference().replace("{ address = \"172.30.9.3:8080\" },\n", ""));
    // To a service with local backends: from the backend about the request, from the client about the answer.
    let request = tcp("172.30.76.5:4000", "10.254.80.22:80", SYN, b"");
    world.send(pod_port(5), &from_pod(5, &request));
    world.turn();
    let (last, leaving) =
        [7, 6].into_iter().find_map(|last| Some((last, world.sent(pod_port(last)).pop()?))).unwrap();
    let backend = format!("172.30.76.{last}");
    let answer = tcp(&format!("{backend}:8080"), "172.30.76.5:4000", SYN | ACK, b"");
    let back = world.exchange(pod_port(last), &from_pod(last, &answer), pod_port(5));
    for error in errors(&backend, "172.30.76.5", packet_of(&leaving)) {
        world.send(pod_port(last), &from_pod(last, &error));
    }
    for error in errors("172.30.76.5", "10.254.80.22", packet_of(&back[0])) {
        world.send(pod_port(5), &from_pod(5, &error));
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_tracked", 12)]);

    // Masqueraded, to an outside address: the error is addressed to the node, and yet not for its stack.
    let request = udp("172.30.76.5:4000", "8.8.8.8:53", b"?");
    let leaving = world.exchange(pod_port(5), &from_pod(5, &request), "eth0").remove(0);
    for error in errors("192.168.0.1", "192.168.0.21", packet_of(&leaving)) {
        world.send("eth0", &to_node("02:00:c0:a8:00:01", &error));
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_tracked", 18)]);

    // A ping, masqueraded: the identifier names the flow.
    let leaving = world
        .exchange(pod_port(5), &from_pod(5, &echo("172.30.76.5", "8.8.8.8", false, 7)), "eth0")
        .remove(0);
    for error in errors("192.168.0.1", "192.168.0.21", packet_of(&leaving)) {
        world.send("eth0", &to_node("02:00:c0:a8:00:01", &error));
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_tracked", 24)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (3, 3));
    world.assert_balanced();
}

#[test]
fn errors_through_the_tunnel_about_tracked_flows_go_nowhere() {
    let mut world = World::new(&reference());
    // A service's backend on node 2, masqueraded with the VTEP's address, for a client on node 2.
    let mut leaving = Vec::new();
    for number in 0..20u16 {
        let request = tcp(&format!("172.30.9.9:{}", 4_000 + number), "10.254.116.224:50051", SYN, b"");
        leaving.extend(world.exchange("eth0", &from_tunnel(&request), "eth0"));
    }
    assert!(!leaving.is_empty());
    for last in [5, 3] {
        world.sent(pod_port(last));
    }
    let count = leaving.len() as u64;
    for frame in &leaving {
        let error = icmp_error("172.30.9.2", "172.30.76.0", 3, 3, packet_of(&frame[50..]));
        world.send("eth0", &from_tunnel(&error));
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_tracked", count)]);
    // Between pods, nothing translated.
    let packet = udp("172.30.76.7:1", "172.30.9.2:2", b"x");
    world.exchange(pod_port(7), &from_pod(7, &packet), "eth0");
    let error = icmp_error("172.30.9.2", "172.30.76.7", 3, 3, &with_ipv4_byte(&packet, 8, 62));
    world.send("eth0", &from_tunnel(&error));
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_tracked", count + 1)]);
    world.assert_balanced();
}

#[test]
fn errors_about_nothing_that_is_tracked_are_for_the_host_alone() {
    let mut world = World::new(&reference());
    let stranger = udp("172.30.76.7:1", "8.8.8.8:2", b"never sent");
    for error in errors("192.168.0.1", "172.30.76.7", &stranger) {
        world.send("eth0", &to_node("02:00:c0:a8:00:01", &error));
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_untracked", 6)]);
    // Quotes that name no flow: too short, no IPv4, another ICMP message.
    for quoted in [&stranger[..20], &[0; 28], &ipv4_with("172.30.76.7", "8.8.8.8", 1, 64, &[13; 8])] {
        world.send(
            "eth0",
            &to_node("02:00:c0:a8:00:01", &icmp_error("192.168.0.1", "172.30.76.7", 3, 3, quoted)),
        );
    }
    world.turn();
    assert_silent(&mut world);
    world.assert_drops(&[("icmp_error_untracked", 9)]);
    let error = icmp_error("192.168.0.1", "192.168.0.21", 3, 3, &stranger);
    world.send("eth0", &to_node("02:00:c0:a8:00:01", &error));
    world.turn();
    let heard = world.sent_to_host();
    assert_eq!((heard.len(), &heard[0][14..]), (1, &error[..]), "it is addressed to the gateway");
    assert_eq!(world.accounts(), "received 10, handed_off 1, dropped 9");
    world.assert_balanced();
}

/// Path MTU discovery and traceroute of the host itself: nothing about its flows is translated.
#[test]
fn errors_about_the_hosts_own_flows_reach_it() {
    let mut world = World::new(&reference());
    let packet = udp("192.168.0.21:33000", "8.8.8.8:33434", b"?");
    world.send_from_host(&ethernet("02:00:00:00:00:01", "02:00:00:00:00:99", 0x0800, &packet));
    world.turn();
    assert_eq!(world.sent("eth0").len(), 1);
    let error = icmp_error("192.168.0.1", "192.168.0.21", 11, 0, &packet);
    world.send("eth0", &to_node("02:00:c0:a8:00:01", &error));
    world.turn();
    assert_eq!(read(&world.sent_to_host()[0]).payload, packet[..28]);
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 1, handed_in 1, transmitted 1, handed_off 1");
    world.assert_balanced();
}

#[test]
fn fragments_are_dropped_by_name() {
    let mut world = World::new(&reference());
    let whole = udp("172.30.76.7:1000", "172.30.9.2:2000", &[7; 64]);
    // The flow is known, which does not help: later fragments have no ports.
    assert_eq!(world.exchange(pod_port(7), &from_pod(7, &whole), "eth0").len(), 1);
    let first = with_ipv4_byte(&whole, 6, 0x20);
    let last = with_ipv4_byte(&whole, 7, 8);
    for fragment in [&first, &last] {
        world.send(pod_port(7), &from_pod(7, fragment));
        world.send("eth0", &from_tunnel(&udp("172.30.9.2:2000", "172.30.76.7:1000", b"whole")));
        world.send("eth0", &tunnel_with(1, VTEP_MAC, fragment));
        world.send(pod_port(7), &ethernet(&pod_mac(6), &pod_mac(7), 0x0800, fragment));
    }
    world.turn();
    assert_eq!(world.sent(pod_port(7)).len(), 2, "the whole ones");
    assert_silent(&mut world);
    world.assert_drops(&[("fragment", 6)]);
    assert_eq!(world.accounts(), "received 9, transmitted 3, dropped 6");
    world.assert_balanced();
}

/// An echo's identifier is its port: two pings of one pod are two flows, and each answer finds its own.
#[test]
fn echoes_are_told_apart_by_identifier() {
    let mut world = World::new(&reference());
    let mut leaving = Vec::new();
    for (last, identifier) in [(7, 1), (7, 2), (6, 1)] {
        let request = echo(&format!("172.30.76.{last}"), "8.8.8.8", false, identifier);
        let seen = read(&world.exchange(pod_port(last), &from_pod(last, &request), "eth0")[0]);
        assert_eq!(seen.source, ip("192.168.0.21"));
        leaving.push((last, identifier, seen.ports.0));
    }
    for (last, identifier, outside) in leaving.into_iter().rev() {
        let reply = to_node("02:00:c0:a8:00:01", &echo("8.8.8.8", "192.168.0.21", true, outside));
        let seen = read(&world.exchange("eth0", &reply, pod_port(last))[0]);
        assert_eq!((seen.destination, seen.ports.0), (ip(&format!("172.30.76.{last}")), identifier));
    }
    assert_eq!(world.tracked(), 3);
    world.assert_drops(&[]);
    world.assert_balanced();
}
