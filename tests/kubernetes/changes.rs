//! Point 10: changes act on new flows, and end those of UDP that would go astray.

use pipelines::gateway::Gauge;

use crate::manifests::{gateway, service, slice, world, world_of};
use crate::stations::{Call, Outcome, ask, first, left, packet, send};
use crate::support::World;
use crate::support::packets::*;

const DNS: &str = "10.254.0.2:53";
const A: &str = "172.30.76.5:5353";
const B: &str = "172.30.76.3:5353";

fn dns(endpoints: &[&str]) -> String {
    dns_at(5353, endpoints)
}

/// The service `dns` with these endpoints at this port.
fn dns_at(port: u16, endpoints: &[&str]) -> String {
    service("dns", "10.254.0.2", &["dns/UDP/53/31053"], "  type: NodePort\n  externalIPs: [203.0.113.1]")
        + &slice("dns", "dns-1", &[&format!("dns/UDP/{port}")], endpoints)
}

/// Services that do not change.
fn others() -> String {
    let mut text = String::new();
    for (name, last, protocol) in [("web", 1, "TCP"), ("log", 2, "UDP"), ("ss7", 3, "SCTP")] {
        text += &service(name, &format!("10.254.1.{last}"), &[&format!("/{protocol}/80")], "");
        text += &slice(name, name, &[&format!("/{protocol}/8080")], &["172.30.76.5", "172.30.9.3"]);
    }
    text
}

fn dns_world(workers: usize) -> World {
    let files = dns(&["172.30.76.5", "172.30.76.3"]) + &others();
    let mut world = world_of(&gateway(), "", workers, 3);
    world.replace("others", Some(&others()));
    world.replace("services", Some(&files[..files.len() - others().len()]));
    world.settle();
    world
}

/// Answered calls of a pod to the service, one from each port from `first` on.
fn calls(world: &mut World, protocol: &'static str, to: &str, first: u16, count: u16) -> Vec<Call> {
    let workers = world.workers.len();
    let mut open = |number: u16| {
        let worker = usize::from(number) % workers;
        let call = Call::open(world, worker, protocol, &format!("172.30.76.7:{}", first + number), to);
        call.answer(world, (worker + 1) % workers, SYN | ACK);
        call.go_on(world, worker, ACK);
        call
    };
    (0..count).map(&mut open).collect()
}

/// All flows of the services that do not change, as they lie in the tables.
fn untouched(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for worker in &world.workers {
        let flows = worker.pipeline.flows();
        for pair in 0..flows.capacity() as u32 {
            let Some((one, other)) = flows.pair(pair) else { continue };
            if [one.key.destination_port, other.key.source_port].contains(&8080) {
                found.push(format!("{:?} {:?} {:?} {:?}", one.key, one.value, other.key, other.value));
            }
        }
    }
    found
}

#[test]
fn udp_flows_to_a_gone_backend_end_at_the_update_and_nobody_elses() {
    for workers in [1, 3] {
        let mut world = dns_world(workers);
        let mut unchanged = Vec::new();
        for (protocol, to) in [("tcp", "10.254.1.1:80"), ("udp", "10.254.1.2:80"), ("sctp", "10.254.1.3:80")]
        {
            unchanged.extend(calls(&mut world, protocol, to, 10_000, 20));
        }
        let (gone, kept): (Vec<Call>, Vec<Call>) =
            calls(&mut world, "udp", DNS, 20_000, 40).into_iter().partition(|call| call.backend == A);
        assert!(gone.len() > 8 && kept.len() > 8, "{} {}", gone.len(), kept.len());
        let (before, created) = (untouched(&world), world.gauge(Gauge::FlowsCreated));
        assert_eq!(before.len(), 60);

        world.replace("services", Some(&dns(&["172.30.76.3"])));
        // At once, before any sweep: the next packet goes to who serves; two of one batch together.
        let (spoken, silent) = gone.split_at(gone.len() / 2);
        for (number, call) in spoken.iter().enumerate() {
            send(&mut world, number % workers, &packet("udp", &call.client, DNS, 0));
            send(&mut world, number % workers, &packet("udp", &call.client, DNS, 0));
            world.turn();
            let seen = left(&mut world);
            assert_eq!(seen.len(), 2);
            assert!(
                seen.iter().all(|(_, seen)| (seen.to(), seen.from()) == (B.to_owned(), call.client.clone()))
            );
        }
        assert_eq!(world.gauge(Gauge::FlowsCreated) - created, spoken.len() as u64);
        world.settle();
        assert_eq!(world.gauge(Gauge::FlowsEnded), gone.len() as u64, "the silent ones by the sweep");
        assert_eq!(world.tracked(), 60 + kept.len() + spoken.len());
        assert_eq!(untouched(&world), before, "not a byte of other services' flows changed");
        unchanged.iter().chain(&kept).for_each(|call| call.is_alive(&mut world, 0));
        assert_eq!(world.gauge(Gauge::FlowsCreated) - created, spoken.len() as u64);
        for call in silent {
            let again = Call::open(&mut world, 0, "udp", &call.client, DNS);
            assert_eq!(again.backend, B);
        }
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn another_port_of_the_same_address_is_another_backend() {
    let mut world = dns_world(1);
    let calls = calls(&mut world, "udp", DNS, 20_000, 10);
    world.replace("services", Some(&dns_at(5354, &["172.30.76.5", "172.30.76.3"])));
    for call in &calls {
        let outcome = ask(&mut world, 0, &packet("udp", &call.client, DNS, 0));
        assert!(matches!(&outcome, Outcome::Sent(_, seen) if seen.ports.1 == 5354), "{outcome:?}");
    }
    world.settle();
    assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (10, 10));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn udp_flows_stay_where_nothing_serves_and_end_when_something_does_again() {
    for nobody in [vec![], vec!["172.30.76.5 ready=false", "172.30.76.3 ready=false"]] {
        let mut world = dns_world(1);
        let calls = calls(&mut world, "udp", DNS, 20_000, 20);
        world.replace("services", Some(&dns(&nobody)));
        // They stay through any number of sweeps, while new ones are rejected.
        for _ in 0..3 {
            calls.iter().for_each(|call| call.is_alive(&mut world, 0));
            world.advance_ms(20);
            world.tend();
        }
        assert_eq!(first(&mut world, "udp", "172.30.76.7:1", DNS), Outcome::Rejected("service_no_backend"));
        assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (0, 20));
        // One of the two comes back, and its flows have never been away; the other's end.
        world.replace("services", Some(&dns(&["172.30.76.3", "172.30.76.6"])));
        world.settle();
        let (back, gone): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| call.backend == B);
        assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (gone.len() as u64, back.len()));
        back.iter().for_each(|call| call.is_alive(&mut world, 0));
        for call in gone {
            let again = Call::open(&mut world, 0, "udp", &call.client, DNS);
            assert_ne!(again.backend, A);
        }
        world.assert_drops(&[("service_no_backend", 1)]);
        world.assert_balanced();
    }
}

#[test]
fn udp_flows_stay_with_a_backend_that_terminates_and_serves_until_it_does_not() {
    let mut world = dns_world(1);
    let calls = calls(&mut world, "udp", DNS, 20_000, 20);
    let ending = "172.30.76.5 ready=false serving=true terminating=true";
    world.replace("services", Some(&dns(&[ending, "172.30.76.3"])));
    world.settle();
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    for number in 0..20 {
        assert_eq!(
            Call::open(&mut world, 0, "udp", &format!("172.30.76.7:{}", 30_000 + number), DNS).backend,
            B
        );
    }
    world.replace(
        "services",
        Some(&dns(&["172.30.76.5 ready=false serving=false terminating=true", "172.30.76.3"])),
    );
    world.settle();
    let gone = calls.iter().filter(|call| call.backend == A).count();
    assert_eq!((world.gauge(Gauge::FlowsEnded), world.tracked()), (gone as u64, 40 - gone));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// By every kind of address, also if the service begins without anybody who serves.
#[test]
fn udp_flows_past_nat_end_when_their_destination_becomes_a_service() {
    let addresses = ["203.0.113.1:53", "192.168.0.21:31053"];
    for starts_empty in [false, true] {
        let mut world = world("");
        let mut flows = Vec::new();
        for to in addresses {
            for source in ["172.30.76.7", "192.168.0.50", "172.30.9.9"] {
                let call = Call::open(&mut world, 0, "udp", &format!("{source}:4000"), to);
                assert_eq!(
                    (call.backend.as_str(), call.at.as_str()),
                    (to, if to.starts_with("203") { "eth0" } else { "host" })
                );
                call.answer(&mut world, 0, 0);
                flows.push(call);
            }
        }
        // Beside it, flows that no service takes over.
        let beside = [
            Call::open(&mut world, 0, "udp", "172.30.76.7:4001", "203.0.113.1:54"),
            Call::open(&mut world, 0, "udp", "172.30.76.7:53", "203.0.113.2:53"),
            Call::open(&mut world, 0, "udp", "203.0.113.1:53", "172.30.76.6:53"),
        ];
        if starts_empty {
            world.replace("services", Some(&dns(&[])));
            world.settle();
            flows.iter().for_each(|call| call.is_alive(&mut world, 0));
            assert_eq!(world.gauge(Gauge::FlowsEnded), 0, "nothing serves, so they stay");
        }
        world.replace("services", Some(&dns(&["172.30.76.5"])));
        let (spoken, silent) = flows.split_at(3);
        for call in spoken {
            let outcome = ask(&mut world, 0, &packet("udp", &call.client, &call.service, 0));
            assert!(matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == A), "{call:?}: {outcome:?}");
        }
        world.settle();
        assert_eq!(world.gauge(Gauge::FlowsEnded), 6);
        for call in silent {
            assert_eq!(Call::open(&mut world, 0, "udp", &call.client, &call.service).backend, A);
        }
        beside.iter().for_each(|call| call.is_alive(&mut world, 0));
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

fn web(endpoints: &[&str]) -> String {
    service("web", "10.254.1.1", &["/TCP/80/31080"], "  type: NodePort\n  externalIPs: [203.0.113.1]")
        + &slice("web", "web-1", &["/TCP/8080"], endpoints)
}

#[test]
fn a_syn_before_its_service_leaves_nothing_that_bypasses_nat() {
    let mut world = world("");
    let mut syns = Vec::new();
    for (number, to) in ["203.0.113.1:80", "192.168.0.21:31080"].into_iter().enumerate() {
        for source in ["172.30.76.7", "192.168.0.50", "172.30.9.9"] {
            syns.push(Call::open(&mut world, 0, "tcp", &format!("{source}:{}", 4_000 + number), to));
        }
    }
    let open = Call::established(&mut world, 0, "tcp", "172.30.76.7:5000", "203.0.113.1:80");
    let reset = Call::open(&mut world, 0, "tcp", "172.30.76.7:5001", "203.0.113.1:80");
    reset.answer(&mut world, 0, RST | ACK);
    world.replace("services", Some(&web(&["172.30.76.5"])));
    // Half of them are sent again before the sweep comes by.
    for call in &syns[..3] {
        assert_eq!(
            Call::established(&mut world, 0, "tcp", &call.client, &call.service).backend,
            "172.30.76.5:8080"
        );
    }
    assert_eq!(
        Call::established(&mut world, 0, "tcp", &reset.client, &reset.service).backend,
        "172.30.76.5:8080"
    );
    world.settle();
    assert_eq!(world.gauge(Gauge::FlowsEnded), 6);
    for call in &syns[3..] {
        assert_eq!(
            Call::established(&mut world, 0, "tcp", &call.client, &call.service).backend,
            "172.30.76.5:8080"
        );
    }
    // An open connection is with somebody who is there.
    open.is_alive(&mut world, 0);
    assert_eq!(world.gauge(Gauge::FlowsEnded), 6);
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// A service that goes and comes again under the same address: its flows to who serves there go on, and end with them;
/// those to who does not, end.
#[test]
fn udp_flows_of_a_service_that_was_made_anew_follow_the_new_one() {
    let renamed = |endpoints: &[&str]| dns(endpoints).replace("name: dns,", "name: query,");
    for is_at_once in [false, true] {
        let mut world = dns_world(1);
        let calls = calls(&mut world, "udp", DNS, 20_000, 40);
        if is_at_once {
            // The port has another name, so it is another service port, with the same addresses.
            world.replace("services", Some(&renamed(&["172.30.76.3", "172.30.76.6"])));
        } else {
            world.replace("services", None);
            world.settle();
            calls.iter().for_each(|call| call.is_alive(&mut world, 0));
            let outcome = first(&mut world, "udp", "172.30.76.7:1", DNS);
            assert_eq!(outcome, Outcome::Dropped("service_unknown_address"));
            world.replace("services", Some(&renamed(&["172.30.76.3", "172.30.76.6"])));
        }
        let (kept, gone): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| call.backend == B);
        let (spoken, silent) = gone.split_at(gone.len() / 2);
        for call in spoken {
            let outcome = ask(&mut world, 0, &packet("udp", &call.client, DNS, 0));
            let Outcome::Sent(_, seen) = outcome else { panic!("{outcome:?}") };
            assert_ne!(seen.to(), A, "at once: {is_at_once}");
        }
        world.settle();
        assert_eq!(world.gauge(Gauge::FlowsEnded), gone.len() as u64);
        for call in silent {
            assert_ne!(Call::open(&mut world, 0, "udp", &call.client, DNS).backend, A);
        }
        kept.iter().for_each(|call| call.is_alive(&mut world, 0));
        world.replace("services", Some(&renamed(&["172.30.76.6"])));
        world.settle();
        for call in &kept {
            assert_eq!(Call::open(&mut world, 0, "udp", &call.client, DNS).backend, "172.30.76.6:5353");
        }
        world.assert_drops(if is_at_once { &[] } else { &[("service_unknown_address", 1)] });
        world.assert_balanced();
    }
}

/// Two services claim one address: who has it gives its flows to nobody, and the other gets new ones when it goes.
#[test]
fn an_address_that_two_claim_is_the_firsts_until_it_goes() {
    let claims = |name: &str, endpoint: &str| {
        service(name, &format!("10.254.5.{}", name.len()), &["/UDP/53"], "  externalIPs: [203.0.113.9]")
            + &slice(name, name, &["/UDP/5353"], &[endpoint])
    };
    let mut world = world("");
    world.replace("b", Some(&claims("bb", "172.30.76.3")));
    assert_eq!(Call::open(&mut world, 0, "udp", "172.30.76.7:1", "203.0.113.9:53").backend, B);
    // By name, not by the order in which they came.
    world.replace("a", Some(&claims("a", "172.30.76.5")));
    assert_eq!(Call::open(&mut world, 0, "udp", "172.30.76.7:2", "203.0.113.9:53").backend, A);
    assert_eq!(world.builder.services().conflicts().len(), 1);
    world.replace("a", None);
    assert_eq!(Call::open(&mut world, 0, "udp", "172.30.76.7:3", "203.0.113.9:53").backend, B);
    assert!(world.builder.services().conflicts().is_empty());
    world.settle();
    // The one who stays keeps its own flows; the other's end, since somebody else serves there.
    let outcome = ask(&mut world, 0, &packet("udp", "172.30.76.7:1", "203.0.113.9:53", 0));
    assert!(matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == B), "{outcome:?}");
    let outcome = ask(&mut world, 0, &packet("udp", "172.30.76.7:2", "203.0.113.9:53", 0));
    assert!(matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == B), "{outcome:?}");
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// An address goes from one service to another, and both are there: flows to it follow, flows to the other addresses stay.
#[test]
fn udp_flows_follow_an_address_to_another_service() {
    let claims = |name: &str, endpoints: &[&str], external: &str| {
        service(name, &format!("10.254.5.{}", name.len()), &["/UDP/53"], external)
            + &slice(name, name, &["/UDP/5353"], endpoints)
    };
    const HAS_IT: &str = "  externalIPs: [203.0.113.9]";
    let mut world = world("");
    world.replace("a", Some(&claims("a", &["172.30.76.5"], HAS_IT)));
    world.replace("b", Some(&claims("bb", &["172.30.76.3"], "")));
    let spoken = Call::open(&mut world, 0, "udp", "172.30.76.7:1", "203.0.113.9:53");
    let silent = Call::open(&mut world, 0, "udp", "172.30.76.7:2", "203.0.113.9:53");
    let by_cluster_ip = Call::open(&mut world, 0, "udp", "172.30.76.7:3", "10.254.5.1:53");
    assert_eq!([&spoken.backend, &silent.backend, &by_cluster_ip.backend], [A; 3]);
    world.replace("a", Some(&claims("a", &["172.30.76.5"], "")));
    // A backend that ends and still serves keeps its flows, though no new one goes there.
    let before = Call::open(&mut world, 0, "udp", "172.30.76.7:4", "10.254.5.2:53");
    let ending = "172.30.76.3 ready=false serving=true terminating=true";
    world.replace("b", Some(&claims("bb", &[ending, "172.30.76.6"], HAS_IT)));
    let outcome = ask(&mut world, 0, &packet("udp", &spoken.client, &spoken.service, 0));
    assert!(matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == "172.30.76.6:5353"), "{outcome:?}");
    world.settle();
    assert_eq!(world.gauge(Gauge::FlowsEnded), 2);
    by_cluster_ip.is_alive(&mut world, 0);
    before.is_alive(&mut world, 0);
    world.assert_drops(&[]);
    world.assert_balanced();
}
