//! Numbers of services: established flows and new ones, all sizes in each round.

use engine::counters::Account;
use engine::worker::Worker;
use pipelines::gateway::Gauge;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Rounds, flow_memory, has_memory, print_clock, ratios};
use crate::support::{Null, calibration};
use crate::threads::{cores, pin};
use crate::traffic::{Counting, Listed, Template};
use crate::world::{Shape, World, null_cycles, null_worker, services};

/// Endpoints of each service, the same for all numbers of services.
const ENDPOINTS: usize = 5;
/// What a service takes, with its objects: measured generously.
const SERVICE_BYTES: usize = 20_000;

/// One number of services under one load.
struct Row {
    services: usize,
    is_new: bool,
    world: World,
    null: Worker<Null>,
    whole: Rounds,
    pipeline: Rounds,
}

impl Row {
    fn new(services_count: usize, flows: usize, is_new: bool) -> Self {
        let cluster = Cluster::new(services_count, ENDPOINTS);
        let target = services(&cluster, services_count);
        let shape = Shape::new(cluster, flows * 5 / 4);
        let (world, null) = if is_new {
            let traffic = || Counting::new(Template::udp(), target, u64::MAX);
            (World::new(&shape, vec![traffic()]), null_worker(traffic()))
        } else {
            let traffic = || Listed::new(target, (0..flows as u32).collect());
            (World::new(&shape, vec![traffic()]), null_worker(traffic()))
        };
        let mut row = Self {
            services: services_count,
            is_new,
            world,
            null,
            whole: Rounds::default(),
            pipeline: Rounds::default(),
        };
        // Until all flows are there and were used once more, or each takes the place of another.
        row.world.turns(4 * flows.div_ceil(32) + 64);
        null_cycles(&mut row.null, flows.div_ceil(32));
        row
    }

    fn measure(&mut self, turns: usize) {
        let whole = self.world.cycles_per_packet(turns);
        self.whole.push(whole);
        self.pipeline.push(whole - null_cycles(&mut self.null, turns));
    }

    /// Asserts that what ran is what was meant to.
    fn check(&self, flows: usize) {
        self.world.assert_sound(&[]);
        let created = self.world.gauge(Gauge::FlowsCreated);
        if self.is_new {
            assert_eq!(created, self.world.account(Account::Received), "each packet is a new flow");
            assert!(self.world.gauge(Gauge::FlowsEvicted) > 0, "each takes the place of another");
        } else {
            assert_eq!((created, self.world.tracked()), (flows as u64, flows));
        }
    }
}

pub(crate) fn run(arguments: &Arguments) {
    let quick: &[usize] = &[10, 5_000];
    let all: &[usize] = &[10, 5_000, 50_000];
    let counts = arguments.numbers("--counts", if arguments.is_quick() { quick } else { all });
    let flows = arguments.number("--flows", 64_000);
    let rounds = arguments.number_or("--rounds", 3, 7);
    let turns = if arguments.is_quick() { 4_000 } else { 20_000 };
    print_clock();
    pin(*cores().last().expect("a core"));
    println!(
        "{flows} flows of UDP, DNATed, {ENDPOINTS} endpoints a service, {rounds} rounds of {} packets; \
         cycles a packet",
        turns * 32
    );
    println!("load         services                 whole              pipeline     ratio to the first");
    let mut steps = Rounds::default();
    for is_new in [false, true] {
        let fits = |count: &usize| {
            has_memory(&format!("{count} services"), flow_memory(flows) + count * SERVICE_BYTES)
        };
        let mut rows: Vec<Row> = Vec::new();
        for count in counts.iter().copied().filter(fits) {
            rows.push(Row::new(count, flows, is_new));
        }
        for _ in 0..rounds {
            steps.push(calibration());
            rows.iter_mut().for_each(|row| row.measure(turns));
        }
        for row in &rows {
            row.check(flows);
            println!(
                "{:<11}  {:>8}  {:>20}  {:>20}  {:>21}",
                if is_new { "new" } else { "established" },
                row.services,
                row.whole.text(0),
                row.pipeline.text(0),
                ratios(&row.pipeline, &rows[0].pipeline).text(3)
            );
        }
    }
    println!("calibration {}", steps.text(2));
}
