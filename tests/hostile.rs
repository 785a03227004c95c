//! What bad luck or an attacker may do to a gateway: overload of a batch, reloads at a bad moment, packets that want to
//! go where they must not. All on ports in memory.

mod support;

use engine::counters::Account;
use pipelines::drop_reason::DropReason;
use pipelines::gateway::Gauge;
use support::packets::*;
use support::{World, dynamic, reference};

/// The reference cluster with this many more pods on the bridge.
fn with_more_pods(text: &str, count: usize) -> String {
    let ports = (0..count).map(|number| {
        format!(
            "\n[[ports]]\nname = \"more-{number}\"\nrole = \"pod\"\ndevice = \"net_tap{}\"\nmtu = 1450\n",
            20 + number
        )
    });
    text.to_owned() + &ports.collect::<String>()
}

fn broadcast(source: u8) -> Vec<u8> {
    ethernet("ff:ff:ff:ff:ff:ff", &pod_mac(source), 0x88cc, &[0; 46])
}

#[test]
fn small_bursts_from_many_ports_lose_no_packet() {
    let mut world = World::new(&reference().replace("[workers]", "[workers]\nburst = 4"));
    let frame = |last: u8| from_pod(last, &udp(&format!("172.30.76.{last}:9"), "172.30.9.2:9", b""));
    for (last, count) in [(7u8, 20), (6, 32), (5, 40), (3, 40), (2, 40)] {
        for _ in 0..count {
            world.send(support::pod_port(last), &frame(last));
        }
    }
    world.turn();
    assert_eq!(world.accounts(), "received 172, transmitted 172");
    world.assert_balanced();
}

#[test]
fn a_packet_that_may_not_wait_is_counted_also_when_floods_fill_the_batch() {
    let mut world = World::new(&with_more_pods(&dynamic(), 7));
    let unanswered = from_pod(7, &udp("172.30.76.7:9", "192.168.0.77:9", b""));
    for _ in 0..32 {
        world.send("business-manager-1", &unanswered);
    }
    world.turn();
    assert_eq!(world.account(Account::Held), 32);
    // 32 floods make 10 copies each: more than a batch has room for. The others may not wait any more.
    for _ in 0..32 {
        world.send("business-manager-2", &broadcast(6));
        world.send("business-manager-1", &unanswered);
    }
    world.turn();
    assert_eq!(world.dropped(DropReason::NeighbourUnresolved), 32);
    world.assert_balanced();
}

#[test]
fn packets_to_everybody_are_not_forwarded() {
    // RFC 1812, section 5.3.4: a link layer broadcast of an IP unicast is discarded.
    let mut world = World::new(&reference());
    let packet = udp("192.168.0.50:9", "172.30.9.2:9", b"");
    for group in ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
        world.send("eth0", &ethernet(group, CLIENT_MAC, 0x0800, &packet));
    }
    world.turn();
    assert_eq!(world.accounts(), "received 2, dropped 2");
    world.assert_drops(&[("multicast", 2)]);
    world.assert_balanced();
}

#[test]
fn errors_about_tracked_flows_are_known_on_every_worker() {
    let mut world = World::with(&reference(), 4, 7);
    for number in 0..64u16 {
        let (client, server) = (format!("172.30.76.7:{}", 4_000 + number), "172.30.9.2:9000");
        let request = udp(&client, server, b"");
        world.send_to("business-manager-1", usize::from(number % 4), &from_pod(7, &request));
        world.turn();
        let error = icmp_error("172.30.9.2", "172.30.76.7", 3, 3, &request);
        world.send_to("eth0", usize::from(number / 4 % 4), &from_tunnel(&error));
        world.turn();
    }
    world.assert_drops(&[("icmp_error_tracked", 64)]);
    world.assert_balanced();
}

#[test]
fn a_masqueraded_protocol_without_ports_gets_its_answers() {
    let mut world = World::new(&reference());
    let gre = |source: &str, destination: &str| ipv4_with(source, destination, 47, 64, &[0; 8]);
    let out =
        world.exchange("business-manager-1", &from_pod(7, &gre("172.30.76.7", "192.168.0.103")), "eth0");
    assert_eq!(&out[0][26..30], [192, 168, 0, 21]);
    let answer = to_node("02:00:c0:a8:00:67", &gre("192.168.0.103", "192.168.0.21"));
    let back = world.exchange("eth0", &answer, "business-manager-1");
    assert_eq!(back.len(), 1, "{:?}", world.drops());
    assert_eq!(&back[0][30..34], [172, 30, 76, 7]);
    // There is no port to tell a second one's answers by.
    world.send("business-manager-2", &from_pod(6, &gre("172.30.76.6", "192.168.0.103")));
    world.turn();
    world.assert_drops(&[("snat_ports_exhausted", 1)]);
    world.assert_balanced();
}

/// Whom outer frames on the underlay are for: the last byte of the MAC.
fn carriers(frames: Vec<Vec<u8>>) -> Vec<u8> {
    frames.iter().filter(|frame| frame[12..14] == [8, 0]).map(|frame| frame[5]).collect()
}

#[test]
fn a_tunnel_follows_its_carrier_through_a_reload() {
    let entry = |last: u8| {
        format!(
            "\n[[neighbours]]\ninterface = \"eth0\"\naddress = \"192.168.0.22\"\nmac = \"02:00:c0:a8:00:{last:02x}\"\n"
        )
    };
    let text = reference().replace(&entry(0x22), "");
    let frame = from_pod(7, &udp("172.30.76.7:9", "172.30.9.2:9", b""));
    let answer = |last: u8| {
        arp_reply((&format!("02:00:c0:a8:00:{last:02x}"), "192.168.0.22"), (NODE_MAC, "192.168.0.21"))
    };
    let mut world = World::new(&text);
    world.send("eth0", &answer(0x22));
    world.turn();
    assert_eq!(carriers(world.exchange("business-manager-1", &frame, "eth0")), [0x22]);
    // A static one, and another.
    for last in [0x23, 0x24] {
        world.reload(&(text.clone() + &entry(last)));
        assert_eq!(carriers(world.exchange("business-manager-1", &frame, "eth0")), [last]);
    }
    // No static one any more: it is asked for, and nothing leaves by the old one.
    world.reload(&text);
    assert!(carriers(world.exchange("business-manager-1", &frame, "eth0")).is_empty());
    world.send("eth0", &answer(0x25));
    world.turn();
    world.advance_ms(2);
    assert_eq!(carriers(world.sent("eth0")), [0x25]);
    world.assert_balanced();
}

/// The answer of a station that was asked.
fn arp_reply(sender: (&str, &str), target: (&str, &str)) -> Vec<u8> {
    arp(pnet::packet::arp::ArpOperations::Reply, sender, target, target.0)
}

#[test]
fn many_next_hops_at_once_are_all_asked_for_soon() {
    let mut world = World::new(&dynamic());
    world.advance_ms(5);
    world.sent("eth0");
    for last in 110..160u8 {
        let pod = if last % 2 == 0 { 7 } else { 6 };
        let packet = udp(&format!("172.30.76.{pod}:9"), &format!("192.168.0.{last}:9"), b"");
        world.send(support::pod_port(pod), &from_pod(pod, &packet));
    }
    world.turn();
    world.advance_ms(400);
    let mut asked: Vec<u8> = world
        .sent("eth0")
        .iter()
        .filter(|f| f[12..14] == [8, 6] && (110..160).contains(&f[41]))
        .map(|f| f[41])
        .collect();
    asked.sort_unstable();
    assert_eq!(asked, (110..160).collect::<Vec<u8>>(), "each once");
    world.assert_balanced();
}

#[test]
fn a_static_next_hop_is_found_when_its_station_is_first_heard() {
    let text = dynamic()
        + "\n[[neighbours]]\ninterface = \"docker0\"\naddress = \"172.30.76.7\"\nmac = \"02:42:ac:1e:4c:07\"\n";
    let mut world = World::new(&text);
    world.send("eth0", &from_tunnel(&udp("172.30.9.2:9", "172.30.76.7:9", b"")));
    world.turn();
    assert_eq!(world.account(Account::Held), 1);
    world.send("business-manager-1", &broadcast(7));
    world.turn();
    world.sent("business-manager-1");
    world.advance_ms(3);
    assert_eq!(world.sent("business-manager-1").len(), 1);
    world.assert_balanced();
}

#[test]
fn all_static_stations_that_a_reload_takes_away_are_forgotten() {
    let stations: String = (0..200)
        .map(|n| format!("\n[[fdb]]\ninterface = \"docker0\"\nmac = \"02:00:00:00:01:{n:02x}\"\nport = \"data-product-1\"\n"))
        .collect();
    let mut world = World::new(&(dynamic() + &stations));
    let fixed = |world: &World| world.stations.stations().filter(|station| station.is_static).count();
    assert_eq!(fixed(&world), 200);
    world.reload(&dynamic());
    assert_eq!(fixed(&world), 0);
}

#[test]
fn what_the_host_sends_to_the_gateway_does_not_come_back_to_it() {
    let mut world = World::new(&reference());
    let frame = ethernet(NODE_MAC, "02:00:00:00:00:99", 0x0800, &udp("192.168.0.21:9", "172.30.76.0:9", b""));
    world.send_from_host(&frame);
    world.turn();
    assert!(world.sent_to_host().is_empty());
    assert_eq!(world.gauge(Gauge::FlowsCreated), 0);
    world.assert_balanced();
}

#[test]
fn a_route_looked_up_in_old_tables_is_not_remembered_for_new_ones() {
    let text = reference();
    let rerouted = text.clone()
        + "\n[[routes]]\ndestination = \"172.30.9.2/32\"\nvia = \"192.168.0.50\"\ninterface = \"eth0\"\n";
    let mut world = World::with(&text, 2, 1);
    // A flow that the second worker finds by itself; the neighbour machine runs on the first.
    let frame = (4_000..4_100)
        .map(|port| from_pod(7, &udp(&format!("172.30.76.7:{port}"), &format!("172.30.9.2:{port}"), b"")))
        .find(|frame| {
            world.send_to("business-manager-1", 1, frame);
            world.turn();
            world.sent("eth0");
            world.send_to("business-manager-1", 1, frame);
            world.workers[1].turn(world.now);
            let is_its_own = !world.sent("eth0").is_empty();
            world.turn();
            is_its_own
        })
        .expect("a flow of the second worker");
    world.sent("eth0");
    let parsed = |text: &str| {
        pipelines::control::config::parse(text, "test.toml")
            .unwrap_or_else(|report| panic!("{report}"))
            .configuration
    };
    let tables = world.builder.build(&parsed(&rerouted)).unwrap();
    world.publisher.publish(tables.into());
    world.now = engine::clock::Timestamp(world.now.0 + 1_000_000);
    world.workers[0].turn(world.now);
    // The second worker is still in a batch with the old tables.
    let old = pipelines::control::build::Builder::new(2, Default::default()).build(&parsed(&text)).unwrap();
    assert_eq!(old.generation, 1);
    world.publisher.publish(old.into());
    world.send_to("business-manager-1", 1, &frame);
    world.workers[1].turn(world.now);
    assert_eq!(carriers(world.sent("eth0")), [0x22]);
    let tables = world.builder.build(&parsed(&rerouted)).unwrap();
    world.publisher.publish(tables.into());
    world.send_to("business-manager-1", 1, &frame);
    world.workers[1].turn(world.now);
    assert_eq!(carriers(world.sent("eth0")), [0x50]);
    world.turn();
    world.assert_balanced();
}
