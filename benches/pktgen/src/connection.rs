//! TCP: connections from SYN to the last ACK. The generator is client and backend at once, so each side's segments are
//! answered as they come, and the gateway in between sees whole connections of both directions.
//!
//! Nothing is sent again: a segment that does not come is lost, and its connection fails after a time.

use std::sync::Arc;

use engine::clock::Timestamp;
use engine::packet::Packet;
use engine::wire::tcp::FLAG_RST;

use crate::binding::Binding;
use crate::fault::Fault;
use crate::outbox::Outbox;
use crate::plan::Tuple;
use crate::received::{Reading, Received, Transport, answer_arp, read};
use crate::scenario::Scenario;
use crate::script::{OPENING_SEGMENTS, Script};
use crate::sizes::{CHECK_SEQUENCE, FRAME_MIN};
use crate::tag::Direction;
use crate::tally::Tally;
use crate::template::{Ends, FILLER, TcpNumbers, Template};
use crate::traffic::Traffic;

/// Connections at once at the most: their records take 64 bytes each.
pub const CONNECTIONS_MAX: u32 = 1 << 24;
/// Sequence numbers from here on are a backend's, below a client's.
const SERVER_NUMBERS: u32 = 1 << 31;
/// Connections that one turn looks at for those that have stopped.
const SWEEP: usize = 32;
/// Ethernet, IP and TCP headers and the check sequence: what a frame has besides the payload.
const AROUND_PAYLOAD: u16 = 14 + 20 + 20 + CHECK_SEQUENCE;

/// How far connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// From the first segment to the last.
    Whole,
    /// They are opened and stay open.
    Open,
    /// Those that are open are closed.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// A place for a new one.
    #[default]
    Free,
    /// Segments are on their way.
    Active,
    /// Open, and nothing is sent.
    Parked,
}

/// One side's part of a connection: what it has sent, and what of that has come to the other side.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// A bit for each segment that has come.
    seen: u64,
    /// When the last one was sent.
    sent_at: Timestamp,
    sent: u8,
    /// Segments up to the latest that has come.
    arrived: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    client: Side,
    server: Side,
    binding: Binding,
    number: u32,
    state: State,
}

/// The traffic.
pub struct Connections {
    scenario: Arc<Scenario>,
    script: Script,
    course: Course,
    templates: Templates,
    places: Vec<Connection>,
    /// Places without a connection, the next one last.
    free: Vec<u32>,
    /// The next connection's number in the plan.
    next: u32,
    /// The place that closing looks at next.
    closing: usize,
    active: u64,
    swept: usize,
    /// Bits of a sequence number that count within a connection; those above are its place.
    place_shift: u32,
    patience_ns: u64,
    tally: Tally,
}

/// Why connections cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{connections} connections at once with {bytes} bytes in each direction do not fit into TCP's sequence numbers, \
     by which they are told apart: {max} do"
)]
pub struct ConnectionError {
    connections: u32,
    bytes: u32,
    max: u32,
}

impl Connections {
    /// At most `count` connections at once with `exchanges` of data each and numbers from `first` on; one in which
    /// nothing has happened for `patience_ns` has failed.
    pub fn new(
        scenario: Arc<Scenario>,
        count: u32,
        exchanges: u32,
        first: u32,
        patience_ns: u64,
    ) -> Result<Self, ConnectionError> {
        let script = Script::new(exchanges);
        let largest = scenario.sizes.sizes().iter().max().map_or(0, |size| data_length(*size));
        let used = script.numbers_used(largest as u32);
        // The last ACK has the number behind all that are used.
        let place_shift = (used + 1).next_power_of_two().trailing_zeros();
        let max = (SERVER_NUMBERS >> place_shift).min(CONNECTIONS_MAX);
        if count > max || count == 0 {
            return Err(ConnectionError { connections: count, bytes: used, max });
        }
        Ok(Self {
            templates: Templates::new(&scenario),
            scenario,
            script,
            course: Course::Whole,
            places: vec![Connection::default(); count as usize],
            free: (0..count).rev().collect(),
            next: first,
            closing: 0,
            active: 0,
            swept: 0,
            place_shift,
            patience_ns,
            tally: Tally::default(),
        })
    }

    /// Segments of a whole connection.
    pub fn packets_each(&self) -> usize {
        self.script.packets()
    }

    /// How far connections go from now on.
    pub fn set_course(&mut self, course: Course) {
        self.course = course;
        self.closing = 0;
    }

    /// The number of the next connection.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// Connections that are open and rest.
    pub fn parked(&self) -> usize {
        self.places.iter().filter(|connection| connection.state == State::Parked).count()
    }

    fn open(&mut self) -> Option<usize> {
        let place = self.free.pop()? as usize;
        self.places[place] = Connection { number: self.next, state: State::Active, ..Connection::default() };
        self.next = self.next.wrapping_add(1);
        self.tally.connections.opened += 1;
        Some(place)
    }

    /// The next open connection, to be closed.
    fn close(&mut self) -> Option<usize> {
        let rest = self.places.get(self.closing..)?;
        let place = self.closing + rest.iter().position(|connection| connection.state == State::Parked)?;
        self.closing = place + 1;
        self.places[place].state = State::Active;
        Some(place)
    }

    fn initial(&self, from: Direction, place: usize) -> u32 {
        let client = (place as u32) << self.place_shift;
        if from == Direction::Request { client } else { client | SERVER_NUMBERS }
    }

    /// Sends all that a side may send now. The buffer of the segment that it answers is used for the first.
    #[inline]
    fn advance(&mut self, place: usize, from: Direction, mut buffer: Option<Packet>, now: Timestamp, outbox: &mut Outbox) {
        let (own_initial, other_initial) =
            (self.initial(from, place), self.initial(other_side(from), place));
        let connection = &mut self.places[place];
        let (own, other) = match from {
            Direction::Request => (&mut connection.client, connection.server),
            Direction::Reply => (&mut connection.server, connection.client),
        };
        let number = connection.number;
        let size = self.scenario.sizes.index(number);
        let Some(ends) = ends(from, &self.scenario.plan.tuple(number), &connection.binding) else { return };
        let rests = self.course == Course::Open && from == Direction::Request;
        while let Some(step) = self.script.steps(from).get(usize::from(own.sent)) {
            if step.after > other.arrived || (rests && own.sent >= OPENING_SEGMENTS) {
                break;
            }
            let Some(template) = self.templates.of(from, step.has_data, size) else { break };
            let Some(mut packet) = buffer.take().or_else(|| outbox.buffer()) else { break };
            let numbers = step.numbers(own_initial, other_initial, template.data);
            if template.frame.write_segment(&mut packet, &ends, numbers, number) {
                own.sent += 1;
                own.sent_at = now;
                self.tally.sent(from, packet.len());
                outbox.push(template.port, packet);
            } else {
                return outbox.recycle(packet);
            }
        }
        if let Some(packet) = buffer {
            outbox.recycle(packet);
        }
    }

    /// The connection that a segment belongs to and the side it comes from: its sequence number says both.
    #[inline(always)]
    fn find(&self, numbers: TcpNumbers) -> Option<(Direction, usize)> {
        let from = if numbers.sequence & SERVER_NUMBERS == 0 { Direction::Request } else { Direction::Reply };
        let place = ((numbers.sequence & !SERVER_NUMBERS) >> self.place_shift) as usize;
        let connection = self.places.get(place)?;
        (connection.state != State::Free).then_some((from, place))
    }

    /// Checks a segment. Gives the side it came from, its connection, and what is wrong with it.
    #[inline]
    fn check(&mut self, port: u16, received: &Received<'_>, length: usize, now: Timestamp) -> Result<Checked, Fault> {
        let Transport::Segment(numbers) = received.transport else { return Err(Fault::Unknown) };
        let (from, place) = self.find(numbers).ok_or(Fault::Unknown)?;
        let (own_initial, other_initial) =
            (self.initial(from, place), self.initial(other_side(from), place));
        let connection = &mut self.places[place];
        let size = self.scenario.sizes.index(connection.number);
        let data = self.templates.of(from, true, size).map_or(0, |template| template.data);
        let side = if from == Direction::Request { &mut connection.client } else { &mut connection.server };
        let steps = self.script.steps(from);
        let is_this = |step: &crate::script::Step| {
            let carried = if step.has_data { data as usize } else { 0 };
            step.numbers(own_initial, other_initial, data) == numbers && received.payload.len() == carried
        };
        // The next one mostly; any other of this side is early, late or comes again.
        let expected = usize::from(side.arrived);
        let step = match steps.get(expected) {
            Some(step) if is_this(step) => expected,
            _ => steps.iter().position(is_this).ok_or(Fault::Segment)?,
        };
        if step >= usize::from(side.sent) {
            return Err(Fault::Segment);
        }
        if side.seen & 1 << step != 0 {
            return Err(Fault::Duplicate);
        }
        side.seen |= 1 << step;
        let late = (step < expected).then_some(Fault::OutOfOrder);
        side.arrived = side.arrived.max(step as u8 + 1);
        self.tally.received(from, length);
        self.tally.latency.add(now.nanoseconds_since(side.sent_at));
        let opened = from == Direction::Request
            && (expected as u8) < OPENING_SEGMENTS
            && side.arrived >= OPENING_SEGMENTS;
        let fault = verify(&self.scenario, connection, from, port, received).or(late);
        Ok(Checked { from, place, opened, fault })
    }

    /// What follows from a segment that has come: parked, done, or nothing.
    fn settle(&mut self, place: usize, opened: bool) {
        let connection = &self.places[place];
        let clients = self.script.steps(Direction::Request).len();
        if opened {
            self.tally.connections.established += 1;
            if self.course == Course::Open {
                self.places[place].state = State::Parked;
                self.active -= 1;
                return;
            }
        }
        if usize::from(connection.client.arrived) == clients
            && usize::from(connection.server.arrived) == self.script.steps(Direction::Reply).len()
        {
            let all_came = connection.client.seen.count_ones() as usize == clients
                && connection.server.seen.count_ones() == u32::from(connection.server.arrived);
            let counts = &mut self.tally.connections;
            *(if all_came { &mut counts.completed } else { &mut counts.failed }) += 1;
            self.release(place);
        }
    }

    fn release(&mut self, place: usize) {
        self.places[place].state = State::Free;
        self.active -= 1;
        self.free.push(place as u32);
    }
}

struct Checked {
    from: Direction,
    place: usize,
    /// Whether it is the end of the handshake.
    opened: bool,
    fault: Option<Fault>,
}

fn other_side(from: Direction) -> Direction {
    match from {
        Direction::Request => Direction::Reply,
        Direction::Reply => Direction::Request,
    }
}

fn ends(from: Direction, tuple: &Tuple, binding: &Binding) -> Option<Ends> {
    match from {
        Direction::Request => Some(Scenario::request_ends(tuple)),
        Direction::Reply => binding.reply_ends(),
    }
}

/// What is wrong with a segment of this connection.
#[inline(always)]
fn verify(
    scenario: &Scenario,
    connection: &mut Connection,
    from: Direction,
    port: u16,
    received: &Received<'_>,
) -> Option<Fault> {
    let wanted = match from {
        Direction::Request => scenario.backend_port,
        Direction::Reply => scenario.client_port,
    };
    let tuple = scenario.plan.tuple(connection.number);
    let fault = match from {
        Direction::Request => connection.binding.check(&scenario.plan, &tuple, &received.ends),
        Direction::Reply if received.ends == Scenario::request_ends(&tuple).reversed() => None,
        Direction::Reply => Some(Fault::Address),
    };
    if fault.is_some() {
        return fault;
    }
    if !scenario.may_come_by(port, wanted) {
        return Some(Fault::Port);
    }
    if u16::from(received.time_to_live) + u16::from(scenario.hops) != u16::from(scenario.time_to_live) {
        return Some(Fault::TimeToLive);
    }
    let intact = FILLER.get(..received.payload.len()) == Some(received.payload);
    (!intact).then_some(Fault::Payload)
}

/// Bytes of data in a segment whose frame has this size.
fn data_length(size: u16) -> usize {
    usize::from(size.saturating_sub(AROUND_PAYLOAD).max(1))
}

struct SegmentTemplate {
    frame: Template,
    data: u32,
    port: u16,
}

/// Segments of both sides: bare ones, and with data of each size.
struct Templates {
    client: Vec<SegmentTemplate>,
    server: Vec<SegmentTemplate>,
}

impl Templates {
    fn new(scenario: &Scenario) -> Self {
        let side = |port: u16, link| {
            let sizes = scenario.sizes.sizes().iter();
            let with = |(data, carried): (usize, usize)| SegmentTemplate {
                frame: Template::segment(link, carried, scenario.time_to_live),
                data: data as u32,
                port,
            };
            // For each size the bare segment, then the one with data.
            sizes.flat_map(|size| [(data_length(*size), 0), (data_length(*size), data_length(*size))]).map(with).collect()
        };
        Self {
            client: side(scenario.client_port, scenario.client_link()),
            server: side(scenario.backend_port, scenario.backend_link()),
        }
    }

    #[inline(always)]
    fn of(&self, from: Direction, has_data: bool, size: usize) -> Option<&SegmentTemplate> {
        let side = if from == Direction::Request { &self.client } else { &self.server };
        side.get(size * 2 + usize::from(has_data))
    }
}

impl Traffic for Connections {
    fn generate(&mut self, count: usize, now: Timestamp, outbox: &mut Outbox) -> usize {
        for made in 0..count {
            let Some(packet) = outbox.buffer() else { return made };
            let place = if self.course == Course::Close { self.close() } else { self.open() };
            let Some(place) = place else {
                outbox.recycle(packet);
                return made;
            };
            self.active += 1;
            self.advance(place, Direction::Request, Some(packet), now, outbox);
        }
        count
    }

    #[inline]
    fn take(&mut self, port: u16, mut packet: Packet, now: Timestamp, outbox: &mut Outbox) {
        let Some(link) = self.scenario.links.get(usize::from(port)) else { return };
        match read(link, self.scenario.peer, packet.data()) {
            Reading::Traffic(received) => {
                let is_reset = matches!(received.transport, Transport::Segment(numbers) if numbers.flags & FLAG_RST != 0);
                if is_reset {
                    // The connection that it resets fails when its time is over.
                    self.tally.resets += 1;
                    return outbox.recycle(packet);
                }
                match self.check(port, &received, packet.len(), now) {
                    Err(fault) => self.tally.fault(fault, &packet),
                    Ok(checked) => {
                        if let Some(fault) = checked.fault {
                            self.tally.fault(fault, &packet);
                        }
                        self.settle(checked.place, checked.opened);
                        if self.places[checked.place].state == State::Active {
                            return self.advance(checked.place, other_side(checked.from), Some(packet), now, outbox);
                        }
                    }
                }
            }
            Reading::Faulty(fault) => self.tally.fault(fault, &packet),
            Reading::ArpRequest => {
                if answer_arp(link, packet.data_mut()) {
                    self.tally.arp += 1;
                    return outbox.push(port, packet);
                }
            }
            Reading::Icmp => self.tally.icmp += 1,
            Reading::Other => self.tally.other += 1,
        }
        outbox.recycle(packet);
    }

    fn tend(&mut self, now: Timestamp) {
        for _ in 0..SWEEP.min(self.places.len()) {
            self.swept = if self.swept + 1 < self.places.len() { self.swept + 1 } else { 0 };
            let connection = &self.places[self.swept];
            let touched = connection.client.sent_at.max(connection.server.sent_at);
            if connection.state == State::Active && now.nanoseconds_since(touched) > self.patience_ns {
                self.tally.connections.failed += 1;
                self.release(self.swept);
            }
        }
    }

    fn in_flight(&self) -> u64 {
        self.active
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn reset_tally(&mut self) {
        self.tally = Tally::default();
    }
}

const _: () = assert!(AROUND_PAYLOAD < FRAME_MIN);
const _: () = assert!(crate::script::EXCHANGES_MAX * 2 + 4 <= 64);
