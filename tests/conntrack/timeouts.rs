//! Timeouts: alive in the configured second, gone after it.

use pipelines::gateway::Gauge;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};
use crate::tcp::{client_says, open, server_says};

/// A table so small that every sweep comes by every flow.
fn small() -> String {
    reference().replace("capacity = 65536", "capacity = 64")
}

/// The one flow lives for `seconds` of silence, and not a millisecond longer.
fn assert_lives(world: &mut World, seconds: u64, what: &str) {
    assert_eq!(world.tracked(), 1, "{what}");
    world.jump_s(seconds);
    assert_eq!((world.tracked(), world.gauge(Gauge::Flows)), (1, 1), "{what} after {seconds} s");
    world.advance_ms(1);
    assert_eq!((world.tracked(), world.gauge(Gauge::Flows)), (0, 0), "{what} after {seconds} s and 1 ms");
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsExpired)), (1, 1));
    assert_eq!((world.gauge(Gauge::FlowsEvicted), world.gauge(Gauge::FlowsReopened)), (0, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}

type Reach = fn(&mut World);

/// The kernel's and kube-proxy's defaults.
#[test]
fn every_tcp_state_has_its_timeout() {
    let states: [(&str, u64, Reach); 9] = [
        ("syn_sent", 120, |world| assert!(client_says(world, SYN, 100, 0))),
        ("syn_sent2", 120, |world| {
            assert!(client_says(world, SYN, 100, 0) && server_says(world, SYN, 500, 0));
        }),
        ("syn_received", 60, |world| {
            assert!(client_says(world, SYN, 100, 0) && server_says(world, SYN | ACK, 500, 101));
        }),
        ("established", 86_400, open),
        ("fin_wait", 120, |world| {
            open(world);
            assert!(client_says(world, FIN | ACK, 101, 501));
        }),
        ("close_wait", 3_600, |world| {
            open(world);
            assert!(client_says(world, FIN | ACK, 101, 501) && server_says(world, ACK, 501, 102));
        }),
        ("last_ack", 30, |world| {
            open(world);
            assert!(client_says(world, FIN | ACK, 101, 501) && server_says(world, FIN | ACK, 501, 102));
        }),
        ("time_wait", 120, |world| {
            open(world);
            assert!(client_says(world, FIN | ACK, 101, 501) && server_says(world, FIN | ACK, 501, 102));
            assert!(client_says(world, ACK, 102, 502));
        }),
        ("close", 10, |world| {
            open(world);
            assert!(client_says(world, RST, 101, 0));
        }),
    ];
    for (name, seconds, reach) in states {
        let mut world = World::new(&small());
        reach(&mut world);
        assert_lives(&mut world, seconds, name);
    }
}

#[test]
fn configured_timeouts_are_kept() {
    let text = small().replace("[conntrack]", "[conntrack]\ntcp_established_s = 5\nudp_s = 7\nicmp_s = 3");
    let mut world = World::new(&text);
    open(&mut world);
    assert_lives(&mut world, 5, "established");
    let mut world = World::new(&text);
    world.exchange(pod_port(7), &from_pod(7, &echo("172.30.76.7", "172.30.9.2", false, 1)), "eth0");
    assert_lives(&mut world, 3, "echo");
}

fn udp_there(world: &mut World) {
    let packet = udp("192.168.0.50:5000", "172.30.76.7:53", b"?");
    assert_eq!(world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7)).len(), 1);
}

fn udp_back(world: &mut World) {
    let packet = udp("172.30.76.7:53", "192.168.0.50:5000", b"!");
    assert_eq!(world.exchange(pod_port(7), &from_pod(7, &packet), "eth0").len(), 1);
}

#[test]
fn datagrams_live_longer_once_they_are_answered() {
    let mut world = World::new(&small());
    udp_there(&mut world);
    udp_there(&mut world);
    assert_lives(&mut world, 30, "unreplied");
    let mut world = World::new(&small());
    udp_there(&mut world);
    udp_back(&mut world);
    assert_lives(&mut world, 120, "stream");
}

#[test]
fn other_protocols_have_timeouts_too() {
    let mut world = World::new(&small());
    let request = to_node(CLIENT_MAC, &echo("192.168.0.50", "172.30.76.7", false, 9));
    assert_eq!(world.exchange("eth0", &request, pod_port(7)).len(), 1);
    let reply = from_pod(7, &echo("172.30.76.7", "192.168.0.50", true, 9));
    assert_eq!(read(&world.exchange(pod_port(7), &reply, "eth0")[0]).ports.0, 9);
    assert_lives(&mut world, 30, "echo");
    let mut world = World::new(&small());
    let packet = ipv4_with("192.168.0.50", "172.30.76.7", 47, 64, b"tunnel of its own");
    let seen = read(&world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7))[0]);
    assert_eq!(
        (seen.protocol, seen.destination, seen.payload),
        (47, ip("172.30.76.7"), b"tunnel of its own".to_vec())
    );
    assert_lives(&mut world, 600, "generic");
}

#[test]
fn packets_of_either_direction_keep_a_flow_alive() {
    let mut world = World::new(&small());
    udp_there(&mut world);
    udp_back(&mut world);
    for round in 0..6 {
        world.jump_s(119);
        if round % 2 == 0 { udp_there(&mut world) } else { udp_back(&mut world) }
    }
    assert_lives(&mut world, 120, "stream");
}

/// The sweep takes its time in a large table; what is over is over, whether it has been by or not. In a replayed capture
/// hours may lie between one turn and the next.
#[test]
fn flow_whose_time_is_over_takes_no_packet() {
    let mut world = World::new(&reference());
    let service =
        |number: u16| from_pod(7, &tcp(&format!("172.30.76.7:{number}"), "10.254.116.224:50051", SYN, b""));
    world.send(pod_port(7), &service(1));
    world.turn();
    udp_there(&mut world);
    assert_eq!(world.tracked(), 2);
    world.now = engine::clock::Timestamp(world.now.0 + 121_000_000_000);
    world.send(pod_port(7), &service(1));
    udp_there(&mut world);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (2, 4));
    assert_eq!((world.gauge(Gauge::FlowsExpired), world.gauge(Gauge::FlowsReopened)), (2, 0));
    // The service's backend may be on node 2.
    world.sent("eth0");
    // An answer to what is over fits nothing.
    world.now = engine::clock::Timestamp(world.now.0 + 121_000_000_000);
    world.sent("eth0");
    let answer = tcp("172.30.76.7:8080", "192.168.0.50:5000", SYN | ACK, b"");
    let sent = world.exchange(pod_port(7), &from_pod(7, &answer), "eth0");
    assert!(sent.is_empty(), "{sent:02x?}");
    world.assert_drops(&[("tcp_invalid", 1)]);
    world.assert_balanced();
}
