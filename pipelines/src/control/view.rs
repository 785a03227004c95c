//! What the control side knows of a running gateway: shared by the control socket, the metrics server and the summary,
//! which only read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use engine::clock::MonotonicClock;
use engine::counters::Counters;
use engine::wire::ethernet::MacAddress;
use engine::worker::WorkerCounters;

use crate::control::flow_questions::FlowQuestions;
use crate::control::health::{CheckerCounters, HealthNodePortCounters};
use crate::control::kubernetes::Counts;
use crate::gateway::Gauge;
use crate::ownership::Ownership;
use crate::table::Tables;
use crate::table::affinity::AffinityTable;
use crate::table::bridge_mac::BridgeMacs;
use crate::table::neighbour::Neighbours;

/// A device as people want to know it. Asked by the control side alone.
pub trait PortDevice: Send + Sync {
    /// The driver's name.
    fn driver(&self) -> String;

    /// The device's own address.
    fn mac(&self) -> MacAddress;

    /// Whether the link is up, and its speed in Mbit/s where that is known. None: the device does not say. Shown, and
    /// never a reason not to transmit.
    fn link(&self) -> Option<(bool, Option<u32>)>;

    /// The device's own counters, if it has any.
    fn statistics(&self) -> Option<DeviceStatistics>;
}

/// What a device counts by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatistics {
    /// Packets that arrived while the receive queue was full.
    pub receive_missed: u64,
    /// Packets that arrived broken.
    pub receive_errors: u64,
    /// Times that no buffer was left to receive into.
    pub receive_no_buffer: u64,
    /// Packets that the device could not send.
    pub transmit_errors: u64,
}

/// One worker.
pub struct WorkerView {
    /// The core it is pinned to.
    pub core: usize,
    /// Its counters.
    pub counters: WorkerCounters,
    /// Its [`crate::gateway::Gauge`] row.
    pub gauges: Counters,
    /// Flows that it tracks at the most.
    pub flow_capacity: usize,
}

/// One port.
pub struct PortView {
    /// Its name in the configuration; `host` for the exception port.
    pub name: String,
    /// What it is for: `underlay`, `pod` or `exception`.
    pub role: &'static str,
    /// The device as the configuration names it.
    pub device_name: String,
    /// The gateway's address on it.
    pub mac: MacAddress,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The device itself.
    pub device: Arc<dyn PortDevice>,
}

/// What became of reloads.
#[derive(Default)]
pub struct ReloadView {
    /// Reloads that took effect.
    pub applied: AtomicU64,
    /// Reloads that were refused.
    pub failed: AtomicU64,
    /// Why the last one was refused; empty when it took effect.
    last_error: Mutex<String>,
}

impl ReloadView {
    /// Notes a reload that took effect.
    pub fn note_applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
        lock(&self.last_error).clear();
    }

    /// Notes one that was refused, and why.
    pub fn note_failed(&self, reason: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        reason.clone_into(&mut lock(&self.last_error));
    }

    /// Why the last reload was refused; empty when it took effect.
    pub fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }
}

/// What health checks and health check node ports do.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    /// Probes of backends.
    pub checks: CheckerCounters,
    /// Answers to load balancers.
    pub node_ports: HealthNodePortCounters,
    /// Health check node ports that are open.
    pub open_node_ports: usize,
}

/// All of it.
pub struct View {
    /// The node's name.
    pub node: String,
    /// The clock that workers read.
    pub clock: MonotonicClock,
    /// When the gateway started.
    pub started: Instant,
    /// The same moment by the calendar.
    pub started_at: SystemTime,
    /// Workers, in their order.
    pub workers: Vec<WorkerView>,
    /// The exception link's [`crate::control::host_link::HostCounter`] row, if there is a link.
    pub host: Option<Counters>,
    /// Ports by their number.
    pub ports: Vec<PortView>,
    /// The exception port.
    pub exception: Option<PortView>,
    /// Next hops.
    pub neighbours: Arc<Neighbours>,
    /// Stations of the bridge.
    pub stations: Arc<BridgeMacs>,
    /// What became of reloads.
    pub reloads: ReloadView,
    /// Which worker owns a flow: the rule of the first one.
    pub ownership: Ownership,
    /// The configuration's file, if there is one.
    pub config_file: OnceLock<PathBuf>,
    /// Session affinity.
    pub affinity: Arc<AffinityTable>,
    /// How many Kubernetes objects there are.
    pub(crate) objects: Mutex<Counts>,
    /// What health checks say.
    pub(crate) health: Mutex<HealthView>,
    /// Asks the workers for their flows; one question at a time.
    pub questions: Mutex<FlowQuestions>,
    pub(crate) tables: Mutex<Arc<Tables>>,
}

impl View {
    /// The tables that were published last.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&lock(&self.tables))
    }

    /// How many Kubernetes objects there are, and how many are refused.
    pub fn objects(&self) -> Counts {
        lock(&self.objects).clone()
    }

    /// Replaces them.
    pub(crate) fn set_objects(&self, counts: Counts) {
        *lock(&self.objects) = counts;
    }

    /// What health checks and health check node ports do.
    pub fn health(&self) -> HealthView {
        lock(&self.health).clone()
    }

    /// Replaces it.
    pub(crate) fn set_health(&self, health: HealthView) {
        *lock(&self.health) = health;
    }

    /// Every flow of every worker has been looked at with tables of this generation or a later one.
    pub fn swept_generation(&self) -> u64 {
        let swept = self.workers.iter().map(|worker| worker.gauges.get(Gauge::SweptGeneration as usize));
        swept.min().unwrap_or(0)
    }

    /// Replaces the tables.
    pub(crate) fn set_tables(&self, tables: Arc<Tables>) {
        *lock(&self.tables) = tables;
    }
}

/// Locks what stays right when a thread ends while it has the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
