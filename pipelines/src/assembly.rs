//! Puts workers together: gateways, rings between them, counters, and what the control side keeps of each. The same for
//! devices, captures, tests and benchmarks; only the ports and the clock differ.

use std::sync::Arc;

use engine::counters::Counters;
use engine::packet::Packet;
use engine::pool::PacketSource;
use engine::port::PortQueue;
use engine::random::Random;
use engine::ring::{Consumer, Producer, ring};
use engine::snapshot::{Publisher, snapshot};
use engine::table::pages::PageArrayError;
use engine::worker::{Connections, HandOff, Worker, WorkerCounters};

use crate::control::build::{node_port_addresses, own_addresses};
use crate::control::config::model::Configuration;
use crate::drop_reason::REASON_COUNT;
use crate::gateway::{FlowAnswer, FlowQuery, Gateway, GatewayParts, Gauge, Machine};
use crate::neighbour_machine::{Event, NeighbourMachine};
use crate::ownership::Ownership;
use crate::table::Tables;
use crate::table::affinity::AffinityTable;
use crate::table::bridge_mac::BridgeMacs;
use crate::table::neighbour::{NEIGHBOURS_MAX, Neighbours};

/// Events that wait for the neighbour machine from one other worker at the most.
const EVENT_RING: usize = 1_024;

/// Randomness that is no worker's: workers have the streams of their numbers.
const AFFINITY_STREAM: u64 = 1 << 32;

/// What one worker brings along.
pub struct WorkerInput {
    /// Its queues, by port number; none where it has no queue of the port.
    pub ports: Vec<Option<Box<dyn PortQueue>>>,
    /// Where it takes buffers.
    pub source: Box<dyn PacketSource + Send>,
}

/// What the control side keeps of one worker.
pub struct WorkerHandle {
    /// Its counters.
    pub counters: WorkerCounters,
    /// Its [`Gauge`] row.
    pub gauges: Counters,
    /// Questions about its flows.
    pub questions: Producer<FlowQuery>,
    /// Their answers.
    pub answers: Consumer<FlowAnswer>,
    /// Packets for the host's own stack.
    pub to_host: Consumer<Packet>,
    /// Packets from the host's own stack, whose port is [`crate::table::interface::HOST_PORT`].
    pub from_host: Producer<HandOff>,
}

/// Workers, and all that is shared with them.
pub struct Assembly {
    /// The workers, not running yet.
    pub workers: Vec<Worker<Gateway>>,
    /// For each, what the control side keeps.
    pub handles: Vec<WorkerHandle>,
    /// Publishes tables.
    pub publisher: Publisher<Tables>,
    /// Next hops, to look at.
    pub neighbours: Arc<Neighbours>,
    /// Stations, to look at.
    pub stations: Arc<BridgeMacs>,
    /// Session affinity, to look at.
    pub affinity: Arc<AffinityTable>,
}

/// Puts workers together that start with `tables`. `seed` decides all their randomness.
pub fn assemble(
    configuration: &Configuration,
    tables: Tables,
    inputs: Vec<WorkerInput>,
    seed: u64,
) -> Result<Assembly, PageArrayError> {
    let count = inputs.len();
    let port_count = configuration.ports.len();
    let (publisher, readers) = snapshot(Arc::new(tables), count);
    let neighbours = Arc::new(Neighbours::new(NEIGHBOURS_MAX));
    let stations = Arc::new(BridgeMacs::default());
    let random = Random::new(seed);
    let affinity = Arc::new(AffinityTable::new(
        configuration.service_settings.affinity_capacity,
        random.fork(AFFINITY_STREAM).next_u64(),
    ));
    let mut hand_offs = HandOffRings::new(count, configuration.workers.handoff_ring);
    let host_ring = configuration.exception.as_ref().map_or(2, |exception| exception.ring);
    let (mut event_senders, event_receivers): (Vec<_>, Vec<_>) =
        (1..count).map(|_| ring::<Event>(EVENT_RING)).unzip();
    event_senders.reverse();
    let mut machine =
        Some((NeighbourMachine::new(Arc::clone(&neighbours), Arc::clone(&stations)), event_receivers));
    let (mut workers, mut handles) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for ((index, input), tables) in inputs.into_iter().enumerate().zip(readers) {
        let counters = WorkerCounters::new(port_count, REASON_COUNT);
        let gauges = Counters::new(Gauge::ALL.len());
        let (questions, question_receiver) = ring(2);
        let (answer_sender, answers) = ring(2);
        let (to_host_sender, to_host) = ring(host_ring);
        let (from_host, from_host_receiver) = ring(host_ring);
        let machine = match (machine.take(), event_senders.pop()) {
            (Some((machine, receivers)), sender) => {
                // The first worker runs the machine itself; the senders are the others'.
                event_senders.extend(sender);
                Machine::Here(Box::new(machine), receivers)
            }
            (None, Some(sender)) => Machine::Elsewhere(sender),
            // One sender was made for each worker but the first.
            (None, None) => Machine::Elsewhere(ring(2).0),
        };
        let gateway = Gateway::new(GatewayParts {
            tables,
            neighbours: Arc::clone(&neighbours),
            stations: Arc::clone(&stations),
            affinity: Arc::clone(&affinity),
            machine,
            ownership: ownership(configuration, index, count),
            flow_capacity: configuration.conntrack.capacity,
            random: random.fork(index as u64),
            source: input.source,
            counters: counters.clone(),
            gauges: gauges.clone(),
            queries: Some((question_receiver, answer_sender)),
            host_rate_pps: configuration.exception.as_ref().map_or(0, |exception| exception.rate_pps),
        })?;
        let (mut inboxes, outboxes) = hand_offs.take(index);
        inboxes.push(from_host_receiver);
        let host = configuration.exception.is_some().then_some(to_host_sender);
        let connections = Connections { ports: input.ports, inboxes, outboxes, host };
        workers.push(Worker::new(gateway, connections, counters.clone(), configuration.workers.burst));
        handles.push(WorkerHandle { counters, gauges, questions, answers, to_host, from_host });
    }
    Ok(Assembly { workers, handles, publisher, neighbours, stations, affinity })
}

/// The rule of `worker` of `count`.
pub(crate) fn ownership(configuration: &Configuration, worker: usize, count: usize) -> Ownership {
    let settings = &configuration.service_settings;
    let mut nodes: Vec<u32> = own_addresses(configuration).into_iter().map(u32::from).collect();
    nodes.extend(node_port_addresses(configuration));
    Ownership::new(worker as u8, count, settings.service_cidrs.clone(), nodes, settings.node_port_range)
}

/// A ring from each worker to each other one.
struct HandOffRings {
    senders: Vec<Vec<Option<Producer<HandOff>>>>,
    receivers: Vec<Vec<Consumer<HandOff>>>,
}

impl HandOffRings {
    fn new(count: usize, capacity: usize) -> Self {
        let mut senders: Vec<Vec<_>> = (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
        let mut receivers: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (from, row) in senders.iter_mut().enumerate() {
            for to in (0..count).filter(|to| *to != from) {
                let (sender, receiver) = ring(capacity);
                row[to] = Some(sender);
                receivers[to].push(receiver);
            }
        }
        Self { senders, receivers }
    }

    fn take(&mut self, worker: usize) -> (Vec<Consumer<HandOff>>, Vec<Option<Producer<HandOff>>>) {
        (core::mem::take(&mut self.receivers[worker]), core::mem::take(&mut self.senders[worker]))
    }
}
