//! When the flow table is full of flows that may not go: what needs no flow goes on, the rest is dropped by name.

use pipelines::gateway::Gauge;
use pipelines::table::SlotCounter;

use super::pressure::{CAPACITY, back, small, there};
use crate::support::packets::*;
use crate::support::{World, pod_port};

const SERVICE: &str = "10.254.116.224:50051";
const CLIENT: &str = "172.30.76.7";

/// The reference cluster with a consistent hash at the service, and room for 64 flows.
fn hashed() -> String {
    let text = small().replace("name = \"data-product\"", "name = \"data-product\"\nalgorithm = \"maglev\"");
    assert!(text.contains("maglev"));
    text
}

/// All of the table is answered flows.
fn full(text: &str) -> World {
    let mut world = World::new(text);
    for port in 0..CAPACITY {
        assert!(there(&mut world, 1_000 + port) && back(&mut world, 1_000 + port));
    }
    world
}

/// A segment of pod 7 to the service: the backend that gets it.
fn ask(world: &mut World, port: u16, flags: u8, data: &[u8]) -> Option<String> {
    let packet = tcp(&format!("{CLIENT}:{port}"), SERVICE, flags, data);
    world.send(pod_port(7), &from_pod(7, &packet));
    world.turn();
    let local = [5, 3].into_iter().flat_map(|pod| world.sent(pod_port(pod))).collect::<Vec<_>>();
    let seen: Vec<Seen> = (local.iter().map(|frame| read(frame)))
        .chain(world.sent("eth0").iter().map(|frame| read_tunnel(frame).2))
        .collect();
    assert!(seen.len() <= 1, "{seen:?}");
    seen.first().map(|seen| {
        assert_eq!((seen.from(), seen.ttl), (format!("{CLIENT}:{port}"), 63));
        seen.to()
    })
}

/// A backend's segment back: as what the client sees it.
fn answer(world: &mut World, backend: &str, port: u16, flags: u8) -> Option<String> {
    let packet = tcp(backend, &format!("{CLIENT}:{port}"), flags, b"");
    let pod = [5, 3].into_iter().find(|pod| backend.starts_with(&format!("172.30.76.{pod}:")));
    let (port_name, frame) = match pod {
        Some(pod) => (pod_port(pod), ethernet(&pod_mac(7), &pod_mac(pod), 0x0800, &packet)),
        None => ("eth0", from_tunnel(&packet)),
    };
    world.exchange(port_name, &frame, pod_port(7)).first().map(|frame| read(frame).from())
}

#[test]
fn connections_to_a_consistent_hash_go_on_from_beginning_to_end() {
    let (mut world, mut with_flows) = (full(&hashed()), World::new(&hashed().replace("= 64", "= 4096")));
    let mut backends = std::collections::BTreeSet::new();
    for port in 40_000..40_030 {
        let backend = ask(&mut world, port, SYN, b"").unwrap();
        assert_eq!(ask(&mut with_flows, port, SYN, b""), Some(backend.clone()), "as with a flow");
        assert_eq!(answer(&mut world, &backend, port, SYN | ACK).as_deref(), Some(SERVICE));
        for (flags, data) in [(ACK, &b""[..]), (ACK, b"request"), (FIN | ACK, b""), (RST, b"")] {
            assert_eq!(ask(&mut world, port, flags, data), Some(backend.clone()));
            assert_eq!(answer(&mut world, &backend, port, flags).as_deref(), Some(SERVICE));
        }
        backends.insert(backend);
    }
    assert_eq!(backends.len(), 3, "{backends:?}");
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (64, 64));
    assert_eq!((world.gauge(Gauge::FlowsEvicted), world.gauge(Gauge::PacketsStateless)), (0, 300));
    let tables = world.publisher.current();
    let service = tables.services.iter().find(|service| &*service.name == "data-product").unwrap();
    let count =
        |counter| service.backends.iter().map(|backend| world.slot(backend.slot, counter)).sum::<u64>();
    assert_eq!((count(SlotCounter::PacketsIn), count(SlotCounter::PacketsOut)), (150, 150));
    world.assert_drops(&[]);
    // Those that are there have their flows.
    for port in 0..CAPACITY {
        assert!(there(&mut world, 1_000 + port) && back(&mut world, 1_000 + port));
    }
    assert_eq!(world.gauge(Gauge::PacketsStateless), 300);
    world.assert_balanced();
}

#[test]
fn routed_packets_go_on_as_they_are_unless_they_could_be_taken_for_a_services() {
    let mut world = full(&hashed());
    let pods = |world: &mut World, from: &str, to: &str| {
        let packet = udp(from, to, b"x");
        world.exchange(pod_port(7), &from_pod(7, &packet), "eth0").first().map(|frame| read_tunnel(frame).2)
    };
    let seen = pods(&mut world, "172.30.76.7:5000", "172.30.9.77:6000").unwrap();
    assert_eq!(
        (seen.from().as_str(), seen.to().as_str(), seen.ttl),
        ("172.30.76.7:5000", "172.30.9.77:6000", 63)
    );
    world.assert_drops(&[]);
    // To a backend past the service: only where its answers could not be the service's.
    let mut refused = 0;
    for port in 40_000..40_030 {
        let backend = ask(&mut world, port, SYN, b"").unwrap();
        for direct in ["172.30.76.5:50051", "172.30.76.3:50051"] {
            let packet = tcp(&format!("{CLIENT}:{port}"), direct, SYN, b"");
            let pod = if direct.starts_with("172.30.76.5") { 5 } else { 3 };
            let frame = ethernet(&pod_mac(pod), &pod_mac(7), 0x0800, &packet);
            let arrived = world.exchange(pod_port(7), &frame, pod_port(pod)).len() == 1;
            assert_eq!(arrived, backend != direct, "{port} {direct}");
            refused += u64::from(!arrived);
            if arrived {
                assert_eq!(answer(&mut world, direct, port, SYN | ACK).as_deref(), Some(direct));
            }
        }
    }
    assert!(refused > 5, "{refused}");
    world.assert_drops(&[("flow_table_full", refused)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (64, 64));
    world.assert_balanced();
}

#[test]
fn what_needs_a_flow_is_dropped_by_name() {
    // A random choice, a masqueraded client, an echo, and the host's own.
    let mut world = full(&small());
    assert_eq!(ask(&mut world, 40_000, SYN, b""), None);
    let outside = udp("172.30.76.7:5000", "8.8.8.8:53", b"?");
    assert!(world.exchange(pod_port(7), &from_pod(7, &outside), "eth0").is_empty());
    let echo = echo("172.30.76.7", "172.30.9.77", false, 7);
    assert!(world.exchange(pod_port(7), &from_pod(7, &echo), "eth0").is_empty());
    world.assert_drops(&[("flow_table_full", 3)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (64, 0));
    world.assert_balanced();
}

#[test]
fn a_connection_gets_its_flow_when_there_is_place_again() {
    let mut world = full(&hashed());
    let backend = ask(&mut world, 40_000, SYN, b"").unwrap();
    assert_eq!(answer(&mut world, &backend, 40_000, SYN | ACK).as_deref(), Some(SERVICE));
    world.jump_s(200);
    world.advance_ms(400);
    assert_eq!(world.tracked(), 0);
    // The server speaks first: no flow can be made of that, and it is known by the hash.
    assert_eq!(answer(&mut world, &backend, 40_000, ACK).as_deref(), Some(SERVICE));
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (0, 3));
    assert_eq!(ask(&mut world, 40_000, ACK, b"more"), Some(backend.clone()));
    assert_eq!(answer(&mut world, &backend, 40_000, ACK).as_deref(), Some(SERVICE));
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (1, 3));
    // Another client's end of a connection that never had a flow.
    let other = ask(&mut world, 40_001, FIN | ACK, b"").unwrap();
    assert_eq!(answer(&mut world, &other, 40_001, FIN | ACK).as_deref(), Some(SERVICE));
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (1, 5));
    world.assert_drops(&[]);
    world.assert_balanced();
}
