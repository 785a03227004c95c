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

/// A client that asks a backend directly would have answers that the hash takes for the service's.
#[test]
fn what_needs_a_flow_is_dropped_by_name() {
    let mut world = full(&hashed());
    let mut send = |port: &str, frame: &[u8], to: &str| world.exchange(port, frame, to).len();
    // Routed, masqueraded, an echo, to a backend past the service, from a backend to nobody that asked.
    let routed = udp("172.30.76.7:5000", "172.30.9.77:6000", b"x");
    assert_eq!(send(pod_port(7), &from_pod(7, &routed), "eth0"), 0);
    let outside = udp("172.30.76.7:5000", "8.8.8.8:53", b"?");
    assert_eq!(send(pod_port(7), &from_pod(7, &outside), "eth0"), 0);
    let request = echo("172.30.76.7", "172.30.9.77", false, 7);
    assert_eq!(send(pod_port(7), &from_pod(7, &request), "eth0"), 0);
    let direct = tcp(&format!("{CLIENT}:40000"), "172.30.9.2:50051", SYN, b"");
    assert_eq!(send(pod_port(7), &from_pod(7, &direct), "eth0"), 0);
    world.assert_drops(&[("flow_table_full", 4)]);
    // Flags that no connection has.
    for flags in [0, SYN | FIN, SYN | RST, 0x3f] {
        assert_eq!(ask(&mut world, 41_000, flags, b""), None);
    }
    world.assert_drops(&[("tcp_invalid", 4), ("flow_table_full", 4)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (64, 0));
    world.assert_balanced();
    // A service that draws at random.
    let mut world = full(&small());
    assert_eq!(ask(&mut world, 40_000, SYN, b""), None);
    world.assert_drops(&[("flow_table_full", 1)]);
    assert_eq!((world.tracked(), world.gauge(Gauge::PacketsStateless)), (64, 0));
    world.assert_balanced();
}

#[test]
fn an_endpoint_of_several_such_services_needs_flows() {
    let text = hashed()
        + r#"
[[service]]
namespace = "default"
name = "twin"
cluster_ip = "10.254.9.9"
algorithm = "maglev"
[[service.ports]]
port = 80
backends = [{ address = "172.30.76.5:50051" }, { address = "172.30.76.3:50051" }, { address = "172.30.9.2:50051" }]
"#;
    let mut world = full(&text);
    assert!((40_000..40_020).all(|port| ask(&mut world, port, SYN, b"").is_none()));
    world.assert_drops(&[("flow_table_full", 20)]);
    world.assert_balanced();
}

#[test]
fn only_what_leaves_is_counted() {
    let mut world = full(&hashed());
    let mut packet = tcp(&format!("{CLIENT}:40000"), SERVICE, SYN, b"");
    packet[8] = 1;
    packet[10..12].fill(0);
    let sum = engine::wire::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    world.send(pod_port(7), &from_pod(7, &packet));
    world.turn();
    world.assert_drops(&[("ttl_exceeded", 1)]);
    assert_eq!(world.gauge(Gauge::PacketsStateless), 0);
    world.assert_balanced();
}

/// One of two workers is full. Answers are looked up at the client's worker first, which sent the questions on.
#[test]
fn answers_are_told_by_the_worker_that_is_full() {
    let mut world = World::with(&hashed(), 2, 1);
    let rule = pipelines::ownership::Ownership::new(0, 2, Vec::new(), Vec::new(), (0, 0));
    let is_first =
        |protocol, address: &str, port| rule.of(protocol, u32::from(crate::support::ip(address)), port) == 0;
    for port in (1_000..3_000).filter(|port| is_first(17, "192.168.0.50", *port)).take(usize::from(CAPACITY))
    {
        assert!(there(&mut world, port) && back(&mut world, port));
    }
    let flows =
        |world: &World| world.workers.iter().map(|worker| worker.pipeline.flows().len()).collect::<Vec<_>>();
    assert_eq!(flows(&world), [64, 0]);
    let mut connections = 0;
    for port in (40_000..40_060).filter(|port| is_first(6, CLIENT, *port)) {
        let backend = ask(&mut world, port, SYN, b"").unwrap();
        for flags in [SYN | ACK, ACK, FIN | ACK] {
            assert_eq!(answer(&mut world, &backend, port, flags).as_deref(), Some(SERVICE));
            assert_eq!(ask(&mut world, port, ACK, b"x"), Some(backend.clone()));
        }
        connections += 1;
    }
    assert!(connections > 20, "{connections}");
    assert_eq!((flows(&world), world.gauge(Gauge::PacketsStateless)), (vec![64, 0], connections * 7));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// After as long as a connection may be silent, a backend's packets are what they seem, and stay so.
#[test]
fn answers_are_told_for_as_long_as_a_connection_lives() {
    let mut world = full(&hashed());
    let backend = ask(&mut world, 40_000, SYN, b"").unwrap();
    world.jump_s(5 * 86_400 + 3_600);
    world.advance_ms(400);
    for jump_s in [0, 4_294_967 - 5 * 86_400] {
        world.jump_s(jump_s);
        assert_eq!(answer(&mut world, &backend, 40_000, SYN | ACK), None);
    }
    assert_eq!(world.gauge(Gauge::PacketsStateless), 1);
    world.assert_drops(&[("tcp_invalid", 2)]);
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
