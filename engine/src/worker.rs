//! The worker: one thread's loop around a pipeline.
//!
//! A turn takes what has arrived from every port and ring, lets the pipeline decide, and carries the decisions out. The
//! loop owns all accounting of packets; the pipeline adds what it originates, copies, consumes and holds.
//!
//! **Invariant:** after each turn every packet that came in has left, ended or is held, and the equation of
//! [`crate::counters::Account`] holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::batch::{BATCH_CAPACITY, Batch, Disposition, PortId, WorkerId};
use crate::clock::Timestamp;
use crate::counters::{Account, Counters};
use crate::packet::Packet;
use crate::port::{BURST, Burst, PortQueue};
use crate::ring::{Consumer, Producer};

/// Drop codes below this are the engine's own.
pub const ENGINE_REASONS: u16 = 8;
/// A transmit queue took no more.
pub const REASON_TRANSMIT_REFUSED: u16 = 0;
/// Another worker's ring was full.
pub const REASON_HAND_OFF_FULL: u16 = 1;
/// The host's ring was full, or there is none.
pub const REASON_HOST_FULL: u16 = 2;
/// The pipeline named a port or worker that does not exist, or decided nothing: a defect.
pub const REASON_UNDECIDED: u16 = 3;

/// Stage, name and meaning of one of the engine's reasons.
pub fn describe_reason(code: u16) -> (&'static str, &'static str, &'static str) {
    match code {
        REASON_TRANSMIT_REFUSED => ("transmit", "transmit_refused", "The port's transmit queue was full."),
        REASON_HAND_OFF_FULL => ("hand_off", "hand_off_full", "The ring to the flow's owner was full."),
        REASON_HOST_FULL => ("host", "host_full", "The ring to the host's own stack was full."),
        REASON_UNDECIDED => {
            ("worker", "undecided", "The pipeline left no valid decision: a defect, please report it.")
        }
        _ => ("worker", "reserved", "Not used."),
    }
}

/// A packet on its way to another worker, with what the pipeline wants to know on arrival.
pub struct HandOff {
    /// The packet, untouched as it arrived.
    pub packet: Packet,
    /// The pipeline's word.
    pub visit: u8,
}

/// What a worker runs.
pub trait Pipeline {
    /// Metadata of each packet in a batch.
    type Meta: Copy + Default;

    /// Adds packets that were held and may go on now. Called first in each turn.
    fn resume(&mut self, batch: &mut Batch<Self::Meta>, now: Timestamp);

    /// Decides what becomes of each packet in the batch. `accounts` is for what it originates, copies, consumes, holds.
    fn process(&mut self, batch: &mut Batch<Self::Meta>, now: Timestamp);

    /// A bounded slice of housekeeping; may add packets to `batch.added`. Called last in each turn.
    fn tend(&mut self, batch: &mut Batch<Self::Meta>, now: Timestamp);

    /// The worker is about to sleep: nothing shared may be kept waiting for it.
    fn sleep(&mut self);
}

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Polls on.
    Poll,
    /// After [`IDLE_TURNS`] empty turns sleeps, twice as long each time up to this many microseconds.
    Sleep {
        /// The longest sleep, in microseconds.
        max_us: u32,
    },
}

/// Empty turns before a worker first sleeps.
pub const IDLE_TURNS: u32 = 256;

/// Counters of one port as one worker sees it: places in a [`Counters`] row, four for each port.
pub const PORT_COUNTERS: [&str; 4] =
    ["received_packets", "received_bytes", "transmitted_packets", "transmitted_bytes"];

/// A worker's counter rows, shared with whoever reads them.
#[derive(Clone)]
pub struct WorkerCounters {
    /// Terms of the equation, at [`Account`].
    pub accounts: Counters,
    /// Drops by reason code.
    pub drops: Counters,
    /// [`PORT_COUNTERS`] for each port.
    pub ports: Counters,
    /// 0: turns; 1: turns in which something arrived; 2: packets in those turns; 3: sleeps.
    pub turns: Counters,
}

impl WorkerCounters {
    /// Rows for this many ports and reasons, at zero.
    pub fn new(ports: usize, reasons: usize) -> Self {
        Self {
            accounts: Counters::new(Account::ALL.len()),
            drops: Counters::new(reasons),
            ports: Counters::new(ports * PORT_COUNTERS.len()),
            turns: Counters::new(4),
        }
    }

    /// The equation's terms as of now, in the order of [`Account::ALL`].
    pub fn account_values(&self) -> [u64; 9] {
        core::array::from_fn(|index| self.accounts.get(index))
    }
}

/// Where a worker's packets come from and go to.
pub struct Connections {
    /// Queues by port number; none where this worker has no queue of the port.
    pub ports: Vec<Option<Box<dyn PortQueue>>>,
    /// Rings from other workers and from the host.
    pub inboxes: Vec<Consumer<HandOff>>,
    /// Rings to other workers, by worker number; none to itself.
    pub outboxes: Vec<Option<Producer<HandOff>>>,
    /// Ring to the host's own stack.
    pub host: Option<Producer<Packet>>,
}

/// Packets taken from inboxes in one turn: eight batches, sixteen times what one port gives.
const HANDED_IN_MAX: usize = 8 * BATCH_CAPACITY;

/// One worker.
pub struct Worker<P: Pipeline> {
    /// What it runs.
    pub pipeline: P,
    connections: Connections,
    counters: WorkerCounters,
    batch: Box<Batch<P::Meta>>,
    leaving: Vec<Burst>,
    handing: Vec<ArrayVec<HandOff, BURST>>,
    hosting: Burst,
    dropping: ArrayVec<Packet, BATCH_CAPACITY>,
    burst: usize,
    /// Where receiving stopped last time, so that no port starves the others.
    next_port: usize,
}

impl<P: Pipeline> Worker<P> {
    /// A worker that takes up to `burst` packets (1 to [`BURST`]) from a port at a time.
    pub fn new(pipeline: P, connections: Connections, counters: WorkerCounters, burst: usize) -> Self {
        let (ports, workers) = (connections.ports.len(), connections.outboxes.len());
        Self {
            pipeline,
            connections,
            counters,
            batch: Box::default(),
            leaving: (0..ports).map(|_| Burst::new()).collect(),
            handing: (0..workers).map(|_| ArrayVec::new()).collect(),
            hosting: Burst::new(),
            dropping: ArrayVec::new(),
            burst: burst.clamp(1, BURST),
            next_port: 0,
        }
    }

    /// The worker's counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Turns until `stop` is set. `clock` is read once a turn.
    pub fn run(&mut self, stop: &AtomicBool, idle: IdlePolicy, mut clock: impl FnMut() -> Timestamp) {
        let mut idle_turns = 0u32;
        while !stop.load(Ordering::Relaxed) {
            if self.turn(clock()) > 0 {
                idle_turns = 0;
                continue;
            }
            idle_turns = idle_turns.saturating_add(1);
            match idle {
                IdlePolicy::Sleep { max_us } if idle_turns > IDLE_TURNS => {
                    let doublings = (idle_turns - IDLE_TURNS).min(16);
                    self.pipeline.sleep();
                    self.counters.turns.add(3, 1);
                    std::thread::sleep(Duration::from_micros(u64::from(max_us.min(1 << doublings))));
                }
                _ => core::hint::spin_loop(),
            }
        }
        self.pipeline.sleep();
    }

    /// One turn. Gives how many packets came in.
    pub fn turn(&mut self, now: Timestamp) -> usize {
        self.pipeline.resume(&mut self.batch, now);
        // What others have handed over goes first: it has cost a reception and a look already, and those that hand over only have
        // the faster turns. Were ports first, the worker with the fuller inboxes would fall behind ever further. Within a bound,
        // or others could keep a worker from its own ports, and from the clock.
        let mut taken = self.take_in_all(now);
        for step in 0..self.connections.ports.len() {
            let port = (self.next_port + step) % self.connections.ports.len();
            if self.batch.room() < self.burst {
                self.process(now);
            }
            taken += self.receive(port);
        }
        self.next_port = self.next_port.wrapping_add(1);
        self.process(now);
        self.pipeline.tend(&mut self.batch, now);
        self.carry_out();
        self.counters.turns.add(0, 1);
        if taken > 0 {
            self.counters.turns.add(1, 1);
            self.counters.turns.add(2, taken as u64);
        }
        taken
    }

    #[inline]
    fn receive(&mut self, port: usize) -> usize {
        let Some(queue) = &mut self.connections.ports[port] else { return 0 };
        let mut burst = Burst::new();
        queue.receive(&mut burst, self.burst);
        let count = burst.len();
        if count == 0 {
            return 0;
        }
        let mut bytes = 0;
        for packet in burst {
            bytes += packet.len();
            // There is room: a batch with less than a burst free was processed before.
            let _ = self.batch.push(packet, 0);
        }
        self.counters.accounts.add(Account::Received as usize, count as u64);
        self.counters.ports.add(port * 4, count as u64);
        self.counters.ports.add(port * 4 + 1, bytes as u64);
        count
    }

    /// Takes what is in the inboxes now, within the bound of a turn.
    #[inline]
    fn take_in_all(&mut self, now: Timestamp) -> usize {
        let count = self.connections.inboxes.len();
        let mut taken = 0;
        for step in 0..count {
            let inbox = (self.next_port + step) % count;
            let mut waiting = self.connections.inboxes[inbox].len().min(HANDED_IN_MAX.saturating_sub(taken));
            while waiting > 0 {
                if self.batch.room() == 0 {
                    self.process(now);
                }
                let count = self.take_in(inbox, waiting);
                taken += count;
                waiting = waiting.saturating_sub(count.max(1));
            }
        }
        taken
    }

    #[inline]
    fn take_in(&mut self, inbox: usize, limit: usize) -> usize {
        let batch = &mut self.batch;
        let count = self.connections.inboxes[inbox].pop_batch(batch.room().min(limit), |hand_off| {
            // Another core has written it last.
            hand_off.packet.prefetch_header();
            // pop_batch takes no more than there is room for.
            let _ = batch.push(hand_off.packet, hand_off.visit);
        });
        if count > 0 {
            self.counters.accounts.add(Account::HandedIn as usize, count as u64);
        }
        count
    }

    #[inline]
    fn process(&mut self, now: Timestamp) {
        if !self.batch.is_empty() {
            self.pipeline.process(&mut self.batch, now);
            self.carry_out();
        }
    }

    /// Does with each packet what was decided, and empties the batch.
    fn carry_out(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        for index in 0..self.batch.len() {
            let disposition = self.batch.dispositions[index];
            if let Some(packet) = self.batch.take(index) {
                self.dispatch(packet, disposition);
            }
        }
        // Oldest first.
        self.batch.added.reverse();
        while let Some((packet, disposition)) = self.batch.added.pop() {
            self.dispatch(packet, disposition);
        }
        self.batch.clear();
        for port in 0..self.leaving.len() {
            self.flush_port(port);
        }
        for worker in 0..self.handing.len() {
            self.flush_hand_off(worker);
        }
        self.flush_host();
        Packet::free_bulk(&mut self.dropping);
    }

    #[inline(always)]
    fn dispatch(&mut self, packet: Packet, disposition: Disposition) {
        match disposition {
            Disposition::Transmit(port) => self.leave(packet, port),
            Disposition::HandOff { worker, visit } => self.hand_off(packet, worker, visit),
            Disposition::Host => {
                if self.hosting.is_full() {
                    self.flush_host();
                }
                self.hosting.push(packet);
            }
            Disposition::Consume => {
                self.counters.accounts.add(Account::Consumed as usize, 1);
                self.discard(packet);
            }
            Disposition::Drop(reason) => self.drop_for(packet, reason),
            // A held packet is not in the batch any more; one that is there was left undecided.
            Disposition::Pending | Disposition::Hold => self.drop_for(packet, REASON_UNDECIDED),
        }
    }

    #[inline(always)]
    fn leave(&mut self, packet: Packet, port: PortId) {
        let port = usize::from(port);
        if !matches!(self.connections.ports.get(port), Some(Some(_))) {
            return self.drop_for(packet, REASON_UNDECIDED);
        }
        if self.leaving[port].is_full() {
            self.flush_port(port);
        }
        self.leaving[port].push(packet);
    }

    fn hand_off(&mut self, packet: Packet, worker: WorkerId, visit: u8) {
        let worker = usize::from(worker);
        if !matches!(self.connections.outboxes.get(worker), Some(Some(_))) {
            return self.drop_for(packet, REASON_UNDECIDED);
        }
        if self.handing[worker].is_full() {
            self.flush_hand_off(worker);
        }
        self.handing[worker].push(HandOff { packet, visit });
    }

    fn drop_for(&mut self, packet: Packet, reason: u16) {
        self.counters.accounts.add(Account::Dropped as usize, 1);
        self.counters.drops.add(usize::from(reason), 1);
        self.discard(packet);
    }

    fn discard(&mut self, packet: Packet) {
        if self.dropping.is_full() {
            Packet::free_bulk(&mut self.dropping);
        }
        self.dropping.push(packet);
    }

    fn flush_port(&mut self, port: usize) {
        let Some(queue) = &mut self.connections.ports[port] else { return };
        let burst = &mut self.leaving[port];
        if burst.is_empty() {
            return;
        }
        let (count, bytes) = (burst.len(), total_length(burst));
        queue.transmit(burst);
        let (refused, refused_bytes) = (burst.len(), total_length(burst));
        self.counters.accounts.add(Account::Transmitted as usize, (count - refused) as u64);
        self.counters.ports.add(port * 4 + 2, (count - refused) as u64);
        self.counters.ports.add(port * 4 + 3, (bytes - refused_bytes) as u64);
        self.refuse(refused, REASON_TRANSMIT_REFUSED);
        Packet::free_bulk(&mut self.leaving[port]);
    }

    fn flush_hand_off(&mut self, worker: usize) {
        let Some(Some(ring)) = self.connections.outboxes.get_mut(worker) else { return };
        let entries = &mut self.handing[worker];
        if entries.is_empty() {
            return;
        }
        let count = entries.len();
        ring.push_batch(entries);
        let refused = entries.len();
        entries.clear();
        self.counters.accounts.add(Account::HandedOff as usize, (count - refused) as u64);
        self.refuse(refused, REASON_HAND_OFF_FULL);
    }

    fn flush_host(&mut self) {
        if self.hosting.is_empty() {
            return;
        }
        let count = self.hosting.len();
        if let Some(ring) = &mut self.connections.host {
            ring.push_batch(&mut self.hosting);
        }
        let refused = self.hosting.len();
        self.counters.accounts.add(Account::HandedOff as usize, (count - refused) as u64);
        self.refuse(refused, REASON_HOST_FULL);
        Packet::free_bulk(&mut self.hosting);
    }

    fn refuse(&mut self, count: usize, reason: u16) {
        if count > 0 {
            self.counters.accounts.add(Account::Dropped as usize, count as u64);
            self.counters.drops.add(usize::from(reason), count as u64);
        }
    }
}

fn total_length(burst: &Burst) -> usize {
    burst.iter().map(Packet::len).sum()
}

/// A flag that tells workers to stop. Clones share it.
pub type StopFlag = Arc<AtomicBool>;
