//! UDP: packets of many flows, in turn or each of a new flow, answered or not, and the check of each that comes back.

use std::sync::Arc;

use engine::clock::Timestamp;
use engine::packet::Packet;
use zerocopy::FromBytes;

use crate::binding::Binding;
use crate::fault::Fault;
use crate::judge::{judge, set_aside};
use crate::outbox::Outbox;
use crate::plan::Shuffle;
use crate::received::{Reading, Received, Transport, read};
use crate::scenario::Scenario;
use crate::sequence::{Arrival, Sequence};
use crate::sizes::CHECK_SEQUENCE;
use crate::tag::{Direction, TAG_LENGTH, Tag};
use crate::tally::Tally;
use crate::template::{Ends, FILLER, Template};
use crate::traffic::Traffic;

/// Flows at once at the most: their records take 40 bytes each.
pub const FLOWS_MAX: u32 = 1 << 26;
/// New flows that are remembered, of the last that were made. Later than that a packet is unknown.
const RECENT_FLOWS: u32 = 1 << 20;
/// Ethernet, IP and UDP headers and the check sequence: what a frame has besides the payload.
const AROUND_PAYLOAD: usize = 14 + 20 + 8 + CHECK_SEQUENCE as usize;

/// Which packet comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One request of each flow in turn, over and over.
    Turn,
    /// One request of each flow, shuffled: an order that [`Order::Turn`] does not repeat, so that a gateway that puts
    /// flows side by side as they come does not find them so later.
    Shuffled,
    /// One reply of each flow in turn, by the backend that its requests came to.
    Replies,
    /// Each request opens a new flow.
    New,
}

#[derive(Clone, Copy, Default)]
struct Flow {
    /// Its number in the plan.
    number: u32,
    request: Sequence,
    reply: Sequence,
    binding: Binding,
}

/// The traffic.
pub struct Datagrams {
    scenario: Arc<Scenario>,
    requests: Vec<Template>,
    replies: Vec<Template>,
    flows: Vec<Flow>,
    shuffle: Shuffle,
    order: Order,
    answering: bool,
    /// The next flow's place in the order.
    next: u32,
    /// Packets made, for the mix of sizes.
    made: u32,
    tally: Tally,
}

impl Datagrams {
    /// `count` flows (clamped to 1..=[`FLOWS_MAX`]) with numbers from `first` on.
    pub fn flows(scenario: Arc<Scenario>, count: u32, first: u32) -> Self {
        let count = count.clamp(1, FLOWS_MAX);
        let shuffle = Shuffle::new(count);
        // Numbers are shuffled as well: places in memory and in the plan have nothing to do with each other.
        let flow = |place: u32| Flow { number: first.wrapping_add(shuffle.at(place)), ..Flow::default() };
        Self::new(scenario, (0..count).map(flow).collect(), shuffle, Order::Turn)
    }

    /// New flows without end, with numbers from `first` on.
    pub fn new_flows(scenario: Arc<Scenario>, first: u32) -> Self {
        let flows = vec![Flow::default(); RECENT_FLOWS as usize];
        let mut datagrams = Self::new(scenario, flows, Shuffle::new(RECENT_FLOWS), Order::New);
        datagrams.next = first;
        datagrams
    }

    fn new(scenario: Arc<Scenario>, flows: Vec<Flow>, shuffle: Shuffle, order: Order) -> Self {
        let templates = |link| {
            let template = |size: &u16| Template::datagram(link, *size, scenario.time_to_live);
            scenario.sizes.sizes().iter().map(template).collect()
        };
        Self {
            requests: templates(scenario.client_link()),
            replies: templates(scenario.backend_link()),
            scenario,
            flows,
            shuffle,
            order,
            answering: false,
            next: 0,
            made: 0,
            tally: Tally::default(),
        }
    }

    /// Numbers of the plan that these flows may take, from the first on.
    pub fn numbers(&self) -> u32 {
        self.shuffle.max().saturating_add(1)
    }

    /// Lets backends answer each request.
    pub fn set_answering(&mut self, answering: bool) {
        self.answering = answering;
    }

    /// Which packets come from now on, from the first flow.
    pub fn set_order(&mut self, order: Order) {
        if self.order != Order::New {
            self.order = order;
            self.next = 0;
        }
    }

    /// The number of the next new flow.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// The next flow's place, and its number if it is new.
    #[inline(always)]
    fn advance(&mut self) -> usize {
        let next = self.next;
        self.next = next.wrapping_add(1);
        match self.order {
            Order::New => {
                let place = (next & (RECENT_FLOWS - 1)) as usize;
                self.flows[place] = Flow { number: next, ..Flow::default() };
                return place;
            }
            Order::Shuffled => {
                let mut place = self.shuffle.at(next);
                while place as usize >= self.flows.len() {
                    place = self.shuffle.at(self.next);
                    self.next = self.next.wrapping_add(1);
                }
                return place as usize;
            }
            Order::Turn | Order::Replies => {}
        }
        if self.next as usize >= self.flows.len() {
            self.next = 0;
        }
        next as usize
    }

    /// The packet for a flow; false when that flow has nothing to say: a reply without a request.
    #[inline(always)]
    fn make(&mut self, place: usize, packet: &mut Packet, now: Timestamp) -> Option<Direction> {
        let size = self.scenario.sizes.index(self.made);
        self.made = self.made.wrapping_add(1);
        let flow = &mut self.flows[place];
        let key = if self.order == Order::New { flow.number } else { place as u32 };
        if self.order == Order::Replies {
            let ends = flow.binding.reply_ends()?;
            let tag = Tag::new(Direction::Reply, key, flow.reply.send(), now.0);
            let written = self.replies[size].write_datagram(packet, &ends, &tag, flow.number);
            return written.then_some(Direction::Reply);
        }
        let ends = Scenario::request_ends(&self.scenario.plan.tuple(flow.number));
        let tag = Tag::new(Direction::Request, key, flow.request.send(), now.0);
        let written = self.requests[size].write_datagram(packet, &ends, &tag, flow.number);
        written.then_some(Direction::Request)
    }

    fn port(&self, from: Direction) -> u16 {
        match from {
            Direction::Request => self.scenario.client_port,
            Direction::Reply => self.scenario.backend_port,
        }
    }

    #[inline(always)]
    fn place(&self, key: u32) -> Option<usize> {
        let place = if self.order == Order::New { key & (RECENT_FLOWS - 1) } else { key };
        let flow = self.flows.get(place as usize)?;
        (self.order != Order::New || flow.number == key).then_some(place as usize)
    }

    /// Checks a packet. Gives which way it went, its flow, and what is wrong with it.
    #[inline(always)]
    fn check(&mut self, port: u16, received: &Received<'_>, length: usize, now: Timestamp) -> Checked {
        let Transport::Datagram = received.transport else { return Checked::Foreign(Fault::Unknown) };
        let Ok((tag, filler)) = Tag::ref_from_prefix(received.payload) else {
            return Checked::Foreign(Fault::Unknown);
        };
        let Some((direction, place)) = tag.direction().zip(self.place(tag.flow.get())) else {
            return Checked::Foreign(Fault::Unknown);
        };
        let flow = &mut self.flows[place];
        let sequence = if direction == Direction::Request { &mut flow.request } else { &mut flow.reply };
        let late = match sequence.receive(tag.sequence.get()) {
            Arrival::InOrder => None,
            Arrival::Late => Some(Fault::OutOfOrder),
            Arrival::Again => return Checked::Foreign(Fault::Duplicate),
            Arrival::Unknown => return Checked::Foreign(Fault::Unknown),
        };
        self.tally.received(direction, length);
        self.tally.latency.add(now.0.saturating_sub(tag.sent_nanoseconds()));
        let fault = judge(&self.scenario, flow.number, &mut flow.binding, direction, port, received)
            .or_else(|| judge_payload(&self.scenario, received, filler))
            .or(late);
        Checked::Ours(direction, place, fault)
    }

    /// Turns a request into its answer, in the same buffer.
    #[inline(always)]
    fn answer(
        &mut self,
        place: usize,
        ends: Ends,
        size: usize,
        mut packet: Packet,
        now: Timestamp,
        outbox: &mut Outbox,
    ) {
        let flow = &mut self.flows[place];
        let key = if self.order == Order::New { flow.number } else { place as u32 };
        let tag = Tag::new(Direction::Reply, key, flow.reply.send(), now.0);
        if self.replies[size].write_datagram(&mut packet, &ends.reversed(), &tag, flow.number) {
            self.tally.sent(Direction::Reply, packet.len());
            outbox.push(self.scenario.backend_port, packet);
        } else {
            outbox.recycle(packet);
        }
    }
}

enum Checked {
    /// No packet of ours, or one that was counted before.
    Foreign(Fault),
    /// Ours, of the flow at this place.
    Ours(Direction, usize, Option<Fault>),
}

/// What is wrong with the payload behind the tag.
#[inline(always)]
fn judge_payload(scenario: &Scenario, received: &Received<'_>, filler: &[u8]) -> Option<Fault> {
    if size_index(scenario, received.payload.len()).is_none() {
        return Some(Fault::Length);
    }
    (FILLER.get(..filler.len()) != Some(filler)).then_some(Fault::Payload)
}

/// Which of the mix's sizes has a payload of this length.
#[inline(always)]
fn size_index(scenario: &Scenario, payload: usize) -> Option<usize> {
    scenario.sizes.sizes().iter().position(|size| usize::from(*size) == payload + AROUND_PAYLOAD)
}

impl Traffic for Datagrams {
    fn generate(&mut self, count: usize, now: Timestamp, outbox: &mut Outbox) -> usize {
        for made in 0..count {
            let Some(mut packet) = outbox.buffer() else { return made };
            let place = self.advance();
            match self.make(place, &mut packet, now) {
                Some(direction) => {
                    self.tally.sent(direction, packet.len());
                    outbox.push(self.port(direction), packet);
                }
                None => outbox.recycle(packet),
            }
        }
        count
    }

    #[inline]
    fn take(&mut self, port: u16, packet: Packet, now: Timestamp, outbox: &mut Outbox) {
        let Some(link) = self.scenario.links.get(usize::from(port)) else { return };
        match read(link, self.scenario.peer, packet.data()) {
            Reading::Traffic(received) => {
                let (ends, payload) = (received.ends, received.payload.len());
                match self.check(port, &received, packet.len(), now) {
                    Checked::Foreign(fault) | Checked::Ours(_, _, Some(fault)) => {
                        self.tally.fault(fault, &packet)
                    }
                    Checked::Ours(Direction::Request, place, None) if self.answering => {
                        if let Some(size) = size_index(&self.scenario, payload) {
                            return self.answer(place, ends, size, packet, now, outbox);
                        }
                    }
                    Checked::Ours(..) => {}
                }
            }
            Reading::Aside(aside) => {
                return set_aside(aside, link, port, packet, &mut self.tally, outbox);
            }
        }
        outbox.recycle(packet);
    }

    fn tend(&mut self, _: Timestamp) {}

    fn in_flight(&self) -> u64 {
        self.tally.lost_packets()
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn reset_tally(&mut self) {
        self.tally = Tally::default();
    }
}

const _: () = assert!(TAG_LENGTH + AROUND_PAYLOAD == crate::sizes::FRAME_MIN as usize);
