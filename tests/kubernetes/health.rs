//! Point 12: load balancers ask a node whether it has ready endpoints of a service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use pipelines::control::health::{HealthNodePort, HealthNodePorts};

use crate::manifests::{service, slice, world};
use crate::support::World;
use crate::support::packets::*;

fn shop(port: u16, endpoints: &[&str]) -> String {
    let more =
        format!("  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: {port}\n");
    service("shop", "10.254.1.1", &["http/TCP/80/31001", "https/TCP/443/31002"], &more)
        + &slice("shop", "shop-1", &["http/TCP/8080", "https/TCP/8443"], endpoints)
}

fn wanted(world: &mut World) -> Vec<HealthNodePort> {
    world.builder.services().health_ports()
}

/// Asks like a load balancer; gives status line, headers and body.
fn ask(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node-1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn ready_endpoints_of_this_node_are_counted_once_and_told() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let endpoints = [
        "172.30.76.5 node=node-1",
        "172.30.76.6 node=node-1",
        "172.30.76.7 node=node-1 ready=false serving=true terminating=true",
        "172.30.9.3 node=node-2",
    ];
    let mut world = world(&shop(port, &endpoints));
    let mut servers = HealthNodePorts::new(vec![Ipv4Addr::LOCALHOST]);
    // Two ports of the service, and each address once.
    let told = |local_endpoints| {
        vec![HealthNodePort { port, namespace: "default".into(), name: "shop".into(), local_endpoints }]
    };
    assert_eq!(wanted(&mut world), told(2));
    assert!(servers.apply(&wanted(&mut world)).is_empty());
    let answer = ask(port);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("X-Load-Balancing-Endpoint-Weight: 2\r\n"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "service": { "namespace": "default", "name": "shop" },
            "localEndpoints": 2, "serviceProxyHealthy": true,
        })
    );

    // None ready here: one that terminates and serves takes connections, and is not told of.
    world.replace("services", Some(&shop(port, &endpoints[2..])));
    assert_eq!(wanted(&mut world), told(0));
    assert!(servers.apply(&wanted(&mut world)).is_empty());
    let answer = ask(port);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Endpoint-Weight: 0\r\n"), "{answer}");

    // Under policy Cluster nobody asks, and nothing answers.
    let cluster = shop(port, &endpoints).replace("Local", "Cluster").replace("healthCheckNodePort", "# ");
    world.replace("services", Some(&cluster));
    assert_eq!(wanted(&mut world), []);
    servers.apply(&[]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

#[test]
fn questions_reach_the_hosts_own_stack() {
    let mut world = world(&shop(31_999, &["172.30.76.5 node=node-1"]));
    // From outside, and from a pod: to the node's own address, in the node ports' range, and for no service.
    world.send("eth0", &to_node(CLIENT_MAC, &tcp("192.168.0.50:5555", "192.168.0.21:31999", SYN, b"")));
    world.send("business-manager-1", &from_pod(7, &tcp("172.30.76.7:5555", "192.168.0.21:31999", SYN, b"")));
    world.turn();
    let seen: Vec<String> = world.sent_to_host().iter().map(|frame| read(frame).to()).collect();
    assert_eq!(seen, ["192.168.0.21:31999"; 2]);
    world.assert_drops(&[]);
    world.assert_balanced();
}
