//! What tables cost to build and to change: time, memory, and how long a change of one endpoint takes until a worker uses it.
//!
//!     cargo bench --bench control [-- --quick]
//!
//! `scripts/bench-control.sh` runs it. One line a row; times are medians of the repetitions that the row names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

#[path = "support/mod.rs"]
mod support;

#[path = "control/cluster.rs"]
mod cluster;
#[path = "control/latency.rs"]
mod latency;

use std::time::{Duration, Instant};

use cluster::Cluster;
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::control::kubernetes::ObjectStore;

/// Services, and endpoints of each.
const SIZES: [(usize, usize); 4] = [(1_000, 5), (10_000, 10), (50_000, 1), (50_000, 5)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let sizes = if quick { &SIZES[..2] } else { &SIZES[..] };
    if let Some(size) = arguments.iter().position(|argument| argument == "--build") {
        let number = |place: usize| arguments[size + place].parse().unwrap();
        return build(&Cluster::new(number(1), number(2)), quick);
    }
    println!(
        "building: objects are read, then tables are made of them and of an otherwise small configuration"
    );
    println!("services  endpoints  read JSON  read YAML  tables  tables again  memory of objects  of tables");
    for (services, endpoints) in sizes {
        // Each in a process of its own, so that memory is what this size takes.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--build", &services.to_string(), &endpoints.to_string()]);
        assert!(child.args(quick.then_some("--quick")).status().unwrap().success());
    }
    println!();
    println!(
        "changing one endpoint of one service; worker: until a worker on another core has sent a packet there"
    );
    println!("services  endpoints  object  tables  worker, median  worker, 99 %  changes");
    for (services, endpoints) in sizes {
        change(&Cluster::new(*services, *endpoints), if quick { 200 } else { 1_000 });
    }
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn read(name: &str, text: &str) -> (ObjectStore, Duration) {
    let mut store = ObjectStore::new();
    let (_, time) = timed(|| store.replace_file(name, Some(text.as_bytes())));
    assert!(store.findings().is_empty(), "{:?}", store.findings().first());
    (store, time)
}

fn build(cluster: &Cluster, quick: bool) {
    let configuration = config::parse(&cluster.configuration(), "bench.toml").unwrap().configuration;
    let json = cluster.json();
    // Memory first, while none lies free that others have used.
    let before = resident_kib();
    let (store, json_time) = read("a.json", &json);
    let objects_kib = resident_kib().saturating_sub(before);
    drop(json);

    let before = resident_kib();
    let mut first = Builder::new(1, HostFacts::default());
    let tables = first.build_with(&configuration, &store).unwrap();
    let tables_kib = resident_kib().saturating_sub(before);
    assert_eq!(tables.services.iter().count(), cluster.services);

    let mut times = Vec::new();
    for _ in 0..if quick { 3 } else { 7 } {
        let mut builder = Builder::new(1, HostFacts::default());
        let (built, time) = timed(|| builder.build_with(&configuration, &store).unwrap());
        assert_eq!(built.services.frontends.len(), cluster.services);
        times.push(time);
    }
    // YAML is read once: it takes long and is asked for seldom.
    let yaml_time = read("a.yaml", &cluster.yaml()).1;
    let (_, again) = timed(|| first.build_with(&configuration, &store).unwrap());
    println!(
        "{:>8}  {:>9}  {:>6} ms  {:>6} ms  {:>3} ms  {:>9} ms  {:>13} MiB  {:>5} MiB",
        cluster.services,
        cluster.services * cluster.endpoints,
        json_time.as_millis(),
        yaml_time.as_millis(),
        median(times).as_millis(),
        again.as_millis(),
        objects_kib / 1_024,
        tables_kib / 1_024,
    );
}

fn change(cluster: &Cluster, changes: usize) {
    let measured = latency::measure(cluster, changes);
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{:>8}  {:>9}  {:>3.0} us  {:>3.0} us  {:>11.0} us  {:>9.0} us  {:>7}",
        cluster.services,
        cluster.services * cluster.endpoints,
        micros(measured.object),
        micros(measured.tables),
        micros(measured.worker_median),
        micros(measured.worker_high),
        changes,
    );
}
