//! `pollgate trace` on the reference cluster: what it says, that its JSON keeps to the schema, and that the pipeline does
//! with the packet's bytes what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "trace/captured.rs"]
mod captured;
#[path = "trace/pipeline.rs"]
mod pipeline;
#[path = "trace/schema.rs"]
mod schema;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipeline::{bytes, compare, left, traces};
use pipelines::control::kubernetes::ObjectStore;
use pipelines::trace::grammar::PacketSpec;
use pipelines::trace::{Ingress, Question, trace};
use serde_json::{Value, json};
use support::packets::*;
use support::{World, reference};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command
        .current_dir(repository())
        .args(["--log-level", "error", "trace"])
        .args(arguments)
        .output()
        .unwrap()
}

fn schema() -> Value {
    let text = std::fs::read_to_string(repository().join("docs/trace.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The trace of a packet on a configuration, which must keep to the schema.
fn traced(config: &str, packet: &str, more: &[&str]) -> Value {
    let output = run(&[&["--config", config, "--packet", packet, "--json"], more].concat());
    assert!(output.status.success(), "{packet}: {}", String::from_utf8_lossy(&output.stderr));
    let trace = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema::problems(&schema(), &trace), Vec::<String>::new(), "{packet}");
    trace
}

const REFERENCE: &str = "configs/reference-cluster.toml";

/// Packets, and what becomes of them: verdict, and what the reason contains.
const CASES: &[(&str, &str, &str)] = &[
    // A pod's, to local and remote backends of a service.
    ("tcp 172.30.76.7:40000 > 10.254.116.224:50051", "forward", "service default/data-product:grpc"),
    // A remote pod's: masqueraded, whatever backend is drawn.
    ("tcp 172.30.9.9:40000 > 10.254.116.224:50051", "forward", "masqueraded for the service"),
    // A backend's own: masqueraded if it draws itself.
    ("tcp 172.30.76.5:40000 > 10.254.116.224:50051", "forward", "service default/data-product:grpc"),
    ("tcp 172.30.76.2:40000 > 10.254.189.164:80", "forward", "masqueraded for the service"),
    // From outside by a node port, and the node's own.
    ("tcp 192.168.0.50:5555 > 192.168.0.21:30799", "forward", "service ingress-nginx/ingress-nginx:http"),
    ("tcp 192.168.0.21:5555 > 10.254.80.22:80", "forward", "masqueraded for the service"),
    ("udp 192.168.0.21:5555 > 172.30.76.7:53 ttl 1", "forward", "routed"),
    // Refused services.
    ("udp 172.30.76.7:40000 > 10.254.0.2:53", "reject", "service_no_backend"),
    ("tcp 172.30.9.9:40000 > 10.254.0.2:53", "reject", "service_no_backend"),
    ("tcp 172.30.76.7:40000 > 10.254.80.22:81", "reject", "service_unknown_port"),
    ("icmp echo 172.30.76.7 > 10.254.80.22 id 7", "drop", "service_icmp"),
    ("gre 172.30.76.7 > 10.254.80.22", "drop", "service_protocol"),
    ("tcp 172.30.76.7:40000 > 10.254.200.1:80", "drop", "service_unknown_address"),
    // Out of the pod network, with the node's address.
    ("tcp 172.30.76.7:40000 > 8.8.8.8:443", "forward", "egress masquerade"),
    ("icmp echo 172.30.76.7 > 8.8.8.8 id 77", "forward", "egress masquerade"),
    ("sctp 172.30.76.7:40000 > 8.8.8.8:443 len 60", "forward", "egress masquerade"),
    ("gre 172.30.76.7 > 8.8.8.8", "forward", "egress masquerade"),
    ("tcp 172.30.76.7:40000 > 10.254.84.209:3306", "forward", "egress masquerade"),
    // Between pods.
    ("udp 172.30.76.7:40000 > 172.30.9.2:2000 len 1450", "forward", "routed"),
    ("udp 172.30.76.7:40000 > 172.30.76.6:2000", "forward", "stays on the bridge"),
    ("udp 192.168.0.50:40000 > 172.30.76.6:2000", "forward", "routed"),
    // To the node itself.
    ("tcp 192.168.0.50:40000 > 192.168.0.21:22", "deliver", "the node's own address"),
    ("tcp 192.168.0.50:40000 > 192.168.0.21:22 flags SA", "deliver", "the node's own address"),
    ("icmp echo 192.168.0.50 > 192.168.0.21", "deliver", "answers it"),
    ("udp 172.30.76.7:40000 > 172.30.76.1:53 ttl 1", "deliver", "the node's own address"),
    // What goes nowhere.
    ("tcp 127.0.0.1:40000 > 10.254.80.22:80", "drop", "martian_source"),
    ("udp 172.30.76.7:40000 > 224.0.0.251:5353", "drop", "multicast"),
    ("udp 172.30.76.7:40000 > 127.0.0.1:5353", "drop", "martian_destination"),
    ("tcp 172.30.76.7:40000 > 8.8.8.8:443 flags SA", "drop", "tcp_invalid"),
    ("udp 172.30.76.7:40000 > 172.30.200.1:2000", "drop", "neighbour_unresolved"),
    ("udp 192.168.0.22:40000 > 192.168.0.21:8472", "drop", "vxlan_malformed"),
    ("tcp 172.30.76.7:40000 > 8.8.8.8:443 ttl 1", "reject", "ttl_exceeded"),
    ("tcp 172.30.76.7:40000 > 10.254.84.209:3306 ttl 0", "reject", "ttl_exceeded"),
    ("udp 172.30.76.7:40000 > 172.30.9.2:2000 len 1451 df", "reject", "mtu_exceeded"),
    ("udp 172.30.76.7:40000 > 172.30.9.2:2000 len 1451", "drop", "mtu_exceeded"),
];

/// No service stands behind another: an endpoint that is a cluster IP is refused, one that is no service's is dropped.
#[test]
fn endpoints_are_no_virtual_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pollgate.toml");
    let text = "[node]\nname = \"node-1\"\naddresses = [\"192.168.0.21\"]\n\
                [services]\nservice_cidrs = [\"10.254.0.0/16\"]\n";
    std::fs::write(&file, text).unwrap();
    let manifests = ["--manifests", "tests/differential/clusters/odd.yaml"];
    let cases = [
        ("10.254.6.13", "reject", "service_no_backend", "10.254.6.12"),
        ("10.254.6.16", "drop", "service_unknown_address", "10.254.250.2"),
    ];
    for (address, verdict, reason, endpoint) in cases {
        let packet = format!("tcp 172.30.76.7:40000 > {address}:80");
        let trace = traced(file.to_str().unwrap(), &packet, &manifests);
        assert_eq!((&trace["verdict"], &trace["reason"]), (&json!(verdict), &json!(reason)), "{trace:#}");
        assert_eq!(trace["chosen"]["address"], endpoint, "the trace tells which one it is: {trace:#}");
        assert!(trace["translated"].is_null() && trace["flow"].is_null(), "{trace:#}");
    }
}

#[test]
fn every_case_is_traced_as_it_should_be() {
    for (packet, verdict, reason) in CASES {
        let trace = traced(REFERENCE, packet, &[]);
        assert_eq!(trace["verdict"], *verdict, "{packet}: {trace:#}");
        assert!(trace["reason"].as_str().unwrap().contains(reason), "{packet}: {trace:#}");
        assert_eq!(trace["reject_with"].is_null(), *verdict != "reject", "{packet}");
        assert_eq!(trace["egress"].is_null(), *verdict != "forward", "{packet}");
        assert!(!trace["steps"].as_array().unwrap().is_empty());
        let text: PacketSpec = trace["packet"]["text"].as_str().unwrap().parse().unwrap();
        assert_eq!(Ok(text), packet.parse());
    }
}

#[test]
fn a_service_is_shown_with_its_candidates() {
    let trace = traced(REFERENCE, "tcp 172.30.76.5:40000 > 10.254.116.224:50051", &[]);
    assert_eq!(
        trace["service"],
        json!({ "namespace": "default", "name": "data-product", "kind": "cluster_ip", "address": "10.254.116.224",
            "protocol": "tcp", "port": 50051, "port_name": "grpc" })
    );
    let candidates = trace["candidates"].as_array().unwrap();
    let facts: Vec<(&str, &Value, &Value, &Value)> = candidates
        .iter()
        .map(|c| (c["address"].as_str().unwrap(), &c["local"], &c["masquerade"], &c["node"]))
        .collect();
    let (yes, no, node, null) = (json!(true), json!(false), json!("node-1"), Value::Null);
    assert_eq!(
        facts,
        [
            ("172.30.76.5", &yes, &yes, &node),
            ("172.30.76.3", &yes, &no, &node),
            ("172.30.9.2", &no, &no, &null)
        ]
    );
    assert!(candidates.iter().all(|c| (c["probability"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12));
    assert_eq!(trace["masquerade"], false, "of those that are no hairpin");
    assert!(candidates.contains(&trace["chosen"]));
    let dnat = trace["steps"].as_array().unwrap().iter().find(|step| step["stage"] == "dnat").unwrap();
    assert_eq!(dnat["entry"], "cluster_ip 10.254.116.224:50051/tcp");
    let line = std::fs::read_to_string(repository().join(REFERENCE)).unwrap();
    let line = line[..line.find("name = \"grpc\"").unwrap()].matches('\n').count();
    assert_eq!(
        dnat["object"],
        json!({ "kind": "Service", "namespace": "default", "name": "data-product",
            "source": format!("{REFERENCE}:{line}") })
    );

    let hairpin = traced(REFERENCE, "tcp 172.30.76.2:40000 > 10.254.189.164:80", &[]);
    assert_eq!(hairpin["masquerade"], true, "every candidate is a hairpin");
    assert_eq!(hairpin["snat"], json!({ "address": "172.30.76.1", "ports": "32768-60999" }));
    assert_eq!(
        (&hairpin["chosen"]["masquerade"], &hairpin["translated"]["source"]),
        (&yes, &json!("172.30.76.1"))
    );

    let egress = traced(REFERENCE, "tcp 172.30.76.7:40000 > 10.254.84.209:3306", &[]);
    assert_eq!(
        (&egress["masquerade"], &egress["chosen"]["masquerade"]),
        (&no, &no),
        "the service leaves it alone"
    );
    assert_eq!(egress["snat"]["address"], "192.168.0.21");
}

#[test]
fn weights_are_probabilities_and_draining_backends_no_candidates() {
    let trace = traced("configs/service-balancer.toml", "udp 10.0.0.9:1000 > 10.254.0.53:53", &[]);
    assert_eq!(trace["candidates"].as_array().unwrap().len(), 1, "{trace:#}");
    let trace = traced("configs/service-balancer.toml", "tcp 10.0.0.9:1000 > 10.254.0.80:80", &[]);
    let shares: Vec<f64> =
        trace["candidates"].as_array().unwrap().iter().map(|c| c["probability"].as_f64().unwrap()).collect();
    assert_eq!(shares, [0.75, 0.25]);
}

#[test]
fn the_way_in_is_worked_out_or_taken_as_said() {
    let ingress = |packet: &str, more: &[&str]| traced(REFERENCE, packet, more)["packet"]["ingress"].clone();
    let to = "> 10.254.80.22:80";
    let at = |interface: &str, port: Option<&str>, derived: bool| json!({ "interface": interface, "port": port, "vni": null, "remote": null, "derived": derived });
    assert_eq!(ingress(&format!("tcp 172.30.76.7:1 {to}"), &[]), at("docker0", None, true));
    assert_eq!(ingress(&format!("tcp 9.9.9.9:1 {to}"), &[]), at("eth0", Some("eth0"), true));
    assert_eq!(ingress(&format!("tcp 172.30.76.1:1 {to}"), &[]), at("host", None, true));
    assert_eq!(
        ingress(&format!("tcp 172.30.9.9:1 {to}"), &[]),
        json!({ "interface": "flannel.1", "port": "eth0", "vni": 1, "remote": "192.168.0.22", "derived": true })
    );
    assert_eq!(
        ingress(&format!("tcp 172.30.76.7:1 {to}"), &["--in", "ingress-nginx"]),
        at("docker0", Some("ingress-nginx"), false)
    );
    // The node's own address by a wire is nobody's.
    let trace = traced(REFERENCE, &format!("tcp 192.168.0.21:1 {to}"), &["--in", "eth0"]);
    assert_eq!((&trace["verdict"], &trace["reason"]), (&json!("drop"), &json!("martian_source")));
    let trace = traced(REFERENCE, &format!("tcp 172.30.9.9:1 {to}"), &["--via", "2@192.168.0.22"]);
    assert_eq!((&trace["verdict"], &trace["reason"]), (&json!("drop"), &json!("vni_unknown")));
}

#[test]
fn node_and_services_alone_give_the_service_layers_verdict() {
    let text = std::fs::read_to_string(repository().join(REFERENCE)).unwrap();
    let services = text.find("[services]").unwrap();
    let text = format!("[node]\naddresses = [\"192.168.0.21\"]\n{}", &text[services..]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.toml");
    std::fs::write(&file, &text).unwrap();
    let config = file.to_str().unwrap();
    for (packet, verdict, reason) in [
        ("tcp 172.30.76.7:40000 > 10.254.80.22:80", "forward", "service default/business-manager:http"),
        ("tcp 10.9.9.9:40000 > 192.168.0.21:30799", "forward", "service ingress-nginx"),
        (
            "tcp 192.168.0.21:40000 > 10.254.80.22:80 ttl 1",
            "forward",
            "service default/business-manager:http",
        ),
        ("udp 172.30.76.7:40000 > 10.254.0.2:53", "reject", "service_no_backend"),
        ("tcp 172.30.76.7:40000 > 10.254.80.22:81", "reject", "service_unknown_port"),
        ("icmp echo 172.30.76.7 > 10.254.80.22", "drop", "service_icmp"),
        ("tcp 172.30.76.7:40000 > 10.254.200.1:80", "drop", "service_unknown_address"),
        ("tcp 172.30.76.7:40000 > 8.8.8.8:53", "pass", "no_route"),
        ("tcp 172.30.76.7:40000 > 192.168.0.21:22", "deliver", "the node's own address"),
    ] {
        let trace = traced(config, packet, &[]);
        assert_eq!(trace["verdict"], verdict, "{packet}: {trace:#}");
        assert!(trace["reason"].as_str().unwrap().contains(reason), "{packet}: {trace:#}");
        assert!(trace["egress"].is_null());
    }
    // Which address masquerades is the way out's to say, unless one is set for all.
    let outside = "tcp 10.9.9.9:40000 > 192.168.0.21:30799";
    let trace = traced(config, outside, &[]);
    assert_eq!((&trace["masquerade"], &trace["snat"]["address"]), (&json!(true), &Value::Null));
    assert_eq!(trace["translated"]["destination"], "172.30.76.2");
    std::fs::write(&file, text.replace("[services]\n", "[services]\nsnat_address = \"192.168.0.21\"\n"))
        .unwrap();
    assert_eq!(traced(config, outside, &[])["snat"]["address"], "192.168.0.21");
}

#[test]
fn exit_statuses_tell_what_was_wrong() {
    let refused = |arguments: &[&str], status: i32, message: &str| {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{arguments:?} {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    };
    let good = "tcp 1.2.3.4:5 > 10.254.80.22:80";
    let bad = "tcp 1.2.3.4:5 > [::1]:80";
    refused(
        &["--config", REFERENCE, "--packet", bad],
        2,
        "column 17: `[::1]:80` is IPv6, and the source is IPv4",
    );
    refused(&["--config", REFERENCE, "--packet", bad], 2, &format!("\n  {bad}\n  {:>17}\n", "^"));
    refused(&["--config", REFERENCE, "--packet", ""], 2, "column 1: the text ends; expected `tcp`");
    refused(
        &["--config", REFERENCE, "--packet", good, "--in", "eth9"],
        2,
        "no port `eth9`; expected one of eth0,",
    );
    refused(
        &["--config", REFERENCE, "--packet", good, "--via", "x"],
        2,
        "--via: `x` is no tunnel; expected a VNI",
    );
    let balancer = "configs/service-balancer.toml";
    refused(&["--config", balancer, "--packet", good, "--via", "1@1.2.3.4"], 2, "has no [overlay]");
    refused(
        &["--config", REFERENCE, "--packet", good, "--via", "1@1.2.3.4", "--in", "eth0"],
        2,
        "cannot be used",
    );
    refused(&["--config", REFERENCE], 2, "--packet");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[node]\nnmae = \"a\"\n").unwrap();
    let message = "bad.toml:2:1: error: unknown key `nmae`";
    refused(&["--config", file.to_str().unwrap(), "--packet", good], 1, message);
}

#[test]
fn the_schema_knows_right_from_wrong() {
    let trace = traced(REFERENCE, CASES[0].0, &["--seed", "5"]);
    for key in trace.as_object().unwrap().keys() {
        let mut without = trace.clone();
        without.as_object_mut().unwrap().remove(key);
        assert_eq!(schema::problems(&schema(), &without).len(), 1, "{key}");
        let document = std::fs::read_to_string(repository().join("docs/trace.md")).unwrap();
        assert!(document.contains(&format!("`{key}`")), "docs/trace.md does not say what `{key}` is");
    }
    for (pointer, value) in [
        ("/version", json!(2)),
        ("/verdict", json!("maybe")),
        ("/candidates/0/port", json!(65_536)),
        ("/chosen/masquerade", json!(1)),
        ("/packet/more", json!(1)),
        ("/steps/0/object", json!({})),
    ] {
        let mut changed = trace.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match changed.pointer_mut(parent).unwrap() {
            Value::Object(object) => object.insert(key.to_owned(), value),
            _ => unreachable!("{pointer}"),
        };
        assert!(!schema::problems(&schema(), &changed).is_empty(), "{pointer}");
    }
}

#[test]
fn the_same_seed_draws_the_same() {
    let draw = |seed: &str| traced(REFERENCE, CASES[1].0, &["--seed", seed])["translated"].clone();
    assert_eq!(draw("1"), draw("1"));
    let drawn: std::collections::BTreeSet<String> =
        (0..8).map(|seed| draw(&seed.to_string()).to_string()).collect();
    assert!(drawn.len() > 4, "{drawn:?}");
}

#[test]
fn people_read_one_line_a_stage() {
    let output = run(&["--config", REFERENCE, "--packet", "tcp 172.30.76.7:40000 > 172.30.9.2:80"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let heads: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        heads,
        "packet parse validate dnat route_lookup snat_mark conntrack neighbour apply verdict leaves"
            .split(' ')
            .collect::<Vec<_>>(),
        "{text}"
    );
    assert!(text.contains("route 172.30.9.0/24 via 172.30.9.0 dev flannel.1 (static)"), "{text}");
    assert!(text.contains("in VXLAN 1 from 192.168.0.21 to 192.168.0.22:8472"), "{text}");
}

#[test]
fn the_pipeline_does_what_the_trace_says() {
    for workers in [1, 3] {
        let cores: Vec<String> = (1..=workers).map(|core: usize| core.to_string()).collect();
        let text = reference().replace("cores = [1]", &format!("cores = [{}]", cores.join(", ")));
        for (packet, ..) in CASES {
            let mut world = World::with(&text, workers, 7);
            assert_eq!(world.configuration.workers.cores.len(), workers);
            let packet: PacketSpec = packet.parse().unwrap();
            let chosen = compare(&mut world, &packet);
            let candidates = traces(&world, &packet).len();
            assert_eq!(chosen.len(), candidates, "{packet}: in twenty flows every backend had one");
            world.assert_balanced();
        }
    }
}

#[test]
fn the_pipeline_does_so_on_other_configurations() {
    let with = |absent: &str| {
        let text = reference();
        let at = text.find(absent).unwrap();
        let table = text[..at].rfind("\n[").unwrap();
        let end = at + text[at..].find("\n[").unwrap();
        text[..table].to_owned() + &text[end..]
    };
    let no_default_route = with("destination = \"0.0.0.0/0\"");
    let no_exception = with("rate_pps = 10000");
    let host_backend = reference().replace("192.168.0.22:6443", "192.168.0.21:6443");
    let two_behind_one = reference()
        + "\n[[neighbours]]\ninterface = \"docker0\"\naddress = \"172.30.76.8\"\nmac = \"02:42:ac:1e:4c:08\"\n"
        + "\n[[fdb]]\ninterface = \"docker0\"\nmac = \"02:42:ac:1e:4c:08\"\nport = \"business-manager-1\"\n";
    for (text, packet, verdict, reason) in [
        (
            &host_backend,
            "tcp 172.30.76.7:40000 > 10.254.0.1:443",
            "deliver",
            "service default/kubernetes:https",
        ),
        (
            &host_backend,
            "tcp 172.30.9.9:40000 > 10.254.0.1:443",
            "deliver",
            "service default/kubernetes:https",
        ),
        (&two_behind_one, "udp 172.30.76.7:40000 > 172.30.76.8:53", "drop", "bridge_same_port"),
        (&no_default_route, "tcp 172.30.76.7:40000 > 8.8.8.8:443", "pass", "no_route"),
        (&no_exception, "tcp 192.168.0.50:40000 > 192.168.0.21:22", "drop", "host_absent"),
        (&no_exception, "tcp 192.168.0.50:40000 > 192.168.0.21:22 flags SA", "drop", "host_absent"),
    ] {
        let mut world = World::new(text);
        let packet: PacketSpec = packet.parse().unwrap();
        let traces = traces(&world, &packet);
        assert_eq!((&traces[0]["verdict"], &traces[0]["reason"]), (&json!(verdict), &json!(reason)));
        compare(&mut world, &packet);
        world.assert_balanced();
    }
}

#[test]
fn the_pipeline_asks_for_the_next_hops_that_the_trace_names() {
    let mut world = World::new(&support::dynamic());
    for (packet, asked) in [
        ("tcp 172.30.76.7:40000 > 8.8.8.8:443", "192.168.0.1 on eth0"),
        ("udp 192.168.0.22:40000 > 172.30.76.7:53", "172.30.76.7 on docker0"),
    ] {
        let packet: PacketSpec = packet.parse().unwrap();
        let ingress = match packet.source().to_string().starts_with("172.") {
            true => "business-manager-1",
            false => "eth0",
        };
        let question =
            Question { packet: packet.into(), ingress: Some(Ingress::Port(ingress.into())), seed: 0 };
        let trace = trace(&world.configuration, &ObjectStore::new(), &|_| None, &question).unwrap();
        assert!(trace.reason.ends_with(&format!("held until ARP is answered: {asked}")), "{}", trace.reason);
        let frame = if ingress == "eth0" {
            to_node(NODE_2_MAC, &bytes(&packet))
        } else {
            from_pod(7, &bytes(&packet))
        };
        world.send(ingress, &frame);
        world.turn();
        world.advance_ms(2);
        let interface = if asked.ends_with("eth0") { "eth0" } else { "data-product-1" };
        let requests: Vec<String> = left(&mut world)
            .iter()
            .filter(|f| f.0 == interface)
            .map(|f| read_arp(&f.1).2.1.to_string())
            .collect();
        assert_eq!(requests, [asked.split(' ').next().unwrap()]);
    }
}
