//! Established flows: cycles a packet for ever more of them.

use pipelines::gateway::Gauge;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{Rounds, flow_memory, has_memory, print_clock};
use crate::support::calibration;
use crate::threads::{cores, pin};
use crate::traffic::Listed;
use crate::world::{Shape, World, null_cycles, null_worker, services};

/// Endpoints of a service, as in the cycle tables.
const ENDPOINTS: usize = 48;

pub(crate) fn run(arguments: &Arguments) {
    let quick: &[usize] = &[64_000, 1_000_000];
    let all: &[usize] = &[64_000, 1_000_000, 8_000_000];
    let counts = arguments.numbers("--counts", if arguments.is_quick() { quick } else { all });
    let service_count = arguments.number("--services", 10);
    let rounds = arguments.number_or("--rounds", 3, 7);
    let turns = if arguments.is_quick() { 4_000 } else { 20_000 };
    print_clock();
    pin(*cores().last().expect("a core"));
    println!("established DNATed flows of UDP, {rounds} rounds of {} packets; cycles a packet", turns * 32);
    println!(
        "    flows  services                   whole         port and loop              pipeline     \
         calibration"
    );
    for count in counts {
        // The list of flows is there twice, for the gateway and for the port alone.
        if has_memory(&format!("{count} flows"), flow_memory(count * 5 / 4) + 8 * count) {
            measure(count, service_count, rounds, turns);
        }
    }
}

fn measure(count: usize, service_count: usize, rounds: usize, turns: usize) {
    let cluster = Cluster::new(service_count, ENDPOINTS);
    let traffic = || Listed::new(services(&cluster, service_count), (0..count as u32).collect());
    // Once in the order of making, then in the other order.
    let mut null = null_worker(traffic());
    null_cycles(&mut null, count.div_ceil(32));
    let traffic = traffic();
    let mut world = World::new(&Shape::new(cluster, count * 5 / 4), vec![traffic]);
    world.turns(2 * count.div_ceil(32) + 64);
    let [mut whole, mut port, mut pipeline, mut steps]: [Rounds; 4] = Default::default();
    for _ in 0..rounds {
        steps.push(calibration());
        let cycles = world.cycles_per_packet(turns);
        let null = null_cycles(&mut null, turns);
        whole.push(cycles);
        port.push(null);
        pipeline.push(cycles - null);
    }
    world.assert_sound(&[]);
    assert_eq!(world.tracked(), count, "each number is a flow of its own");
    assert_eq!(world.gauge(Gauge::FlowsCreated), count as u64, "no flow was made again");
    println!(
        "{count:>9}  {service_count:>8}  {:>22}  {:>20}  {:>20}  {:>18}",
        whole.text(0),
        port.text(0),
        pipeline.text(0),
        steps.text(2)
    );
}
