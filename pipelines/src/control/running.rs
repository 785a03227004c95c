//! A gateway that runs: its threads, what the control side keeps of them, and their end.
//!
//! The same on devices, on ports in memory and in tests; who makes the ports decides.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use engine::clock::MonotonicClock;
use engine::counters::is_balanced;
use engine::port::PortQueue;
use engine::snapshot::Publisher;
use engine::table::pages::PageArrayError;

use crate::assembly::{WorkerInput, assemble, ownership};
use crate::control::config::Configuration;
use crate::control::flow_questions::{FlowChannel, FlowQuestions};
use crate::control::host_link::{HostCounter, HostLink, HostThread};
use crate::control::kubernetes::ObjectStore;
use crate::control::view::{PortView, ReloadView, View, WorkerView};
use crate::control::worker_threads::{ThreadEntry, ThreadError, WorkerThreads, idle_policy};
use crate::table::Tables;

/// What a gateway runs on.
pub struct Ports {
    /// Each worker's queues and buffers.
    pub inputs: Vec<WorkerInput>,
    /// The exception port's queue.
    pub exception_queue: Option<Box<dyn PortQueue>>,
    /// What can be told of each port, by number.
    pub views: Vec<PortView>,
    /// What can be told of the exception port.
    pub exception_view: Option<PortView>,
    /// Lets a thread use buffers.
    pub entry: ThreadEntry,
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No memory for the flow tables.
    #[error("{0}; configure a smaller `[conntrack] capacity`")]
    FlowTable(#[from] PageArrayError),
    /// A thread did not start.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// A running gateway.
pub struct Running {
    publisher: Publisher<Tables>,
    view: Arc<View>,
    workers: WorkerThreads,
    host: Option<HostThread>,
}

/// What was left when the gateway had stopped.
pub struct Stopped {
    /// To show the counters, which stay.
    pub view: Arc<View>,
    /// Threads that had met a defect.
    pub lost_threads: usize,
}

/// Retired tables that wait for a worker at the most; beyond that new ones wait.
const RETIRED_MAX: usize = 8;

/// Why tables are not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} earlier generations of tables are still in use: a worker does not go on")]
pub struct WorkersBehind(usize);

impl Running {
    /// Starts the workers on `cores`, and the exception link where there is one. `seed` decides all randomness.
    pub fn start(
        configuration: &Configuration,
        tables: Tables,
        ports: Ports,
        cores: &[usize],
        seed: u64,
    ) -> Result<Self, StartError> {
        let assembly = assemble(configuration, tables, ports.inputs, seed)?;
        let tables = assembly.publisher.current();
        let clock = MonotonicClock::new();
        let (mut workers, mut channels) = (Vec::new(), Vec::new());
        let (mut to_host, mut from_host) = (Vec::new(), None);
        for (handle, core) in assembly.handles.into_iter().zip(cores) {
            channels.push(FlowChannel::new(handle.questions, handle.answers));
            to_host.push(handle.to_host);
            // The first worker takes what the host sends; ownership hands it on.
            from_host.get_or_insert(handle.from_host);
            workers.push(WorkerView {
                core: *core,
                counters: handle.counters,
                gauges: handle.gauges,
                flow_capacity: configuration.conntrack.capacity,
            });
        }
        let link = match (ports.exception_queue, from_host) {
            (Some(queue), Some(from_host)) => Some(HostLink::new(queue, to_host, from_host)),
            _ => None,
        };
        let ownership = ownership(configuration, 0, workers.len());
        let view = Arc::new(View {
            node: configuration.node.name.clone(),
            clock,
            started: Instant::now(),
            started_at: SystemTime::now(),
            workers,
            host: link.as_ref().map(|link| link.counters().clone()),
            ports: ports.views,
            exception: ports.exception_view,
            neighbours: assembly.neighbours,
            stations: assembly.stations,
            reloads: ReloadView::default(),
            ownership,
            config_file: OnceLock::new(),
            affinity: assembly.affinity,
            objects: Mutex::new(ObjectStore::new().counts()),
            health: Mutex::default(),
            questions: Mutex::new(FlowQuestions::new(channels)),
            tables: Mutex::new(tables),
        });
        let idle = idle_policy(configuration);
        let workers = WorkerThreads::start(assembly.workers, cores, idle, clock, &ports.entry)?;
        let host = link.map(|link| HostThread::start(link, &ports.entry)).transpose()?;
        Ok(Self { publisher: assembly.publisher, view, workers, host })
    }

    /// What can be seen of it.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Whether tables can be published now: not as long as workers hold on to too many earlier ones.
    pub fn can_publish(&mut self) -> Result<(), WorkersBehind> {
        let waiting = self.reclaim();
        if waiting >= RETIRED_MAX { Err(WorkersBehind(waiting)) } else { Ok(()) }
    }

    /// Makes these the tables that workers use from their next batch on.
    pub fn publish(&mut self, tables: Tables) -> Result<(), WorkersBehind> {
        self.can_publish()?;
        let tables = Arc::new(tables);
        self.publisher.publish(Arc::clone(&tables));
        self.view.set_tables(tables);
        Ok(())
    }

    /// Frees tables that no worker uses any more. Gives how many still wait.
    pub fn reclaim(&mut self) -> usize {
        self.publisher.reclaim();
        self.publisher.retired()
    }

    /// Whether all threads still run.
    pub fn is_alive(&self) -> bool {
        self.workers.are_alive() && self.host.as_ref().is_none_or(HostThread::is_alive)
    }

    /// Stops all threads, the workers first, and gives back every buffer that they and the rings between them hold.
    pub fn stop(self) -> Stopped {
        let expected = self.view.workers.len() + usize::from(self.host.is_some());
        let workers = self.workers.stop();
        // After the workers, so that what they sent to the host last still goes out.
        let link = self.host.and_then(HostThread::stop);
        let lost_threads = expected - workers.len() - usize::from(link.is_some());
        // With both ends of each ring their packets go back to the pool, and with the queues the devices are free.
        drop((workers, link));
        Stopped { view: self.view, lost_threads }
    }
}

/// Whether every packet that any part of the gateway had is accounted for: each worker's equation, the exception
/// link's, and between them that nobody took in more than was handed over.
pub fn accounting_is_balanced(view: &View) -> bool {
    let workers = view.workers.iter().all(|worker| is_balanced(&worker.counters.account_values()));
    let host = |counter: HostCounter| view.host.as_ref().map_or(0, |row| row.get(counter as usize));
    let come = host(HostCounter::Received) + host(HostCounter::Taken);
    let gone = host(HostCounter::HandedIn)
        + host(HostCounter::Transmitted)
        + host(HostCounter::DroppedFromHost)
        + host(HostCounter::DroppedToHost);
    let sum = |place: engine::counters::Account| -> u64 {
        view.workers.iter().map(|worker| worker.counters.accounts.get(place as usize)).sum()
    };
    let handed_over = sum(engine::counters::Account::HandedOff) + host(HostCounter::HandedIn);
    let taken_in = sum(engine::counters::Account::HandedIn) + host(HostCounter::Taken);
    workers && come == gone && taken_in <= handed_over
}
