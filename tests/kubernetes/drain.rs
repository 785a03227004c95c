//! Point 10: connections to backends that are gone live on until they end or drain time passes; their counters stay.

use pipelines::gateway::Gauge;
use pipelines::report::{Report, Traffic};

use crate::manifests::{gateway, gateway_with, service, slice, world_of};
use crate::stations::{Call, Outcome, ask, packet};
use crate::support::World;
use crate::support::packets::*;

const WEB: &str = "10.254.1.1:80";
const A: &str = "172.30.76.5:8080";

fn web(endpoints: &[&str]) -> String {
    web_of("TCP", endpoints)
}

fn web_of(protocol: &str, endpoints: &[&str]) -> String {
    service("web", "10.254.1.1", &[&format!("/{protocol}/80")], "")
        + &slice("web", "web-1", &[&format!("/{protocol}/8080")], endpoints)
}

const BOTH: [&str; 2] = ["172.30.76.5", "172.30.9.3"];

/// Connections of a pod to the service, some at each backend: those to the first one, and the others.
fn calls(world: &mut World, protocol: &'static str) -> (Vec<Call>, Vec<Call>) {
    let calls: Vec<Call> = (0..20)
        .map(|number| Call::established(world, 0, protocol, &format!("172.30.76.7:{}", 10_000 + number), WEB))
        .collect();
    let (gone, kept): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| call.backend == A);
    assert!(gone.len() > 3 && kept.len() > 3);
    (gone, kept)
}

/// What the service has counted.
fn traffic(world: &World) -> Traffic {
    let parts: Vec<_> =
        world.handles.iter().map(|handle| (handle.counters.clone(), handle.gauges.clone())).collect();
    Report::collect(&parts, &world.publisher.current())
        .service("default", "web", "")
        .expect("the service")
        .traffic
}

fn terms(traffic: Traffic) -> [u64; 5] {
    [traffic.connections, traffic.packets_in, traffic.bytes_in, traffic.packets_out, traffic.bytes_out]
}

#[test]
fn connections_outlive_their_backend_and_service_until_they_end() {
    for (protocol, name) in [("tcp", "TCP"), ("sctp", "SCTP")] {
        let mut world = world_of(&gateway(), &web_of(name, &BOTH), 1, 1);
        let (gone, kept) = calls(&mut world, protocol);
        let slots = world.builder.services().slot_count();
        world.replace("services", Some(&web_of(name, &BOTH[1..])));
        gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        world.settle();
        gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        assert_eq!(traffic(&world).packets_in, 20 * 4, "what they send is counted at the service");
        // Nobody serves any more, and there is no service any more: as before.
        world.replace("services", Some(&web_of(name, &[])));
        world.settle();
        gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        world.replace("services", None);
        world.settle();
        gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        assert_eq!((world.gauge(Gauge::FlowsEnded), world.gauge(Gauge::FlowsCreated)), (0, 20));
        // And again, with a backend that was there before: they are the old ones.
        world.replace("services", Some(&web_of(name, &BOTH)));
        world.settle();
        gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        assert_eq!(world.builder.services().slot_count(), slots, "slots are used again");
        assert_eq!((world.gauge(Gauge::FlowsEnded), world.gauge(Gauge::FlowsCreated)), (0, 20));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

fn draining(seconds: u32) -> String {
    gateway_with(&format!("drain_timeout_s = {seconds}"))
}

/// Whether a connection's next packet still goes where the others went. (In its middle, as one of nobody's, it would be
/// taken up anew.)
fn is_open(world: &mut World, call: &Call) -> bool {
    let created = world.gauge(Gauge::FlowsCreated);
    let outcome = ask(world, 0, &packet(call.protocol, &call.client, &call.service, ACK));
    matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == call.backend)
        && world.gauge(Gauge::FlowsCreated) == created
}

#[test]
fn drain_time_counts_from_the_change_and_ends_connections() {
    for (protocol, name) in [("tcp", "TCP"), ("sctp", "SCTP")] {
        let mut world = world_of(&draining(5), &web_of(name, &BOTH), 1, 1);
        let (gone, kept) = calls(&mut world, protocol);
        world.settle();
        // Long after anything else happened.
        world.jump_s(50);
        world.replace("services", Some(&web_of(name, &BOTH[1..])));
        world.tend();
        for _ in 0..4 {
            world.jump_s(1);
            world.tend();
            world.advance_ms(20);
            world.tend();
            assert!(gone.iter().chain(&kept).all(|call| is_open(&mut world, call)), "{protocol}");
        }
        assert_eq!(world.gauge(Gauge::FlowsEnded), 0);
        world.jump_s(2);
        world.settle();
        assert_eq!(world.gauge(Gauge::FlowsEnded), gone.len() as u64);
        assert!(kept.iter().all(|call| is_open(&mut world, call)));
        assert!(!gone.iter().any(|call| is_open(&mut world, call)));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn drain_time_counts_for_services_that_are_deleted_too() {
    let mut world = world_of(&draining(5), &web(&BOTH), 1, 1);
    let (gone, kept) = calls(&mut world, "tcp");
    world.jump_s(50);
    world.replace("services", None);
    world.tend();
    world.jump_s(4);
    world.tend();
    assert!(gone.iter().chain(&kept).all(|call| is_open(&mut world, call)));
    world.jump_s(2);
    world.settle();
    assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (20, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn a_backend_that_comes_back_in_time_has_its_connections_again() {
    let mut world = world_of(&draining(5), &web(&BOTH), 1, 1);
    let (gone, kept) = calls(&mut world, "tcp");
    world.replace("services", Some(&web(&BOTH[1..])));
    world.tend();
    world.jump_s(4);
    world.tend();
    world.replace("services", Some(&web(&BOTH)));
    world.jump_s(10);
    world.settle();
    gone.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
    // It goes once more: its time begins anew.
    world.replace("services", Some(&web(&BOTH[1..])));
    world.tend();
    world.jump_s(4);
    world.tend();
    assert!(gone.iter().all(|call| is_open(&mut world, call)));
    world.jump_s(2);
    world.settle();
    assert_eq!(world.gauge(Gauge::FlowsEnded), gone.len() as u64);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn no_drain_time_ends_connections_at_once() {
    let mut world = world_of(&draining(0), &web(&BOTH), 1, 1);
    let (gone, kept) = calls(&mut world, "tcp");
    world.replace("services", Some(&web(&BOTH[1..])));
    world.settle();
    assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (gone.len() as u64, kept.len()));
    assert!(kept.iter().all(|call| is_open(&mut world, call)));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Two hundred changes while connections come and go: the service's counters never go down, the sum is what was sent, and
/// slots do not grow with the number of changes.
#[test]
fn counters_never_go_down_and_slots_are_used_again() {
    for (protocol, name, drain) in [("tcp", "TCP", None), ("udp", "UDP", None), ("tcp", "TCP", Some(1))] {
        let text = drain.map_or_else(gateway, draining);
        let mut world = world_of(&text, &web_of(name, &["172.30.9.1"]), 2, 9);
        let mut random = engine::random::Random::new(5);
        let mut before = terms(traffic(&world));
        let mut sent = 0;
        let mut slots = 0;
        for round in 0..200u16 {
            let endpoints: Vec<String> = (0..=random.below(4))
                .map(|_| {
                    format!(
                        "172.30.9.{}{}",
                        1 + random.below(120),
                        [" ready=false serving=true terminating=true", "", ""][random.below(3) as usize]
                    )
                })
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            let mut listed: Vec<&str> = endpoints.iter().map(String::as_str).collect();
            listed.dedup_by_key(|endpoint| endpoint.split(' ').next());
            world.replace("services", Some(&web_of(name, &listed)));
            for number in 0..4 {
                let client = format!("172.30.76.7:{}", 10_000 + 4 * round + number);
                let worker = usize::from(number) % 2;
                let call = Call::open(&mut world, worker, protocol, &client, WEB);
                call.answer(&mut world, 1 - worker, SYN | ACK);
                call.go_on(&mut world, worker, ACK);
                sent += 1;
            }
            world.advance_ms(u64::from(random.below(12)));
            if random.below(3) > 0 {
                world.tend();
            }
            let now = terms(traffic(&world));
            assert!(now.iter().zip(&before).all(|(now, before)| now >= before), "{before:?} {now:?}");
            before = now;
            slots = slots.max(world.builder.services().slot_count());
        }
        world.jump_s(3);
        world.settle();
        let end = traffic(&world);
        assert_eq!(
            (end.connections, end.packets_in, end.packets_out),
            (sent, 2 * sent, sent),
            "{protocol} {drain:?}"
        );
        assert!(slots < 120, "{slots} slots for a handful of backends");
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}
