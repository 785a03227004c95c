//! Reload: a change reaches the flows that it is about, and no others.

use engine::table::flow::EntryId;
use pipelines::flow::FLAG_ORIGINAL;
use pipelines::gateway::Gauge;
use pipelines::table::SlotCounter;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

fn route(destination: &str, via: &str) -> String {
    format!("\n[[routes]]\ndestination = \"{destination}\"\nvia = \"{via}\"\ninterface = \"eth0\"\n")
}

/// The record and epoch that the flow of this source port remembers for its original direction.
fn remembered(world: &World, source_port: u16) -> (u32, u32) {
    let flows = world.workers[0].pipeline.flows();
    let entries: Vec<_> = (0..flows.capacity() as u32 * 2)
        .map(|number| flows.entry(EntryId(number)))
        .filter(|entry| entry.value.has(FLAG_ORIGINAL) && entry.key.source_port == source_port)
        .collect();
    assert_eq!(entries.len(), 1);
    (entries[0].value.adjacency, entries[0].value.epoch)
}

/// Where a pod's datagram to an outside address goes next.
fn next_hop(world: &mut World, source_port: u16, destination: &str) -> String {
    let packet = udp(&format!("172.30.76.7:{source_port}"), destination, b"x");
    let sent = world.exchange(pod_port(7), &from_pod(7, &packet), "eth0");
    assert_eq!(sent.len(), 1, "{:?}", world.drops());
    read(&sent[0]).destination_mac
}

#[test]
fn changed_route_moves_the_flows_under_it_and_no_others() {
    let mut world = World::new(&reference());
    for (port, destination) in [(1, "8.8.8.8:53"), (2, "9.9.9.9:53"), (3, "192.168.0.50:53")] {
        next_hop(&mut world, port, destination);
    }
    let tunnelled = from_pod(7, &udp("172.30.76.7:4", "172.30.9.2:2", b"x"));
    world.exchange(pod_port(7), &tunnelled, "eth0");
    let before: Vec<_> = (1..=4).map(|port| remembered(&world, port)).collect();

    world.reload(&(reference() + &route("8.8.8.0/24", "192.168.0.50")));
    assert_eq!(next_hop(&mut world, 1, "8.8.8.8:53"), "02:00:c0:a8:00:50", "moved");
    assert_eq!(next_hop(&mut world, 2, "9.9.9.9:53"), "02:00:c0:a8:00:01");
    assert_eq!(next_hop(&mut world, 3, "192.168.0.50:53"), "02:00:c0:a8:00:50");
    world.exchange(pod_port(7), &tunnelled, "eth0");
    let after: Vec<_> = (1..=4).map(|port| remembered(&world, port)).collect();
    assert_ne!(before[0].0, after[0].0);
    assert_eq!(before[1].0, after[1].0, "it looked its route up again and found the same");
    assert_eq!((before[2], before[3]), (after[2], after[3]), "these have nothing to do with it");

    // And back, when the route is gone.
    world.reload(&reference());
    assert_eq!(next_hop(&mut world, 1, "8.8.8.8:53"), "02:00:c0:a8:00:01");
    let last: Vec<_> = (1..=4).map(|port| remembered(&world, port)).collect();
    assert_eq!((after[3], world.gauge(Gauge::FlowsCreated)), (last[3], 4));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn reload_of_the_same_text_changes_nothing() {
    let mut world = World::new(&reference());
    next_hop(&mut world, 1, "8.8.8.8:53");
    let before = remembered(&world, 1);
    world.reload(&reference());
    next_hop(&mut world, 1, "8.8.8.8:53");
    assert_eq!(remembered(&world, 1), before);
    assert_eq!(world.gauge(Gauge::Generation), 2);
    world.assert_balanced();
}

#[test]
fn route_that_is_gone_ends_its_flows_by_name() {
    let text = reference();
    let more = text.clone() + &route("11.0.0.0/8", "192.168.0.50");
    let without_default = |text: &str| {
        text.replace(
            "[[routes]]\ndestination = \"0.0.0.0/0\"\nvia = \"192.168.0.1\"\ninterface = \"eth0\"\n",
            "",
        )
    };
    let mut world = World::new(&without_default(&more));
    next_hop(&mut world, 1, "11.1.1.1:53");
    world.reload(&without_default(&text));
    let packet = from_pod(7, &udp("172.30.76.7:1", "11.1.1.1:53", b"x"));
    assert!(world.exchange(pod_port(7), &packet, "eth0").is_empty());
    world.assert_drops(&[("no_route", 1)]);
    world.assert_balanced();
}

#[test]
fn changed_neighbours_reach_flows_in_place() {
    let mut world = World::new(&reference());
    next_hop(&mut world, 1, "8.8.8.8:53");
    let tunnelled = from_pod(7, &udp("172.30.76.7:4", "172.30.9.2:2", b"x"));
    world.exchange(pod_port(7), &tunnelled, "eth0");
    let before = [remembered(&world, 1), remembered(&world, 4)];
    // The router gets a new MAC; node 2's VTEP a new MAC and a new node.
    let text = reference()
        .replace("mac = \"02:00:c0:a8:00:01\"", "mac = \"02:00:c0:a8:00:aa\"")
        .replace("96:8f:2d:49:c5:31", "96:8f:2d:49:c5:32")
        .replace("remote = \"192.168.0.22\"", "remote = \"192.168.0.50\"");
    world.reload(&text);
    assert_eq!(next_hop(&mut world, 1, "8.8.8.8:53"), "02:00:c0:a8:00:aa");
    let (outer, _, inner) = read_tunnel(&world.exchange(pod_port(7), &tunnelled, "eth0")[0]);
    assert_eq!((outer.destination, outer.destination_mac.as_str()), (ip("192.168.0.50"), CLIENT_MAC));
    assert_eq!(inner.destination_mac, "96:8f:2d:49:c5:32");
    assert_eq!([remembered(&world, 1), remembered(&world, 4)], before);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 2);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn static_station_that_is_gone_may_move_again() {
    let mut world = World::new(&reference());
    let entry = |port: &str| format!("mac = \"02:42:ac:1e:4c:07\"\nport = \"{port}\"");
    let to_pod = to_node(CLIENT_MAC, &udp("192.168.0.50:1", "172.30.76.7:2", b"x"));
    assert_eq!(world.exchange("eth0", &to_pod, pod_port(7)).len(), 1);
    world.reload(&reference().replace(&entry(pod_port(7)), &entry(pod_port(6))));
    assert_eq!(
        world.exchange("eth0", &to_pod, pod_port(6)).len(),
        1,
        "the pod's port is another by configuration"
    );
    let without =
        reference().replace(&format!("[[fdb]]\ninterface = \"docker0\"\n{}\n", entry(pod_port(7))), "");
    world.reload(&without);
    world.exchange(pod_port(5), &from_pod(7, &udp("172.30.76.7:2", "192.168.0.50:1", b"here")), "eth0");
    assert_eq!(world.exchange("eth0", &to_pod, pod_port(5)).len(), 1, "and now it is where it was heard");
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn added_backend_gets_new_connections_and_leaves_old_ones_alone() {
    let without = reference().replace("    { address = \"172.30.76.3:50051\", weight = 1 },\n", "");
    let mut world = World::new(&without);
    let go = |world: &mut World, number: u16| {
        let packet = tcp(&format!("172.30.76.7:{number}"), "10.254.116.224:50051", SYN, b"");
        world.send(pod_port(7), &from_pod(7, &packet));
        world.turn();
        let to = [(pod_port(5), "5"), (pod_port(3), "3")]
            .into_iter()
            .find(|(port, _)| !world.sent(port).is_empty());
        let remote = world.sent("eth0").len();
        to.map_or_else(
            || {
                assert_eq!(remote, 1);
                "9"
            },
            |to| to.1,
        )
    };
    let before: Vec<_> = (0..40).map(|number| go(&mut world, 10_000 + number)).collect();
    assert!(!before.contains(&"3"));
    let first = world
        .publisher
        .current()
        .services
        .iter()
        .find(|port| &*port.name == "data-product")
        .unwrap()
        .backends[0];
    let connections = world.slot(first.slot, SlotCounter::Connections);
    world.reload(&reference());
    let again: Vec<_> = (0..40).map(|number| go(&mut world, 10_000 + number)).collect();
    assert_eq!(before, again);
    let new: Vec<_> = (0..60).map(|number| go(&mut world, 20_000 + number)).collect();
    let count = |wanted: &str| new.iter().filter(|backend| **backend == wanted).count();
    assert!(count("3") >= 8 && count("5") >= 8 && count("9") >= 8, "{new:?}");
    assert_eq!(
        world.slot(first.slot, SlotCounter::Connections),
        connections + count("5") as u64,
        "counters go on where they were"
    );
    assert_eq!(world.gauge(Gauge::FlowsCreated), 100);
    world.assert_drops(&[]);
    world.assert_balanced();
}
