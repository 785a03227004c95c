//! Packets of established flows while services change: with changes and without, in turn.

use std::time::{Duration, Instant};

use engine::counters::Account;
use pipelines::control::kubernetes::{Changes, Kind, ObjectId};
use pipelines::gateway::Gauge;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Rounds, print_clock, ratios};
use crate::threads::{cores, pin, run as run_workers};
use crate::traffic::Listed;
use crate::world::{Shape, World, services};

/// Services that flows go to, all services, and endpoints of each.
const IN_USE: usize = 10;
const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;
/// Services whose endpoint is exchanged, and after them services that go and come.
const SWAPPED: std::ops::Range<usize> = IN_USE..500;
/// Kinds of changes, by their names in `--only`.
const KINDS: [&str; 4] = ["endpoints", "exchanges", "weights", "services"];

pub(crate) fn run(arguments: &Arguments) {
    let flows = arguments.number("--flows", 64_000);
    let per_s = arguments.number("--per-s", 100);
    let kinds = kinds(arguments.value("--only"));
    let rounds = arguments.number_or("--rounds", 3, 7);
    let length = Duration::from_millis(arguments.number_or("--length", 500, 2_000) as u64);
    let cores = cores();
    let [worker_core, control_core, ..] = cores[..] else {
        println!("skipped: a worker and the control thread need a core each");
        return;
    };
    print_clock();
    pin(control_core);
    let cluster = Cluster::new(SERVICES, ENDPOINTS);
    let traffic = Listed::new(services(&cluster, IN_USE), (0..flows as u32).collect());
    let mut world = World::new(&Shape::new(cluster, flows * 5 / 4), vec![traffic]);
    world.real_turns(2 * flows.div_ceil(32) + 64);
    assert_eq!(world.tracked(), flows);
    let mut control = Control::new(per_s, kinds);
    let (mut quiet, mut changing, mut rate) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut calibration = Rounds::default();
    for _ in 0..rounds {
        let laps = run_workers(&mut world, &[worker_core], length, |_, _| {});
        quiet.push(laps[0].per_second() / 1e6);
        calibration.push(laps[0].calibration);
        let before = control.made;
        let laps = run_workers(&mut world, &[worker_core], length, |world, has_ended| {
            control.work(world, has_ended);
        });
        changing.push(laps[0].per_second() / 1e6);
        calibration.push(laps[0].calibration);
        rate.push((control.made - before) as f64 / laps[0].seconds);
        settle(&mut world, worker_core);
    }
    let made = control.made;
    finish(world, flows, &control);
    println!("{flows} DNATed flows of UDP to {IN_USE} of {SERVICES} services, {rounds} rounds of each kind");
    let names: Vec<&str> = control.kinds.iter().map(|kind| KINDS[*kind]).collect();
    println!("kinds of changes        {}", names.join(", "));
    println!("Mpps without changes    {}", quiet.text(2));
    println!("Mpps with changes       {}", changing.text(2));
    println!("ratio, round by round   {}", ratios(&changing, &quiet).text(4));
    println!("changes a second        {}   {made} in all", rate.text(1));
    println!("a change takes, us      {}", control.times_us.text(0));
    println!("calibration             {}", calibration.text(2));
}

/// The kinds that are made by turns: one alone, or all.
fn kinds(only: Option<&str>) -> Vec<usize> {
    let Some(only) = only else { return (0..KINDS.len()).collect() };
    let place = KINDS.iter().position(|kind| *kind == only);
    vec![place.unwrap_or_else(|| panic!("--only: `{only}` is none of {KINDS:?}"))]
}

/// Lets the worker go through its flows until no change waits for that any more.
fn settle(world: &mut World, core: core_affinity::CoreId) {
    for _ in 0..200 {
        if !world.is_unsettled() {
            return;
        }
        run_workers(world, &[core], Duration::from_millis(20), |world, has_ended| {
            while !has_ended() {
                std::thread::sleep(Duration::from_millis(5));
                world.tend();
            }
        });
    }
    panic!("changes wait for ever");
}

fn finish(mut world: World, flows: usize, control: &Control) {
    world.drain();
    world.assert_sound(&[]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), flows as u64, "no flow was made again");
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsEnded)), (flows, 0), "all flows stay");
    assert_eq!(world.account(Account::Transmitted), world.account(Account::Received));
    assert!(world.gauge(Gauge::Generation) >= control.generation, "the worker uses the last tables");
    assert!(control.made >= control.kinds.len(), "all kinds of changes were made");
}

/// The control thread: one change after the other, each published by itself.
struct Control {
    period: Duration,
    kinds: Vec<usize>,
    made: usize,
    generation: u64,
    times_us: Rounds,
}

impl Control {
    fn new(per_s: usize, kinds: Vec<usize>) -> Self {
        let period = Duration::from_secs(1) / per_s as u32;
        Self { period, kinds, made: 0, generation: 0, times_us: Rounds::default() }
    }

    fn work(&mut self, world: &mut World, has_ended: &dyn Fn() -> bool) {
        let mut next = Instant::now();
        while !has_ended() {
            let now = Instant::now();
            if now < next {
                std::thread::sleep((next - now).min(Duration::from_millis(1)));
                continue;
            }
            // What a pause of the whole machine left undone is not made up for.
            next = (next + self.period).max(now.checked_sub(self.period * 10).unwrap_or(now));
            let changes =
                change(world, self.kinds[self.made % self.kinds.len()], self.made / self.kinds.len());
            assert!(!changes.services.is_empty(), "change {} changes something", self.made);
            self.generation = world.publish(&changes);
            self.times_us.push(now.elapsed().as_secs_f64() * 1e6);
            self.made += 1;
        }
    }
}

/// Change `turn` of a kind: a service in use gets another endpoint or loses it, an idle one's endpoint is exchanged, a
/// service in use gets another weight, an idle one goes or comes.
fn change(world: &mut World, kind: usize, turn: usize) -> Changes {
    let cluster = Cluster::new(SERVICES, ENDPOINTS);
    let (in_use, pass) = (turn % IN_USE, turn / IN_USE);
    match kind {
        0 if pass.is_multiple_of(2) => world.store.put(cluster.larger_slice(in_use), "bench"),
        0 => {
            let [_, slice] = cluster.objects(in_use);
            world.store.put(slice, "bench")
        }
        1 => {
            let place = turn % SWAPPED.len();
            let slice = cluster.swapped_slice(SWAPPED.start + place, turn / SWAPPED.len());
            world.store.put(slice, "bench")
        }
        2 => world.store.put(cluster.weighted_service(in_use, 2 + pass % 5), "bench"),
        _ => {
            let service = SWAPPED.end + turn / 2 % (SERVICES - SWAPPED.end);
            if turn.is_multiple_of(2) {
                let id = ObjectId::new(Kind::Service, "load", &format!("s{service}"));
                world.store.delete(&id)
            } else {
                world.store.put(cluster.service(service), "bench")
            }
        }
    }
}
