//! ARP: what the gateway answers, what it learns, and how packets wait for a next hop.

use pipelines::gateway::Gauge;
use pipelines::stage::tcp_state::TcpState;
use pnet::packet::arp::ArpOperations;

use crate::support::packets::*;
use crate::support::{World, dynamic, ip, pod_port, reference};

/// A station of the underlay that nothing is configured for.
const STRANGER: (&str, &str) = ("02:00:c0:a8:00:4d", "192.168.0.77");

/// The stranger's answer to the gateway's request.
fn answer_from_stranger() -> Vec<u8> {
    arp(ArpOperations::Reply, STRANGER, (NODE_MAC, "192.168.0.21"), NODE_MAC)
}

/// A packet from pod 7 to the stranger; `number` tells one from the other.
fn to_stranger(number: u8) -> Vec<u8> {
    from_pod(7, &udp("172.30.76.7:4000", "192.168.0.77:9", &[number]))
}

#[test]
fn own_addresses_are_answered_on_every_interface_with_its_mac() {
    let mut world = World::new(&reference());
    for (port, asker, mac) in [
        (pod_port(7), (pod_mac(7), "172.30.76.7"), BRIDGE_MAC),
        ("eth0", (CLIENT_MAC.to_owned(), "192.168.0.50"), NODE_MAC),
    ] {
        for address in ["172.30.76.1", "192.168.0.21", "172.30.76.0"] {
            let answers = world.exchange(port, &arp_request((&asker.0, asker.1), address), port);
            assert_eq!(answers.len(), 1, "{address} on {port}");
            let (operation, sender, target) = read_arp(&answers[0]);
            assert_eq!((operation, sender), (2, (mac.to_owned(), ip(address))));
            assert_eq!(target, (asker.0.clone(), ip(asker.1)));
            assert_eq!(answers[0][..12], [octets(&asker.0), octets(mac)].concat());
        }
    }
    assert_eq!(world.accounts(), "received 6, originated 6, transmitted 6, consumed 6");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn other_addresses_are_not_answered_on_the_underlay() {
    let mut world = World::new(&reference());
    // Neither for pods, whose routers know where they are, nor for services: proxy ARP is the host link's alone.
    for address in ["172.30.76.7", "10.254.80.22", "192.168.0.99"] {
        assert!(
            world.exchange("eth0", &arp_request((CLIENT_MAC, "192.168.0.50"), address), "eth0").is_empty()
        );
    }
    world.assert_drops(&[("arp_unanswered", 3)]);
    assert_eq!(world.accounts(), "received 3, dropped 3");
    world.assert_balanced();
}

#[test]
fn next_hop_is_asked_for_three_times_and_packets_wait_until_then() {
    let mut world = World::new(&dynamic());
    world.send(pod_port(7), &to_stranger(0));
    world.turn();
    world.advance_ms(1);
    world.send(pod_port(7), &to_stranger(1));
    let mut requests = Vec::new();
    for millisecond in 0..3_000 {
        world.turn();
        for frame in world.sent("eth0") {
            let (operation, sender, target) = read_arp(&frame);
            assert_eq!((operation, sender), (1, (NODE_MAC.to_owned(), ip("192.168.0.21"))));
            assert_eq!(target, ("00:00:00:00:00:00".to_owned(), ip(STRANGER.1)));
            assert_eq!(frame[..6], [0xff; 6]);
            requests.push(millisecond);
        }
        assert_eq!(world.account(engine::counters::Account::Held), 2, "after {millisecond} ms");
        world.advance_ms(1);
    }
    // Due after 1,000 ms each; the sweep comes by every record about four times a second.
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests.windows(2).all(|pair| (1_000..1_300).contains(&(pair[1] - pair[0]))), "{requests:?}");
    world.advance_ms(10);
    world.assert_drops(&[("neighbour_unresolved", 2)]);
    assert_eq!(world.accounts(), "received 2, originated 3, transmitted 3, dropped 2");
    assert_eq!(world.gauge(Gauge::NeighbourRequests), 3);
    world.assert_balanced();

    // Given up is forgotten: the next packet asks anew, and finds the station that has come up meanwhile.
    world.advance_ms(1_500);
    assert_eq!(world.exchange(pod_port(7), &to_stranger(2), "eth0").len(), 1, "one request");
    let sent = world.exchange("eth0", &answer_from_stranger(), "eth0");
    assert!(sent.is_empty());
    world.advance_ms(1);
    assert_eq!(read(&world.sent("eth0")[0]).payload, [2]);
    world.assert_balanced();
}

#[test]
fn learned_next_hop_is_used_at_once() {
    let mut world = World::new(&dynamic());
    // It has asked for the gateway, so the gateway knows it (RFC 826: the merge flag's other branch).
    world.exchange("eth0", &arp_request(STRANGER, "192.168.0.21"), "eth0");
    let sent = world.exchange(pod_port(7), &to_stranger(0), "eth0");
    let seen = read(&sent[0]);
    assert_eq!((seen.destination_mac.as_str(), seen.source_mac.as_str()), (STRANGER.0, NODE_MAC));
    assert_eq!((seen.source, seen.to()), (ip("192.168.0.21"), "192.168.0.77:9".to_owned()));
    // Whoever asks for somebody else is not learned, and nor is an address that is not on that link.
    world.exchange("eth0", &arp_request(("02:00:c0:a8:00:4e", "192.168.0.78"), "192.168.0.99"), "eth0");
    world.exchange("eth0", &arp_request(("02:00:c0:a8:00:4f", "8.8.8.8"), "192.168.0.21"), "eth0");
    assert_eq!(world.neighbours.find(1, ip("192.168.0.78").into()), None);
    assert_eq!(world.neighbours.find(1, ip("8.8.8.8").into()), None);
    assert_eq!(world.accounts(), "received 4, originated 2, transmitted 3, consumed 2, dropped 1");
    world.assert_drops(&[("arp_unanswered", 1)]);
    world.assert_balanced();
}

#[test]
fn held_packets_leave_in_order_and_only_so_many_are_held() {
    let mut world = World::new(&dynamic());
    for number in 0..40 {
        world.send(pod_port(7), &to_stranger(number));
    }
    world.turn();
    world.assert_drops(&[("neighbour_unresolved", 8)]);
    assert_eq!(world.accounts(), "received 40, originated 1, transmitted 1, dropped 8, held 32");
    world.sent("eth0");
    world.send("eth0", &answer_from_stranger());
    world.turn();
    world.advance_ms(1);
    let numbers: Vec<u8> = world.sent("eth0").iter().map(|frame| read(frame).payload[0]).collect();
    assert_eq!(numbers, (0..32).collect::<Vec<u8>>());
    assert_eq!(world.accounts(), "received 41, originated 1, transmitted 33, consumed 1, dropped 8");
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_balanced();
}

#[test]
fn claim_to_an_own_address_is_a_conflict() {
    let mut world = World::new(&reference());
    let claim = arp(ArpOperations::Reply, (CLIENT_MAC, "192.168.0.21"), (NODE_MAC, "192.168.0.21"), NODE_MAC);
    world.exchange("eth0", &claim, "eth0");
    let gratuitous = arp_request((&pod_mac(7), "172.30.76.1"), "172.30.76.1");
    assert!(world.exchange(pod_port(7), &gratuitous, pod_port(6)).is_empty(), "it is not passed on either");
    world.assert_drops(&[("arp_conflict", 2)]);
    assert_eq!(world.accounts(), "received 2, dropped 2");
    // The gateway goes on answering.
    assert_eq!(
        world.exchange("eth0", &arp_request((CLIENT_MAC, "192.168.0.50"), "192.168.0.21"), "eth0").len(),
        1
    );
    world.assert_balanced();
}

#[test]
fn host_is_told_that_everything_is_behind_the_gateway() {
    let mut world = World::new(&reference());
    let own = world.configuration.exception.as_ref().unwrap().mac.to_string();
    for address in ["8.8.8.8", "172.30.76.7", "10.254.80.22"] {
        world.send_from_host(&arp_request(("02:00:00:00:00:99", "192.168.0.21"), address));
        world.turn();
        let answers = world.sent_to_host();
        let (operation, sender, target) = read_arp(&answers[0]);
        assert_eq!((operation, sender), (2, (own.clone(), ip(address))));
        assert_eq!(target, ("02:00:00:00:00:99".to_owned(), ip("192.168.0.21")));
    }
    // Whether anybody else has its own address, it asks in vain (RFC 5227, section 2.1.1).
    world.send_from_host(&arp_request(("02:00:00:00:00:99", "0.0.0.0"), "192.168.0.21"));
    world.turn();
    assert!(world.sent_to_host().is_empty());
    assert_eq!(world.accounts(), "handed_in 4, originated 3, handed_off 3, consumed 4");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn gratuitous_arp_moves_a_next_hop_in_place() {
    let mut world = World::new(&dynamic());
    world.exchange("eth0", &arp_request(STRANGER, "192.168.0.21"), "eth0");
    world.exchange(pod_port(7), &to_stranger(0), "eth0");
    let record = world.neighbours.find(1, ip(STRANGER.1).into()).unwrap();
    let epoch = world.neighbours.epoch(record);
    let moved = ("02:00:c0:a8:00:aa", STRANGER.1);
    world.exchange("eth0", &arp_request(moved, moved.1), "eth0");
    let sent = world.exchange(pod_port(7), &to_stranger(1), "eth0");
    assert_eq!(read(&sent[0]).destination_mac, moved.0);
    assert_eq!(world.neighbours.find(1, ip(STRANGER.1).into()), Some(record));
    assert_eq!(world.neighbours.epoch(record), epoch, "flows notice nothing");
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_drops(&[("arp_unanswered", 1)]);
    world.assert_balanced();
}

#[test]
fn tunnel_follows_the_mac_of_its_carrier() {
    let mut world = World::new(&dynamic().replace(
        "[[neighbours]]\ninterface = \"eth0\"\naddress = \"192.168.0.22\"\nmac = \"02:00:c0:a8:00:22\"\n",
        "",
    ));
    // The tunnel's other end is asked for as soon as the tables are there.
    let (_, _, target) = read_arp(&world.sent("eth0")[0]);
    assert_eq!(target.1, ip("192.168.0.22"));
    let packet = from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", b"first"));
    assert!(world.exchange(pod_port(7), &packet, "eth0").is_empty(), "it waits");
    let reply =
        |mac: &str| arp(ArpOperations::Reply, (mac, "192.168.0.22"), (NODE_MAC, "192.168.0.21"), NODE_MAC);
    world.exchange("eth0", &reply(NODE_2_MAC), "eth0");
    world.advance_ms(1);
    let (outer, _, inner) = read_tunnel(&world.sent("eth0")[0]);
    assert_eq!((outer.destination_mac.as_str(), inner.payload.as_slice()), (NODE_2_MAC, b"first".as_slice()));
    world.exchange("eth0", &reply("02:00:c0:a8:00:bb"), "eth0");
    let sent = world.exchange(pod_port(7), &packet, "eth0");
    assert_eq!(read_tunnel(&sent[0]).0.destination_mac, "02:00:c0:a8:00:bb");
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 4, originated 1, transmitted 3, consumed 2");
    world.assert_balanced();
}

/// What the bridge sends to pod 7 when an outside client's packet arrives for it; the ports that it left by.
fn to_pod_7(world: &mut World, number: u8) -> Vec<&'static str> {
    world.send("eth0", &to_node(CLIENT_MAC, &udp("192.168.0.50:5000", "172.30.76.7:5", &[number])));
    world.turn();
    world.advance_ms(1);
    [7, 6, 5, 3, 2]
        .into_iter()
        .filter(|last| {
            world
                .sent(pod_port(*last))
                .iter()
                .any(|frame| frame[12..14] == [8, 0] && read(frame).payload == [number])
        })
        .map(pod_port)
        .collect()
}

#[test]
fn station_that_moves_takes_its_next_hop_along() {
    let mut world = World::new(&dynamic());
    assert!(to_pod_7(&mut world, 0).is_empty(), "it is asked for at all ports");
    assert_eq!(world.gauge(Gauge::NeighbourRequests), 5);
    let answer =
        arp(ArpOperations::Reply, (&pod_mac(7), "172.30.76.7"), (BRIDGE_MAC, "172.30.76.1"), BRIDGE_MAC);
    world.send(pod_port(7), &answer);
    world.turn();
    world.advance_ms(1);
    assert_eq!(read(&world.sent(pod_port(7))[0]).payload, [0]);
    assert_eq!(to_pod_7(&mut world, 1), [pod_port(7)]);
    // Anything it sends from its new place tells, no ARP needed.
    world.exchange(pod_port(6), &from_pod(7, &udp("172.30.76.7:5", "192.168.0.22:5000", b"here")), "eth0");
    assert_eq!(to_pod_7(&mut world, 2), [pod_port(6)]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 2);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn next_hop_is_asked_again_by_unicast_and_forgotten_when_it_is_gone() {
    let mut world = World::new(&dynamic());
    world.exchange("eth0", &arp_request(STRANGER, "192.168.0.21"), "eth0");
    world.advance_ms(29_990);
    assert!(world.sent("eth0").is_empty());
    world.advance_ms(400);
    let probes = world.sent("eth0");
    assert_eq!(probes.len(), 1);
    assert_eq!(probes[0][..6], octets(STRANGER.0), "asked by unicast");
    // While it is being asked it is used, and its answer confirms it for as long again.
    assert_eq!(read(&world.exchange(pod_port(7), &to_stranger(0), "eth0")[0]).destination_mac, STRANGER.0);
    world.exchange("eth0", &answer_from_stranger(), "eth0");
    world.advance_ms(29_900);
    assert!(world.sent("eth0").is_empty());
    world.advance_ms(4_500);
    assert_eq!(world.sent("eth0").len(), 3, "three probes and no answer");
    assert_eq!(world.neighbours.find(1, ip(STRANGER.1).into()), None);
    // The flow asks anew and waits; nothing is sent to a station that is not there.
    let sent = world.exchange(pod_port(7), &to_stranger(1), "eth0");
    assert_eq!((sent.len(), read_arp(&sent[0]).0), (1, 1));
    assert_eq!(world.account(engine::counters::Account::Held), 1);
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// The reference, where pod 7's MAC is configured and its port is not.
fn without_port_of_pod_7() -> String {
    reference().replace(
        "[[fdb]]\ninterface = \"docker0\"\nmac = \"02:42:ac:1e:4c:07\"\nport = \"business-manager-1\"\n",
        "",
    )
}

#[test]
fn static_next_hop_is_found_when_its_station_speaks() {
    let mut world = World::new(&without_port_of_pod_7());
    assert!(to_pod_7(&mut world, 0).is_empty());
    world.exchange(pod_port(7), &from_pod(7, &udp("172.30.76.7:5", "192.168.0.22:9", b"I am here")), "eth0");
    world.advance_ms(1);
    assert_eq!(read(&world.sent(pod_port(7))[0]).payload, [0]);
    // Silent until its port is forgotten, it speaks again from another one.
    world.jump_s(302);
    world.exchange(
        pod_port(6),
        &from_pod(7, &udp("172.30.76.7:5", "192.168.0.22:9", b"and now here")),
        "eth0",
    );
    assert_eq!(to_pod_7(&mut world, 1), [pod_port(6)]);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn static_next_hop_is_asked_for_its_port_whenever_it_is_needed() {
    let mut world = World::new(&without_port_of_pod_7());
    let requests = |world: &mut World| world.sent(pod_port(7)).len();
    assert_eq!(requests(&mut world), 1, "asked as soon as the tables are there");
    // The pod was not up yet. Nobody is asked for nothing, and each need asks once a second at the most.
    world.advance_ms(5_000);
    assert_eq!(requests(&mut world), 0);
    for number in 0..3 {
        world.send("eth0", &to_node(CLIENT_MAC, &udp("192.168.0.50:5000", "172.30.76.7:5", &[number])));
        world.turn();
        world.advance_ms(10);
    }
    assert_eq!(requests(&mut world), 1);
    let answer =
        arp(ArpOperations::Reply, (&pod_mac(7), "172.30.76.7"), (BRIDGE_MAC, "172.30.76.1"), BRIDGE_MAC);
    world.send(pod_port(7), &answer);
    world.turn();
    world.advance_ms(1);
    let numbers: Vec<u8> = world.sent(pod_port(7)).iter().map(|frame| read(frame).payload[0]).collect();
    assert_eq!(numbers, [0, 1, 2]);
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Many nodes at once: a step sends a bounded number of requests, and the rest follows at once without losing a try.
#[test]
fn many_remotes_are_all_asked_for_at_once() {
    let mut text = dynamic();
    for node in 100..140 {
        let mac = format!("0a:00:00:00:00:{node:02x}");
        text += &format!(
            "\n[[neighbours]]\ninterface = \"flannel.1\"\naddress = \"172.30.{node}.0\"\nmac = \"{mac}\"\n"
        );
        text += &format!(
            "\n[[fdb]]\ninterface = \"flannel.1\"\nmac = \"{mac}\"\nremote = \"192.168.0.{node}\"\n"
        );
    }
    let mut world = World::new(&text);
    world.advance_ms(300);
    let asked: std::collections::BTreeSet<_> =
        world.sent("eth0").iter().map(|frame| read_arp(frame).2.1).collect();
    assert_eq!(asked.len(), 40);
    assert_eq!(world.gauge(Gauge::NeighbourRequests), 40);
    world.assert_balanced();
}

/// Packets that wait go first, also when more of them wait than one turn takes, and when the answer and later packets of
/// their flows arrive within one millisecond, in one turn and in the next.
#[test]
fn later_packets_do_not_overtake_those_that_wait() {
    let mut world = World::new(&dynamic());
    let hops = ["192.168.0.77", "192.168.0.78", "192.168.0.79"];
    let send = |world: &mut World, number: u8| {
        for hop in hops {
            let packet = udp("172.30.76.7:4000", &format!("{hop}:9"), &[number]);
            world.send(pod_port(7), &from_pod(7, &packet));
        }
    };
    for number in 0..30 {
        send(&mut world, number);
    }
    world.turn();
    world.sent("eth0");
    world.advance_ms(1);
    for hop in hops {
        let station = ("02:00:c0:a8:00:4d", hop);
        world.send("eth0", &arp(ArpOperations::Reply, station, (NODE_MAC, "192.168.0.21"), NODE_MAC));
    }
    send(&mut world, 30);
    world.turn();
    send(&mut world, 31);
    world.turn();
    world.advance_ms(2);
    let sent = world.sent("eth0");
    for hop in hops {
        let to_hop = sent.iter().map(|frame| read(frame)).filter(|seen| seen.destination == ip(hop));
        let numbers: Vec<u8> = to_hop.map(|seen| seen.payload[0]).collect();
        assert_eq!(numbers, (0..32).collect::<Vec<u8>>(), "to {hop}");
    }
    world.assert_drops(&[]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 3);
    world.assert_balanced();
}

/// A packet that waited is looked at once by connection tracking: a FIN that waits is one FIN.
#[test]
fn packet_that_waited_is_tracked_once() {
    let mut world = World::new(&dynamic());
    world.exchange("eth0", &arp_request(STRANGER, "192.168.0.21"), "eth0");
    let client = "172.30.76.7:4000";
    let sent = world.exchange(pod_port(7), &from_pod(7, &tcp(client, "192.168.0.77:9", SYN, b"")), "eth0");
    let leaving = read(&sent[0]);
    let answer = tcp(&leaving.to(), &leaving.from(), SYN | ACK, b"");
    world.send("eth0", &to_node(STRANGER.0, &answer));
    world.turn();
    world.exchange(pod_port(7), &from_pod(7, &tcp(client, "192.168.0.77:9", ACK, b"")), "eth0");
    // The next hop is gone by the time that the client closes.
    world.advance_ms(34_500);
    assert_eq!(world.neighbours.find(1, ip(STRANGER.1).into()), None);
    world.exchange(pod_port(7), &from_pod(7, &tcp(client, "192.168.0.77:9", FIN | ACK, b"")), "eth0");
    world.exchange("eth0", &answer_from_stranger(), "eth0");
    world.advance_ms(1);
    assert_eq!(read(&world.sent("eth0")[0]).flags, u16::from(FIN | ACK));
    let flows = world.workers[0].pipeline.flows();
    let (entry, _) = (0..flows.capacity() as u32).find_map(|pair| flows.pair(pair)).unwrap();
    assert_eq!(TcpState::from_number(entry.value.state), TcpState::FinWait);
    world.assert_balanced();
}

/// Answers are made in the packet's buffer, so it waits as it came until the way back is known: the first ping of a station
/// that never spoke ARP is answered, and so is its first connection to nobody.
#[test]
fn answers_wait_for_the_way_back() {
    let mut world = World::new(&dynamic());
    world.send("eth0", &to_node(STRANGER.0, &echo("192.168.0.77", "192.168.0.21", false, 7)));
    world.send("eth0", &to_node(STRANGER.0, &tcp("192.168.0.77:9", "10.254.80.22:81", SYN, b"")));
    world.turn();
    let asked = world.sent("eth0");
    assert_eq!((asked.len(), read_arp(&asked[0]).2.1), (1, ip("192.168.0.77")));
    assert_eq!(world.accounts(), "received 2, originated 1, transmitted 1, held 2");
    world.assert_drops(&[]);
    world.send("eth0", &answer_from_stranger());
    world.turn();
    world.advance_ms(1);
    let answers: Vec<_> = world.sent("eth0").iter().map(|frame| read(frame)).collect();
    assert_eq!(answers.iter().map(|answer| answer.flags).collect::<Vec<_>>(), [0x0000, 0x0303]);
    assert!(answers.iter().all(|answer| answer.destination_mac == STRANGER.0));
    world.assert_drops(&[("service_unknown_port", 1)]);
    assert_eq!(world.accounts(), "received 3, originated 3, transmitted 3, consumed 2, dropped 1");
    world.assert_balanced();
}
