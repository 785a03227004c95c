//! What one core's cycles do not show: several workers, changes of services under load, connections that come for seconds on
//! end, whole TCP connections, millions of flows, tens of thousands of services, memory.
//!
//!     cargo bench --bench scaling -- workers|changes|new|tcp|flows|services|memory [--quick] [OPTIONS]
//!
//! docs/scaling-benchmarks.md says what each does and how to read it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

#[path = "support/mod.rs"]
mod support;

#[path = "control/cluster.rs"]
mod cluster;

#[path = "scaling/arguments.rs"]
mod arguments;
#[path = "scaling/changes.rs"]
mod changes;
#[path = "scaling/conversations.rs"]
mod conversations;
#[path = "scaling/flows.rs"]
mod flows;
#[path = "scaling/memory.rs"]
mod memory;
#[path = "scaling/new.rs"]
mod new;
#[path = "scaling/port.rs"]
mod port;
#[path = "scaling/report.rs"]
mod report;
#[path = "scaling/services.rs"]
mod services;
#[path = "scaling/tcp.rs"]
mod tcp;
#[path = "scaling/threads.rs"]
mod threads;
#[path = "scaling/traffic.rs"]
mod traffic;
#[path = "scaling/workers.rs"]
mod workers;
#[path = "scaling/world.rs"]
mod world;

use arguments::Arguments;

const USAGE: &str = "usage: scaling COMMAND [--quick] [OPTIONS]
  workers   packets a second of 1, 2, ... workers on as many cores
            [--counts 1,2,4,8,14] [--flows 64000] [--length MS] [--rounds N]
  changes   what 100 service changes a second cost the packets
            [--flows 64000] [--per-s 100] [--length MS] [--rounds N]
            [--only endpoints|exchanges|weights|services]
  new       every packet a new connection, the table full, by the real clock
            [--seconds 30] [--capacity 65536] [--masquerade] [--tcp] [--services 10]
  tcp       whole TCP connections of ten packets, both ways
            [--seconds 10] [--open 16384] [--capacity 1000000] [--services 10]
  flows     established flows of a number of sizes, cycles a packet
            [--counts 64000,1000000,8000000] [--services 10] [--rounds N]
  services  established and new flows to numbers of services, cycles a packet
            [--counts 10,5000,50000] [--flows 64000] [--rounds N]
  memory    bytes of memory for one tracked flow
            [--counts 64000,1000000,4000000]";

fn main() {
    let arguments = Arguments::of_process();
    match arguments.command() {
        Some("workers") => workers::run(&arguments),
        Some("changes") => changes::run(&arguments),
        Some("new") => new::run(&arguments),
        Some("tcp") => tcp::run(&arguments),
        Some("flows") => flows::run(&arguments),
        Some("services") => services::run(&arguments),
        Some("memory") => memory::run(&arguments),
        // Tests of all targets start every benchmark.
        _ if arguments.has("--test") => {}
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}
