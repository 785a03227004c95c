//! The generator against the gateway itself, in one process and in virtual time: the configuration that is written for the
//! gateway fits, every kind of traffic goes through without loss, and every check passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use engine::pool::MemoryPool;
use engine::port::ring::RingPort;
use engine::port::{Burst, PortQueue};
use engine::worker::Worker;
use pipelines::assembly::{WorkerHandle, WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::gateway::{Gateway, Gauge};
use pktgen::config::{Configuration, Setting};
use pktgen::gateway_config::{GatewayOptions, gateway_config};
use pktgen::ideal::SharedClock;
use pktgen::nat::{NatSettings, closing_rate, establishment_rate};
use pktgen::runner::Runner;
use pktgen::trial::Trial;
use support::virtual_clock;

const OVERLAY: &str = include_str!("../configs/overlay.toml");

/// Our end of a ring to the gateway, which has its turn whenever we look for packets.
struct Driven {
    port: RingPort,
    worker: Arc<Mutex<Worker<Gateway>>>,
    clock: SharedClock,
}

impl PortQueue for Driven {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        let mut worker = self.worker.lock().unwrap();
        while worker.turn((self.clock)()) > 0 {}
        self.port.receive(burst, limit);
    }

    fn transmit(&mut self, burst: &mut Burst) {
        self.port.transmit(burst);
    }
}

struct World {
    runner: Runner,
    handle: WorkerHandle,
    generator_pool: MemoryPool,
    configuration: Configuration,
}

fn world(capacity: u64, settings: &[&str]) -> World {
    let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
    let configuration = Configuration::parse(OVERLAY, &settings).unwrap();
    let scenario = configuration.scenario().unwrap();
    let options = GatewayOptions {
        device: "net_null0".into(),
        capacity,
        core: 1,
        control_core: 0,
        socket: None,
        memory: "none".into(),
    };
    let text = gateway_config(&configuration, &scenario.links[0], &options).unwrap();
    let loaded =
        pipelines::control::config::parse(&text, "gateway.toml").unwrap_or_else(|report| panic!("{report}"));
    let tables = Builder::new(1, HostFacts::default()).build(&loaded.configuration).unwrap();

    let (near, far) = RingPort::pair(1_024, (0, 0));
    let input = WorkerInput { ports: vec![Some(Box::new(far))], source: Box::new(MemoryPool::new(512)) };
    let mut assembly = assemble(&loaded.configuration, tables, vec![input], 1).unwrap();
    let (clock, reader) = virtual_clock();
    let worker = Arc::new(Mutex::new(assembly.workers.remove(0)));
    let port = Driven { port: near, worker, clock: reader };
    let generator_pool = MemoryPool::new(4_096);
    let load = configuration.load_settings().unwrap();
    let runner = Runner::new(scenario, load, vec![Box::new(port)], Box::new(generator_pool.clone()), clock);
    World { runner, handle: assembly.handles.remove(0), generator_pool, configuration }
}

impl World {
    fn flows(&self) -> u64 {
        self.handle.gauges.get(Gauge::Flows as usize)
    }

    fn dropped(&self) -> u64 {
        let accounts = self.handle.counters.account_values();
        accounts[engine::counters::Account::Dropped as usize]
    }

    /// A trial without loss or fault, after which no buffer is missing.
    fn clean_trial(&mut self, rate: u64, seconds: f64) -> Trial {
        let trial = self.runner.trial(Some(rate), seconds).unwrap();
        assert!(trial.clean && trial.warm_up_lost == 0 && trial.sent > 500, "{trial:#?}");
        assert_eq!((trial.icmp, trial.resets, trial.other, self.dropped()), (0, 0, 0, 0));
        trial
    }
}

#[test]
fn established_flows_keep_their_backends() {
    for replies in ["false", "true"] {
        let mut world = world(8_192, &["traffic.flows=3000", &format!("traffic.replies={replies}")]);
        let trial = world.clean_trial(400_000, 0.02);
        assert_eq!((world.flows(), trial.replies.sent > 0), (3_000, replies == "true"));
        assert!(trial.latency.p99_us > 0.0);
        world.clean_trial(400_000, 0.02);
        assert_eq!(world.flows(), 3_000);
    }
}

#[test]
fn mixed_sizes_and_outer_checksums_pass() {
    // The largest frame that fits the overlay's MTU.
    let sizes = "traffic.sizes=[{ bytes = 64, weight = 7 }, { bytes = 594, weight = 4 }, { bytes = 1468, weight = 1 }]";
    let mut world =
        world(1_024, &["traffic.flows=100", sizes, "ports.0.vxlan.checksum=true", "traffic.replies=true"]);
    world.clean_trial(100_000, 0.02);
}

#[test]
fn masqueraded_flows_keep_their_source() {
    let masquerade = "expect.masquerade=[\"172.30.76.0\"]";
    let mut world = world(8_192, &["traffic.flows=2000", masquerade, "traffic.replies=true"]);
    world.clean_trial(200_000, 0.02);
    let mut world = self::world(8_192, &["traffic.kind=tcp", "traffic.connections=500", masquerade]);
    world.clean_trial(50_000, 0.02);
}

#[test]
fn each_packet_of_new_flows_is_one() {
    let mut world = world(65_536, &["traffic.kind=udp-new"]);
    let trial = world.clean_trial(500_000, 0.02);
    // Gauges are a moment late.
    assert!((trial.sent - 1_000..=trial.sent).contains(&world.flows()));
}

#[test]
fn new_flows_go_on_when_the_table_is_full() {
    let mut world = world(1_024, &["traffic.kind=udp-new"]);
    let trial = world.clean_trial(500_000, 0.02);
    assert!(trial.sent > 9_000 && world.flows() <= 1_024);
}

#[test]
fn connections_come_and_go_whole() {
    for exchanges in [0, 1, 10] {
        let exchanges = format!("traffic.exchanges={exchanges}");
        let mut world = world(65_536, &["traffic.kind=tcp", "traffic.connections=500", &exchanges]);
        let trial = world.clean_trial(50_000, 0.02);
        let counts = trial.connections.unwrap();
        assert_eq!((counts.opened, counts.failed), (counts.completed, 0));
        assert!(counts.completed >= 999);
    }
}

#[test]
fn what_is_not_translated_is_routed() {
    let text = "services=[{ addresses = \"172.30.9.2-172.30.9.200\", port = 80 }]";
    let mut world = world(8_192, &["traffic.flows=2000", text]);
    world.clean_trial(200_000, 0.02);
}

#[test]
fn tests_of_stateful_nat_run_on_it() {
    let mut world = world(20_000, &["search.max_per_s=1000000", "search.precision=0.1"]);
    let goal = world.configuration.search_goal().unwrap();
    let settings = NatSettings { connections: 2_000, alpha: 1.0, open_rate: Some(500_000) };
    let clear: &mut dyn FnMut() -> _ = &mut || Ok(());
    let result = establishment_rate(&mut world.runner, &settings, goal, clear).unwrap();
    let last = result.confirmation.unwrap();
    assert_eq!((last.requests.received, last.replies.received), (2_000, 2_000));
    let result = closing_rate(&mut world.runner, &settings, goal, clear).unwrap();
    assert_eq!(result.confirmation.unwrap().connections.unwrap().completed, 2_000);
    // A table that cannot hold them all is found out by what does not come back.
    let mut world = self::world(1_024, &[]);
    let established = world.runner.establish(3_000, Some(500_000), Some(500_000));
    assert!(established.arrived == 3_000 && established.validated < 2_000, "{}", established.validated);
}

#[test]
fn every_buffer_comes_back() {
    let mut world = world(8_192, &["traffic.kind=tcp", "traffic.connections=300"]);
    world.clean_trial(50_000, 0.01);
    drop(world.runner.finish());
    assert_eq!(world.generator_pool.in_use(), 0);
}
