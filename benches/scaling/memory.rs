//! Memory for one tracked flow, both directions, all in: as the table says, and as the process shows.

use std::process::Command;

use pipelines::gateway::Gauge;

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::report::{flow_memory, has_memory, resident_bytes};
use crate::traffic::{Counting, Template};
use crate::world::{Shape, World, services};

pub(crate) fn run(arguments: &Arguments) {
    if arguments.has("--one") {
        return one(arguments.number("--one", 0));
    }
    let quick: &[usize] = &[64_000, 1_000_000];
    let all: &[usize] = &[64_000, 1_000_000, 4_000_000];
    let counts = arguments.numbers("--counts", if arguments.is_quick() { quick } else { all });
    println!("a full table of DNATed flows; bytes a flow");
    println!("    flows  the table says  process grows  process grows for each more than the row above");
    let mut before: Option<(usize, usize)> = None;
    for count in counts {
        if !has_memory(&format!("{count} flows"), flow_memory(count)) {
            continue;
        }
        let (table, grown) = ask(count);
        let marginal = before
            .filter(|(fewer, _)| *fewer < count)
            .map(|(fewer, less)| format!("{:>13.1}", (grown as f64 - less as f64) / (count - fewer) as f64));
        let each = |bytes: usize| bytes as f64 / count as f64;
        println!(
            "{count:>9}  {:>14.1}  {:>13.1}  {}",
            each(table),
            each(grown),
            marginal.as_deref().unwrap_or("            -")
        );
        before = Some((count, grown));
    }
}

/// Asks a process of its own, so that memory is what this many flows take.
fn ask(count: usize) -> (usize, usize) {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["memory", "--one", &count.to_string()]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(|word| word.parse().expect("two numbers"));
    (numbers.next().expect("the table's bytes"), numbers.next().expect("the process's bytes"))
}

/// Fills one table, and prints its bytes and what the process has grown by since before it was made.
fn one(count: usize) {
    let cluster = Cluster::new(10, 48);
    let traffic = Counting::new(Template::udp(), services(&cluster, 10), count as u64);
    let before = resident_bytes();
    let mut world = World::new(&Shape::new(cluster, count), vec![traffic]);
    world.turns(count.div_ceil(32) + 64);
    world.assert_sound(&[]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsEvicted)), (count, 0), "the table is full");
    println!("{} {}", world.workers[0].pipeline.flows().memory_bytes(), resident_bytes() - before);
}
