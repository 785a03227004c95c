//! Point 8: session affinity by the client's address.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifests::{gateway, gateway_with, service, slice, world, world_of};
use crate::stations::{Call, left, packet, send};
use crate::support::World;
use crate::support::packets::*;

const WEB: &str = "10.254.1.1:80";
const ENDPOINTS: [&str; 3] = ["172.30.76.5 node=node-1", "172.30.76.3 node=node-1", "172.30.9.3 node=node-2"];

/// A service `web` with affinity for 10 seconds, of two ports.
fn web(more: &str, endpoints: &[&str]) -> String {
    let spec = format!(
        "  type: NodePort\n  externalIPs: [203.0.113.1]\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: \
         {{ clientIP: {{ timeoutSeconds: 10 }} }}\n{more}"
    );
    service("web", "10.254.1.1", &["http/TCP/80/31080", "dns/UDP/53/31053"], &spec)
        + &slice("web", "web-1", &["http/TCP/8080", "dns/UDP/5353"], endpoints)
}

/// Clients outside, far enough apart to be many.
fn clients() -> impl Iterator<Item = String> {
    (1..=40).map(|number| format!("8.8.{}.{}", number % 7, number))
}

/// The backend's address of a new connection.
fn backend(world: &mut World, worker: usize, client: &str, port: u16, to: &str) -> String {
    let protocol = if to.ends_with("53") { "udp" } else { "tcp" };
    let call = Call::open(world, worker, protocol, &format!("{client}:{port}"), to);
    call.backend_address().to_owned()
}

/// A new connection of each client.
fn backends(world: &mut World, port: u16, to: &str) -> BTreeMap<String, String> {
    clients().map(|client| (client.clone(), backend(world, 0, &client, port, to))).collect()
}

fn moved(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    before.iter().filter(|(client, backend)| after[*client] != **backend).count()
}

#[test]
fn a_client_stays_at_its_backend_by_every_address_port_and_worker() {
    for workers in [1, 2, 5] {
        let text = gateway().replace("capacity = 4096", "capacity = 2048");
        let mut world = world_of(&text, &web("", &ENDPOINTS), workers, 4);
        let mut drawn = BTreeSet::new();
        for (place, client) in
            clients().chain(["172.30.76.7".to_owned(), "172.30.9.9".to_owned()]).enumerate()
        {
            let first = backend(&mut world, place % workers, &client, 1_000, WEB);
            for (number, to) in [WEB, "203.0.113.1:80", "192.168.0.21:31080", WEB].into_iter().enumerate() {
                for port in 0..4 {
                    let port = 2_000 + 10 * number as u16 + port;
                    let worker = (place + usize::from(port)) % workers;
                    assert_eq!(backend(&mut world, worker, &client, port, to), first, "{client} to {to}");
                }
            }
            drawn.insert(first);
        }
        assert_eq!(drawn.len(), 3, "clients are spread");
        world.assert_drops(&[]);
        assert_eq!(world.affinity.replaced(), 0);
        world.assert_balanced();
    }
}

#[test]
fn each_port_of_a_service_has_its_own() {
    let mut world = world(&web("", &ENDPOINTS));
    let (http, dns) = (backends(&mut world, 1_000, WEB), backends(&mut world, 1_000, "10.254.1.1:53"));
    let differ = moved(&http, &dns);
    // Two thirds of forty, if they are drawn apart.
    assert!((14..40).contains(&differ), "{differ}");
    assert_eq!(moved(&dns, &backends(&mut world, 1_001, "192.168.0.21:31053")), 0);
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Connections that begin at one moment, at different workers that know nothing of each other's.
#[test]
fn the_first_two_connections_of_a_client_agree_at_one_moment() {
    for workers in [2, 3, 8] {
        let text = gateway().replace("capacity = 4096", "capacity = 512");
        let mut world = world_of(&text, &web("", &ENDPOINTS), workers, 6);
        for client in clients() {
            for worker in 0..workers {
                let from = format!("{client}:{}", 3_000 + worker);
                send(&mut world, worker, &packet("tcp", &from, WEB, SYN));
            }
            world.turn();
            let backends: BTreeSet<String> =
                left(&mut world).iter().map(|(_, seen)| seen.destination.to_string()).collect();
            assert_eq!(backends.len(), 1, "{client}");
        }
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn the_window_slides_with_new_connections_and_with_nothing_else() {
    let mut world = world(&web("", &ENDPOINTS));
    let first = backends(&mut world, 1_000, WEB);
    for round in 1..6 {
        world.jump_s(9);
        assert_eq!(moved(&first, &backends(&mut world, 1_000 + round, WEB)), 0, "after {} s", 9 * round);
    }
    // Packets of connections that are there do not count.
    let calls: Vec<Call> = clients()
        .map(|client| Call::established(&mut world, 0, "tcp", &format!("{client}:2000"), WEB))
        .collect();
    for _ in 0..5 {
        world.jump_s(3);
        calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    }
    let later = backends(&mut world, 3_000, WEB);
    let count = moved(&first, &later);
    assert!((14..40).contains(&count), "{count} of 40 were drawn another");
    assert_eq!(moved(&later, &backends(&mut world, 3_001, WEB)), 0, "and stay there");
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Milliseconds in 32 bits begin anew after 49.7 days.
#[test]
fn it_holds_over_the_end_of_the_millisecond_clock() {
    let mut world = world(&web("", &ENDPOINTS));
    world.jump_s(4_294_967 - 1_000 - 3);
    let first = backends(&mut world, 1_000, WEB);
    world.jump_s(5);
    assert_eq!(moved(&first, &backends(&mut world, 1_001, WEB)), 0);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn by_default_it_holds_for_three_hours() {
    let text =
        web("", &ENDPOINTS).replace("  sessionAffinityConfig: { clientIP: { timeoutSeconds: 10 } }\n", "");
    let mut world = world(&text);
    let first = backends(&mut world, 1_000, WEB);
    world.jump_s(10_799);
    let later = backends(&mut world, 1_001, WEB);
    assert_eq!(moved(&first, &later), 0);
    world.jump_s(10_800);
    let count = moved(&later, &backends(&mut world, 1_002, WEB));
    assert!((14..40).contains(&count), "{count} of 40 were drawn another");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn a_backend_that_is_gone_or_unready_is_forgotten() {
    let without = |conditions: &str| -> Vec<String> {
        match conditions {
            "" => ENDPOINTS[1..].iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            _ => ENDPOINTS
                .iter()
                .enumerate()
                .map(
                    |(place, endpoint)| {
                        if place == 0 { format!("{endpoint} {conditions}") } else { (*endpoint).to_owned() }
                    },
                )
                .collect(),
        }
    };
    for conditions in ["", "ready=false", "ready=false serving=true terminating=true"] {
        let fewer = without(conditions);
        let fewer: Vec<&str> = fewer.iter().map(String::as_str).collect();
        let mut world = world(&web("", &ENDPOINTS));
        let first = backends(&mut world, 1_000, WEB);
        let at_gone: Vec<&String> =
            first.iter().filter(|(_, backend)| *backend == "172.30.76.5").map(|(client, _)| client).collect();
        assert!(at_gone.len() > 4);
        world.replace("services", Some(&web("", &fewer)));
        let second = backends(&mut world, 1_001, WEB);
        assert_eq!(moved(&first, &second), at_gone.len(), "the others stay: {conditions}");
        assert!(second.values().all(|backend| backend != "172.30.76.5"));
        // It comes back: who has gone elsewhere stays there.
        world.replace("services", Some(&web("", &ENDPOINTS)));
        assert_eq!(moved(&second, &backends(&mut world, 1_002, WEB)), 0, "{conditions}");
        world.settle();
        world.assert_drops(&[]);
        world.assert_balanced();
    }
    // Also if nobody called meanwhile: it is drawn like any other.
    let mut world = world(&web("", &ENDPOINTS));
    let first = backends(&mut world, 1_000, WEB);
    world.replace("services", Some(&web("", &ENDPOINTS[1..])));
    world.settle();
    world.replace("services", Some(&web("", &ENDPOINTS)));
    let second = backends(&mut world, 1_001, WEB);
    let at_gone = first.values().filter(|backend| *backend == "172.30.76.5").count();
    let count = moved(&first, &second);
    assert!((1..=at_gone).contains(&count), "{count} of {at_gone} were drawn another");
    assert!(first.iter().all(|(client, backend)| backend == "172.30.76.5" || second[client] == *backend));
    world.settle();
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn under_a_local_policy_only_local_ones_count() {
    let mut world = world(&web("  externalTrafficPolicy: Local\n", &ENDPOINTS));
    let cluster = backends(&mut world, 1_000, WEB);
    let remote = cluster.values().filter(|backend| *backend == "172.30.9.3").count();
    assert!(remote > 4);
    let external = backends(&mut world, 1_001, "192.168.0.21:31080");
    assert!(external.values().all(|backend| backend.starts_with("172.30.76.")), "{external:?}");
    assert_eq!(moved(&cluster, &external), remote, "who was at a local one stays");
    // All of the service's addresses share it: the cluster IP now goes where the last connection went.
    assert_eq!(moved(&external, &backends(&mut world, 1_002, WEB)), 0);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn a_full_table_forgets_the_oldest_and_refuses_nobody() {
    let mut world = world_of(&gateway_with("affinity_capacity = 4"), &web("", &ENDPOINTS), 1, 1);
    let mut drawn = BTreeSet::new();
    for client in clients() {
        let first = backend(&mut world, 0, &client, 1_000, WEB);
        // The one that called last is never the oldest.
        assert_eq!(backend(&mut world, 0, &client, 1_001, WEB), first);
        drawn.insert(first);
        world.jump_s(1);
    }
    assert_eq!(drawn.len(), 3);
    // Forty clients, four places; after ten seconds nobody's window is lost, but four are younger.
    assert_eq!(world.affinity.replaced(), 36);
    world.jump_s(20);
    let before = world.affinity.replaced();
    backend(&mut world, 0, "9.9.9.9", 1, WEB);
    assert_eq!(world.affinity.replaced(), before, "one whose window is over is no loss");
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn changes_elsewhere_change_nothing() {
    let mut world = world(&web("", &ENDPOINTS));
    let first = backends(&mut world, 1_000, WEB);
    for round in 0..5u16 {
        // Another service, one more endpoint, another weight, another policy: new clients may draw otherwise.
        let other = service("other", &format!("10.254.2.{round}"), &["/TCP/80"], "");
        world.replace("other", (round != 3).then_some(other.as_str()));
        let more = ["172.30.76.6 node=node-1", "172.30.9.7 node=node-2"];
        let endpoints = [&ENDPOINTS[..], &more[..usize::from(round) % 3]].concat();
        let policy = if round % 2 == 0 { "" } else { "  externalTrafficPolicy: Local\n" };
        world.replace("services", Some(&web(policy, &endpoints)));
        assert_eq!(moved(&first, &backends(&mut world, 1_001 + round, WEB)), 0, "round {round}");
        world.settle();
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}
