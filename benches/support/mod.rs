//! Gateways under load, for benchmarks: the reference cluster on a port that receives preloaded frames.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each benchmark uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "benchmarks fail by panicking")]

#[path = "../../tests/support/packets.rs"]
pub mod packets;

use std::net::Ipv4Addr;
use std::sync::Arc;

use engine::batch::{Batch, Disposition};
use engine::clock::{Timestamp, cycles};
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::preloaded::{Alter, PreloadedPort};
use engine::worker::{Connections, Pipeline, Worker, WorkerCounters};
use pipelines::assembly::{WorkerHandle, WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::gateway::Gateway;

/// Node 1 of the reference cluster without its pods: all load comes and goes by the tunnel.
pub const NODE: &str = r#"
[node]
name = "node-1"
addresses = ["192.168.0.21"]

[dpdk]
memory = "auto"

[workers]
cores = [1]
idle = "poll"

[control]
cores = [0]
socket = "SOCKET"
watch = false

[[ports]]
name = "eth0"
role = "underlay"
device = "DEVICE"
mac = "02:00:c0:a8:00:15"
address = "192.168.0.21/24"

[overlay]
underlay = "eth0"
address = "172.30.76.0"
mac = "8a:22:81:5e:d8:b7"
pod_network = "172.30.0.0/16"

[[routes]]
destination = "172.30.0.0/16"
via = "172.30.9.0"
interface = "flannel.1"

[[neighbours]]
interface = "flannel.1"
address = "172.30.9.0"
mac = "96:8f:2d:49:c5:31"

[[neighbours]]
interface = "eth0"
address = "192.168.0.22"
mac = "02:00:c0:a8:00:22"

[[fdb]]
interface = "flannel.1"
mac = "96:8f:2d:49:c5:31"
remote = "192.168.0.22"

[conntrack]
capacity = CAPACITY

[services]
pod_cidrs = POD_CIDRS
service_cidrs = ["10.254.0.0/16"]
"#;

/// For the packets module, which tests and benchmarks share.
pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

/// What arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// UDP to services through the tunnel, sent on to a backend on another node through the tunnel.
    Dnat,
    /// The same, masqueraded with the VTEP's address.
    Masquerade,
    /// UDP between pods of other nodes: tunnel, route, tunnel.
    Plain,
    /// Every packet the first of a new flow, to a service.
    NewDnat,
    /// Every packet the first of a new flow, to a service, masqueraded.
    NewMasquerade,
}

impl Load {
    pub const ALL: [Self; 5] =
        [Self::Dnat, Self::Masquerade, Self::Plain, Self::NewDnat, Self::NewMasquerade];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dnat => "dnat",
            Self::Masquerade => "masquerade",
            Self::Plain => "plain",
            Self::NewDnat => "new_dnat",
            Self::NewMasquerade => "new_masquerade",
        }
    }

    pub fn is_new(self) -> bool {
        matches!(self, Self::NewDnat | Self::NewMasquerade)
    }
}

/// Backends of each service: enough that masqueraded loads never run out of ports.
const BACKENDS: usize = 48;

/// That node with `services` services of [`BACKENDS`] backends on node 2, and room for `flows` flows.
pub fn configuration(load: Load, flows: usize, services: usize) -> String {
    let pods = match load {
        Load::Masquerade | Load::NewMasquerade => "[\"172.30.76.0/24\"]",
        _ => "[]",
    };
    let mut text = NODE
        .replace("CAPACITY", &flows.to_string())
        .replace("POD_CIDRS", pods)
        .replace("SOCKET", "/run/pollgate/bench.sock")
        .replace("DEVICE", "net_null0");
    let backends: Vec<String> =
        (0..BACKENDS).map(|last| format!("{{ address = \"172.30.9.{}:8080\" }}", 2 + last)).collect();
    let backends = backends.join(", ");
    for service in 0..services {
        let address = Ipv4Addr::from(service_address(service));
        text += &format!(
            "\n[[service]]\nnamespace = \"load\"\nname = \"s{service}\"\ncluster_ip = \"{address}\"\n\
             [[service.ports]]\nprotocol = \"udp\"\nport = 80\nbackends = [{backends}]\n"
        );
    }
    text
}

/// 10.254.128.0 and up.
fn service_address(service: usize) -> u32 {
    0x0afe_8000 + service as u32
}

/// One frame a flow; the inner frame is 64 bytes with its checksum field.
pub fn frames(load: Load, flows: usize, services: usize) -> Arc<Vec<Vec<u8>>> {
    let frame = |flow: usize| {
        // An odd multiplier shuffles within a power of two.
        let number = (flow * 0x9e37_79b1) % flows.next_power_of_two();
        let source = Ipv4Addr::from(0xac1e_0a00 + (number >> 14) as u32 % 0xffff);
        let source_port = 1_024 + (number & 0x3fff) as u16;
        let destination = match load {
            Load::Plain => format!("172.30.9.{}:80", 2 + number % 200),
            _ => format!("{}:80", Ipv4Addr::from(service_address(number % services))),
        };
        // 60 bytes of Ethernet, IP and UDP make 64 with the frame check sequence that no one sees.
        let mut frame = packets::from_tunnel(&packets::udp(
            &format!("{source}:{source_port}"),
            &destination,
            &[0x5a; 18],
        ));
        // No outer checksum, as the peers were measured.
        frame[40..42].fill(0);
        frame
    };
    Arc::new((0..flows).map(frame).collect())
}

/// Fisher and Yates's shuffle, the same every time.
fn shuffle(frames: &mut [Vec<u8>]) {
    let mut random = engine::random::Random::new(9);
    for last in (1..frames.len()).rev() {
        frames.swap(last, random.below(last as u32 + 1) as usize);
    }
}

/// Makes each packet a flow of its own: the inner source address counts up, its checksum follows.
pub fn renumber(bytes: &mut [u8], count: u64) {
    // Outer checksum absent; inner IP header at 64, UDP at 84.
    bytes[40..42].fill(0);
    bytes[90..92].fill(0);
    let address = 0x6400_0000u32 | (count as u32 & 0x00ff_ffff);
    bytes[76..80].copy_from_slice(&address.to_be_bytes());
    bytes[84..86].copy_from_slice(&((count >> 24) as u16 | 0x0400).to_be_bytes());
    bytes[74..76].fill(0);
    let checksum = engine::wire::checksum::checksum(&bytes[64..84]);
    bytes[74..76].copy_from_slice(&checksum.to_be_bytes());
}

/// Room for a load of this many flows: a quarter more, so that tables are four fifths full.
pub fn capacity(flows: usize) -> usize {
    flows.max(1_024) * 5 / 4
}

/// A worker with its load.
pub struct Bench {
    pub worker: Worker<Gateway>,
    pub handle: WorkerHandle,
    now: Timestamp,
}

impl Bench {
    pub fn new(load: Load, flows: usize, services: usize) -> Self {
        let capacity = capacity(flows);
        let text = configuration(load, capacity, services);
        let loaded = config::parse(&text, "bench.toml").unwrap_or_else(|report| panic!("{report}"));
        let configuration = loaded.configuration;
        let tables = Builder::new(1, HostFacts::default()).build(&configuration).unwrap();
        let mut pool = MemoryPool::new(1_024);
        let underlay = configuration.ports.iter().position(|port| port.name == "eth0").unwrap();
        let alter: Option<Alter> = load.is_new().then_some(renumber);
        let mut port = PreloadedPort::new(
            underlay as u16,
            frames(load, flows.min(1 << 16).max(if load.is_new() { 1 } else { flows }), services),
            32,
            &mut pool,
        );
        if let Some(alter) = alter {
            port = port.altered(alter);
        }
        let mut ports: Vec<Option<Box<dyn PortQueue>>> = configuration.ports.iter().map(|_| None).collect();
        ports[underlay] = Some(Box::new(port));
        let input = WorkerInput { ports, source: Box::new(pool) };
        let mut assembly = assemble(&configuration, tables, vec![input], 1).unwrap();
        let mut bench = Self {
            worker: assembly.workers.remove(0),
            handle: assembly.handles.remove(0),
            now: Timestamp::from_seconds(1_000),
        };
        // Until every flow is there, and every line has been touched once more.
        let turns = if load.is_new() { 4 * flows / 32 } else { 2 * flows.div_ceil(32) + 64 };
        bench.turns(turns as u64);
        assert_eq!(bench.outcome().1, 0, "packets were dropped: {}", load.name());
        bench
    }

    /// Turns of 32 packets each; a microsecond of virtual time a turn.
    pub fn turns(&mut self, turns: u64) {
        for _ in 0..turns {
            self.now = Timestamp(self.now.0 + 4_000);
            self.worker.turn(self.now);
        }
    }

    /// Cycles a packet over this many turns.
    pub fn cycles_per_packet(&mut self, turns: u64) -> f64 {
        let received = || self.handle.counters.turns.get(2);
        let before = (cycles(), received());
        for _ in 0..turns {
            self.now = Timestamp(self.now.0 + 4_000);
            self.worker.turn(self.now);
        }
        (cycles() - before.0) as f64 / (self.handle.counters.turns.get(2) - before.1) as f64
    }

    /// Packets that left and packets that were dropped, so far.
    pub fn outcome(&self) -> (u64, u64) {
        (self.handle.counters.accounts.get(4), self.handle.counters.accounts.get(7))
    }
}

/// Sends everything back where it came from: what the port and the loop cost.
pub struct Null;

impl Pipeline for Null {
    type Meta = u8;
    fn resume(&mut self, _: &mut Batch<u8>, _: Timestamp) {}
    fn process(&mut self, batch: &mut Batch<u8>, _: Timestamp) {
        for index in 0..batch.len() {
            batch.dispositions[index] = Disposition::Transmit(0);
        }
    }
    fn tend(&mut self, _: &mut Batch<u8>, _: Timestamp) {}
    fn sleep(&mut self) {}
}

/// A worker that does nothing with the frames of a load.
pub fn null_worker(frames: Arc<Vec<Vec<u8>>>) -> Worker<Null> {
    let mut pool = MemoryPool::new(1_024);
    let port = PreloadedPort::new(0, frames, 32, &mut pool);
    let connections =
        Connections { ports: vec![Some(Box::new(port))], inboxes: vec![], outboxes: vec![], host: None };
    Worker::new(Null, connections, WorkerCounters::new(1, 16), 32)
}

/// TSC cycles of a million steps of a dependent multiplication: how fast the core runs against its TSC just now.
pub fn calibration() -> f64 {
    let started = cycles();
    let mut value = 0x9e37_79b9_7f4a_7c15u64;
    for step in 0..1_000_000u64 {
        value = std::hint::black_box(value.wrapping_mul(value | 1).wrapping_add(step));
    }
    std::hint::black_box(value);
    (cycles() - started) as f64 / 1_000_000.0
}
