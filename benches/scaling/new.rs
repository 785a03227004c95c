//! Every packet the first of a new connection, for seconds on end by the real clock: the table is full, and each connection
//! takes the place of another, while the sweep goes on as it does in a running gateway.

use std::time::Duration;

use engine::clock::cycles;
use engine::counters::Account;
use engine::wire::tcp::FLAG_SYN;
use pipelines::gateway::Gauge;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Rounds, flow_memory, has_memory, print_clock};
use crate::support::calibration;
use crate::threads::{cores, pin};
use crate::traffic::{Counting, Template};
use crate::world::{Shape, World, null_cycles, null_worker, services};

/// Endpoints of a service: many where there are few services, so that masqueraded connections never run out of ports.
fn endpoints(services: usize) -> usize {
    if services <= 1_000 { 48 } else { 5 }
}

/// What the load is.
struct Load {
    services: usize,
    is_tcp: bool,
    masquerade: bool,
}

impl Load {
    fn cluster(&self) -> Cluster {
        let cluster = Cluster::new(self.services, endpoints(self.services));
        if self.is_tcp { cluster.over_tcp() } else { cluster }
    }

    fn traffic(&self) -> Counting {
        let template = if self.is_tcp { Template::tcp(FLAG_SYN, 1_000, 0, b"") } else { Template::udp() };
        Counting::new(template, services(&self.cluster(), self.services), u64::MAX)
    }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    connections: u64,
    seconds: f64,
    cycles: u64,
    each_second: Rounds,
    calibration: Rounds,
    longest_turn: Duration,
}

pub(crate) fn run(arguments: &Arguments) {
    let seconds = arguments.number_or("--seconds", 3, 30);
    let capacity = arguments.number("--capacity", 65_536);
    let load = Load {
        services: arguments.number("--services", 10),
        is_tcp: arguments.has("--tcp"),
        masquerade: arguments.has("--masquerade"),
    };
    if !has_memory("new", flow_memory(capacity) + load.services * 20_000) {
        return;
    }
    print_clock();
    let mut shape = Shape::new(load.cluster(), capacity);
    (shape.masquerade, shape.lasting) = (load.masquerade, false);
    let mut world = World::new(&shape, vec![load.traffic()]);
    pin(*cores().last().expect("a core"));
    fill(&mut world, capacity);
    let before = Counts::of(&world);
    let seen = sustain(&mut world, seconds);
    let made = Counts::of(&world).since(&before);
    // The check comes before the figure: of a load that loses packets none is printed.
    assert_eq!(made.received, made.created, "each packet is a new connection");
    assert_eq!(made.transmitted, made.received, "each is sent on");
    assert!(made.evicted + made.expired + 64 >= made.created, "the table was full all the time: {made:?}");
    assert!(world.tracked() * 100 >= capacity * 99, "the table is full: {}", world.tracked());
    world.drain();
    world.assert_sound(&[]);
    print(&load, capacity, &seen, &made);
}

/// New connections until each of them takes the place of another.
fn fill(world: &mut World, capacity: usize) {
    world.real_turns(capacity / 32 + 64);
    let started = std::time::Instant::now();
    while world.gauge(Gauge::FlowsEvicted) < 1_000 {
        assert!(started.elapsed() < Duration::from_secs(10), "nothing makes place in the full table");
        world.real_turns(64);
    }
    world.assert_sound(&[]);
}

fn sustain(world: &mut World, seconds: usize) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..seconds {
        // Outside the second that is counted.
        seen.calibration.push(calibration());
        let (clock, created) = (world.clock, world.gauge(Gauge::FlowsCreated));
        let (started, started_cycles) = (clock.now(), cycles());
        let (until, mut last) = (started + Duration::from_secs(1), started);
        while last < until {
            world.workers[0].turn(last);
            let now = clock.now();
            seen.longest_turn = seen.longest_turn.max(now.since(last));
            last = now;
        }
        seen.cycles += cycles() - started_cycles;
        let connections = world.gauge(Gauge::FlowsCreated) - created;
        seen.connections += connections;
        seen.seconds += last.since(started).as_secs_f64();
        seen.each_second.push(connections as f64 / last.since(started).as_secs_f64() / 1e6);
    }
    seen
}

fn print(load: &Load, capacity: usize, seen: &Seen, made: &Counts) {
    let mut null = null_worker(load.traffic());
    let mut port = Rounds::default();
    (0..5).for_each(|_| port.push(null_cycles(&mut null, 20_000)));
    println!(
        "{}{}, {} services, table of {capacity}: every packet a new connection, {:.1} s",
        if load.is_tcp { "TCP (SYN)" } else { "UDP" },
        if load.masquerade { ", DNAT and masquerade" } else { ", DNAT" },
        load.services,
        seen.seconds
    );
    println!("connections, M a second     {:.3}", seen.connections as f64 / seen.seconds / 1e6);
    println!("the same, second by second  {}", seen.each_second.text(3));
    println!("slowest second              {:.3}", seen.each_second.minimum());
    println!("cycles a connection, whole  {:.0}", seen.cycles as f64 / seen.connections as f64);
    println!("of that port and loop       {}", port.text(0));
    println!("evicted, expired            {}, {}", made.evicted, made.expired);
    println!("dropped                     0");
    println!("longest turn of 32, us      {:.0}", seen.longest_turn.as_secs_f64() * 1e6);
    println!("calibration                 {}", seen.calibration.text(2));
}

/// Counters at a moment.
#[derive(Debug)]
struct Counts {
    received: u64,
    transmitted: u64,
    created: u64,
    evicted: u64,
    expired: u64,
}

impl Counts {
    fn of(world: &World) -> Self {
        Self {
            received: world.account(Account::Received),
            transmitted: world.account(Account::Transmitted),
            created: world.gauge(Gauge::FlowsCreated),
            evicted: world.gauge(Gauge::FlowsEvicted),
            expired: world.gauge(Gauge::FlowsExpired),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            received: self.received - before.received,
            transmitted: self.transmitted - before.transmitted,
            created: self.created - before.created,
            evicted: self.evicted - before.evicted,
            expired: self.expired - before.expired,
        }
    }
}
