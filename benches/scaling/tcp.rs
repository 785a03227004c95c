//! Whole TCP connections through one worker: set up, data both ways, torn down; closed ones fill the table and make place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::clock::cycles;
use engine::counters::Account;
use pipelines::gateway::Gauge;
use pipelines::stage::tcp_state::TcpState;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::conversations::{Conversations, PACKETS_EACH, Progress};
use crate::report::{Rounds, flow_memory, has_memory, print_clock};
use crate::support::calibration;
use crate::threads::{cores, pin};
use crate::world::{Shape, World, null_cycles, null_worker, services};

/// A round of the measurement.
const ROUND: Duration = Duration::from_millis(500);

struct Load {
    services: usize,
    open: usize,
}

impl Load {
    /// One endpoint a service, so that it is known who answers.
    fn cluster(&self) -> Cluster {
        Cluster::new(self.services, 1).over_tcp()
    }

    fn traffic(&self, progress: &Arc<Progress>) -> Conversations {
        let cluster = self.cluster();
        let first_backend = u32::from(cluster.endpoint_address(0, 0));
        Conversations::new(services(&cluster, self.services), first_backend, self.open, progress)
    }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    rates: Rounds,
    cycles: Rounds,
    port: Rounds,
    calibration: Rounds,
}

pub(crate) fn run(arguments: &Arguments) {
    let seconds = arguments.number_or("--seconds", 2, 10);
    let capacity = arguments.number("--capacity", 1_000_000);
    let load =
        Load { services: arguments.number("--services", 10), open: arguments.number("--open", 16_384) };
    assert!(load.open < capacity, "the table holds more connections than are open");
    if !has_memory("tcp", flow_memory(capacity)) {
        return;
    }
    print_clock();
    pin(*cores().last().expect("a core"));
    let progress = Arc::default();
    let mut world = World::new(&Shape::new(load.cluster(), capacity), vec![load.traffic(&progress)]);
    fill(&mut world, capacity);
    let (begun, evicted) = (progress.begun.load(Ordering::Relaxed), world.gauge(Gauge::FlowsEvicted));
    let seen = measure(&mut world, &load, 2 * seconds);
    let begun = progress.begun.load(Ordering::Relaxed) - begun;
    let evicted = world.gauge(Gauge::FlowsEvicted) - evicted;
    assert!(evicted > 0, "closed connections made place");
    finish(world, &progress);
    println!(
        "TCP, DNAT, {} services: {PACKETS_EACH} packets a connection, {} open, table of {capacity}",
        load.services, load.open
    );
    println!("Mpps                     {}", seen.rates.text(2));
    println!("connections, M a second  {:.3}", seen.rates.median() / PACKETS_EACH as f64);
    println!("cycles a packet, whole   {}", seen.cycles.text(0));
    println!("of that port and loop    {}", seen.port.text(0));
    println!("begun, evicted           {begun}, {evicted}");
    println!("dropped                  0");
    println!("calibration              {}", seen.calibration.text(2));
}

/// Connections until closed ones fill the table and make place for new ones.
fn fill(world: &mut World, capacity: usize) {
    let started = std::time::Instant::now();
    while world.gauge(Gauge::FlowsEvicted) < 1_000 {
        world.real_turns(1_000);
        assert!(started.elapsed() < Duration::from_secs(60), "the table does not fill: {}", world.tracked());
        world.assert_sound(&[]);
    }
    assert!(world.tracked() * 100 >= capacity * 99, "the table is full: {}", world.tracked());
}

fn measure(world: &mut World, load: &Load, rounds: usize) -> Seen {
    let mut seen = Seen::default();
    let mut null = null_worker(load.traffic(&Arc::default()));
    for _ in 0..rounds {
        seen.calibration.push(calibration());
        seen.port.push(null_cycles(&mut null, 4_000));
        let (clock, sent) = (world.clock, world.account(Account::Transmitted));
        let (started, started_cycles) = (clock.now(), cycles());
        let (until, mut now) = (started + ROUND, started);
        while now < until {
            world.workers[0].turn(now);
            now = clock.now();
        }
        let spent = cycles() - started_cycles;
        let packets = (world.account(Account::Transmitted) - sent) as f64;
        seen.rates.push(packets / now.since(started).as_secs_f64() / 1e6);
        seen.cycles.push(spent as f64 / packets);
    }
    seen
}

/// Lets all connections come to their end, and asserts that each was followed to it.
fn finish(mut world: World, progress: &Progress) {
    progress.is_ending.store(true, Ordering::Relaxed);
    let started = std::time::Instant::now();
    while progress.finished.load(Ordering::Relaxed) < progress.begun.load(Ordering::Relaxed) {
        world.real_turns(1);
        assert!(started.elapsed() < Duration::from_secs(10), "connections go on for ever");
    }
    world.drain();
    world.assert_sound(&[]);
    let begun = progress.begun.load(Ordering::Relaxed);
    assert_eq!(world.gauge(Gauge::FlowsCreated), begun, "a flow a connection");
    assert_eq!(world.account(Account::Received), begun * PACKETS_EACH);
    assert_eq!(world.account(Account::Transmitted), begun * PACKETS_EACH, "every packet is sent on");
    let flows = world.workers[0].pipeline.flows();
    let pairs = (0..flows.capacity() as u32).filter_map(|pair| flows.pair(pair));
    let open = pairs.filter(|pair| TcpState::from_number(pair.0.value.state) != TcpState::TimeWait).count();
    assert_eq!(open, 0, "both sides' packets were followed, so all connections are closed");
}
