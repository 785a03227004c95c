//! All counters at one moment, as people read them and as programs do: the answer of `pollgate replay`, `pollgate show`
//! and the last words of `pollgate run`.
//!
//! Field names are an interface: docs/counters.md lists them, and they change only together with [`VERSION`].

mod text;

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use engine::counters::{Account, Counters, is_balanced};
use engine::worker::{ENGINE_REASONS, PORT_COUNTERS, WorkerCounters};
use serde::Serialize;

use crate::drop_reason::{REASON_COUNT, describe};
use crate::gateway::Gauge;
use crate::table::service::ServicePort;
use crate::table::{SlotCounter, Tables};

pub use text::aligned;

/// Version of the fields' names and meanings.
pub const VERSION: u32 = 1;

/// Terms of the equation that every worker keeps; see [`engine::counters::Account`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accounting {
    /// Came in by a port.
    pub received: u64,
    /// Came in from another worker's or the host's ring.
    pub handed_in: u64,
    /// Made here: answers, errors, requests.
    pub originated: u64,
    /// Made here as copies.
    pub copied: u64,
    /// Left by a port.
    pub transmitted: u64,
    /// Left by another worker's or the host's ring.
    pub handed_off: u64,
    /// Ended having done their work.
    pub consumed: u64,
    /// Ended for a named reason.
    pub dropped: u64,
    /// Wait for a next hop now.
    pub held: u64,
    /// Whether the equation holds, for each worker by itself.
    pub balanced: bool,
}

impl Accounting {
    /// From one worker's values, in the order of [`Account::ALL`].
    fn of(values: &[u64; Account::ALL.len()]) -> Self {
        let [received, handed_in, originated, copied, transmitted, handed_off, consumed, dropped, held] =
            *values;
        Self {
            received,
            handed_in,
            originated,
            copied,
            transmitted,
            handed_off,
            consumed,
            dropped,
            held,
            balanced: is_balanced(values),
        }
    }

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.handed_in += other.handed_in;
        self.originated += other.originated;
        self.copied += other.copied;
        self.transmitted += other.transmitted;
        self.handed_off += other.handed_off;
        self.consumed += other.consumed;
        self.dropped += other.dropped;
        self.held += other.held;
        self.balanced &= other.balanced;
    }

    /// Names and values, in the order of the equation.
    pub fn terms(&self) -> [(&'static str, u64); Account::ALL.len()] {
        let values = [
            self.received,
            self.handed_in,
            self.originated,
            self.copied,
            self.transmitted,
            self.handed_off,
            self.consumed,
            self.dropped,
            self.held,
        ];
        core::array::from_fn(|term| (Account::ALL[term].1, values[term]))
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerReport {
    /// Its number.
    pub worker: usize,
    /// Its packets.
    pub accounting: Accounting,
    /// Turns of its loop.
    pub turns: u64,
    /// Turns in which something arrived.
    pub busy_turns: u64,
    /// Packets that arrived in those.
    pub packets: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// [`Gauge`]s by name.
    #[serde(flatten)]
    pub gauges: BTreeMap<&'static str, u64>,
}

/// One port, all its queues together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// Its number.
    pub port: usize,
    /// Its name in the configuration.
    pub name: String,
    /// Frames that came in by it.
    pub received_packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub received_bytes: u64,
    /// Frames that left by it.
    pub transmitted_packets: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
}

/// Packets that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropReport {
    /// The stage that drops for this reason.
    pub stage: &'static str,
    /// The reason's name.
    pub reason: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// How many.
    pub packets: u64,
}

/// Traffic of a service or backend. "In" is towards the backends; bytes are of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Connections, or what stands for them in protocols without.
    pub connections: u64,
    /// Packets to the backend.
    pub packets_in: u64,
    /// Bytes to it.
    pub bytes_in: u64,
    /// Packets from it.
    pub packets_out: u64,
    /// Bytes from it.
    pub bytes_out: u64,
}

impl Traffic {
    /// From what `value` says of each counter.
    fn of(value: impl Fn(SlotCounter) -> u64) -> Self {
        Self {
            connections: value(SlotCounter::Connections),
            packets_in: value(SlotCounter::PacketsIn),
            bytes_in: value(SlotCounter::BytesIn),
            packets_out: value(SlotCounter::PacketsOut),
            bytes_out: value(SlotCounter::BytesOut),
        }
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }
}

/// One backend of a service port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendReport {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its share of new connections; 0: drains.
    pub weight: u16,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceReport {
    /// Namespace of the service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The virtual IP.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// The port on the node's addresses.
    pub node_port: Option<u16>,
    /// Traffic of the backends below, added up.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// First packets that were rejected because there was no backend.
    pub refused: u64,
    /// Its backends, the draining ones too.
    pub backends: Vec<BackendReport>,
    /// Endpoints that take no new connection.
    pub left_out: Vec<LeftOutReport>,
}

/// An endpoint that takes no new connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOutReport {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Why.
    pub reason: &'static str,
}

/// All counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Generation of the tables that names and services were taken from.
    pub generation: u64,
    /// Sum over the workers.
    pub accounting: Accounting,
    /// By worker.
    pub workers: Vec<WorkerReport>,
    /// By port.
    pub ports: Vec<PortReport>,
    /// Reasons that packets were dropped for, the most frequent first.
    pub drops: Vec<DropReport>,
    /// Service ports, in the configuration's order.
    pub services: Vec<ServiceReport>,
}

impl Report {
    /// Adds up what the workers have counted. `parts` are each worker's counters and its [`Gauge`] row, in order.
    pub fn collect(parts: &[(WorkerCounters, Counters)], tables: &Tables) -> Self {
        let workers: Vec<WorkerReport> = parts
            .iter()
            .enumerate()
            .map(|(worker, (counters, gauges))| worker_report(worker, counters, gauges))
            .collect();
        let mut accounting = Accounting { balanced: true, ..Accounting::default() };
        workers.iter().for_each(|worker| accounting.add(&worker.accounting));
        let mut report = Self {
            version: VERSION,
            generation: tables.generation,
            accounting,
            workers,
            ports: ports(parts, tables),
            drops: (0..REASON_COUNT)
                .map(|code| drop_report(code, parts))
                .filter(|drop| drop.packets > 0)
                .collect(),
            services: tables.services.iter().map(|service| service_report(service, tables)).collect(),
        };
        // Stable: of equally frequent reasons the earlier stage's comes first.
        report.drops.sort_by_key(|drop| core::cmp::Reverse(drop.packets));
        report
    }

    /// Adds the reasons that nothing was dropped for.
    pub fn with_every_drop(mut self) -> Self {
        let own = usize::from(ENGINE_REASONS)..REASON_COUNT;
        let engine = (0..usize::from(ENGINE_REASONS)).filter(|code| describe(*code as u16).1 != "reserved");
        for code in own.chain(engine) {
            let drop = drop_report(code, &[]);
            if !self.drops.iter().any(|known| (known.stage, known.reason) == (drop.stage, drop.reason)) {
                self.drops.push(drop);
            }
        }
        self
    }

    /// Packets dropped for a reason, by its name.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum()
    }

    /// A gauge, summed over the workers.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        let name = Gauge::ALL[gauge as usize].1;
        self.workers.iter().filter_map(|worker| worker.gauges.get(name)).sum()
    }

    /// A port's counters, by its name.
    pub fn port(&self, name: &str) -> Option<&PortReport> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// A service port's counters; `port_name` is empty for the one port of a service that has no name for it.
    pub fn service(&self, namespace: &str, name: &str, port_name: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|service| {
            (service.namespace.as_str(), service.name.as_str(), service.port_name.as_str())
                == (namespace, name, port_name)
        })
    }
}

fn worker_report(worker: usize, counters: &WorkerCounters, gauges: &Counters) -> WorkerReport {
    WorkerReport {
        worker,
        accounting: Accounting::of(&counters.account_values()),
        turns: counters.turns.get(0),
        busy_turns: counters.turns.get(1),
        packets: counters.turns.get(2),
        sleeps: counters.turns.get(3),
        gauges: Gauge::ALL.iter().map(|(gauge, name)| (*name, gauges.get(*gauge as usize))).collect(),
    }
}

fn ports(parts: &[(WorkerCounters, Counters)], tables: &Tables) -> Vec<PortReport> {
    let report = |(port, record): (usize, &crate::table::interface::PortRecord)| {
        let sum = |counter: usize| {
            parts.iter().map(|(counters, _)| counters.ports.get(port * PORT_COUNTERS.len() + counter)).sum()
        };
        PortReport {
            port,
            name: record.name.clone(),
            received_packets: sum(0),
            received_bytes: sum(1),
            transmitted_packets: sum(2),
            transmitted_bytes: sum(3),
        }
    };
    tables.ports.iter().enumerate().map(report).collect()
}

fn drop_report(code: usize, parts: &[(WorkerCounters, Counters)]) -> DropReport {
    let (stage, reason, meaning) = describe(code as u16);
    DropReport {
        stage,
        reason,
        meaning,
        packets: parts.iter().map(|(counters, _)| counters.drops.get(code)).sum(),
    }
}

fn left_out((address, port, reason): &(u32, u16, &'static str)) -> LeftOutReport {
    LeftOutReport { address: Ipv4Addr::from(*address), port: *port, reason }
}

fn service_report(service: &ServicePort, tables: &Tables) -> ServiceReport {
    let traffic_of = |slot: u32| Traffic::of(|counter| tables.slot_value(slot, counter));
    let backend_report = |backend: &crate::table::service::Backend| BackendReport {
        address: Ipv4Addr::from(backend.address),
        port: backend.port,
        weight: backend.weight,
        traffic: traffic_of(backend.slot),
    };
    let backends: Vec<BackendReport> = service.backends.iter().map(backend_report).collect();
    // What backends had counted before they went stays in the service's sums: its counters never go down.
    let mut traffic = Traffic::of(|counter| service.gone[counter as usize]);
    let listed = service.backends.iter().map(|backend| backend.slot);
    let others = service.facts.other_slots.iter().copied();
    listed.chain(others).chain([service.slot]).for_each(|slot| traffic.add(&traffic_of(slot)));
    ServiceReport {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        port_name: service.port_name.to_string(),
        protocol: service.protocol.name(),
        address: Ipv4Addr::from(service.cluster_ip),
        port: service.port,
        node_port: service.node_port,
        traffic,
        refused: tables.slot_value(service.slot, SlotCounter::Refused),
        backends,
        left_out: service.facts.left_out.iter().map(left_out).collect(),
    }
}

#[cfg(test)]
mod tests;
