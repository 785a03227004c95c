//! TCP: connections from SYN to the last ACK. The generator is client and backend at once, so each side's segments are
//! answered as they come, and the gateway in between sees whole connections of both directions.
//!
//! Nothing is sent again: a segment that does not come is lost, and its connection fails after a time.

mod arrival;
mod segment;

use std::sync::Arc;

use engine::clock::Timestamp;
use engine::packet::Packet;
use engine::wire::tcp::FLAG_RST;

use crate::binding::Binding;
use crate::judge::set_aside;
use crate::outbox::Outbox;
use crate::plan::Tuple;
use crate::received::{Reading, Transport, read};
use crate::scenario::Scenario;
use crate::script::{OPENING_SEGMENTS, Script};
use crate::tag::Direction;
use crate::tally::Tally;
use crate::template::Ends;
use crate::traffic::Traffic;
use segment::{Templates, data_length};

/// Connections at once at the most: their records take 64 bytes each.
pub const CONNECTIONS_MAX: u32 = 1 << 24;
/// Sequence numbers from here on are a backend's, below a client's.
const SERVER_NUMBERS: u32 = 1 << 31;
/// Connections that one turn looks at for those that have stopped.
const SWEEP: usize = 32;

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
    fn advance(
        &mut self,
        place: usize,
        from: Direction,
        mut buffer: Option<Packet>,
        now: Timestamp,
        outbox: &mut Outbox,
    ) {
        let (own_initial, other_initial) = (self.initial(from, place), self.initial(other_side(from), place));
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
    fn take(&mut self, port: u16, packet: Packet, now: Timestamp, outbox: &mut Outbox) {
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
                            return self.advance(
                                checked.place,
                                other_side(checked.from),
                                Some(packet),
                                now,
                                outbox,
                            );
                        }
                    }
                }
            }
            Reading::Aside(aside) => {
                return set_aside(aside, link, port, packet, &mut self.tally, outbox);
            }
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

const _: () = assert!(crate::script::EXCHANGES_MAX * 2 + 4 <= 64);
