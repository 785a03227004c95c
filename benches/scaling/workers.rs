//! Several workers: as many packets a second as cores allow, with packets that arrive at their flow's owner, and with packets
//! that all arrive elsewhere.

use std::time::Duration;

use core_affinity::CoreId;
use engine::counters::Account;
use pipelines::flow::flow_key;
use pipelines::gateway::Gauge;
use pipelines::ownership::{Ownership, visit};

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Rounds, print_clock, ratios};
use crate::threads::{Lap, cores, run as run_workers, total};
use crate::traffic::{Listed, Services};
use crate::world::{Shape, World, services};

/// Services, and endpoints of each, as in the cycle tables.
const SIZE: (usize, usize) = (10, 48);
/// UDP.
const PROTOCOL: u8 = 17;

/// Where packets arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// At the worker that owns their flow.
    Own,
    /// At another one, all others alike.
    Adversarial,
    /// The same, and no more of them than rings hold: what passes without loss.
    Paced,
}

impl Spread {
    fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Adversarial => "adversarial",
            Self::Paced => "paced",
        }
    }
}

/// What one spread showed, round by round.
#[derive(Default)]
struct Shown {
    rates: Rounds,
    slowest: Rounds,
    cycles: Rounds,
    calibration: Rounds,
    handed_off: u64,
    refused: u64,
    received: u64,
}

impl Shown {
    fn note(&mut self, laps: &[Lap]) {
        self.rates.push(total(laps) / 1e6);
        self.slowest.push(laps.iter().map(Lap::per_second).fold(f64::MAX, f64::min) / 1e6);
        let (cycles, sent) =
            laps.iter().fold((0, 0), |sum, lap| (sum.0 + lap.cycles, sum.1 + lap.transmitted));
        self.cycles.push(cycles as f64 / sent as f64);
        laps.iter().for_each(|lap| self.calibration.push(lap.calibration));
        self.handed_off += laps.iter().map(|lap| lap.handed_off).sum::<u64>();
        self.refused += laps.iter().map(|lap| lap.refused_by_rings).sum::<u64>();
        self.received += laps.iter().map(|lap| lap.received).sum::<u64>();
    }

    fn print(&self, workers: usize, spread: &str, ratios: &Rounds) {
        println!(
            "{workers:>7}  {spread:<11}  {:>20}  {:>7.2}  {:>20}  {:>18}  {:>9.3}  {:>9.4}  {:>18}",
            self.rates.text(2),
            self.slowest.median(),
            ratios.text(3),
            self.cycles.text(0),
            self.handed_off as f64 / self.received as f64,
            self.refused as f64 / self.received as f64,
            self.calibration.text(2),
        );
    }
}

pub(crate) fn run(arguments: &Arguments) {
    let counts = arguments.numbers("--counts", &[1, 2, 4, 8, 14]);
    let flows = arguments.number("--flows", 64_000);
    let rounds = arguments.number_or("--rounds", 3, 7);
    let length = Duration::from_millis(arguments.number_or("--length", 200, 500) as u64);
    let cores = cores();
    print_clock();
    println!("{flows} DNATed flows of UDP in all, {rounds} rounds of {} ms each", length.as_millis());
    println!(
        "workers  spread             Mpps in all          slowest  ratio to one worker   cycles a packet     \
         handed on  refused    calibration"
    );
    for count in counts {
        if count > cores.len() {
            println!("{count:>7}  skipped: this process may use {} cores", cores.len());
        } else {
            measure(count, flows, rounds, length, &cores);
        }
    }
    println!("handed on, refused by full rings: packets for each that was received, all rounds together");
}

fn measure(count: usize, flows: usize, rounds: usize, length: Duration, cores: &[CoreId]) {
    let spreads: &[Spread] =
        if count == 1 { &[] } else { &[Spread::Own, Spread::Adversarial, Spread::Paced] };
    let mut alone = (world(1, flows, Spread::Own), Shown::default());
    let mut several: Vec<_> =
        spreads.iter().map(|spread| (*spread, world(count, flows, *spread), Shown::default())).collect();
    for round in 0..rounds {
        // Each core in its turn, since a virtual machine's cores are not always alike.
        let core = cores[round % count];
        alone.1.note(&run_workers(&mut alone.0, &[core], length, |_, _| {}));
        for (_, world, shown) in &mut several {
            shown.note(&run_workers(world, &cores[..count], length, |_, _| {}));
        }
    }
    finish(alone.0, flows, Spread::Own);
    let one = &alone.1.rates;
    alone.1.print(1, "own", &ratios(one, one));
    for (spread, world, shown) in several {
        finish(world, flows, spread);
        shown.print(count, spread.name(), &ratios(&shown.rates, one));
    }
}

/// The worker that owns a flow to a service.
fn owner(rule: &Ownership, services: Services, flow: u32) -> usize {
    let ends = services.ends(u64::from(flow));
    let key = flow_key(PROTOCOL, ends.source, ends.source_port, ends.destination, ends.destination_port);
    usize::from(rule.next(&key, visit::NONE))
}

/// A gateway of `count` workers with all its flows there.
fn world(count: usize, flows: usize, spread: Spread) -> World {
    let cluster = Cluster::new(SIZE.0, SIZE.1);
    let services = services(&cluster, SIZE.0);
    let networks = vec!["10.64.0.0/12".parse().expect("a network")];
    let rule = Ownership::new(0, count, networks, Vec::new(), (30_000, 32_767));
    let (mut arriving, mut owned) = (vec![Vec::new(); count], vec![0usize; count]);
    for flow in 0..flows as u32 {
        let owner = owner(&rule, services, flow);
        owned[owner] += 1;
        let at = match spread {
            Spread::Own => owner,
            Spread::Adversarial | Spread::Paced => (owner + 1 + flow as usize % (count - 1)) % count,
        };
        arriving[at].push(flow);
    }
    // A quarter more than the largest share, so that the tables are four fifths full.
    let capacity = owned.iter().max().map_or(0, |most| most * 5 / 4);
    let longest = arriving.iter().map(Vec::len).max().unwrap_or(0);
    let traffic = arriving.into_iter().map(|flows| Listed::new(services, flows)).collect();
    let mut shape = Shape::new(cluster, capacity);
    shape.paced = spread == Spread::Paced;
    let mut world = World::new(&shape, traffic);
    // Every flow is made, and every line is touched once more.
    world.real_turns(2 * longest.div_ceil(32) + 64);
    world.assert_sound(&[]);
    for (worker, owned) in world.workers.iter().zip(&owned) {
        assert_eq!(worker.pipeline.flows().len(), *owned, "flows are with their owners");
    }
    world
}

/// Asserts that what ran is what was meant to.
fn finish(mut world: World, flows: usize, spread: Spread) {
    world.drain();
    world.assert_sound(if spread == Spread::Adversarial { &["hand_off_full"] } else { &[] });
    assert_eq!(world.gauge(Gauge::FlowsCreated), flows as u64, "no flow was made again");
    assert_eq!(world.tracked(), flows);
    let account = |account| world.account(account);
    let (received, refused) = (account(Account::Received), account(Account::Dropped));
    assert_eq!(account(Account::HandedOff), account(Account::HandedIn));
    assert_eq!(account(Account::Transmitted) + refused, received);
    let handed_on = if spread == Spread::Own { 0 } else { received };
    assert_eq!(account(Account::HandedOff) + refused, handed_on, "strays, and strays alone, are handed on");
}
