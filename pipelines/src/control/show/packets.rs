//! Ports, workers, drops, and all counters in one.

use engine::counters::Counters;
use engine::worker::{ENGINE_REASONS, PORT_COUNTERS, WorkerCounters};
use serde_json::{Value, json};

use super::{Table, fields};
use crate::control::host_link::HostCounter;
use crate::control::view::{PortView, View};
use crate::drop_reason::{REASON_COUNT, describe};
use crate::report::Report;

const PORT_COLUMNS: &[(&str, &str)] = &[
    ("port", "name"),
    ("role", "role"),
    ("device", "device"),
    ("driver", "driver"),
    ("link", "link"),
    ("mac", "mac"),
    ("mtu", "mtu"),
    ("received", "received_packets"),
    ("transmitted", "transmitted_packets"),
    ("missed", "receive_missed"),
    ("errors", "receive_errors"),
    ("no buffer", "receive_no_buffer"),
    ("send errors", "transmit_errors"),
];

const WORKER_COLUMNS: &[(&str, &str)] = &[
    ("worker", "worker"),
    ("core", "core"),
    ("generation", "generation"),
    ("turns", "turns"),
    ("busy", "busy_turns"),
    ("packets", "packets"),
    ("a busy turn", "packets_per_busy_turn"),
    ("sleeps", "sleeps"),
    ("flows", "flows"),
    ("capacity", "flow_capacity"),
];

const DROP_COLUMNS: &[(&str, &str)] = &[
    ("worker", "worker"),
    ("stage", "stage"),
    ("reason", "reason"),
    ("packets", "packets"),
    ("meaning", "meaning"),
];

/// The exception link's reasons, beside the workers'.
const HOST_DROPS: [(HostCounter, &str, &str); 2] = [
    (HostCounter::DroppedFromHost, "from_host_full", "The ring from the host's own stack was full."),
    (HostCounter::DroppedToHost, "to_host_refused", "The exception port's device took no more."),
];

/// All counters of the workers.
pub(crate) fn report(view: &View) -> Report {
    let parts: Vec<(WorkerCounters, Counters)> =
        view.workers.iter().map(|worker| (worker.counters.clone(), worker.gauges.clone())).collect();
    Report::collect(&parts, &view.tables())
}

pub(super) fn ports(view: &View) -> Table {
    let report = report(view);
    let mut rows: Vec<Value> = Vec::new();
    for (port, counted) in view.ports.iter().zip(&report.ports) {
        let mut row = fields(counted);
        row.extend(device(port));
        row.insert("workers".to_owned(), by_worker(view, counted.port));
        rows.push(Value::Object(row));
    }
    if let (Some(port), Some(host)) = (&view.exception, &view.host) {
        let mut row = device(port);
        for (field, counter) in
            [("received_packets", HostCounter::Received), ("transmitted_packets", HostCounter::Transmitted)]
        {
            row.insert(field.to_owned(), host.get(counter as usize).into());
        }
        rows.push(Value::Object(row));
    }
    Table::new(PORT_COLUMNS, rows)
}

fn device(port: &PortView) -> serde_json::Map<String, Value> {
    let statistics = port.device.statistics();
    let link = port.device.link();
    fields(&json!({
        "name": port.name,
        "role": port.role,
        "device": port.device_name,
        "driver": port.device.driver(),
        "link": link.map(|(up, _)| if up { "up" } else { "down" }),
        "speed_mbps": link.and_then(|(_, speed_mbps)| speed_mbps),
        "mac": port.mac.to_string(),
        "device_mac": port.device.mac().to_string(),
        "mtu": port.mtu,
        "receive_missed": statistics.map(|statistics| statistics.receive_missed),
        "receive_errors": statistics.map(|statistics| statistics.receive_errors),
        "receive_no_buffer": statistics.map(|statistics| statistics.receive_no_buffer),
        "transmit_errors": statistics.map(|statistics| statistics.transmit_errors),
    }))
}

fn by_worker(view: &View, port: usize) -> Value {
    let row = |(worker, part): (usize, &crate::control::view::WorkerView)| {
        let mut row = fields(&json!({ "worker": worker }));
        for (place, name) in PORT_COUNTERS.iter().enumerate() {
            let value = part.counters.ports.get(port * PORT_COUNTERS.len() + place);
            row.insert((*name).to_owned(), value.into());
        }
        Value::Object(row)
    };
    view.workers.iter().enumerate().map(row).collect()
}

pub(super) fn workers(view: &View) -> Table {
    let rows = report(view).workers.into_iter().zip(&view.workers).map(|(worker, part)| {
        let mut row = fields(&worker);
        let mean = worker.packets as f64 / worker.busy_turns.max(1) as f64;
        row.insert("core".to_owned(), part.core.into());
        row.insert("flow_capacity".to_owned(), part.flow_capacity.into());
        // Two digits are enough to judge batching by.
        row.insert("packets_per_busy_turn".to_owned(), json!((mean * 100.0).round() / 100.0));
        Value::Object(row)
    });
    Table::new(WORKER_COLUMNS, rows.collect())
}

pub(super) fn drops(view: &View, all: bool) -> Table {
    let mut rows = Vec::new();
    let mut add = |worker: Option<usize>, (stage, reason, meaning): (&str, &str, &str), packets: u64| {
        if packets > 0 || all {
            rows.push(json!({
                "worker": worker, "stage": stage, "reason": reason, "meaning": meaning, "packets": packets,
            }));
        }
    };
    for (number, worker) in view.workers.iter().enumerate() {
        // The gateway's own reasons in the order of its stages, then the engine's.
        let own = usize::from(ENGINE_REASONS)..REASON_COUNT;
        for code in own.chain(0..usize::from(ENGINE_REASONS)) {
            let described = describe(code as u16);
            if described.1 != "reserved" {
                add(Some(number), described, worker.counters.drops.get(code));
            }
        }
    }
    if let Some(host) = &view.host {
        for (counter, reason, meaning) in HOST_DROPS {
            add(None, ("host", reason, meaning), host.get(counter as usize));
        }
    }
    Table::new(DROP_COLUMNS, rows)
}

/// Everything that is counted.
pub(super) fn counters(view: &View) -> Value {
    use core::sync::atomic::Ordering::Relaxed;
    let host = view.host.as_ref().map(|host| {
        HostCounter::ALL
            .iter()
            .map(|(counter, name)| ((*name).to_owned(), Value::from(host.get(*counter as usize))))
            .collect::<serde_json::Map<_, _>>()
    });
    json!({
        "node": view.node,
        "uptime_s": view.started.elapsed().as_secs(),
        "report": report(view),
        "host": host,
        "reloads": {
            "applied": view.reloads.applied.load(Relaxed),
            "failed": view.reloads.failed.load(Relaxed),
            "last_error": view.reloads.last_error(),
        },
    })
}

/// Everything that is counted, for people.
pub fn counters_text(view: &View) -> String {
    use core::sync::atomic::Ordering::Relaxed;
    let mut text = report(view).to_string();
    if let Some(host) = &view.host {
        let line: Vec<String> = HostCounter::ALL
            .iter()
            .map(|(counter, name)| format!("{name} {}", host.get(*counter as usize)))
            .collect();
        text += &format!("\nException link\n  {}\n", line.join(", "));
    }
    let (applied, failed) = (view.reloads.applied.load(Relaxed), view.reloads.failed.load(Relaxed));
    text += &format!(
        "\nReloads\n  {applied} applied, {failed} failed, running for {} s\n",
        view.started.elapsed().as_secs()
    );
    text
}
