//! The real binary on TAP ports in the reference cluster, with the kernel's own network stack as node 2, pods and clients.
//! Needs root, and says why when it cannot run.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expected, and stops")]

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use cluster::Cluster;
use cluster::capture::{self, Capture, Tunnelled};

const GATEWAY_MAC: &str = "02:00:c0:a8:00:15";
const GATEWAY_VTEP_MAC: &str = "8a:22:81:5e:d8:b7";
const NODE2_VTEP_MAC: &str = "96:8f:2d:49:c5:31";

/// Everything that the quickstart shows, with a reload by SIGHUP (the quickstart reloads by a change of the file).
#[test]
fn the_cluster_works_and_every_packet_is_accounted_for() {
    let Some(cluster) = Cluster::up(false) else { return };
    let checks = cluster::all_checks();
    assert!(checks.len() >= 14 && checks.last().is_some_and(|last| last == "stop"), "{checks:?}");
    cluster.check(&checks);
}

/// What the gateway sends to node 2 is what flannel's kernel device would send.
#[test]
fn captured_on_node_2_the_tunnel_looks_like_flannels() {
    let Some(cluster) = Cluster::up(true) else { return };
    let capture = Capture::start(&cluster, "node2", "inout");
    cluster.request("cl1", "10.254.80.31:80", 60);
    cluster.request("cl2", "10.254.116.224:50051", 60);
    cluster.run(
        "cl1",
        &["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1422", "172.30.9.9"],
    );
    let file = capture.stop();
    capture::assert_sound(&file);

    let sent = capture::tunnelled(&file, "ip.src == 192.168.0.21");
    assert!(sent.len() > 200, "{} packets through the tunnel", sent.len());
    for packet in &sent {
        assert_outer_headers(packet);
    }
    assert_source_ports_follow_flows(&sent);
    assert_translations(&sent);

    let full =
        sent.iter().filter(|packet| packet.outer("ip.len") == "1500" && packet.inner("ip.len") == "1450");
    assert_eq!(
        full.filter(|packet| packet.inner("ip.flags.df") == "1").count(),
        3,
        "echo requests of the full MTU"
    );
    assert_eq!(capture::count(&file, "ip.flags.mf == 1 || ip.frag_offset > 0"), 0, "nothing is fragmented");
    cluster.check(&["stop"]);
}

fn assert_outer_headers(packet: &Tunnelled) {
    assert_eq!(packet.outer("eth.src"), GATEWAY_MAC, "{packet:?}");
    assert_eq!(packet.outer("ip.dst"), "192.168.0.22", "{packet:?}");
    assert_eq!(packet.outer("udp.dstport"), "8472", "{packet:?}");
    assert_eq!(packet.outer("vxlan.vni"), "1", "{packet:?}");
    assert_eq!(packet.inner("eth.src"), GATEWAY_VTEP_MAC, "{packet:?}");
    assert_eq!(packet.inner("eth.dst"), NODE2_VTEP_MAC, "{packet:?}");
}

/// The outer source port is the same for all packets of a connection, and not the same for all connections (RFC 7348,
/// section 5: entropy for load balancing between the VTEPs).
fn assert_source_ports_follow_flows(sent: &[Tunnelled]) {
    let mut ports: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for packet in sent.iter().filter(|packet| !packet.tcp("tcp.srcport").is_empty()) {
        ports.entry(packet.inner_flow()).or_default().insert(packet.outer("udp.srcport"));
    }
    assert!(ports.values().all(|ports| ports.len() == 1), "one source port for each connection: {ports:?}");
    let distinct: BTreeSet<_> = ports.values().flatten().collect();
    assert!(
        distinct.len() > ports.len() / 2,
        "{} source ports for {} connections",
        distinct.len(),
        ports.len()
    );
}

/// Inner addresses: those of pods on node 1 as they are, the VTEP's where a source is masqueraded, a service's only as the
/// source of answers to its client on node 2.
fn assert_translations(sent: &[Tunnelled]) {
    let pairs: BTreeSet<_> =
        sent.iter().map(|packet| (packet.inner("ip.src"), packet.inner("ip.dst"))).collect();
    let expected = BTreeSet::from([
        ("172.30.76.9", "172.30.9.3"), // cl1 to the backend of the weighted service on node 2
        ("172.30.76.0", "172.30.9.2"), // cl2, masqueraded, to the backend of data-product on its own node
        ("10.254.116.224", "172.30.9.9"), // data-product's answers to cl2
        ("172.30.76.9", "172.30.9.9"), // echo requests
    ]);
    assert_eq!(pairs, expected);
    for packet in sent.iter().filter(|packet| packet.inner("ip.dst") == "172.30.9.3") {
        assert_eq!(packet.tcp("tcp.dstport"), "8080", "the backend's port, not the service's: {packet:?}");
    }
}

/// What node 2's kernel and the pods sent goes once more through the same pipeline, from files.
#[test]
fn a_replay_of_the_kernels_traffic_is_sound_and_repeatable() {
    let Some(cluster) = Cluster::up(true) else { return };
    let recorded = record(&cluster);
    cluster.check(&["stop"]);
    for (_, file) in &recorded {
        capture::assert_sound(file);
    }

    let (first, summary) = replay(&cluster, &recorded, "first");
    let (second, again) = replay(&cluster, &recorded, "second");
    assert_eq!(summary, again, "the same summary for the same seed");
    for (one, other) in first.iter().zip(&second) {
        let bytes = |file| std::fs::read(file).expect("replay writes the file");
        assert!(bytes(one) == bytes(other), "{} and {} differ", one.display(), other.display());
        capture::assert_sound(one);
    }
    let underlay = &first[0];
    let sent = capture::tunnelled(underlay, "ip.src == 192.168.0.21");
    sent.iter().for_each(assert_outer_headers);
    assert_eq!(
        capture::count(underlay, "vxlan && icmp.type == 0 && ip.src == 172.30.76.9"),
        5,
        "echo replies of cl1"
    );
    let opened = capture::count(underlay, "vxlan && tcp.flags.syn == 1 && tcp.flags.ack == 1");
    assert!(opened >= 20, "{opened} of 20 connections to dp1 were answered; {summary}");
    assert_balanced(&summary);
}

/// Captures what arrives at the gateway while a pod on node 2 pings and asks pods on node 1; by port of the gateway.
fn record(cluster: &Cluster) -> Vec<(&'static str, PathBuf)> {
    // Who is asked for an address now says so in the capture: a replay starts knowing nobody.
    for namespace in ["node2", "cl1", "dp1"] {
        cluster.run(namespace, &["ip", "neighbour", "flush", "dev", "eth0"]);
    }
    let captures = [("eth0", "node2"), ("client", "cl1"), ("data-product-1", "dp1")]
        .map(|(port, namespace)| (port, Capture::start(cluster, namespace, "out")));
    for namespace in ["cl1", "dp1"] {
        cluster.run(namespace, &["ping", "-n", "-c", "1", "-W", "2", "172.30.76.1"]);
    }
    cluster.run("cl2", &["ping", "-n", "-c", "5", "-i", "0.2", "-W", "2", "172.30.76.9"]);
    cluster.request("cl2", "172.30.76.5:50051", 20);
    captures.map(|(port, capture)| (port, capture.stop())).into()
}

/// Replays, and returns what left by each port and the summary.
fn replay(cluster: &Cluster, recorded: &[(&str, PathBuf)], name: &str) -> (Vec<PathBuf>, serde_json::Value) {
    let mut command = Command::new(cluster::binary());
    command.args(["replay", "--seed", "7", "--json", "--config"]).arg(cluster.folder().join("pollgate.toml"));
    let mut outputs = Vec::new();
    for (port, file) in recorded {
        let output = cluster.folder().join(format!("{name}-{port}.pcap"));
        command.arg("--in").arg(format!("{port}={}", file.display()));
        command.arg("--out").arg(format!("{port}={}", output.display()));
        outputs.push(output);
    }
    let result = command.output().expect("the binary starts");
    assert!(result.status.success(), "replay: {}", String::from_utf8_lossy(&result.stderr));
    let mut summary: serde_json::Value = serde_json::from_slice(&result.stdout).expect("the summary is JSON");
    for output in summary["replay"]["outputs"].as_array_mut().expect("a row for each file that was written") {
        // The one thing that is meant to differ.
        output.as_object_mut().and_then(|output| output.remove("file")).expect("the file's name");
    }
    (outputs, summary)
}

/// received + handed in + originated + copied = transmitted + handed off + consumed + dropped + held
fn assert_balanced(summary: &serde_json::Value) {
    let sum = |names: &[&str]| -> u64 {
        names
            .iter()
            .map(|name| {
                summary["accounting"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {summary}"))
            })
            .sum()
    };
    let came = sum(&["received", "handed_in", "originated", "copied"]);
    let went = sum(&["transmitted", "handed_off", "consumed", "dropped", "held"]);
    assert!(came > 0 && came == went, "{came} packets came, {went} went: {summary}");
}
