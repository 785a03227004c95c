//! A gateway under load: services as Kubernetes objects, any number of workers, each with a port that never runs dry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::clock::{MonotonicClock, Timestamp, cycles};
use engine::counters::{Account, is_balanced};
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::snapshot::Publisher;
use engine::worker::{Connections, Worker, WorkerCounters};
use pipelines::assembly::{WorkerHandle, WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::control::config::model::Configuration;
use pipelines::control::kubernetes::{Changes, ObjectStore};
use pipelines::drop_reason::{REASON_COUNT, describe};
use pipelines::gateway::{Gateway, Gauge};
use pipelines::table::Tables;

use crate::cluster::Cluster;
use crate::port::{Depot, PACKETS, TrafficPort};
use crate::support::Null;
use crate::traffic::{Services, Traffic};

/// Packets that wait between two workers at the most: the default of `[workers] handoff_ring`.
const HAND_OFF_RING: usize = 1_024;

/// What a gateway is like.
pub(crate) struct Shape {
    pub(crate) cluster: Cluster,
    /// Flows that each worker tracks at the most.
    pub(crate) capacity: usize,
    /// Clients are none of this node's pods, so that they are masqueraded.
    pub(crate) masquerade: bool,
    /// Flows of UDP outlive every pause of the measurement.
    pub(crate) lasting: bool,
    /// No more packets are on their way, in the rings too, than one of these rings holds: none is ever full.
    pub(crate) paced: bool,
}

impl Shape {
    pub(crate) fn new(cluster: Cluster, capacity: usize) -> Self {
        Self { cluster, capacity, masquerade: false, lasting: true, paced: false }
    }

    fn configuration(&self) -> Configuration {
        let mut conntrack = format!("capacity = {}\n", self.capacity);
        if self.lasting {
            conntrack += "udp_s = 86400\n";
        }
        let pods = if self.masquerade { "pod_cidrs = [\"172.30.76.0/24\"]" } else { "pod_cidrs = []" };
        let text = self.cluster.configuration().replace("capacity = 4096\n", &conntrack)
            + "\n[[routes]]\ndestination = \"100.0.0.0/8\"\nvia = \"172.30.9.0\"\ninterface = \"flannel.1\"\n";
        let text = text.replace("pod_cidrs = []", pods);
        config::parse(&text, "bench.toml").unwrap_or_else(|report| panic!("{report}")).configuration
    }
}

/// The services of a cluster that traffic is for: the first `count`.
pub(crate) fn services(cluster: &Cluster, count: usize) -> Services {
    Services { first: u32::from(cluster.service_address(0)), count }
}

/// A gateway and what the control side keeps of it.
pub(crate) struct World {
    pub(crate) workers: Vec<Worker<Gateway>>,
    pub(crate) handles: Vec<WorkerHandle>,
    pub(crate) clock: MonotonicClock,
    pub(crate) store: ObjectStore,
    builder: Builder,
    publisher: Publisher<Tables>,
    switches: Vec<Arc<AtomicBool>>,
    /// For measurements without a real clock.
    now: Timestamp,
}

impl World {
    /// A gateway with a worker for each traffic.
    pub(crate) fn new<T: Traffic + 'static>(shape: &Shape, traffic: Vec<T>) -> Self {
        let configuration = shape.configuration();
        let mut store = ObjectStore::new();
        for service in 0..shape.cluster.services {
            for object in shape.cluster.objects(service) {
                store.put(object, "bench");
            }
        }
        let count = traffic.len();
        let mut builder = Builder::new(count, HostFacts::default());
        let tables = builder.build_with(&configuration, &store).expect("few routes");
        assert_eq!(tables.services.iter().count(), shape.cluster.services);
        let underlay = configuration.ports.iter().position(|port| port.name == "eth0").expect("is there");
        let (depot, mut switches) = (Arc::new(Depot::default()), Vec::new());
        let mut input = |traffic: T| {
            let buffers = if shape.paced {
                (HAND_OFF_RING / 2 / count).max(PACKETS * 2)
            } else {
                2_048 + HAND_OFF_RING * (count - 1)
            };
            let port = TrafficPort::new(underlay as u16, traffic, buffers, &depot);
            switches.push(port.switch());
            let mut ports: Vec<Option<Box<dyn PortQueue>>> =
                configuration.ports.iter().map(|_| None).collect();
            ports[underlay] = Some(Box::new(port));
            WorkerInput { ports, source: Box::new(MemoryPool::new(64)) }
        };
        let inputs = traffic.into_iter().map(&mut input).collect();
        let assembly = assemble(&configuration, tables, inputs, 1).expect("memory for the flows");
        Self {
            workers: assembly.workers,
            handles: assembly.handles,
            clock: MonotonicClock::new(),
            store,
            builder,
            publisher: assembly.publisher,
            switches,
            now: Timestamp::from_seconds(1_000),
        }
    }

    /// Takes over what changed and publishes it, as the control loop does. Gives the generation.
    pub(crate) fn publish(&mut self, changes: &Changes) -> u64 {
        let swept = self.gauge_min(Gauge::SweptGeneration);
        self.builder.reclaim(swept);
        let concerned: BTreeSet<_> = changes.services.union(&changes.moved).cloned().collect();
        let tables = self.builder.update(&self.store, &concerned).expect("built before");
        let generation = tables.generation;
        self.publisher.publish(Arc::new(tables));
        generation
    }

    /// Frees what the workers' sweeps let go, and publishes what that changes.
    pub(crate) fn tend(&mut self) {
        let swept = self.gauge_min(Gauge::SweptGeneration);
        if self.builder.reclaim(swept) {
            let tables = self.builder.update(&self.store, &BTreeSet::new()).expect("built before");
            self.publisher.publish(Arc::new(tables));
        }
        self.publisher.reclaim();
    }

    /// Whether changes still wait for the workers to have been through their flows.
    pub(crate) fn is_unsettled(&mut self) -> bool {
        self.publisher.reclaim();
        self.builder.services().is_waiting() || self.publisher.current().services.needs_sweep()
    }

    /// Turns of all workers in turn on this thread: 4 microseconds of virtual time a turn.
    pub(crate) fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.now = Timestamp(self.now.0 + 4_000);
            for worker in &mut self.workers {
                worker.turn(self.now);
            }
        }
    }

    /// As [`Self::turns`], by the real clock.
    pub(crate) fn real_turns(&mut self, turns: usize) {
        for _ in 0..turns {
            for worker in &mut self.workers {
                worker.turn(self.clock.now());
            }
        }
    }

    /// Cycles a packet of the one worker over this many turns in virtual time.
    pub(crate) fn cycles_per_packet(&mut self, turns: usize) -> f64 {
        let (started, received) = (cycles(), self.account(Account::Received));
        self.turns(turns);
        (cycles() - started) as f64 / (self.account(Account::Received) - received) as f64
    }

    /// Lets nothing arrive any more, and all that is inside come to its end.
    pub(crate) fn drain(&mut self) {
        self.switches.iter().for_each(|switch| switch.store(false, Ordering::Relaxed));
        let started = std::time::Instant::now();
        loop {
            let clock = self.clock;
            let taken: usize = self.workers.iter_mut().map(|worker| worker.turn(clock.now())).sum();
            if taken == 0 {
                return;
            }
            assert!(started.elapsed().as_secs() < 10, "packets go round for ever");
        }
    }

    pub(crate) fn account(&self, account: Account) -> u64 {
        self.handles.iter().map(|handle| handle.counters.accounts.get(account as usize)).sum()
    }

    pub(crate) fn gauge(&self, gauge: Gauge) -> u64 {
        self.handles.iter().map(|handle| handle.gauges.get(gauge as usize)).sum()
    }

    fn gauge_min(&self, gauge: Gauge) -> u64 {
        self.handles.iter().map(|handle| handle.gauges.get(gauge as usize)).min().unwrap_or(0)
    }

    /// Flows in all workers' tables now.
    pub(crate) fn tracked(&self) -> usize {
        self.workers.iter().map(|worker| worker.pipeline.flows().len()).sum()
    }

    /// Every drop that was counted, by name.
    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let count =
            |code: usize| self.handles.iter().map(|handle| handle.counters.drops.get(code)).sum::<u64>();
        let all = (0..REASON_COUNT).map(|code| (describe(code as u16).1, count(code)));
        all.filter(|drop| drop.1 > 0).collect()
    }

    /// Asserts that each worker's packets are accounted for, and that none was dropped but for these reasons.
    pub(crate) fn assert_sound(&self, allowed: &[&str]) {
        for handle in &self.handles {
            let values = handle.counters.account_values();
            assert!(is_balanced(&values), "packets are missing: {values:?}");
        }
        let drops = self.drops();
        let wrong: Vec<_> = drops.iter().filter(|drop| !allowed.contains(&drop.0)).collect();
        assert!(wrong.is_empty(), "the figure would be another's: dropped {wrong:?}");
    }
}

/// A worker that sends everything back: what this traffic, the port and the loop cost.
pub(crate) fn null_worker<T: Traffic + 'static>(traffic: T) -> Worker<Null> {
    let port = TrafficPort::new(0, traffic, 1_024, &Arc::default());
    let connections =
        Connections { ports: vec![Some(Box::new(port))], inboxes: vec![], outboxes: vec![], host: None };
    Worker::new(Null, connections, WorkerCounters::new(1, 16), PACKETS)
}

/// Its cycles a packet.
pub(crate) fn null_cycles(worker: &mut Worker<Null>, turns: usize) -> f64 {
    let started = cycles();
    let mut taken = 0;
    for turn in 0..turns {
        taken += worker.turn(Timestamp(turn as u64));
    }
    (cycles() - started) as f64 / taken as f64
}
