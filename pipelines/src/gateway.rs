//! The gateway: the stages in their order. Read this first.
//!
//! A packet goes through
//!
//! 1. `parse` — every check of its bytes, once; its key and hash
//! 2. `ownership` — hand-off to the worker that owns its flow
//! 3. `vxlan_decap` — whose tunnel it came by
//! 4. `arp` — ARP is learned from and answered
//! 5. `fdb_lookup` — stations of the bridge are learned; frames that are no IP packets are bridged
//! 6. `conntrack` — its flow is found, and the connection's state moves on
//! 7. for the first packet of a flow, [`DECIDE`]: `validate`, `dnat`, `route_lookup`, `snat_mark`; the decision is
//!    compiled into a flow entry
//! 8. `apply` — addresses, ports, checksums, hop limit are rewritten as the entry says, and the adjacency's headers
//!    (Ethernet, or VXLAN's) go in front; bridged packets keep theirs and are looked up in the bridge's table
//!
//! and leaves with a disposition. Packets with a flow skip step 7 and nothing else: there is one way to write a packet.

pub(crate) mod changes;
mod eviction;
mod first_packet;
pub(crate) mod forward;
pub(crate) mod host;
mod opening;
mod queries;
mod stateless;

pub use queries::{FlowAnswer, FlowQuery, FlowReport};

use std::sync::Arc;

use arrayvec::ArrayVec;
use engine::batch::{Batch, Disposition};
use engine::clock::Timestamp;
use engine::counters::{Account, Counters};
use engine::pool::PacketSource;
use engine::random::Random;
use engine::rate::TokenBucket;
use engine::ring::{Consumer, Producer};
use engine::snapshot::Reader;
use engine::table::flow::{EntryId, HashSecret};
use engine::table::pages::PageArrayError;
use engine::worker::{Pipeline, WorkerCounters};

use crate::decision::Decision;
use crate::drop_reason::DropReason;
use crate::events::Events;
use crate::flow::{FLAG_TRANSLATED, Flows};
use crate::meta::{Kind, Meta, NO_ENTRY};
use crate::neighbour_machine::{Event, Frames, NeighbourMachine};
use crate::ownership::{self, Ownership};
use crate::stage::conntrack::{self, Step};
use crate::stage::{arp, dnat, fdb_lookup, parse, route_lookup, snat_mark, validate, vxlan_decap};
use crate::table::Tables;
use crate::table::affinity::AffinityTable;
use crate::table::bridge_mac::BridgeMacs;
use crate::table::neighbour::Neighbours;
use crate::waiting::Waiting;

/// What a decision is made from, beside the packet and chance.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The tables.
    pub tables: &'a Tables,
    /// Which backends clients went to last.
    pub affinity: &'a AffinityTable,
    /// The time of the batch.
    pub now: Timestamp,
}

/// One stage of the decision over a first packet.
pub type Decide = fn(&Situation<'_>, &mut Random, &mut Decision);

/// How a first packet is decided, in order. A stage that finds the decision made is not asked.
pub const DECIDE: [(&str, Decide); 4] = [
    ("validate", |situation, _, decision| validate::decide(situation.tables, decision)),
    ("dnat", dnat::decide),
    ("route_lookup", |situation, _, decision| route_lookup::decide(situation.tables, decision)),
    ("snat_mark", |situation, _, decision| snat_mark::decide(situation.tables, decision)),
];

/// Decides a first packet: pure in tables, what is known of clients, time and randomness.
pub fn decide(situation: &Situation<'_>, random: &mut Random, decision: &mut Decision) {
    for (_, stage) in DECIDE {
        if decision.is_open() {
            stage(situation, random, decision);
        }
    }
}

/// ICMP errors a second that one worker sends at the most (Linux: icmp_msgs_per_sec).
const ICMP_ERRORS_PER_SECOND: u32 = 1_000;
/// Burst of those.
const ICMP_ERRORS_BURST: u32 = 50;
/// Pairs of the flow table that one slice of the sweep looks at.
pub const SWEEP_PAIRS: u32 = 256;
/// As many while services' changes wait for it.
const SWEEP_PAIRS_CHANGED: u32 = 1_024;
/// Pairs between the one that the sweep looks at and the one it asks for.
const SWEEP_AHEAD: u32 = 16;
/// Milliseconds that one slice makes up for at the most: a worker that sleeps looks at its flows as fast as one that polls.
const SWEEP_ELAPSED_MAX_MS: u32 = 16;
/// Packets between the one that is worked on and the one whose flow is looked at: its entry has arrived by then, and the lines
/// that the entry names arrive before its turn.
const AHEAD: usize = 6;
/// Events taken from each other worker's ring in one step.
const EVENTS_PER_RING: usize = 32;

/// What one worker counts beside packets; places in [`GatewayParts::gauges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// Flows tracked now.
    Flows,
    /// Flows created so far.
    FlowsCreated,
    /// Flows that ended by timeout.
    FlowsExpired,
    /// Flows that made place for others.
    FlowsEvicted,
    /// Flows that were closed and opened anew.
    FlowsReopened,
    /// Events for the neighbour machine that found no place.
    EventsLost,
    /// ARP requests sent.
    NeighbourRequests,
    /// Tables' generation in use.
    Generation,
    /// Flows that ended because their backend is gone, or because a service took their destination over.
    FlowsEnded,
    /// Every flow has been looked at with tables of this generation or a later one.
    SweptGeneration,
    /// Packets sent on without a flow, since the table was full.
    PacketsStateless,
}

impl Gauge {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Flows, "flows"),
        (Self::FlowsCreated, "flows_created"),
        (Self::FlowsExpired, "flows_expired"),
        (Self::FlowsEvicted, "flows_evicted"),
        (Self::FlowsReopened, "flows_reopened"),
        (Self::EventsLost, "events_lost"),
        (Self::NeighbourRequests, "neighbour_requests"),
        (Self::Generation, "generation"),
        (Self::FlowsEnded, "flows_ended"),
        (Self::SweptGeneration, "swept_generation"),
        (Self::PacketsStateless, "packets_stateless"),
    ];
}

/// How the neighbour machine hears of this worker's events.
pub enum Machine {
    /// It runs on this worker; the rings bring the other workers' events.
    Here(Box<NeighbourMachine>, Vec<Consumer<Event>>),
    /// It runs elsewhere.
    Elsewhere(Producer<Event>),
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// The tables.
    pub tables: Reader<Tables>,
    /// Next hops, shared by all workers.
    pub neighbours: Arc<Neighbours>,
    /// Stations of the bridge, shared by all workers.
    pub stations: Arc<BridgeMacs>,
    /// Which backends clients went to last, shared by all workers.
    pub affinity: Arc<AffinityTable>,
    /// Where the neighbour machine runs.
    pub machine: Machine,
    /// Who owns which flow.
    pub ownership: Ownership,
    /// Flows tracked at the most.
    pub flow_capacity: usize,
    /// Seed of this worker's randomness.
    pub random: Random,
    /// Buffers for copies and requests.
    pub source: Box<dyn PacketSource + Send>,
    /// The worker's counters, shared with the engine's loop.
    pub counters: WorkerCounters,
    /// [`Gauge`] row.
    pub gauges: Counters,
    /// Questions about flows, and the answers' way back.
    pub queries: Option<(Consumer<FlowQuery>, Producer<FlowAnswer>)>,
    /// Packets a second to the host's stack.
    pub host_rate_pps: u32,
}

/// One worker's gateway.
pub struct Gateway {
    tables: Reader<Tables>,
    machine: Machine,
    core: Core,
    events: Events,
    waiting: Waiting,
    queries: Option<(Consumer<FlowQuery>, Producer<FlowAnswer>)>,
    tended_ms: u32,
    sweep_at: u32,
    /// The tables' generation when the sweep last began at the first flow.
    sweep_generation: u64,
}

/// What one batch is worked on with: lent to the steps from connection tracking on.
pub(crate) struct Turn<'a> {
    /// The packets.
    pub(crate) batch: &'a mut Batch<Meta>,
    /// The tables, of one generation for the whole batch.
    pub(crate) tables: &'a Tables,
    /// What the neighbour machine is to hear of.
    pub(crate) events: &'a mut Events,
    /// Packets that wait for a next hop.
    pub(crate) waiting: &'a mut Waiting,
    /// The time of the batch.
    pub(crate) now: Timestamp,
}

/// What the steps from connection tracking on own.
pub(crate) struct Core {
    pub(crate) flows: Flows,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) stations: Arc<BridgeMacs>,
    pub(crate) affinity: Arc<AffinityTable>,
    pub(crate) ownership: Ownership,
    pub(crate) random: Random,
    pub(crate) source: Box<dyn PacketSource + Send>,
    pub(crate) counters: WorkerCounters,
    pub(crate) gauges: Counters,
    pub(crate) icmp_limit: TokenBucket,
    pub(crate) host_limit: TokenBucket,
    /// Running number for outer headers (RFC 6864, section 4.2).
    pub(crate) identification: u16,
    pub(crate) hop: forward::Hop,
    /// Where eviction looks next.
    pub(crate) evict_at: u32,
    /// When packets were last sent on without a flow.
    pub(crate) stateless: stateless::Stateless,
    /// Where the next scan for a free masquerade port begins.
    pub(crate) scan_at: u32,
}

impl Gateway {
    /// A gateway; takes the memory of its flow table.
    pub fn new(parts: GatewayParts) -> Result<Self, PageArrayError> {
        let mut random = parts.random;
        let secret = HashSecret::new(random.next_u64(), random.next_u64());
        let core = Core {
            flows: Flows::new(parts.flow_capacity, secret)?,
            neighbours: parts.neighbours,
            stations: parts.stations,
            affinity: parts.affinity,
            ownership: parts.ownership,
            source: parts.source,
            counters: parts.counters,
            gauges: parts.gauges,
            icmp_limit: TokenBucket::new(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_BURST),
            host_limit: TokenBucket::new(parts.host_rate_pps, (parts.host_rate_pps / 10).max(32)),
            identification: random.next_u32() as u16,
            evict_at: 0,
            scan_at: 0,
            stateless: stateless::Stateless::default(),
            hop: forward::Hop::NONE,
            random,
        };
        Ok(Self {
            tables: parts.tables,
            machine: parts.machine,
            core,
            events: Events::default(),
            waiting: Waiting::default(),
            queries: parts.queries,
            tended_ms: 0,
            sweep_at: 0,
            sweep_generation: 0,
        })
    }

    /// The flows, to look at.
    pub fn flows(&self) -> &Flows {
        &self.core.flows
    }

    /// The neighbour machine's step on this worker, or the events' way to it.
    fn step_machine(&mut self, batch: &mut Batch<Meta>, now: Timestamp) {
        let Self { tables, machine, core, events, .. } = self;
        match machine {
            Machine::Elsewhere(ring) => ring.push_batch(&mut events.list),
            Machine::Here(machine, rings) => {
                let tables = tables.load();
                let mut frames = Frames::new();
                machine.step(tables, now, events.list.drain(..), &mut frames);
                for ring in rings {
                    let mut others = ArrayVec::<Event, EVENTS_PER_RING>::new();
                    ring.pop_batch(EVENTS_PER_RING, |event| others.push(event));
                    if !others.is_empty() {
                        machine.step(tables, now, others.drain(..), &mut frames);
                    }
                }
                core.send_requests(batch, tables, &frames);
            }
        }
        let lost = events.list.len() as u64 + core::mem::take(&mut events.lost);
        core.gauges.add(Gauge::EventsLost as usize, lost);
        events.list.clear();
    }

    /// Ends flows that have been silent too long, and those that changes of services end: a slice of the table.
    /// `elapsed_ms` have gone by since the last one.
    fn sweep(&mut self, now_ms: u32, elapsed_ms: u32) {
        let tables = self.tables.load();
        let capacity = self.core.flows.capacity() as u32;
        let has_changes = tables.services.needs_sweep();
        let slice = if has_changes { SWEEP_PAIRS_CHANGED } else { SWEEP_PAIRS };
        let slice = slice * elapsed_ms.clamp(1, SWEEP_ELAPSED_MAX_MS);
        for _ in 0..slice.min(capacity) {
            let pair = self.sweep_at;
            // Packets wait meanwhile: each miss that is not asked for ahead would be a part of their delay. The other direction
            // is read only where this one has been silent for its timeout.
            self.core.flows.prefetch(EntryId((pair + SWEEP_AHEAD) * 2));
            if conntrack::is_expired(&self.core.flows, pair, &tables.timeouts, now_ms) {
                self.core.flows.remove(EntryId(pair * 2));
                self.core.gauges.add(Gauge::FlowsExpired as usize, 1);
            } else if has_changes {
                self.core.follow_changes(pair, tables);
            }
            self.sweep_at = pair + 1;
            if self.sweep_at >= capacity {
                self.sweep_at = 0;
                self.core.gauges.set(Gauge::SweptGeneration as usize, self.sweep_generation);
                self.sweep_generation = tables.generation;
            }
        }
        self.core.gauges.set(Gauge::Flows as usize, self.core.flows.len() as u64);
    }
}

impl Pipeline for Gateway {
    type Meta = Meta;

    fn resume(&mut self, batch: &mut Batch<Meta>, now: Timestamp) {
        if !self.waiting.is_empty() {
            self.waiting.resume(batch, &self.core.neighbours, now);
            self.core.counters.accounts.set(Account::Held as usize, self.waiting.len() as u64);
        }
    }

    fn process(&mut self, batch: &mut Batch<Meta>, now: Timestamp) {
        let Self { tables, core, events, waiting, .. } = self;
        let tables = tables.load();
        parse::run(batch, tables, &core.flows);
        ownership::run(batch, &core.ownership);
        vxlan_decap::run(batch, tables);
        let answered = arp::run(batch, tables, events);
        core.count_originated(answered.replies);
        let flooded = fdb_lookup::run(batch, tables, &core.stations, core.source.as_mut(), now, events);
        core.count_flooded(flooded);
        conntrack::prefetch(batch, &core.flows);
        core.hop.forget();
        let mut first_packets = ArrayVec::<u8, { engine::batch::BATCH_CAPACITY }>::new();
        for index in 0..batch.len().min(AHEAD) {
            core.look_up(&mut batch.meta[index], tables);
        }
        let mut turn = Turn { batch, tables, events, waiting, now };
        for index in 0..turn.batch.len() {
            if index + AHEAD < turn.batch.len() {
                core.look_up(&mut turn.batch.meta[index + AHEAD], tables);
            }
            if turn.batch.is_pending(index) && !core.known_flow(&mut turn, index) {
                first_packets.push(index as u8);
            }
        }
        if !first_packets.is_empty() {
            core.first_packets(&mut turn, &first_packets);
        }
        waiting.settle();
        core.counters.accounts.set(Account::Held as usize, waiting.len() as u64);
        if !events.list.is_empty() {
            self.step_machine(batch, now);
        }
    }

    fn tend(&mut self, batch: &mut Batch<Meta>, now: Timestamp) {
        let now_ms = now.millis();
        if now_ms == self.tended_ms && self.core.gauges.get(Gauge::Generation as usize) != 0 {
            return;
        }
        self.core.stateless.tend(&self.tables.load().timeouts, now);
        let elapsed_ms = now_ms.wrapping_sub(core::mem::replace(&mut self.tended_ms, now_ms));
        self.step_machine(batch, now);
        self.sweep(now_ms, elapsed_ms);
        self.answer_queries(now_ms);
        let generation = self.tables.load().generation;
        self.core.gauges.set(Gauge::Generation as usize, generation);
    }

    fn sleep(&mut self) {
        self.tables.sleep();
    }
}

impl Core {
    fn count(&self, account: Account, amount: u64) {
        if amount > 0 {
            self.counters.accounts.add(account as usize, amount);
        }
    }

    /// Counts packets that were turned into answers: each ends, and each answer begins.
    pub(crate) fn count_originated(&self, answers: u64) {
        self.count(Account::Consumed, answers);
        self.count(Account::Originated, answers);
    }

    pub(crate) fn count_flooded(&self, flooded: fdb_lookup::Flooded) {
        self.count(Account::Copied, flooded.copies);
        if flooded.lost > 0 {
            // A copy that could not be made was never a packet: its loss is counted as one that came and went.
            self.count(Account::Copied, flooded.lost);
            self.count(Account::Dropped, flooded.lost);
            self.counters.drops.add(usize::from(DropReason::FloodNoRoom.code()), flooded.lost);
        }
    }

    /// Sends the neighbour machine's requests.
    fn send_requests(&mut self, batch: &mut Batch<Meta>, tables: &Tables, frames: &Frames) {
        for frame in frames {
            let bridge_members = tables.bridge.as_ref().map_or(&[][..], |bridge| &bridge.members);
            let single = frame.port.as_slice();
            let ports = if frame.port.is_some() { single } else { bridge_members };
            for port in ports {
                let Some(mut packet) = self.source.allocate() else { continue };
                if !packet.fill(&frame.bytes) || batch.added.is_full() {
                    continue;
                }
                packet.set_port(*port);
                self.count(Account::Originated, 1);
                self.gauges.add(Gauge::NeighbourRequests as usize, 1);
                batch.added.push((packet, Disposition::Transmit(*port)));
            }
        }
    }

    /// Finds a packet's flow, and asks for the other lines that it needs: next hop and backend counters.
    #[inline(always)]
    fn look_up(&self, meta: &mut Meta, tables: &Tables) {
        conntrack::find(meta, &self.flows);
        if meta.entry == NO_ENTRY || meta.kind != Kind::Flow {
            return;
        }
        let id = EntryId(meta.entry);
        let value = &self.flows.entry(id).value;
        if conntrack::changes_state(meta, value) {
            self.flows.prefetch(id.peer());
        }
        self.neighbours.prefetch(value.adjacency);
        if let Some(counters) = tables.counters_of(self.ownership.worker()) {
            counters.prefetch(value.backend_slot);
        }
    }

    /// Handles a packet whose flow is known. False: it is a first packet, or takes the place of a closed connection.
    fn known_flow(&mut self, turn: &mut Turn<'_>, index: usize) -> bool {
        let meta = turn.batch.meta[index];
        if meta.entry == NO_ENTRY {
            return false;
        }
        let id = EntryId(meta.entry);
        if meta.kind == Kind::IcmpError {
            // About a flow that nothing is rewritten of it is right as it is; others would have to be translated.
            let is_translated = self.flows.entry(id).value.has(FLAG_TRANSLATED);
            if is_translated || !self.error_of_host(turn, index) {
                turn.batch.dispositions[index] = Disposition::Drop(DropReason::IcmpErrorTracked.code());
            }
            return true;
        }
        if turn.waiting.has_waited(index) {
            // Its flow's state has moved on by it when it came.
            self.forward(turn, index, id);
            return true;
        }
        let services = &turn.tables.services;
        if conntrack::has_ended(&self.flows, id, &turn.tables.timeouts, turn.now.millis())
            || (services.needs_sweep() && changes::is_outdated(&self.flows, id, services))
        {
            // The sweep has not been by. Not taken out here: others of the batch still point to it.
            return false;
        }
        self.later_packet(turn, index, id)
    }

    /// Handles a packet of the flow of `id`. False: the flow is over, and the packet opens another in its place.
    #[inline(always)]
    pub(crate) fn later_packet(&mut self, turn: &mut Turn<'_>, index: usize, id: EntryId) -> bool {
        let meta = turn.batch.meta[index];
        let Some(packet) = turn.batch.packet(index) else { return true };
        match conntrack::advance(&mut self.flows, id, packet, &meta, turn.now.millis()) {
            Step::Reopen => return false,
            Step::Invalid => {
                turn.batch.dispositions[index] = Disposition::Drop(DropReason::TcpInvalid.code())
            }
            Step::Pass => self.forward(turn, index, id),
        }
        true
    }
}
