//! The gateway and the generator in one process, a core each, joined by rings: how fast the gateway is when no device is
//! in the way.
//!
//! `line_rate FILE [KEY=VALUE]...`: a generator's configuration with one tunnelled port, whose device is not looked at, and
//! keys that are set over it. `gateway.core`, `gateway.capacity`, `gateway.ring` and `json=true` are this program's own.
//! Without `rate.per_s` packets are sent as fast as the ring takes them; `rate.window` then keeps any from being lost.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::clock::{MonotonicClock, cycles};
use engine::host::set_affinity;
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::ring::RingPort;
use engine::worker::{Worker, WorkerCounters};
use pipelines::assembly::{WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::drop_reason::{REASON_COUNT, describe};
use pipelines::gateway::Gateway;
use pktgen::config::{Configuration, Setting};
use pktgen::gateway_config::{GatewayOptions, gateway_config};
use pktgen::runner::Runner;

/// Buffers of the generator: enough for both rings, a burst on each side, and what it keeps.
const BUFFERS_BESIDE_RINGS: usize = 4_096;

struct Options {
    path: String,
    settings: Vec<Setting>,
    core: usize,
    capacity: Option<u64>,
    ring: usize,
    json: bool,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("line_rate FILE [KEY=VALUE]...")?;
    let mut options = Options { path, settings: vec![], core: 1, capacity: None, ring: 1_024, json: false };
    for argument in arguments {
        match argument.split_once('=') {
            Some(("gateway.core", value)) => options.core = value.parse()?,
            Some(("gateway.capacity", value)) => options.capacity = Some(value.parse()?),
            Some(("gateway.ring", value)) => options.ring = value.parse()?,
            Some(("json", value)) => options.json = value.parse()?,
            _ => options.settings.push(argument.parse()?),
        }
    }
    Ok(options)
}

/// What the gateway's thread measured.
struct Cost {
    packets: u64,
    cycles: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let configuration = Configuration::load(Some(Path::new(&options.path)), &options.settings)?;
    let (near, far) = RingPort::pair(options.ring, (0, 0));
    let worker = gateway(&configuration, &options, far)?;
    let counters = worker.counters().clone();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let core = options.core;
    let gateway = std::thread::spawn(move || forward(worker, &stopped, core));

    let load = configuration.load_settings()?;
    let (rate, seconds) = (configuration.trial_rate(), configuration.trial_seconds()?);
    set_affinity(&[configuration.machine.core.unwrap_or(0)])?;
    let clock = MonotonicClock::new();
    let pool = MemoryPool::new(2 * options.ring.next_power_of_two() + BUFFERS_BESIDE_RINGS);
    let ports: Vec<Box<dyn PortQueue>> = vec![Box::new(near)];
    let mut runner =
        Runner::new(configuration.scenario()?, load, ports, Box::new(pool), Box::new(move || clock.now()));
    let trial = runner.trial(rate, seconds);
    stop.store(true, Ordering::Relaxed);
    let cost = gateway.join().map_err(|_| "the gateway's thread panicked")??;
    let trial = trial?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&trial)?);
    } else {
        print!("{}", pktgen::cli::trial_text(&trial));
    }
    report(&cost, &counters);
    if trial.clean { Ok(()) } else { Err("packets were lost or wrong".into()) }
}

/// The worker of the gateway that the generator's configuration asks for.
fn gateway(
    configuration: &Configuration,
    options: &Options,
    port: RingPort,
) -> Result<Worker<Gateway>, Box<dyn Error>> {
    let scenario = configuration.scenario()?;
    let text = gateway_config(
        configuration,
        scenario.client_link(),
        &GatewayOptions {
            device: "net_null0".to_owned(),
            capacity: options.capacity.unwrap_or(u64::from(configuration.traffic.flows) * 5 / 4).max(1_024),
            core: options.core,
            control_core: 0,
            socket: None,
            memory: "none".to_owned(),
        },
    )?;
    let loaded =
        pipelines::control::config::parse(&text, "gateway.toml").map_err(|report| report.to_string())?;
    let tables = Builder::new(1, HostFacts::default()).build(&loaded.configuration)?;
    let input = WorkerInput { ports: vec![Some(Box::new(port))], source: Box::new(MemoryPool::new(1_024)) };
    let mut assembly = assemble(&loaded.configuration, tables, vec![input], 1)?;
    assembly.workers.pop().ok_or_else(|| "no worker".into())
}

/// Turns until it is told to stop.
fn forward(mut worker: Worker<Gateway>, stop: &AtomicBool, core: usize) -> Result<Cost, String> {
    set_affinity(&[core]).map_err(|error| format!("cannot run on core {core}: {error}"))?;
    let clock = MonotonicClock::new();
    let mut cost = Cost { packets: 0, cycles: 0 };
    let mut before = cycles();
    while !stop.load(Ordering::Relaxed) {
        let taken = worker.turn(clock.now());
        let after = cycles();
        // A turn without packets is no cost of theirs.
        if taken > 0 {
            cost.packets += taken as u64;
            cost.cycles += after - before;
        }
        before = after;
    }
    Ok(cost)
}

fn report(cost: &Cost, counters: &WorkerCounters) {
    println!(
        "gateway   {} packets, {:.1} cycles a packet in turns that had some",
        cost.packets,
        cost.cycles as f64 / cost.packets.max(1) as f64
    );
    for code in 0..REASON_COUNT as u16 {
        let count = counters.drops.get(code.into());
        if count > 0 {
            println!("  dropped {count}: {}", describe(code).1);
        }
    }
}
