//! Replay: the gateway over capture files, with the captures' own times as its clock.
//!
//! The same worker, pipeline and tables as on devices; one thread, ports in memory, ordinary memory, no rights needed.
//! Frames come in at the times they were captured at, and what the gateway sends is written at the virtual time it was
//! sent. docs/replay.md says what a person needs to know.
//!
//! **Invariant:** the outputs' bytes depend on configuration, captures, options and seed alone.

mod facts;
mod options;
mod schedule;
mod stations;

use core::time::Duration;

use engine::clock::Timestamp;
use engine::counters::Account;
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::memory::MemoryPort;
use engine::port::pcap::{CaptureError, CaptureMerge, CaptureReader, CaptureWriter, Record};
use engine::table::lpm::LpmError;
use engine::table::pages::PageArrayError;
use engine::wire::ethernet::{EthernetHeader, MacAddress};
use engine::worker::{HandOff, Worker};
use zerocopy::FromBytes;

use crate::assembly::{WorkerHandle, WorkerInput, assemble};
use crate::control::build::{Builder, HostFacts};
use crate::control::config;
use crate::control::config::model::Configuration;
use crate::control::kubernetes::ObjectStore;
use crate::control::sources::Sources;
use crate::gateway::Gateway;
use crate::ownership::visit;
use crate::report::Report;
use crate::table::Tables;
use crate::table::interface::HOST_PORT;

pub use facts::{InputFacts, OutputFacts, ReplayFacts, ReplayReport};
pub use options::{HOST, PortFile, PortFileError, ReplayOptions};

use options::{Place, Places};
use schedule::Schedule;
use stations::Stations;

/// Buffers: what may be held, a full batch, and its copies, several times over.
const BUFFERS: usize = 4_096;
/// Longest frame that a buffer takes.
const FRAME_MAX: usize = (engine::packet::BUFFER_SIZE - engine::packet::HEADROOM) as usize;
/// Turns at one moment at the most: what the gateway sent may be answered, and the answer lets held packets go.
const TURNS_PER_MOMENT: usize = 16;
/// Virtual time that held packets get at the end: longer than any is held.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// MAC of the host's own stack, which no capture needs to show.
const HOST_MAC: MacAddress = MacAddress([0x02, 0x70, 0x67, 0, 0, 2]);

/// Why a replay cannot be done, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration has errors.
    #[error("{0}")]
    Configuration(config::Report),
    /// An option names what does not exist, or contradicts another.
    #[error("{0}")]
    Options(String),
    /// A capture cannot be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// More routes than a table holds.
    #[error("the routing table cannot be built: {0}")]
    Routes(#[from] LpmError),
    /// The flow table does not fit into memory.
    #[error("{0}; a smaller `[conntrack] capacity` needs less")]
    Memory(#[from] PageArrayError),
    /// No buffer is free, though no more can be out than there are.
    #[error("no packet buffer is free: a defect, please report it with the captures")]
    NoBuffer,
}

/// Replays captures through the gateway that a configuration describes.
pub fn replay(options: &ReplayOptions) -> Result<ReplayReport, ReplayError> {
    let sources = Sources::load(&options.sources).map_err(ReplayError::Configuration)?;
    let configuration = &sources.configuration();
    let places = options.resolve(configuration).map_err(ReplayError::Options)?;
    let mut run = Replay::new(configuration, &sources.objects, options, &places)?;
    let mut captures = open(&options.inputs)?;
    run.create_outputs(options, &places)?;
    while let Some((input, record)) = captures.next_record()? {
        run.record(places.inputs[input], &record)?;
    }
    run.drain()?;
    run.facts.reordered = captures.reordered();
    let report = run.finish(options, &captures)?;
    Ok(ReplayReport { warnings: sources.findings(), ..report })
}

fn open(inputs: &[PortFile]) -> Result<CaptureMerge, CaptureError> {
    CaptureMerge::new(inputs.iter().map(|input| CaptureReader::open(&input.path)).collect::<Result<_, _>>()?)
}

struct Replay {
    worker: Worker<Gateway>,
    handle: WorkerHandle,
    tables: std::sync::Arc<Tables>,
    host_link_mac: MacAddress,
    pool: MemoryPool,
    ports: Vec<MemoryPort>,
    /// By port; the host's is last.
    outputs: Vec<Option<CaptureWriter>>,
    stations: Option<Stations>,
    schedule: Schedule,
    facts: ReplayFacts,
}

impl Replay {
    fn new(
        configuration: &Configuration,
        objects: &ObjectStore,
        options: &ReplayOptions,
        places: &Places,
    ) -> Result<Self, ReplayError> {
        let facts = HostFacts { host_mac: HOST_MAC, host_mtu: 0 };
        let tables = Builder::new(1, facts).build_with(configuration, objects)?;
        let pool = MemoryPool::new(BUFFERS);
        let ports: Vec<MemoryPort> = configuration.ports.iter().map(|_| MemoryPort::new()).collect();
        let queues = ports.iter().map(|port| Some(Box::new(port.clone()) as Box<dyn PortQueue>)).collect();
        let input = WorkerInput { ports: queues, source: Box::new(pool.clone()) };
        let mut assembly = assemble(configuration, tables, vec![input], options.seed)?;
        // One worker was asked for, and one is there.
        let (Some(worker), Some(handle)) = (assembly.workers.pop(), assembly.handles.pop()) else {
            return Err(ReplayError::NoBuffer);
        };
        let tables = assembly.publisher.current();
        let stations = options
            .resolve_neighbours
            .then(|| Stations::look_ahead(&tables, &options.inputs, &places.inputs))
            .transpose()?;
        Ok(Self {
            schedule: Schedule::new(worker.pipeline.flows().capacity()),
            worker,
            handle,
            host_link_mac: tables.host_macs.1,
            tables,
            pool,
            ports,
            outputs: (0..=configuration.ports.len()).map(|_| None).collect(),
            stations,
            facts: ReplayFacts { seed: options.seed, ..ReplayFacts::default() },
        })
    }

    /// Only now, when nothing else can be wrong any more: a mistake destroys no file.
    fn create_outputs(&mut self, options: &ReplayOptions, places: &Places) -> Result<(), CaptureError> {
        for (output, place) in options.outputs.iter().zip(&places.outputs) {
            let index = self.output_index(*place);
            self.outputs[index] = Some(CaptureWriter::create(&output.path)?);
        }
        Ok(())
    }

    fn output_index(&self, place: Place) -> usize {
        match place {
            Place::Port(port) => usize::from(port),
            Place::Host => self.ports.len(),
        }
    }

    /// One captured frame: lets time pass until then, and the frame come in.
    fn record(&mut self, place: Place, record: &Record<'_>) -> Result<(), ReplayError> {
        self.advance(record.timestamp)?;
        self.facts.records += 1;
        if record.is_truncated() {
            self.facts.truncated += 1;
            return Ok(());
        }
        if record.bytes.len() > FRAME_MAX {
            self.facts.oversized += 1;
            return Ok(());
        }
        if self.was_sent_by_gateway(place, record.bytes) {
            self.facts.own += 1;
            return Ok(());
        }
        if let (Some(stations), Place::Port(port)) = (&mut self.stations, place) {
            stations.observe(&self.tables, port, record.bytes);
        }
        self.inject(place, record.bytes)?;
        self.facts.injected += 1;
        self.schedule.note_arrival();
        self.settle()
    }

    /// A capture on an interface shows both directions; what the gateway of then sent is no arrival.
    fn was_sent_by_gateway(&self, place: Place, frame: &[u8]) -> bool {
        let own = match place {
            Place::Port(port) => self.tables.port(port).map(|record| record.mac),
            Place::Host => Some(self.host_link_mac),
        };
        EthernetHeader::ref_from_prefix(frame).is_ok_and(|(header, _)| Some(header.source) == own)
    }

    fn inject(&mut self, place: Place, frame: &[u8]) -> Result<(), ReplayError> {
        let number = match place {
            Place::Port(port) => port,
            Place::Host => HOST_PORT,
        };
        let packet = self.pool.packet(number, frame).ok_or(ReplayError::NoBuffer)?;
        match place {
            Place::Port(port) => {
                self.ports.get(usize::from(port)).ok_or(ReplayError::NoBuffer)?.inject(packet);
                Ok(())
            }
            // The ring is emptied by each turn.
            Place::Host => self
                .handle
                .from_host
                .push(HandOff { packet, visit: visit::NONE })
                .map_err(|_| ReplayError::NoBuffer),
        }
    }

    /// Lets time pass, in steps, so that what is due in between happens.
    fn advance(&mut self, to: Timestamp) -> Result<(), ReplayError> {
        if self.facts.start_ns.is_none() {
            self.facts.start_ns = Some(to.0);
            self.schedule.start(to);
            // Tables are taken over before the first packet, as on devices.
            self.settle()?;
        }
        while self.schedule.step(to, self.held() > 0) {
            self.settle()?;
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.handle.counters.accounts.get(Account::Held as usize)
    }

    /// Turns at this moment until nothing moves any more.
    fn settle(&mut self) -> Result<(), ReplayError> {
        for _ in 0..TURNS_PER_MOMENT {
            let taken = self.worker.turn(self.schedule.now());
            let left = self.collect()?;
            if taken == 0 && left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Writes what has left, and lets made-up stations answer. Gives how many packets that were.
    fn collect(&mut self) -> Result<usize, ReplayError> {
        let mut count = 0;
        let now = self.schedule.now();
        for port in 0..self.ports.len() {
            while let Some(packet) = self.ports[port].take_transmitted() {
                count += 1;
                if let Some(output) = &mut self.outputs[port] {
                    output.write(now, packet.data())?;
                }
                let stations = self.stations.as_ref();
                let answer =
                    stations.and_then(|stations| stations.answer(&self.tables, port as u16, packet.data()));
                // Back into the pool first: the answer needs a buffer.
                drop(packet);
                if let Some(frame) = answer {
                    self.inject(Place::Port(port as u16), &frame)?;
                    self.facts.neighbour_answers += 1;
                }
            }
        }
        while let Some(packet) = self.handle.to_host.pop() {
            count += 1;
            if let Some(Some(output)) = self.outputs.last_mut() {
                output.write(now, packet.data())?;
            }
        }
        Ok(count)
    }

    /// Gives held packets the time to go on or to be given up.
    fn drain(&mut self) -> Result<(), ReplayError> {
        let Some(start) = self.facts.start_ns else { return Ok(()) };
        let end = self.schedule.now();
        self.facts.duration_ns = end.nanoseconds_since(Timestamp(start));
        // One step in any case: gauges are written once a millisecond.
        while self.schedule.step(end + DRAIN_MAX, true) {
            self.settle()?;
            if self.held() == 0 {
                break;
            }
        }
        Ok(())
    }

    fn finish(
        mut self,
        options: &ReplayOptions,
        captures: &CaptureMerge,
    ) -> Result<ReplayReport, ReplayError> {
        let written = self.outputs.drain(..).map(|output| output.map(CaptureWriter::finish).transpose());
        let written: Vec<Option<u64>> = written.collect::<Result<_, _>>()?;
        let configuration_names = self.tables.ports.iter().map(|port| port.name.as_str()).chain([HOST]);
        let records: Vec<(&str, u64)> =
            configuration_names.zip(written).filter_map(|(name, written)| Some((name, written?))).collect();
        self.facts.outputs = options
            .outputs
            .iter()
            .map(|output| OutputFacts {
                port: output.port.clone(),
                file: output.path.clone(),
                packets: records.iter().find(|(name, _)| *name == output.port).map_or(0, |(_, count)| *count),
            })
            .collect();
        let inputs = options.inputs.iter().zip(captures.inputs());
        self.facts.inputs = inputs
            .map(|(input, reader)| InputFacts {
                port: input.port.clone(),
                file: input.path.clone(),
                records: reader.records(),
                truncated: reader.truncated(),
            })
            .collect();
        let parts = [(self.handle.counters.clone(), self.handle.gauges.clone())];
        let report = Report::collect(&parts, &self.tables);
        // Whatever is still out when all that may hold a buffer is gone will never come back.
        let Self { pool, worker, handle, ports, mut facts, .. } = self;
        drop((worker, handle, ports));
        facts.buffers_lost = pool.in_use() as u64;
        Ok(ReplayReport { report, replay: facts, warnings: Vec::new() })
    }
}
