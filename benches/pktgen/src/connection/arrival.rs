//! Segments that come: which connection's they are, whether they are right, and what follows from them.

use engine::clock::Timestamp;

use super::{Connections, Course, SERVER_NUMBERS, State, other_side};
use crate::fault::Fault;
use crate::judge::judge;
use crate::received::{Received, Transport};
use crate::script::{OPENING_SEGMENTS, Step};
use crate::tag::Direction;
use crate::template::{FILLER, TcpNumbers};

/// A segment of a connection.
pub(super) struct Checked {
    /// The side it comes from.
    pub(super) from: Direction,
    /// The connection.
    pub(super) place: usize,
    /// Whether it is the end of the handshake.
    pub(super) opened: bool,
    /// What is wrong with it.
    pub(super) fault: Option<Fault>,
}

impl Connections {
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
    pub(super) fn check(
        &mut self,
        port: u16,
        received: &Received<'_>,
        length: usize,
        now: Timestamp,
    ) -> Result<Checked, Fault> {
        let Transport::Segment(numbers) = received.transport else { return Err(Fault::Unknown) };
        let (from, place) = self.find(numbers).ok_or(Fault::Unknown)?;
        let (own_initial, other_initial) = (self.initial(from, place), self.initial(other_side(from), place));
        let connection = &mut self.places[place];
        let size = self.scenario.sizes.index(connection.number);
        let data = self.templates.of(from, true, size).map_or(0, |template| template.data);
        let side = if from == Direction::Request { &mut connection.client } else { &mut connection.server };
        let steps = self.script.steps(from);
        let is_this = |step: &Step| {
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
        let (number, binding) = (connection.number, &mut connection.binding);
        let intact = FILLER.get(..received.payload.len()) == Some(received.payload);
        let fault = judge(&self.scenario, number, binding, from, port, received)
            .or((!intact).then_some(Fault::Payload))
            .or(late);
        Ok(Checked { from, place, opened, fault })
    }

    /// What follows from a segment that has come: parked, done, or nothing.
    pub(super) fn settle(&mut self, place: usize, opened: bool) {
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

    pub(super) fn release(&mut self, place: usize) {
        self.places[place].state = State::Free;
        self.active -= 1;
        self.free.push(place as u32);
    }
}
