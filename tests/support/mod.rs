//! A gateway on ports in memory, and packets built and read by pnet: an implementation that is not ours.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod packets;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use engine::clock::Timestamp;
use engine::counters::{Account, is_balanced};
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::memory::MemoryPort;
use engine::ring::Consumer;
use engine::snapshot::Publisher;
use engine::worker::{HandOff, Worker};
use pipelines::assembly::{WorkerHandle, WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::control::config::model::Configuration;
use pipelines::control::kubernetes::ObjectStore;
use pipelines::control::nodes::with_nodes;
use pipelines::drop_reason::DropReason;
use pipelines::gateway::{Gateway, Gauge};
use pipelines::table::affinity::AffinityTable;
use pipelines::table::bridge_mac::BridgeMacs;
use pipelines::table::interface::HOST_PORT;
use pipelines::table::neighbour::Neighbours;
use pipelines::table::{SlotCounter, Tables};

use engine::wire::ethernet::MacAddress;

/// The reference cluster's file.
pub const REFERENCE: &str = include_str!("../../configs/reference-cluster.toml");

/// A running gateway.
pub struct World {
    pub configuration: Configuration,
    pub workers: Vec<Worker<Gateway>>,
    pub handles: Vec<WorkerHandle>,
    pub publisher: Publisher<Tables>,
    pub builder: Builder,
    pub pool: MemoryPool,
    pub neighbours: Arc<Neighbours>,
    pub stations: Arc<BridgeMacs>,
    pub affinity: Arc<AffinityTable>,
    /// Kubernetes objects; none unless the world was made with manifests.
    pub objects: ObjectStore,
    pub now: Timestamp,
    /// The configuration without what nodes add.
    written: Configuration,
    /// By port, then worker.
    ports: Vec<Vec<MemoryPort>>,
}

impl World {
    pub fn new(text: &str) -> Self {
        Self::with(text, 1, 1)
    }

    pub fn with(text: &str, worker_count: usize, seed: u64) -> Self {
        Self::with_manifests(text, &[], worker_count, seed)
    }

    /// A world with Kubernetes objects: the name and text of each file, in which no object may be refused.
    pub fn with_manifests(text: &str, files: &[(&str, &str)], worker_count: usize, seed: u64) -> Self {
        let written = parsed(text);
        let mut objects = ObjectStore::new();
        for (file, text) in files {
            objects.replace_file(file, Some(text.as_bytes()));
        }
        assert_eq!(objects.counts().rejected, 0, "{:?}", objects.findings());
        let configuration = with_nodes(&written, &objects).0;
        let host_mac = MacAddress([0x02, 0, 0, 0, 0, 0x99]);
        let mut builder = Builder::new(worker_count, HostFacts { host_mac, host_mtu: 1500 });
        let tables = builder.build_with(&configuration, &objects).unwrap();
        let pool = MemoryPool::new(4_096);
        let ports: Vec<Vec<MemoryPort>> = (0..configuration.ports.len())
            .map(|_| (0..worker_count).map(|_| MemoryPort::new()).collect())
            .collect();
        let inputs = (0..worker_count)
            .map(|worker| WorkerInput {
                ports: ports
                    .iter()
                    .map(|queues| Some(Box::new(queues[worker].clone()) as Box<dyn PortQueue>))
                    .collect(),
                source: Box::new(pool.clone()),
            })
            .collect();
        let assembly = assemble(&configuration, tables, inputs, seed).unwrap();
        let mut world = Self {
            configuration,
            workers: assembly.workers,
            handles: assembly.handles,
            publisher: assembly.publisher,
            builder,
            pool,
            neighbours: assembly.neighbours,
            stations: assembly.stations,
            affinity: assembly.affinity,
            objects,
            now: Timestamp::from_seconds(1_000),
            written,
            ports,
        };
        // The first turn takes the tables over: static next hops are there, dynamic ones are asked for.
        world.turn();
        world
    }

    pub fn port(&self, name: &str) -> usize {
        self.configuration.ports.iter().position(|port| port.name == name).expect("a port's name")
    }

    /// Lets a frame arrive at the first worker.
    pub fn send(&mut self, port: &str, frame: &[u8]) {
        self.send_to(port, 0, frame);
    }

    pub fn send_to(&mut self, port: &str, worker: usize, frame: &[u8]) {
        let port = self.port(port);
        let packet = self.pool.packet(port as u16, frame).expect("a buffer");
        self.ports[port][worker].inject(packet);
    }

    /// Lets the host's own stack send a frame.
    pub fn send_from_host(&mut self, frame: &[u8]) {
        let packet = self.pool.packet(HOST_PORT, frame).expect("a buffer");
        assert!(self.handles[0].from_host.push(HandOff { packet, visit: 0 }).is_ok());
    }

    /// Turns of all workers until nothing more arrives, within one moment.
    pub fn turn(&mut self) {
        for _ in 0..64 {
            let taken: usize = self.workers.iter_mut().map(|worker| worker.turn(self.now)).sum();
            if taken == 0 {
                return;
            }
        }
        panic!("packets go round for ever");
    }

    /// Lets time pass, a millisecond a turn.
    pub fn advance_ms(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now = Timestamp(self.now.0 + 1_000_000);
            self.turn();
        }
    }

    /// Lets time pass at once.
    pub fn jump_s(&mut self, seconds: u64) {
        self.now = Timestamp(self.now.0 + seconds * 1_000_000_000);
        self.turn();
    }

    /// What left by a port since it was last asked.
    pub fn sent(&mut self, port: &str) -> Vec<Vec<u8>> {
        let port = self.port(port);
        let queues = &self.ports[port];
        queues
            .iter()
            .flat_map(|queue| std::iter::from_fn(|| queue.take_transmitted()))
            .map(|packet| packet.data().to_vec())
            .collect()
    }

    /// What went to the host's own stack since it was last asked.
    pub fn sent_to_host(&mut self) -> Vec<Vec<u8>> {
        let take = |ring: &mut Consumer<engine::packet::Packet>| {
            std::iter::from_fn(|| ring.pop()).map(|packet| packet.data().to_vec()).collect::<Vec<_>>()
        };
        self.handles.iter_mut().flat_map(|handle| take(&mut handle.to_host)).collect()
    }

    /// Sends a frame in and gives what leaves by `out`.
    pub fn exchange(&mut self, port: &str, frame: &[u8], out: &str) -> Vec<Vec<u8>> {
        self.send(port, frame);
        self.turn();
        self.sent(out)
    }

    /// New tables from another text.
    pub fn reload(&mut self, text: &str) {
        self.written = parsed(text);
        self.rebuild();
        self.advance_ms(1);
        assert_eq!(self.publisher.reclaim(), 1, "the old tables are freed once every worker has moved on");
    }

    /// Another text of one manifest, or none any more: what the control loop does about it, without what it does later.
    pub fn replace(&mut self, file: &str, text: Option<&str>) {
        let changes = self.objects.replace_file(file, text.map(str::as_bytes));
        assert_eq!(self.objects.counts().rejected, 0, "{:?}", self.objects.findings());
        if changes.nodes {
            self.rebuild();
            return;
        }
        let concerned: BTreeSet<_> = changes.services.union(&changes.moved).cloned().collect();
        let tables = self.builder.update(&self.objects, &concerned).expect("built before");
        self.publish(tables);
    }

    fn rebuild(&mut self) {
        self.configuration = with_nodes(&self.written, &self.objects).0;
        let tables = self.builder.build_with(&self.configuration, &self.objects).unwrap();
        self.publish(tables);
    }

    /// Publishes tables, and lets every worker take them up.
    pub fn publish(&mut self, tables: Tables) {
        self.publisher.publish(Arc::new(tables));
        self.turn();
    }

    /// What the control loop does now and then: frees what the workers' sweeps let go, and ends what has drained.
    pub fn tend(&mut self) {
        let gauge = |handle: &WorkerHandle| handle.gauges.get(Gauge::SweptGeneration as usize);
        let swept = self.handles.iter().map(gauge).min().unwrap_or_default();
        self.builder.services().set_time(self.now.0 / 1_000_000_000);
        if self.builder.reclaim(swept) {
            let tables = self.builder.update(&self.objects, &BTreeSet::new()).expect("built before");
            self.publish(tables);
        }
        self.publisher.reclaim();
    }

    /// Lets time pass until no change waits for the workers' sweeps any more.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            self.advance_ms(1);
            self.tend();
            if !self.builder.services().is_waiting() {
                assert!(!self.publisher.current().services.needs_sweep(), "nothing is left to look for");
                return;
            }
        }
        panic!("changes wait for ever");
    }

    pub fn account(&self, account: Account) -> u64 {
        self.handles.iter().map(|handle| handle.counters.accounts.get(account as usize)).sum()
    }

    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.handles.iter().map(|handle| handle.gauges.get(gauge as usize)).sum()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.handles.iter().map(|handle| handle.counters.drops.get(reason.code().into())).sum()
    }

    /// Every drop that was counted, by name.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        (0..pipelines::drop_reason::REASON_COUNT as u16)
            .map(|code| {
                let count: u64 =
                    self.handles.iter().map(|handle| handle.counters.drops.get(code.into())).sum();
                (pipelines::drop_reason::describe(code).1, count)
            })
            .filter(|drop| drop.1 > 0)
            .collect()
    }

    /// What became of packets, summed over the workers: every term of the equation that is not zero, in its order.
    pub fn accounts(&self) -> String {
        let terms = Account::ALL.map(|(account, name)| (name, self.account(account)));
        let terms: Vec<String> =
            terms.iter().filter(|term| term.1 > 0).map(|(name, count)| format!("{name} {count}")).collect();
        terms.join(", ")
    }

    /// Flows in all workers' tables, also those whose time is over and that no sweep has come by.
    pub fn tracked(&self) -> usize {
        self.workers.iter().map(|worker| worker.pipeline.flows().len()).sum()
    }

    /// Asserts exactly these drops, in the catalogue's order.
    pub fn assert_drops(&self, expected: &[(&str, u64)]) {
        assert_eq!(self.drops(), expected);
    }

    pub fn slot(&self, slot: u32, counter: SlotCounter) -> u64 {
        self.publisher.current().backend_counters.iter().map(|counters| counters.get(slot, counter)).sum()
    }

    /// Asserts the equation for each worker, and that every buffer is where the accounts say.
    pub fn assert_balanced(&mut self) {
        let mut held = 0;
        for handle in &self.handles {
            let values = handle.counters.account_values();
            assert!(is_balanced(&values), "{values:?} {:?}", self.drops());
            held += values[Account::Held as usize];
        }
        let names: Vec<String> = self.configuration.ports.iter().map(|port| port.name.clone()).collect();
        for name in names {
            self.sent(&name);
        }
        self.sent_to_host();
        assert_eq!(self.pool.in_use() as u64, held, "buffers are out that nobody holds");
    }
}

fn parsed(text: &str) -> Configuration {
    config::parse(text, "test.toml").unwrap_or_else(|report| panic!("{report}")).configuration
}

/// The reference cluster with static next hops for everything, so that scenarios need no ARP.
pub fn reference() -> String {
    let mut text = REFERENCE.replace("watch = true", "watch = false");
    for (address, port, last) in [
        ("172.30.76.7", "business-manager-1", 7),
        ("172.30.76.6", "business-manager-2", 6),
        ("172.30.76.5", "data-product-1", 5),
        ("172.30.76.3", "data-product-2", 3),
        ("172.30.76.2", "ingress-nginx", 2),
    ] {
        let mac = format!("02:42:ac:1e:4c:{last:02x}");
        text +=
            &format!("\n[[neighbours]]\ninterface = \"docker0\"\naddress = \"{address}\"\nmac = \"{mac}\"\n");
        text += &format!("\n[[fdb]]\ninterface = \"docker0\"\nmac = \"{mac}\"\nport = \"{port}\"\n");
    }
    for (address, last) in
        [("192.168.0.1", 1), ("192.168.0.22", 0x22), ("192.168.0.50", 0x50), ("192.168.0.103", 0x67)]
    {
        text += &format!(
            "\n[[neighbours]]\ninterface = \"eth0\"\naddress = \"{address}\"\nmac = \"02:00:c0:a8:00:{last:02x}\"\n"
        );
    }
    text
}

/// The reference cluster where the overlay's other end is known on the underlay, and every other next hop must be asked
/// for.
pub fn dynamic() -> String {
    let text = REFERENCE.replace("watch = true", "watch = false");
    text + "\n[[neighbours]]\ninterface = \"eth0\"\naddress = \"192.168.0.22\"\nmac = \"02:00:c0:a8:00:22\"\n"
}

/// The port that a pod of the reference cluster is on, by the last byte of its address.
pub fn pod_port(last: u8) -> &'static str {
    match last {
        7 => "business-manager-1",
        6 => "business-manager-2",
        5 => "data-product-1",
        3 => "data-product-2",
        2 => "ingress-nginx",
        _ => panic!("no pod at .{last}"),
    }
}

/// An address from text.
pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}
