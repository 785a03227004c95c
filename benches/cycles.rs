//! TSC cycles a packet for the whole pipeline on one core, with the port's own cost and a calibration loop beside them.
//!
//! `cargo bench --bench cycles -- [--quick] [--load NAME] [--flows N] [--prepare FOLDER] [--calibrate]`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "benchmarks fail by panicking")]
#![allow(missing_docs, reason = "no API")]

mod support;

use engine::clock::{MonotonicClock, Timestamp, cycles};
use engine::port::pcap::CaptureWriter;
use pipelines::gateway::Gauge;
use support::{Bench, Load, calibration, frames, null_worker};

/// Writes what the binary needs for the same load: a capture with a frame for each flow, and a configuration whose port
/// receives it for ever.
fn prepare(row: &Row, folder: &std::path::Path) {
    let (capture, socket) = (folder.join("frames.pcap"), folder.join("control.sock"));
    let mut writer = CaptureWriter::create(&capture).expect("a capture");
    for (number, frame) in frames(row.load, row.flows, row.services).iter().enumerate() {
        writer.write(Timestamp(number as u64), frame).expect("room on the disk");
    }
    writer.finish().expect("room on the disk");
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display());
    let text = support::configuration(row.load, support::capacity(row.flows), row.services)
        .replace("net_null0", &device)
        // The device keeps a buffer for each frame of the capture.
        .replace("memory = \"auto\"", &format!("memory = \"auto\"\nbuffers = {}", row.flows + 8_192))
        .replace("/run/pollgate/bench.sock", &socket.display().to_string());
    std::fs::write(folder.join("pollgate.toml"), text).expect("room on the disk");
    let rate = MonotonicClock::new().cycles_per_second().unwrap_or(0);
    println!("{rate}");
}

struct Row {
    load: Load,
    flows: usize,
    services: usize,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    if std::env::args().any(|argument| argument == "--calibrate") {
        let mut steps: Vec<f64> = (0..31).map(|_| calibration()).collect();
        steps.sort_by(f64::total_cmp);
        return println!("{}", steps[15]);
    }
    let mut rows = Vec::new();
    for load in [Load::Dnat, Load::Masquerade, Load::Plain] {
        for flows in [1_000, 64_000, 1_000_000] {
            rows.push(Row { load, flows, services: 10 });
        }
    }
    rows.push(Row { load: Load::Dnat, flows: 64_000, services: 5_000 });
    for load in [Load::NewDnat, Load::NewMasquerade] {
        rows.push(Row { load, flows: 64_000, services: 10 });
    }
    if quick {
        rows.retain(|row| row.flows <= 64_000 && row.services == 10);
    }
    let value = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    if let Some(load) = value("--load") {
        rows.retain(|row| row.load.name() == load);
    }
    if let Some(flows) = value("--flows") {
        rows.retain(|row| row.flows.to_string() == flows);
    }
    if let Some(folder) = value("--prepare") {
        let load = value("--load").and_then(|name| Load::ALL.into_iter().find(|load| load.name() == name));
        let flows = value("--flows").and_then(|flows| flows.parse().ok());
        let (Some(load), Some(flows)) = (load, flows) else {
            eprintln!("--prepare needs --load NAME and --flows N");
            std::process::exit(2);
        };
        return prepare(&Row { load, flows, services: 10 }, std::path::Path::new(&folder));
    }
    let (rounds, turns) = if quick { (3, 4_000) } else { (7, 20_000) };
    let rate = MonotonicClock::new().cycles_per_second().unwrap_or(0) as f64 / 1e9;
    println!(
        "TSC {rate:.3} GHz; cycles a packet: minimum / median / maximum of {rounds} rounds of {} packets",
        turns * 32
    );
    println!(
        "{:<16} {:>9} {:>9}  {:>24}  {:>24}  {:>22}",
        "load", "flows", "services", "whole", "port and loop", "calibration, per step"
    );
    for row in rows {
        measure(&row, rounds, turns);
    }
}

fn measure(row: &Row, rounds: usize, turns: u64) {
    let mut bench = Bench::new(row.load, row.flows, row.services);
    let mut null = null_worker(frames(row.load, row.flows.min(1 << 16), row.services));
    let (mut whole, mut port, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let dropped = bench.outcome().1;
    for _ in 0..rounds {
        steps.push(calibration());
        whole.push(bench.cycles_per_packet(turns));
        let started = cycles();
        for turn in 0..turns {
            null.turn(Timestamp(turn));
        }
        port.push((cycles() - started) as f64 / (turns * 32) as f64);
    }
    if !row.load.is_new() {
        let flows = bench.handle.gauges.get(Gauge::Flows as usize);
        assert_eq!(flows, row.flows as u64, "each frame is a flow of its own");
    }
    assert_eq!(bench.outcome().1, dropped, "packets were dropped: the figure would be another's");
    println!(
        "{:<16} {:>9} {:>9}  {:>24}  {:>24}  {:>22}",
        row.load.name(),
        row.flows,
        row.services,
        triple(&mut whole, 0),
        triple(&mut port, 0),
        triple(&mut steps, 2)
    );
}

fn triple(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (first, middle, last) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{first:.digits$} / {middle:.digits$} / {last:.digits$}")
}
