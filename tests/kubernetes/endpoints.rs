//! Point 4: which endpoints take new connections. Point 5: endpoints outside the cluster. Point 13: weights, draining,
//! health. Point 14: hints.

use std::net::{Ipv4Addr, SocketAddrV4};

use pipelines::control::config::model::Protocol;
use pipelines::control::services::builder::BackendName;
use pipelines::control::services::desired::ServiceKey;

use crate::manifests::{NODES, gateway, service, slice, world};
use crate::stations::{Call, Outcome, assert_spread, first};
use crate::support::World;

const CLUSTER: &str = "10.254.1.1:80";
const NODE_PORT: &str = "192.168.0.21:31001";

/// Service `web` under `externalTrafficPolicy: Local`, and its endpoints in one slice.
fn web(endpoints: &[&str]) -> String {
    service("web", "10.254.1.1", &["http/TCP/80/31001"], "  type: NodePort\n  externalTrafficPolicy: Local")
        + &slice("web", "web-1", &["http/TCP/8080"], endpoints)
}

/// The backends that a pod's connections to the cluster IP and an outside client's to the node port go to, by the last
/// number of their addresses, local ones as such; or what becomes of them instead.
fn sets(endpoints: &[&str]) -> (String, String) {
    let mut world = world(&web(endpoints));
    let mut of = |client: &str, to: &str| {
        let mut found = std::collections::BTreeSet::new();
        // Fewer than the ICMP errors that are sent at once.
        for number in 0..20 {
            found.insert(match first(&mut world, "tcp", &format!("{client}:{}", 1_000 + number), to) {
                Outcome::Sent(_, seen) => seen.destination.octets()[3].to_string(),
                Outcome::Rejected(_) => "reject".to_owned(),
                Outcome::Dropped(_) => "drop".to_owned(),
            });
        }
        found.into_iter().collect::<Vec<_>>().join(" ")
    };
    let found = (of("172.30.76.2", CLUSTER), of("192.168.0.50", NODE_PORT));
    world.assert_balanced();
    found
}

#[test]
fn ready_ones_else_those_that_terminate_and_serve_each_set_by_itself() {
    let (remote, local) = ("172.30.9.3 node=node-2", "172.30.76.5 node=node-1");
    let more = |endpoint: &str, conditions: &str| format!("{endpoint} {conditions}");
    let ending = "ready=false serving=true terminating=true";
    let gone = "ready=false serving=false terminating=true";
    for (endpoints, cluster, node) in [
        (vec![remote.to_owned(), local.to_owned()], "3 5", "5"),
        // Ready elsewhere, terminating here: the sets are decided apart.
        (vec![remote.to_owned(), more(local, ending)], "3", "5"),
        (vec![more(remote, ending), local.to_owned()], "5", "5"),
        (vec![more(remote, ending), more(local, ending)], "3 5", "5"),
        (vec![more(remote, ending), more(local, gone)], "3", "drop"),
        (vec![more(remote, gone), more(local, gone)], "reject", "reject"),
        (vec![more(remote, "ready=false"), more(local, "ready=false")], "reject", "reject"),
        // Not ready and serving is ready's opposite as long as it does not terminate.
        (vec![more(remote, "ready=false serving=true"), more(local, gone)], "reject", "reject"),
        // `ready` absent is true, `serving` absent follows it.
        (vec![more(remote, "terminating=false")], "3", "drop"),
        (vec![more(remote, "ready=false terminating=true")], "reject", "reject"),
        (vec![more(local, "ready=true terminating=true")], "5", "5"),
        // An endpoint without a node is not local.
        (vec!["172.30.76.5".to_owned()], "5", "drop"),
        (vec![], "reject", "reject"),
    ] {
        let listed: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        assert_eq!(sets(&listed), (cluster.to_owned(), node.to_owned()), "{listed:?}");
    }
}

#[test]
fn slices_are_united_by_address_and_port_and_ready_in_any_wins() {
    let ports = ["http/TCP/8080", "admin/TCP/9090", "dns/UDP/5353"];
    let text = service("web", "10.254.1.1", &["http/TCP/80", "admin/TCP/81", "dns/UDP/53", "other/TCP/82"], "")
        + &slice("web", "web-1", &ports, &["172.30.76.5 ready=false", "172.30.76.3"])
        + &slice("web", "web-2", &ports[..1], &["172.30.76.5", "172.30.76.3 ready=false"])
        // Another port for the same name: an endpoint of its own. Names and protocols tell ports apart.
        + &slice("web", "web-3", &["http/TCP/8081", "dns/TCP/53"], &["172.30.76.5"])
        // A port without a number is none; `targetPort` is the controllers' concern.
        + &slice("web", "web-4", &["other/TCP/1"], &["172.30.76.5"]).replace(", port: 1 }", " }");
    let text = text.replace("port: 80 }", "port: 80, targetPort: 1234 }");
    let mut world = world(&text);
    let pod = "172.30.76.7";
    assert_spread(
        &mut world,
        "tcp",
        pod,
        CLUSTER,
        1_000,
        &[("172.30.76.5:8080", false), ("172.30.76.3:8080", false), ("172.30.76.5:8081", false)],
    );
    assert_spread(&mut world, "tcp", pod, "10.254.1.1:81", 2_000, &[("172.30.76.3:9090", false)]);
    assert_spread(&mut world, "udp", pod, "10.254.1.1:53", 3_000, &[("172.30.76.3:5353", false)]);
    assert_eq!(
        first(&mut world, "tcp", "172.30.76.7:1", "10.254.1.1:82"),
        Outcome::Rejected("service_no_backend")
    );
    let record = world.publisher.current();
    let record = record.services.iter().find(|port| &*port.port_name == "http").unwrap().clone();
    assert_eq!(record.backends.len(), 3, "each address and port once");
    world.assert_drops(&[("service_no_backend", 1)]);
    world.assert_balanced();
}

#[test]
fn an_endpoints_object_counts_for_services_without_slices() {
    let endpoints = "---\napiVersion: v1\nkind: Endpoints\nmetadata: { name: web }\nsubsets:\n  - addresses: \
                     [{ ip: 172.30.76.3, nodeName: node-1 }]\n    notReadyAddresses: [{ ip: 172.30.76.6 }]\n    \
                     ports: [{ name: http, port: 8080 }]\n";
    let service = service("web", "10.254.1.1", &["http/TCP/80"], "");
    let mut world = world(&format!("{service}{endpoints}"));
    assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 1_000, &[("172.30.76.3:8080", false)]);
    let with_slice = service + endpoints + &slice("web", "web-1", &["http/TCP/8080"], &["172.30.76.5"]);
    world.replace("services", Some(&with_slice));
    assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 2_000, &[("172.30.76.5:8080", false)]);
    world.settle();
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// The document's database: no selector, and addresses outside the cluster.
#[test]
fn databases_outside_the_cluster_are_balanced_and_never_local() {
    let mysql = |policy: &str| {
        service("mysql", "10.254.84.209", &["/TCP/3306/31006"], &format!("  type: NodePort\n{policy}"))
            + &slice("mysql", "mysql-1", &["/TCP/3306"], &["192.168.0.103", "192.168.0.22", "8.8.8.8"])
    };
    let all = |masqueraded| {
        [
            ("192.168.0.103:3306", masqueraded),
            ("192.168.0.22:3306", masqueraded),
            ("8.8.8.8:3306", masqueraded),
        ]
    };
    let mut world = world(&mysql(""));
    // Pods leave their network with the node's address; what comes from the underlay is masqueraded for the service.
    for client in ["172.30.76.7", "172.30.9.9", "192.168.0.50", "192.168.0.21"] {
        let expected = all(client != "192.168.0.21");
        assert_spread(&mut world, "tcp", client, "10.254.84.209:3306", 1_000, &expected);
    }
    let call = Call::established(&mut world, 0, "tcp", "172.30.76.7:4000", "10.254.84.209:3306");
    call.is_alive(&mut world, 0);
    world.replace("services", Some(&mysql("  externalTrafficPolicy: Local\n  internalTrafficPolicy: Local")));
    for to in ["10.254.84.209:3306", "192.168.0.21:31006"] {
        let outcome = first(&mut world, "tcp", "192.168.0.50:5000", to);
        assert_eq!(outcome, Outcome::Dropped("service_no_local_backend"));
    }
    assert_spread(&mut world, "tcp", "172.30.76.7", "192.168.0.21:31006", 2_000, &all(true));
    world.settle();
    world.assert_drops(&[("service_no_local_backend", 2)]);
    world.assert_balanced();
}

#[test]
fn hints_are_followed_if_every_ready_endpoint_has_one_and_some_are_for_here() {
    for (endpoints, cluster) in [
        (["172.30.76.5 zone=east", "172.30.76.3 zone=east", "172.30.9.3 zone=west"], "3 5"),
        // One without hints: none counts.
        (["172.30.76.5 zone=east", "172.30.76.6", "172.30.9.3 zone=west"], "3 5 6"),
        // None for here: none counts.
        (["172.30.76.5 zone=west", "172.30.76.6 zone=west", "172.30.9.3 zone=north"], "3 5 6"),
        // One that is not ready has no say.
        (["172.30.76.5 zone=east", "172.30.76.6 ready=false", "172.30.9.3 zone=west"], "5"),
        // Nodes go before zones, and fall back to them.
        (
            [
                "172.30.76.5 zone=west hint=node-1",
                "172.30.76.6 zone=east hint=node-2",
                "172.30.9.3 zone=east hint=node-2",
            ],
            "5",
        ),
        (
            [
                "172.30.76.5 zone=west hint=node-2",
                "172.30.76.6 zone=east hint=node-2",
                "172.30.9.3 zone=west hint=node-2",
            ],
            "6",
        ),
        (["172.30.76.5 zone=west hint=node-1", "172.30.76.6 zone=east", "172.30.9.3 zone=west"], "6"),
    ] {
        let endpoints = endpoints.map(|endpoint| format!("{endpoint} node=node-9"));
        let listed: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        assert_eq!(sets(&listed), (cluster.to_owned(), "drop".to_owned()), "{listed:?}");
    }
    // The local set asks nobody's hints, nor does the last resort.
    let local = ["172.30.76.5 node=node-1 zone=west", "172.30.9.3 node=node-2 zone=east"];
    assert_eq!(sets(&local), ("3".to_owned(), "5".to_owned()));
    let ending = "ready=false serving=true terminating=true";
    let ending =
        [format!("172.30.76.5 node=node-1 zone=west {ending}"), format!("172.30.9.3 zone=east {ending}")];
    assert_eq!(sets(&[&ending[0], &ending[1]]), ("3 5".to_owned(), "5".to_owned()));
}

#[test]
fn a_node_that_moves_to_another_zone_follows_other_hints() {
    let mut world = world(&web(&["172.30.76.5 zone=east", "172.30.76.3 zone=west"]));
    assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 1_000, &[("172.30.76.5:8080", false)]);
    world.replace("nodes", Some(&NODES.replace("zone: east", "zone: west")));
    assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 2_000, &[("172.30.76.3:8080", false)]);
    world.replace("nodes", Some(&NODES.replace(", labels: { topology.kubernetes.io/zone: east }", "")));
    let both = [("172.30.76.5:8080", false), ("172.30.76.3:8080", false)];
    assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 3_000, &both);
    world.settle();
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn weight_0_drains_by_annotation_of_service_slice_or_pod() {
    let annotated = |text: &str, name: &str, annotation: &str| {
        let metadata = format!("  name: {name}\n");
        text.replacen(&metadata, &format!("{metadata}  annotations: {{ {annotation} }}\n"), 1)
    };
    let service = service("web", "10.254.1.1", &["/TCP/80"], "");
    let slices = |two: &str| {
        slice("web", "web-1", &["/TCP/8080"], &["172.30.76.5"])
            + &slice("web", "web-2", &["/TCP/8080"], &["172.30.76.3"]).replace("172.30.76.3]\n", two)
    };
    let plain = slices("172.30.76.3]\n");
    let targeted = slices("172.30.76.3]\n    targetRef: { kind: Pod, name: dp-2 }\n");
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: { name: dp-2, annotations: { pollgate.io/weight: \"0\" } }\n";
    let weights = "pollgate.io/weights: \"172.30.76.3=0, 172.30.76.5=7\"";
    for drained in [
        annotated(&service, "web", weights) + &plain,
        service.clone() + &annotated(&plain, "web-2", "pollgate.io/weight: \"0\""),
        service.clone() + &targeted + pod,
    ] {
        let mut world = world(&(service.clone() + &plain));
        let mut calls = Vec::new();
        for number in 0..20 {
            let client = format!("172.30.76.7:{}", 1_000 + number);
            calls.push(Call::established(&mut world, 0, "tcp", &client, CLUSTER));
        }
        assert!(calls.iter().any(|call| call.backend == "172.30.76.3:8080"));
        world.replace("services", Some(&drained));
        assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 2_000, &[("172.30.76.5:8080", false)]);
        world.settle();
        calls.iter().for_each(|call| call.is_alive(&mut world, 0));
        // And back.
        world.replace("services", Some(&(service.clone() + &plain)));
        let both = [("172.30.76.5:8080", false), ("172.30.76.3:8080", false)];
        assert_spread(&mut world, "tcp", "172.30.76.7", CLUSTER, 3_000, &both);
        world.settle();
        world.assert_drops(&[]);
        world.assert_balanced();
    }
}

#[test]
fn with_every_weight_0_new_connections_are_rejected_and_old_ones_go_on() {
    let weights = |weights: &str| {
        let text = service("web", "10.254.1.1", &["/TCP/80"], "")
            + &slice("web", "web-1", &["/TCP/8080"], &["172.30.76.5"]);
        text.replacen(
            "  name: web\n",
            &format!("  name: web\n  annotations: {{ pollgate.io/weights: \"{weights}\" }}\n"),
            1,
        )
    };
    let mut world = world(&weights("172.30.76.5=1"));
    let call = Call::established(&mut world, 0, "tcp", "172.30.76.7:4000", CLUSTER);
    world.replace("services", Some(&weights("172.30.76.5=0")));
    assert_eq!(
        first(&mut world, "tcp", "172.30.76.7:4001", CLUSTER),
        Outcome::Rejected("service_no_backend")
    );
    world.settle();
    call.is_alive(&mut world, 0);
    world.assert_drops(&[("service_no_backend", 1)]);
    world.assert_balanced();
}

/// What health checks say of the configuration's own backends. (Who asks them is tested where that is.)
#[test]
fn unhealthy_backends_take_no_new_connections_and_the_old_ones_go_on() {
    let toml = gateway()
        + "\n[[service]]\nname = \"api\"\ncluster_ip = \"10.254.9.1\"\n[[service.ports]]\nprotocol = \"tcp\"\nport = 80\n\
           backends = [{ address = \"172.30.76.5:8080\" }, { address = \"172.30.76.3:8080\" }]\n\
           health_check = { kind = \"tcp\" }\n";
    let mut world = World::new(&toml);
    let api = "10.254.9.1:80";
    let both = [("172.30.76.5:8080", false), ("172.30.76.3:8080", false)];
    assert_spread(&mut world, "tcp", "172.30.76.7", api, 1_000, &both);
    let mut calls = Vec::new();
    for number in 0..20 {
        calls.push(Call::established(&mut world, 0, "tcp", &format!("172.30.76.7:{}", 2_000 + number), api));
    }
    let say = |world: &mut World, last: u8, is_healthy: bool| {
        let backend = BackendName {
            service: ServiceKey::new("default", "api"),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            address: SocketAddrV4::new(Ipv4Addr::new(172, 30, 76, last), 8080),
        };
        assert!(world.builder.set_health(backend, is_healthy), "it is news");
        let tables = world.builder.update(&world.objects, &std::collections::BTreeSet::new()).unwrap();
        world.publish(tables);
    };
    say(&mut world, 5, false);
    assert_spread(&mut world, "tcp", "172.30.76.7", api, 3_000, &both[1..]);
    world.settle();
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    say(&mut world, 3, false);
    assert_eq!(first(&mut world, "tcp", "172.30.76.7:4000", api), Outcome::Rejected("service_no_backend"));
    say(&mut world, 5, true);
    assert_spread(&mut world, "tcp", "172.30.76.7", api, 5_000, &both[..1]);
    say(&mut world, 3, true);
    assert_spread(&mut world, "tcp", "172.30.76.7", api, 6_000, &both);
    world.settle();
    calls.iter().for_each(|call| call.is_alive(&mut world, 0));
    world.assert_drops(&[("service_no_backend", 1)]);
    world.assert_balanced();
}
