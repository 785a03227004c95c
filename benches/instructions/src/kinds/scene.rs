//! A gateway on ports in memory, of which single turns are counted.

use engine::clock::Timestamp;
use engine::counters::Account;
use engine::pool::MemoryPool;
use engine::port::BURST;
use engine::port::memory::MemoryPort;
use engine::worker::{Connections, Worker, WorkerCounters};

use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::World;
use crate::support::packets;

/// Packets of each kind: enough that all buckets and backends have their turn.
pub(crate) const PACKETS: usize = 1_024;

/// Where the inner IP packet begins: behind two Ethernet headers, IP, UDP and VXLAN.
pub(crate) const INNER_PACKET: usize = 64;

/// How each packet of a kind must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It leaves by a port, or what is made of it does.
    Leaves,
    /// It goes to another worker or to the host.
    HandedOver,
    /// For this reason.
    Dropped(&'static str),
}

/// A gateway whose turns are counted.
pub(crate) struct Scene {
    pub(crate) world: World,
}

impl Scene {
    pub(crate) fn new(text: &str) -> Self {
        Self { world: World::new(text) }
    }

    /// The load's node, with room for `flows` flows at a load of four fifths.
    pub(crate) fn of_load(load: Load, flows: usize) -> Self {
        Self::new(&loads::configuration(load, loads::capacity(flows), 10))
    }

    /// Lets frames arrive at one worker's port, a burst a turn, and counts those turns; gives what left by any port.
    pub(crate) fn pass(
        &mut self,
        meter: &mut Meter,
        port: &str,
        worker: usize,
        frames: &[Vec<u8>],
        end: End,
    ) -> Vec<Vec<u8>> {
        let (before, drops) = (self.ended(end), self.world.drops());
        let mut left = Vec::new();
        for burst in frames.chunks(BURST) {
            self.turn(meter, port, worker, burst);
            left.extend(self.sent());
        }
        let ended = self.ended(end) - before;
        assert!(
            ended >= frames.len() as u64,
            "{ended} of {} {end:?}: {drops:?} before, {:?}",
            frames.len(),
            self.world.drops()
        );
        if end == End::Leaves {
            assert_eq!(self.world.drops(), drops);
        }
        left
    }

    /// One counted turn with a burst that arrives at one worker's port.
    pub(crate) fn turn(&mut self, meter: &mut Meter, port: &str, worker: usize, burst: &[Vec<u8>]) {
        burst.iter().for_each(|frame| self.world.send_to(port, worker, frame));
        let (worker, now) = (&mut self.world.workers[worker], self.world.now);
        let mut taken = 0;
        meter.count(burst.len(), || taken = worker.turn(now));
        assert_eq!(taken, burst.len());
    }

    fn ended(&self, end: End) -> u64 {
        match end {
            End::Leaves => self.world.account(Account::Transmitted),
            End::HandedOver => self.world.account(Account::HandedOff),
            End::Dropped(reason) => {
                self.world.drops().iter().find(|drop| drop.0 == reason).map_or(0, |drop| drop.1)
            }
        }
    }

    /// What has left by any port since this was last asked.
    pub(crate) fn sent(&mut self) -> Vec<Vec<u8>> {
        let names: Vec<String> =
            self.world.configuration.ports.iter().map(|port| port.name.clone()).collect();
        names.iter().flat_map(|name| self.world.sent(name)).collect()
    }
}

/// A packet through the tunnel without an outer checksum, as loads have it too.
pub(crate) fn from_tunnel(packet: &[u8]) -> Vec<u8> {
    let mut frame = packets::from_tunnel(packet);
    frame[40..42].fill(0);
    frame
}

/// Answers to what left through the tunnel: each comes from where its request was sent.
pub(crate) fn tunnelled_answers(left: &[Vec<u8>], answer: impl Fn(&str, &str) -> Vec<u8>) -> Vec<Vec<u8>> {
    let inner = left.iter().map(|frame| packets::read_tunnel(frame).2);
    inner.map(|request| from_tunnel(&answer(&request.to(), &request.from()))).collect()
}

/// What ports in memory and the worker's loop cost alone: every kind of packet has it in its figure.
pub(crate) fn port_and_loop(meter: &mut Meter) {
    let port = MemoryPort::new();
    let connections = Connections {
        ports: vec![Some(Box::new(port.clone()))],
        inboxes: Vec::new(),
        outboxes: Vec::new(),
        host: None,
    };
    let mut worker = Worker::new(loads::Null, connections, WorkerCounters::new(1, 16), BURST);
    let mut pool = MemoryPool::new(64);
    let frames = loads::frames(Load::Plain, PACKETS, 1);
    for burst in frames.chunks(BURST) {
        burst.iter().for_each(|frame| port.inject(pool.packet(0, frame).expect("a buffer")));
        meter.count(burst.len(), || assert_eq!(worker.turn(Timestamp::ZERO), burst.len()));
        while port.take_transmitted().is_some() {}
    }
    meter.ends("port and loop");
}
