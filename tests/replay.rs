//! Captures go in, captures come out: the reference cluster's gateway in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "replay/frames.rs"]
mod frames;
#[path = "replay/tshark.rs"]
mod tshark;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use engine::port::pcap::CaptureReader;
use engine::random::Random;
use frames::{
    BRIDGE, Content, Ip, NODE_1, NODE_2, OUTSIDE, PODS, REMOTE_POD, Sent, Station, Written, arp_request,
    datagram, frame, ip, ping, read_sent, syn, tunnelled, tunnelled_as, write_capture,
};
use pipelines::gateway::Gauge;
use pipelines::replay::{PortFile, ReplayOptions, ReplayReport, replay};
use pnet::packet::tcp::TcpFlags;

const START_MS: u64 = 1_780_000_000_000;
const MILLISECOND_NS: u64 = 1_000_000;
/// The service that most of these tests use.
const SERVICE: (&str, u16) = ("10.254.116.224", 50_051);
/// Connections of each client.
const CONNECTIONS: u16 = 30;
const PORTS: [&str; 6] =
    ["eth0", "business-manager-1", "business-manager-2", "data-product-1", "data-product-2", "ingress-nginx"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What is to come in: frames by port, each at a time in milliseconds.
#[derive(Clone, Default)]
struct Script {
    frames: BTreeMap<String, Vec<Written>>,
}

impl Script {
    fn at(&mut self, millisecond: u64, port: &str, frame: Vec<u8>) {
        let length = frame.len();
        let time_ns = (START_MS + millisecond) * MILLISECOND_NS;
        self.frames.entry(port.to_owned()).or_default().push((time_ns, frame, length));
    }

    fn records(&self) -> u64 {
        self.frames.values().map(|frames| frames.len() as u64).sum()
    }
}

/// A finished replay.
struct Outcome {
    report: ReplayReport,
    /// What left, by port.
    sent: BTreeMap<String, Vec<Sent>>,
    /// The outputs' bytes, by port.
    bytes: BTreeMap<String, Vec<u8>>,
    folder: tempfile::TempDir,
}

impl Outcome {
    fn ips(&self, port: &str) -> Vec<Ip> {
        self.sent[port].iter().filter_map(|sent| sent.ip.clone()).collect()
    }

    fn terms(&self) -> Vec<u64> {
        self.report.report.accounting.terms().iter().map(|(_, value)| *value).collect()
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops: Vec<_> =
            self.report.report.drops.iter().map(|drop| (drop.reason, drop.packets)).collect();
        drops.sort_unstable();
        drops
    }

    /// What must be true of every replay whose outputs are looked at.
    fn check(&self) {
        check_accounting(&self.report);
        let (report, facts) = (&self.report.report, &self.report.replay);
        for output in &facts.outputs {
            assert_eq!(output.packets, self.sent[&output.port].len() as u64);
            if let Some(port) = report.port(&output.port) {
                assert_eq!(port.transmitted_packets, output.packets);
            }
        }
        assert_eq!(self.report.warnings, []);
    }
}

/// What must be true of every replay.
fn check_accounting(report: &ReplayReport) {
    let (report, facts) = (&report.report, &report.replay);
    assert!(report.accounting.balanced, "{report}");
    assert_eq!((report.accounting.held, facts.buffers_lost), (0, 0));
    assert_eq!(facts.records, facts.injected + facts.own + facts.truncated + facts.oversized);
    let arrived = report.accounting.received + report.accounting.handed_in;
    assert_eq!(arrived, facts.injected + facts.neighbour_answers);
    assert_eq!(report.drops.iter().map(|drop| drop.packets).sum::<u64>(), report.accounting.dropped);
    let sum =
        |counter: fn(&pipelines::report::PortReport) -> u64| report.ports.iter().map(counter).sum::<u64>();
    assert_eq!(sum(|port| port.transmitted_packets), report.accounting.transmitted);
    assert_eq!(sum(|port| port.received_packets), report.accounting.received);
}

fn options(folder: &Path, inputs: &[(String, PathBuf)], outputs: &[&str]) -> ReplayOptions {
    let mut options = ReplayOptions::new(root().join("configs/reference-cluster.toml"));
    options.inputs =
        inputs.iter().map(|(port, path)| PortFile { port: port.clone(), path: path.clone() }).collect();
    let output = |port: &&str| format!("{port}={}", folder.join(format!("out-{port}.pcap")).display());
    options.outputs = outputs.iter().map(|port| output(port).parse().unwrap()).collect();
    options
}

fn run_with(script: &Script, change: impl FnOnce(&mut ReplayOptions)) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let inputs: Vec<(String, PathBuf)> = script
        .frames
        .iter()
        .map(|(port, frames)| {
            (port.clone(), write_capture(folder.path(), &format!("in-{port}.pcap"), frames))
        })
        .collect();
    let outputs: Vec<&str> = PORTS.iter().copied().chain(["host"]).collect();
    let mut options = options(folder.path(), &inputs, &outputs);
    change(&mut options);
    run_options(folder, &options)
}

fn run_options(folder: tempfile::TempDir, options: &ReplayOptions) -> Outcome {
    let report = replay(options).unwrap_or_else(|error| panic!("{error}"));
    let by_port = |output: &PortFile| (output.port.clone(), read_sent(&output.path));
    let bytes = |output: &PortFile| (output.port.clone(), std::fs::read(&output.path).unwrap());
    let outcome = Outcome {
        report,
        sent: options.outputs.iter().map(by_port).collect(),
        bytes: options.outputs.iter().map(bytes).collect(),
        folder,
    };
    outcome.check();
    outcome
}

fn run(script: &Script, seed: u64) -> Outcome {
    run_with(script, |options| options.seed = seed)
}

fn pod(port: &str) -> Station {
    PODS.iter().find(|(name, _)| *name == port).unwrap().1
}

/// Everyone says hello; a pod on each node opens connections to the service; and one packet of each other kind.
fn cluster_traffic() -> Script {
    let mut script = Script::default();
    script.at(0, "eth0", arp_request(NODE_2, NODE_1));
    script.at(1, "eth0", arp_request(OUTSIDE, NODE_1));
    for (port, pod) in PODS {
        script.at(2, port, arp_request(pod, BRIDGE));
    }
    let client = pod("business-manager-1");
    let local = |packet: &Ip| frame(client, BRIDGE, packet);
    for number in 0..CONNECTIONS {
        let at = 10 + u64::from(number);
        script.at(at, "business-manager-1", local(&syn((client.address, 40_000 + number), SERVICE)));
        script.at(at, "eth0", tunnelled(&syn((REMOTE_POD, 40_000 + number), SERVICE)));
    }
    script.at(100, "eth0", frame(OUTSIDE, NODE_1, &syn((OUTSIDE.address, 5_000), (NODE_1.address, 30_799))));
    script.at(101, "business-manager-1", local(&syn((client.address, 6_000), ("10.254.84.209", 3_306))));
    script.at(102, "eth0", tunnelled(&datagram((REMOTE_POD, 7_000), ("10.254.0.2", 53))));
    script.at(103, "business-manager-1", local(&ping(client.address, SERVICE.0)));
    let dying = Ip { time_to_live: 1, ..datagram((REMOTE_POD, 8_000), ("172.30.76.5", 9)) };
    script.at(104, "eth0", tunnelled(&dying));
    script.at(105, "business-manager-1", local(&ping(client.address, BRIDGE.address)));
    let mut damaged = tunnelled(&syn((REMOTE_POD, 9_000), SERVICE));
    damaged[40] ^= 0x10;
    script.at(106, "eth0", damaged);
    script.at(107, "eth0", tunnelled_as(2, &syn((REMOTE_POD, 9_001), SERVICE)));
    script
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_the_same_verdicts() {
    let script = cluster_traffic();
    let (first, again, other) = (run(&script, 7), run(&script, 7), run(&script, 8));
    assert_eq!(first.bytes, again.bytes);
    assert_eq!(first.report.report, again.report.report);
    assert_ne!(first.bytes, other.bytes);
    assert_eq!((first.terms(), first.drops()), (other.terms(), other.drops()));
    let choices = |outcome: &Outcome| -> Vec<Option<(Ipv4Addr, u16)>> {
        outcome.sent.values().flatten().map(|sent| Some(sent.ip.as_ref()?.destination)).collect()
    };
    assert_ne!(choices(&first), choices(&other), "other backends");
}

#[test]
fn every_counter_of_the_report_is_right() {
    let script = cluster_traffic();
    let outcome = run(&script, 7);
    let connections = 2 * u64::from(CONNECTIONS);
    // The gateway asks for node 2 when it sets its tunnel up; all others it has heard before it needs them.
    let (hellos, asked, records) = (6, 1, script.records());
    assert_eq!(records, hellos + connections + 8);
    // Of the eight others: two are forwarded, an echo is answered, two of five dropped ones get an ICMP error.
    let forwarded = connections + 2;
    let expected = [
        ("received", records + asked),
        ("handed_in", 0),
        ("originated", asked + hellos + 1 + 2),
        ("copied", 0),
        ("transmitted", forwarded + asked + hellos + 1 + 2),
        ("handed_off", 0),
        ("consumed", hellos + asked + 1),
        ("dropped", 5),
        ("held", 0),
    ];
    let report = &outcome.report.report;
    assert_eq!(report.accounting.terms(), expected);
    assert_eq!(
        outcome.drops(),
        [
            ("outer_udp_checksum", 1),
            ("service_icmp", 1),
            ("service_no_backend", 1),
            ("ttl_exceeded", 1),
            ("vni_unknown", 1)
        ]
    );
    assert_eq!((report.version, report.generation, report.workers.len()), (1, 1, 1));
    let facts = &outcome.report.replay;
    assert_eq!(
        (facts.seed, facts.records, facts.injected, facts.neighbour_answers),
        (7, records, records, asked)
    );
    assert_eq!((facts.own, facts.truncated, facts.oversized, facts.reordered), (0, 0, 0, 0));
    assert_eq!((facts.start_ns, facts.duration_ns), (Some(START_MS * MILLISECOND_NS), 107 * MILLISECOND_NS));
    let worker = &report.workers[0];
    assert_eq!((worker.accounting, worker.packets, worker.sleeps), (report.accounting, records + asked, 0));
    assert!(worker.turns > 107 && worker.busy_turns == records + asked, "{worker:?}");
    let gauges = [
        (Gauge::Flows, connections + 3),
        (Gauge::FlowsCreated, connections + 3),
        (Gauge::FlowsExpired, 0),
        (Gauge::FlowsEvicted, 0),
        (Gauge::FlowsReopened, 0),
        (Gauge::EventsLost, 0),
        (Gauge::NeighbourRequests, asked),
        (Gauge::Generation, 1),
    ];
    for (gauge, expected) in gauges {
        assert_eq!(report.gauge(gauge), expected, "{gauge:?}");
    }
    check_services(&outcome, connections);
}

fn check_services(outcome: &Outcome, connections: u64) {
    let report = &outcome.report.report;
    for service in &report.services {
        let expected = match (service.name.as_str(), service.port_name.as_str()) {
            ("data-product", "grpc") => (connections, connections, connections * 40),
            ("ingress-nginx", "http") | ("mysql", "mysql") => (1, 1, 40),
            _ => (0, 0, 0),
        };
        let traffic = service.traffic;
        assert_eq!((traffic.connections, traffic.packets_in, traffic.bytes_in), expected, "{}", service.name);
        assert_eq!((traffic.packets_out, traffic.bytes_out), (0, 0));
        assert_eq!(service.refused, u64::from(service.port_name == "dns"), "{}", service.name);
    }
    let mut reached: HashMap<Ipv4Addr, u64> = HashMap::new();
    for ip in outcome.sent.values().flatten().filter_map(|sent| sent.ip.as_ref()) {
        *reached.entry(ip.destination.0).or_default() += 1;
    }
    for backend in &report.service("default", "data-product", "grpc").unwrap().backends {
        assert!(backend.traffic.connections > 0);
        // The database's and the echo's packets go elsewhere.
        assert_eq!(Some(&backend.traffic.connections), reached.get(&backend.address), "{}", backend.address);
    }
}

#[test]
fn packets_leave_as_the_reference_cluster_sends_them() {
    let outcome = run(&cluster_traffic(), 7);
    let backends =
        ["172.30.76.5", "172.30.76.3", "172.30.9.2"].map(|address| address.parse::<Ipv4Addr>().unwrap());
    let homes =
        [("172.30.76.5", "data-product-1"), ("172.30.76.3", "data-product-2"), ("172.30.9.2", "eth0")];
    let mut sources: HashMap<(bool, bool), u64> = HashMap::new();
    for (port, sent) in outcome.sent.iter().flat_map(|(port, all)| all.iter().map(move |sent| (port, sent))) {
        let Some(ip) = sent.ip.as_ref().filter(|ip| ip.destination.1 == SERVICE.1) else { continue };
        assert!(backends.contains(&ip.destination.0), "{ip:?}");
        assert_eq!(ip.time_to_live, 63);
        assert_eq!(ip.content, Content::Tcp { flags: TcpFlags::SYN, payload: Vec::new() });
        let home = homes.iter().find(|(address, _)| ip.destination.0.to_string() == *address).unwrap().1;
        assert_eq!(port, home);
        assert_eq!(sent.tunnelled, home == "eth0");
        // A local client keeps its address; a remote one gets that of the interface that the packet leaves by.
        let is_local_client = ip.source.0 == pod("business-manager-1").ip();
        if !is_local_client {
            let masquerade = if sent.tunnelled { "172.30.76.0" } else { BRIDGE.address };
            assert_eq!(ip.source.0.to_string(), masquerade);
            assert!((32_768..=60_999).contains(&ip.source.1));
        }
        *sources.entry((is_local_client, sent.tunnelled)).or_default() += 1;
    }
    assert_eq!(sources.values().sum::<u64>(), 2 * u64::from(CONNECTIONS));
    assert_eq!(sources.len(), 4, "local and remote clients reached local and remote backends");
    check_the_others(&outcome);
}

fn check_the_others(outcome: &Outcome) {
    let ingress = outcome.ips("ingress-nginx");
    assert_eq!(ingress.len(), 1);
    assert_eq!((ingress[0].source.0, ingress[0].destination.1), (BRIDGE.ip(), 80));
    let database: Vec<&Sent> = outcome.sent["eth0"]
        .iter()
        .filter(|sent| sent.ip.as_ref().is_some_and(|ip| ip.destination == (OUTSIDE.ip(), 3_306)))
        .collect();
    assert_eq!(database.len(), 1);
    assert_eq!(database[0].macs, (NODE_1.hardware(), OUTSIDE.hardware()), "the MAC that the capture shows");
    assert_eq!(database[0].ip.as_ref().unwrap().source.0, NODE_1.ip());
    assert_eq!(database[0].time_ns, (START_MS + 101) * MILLISECOND_NS, "the neighbour answered at once");
    let errors: Vec<(u8, u8, String, bool)> = outcome.sent["eth0"]
        .iter()
        .filter_map(|sent| match sent.ip.as_ref()?.content {
            Content::Icmp { kind, code } => {
                Some((kind, code, sent.ip.as_ref()?.destination.0.to_string(), sent.tunnelled))
            }
            _ => None,
        })
        .collect();
    let expected = [(3, 3, REMOTE_POD.to_owned(), true), (11, 0, REMOTE_POD.to_owned(), true)];
    assert_eq!(errors, expected, "port unreachable and time exceeded, through the tunnel");
    let client = outcome.ips("business-manager-1");
    assert_eq!(client.len(), 1);
    assert_eq!((client[0].source.0, &client[0].content), (BRIDGE.ip(), &Content::Icmp { kind: 0, code: 0 }));
}

/// Each backend's answer to each first packet, as its pod or node would send it.
fn answers(outcome: &Outcome, script: &Script) -> Script {
    let mut script = script.clone();
    for (port, sent) in outcome.sent.iter().flat_map(|(port, all)| all.iter().map(move |sent| (port, sent))) {
        let Some(ip) = sent.ip.as_ref().filter(|ip| ip.destination.1 == SERVICE.1) else { continue };
        let answer = ip.accepted();
        let bytes = if sent.tunnelled {
            tunnelled(&answer)
        } else {
            // A pod on the same bridge is reached directly, without the gateway.
            let client = pod("business-manager-1");
            frame(pod(port), if answer.destination.0 == client.ip() { client } else { BRIDGE }, &answer)
        };
        script.at(1_000, port, bytes);
    }
    script
}

#[test]
fn answers_find_their_way_back() {
    let script = cluster_traffic();
    let script = answers(&run(&script, 7), &script);
    let outcome = run(&script, 7);
    let mut answered = BTreeMap::new();
    for (port, sent) in outcome.sent.iter().flat_map(|(port, all)| all.iter().map(move |sent| (port, sent))) {
        let Some(ip) = sent.ip.as_ref().filter(|ip| ip.source.1 == SERVICE.1) else { continue };
        assert_eq!(ip.source.0.to_string(), SERVICE.0, "from the service, whoever it was");
        assert_eq!(ip.content, Content::Tcp { flags: TcpFlags::SYN | TcpFlags::ACK, payload: Vec::new() });
        let is_bridged = sent.macs.0 == pod("data-product-1").hardware()
            || sent.macs.0 == pod("data-product-2").hardware();
        assert_eq!(ip.time_to_live, if is_bridged { 64 } else { 63 }, "bridging is no hop");
        let client = ip.destination.0.to_string();
        assert_eq!(port, if client == REMOTE_POD { "eth0" } else { "business-manager-1" });
        *answered.entry((client, ip.destination.1)).or_insert(0) += 1;
    }
    let clients = [pod("business-manager-1").address, REMOTE_POD];
    let expected: BTreeMap<(String, u16), i32> = clients
        .iter()
        .flat_map(|client| (0..CONNECTIONS).map(move |number| (((*client).to_owned(), 40_000 + number), 1)))
        .collect();
    assert_eq!(answered, expected);
    let service = outcome.report.report.service("default", "data-product", "grpc").unwrap();
    let traffic = service.traffic;
    assert_eq!((traffic.connections, traffic.packets_in, traffic.packets_out), (60, 60, 60));
    assert_eq!(outcome.drops().len(), 5, "as without answers");
    let files: Vec<PathBuf> =
        PORTS.iter().map(|port| outcome.folder.path().join(format!("out-{port}.pcap"))).collect();
    tshark::check(&files, outcome.folder.path());
}

/// Two datagrams from pod to pod, so many milliseconds apart.
fn two_datagrams(gap_ms: u64) -> Outcome {
    let mut script = Script::default();
    let packet = tunnelled(&datagram((REMOTE_POD, 8_000), ("172.30.76.5", 9)));
    script.at(0, "eth0", packet.clone());
    script.at(gap_ms, "eth0", packet);
    run(&script, 1)
}

#[test]
fn flows_expire_in_virtual_time() {
    // A flow without an answer lives for 30 s, and all flows are looked at once in 256 ms.
    for (gap_ms, expired) in [(29_900, 0), (30_300, 1), (3_600_000, 1)] {
        let outcome = two_datagrams(gap_ms);
        let report = &outcome.report.report;
        assert_eq!(report.gauge(Gauge::FlowsExpired), expired, "after {gap_ms} ms");
        assert_eq!((report.gauge(Gauge::FlowsCreated), report.gauge(Gauge::Flows)), (1 + expired, 1));
        let ips: Vec<Ip> = PORTS.iter().flat_map(|port| outcome.ips(port)).collect();
        assert_eq!(ips.len(), 2);
        assert!(
            outcome.report.replay.duration_ns == gap_ms * MILLISECOND_NS && report.accounting.dropped == 0
        );
    }
}

#[test]
fn without_answers_packets_wait_and_are_given_up() {
    let mut script = Script::default();
    script.at(0, "eth0", tunnelled(&datagram((REMOTE_POD, 8_000), ("172.30.76.5", 9))));
    let outcome = run_with(&script, |options| options.resolve_neighbours = false);
    let report = &outcome.report.report;
    assert_eq!(outcome.drops(), [("neighbour_unresolved", 1)]);
    assert_eq!((outcome.report.replay.neighbour_answers, report.accounting.transmitted > 6), (0, true));
    let last_ns = outcome.sent["data-product-1"].last().unwrap().time_ns - START_MS * MILLISECOND_NS;
    assert!(
        (2_000 * MILLISECOND_NS..4_000 * MILLISECOND_NS).contains(&last_ns),
        "the third request: {last_ns}"
    );
    assert!(outcome.ips("data-product-1").is_empty());
}

#[test]
fn what_cannot_be_replayed_is_left_out_and_counted() {
    let mut script = Script::default();
    let good = frame(OUTSIDE, NODE_1, &ping(OUTSIDE.address, NODE_1.address));
    script.at(0, "eth0", arp_request(OUTSIDE, NODE_1));
    script.at(5, "eth0", good.clone());
    script.at(6, "eth0", frame(NODE_1, OUTSIDE, &ping(NODE_1.address, OUTSIDE.address)));
    let large = Content::Udp { payload: vec![0; 2_100] };
    script.at(7, "eth0", frame(OUTSIDE, NODE_1, &ip((OUTSIDE.address, 1), (NODE_1.address, 2), large)));
    script.at(8, "eth0", good[..20].to_vec());
    script.frames.get_mut("eth0").unwrap()[4].2 = good.len();
    script.at(3, "eth0", good);
    let outcome = run(&script, 1);
    let facts = &outcome.report.replay;
    assert_eq!((facts.records, facts.injected), (6, 3));
    assert_eq!((facts.own, facts.oversized, facts.truncated, facts.reordered), (1, 1, 1, 1));
    assert_eq!((facts.inputs[0].records, facts.inputs[0].truncated), (6, 1));
    assert_eq!(outcome.ips("eth0").len(), 2, "both pings are answered");
    let text = outcome.report.to_string();
    for line in
        ["1 left out: sent by the gateway itself", "1 came in later than captured", "6 records in 0.008 s"]
    {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    let json = serde_json::to_value(&outcome.report).unwrap();
    assert_eq!((&json["replay"]["oversized"], &json["version"]), (&1.into(), &1.into()));
}

#[test]
fn the_hosts_own_stack_takes_part() {
    let mut script = Script::default();
    let to_host = syn((OUTSIDE.address, 5_000), (NODE_1.address, 22));
    script.at(0, "eth0", frame(OUTSIDE, NODE_1, &to_host));
    let host = Station { address: NODE_1.address, mac: "02:70:67:00:00:02" };
    let gateway = Station { address: NODE_1.address, mac: "02:70:67:00:00:01" };
    let by_host = syn((NODE_1.address, 41_000), (OUTSIDE.address, 80));
    script.at(1, "host", arp_request(host, OUTSIDE));
    script.at(2, "host", frame(host, gateway, &by_host));
    script.at(3, "host", frame(gateway, host, &by_host));
    script.at(4, "eth0", frame(OUTSIDE, NODE_1, &by_host.accepted()));
    let outcome = run(&script, 1);
    assert_eq!(outcome.ips("host"), [to_host, by_host.accepted()], "unchanged, and not a hop");
    assert_eq!(outcome.ips("eth0"), [by_host]);
    let macs: Vec<_> = outcome.sent["host"].iter().map(|sent| sent.macs).collect();
    assert_eq!(macs, [(gateway.hardware(), host.hardware()); 3], "the ARP answer among them");
    let accounting = outcome.report.report.accounting;
    assert_eq!((accounting.handed_in, accounting.handed_off, accounting.dropped), (2, 3, 0));
    assert_eq!(outcome.report.replay.own, 1, "what the gateway sent to the host");
}

#[test]
fn mistakes_destroy_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcap");
    std::fs::write(&input, b"this is no capture").unwrap();
    let mut options = options(folder.path(), &[("eth0".to_owned(), input)], &["eth0"]);
    std::fs::write(&options.outputs[0].path, b"precious").unwrap();
    let error =
        |options: &ReplayOptions| replay(options).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error(&options).contains("in.pcap is no capture file"), "{}", error(&options));
    options.inputs[0].port = "eth1".to_owned();
    assert!(error(&options).contains("did you mean `eth0`?"), "{}", error(&options));
    options.sources.config = Some(folder.path().join("none.toml"));
    assert!(error(&options).contains("cannot be read"), "{}", error(&options));
    assert_eq!(std::fs::read(&options.outputs[0].path).unwrap(), b"precious");
}

/// What the kernel's own vxlan, bridge and TCP sent (scripts/make-fixture.sh).
fn kernel_captures() -> (tempfile::TempDir, ReplayOptions) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = |name: &str| root().join("tests/fixtures").join(name);
    let inputs = [
        ("eth0".to_owned(), fixture("kernel-vxlan.pcap")),
        ("data-product-1".to_owned(), fixture("kernel-vxlan-pod.pcap")),
    ];
    let options = options(folder.path(), &inputs, &PORTS);
    (folder, options)
}

#[test]
fn what_the_kernel_sent_is_forwarded_and_decodes() {
    let run = || {
        let (folder, options) = kernel_captures();
        run_options(folder, &options)
    };
    let (outcome, again) = (run(), run());
    assert_eq!(outcome.bytes, again.bytes);
    let report = &outcome.report.report;
    assert_eq!(outcome.drops(), [("service_icmp", 2), ("service_no_backend", 2)]);
    let service = report.service("default", "data-product", "grpc").unwrap();
    assert_eq!((service.traffic.connections, service.traffic.packets_in), (12, 12));
    assert_eq!(report.service("kube-system", "kube-dns", "dns").unwrap().refused, 2);
    // HTTP over TCP from pod to pod, byte by byte, with the handshake and the end.
    let payload = |ips: &[Ip]| -> Vec<u8> {
        let bytes = ips.iter().filter_map(|ip| match &ip.content {
            Content::Tcp { payload, .. } => Some(payload.clone()),
            _ => None,
        });
        bytes.flatten().collect()
    };
    let request = payload(&outcome.ips("data-product-1"));
    assert!(request.starts_with(b"GET /file HTTP/1.1\r\n"));
    let response = payload(&outcome.ips("eth0"));
    assert!(response.starts_with(b"HTTP/1.0 200 OK\r\n") && response.ends_with(&[b'x'; 4_096]));
    let large = outcome.sent["eth0"].iter().filter(|sent| {
        sent.ip
            .as_ref()
            .is_some_and(|ip| ip.content == Content::Icmp { kind: 8, code: 0 } && ip.time_to_live == 63)
    });
    assert_eq!(large.count(), 2, "pings at full MTU");
    let files: Vec<PathBuf> =
        PORTS.iter().map(|port| outcome.folder.path().join(format!("out-{port}.pcap"))).collect();
    tshark::check(&files, outcome.folder.path());
}

/// The records of one of the kernel's captures.
fn records(path: &Path) -> Vec<Written> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push((record.timestamp.0, record.bytes.to_vec(), record.bytes.len()));
    }
    records
}

/// A few bytes of each record changed, some cut short, some at another time.
fn damage(records: &mut [Written], random: &mut Random) {
    for (time_ns, bytes, length) in records {
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len().min(120) as u32) as usize;
            bytes[at] = random.next_u32() as u8;
        }
        if random.below(10) == 0 {
            bytes.truncate(random.below(bytes.len() as u32) as usize);
            *length = bytes.len();
        }
        if random.below(20) == 0 {
            *time_ns += random.next_u64() % (4_000_000 * MILLISECOND_NS);
        }
    }
}

#[test]
fn whatever_comes_in_is_accounted_for() {
    let (folder, mut options) = kernel_captures();
    let originals: Vec<Vec<Written>> = options.inputs.iter().map(|input| records(&input.path)).collect();
    let mut reasons = BTreeMap::new();
    let mut random = Random::new(5);
    for round in 0..40 {
        for (input, original) in options.inputs.iter_mut().zip(&originals) {
            let mut frames = vec![original.clone(); 3].concat();
            damage(&mut frames, &mut random);
            input.path = write_capture(folder.path(), &format!("in-{}.pcap", input.port), &frames);
        }
        (options.seed, options.resolve_neighbours) = (round, round % 3 != 0);
        let report = replay(&options).unwrap_or_else(|error| panic!("{error}"));
        check_accounting(&report);
        for drop in &report.report.drops {
            *reasons.entry(drop.reason).or_insert(0) += drop.packets;
        }
    }
    for reason in
        ["ethernet_truncated", "ipv4_checksum", "ipv4_truncated", "outer_udp_checksum", "arp_malformed"]
    {
        assert!(reasons.contains_key(reason), "{reason} is not among {reasons:?}");
    }
}
