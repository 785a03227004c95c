//! Runs trials: for each the traffic is made anew, flows are introduced to the gateway first, and the counts become a
//! [`Trial`].

use std::sync::Arc;

use engine::clock::Timestamp;
use engine::pool::PacketSource;
use engine::port::PortQueue;

use crate::connection::{ConnectionError, Connections, Course};
use crate::datagram::{Datagrams, Order};
use crate::outbox::Outbox;
use crate::scenario::Scenario;
use crate::session::{Passed, Phase, Session, Until};
use crate::traffic::Traffic;
use crate::trial::Trial;

/// How much longer than their patience is waited for connections.
const DRAIN_BEYOND_NS: u64 = 50_000_000;

/// What kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP, so many flows in turn.
    Flows,
    /// UDP, each packet a new flow.
    NewFlows,
    /// TCP connections.
    Connections,
}

/// What is offered, apart from the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Of which kind.
    pub kind: Kind,
    /// UDP flows.
    pub flows: u32,
    /// Whether backends answer each datagram.
    pub answering: bool,
    /// TCP connections at once.
    pub connections: u32,
    /// Exchanges of data in each.
    pub exchanges: u32,
    /// When a connection in which nothing happens has failed.
    pub patience_ns: u64,
    /// The plan's number of the first flow.
    pub first: u32,
    /// Packets, or connections, at once at the most; 0: what follows from the rate.
    pub burst: u32,
    /// Packets, or connections, in flight at the most; 0: any number.
    pub window: u64,
    /// How long after the last arrival more is waited for.
    pub drain_ns: u64,
    /// Rate at which flows are introduced; none: as fast as can be.
    pub warm_up_rate: Option<u64>,
    /// Packets of each flow by which it is introduced; 0: none.
    pub warm_up_rounds: u32,
}

/// A clock.
pub type Clock = Box<dyn FnMut() -> Timestamp + Send>;

/// Ports, buffers, a clock, and what to do with them.
pub struct Runner {
    scenario: Arc<Scenario>,
    load: Load,
    ports: Vec<Box<dyn PortQueue>>,
    outbox: Outbox,
    clock: Clock,
    /// The plan's number of the next flow that no trial has used.
    next: u32,
}

/// N connections, opened and then each seen from the other side (RFC 9693, sections 4.2 and 4.6).
pub struct Establishment {
    /// Both phases together.
    pub trial: Trial,
    /// Connections whose first packet reached a backend.
    pub arrived: u64,
    /// Connections whose backend's packet reached the client, as an answer of the service.
    pub validated: u64,
    flows: Datagrams,
}

impl Runner {
    /// A runner on these ports, in the scenario's order, with buffers from `source`.
    pub fn new(
        scenario: Scenario,
        load: Load,
        ports: Vec<Box<dyn PortQueue>>,
        source: Box<dyn PacketSource + Send>,
        clock: Clock,
    ) -> Self {
        let outbox = Outbox::new(ports.len(), source);
        Self { scenario: Arc::new(scenario), load, ports, outbox, clock, next: load.first }
    }

    /// The time.
    pub fn now(&mut self) -> Timestamp {
        (self.clock)()
    }

    fn run<T: Traffic>(
        &mut self,
        traffic: &mut T,
        rate_per_s: Option<u64>,
        window: u64,
        until: Until,
    ) -> Passed {
        // A connection that has stopped is to be seen failing.
        let patience =
            if self.load.kind == Kind::Connections { self.load.patience_ns + DRAIN_BEYOND_NS } else { 0 };
        let drain_ns = self.load.drain_ns.max(patience);
        let phase = Phase { rate_per_s, burst: self.load.burst, window, until, drain_ns };
        let mut session =
            Session { ports: &mut self.ports, outbox: &mut self.outbox, clock: &mut *self.clock };
        session.run(traffic, &phase)
    }

    /// One trial of the load at this rate (none: as fast as can be) for so many seconds.
    pub fn trial(&mut self, rate_per_s: Option<u64>, seconds: f64) -> Result<Trial, ConnectionError> {
        let until = Until::Elapsed((seconds * 1e9) as u64);
        match self.load.kind {
            Kind::Flows => Ok(self.trial_of_flows(rate_per_s, until)),
            Kind::NewFlows => Ok(self.trial_of_new_flows(rate_per_s, until)),
            Kind::Connections => self.trial_of_connections(rate_per_s, until),
        }
    }

    fn trial_of_flows(&mut self, rate: Option<u64>, until: Until) -> Trial {
        let load = self.load;
        let mut flows = Datagrams::flows(Arc::clone(&self.scenario), load.flows, load.first);
        flows.set_answering(load.answering);
        flows.set_order(Order::Shuffled);
        let introductions = u64::from(load.flows) * u64::from(load.warm_up_rounds);
        self.run(&mut flows, load.warm_up_rate, load.window, Until::Count(introductions));
        let warm_up_lost = flows.tally().lost_packets();
        flows.reset_tally();
        flows.set_order(Order::Turn);
        let passed = self.run(&mut flows, rate, load.window, until);
        Trial { warm_up_lost, ..Trial::new(rate, &passed, flows.tally()) }
    }

    fn trial_of_new_flows(&mut self, rate: Option<u64>, until: Until) -> Trial {
        let mut flows = Datagrams::new_flows(Arc::clone(&self.scenario), self.next);
        flows.set_answering(self.load.answering);
        let passed = self.run(&mut flows, rate, self.load.window, until);
        self.next = flows.next_number();
        let flows_repeat = self.repeats();
        Trial { flows_repeat, ..Trial::new(rate, &passed, flows.tally()) }
    }

    fn connections(&self, count: u32, exchanges: u32) -> Result<Connections, ConnectionError> {
        Connections::new(Arc::clone(&self.scenario), count, exchanges, self.next, self.load.patience_ns)
    }

    fn trial_of_connections(&mut self, rate: Option<u64>, until: Until) -> Result<Trial, ConnectionError> {
        let mut connections = self.connections(self.load.connections, self.load.exchanges)?;
        let passed = self.run(&mut connections, rate, self.load.window, until);
        self.next = connections.next_number();
        let flows_repeat = self.repeats();
        let tally = connections.tally();
        let trial = Trial::new(rate, &passed, tally).with_connections(tally.connections, &passed);
        Ok(Trial { flows_repeat, ..trial })
    }

    /// Whether more flows were opened than the plan has.
    fn repeats(&self) -> bool {
        u64::from(self.next.wrapping_sub(self.load.first)) > self.scenario.plan.space()
    }

    /// Opens `count` new connections at a rate, by one datagram each, then lets the backend of each send one back, in the
    /// order in which they were opened, at `validation_rate`.
    pub fn establish(
        &mut self,
        count: u32,
        rate: Option<u64>,
        validation_rate: Option<u64>,
    ) -> Establishment {
        let mut flows = Datagrams::flows(Arc::clone(&self.scenario), count, self.next);
        self.next = self.next.wrapping_add(flows.numbers());
        let passed = self.run(&mut flows, rate, 0, Until::Count(count.into()));
        let (arrived, faults) = (flows.tally().requests.received, flows.tally().faults.total());
        flows.set_order(Order::Replies);
        self.run(&mut flows, validation_rate, 0, Until::Count(count.into()));
        // An answer whose connection the gateway has forgotten may come all the same, untranslated.
        let wrong = flows.tally().faults.total() - faults;
        let validated = flows.tally().replies.received.saturating_sub(wrong);
        let trial = Trial { flows_repeat: self.repeats(), ..Trial::new(rate, &passed, flows.tally()) };
        Establishment { arrived, validated, trial, flows }
    }

    /// Lets the backends of connections that were opened send once more, and gives how many packets reached their
    /// clients: how many connections the gateway still knows.
    pub fn still_known(&mut self, established: &mut Establishment, rate: Option<u64>) -> u64 {
        let flows = &mut established.flows;
        flows.reset_tally();
        flows.set_order(Order::Replies);
        let count = established.arrived;
        self.run(&mut established.flows, rate, 0, Until::Count(count));
        let tally = established.flows.tally();
        tally.replies.received.saturating_sub(tally.faults.total())
    }

    /// Opens `count` TCP connections at one rate, and closes them, one by one, at another. The trial is that of closing.
    pub fn close_connections(
        &mut self,
        count: u32,
        open_rate: Option<u64>,
        close_rate: Option<u64>,
    ) -> Result<Trial, ConnectionError> {
        let mut connections = self.connections(count, 0)?;
        connections.set_course(Course::Open);
        self.run(&mut connections, open_rate, self.load.window, Until::Count(count.into()));
        self.next = connections.next_number();
        let unopened = u64::from(count).saturating_sub(connections.parked() as u64);
        connections.reset_tally();
        connections.set_course(Course::Close);
        let open = u64::from(count) - unopened;
        let passed = self.run(&mut connections, close_rate, 0, Until::Count(open));
        let tally = connections.tally();
        let trial = Trial::new(close_rate, &passed, tally).with_connections(tally.connections, &passed);
        Ok(Trial { warm_up_lost: unopened, flows_repeat: self.repeats(), ..trial })
    }

    /// Gives all buffers and ports back.
    pub fn finish(mut self) -> Vec<Box<dyn PortQueue>> {
        self.outbox.clear();
        self.ports
    }
}
