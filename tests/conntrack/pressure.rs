//! Under pressure: full tables and exhausted ports. What is established stays.

use pipelines::gateway::Gauge;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

pub(super) const CAPACITY: u16 = 64;

pub(super) fn small() -> String {
    reference().replace("capacity = 65536", "capacity = 64")
}

/// A datagram from the outside client's port to pod 7; whether it arrives.
pub(super) fn there(world: &mut World, port: u16) -> bool {
    let packet = udp(&format!("192.168.0.50:{port}"), "172.30.76.7:53", b"?");
    world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7)).len() == 1
}

/// And back.
pub(super) fn back(world: &mut World, port: u16) -> bool {
    let packet = udp("172.30.76.7:53", &format!("192.168.0.50:{port}"), b"!");
    world.exchange(pod_port(7), &from_pod(7, &packet), "eth0").len() == 1
}

#[test]
fn unassured_flows_make_place_for_new_ones() {
    let mut world = World::new(&small());
    for port in 0..CAPACITY + 40 {
        assert!(there(&mut world, 1_000 + port), "{:?}", world.drops());
    }
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsEvicted)), (64, 40));
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsExpired)), (104, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn established_flows_are_never_evicted() {
    let mut world = World::new(&small());
    for port in 0..CAPACITY {
        assert!(there(&mut world, 1_000 + port) && back(&mut world, 1_000 + port));
    }
    for port in 0..30 {
        assert!(!there(&mut world, 5_000 + port));
    }
    world.assert_drops(&[("flow_table_full", 30)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsEvicted)), (64, 0));
    for port in 0..CAPACITY {
        assert!(there(&mut world, 1_000 + port) && back(&mut world, 1_000 + port));
    }
    assert_eq!(world.gauge(Gauge::FlowsCreated), 64, "each found its own flow");
    world.assert_balanced();
}

/// However few they are, and wherever: 60 answered flows side by side, and then four that may go.
#[test]
fn new_flows_displace_weak_ones_among_established_ones() {
    for weak in [|port: u16| port.is_multiple_of(8), |port: u16| port >= 60, |port: u16| port == 31] {
        let mut world = World::new(&small());
        for port in 0..CAPACITY {
            assert!(there(&mut world, 1_000 + port));
            if !weak(port) {
                assert!(back(&mut world, 1_000 + port));
            }
        }
        let arrived = (0..100).filter(|port| there(&mut world, 5_000 + port)).count() as u64;
        assert_eq!((arrived, world.gauge(Gauge::FlowsEvicted)), (100, 100));
        for port in (0..CAPACITY).filter(|port| !weak(*port)) {
            assert!(back(&mut world, 1_000 + port) && there(&mut world, 1_000 + port));
        }
        assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (64, 164));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

/// TCP: a connection is safe once its handshake is through, and fair game again once it is over.
#[test]
fn connections_are_safe_between_handshake_and_end() {
    let mut world = World::new(&small());
    let client = |port: u16| format!("192.168.0.50:{port}");
    let say = |world: &mut World, port: u16, flags: u8| {
        let packet = tcp(&client(port), "172.30.76.7:80", flags, b"");
        world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7)).len() == 1
    };
    let answer = |world: &mut World, port: u16, flags: u8| {
        let packet = tcp("172.30.76.7:80", &client(port), flags, b"");
        world.exchange(pod_port(7), &from_pod(7, &packet), "eth0").len() == 1
    };
    for port in 1_000..1_064 {
        assert!(
            say(&mut world, port, SYN) && answer(&mut world, port, SYN | ACK) && say(&mut world, port, ACK)
        );
    }
    assert!(!say(&mut world, 5_000, SYN));
    world.assert_drops(&[("flow_table_full", 1)]);
    // Four of them close.
    for port in 1_010..1_014 {
        assert!(
            say(&mut world, port, FIN | ACK)
                && answer(&mut world, port, FIN | ACK)
                && say(&mut world, port, ACK)
        );
    }
    let opened = (5_000..5_100).filter(|port| say(&mut world, *port, SYN)).count() as u64;
    // The four, and each half-open one for the next.
    assert_eq!((opened, world.gauge(Gauge::FlowsEvicted)), (100, 100));
    for port in (1_000..1_010).chain(1_014..1_064) {
        assert!(say(&mut world, port, ACK) && answer(&mut world, port, ACK));
    }
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (64, 64 + opened));
    world.assert_drops(&[("flow_table_full", 1)]);
    world.assert_balanced();
}

/// In one turn as in several: each of a burst may take the place of the one before it.
#[test]
fn a_burst_finds_the_places_that_single_packets_find() {
    for is_burst in [true, false] {
        let mut world = World::new(&small());
        for port in 0..CAPACITY {
            assert!(there(&mut world, 1_000 + port));
            assert!(port == 31 || back(&mut world, 1_000 + port));
        }
        for port in 0..5u16 {
            let packet = udp(&format!("192.168.0.50:{}", 5_000 + port), "172.30.76.7:53", b"?");
            world.send("eth0", &to_node(CLIENT_MAC, &packet));
            if !is_burst {
                world.turn();
            }
        }
        world.turn();
        assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsEvicted)), (69, 5));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn a_burst_of_one_flow_takes_one_place() {
    let mut world = World::new(&small());
    for port in 0..CAPACITY {
        assert!(there(&mut world, 1_000 + port));
    }
    for _ in 0..40 {
        world.send("eth0", &to_node(CLIENT_MAC, &udp("192.168.0.50:9000", "172.30.76.7:53", b"?")));
        // Starts no connection, so it takes none.
        world.send("eth0", &to_node(CLIENT_MAC, &tcp("192.168.0.50:9000", "172.30.76.7:80", RST, b"")));
    }
    world.turn();
    world.turn();
    assert_eq!((world.gauge(Gauge::FlowsEvicted), world.tracked()), (1, 64));
    world.assert_drops(&[("tcp_invalid", 40)]);
    world.assert_balanced();
}

#[test]
fn exhausted_masquerade_ports_refuse_new_flows_alone() {
    let text = reference().replace("snat_port_range = \"32768-60999\"", "snat_port_range = \"40000-40003\"");
    let mut world = World::new(&text);
    let ask = |world: &mut World, port: u16, server: &str| {
        let packet = udp(&format!("172.30.76.7:{port}"), &format!("{server}:53"), b"?");
        world.exchange(pod_port(7), &from_pod(7, &packet), "eth0").first().map(|frame| read(frame).ports.0)
    };
    let ports: Vec<u16> = (0..4).filter_map(|port| ask(&mut world, port, "8.8.8.8")).collect();
    let mut sorted = ports.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [40_000, 40_001, 40_002, 40_003], "each port once");
    for port in 4..10 {
        assert_eq!(ask(&mut world, port, "8.8.8.8"), None);
    }
    world.assert_drops(&[("snat_ports_exhausted", 6)]);
    assert_eq!(world.tracked(), 4);
    // To another destination all are free again, and those in use go on.
    assert!(ask(&mut world, 4, "9.9.9.9").is_some());
    for (port, outside) in ports.iter().enumerate() {
        assert_eq!(ask(&mut world, port as u16, "8.8.8.8"), Some(*outside));
        let answer = udp("8.8.8.8:53", &format!("192.168.0.21:{outside}"), b"!");
        let seen = read(&world.exchange("eth0", &to_node("02:00:c0:a8:00:01", &answer), pod_port(7))[0]);
        assert_eq!(seen.to(), format!("172.30.76.7:{port}"));
    }
    world.assert_drops(&[("snat_ports_exhausted", 6)]);
    // A port is free again when its flow is over.
    world.jump_s(200);
    world.advance_ms(400);
    assert_eq!(world.tracked(), 0);
    assert!(ask(&mut world, 9, "8.8.8.8").is_some());
    world.assert_balanced();
}

/// Protocols without ports are masqueraded by address alone: one flow for each destination, and its answers come back.
#[test]
fn protocols_without_ports_are_masqueraded_too() {
    let mut world = World::new(&reference());
    let tunnel = |source: &str, destination: &str| ipv4_with(source, destination, 47, 64, b"payload");
    let seen = read(&world.exchange(pod_port(7), &from_pod(7, &tunnel("172.30.76.7", "8.8.8.8")), "eth0")[0]);
    assert_eq!((seen.source, seen.destination, seen.protocol), (ip("192.168.0.21"), ip("8.8.8.8"), 47));
    let answer = to_node("02:00:c0:a8:00:01", &tunnel("8.8.8.8", "192.168.0.21"));
    let back = world.exchange("eth0", &answer, pod_port(7));
    assert_eq!(back.len(), 1, "it is the pod's and not the host's");
    let seen = read(&back[0]);
    assert_eq!(
        (seen.source, seen.destination, seen.payload),
        (ip("8.8.8.8"), ip("172.30.76.7"), b"payload".to_vec())
    );
    // A second pod's could not be told from it.
    assert!(world.exchange(pod_port(6), &from_pod(6, &tunnel("172.30.76.6", "8.8.8.8")), "eth0").is_empty());
    assert_eq!(world.exchange(pod_port(6), &from_pod(6, &tunnel("172.30.76.6", "9.9.9.9")), "eth0").len(), 1);
    world.assert_drops(&[("snat_ports_exhausted", 1)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (2, 2));
    world.assert_balanced();
}
