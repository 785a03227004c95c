//! What both sides of a TCP connection say, and when: one list, from which each side's part follows.
//!
//! With one exchange of data these are ten segments: SYN, SYN-ACK, ACK; data and its ACK; data back and its ACK; FIN,
//! FIN-ACK, ACK (RFC 9293, sections 3.5 and 3.6). Without data six; each further exchange adds four.

use engine::wire::tcp::{FLAG_ACK, FLAG_FIN, FLAG_PSH, FLAG_SYN};

use crate::tag::Direction;
use crate::template::TcpNumbers;

/// Exchanges of data at the most: each side's segments have a bit each in one word.
pub const EXCHANGES_MAX: u32 = 30;
/// Segments of a client that open a connection: SYN and ACK.
pub const OPENING_SEGMENTS: u8 = 2;

/// One segment of one side. Its numbers count from the side's initial sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Control bits.
    pub flags: u8,
    /// Whether it carries data.
    pub has_data: bool,
    /// Segments of the other side that must have come before this one is sent.
    pub after: u8,
    /// SYN and FIN sent before: each takes a number (RFC 9293, section 3.4).
    flags_before: u8,
    /// Data segments sent before.
    data_before: u8,
    /// The same of what the other side has sent and this segment acknowledges.
    flags_acknowledged: u8,
    data_acknowledged: u8,
}

impl Step {
    /// The header's numbers, for initial sequence numbers of this side and the other, and so many bytes of data in each
    /// data segment.
    #[inline(always)]
    pub fn numbers(&self, initial: u32, other_initial: u32, data: u32) -> TcpNumbers {
        let sequence = u32::from(self.flags_before) + u32::from(self.data_before) * data;
        let acknowledged = u32::from(self.flags_acknowledged) + u32::from(self.data_acknowledged) * data;
        TcpNumbers {
            sequence: initial.wrapping_add(sequence),
            acknowledgement: if self.flags & FLAG_ACK == 0 {
                0
            } else {
                other_initial.wrapping_add(acknowledged)
            },
            flags: self.flags,
        }
    }
}

/// Both sides' segments.
#[derive(Clone, Debug)]
pub struct Script {
    client: Vec<Step>,
    server: Vec<Step>,
    exchanges: u32,
}

impl Script {
    /// A connection with so many exchanges of data (at most [`EXCHANGES_MAX`]).
    pub fn new(exchanges: u32) -> Self {
        use Direction::{Reply, Request};
        let exchanges = exchanges.min(EXCHANGES_MAX);
        let mut script = Self { client: Vec::new(), server: Vec::new(), exchanges };
        script.add(Request, FLAG_SYN, false);
        script.add(Reply, FLAG_SYN | FLAG_ACK, false);
        script.add(Request, FLAG_ACK, false);
        for _ in 0..exchanges {
            script.add(Request, FLAG_PSH | FLAG_ACK, true);
            script.add(Reply, FLAG_ACK, false);
            script.add(Reply, FLAG_PSH | FLAG_ACK, true);
            script.add(Request, FLAG_ACK, false);
        }
        script.add(Request, FLAG_FIN | FLAG_ACK, false);
        script.add(Reply, FLAG_FIN | FLAG_ACK, false);
        script.add(Request, FLAG_ACK, false);
        script
    }

    fn add(&mut self, direction: Direction, flags: u8, has_data: bool) {
        let (own, other) = match direction {
            Direction::Request => (&mut self.client, &self.server),
            Direction::Reply => (&mut self.server, &self.client),
        };
        let numbered = |steps: &[Step]| {
            let flags = steps.iter().filter(|step| step.flags & (FLAG_SYN | FLAG_FIN) != 0).count();
            (flags as u8, steps.iter().filter(|step| step.has_data).count() as u8)
        };
        let ((flags_before, data_before), (flags_acknowledged, data_acknowledged)) =
            (numbered(own), numbered(other));
        let after = other.len() as u8;
        own.push(Step {
            flags,
            has_data,
            after,
            flags_before,
            data_before,
            flags_acknowledged,
            data_acknowledged,
        });
    }

    /// What a side sends, in order.
    #[inline(always)]
    pub fn steps(&self, from: Direction) -> &[Step] {
        match from {
            Direction::Request => &self.client,
            Direction::Reply => &self.server,
        }
    }

    /// Segments of both sides.
    pub fn packets(&self) -> usize {
        self.client.len() + self.server.len()
    }

    /// Sequence numbers that one side uses with so many bytes in each data segment.
    pub fn numbers_used(&self, data: u32) -> u32 {
        2 + self.exchanges * data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Reply, Request};

    fn listing(script: &Script, from: Direction, data: u32) -> Vec<(u8, u32, u32, u8)> {
        let initials = if from == Request { (1_000, 5_000) } else { (5_000, 1_000) };
        let line = |step: &Step| {
            let numbers = step.numbers(initials.0, initials.1, data);
            (numbers.flags, numbers.sequence, numbers.acknowledgement, step.after)
        };
        script.steps(from).iter().map(line).collect()
    }

    #[test]
    fn ten_segments_as_tcp_numbers_them() {
        let script = Script::new(1);
        assert_eq!((script.packets(), script.numbers_used(6)), (10, 8));
        assert_eq!(
            listing(&script, Request, 6),
            [
                (0x02, 1_000, 0, 0),
                (0x10, 1_001, 5_001, 1),
                (0x18, 1_001, 5_001, 1),
                (0x10, 1_007, 5_007, 3),
                (0x11, 1_007, 5_007, 3),
                (0x10, 1_008, 5_008, 4)
            ]
        );
        assert_eq!(
            listing(&script, Reply, 6),
            [
                (0x12, 5_000, 1_001, 1),
                (0x10, 5_001, 1_007, 3),
                (0x18, 5_001, 1_007, 3),
                (0x11, 5_007, 1_008, 5)
            ]
        );
    }

    #[test]
    fn no_segment_waits_for_one_that_waits_for_it() {
        for exchanges in [0, 1, 2, EXCHANGES_MAX, 1_000] {
            let script = Script::new(exchanges);
            assert_eq!(script.packets(), 6 + 4 * exchanges.min(EXCHANGES_MAX) as usize);
            assert!(script.steps(Request).len() <= 64 && script.steps(Reply).len() <= 64);
            let (mut sent, mut progress) = ([0usize; 2], true);
            while progress {
                progress = false;
                for (side, from) in [Request, Reply].into_iter().enumerate() {
                    let other = sent[1 - side];
                    while script
                        .steps(from)
                        .get(sent[side])
                        .is_some_and(|step| usize::from(step.after) <= other)
                    {
                        sent[side] += 1;
                        progress = true;
                    }
                }
            }
            assert_eq!(sent, [script.steps(Request).len(), script.steps(Reply).len()]);
        }
    }
}
