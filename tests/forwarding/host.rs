//! The gateway's own addresses: echo is answered, the rest goes to the host's own stack, and what that sends comes back
//! out through the pipeline.

use pipelines::gateway::Gauge;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

const HOST_MAC: &str = "02:00:00:00:00:99";

/// A frame from the host's stack.
fn from_host(packet: &[u8]) -> Vec<u8> {
    ethernet("02:00:00:00:00:01", HOST_MAC, 0x0800, packet)
}

/// Lets the host send, and gives what leaves by `port`.
fn host_sends(world: &mut World, packet: &[u8], port: &str) -> Vec<Vec<u8>> {
    world.send_from_host(&from_host(packet));
    world.turn();
    world.sent(port)
}

/// What reaches the host when a frame arrives.
fn host_hears(world: &mut World, port: &str, frame: &[u8]) -> Vec<Seen> {
    world.send(port, frame);
    world.turn();
    world.sent_to_host().iter().map(|frame| read(frame)).collect()
}

#[test]
fn own_addresses_answer_echo_on_every_interface() {
    let mut world = World::new(&reference());
    for address in ["172.30.76.1", "172.30.76.0", "192.168.0.21"] {
        // One hop is enough: it is no hop at all.
        let request = with_ipv4_byte(&echo("172.30.76.7", address, false, 77), 8, 1);
        let seen = read(&world.exchange(pod_port(7), &from_pod(7, &request), pod_port(7))[0]);
        assert_eq!((seen.source, seen.destination, seen.flags), (ip(address), ip("172.30.76.7"), 0));
        assert_eq!((seen.ports.0, seen.payload.as_slice(), seen.ttl), (77, &request[28..], 64));
        assert_eq!((seen.destination_mac, seen.source_mac.as_str()), (pod_mac(7), BRIDGE_MAC));

        let request = echo("192.168.0.50", address, false, 78);
        let seen = read(&world.exchange("eth0", &to_node(CLIENT_MAC, &request), "eth0")[0]);
        assert_eq!((seen.source, seen.destination, seen.ports.0), (ip(address), ip("192.168.0.50"), 78));
        assert_eq!(seen.destination_mac, CLIENT_MAC);

        let request = with_options(&echo("172.30.9.2", address, false, 79), &[1, 1, 1, 0]);
        let (_, vni, seen) = read_tunnel(&world.exchange("eth0", &from_tunnel(&request), "eth0")[0]);
        assert_eq!(
            (vni, seen.source, seen.destination, seen.ports.0),
            (1, ip(address), ip("172.30.9.2"), 79)
        );
    }
    assert_eq!(world.accounts(), "received 9, originated 9, transmitted 9, consumed 9");
    assert_eq!(world.tracked(), 0, "answers need no flow");
    let mut damaged = echo("192.168.0.50", "192.168.0.21", false, 80);
    damaged[40] ^= 1;
    assert!(world.exchange("eth0", &to_node(CLIENT_MAC, &damaged), "eth0").is_empty());
    world.assert_drops(&[("transport_malformed", 1)]);
    world.assert_balanced();
}

#[test]
fn what_no_table_claims_reaches_the_host_untouched() {
    let mut world = World::new(&reference());
    for (number, (port, frame, packet)) in [
        ("eth0", true, tcp("192.168.0.50:5000", "192.168.0.21:22", SYN, b"")),
        (pod_port(7), false, udp("172.30.76.7:5000", "172.30.76.1:53", b"query")),
        (pod_port(7), false, udp("172.30.76.7:5000", "192.168.0.21:53", b"query")),
    ]
    .into_iter()
    .enumerate()
    {
        let frame = if frame { to_node(CLIENT_MAC, &packet) } else { from_pod(7, &packet) };
        let heard = host_hears(&mut world, port, &frame);
        assert_eq!((heard.len(), heard[0].ttl), (1, 64), "number {number}: hop limit as it was");
        assert_eq!(
            (heard[0].destination_mac.as_str(), &heard[0].payload),
            (HOST_MAC, &read_ip(&packet).payload)
        );
    }
    let through_tunnel = from_tunnel(&udp("172.30.9.2:5000", "172.30.76.0:53", b"query"));
    assert_eq!(host_hears(&mut world, "eth0", &through_tunnel)[0].payload, b"query");
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 4, handed_off 4");
    world.assert_balanced();
}

#[test]
fn host_is_reached_through_a_service_too() {
    // A proxy on the gateway itself as the only backend.
    let text =
        reference().replace("{ address = \"192.168.0.22:6443\" }", "{ address = \"192.168.0.21:6443\" }");
    let mut world = World::new(&text);
    let request = tcp("172.30.76.7:5000", "10.254.0.1:443", SYN, b"");
    let heard = host_hears(&mut world, pod_port(7), &from_pod(7, &request));
    assert_eq!((heard[0].from(), heard[0].to()), ("172.30.76.7:5000".into(), "192.168.0.21:6443".into()));
    let answer = tcp("192.168.0.21:6443", "172.30.76.7:5000", SYN | ACK, b"");
    let seen = read(&host_sends(&mut world, &answer, pod_port(7))[0]);
    assert_eq!((seen.from(), seen.to()), ("10.254.0.1:443".into(), "172.30.76.7:5000".into()));
    assert_eq!(seen.ttl, 64, "what the host sends has made no hop");
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 1, handed_in 1, transmitted 1, handed_off 1");
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_balanced();
}

/// Rules mark a remote pod's packets, but what is delivered here passes no POSTROUTING: the host sees who asks.
#[test]
fn what_is_delivered_to_the_host_keeps_its_source() {
    let text =
        reference().replace("{ address = \"192.168.0.22:6443\" }", "{ address = \"192.168.0.21:6443\" }");
    let mut world = World::new(&text);
    let request = from_tunnel(&tcp("172.30.9.9:5000", "10.254.0.1:443", SYN, b""));
    let heard = host_hears(&mut world, "eth0", &request);
    assert_eq!((heard[0].from(), heard[0].to()), ("172.30.9.9:5000".into(), "192.168.0.21:6443".into()));
    let answer = tcp("192.168.0.21:6443", "172.30.9.9:5000", SYN | ACK, b"");
    let (_, _, seen) = read_tunnel(&host_sends(&mut world, &answer, "eth0")[0]);
    assert_eq!((seen.from(), seen.to()), ("10.254.0.1:443".into(), "172.30.9.9:5000".into()));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn host_gets_no_more_than_its_rate() {
    let mut world = World::new(&reference().replace("rate_pps = 10000", "rate_pps = 100"));
    let knock = |number: u16| {
        to_node(CLIENT_MAC, &tcp(&format!("192.168.0.50:{number}"), "192.168.0.21:22", SYN, b""))
    };
    for number in 0..40 {
        world.send("eth0", &knock(1_000 + number));
    }
    world.turn();
    assert_eq!(world.sent_to_host().len(), 32, "a burst");
    world.jump_s(1);
    for number in 0..40 {
        world.send("eth0", &knock(1_000 + number));
    }
    world.turn();
    assert_eq!(world.sent_to_host().len(), 32);
    world.assert_drops(&[("host_rate_limited", 16)]);
    assert_eq!(world.accounts(), "received 80, handed_off 64, dropped 16");
    world.assert_balanced();
}

#[test]
fn full_ring_to_the_host_is_a_counted_drop() {
    let mut world = World::new(&reference().replace("rate_pps = 10000", "rate_pps = 10000\nring = 64"));
    for number in 0..80u16 {
        let packet = tcp(&format!("192.168.0.50:{}", 1_000 + number), "192.168.0.21:22", SYN, b"");
        world.send("eth0", &to_node(CLIENT_MAC, &packet));
    }
    world.turn();
    assert_eq!(world.sent_to_host().len(), 64);
    world.assert_drops(&[("host_full", 16)]);
    world.assert_balanced();
}

#[test]
fn gateway_without_an_exception_port_drops_what_is_for_the_host() {
    let text = reference();
    let (before, rest) = text.split_once("[exception]").unwrap();
    let (_, after) = rest.split_once("# docker0").unwrap();
    let mut world = World::new(&format!("{before}# docker0{after}"));
    world.exchange("eth0", &to_node(CLIENT_MAC, &tcp("192.168.0.50:1", "192.168.0.21:22", SYN, b"")), "eth0");
    world.assert_drops(&[("host_absent", 1)]);
    let request = to_node(CLIENT_MAC, &echo("192.168.0.50", "192.168.0.21", false, 1));
    assert_eq!(world.exchange("eth0", &request, "eth0").len(), 1, "echo needs no host");
    assert_eq!(world.accounts(), "received 2, originated 1, transmitted 1, consumed 1, dropped 1");
    world.assert_balanced();
}

#[test]
fn host_reaches_pods_and_hears_their_answers() {
    let mut world = World::new(&reference());
    // One hop is enough from here: the host is this node.
    let packet = with_ipv4_byte(&udp("172.30.76.1:4000", "172.30.76.7:53", b"query"), 8, 1);
    let seen = read(&host_sends(&mut world, &packet, pod_port(7))[0]);
    assert_eq!((seen.from(), seen.to(), seen.ttl), ("172.30.76.1:4000".into(), "172.30.76.7:53".into(), 1));
    assert_eq!((seen.source_mac.as_str(), seen.destination_mac), (BRIDGE_MAC, pod_mac(7)));
    let answer = from_pod(7, &udp("172.30.76.7:53", "172.30.76.1:4000", b"answer"));
    let heard = host_hears(&mut world, pod_port(7), &answer);
    assert_eq!((heard[0].from(), heard[0].ttl), ("172.30.76.7:53".into(), 64));

    // A remote pod, through the tunnel; and an echo, which is the host's and not the gateway's to hear.
    let request = echo("172.30.76.0", "172.30.9.2", false, 9);
    let (_, _, seen) = read_tunnel(&host_sends(&mut world, &request, "eth0")[0]);
    assert_eq!((seen.source, seen.ports.0), (ip("172.30.76.0"), 9));
    let heard = host_hears(&mut world, "eth0", &from_tunnel(&echo("172.30.9.2", "172.30.76.0", true, 9)));
    assert_eq!((heard[0].source, heard[0].ports.0), (ip("172.30.9.2"), 9));
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 2, handed_in 2, transmitted 2, handed_off 2");
    world.assert_balanced();
}

/// The node is in none of `pod_cidrs`, so it is masqueraded: a backend on this node answers the bridge's address, one on
/// another node the VTEP's, and neither sees the node's own.
#[test]
fn host_reaches_services_masqueraded() {
    let mut world = World::new(&reference());
    let mut tunnelled = 0;
    for number in 0..40u16 {
        let client = format!("192.168.0.21:{}", 33_000 + number);
        world.send_from_host(&from_host(&tcp(&client, "10.254.116.224:50051", SYN, b"")));
        world.turn();
        let (port, seen) = if let Some(frame) = world.sent("eth0").first() {
            tunnelled += 1;
            ("eth0", read_tunnel(frame).2)
        } else {
            let local = [pod_port(5), pod_port(3)]
                .into_iter()
                .find_map(|port| world.sent(port).first().map(|frame| (port, read(frame))));
            local.unwrap()
        };
        let expected = if port == "eth0" { "172.30.76.0" } else { "172.30.76.1" };
        assert_eq!((seen.source, seen.ttl), (ip(expected), 64));
        let answer = tcp(&seen.to(), &seen.from(), SYN | ACK, b"");
        let frame = if port == "eth0" { from_tunnel(&answer) } else { from_pod(5, &answer) };
        let heard = host_hears(&mut world, port, &frame);
        assert_eq!((heard[0].from(), heard[0].to()), ("10.254.116.224:50051".into(), client));
    }
    assert!((5..=25).contains(&tunnelled), "{tunnelled} of 40 to one backend of three");
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 40, handed_in 40, transmitted 40, handed_off 40");
    world.assert_balanced();
}

/// The host's stack tracks its own connections: what it answers leaves, though the first packet was not remembered here.
#[test]
fn host_accepts_connections() {
    let mut world = World::new(&reference());
    let (client, host) = ("192.168.0.50:5000", "192.168.0.21:22");
    let inward = |flags, payload: &[u8]| to_node(CLIENT_MAC, &tcp(client, host, flags, payload));
    assert_eq!(host_hears(&mut world, "eth0", &inward(SYN, b"")).len(), 1);
    let steps: [(u8, &[u8]); 4] = [(SYN | ACK, b""), (ACK, b"banner"), (FIN | ACK, b""), (RST, b"")];
    for (flags, payload) in steps {
        let sent = host_sends(&mut world, &tcp(host, client, flags, payload), "eth0");
        assert_eq!(sent.len(), 1, "flags {flags:02x}: {:?}", world.drops());
        let seen = read(&sent[0]);
        assert_eq!(
            (seen.from(), seen.to(), seen.flags, seen.ttl),
            (host.into(), client.into(), flags.into(), 64)
        );
        assert_eq!((seen.source_mac.as_str(), seen.destination_mac.as_str()), (NODE_MAC, CLIENT_MAC));
        assert_eq!(host_hears(&mut world, "eth0", &inward(ACK, b"data")).len(), 1, "flags {flags:02x}");
    }
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 5, handed_in 4, transmitted 4, handed_off 5");
    world.assert_balanced();
}

#[test]
fn host_refuses_connections_and_datagrams() {
    let mut world = World::new(&reference());
    let request = udp("192.168.0.50:5000", "192.168.0.21:9", b"anyone?");
    assert_eq!(host_hears(&mut world, "eth0", &to_node(CLIENT_MAC, &request)).len(), 1);
    let error = icmp_error("192.168.0.21", "192.168.0.50", 3, 3, &request);
    let seen = read(&host_sends(&mut world, &error, "eth0")[0]);
    assert_eq!(
        (seen.flags, seen.destination, seen.payload),
        (0x0303, ip("192.168.0.50"), request[..28].to_vec())
    );
    let through_tunnel = from_tunnel(&tcp("172.30.9.2:5000", "172.30.76.0:9", SYN, b""));
    assert_eq!(host_hears(&mut world, "eth0", &through_tunnel).len(), 1);
    let reset = tcp("172.30.76.0:9", "172.30.9.2:5000", RST | ACK, b"");
    let (_, _, seen) = read_tunnel(&host_sends(&mut world, &reset, "eth0")[0]);
    assert_eq!((seen.from(), seen.flags), ("172.30.76.0:9".into(), u16::from(RST | ACK)));
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 2, handed_in 2, transmitted 2, handed_off 2");
    world.assert_balanced();
}

/// An answer to an answer would go back and forth between two gateways for ever.
#[test]
fn echo_reply_to_no_request_is_not_answered() {
    let mut world = World::new(&reference());
    let reply = echo("192.168.0.50", "192.168.0.21", true, 7);
    assert!(world.exchange("eth0", &to_node(CLIENT_MAC, &reply), "eth0").is_empty());
    let reply = echo("172.30.76.7", "172.30.76.1", true, 7);
    assert!(world.exchange(pod_port(7), &from_pod(7, &reply), pod_port(7)).is_empty());
    let reply = echo("172.30.76.7", "172.30.9.2", true, 7);
    assert!(world.exchange(pod_port(7), &from_pod(7, &reply), "eth0").is_empty());
    assert!(world.sent_to_host().is_empty());
    world.assert_drops(&[("icmp_unsolicited", 3)]);
    assert_eq!(world.accounts(), "received 3, dropped 3");
    world.assert_balanced();
}
