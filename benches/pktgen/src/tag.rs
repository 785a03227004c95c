//! The tag at the front of each datagram's payload: 18 bytes, all that the smallest frame has room for.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a tag.
pub const TAG_LENGTH: usize = 18;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to a backend.
    Request = 0,
    /// From a backend to a client.
    Reply = 1,
}

/// What a packet says about itself, so that whoever gets it back knows which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tag {
    /// Which flow.
    pub flow: U32,
    /// Which packet of the flow in its direction, from 1.
    pub sequence: U32,
    /// When it was made, in nanoseconds, the upper half.
    sent_high: U32,
    /// The lower half.
    sent_low: U32,
    /// [`MARK_REQUEST`] or [`MARK_REPLY`].
    mark: U16,
}

/// "Pq": a request of ours.
const MARK_REQUEST: u16 = 0x5071;
/// "Pr": a reply of ours.
const MARK_REPLY: u16 = 0x5072;

impl Tag {
    /// A tag for a packet that is made now.
    #[inline(always)]
    pub fn new(direction: Direction, flow: u32, sequence: u32, sent_nanoseconds: u64) -> Self {
        let mark = if direction == Direction::Request { MARK_REQUEST } else { MARK_REPLY };
        Self {
            flow: U32::new(flow),
            sequence: U32::new(sequence),
            sent_high: U32::new((sent_nanoseconds >> 32) as u32),
            sent_low: U32::new(sent_nanoseconds as u32),
            mark: U16::new(mark),
        }
    }

    /// Which way the packet goes; none where this is no tag.
    #[inline(always)]
    pub fn direction(&self) -> Option<Direction> {
        match self.mark.get() {
            MARK_REQUEST => Some(Direction::Request),
            MARK_REPLY => Some(Direction::Reply),
            _ => None,
        }
    }

    /// When it was made, in nanoseconds.
    #[inline(always)]
    pub fn sent_nanoseconds(&self) -> u64 {
        u64::from(self.sent_high.get()) << 32 | u64::from(self.sent_low.get())
    }

    /// Sum of its words for a checksum: a 32-bit word counts as its two halves (RFC 1071, section 2 (B)).
    #[inline(always)]
    pub fn sum(&self) -> u64 {
        u64::from(self.flow.get())
            + u64::from(self.sequence.get())
            + u64::from(self.sent_high.get())
            + u64::from(self.sent_low.get())
            + u64::from(self.mark.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::wire::checksum::{fold, sum};

    #[test]
    fn tags_tell_what_they_were_told_and_their_sum() {
        let tag = Tag::new(Direction::Reply, 0xdead_beef, 7, 0x0123_4567_89ab_cdef);
        assert_eq!(tag.as_bytes().len(), TAG_LENGTH);
        assert_eq!((tag.direction(), tag.flow.get()), (Some(Direction::Reply), 0xdead_beef));
        assert_eq!((tag.sequence.get(), tag.sent_nanoseconds()), (7, 0x0123_4567_89ab_cdef));
        assert_eq!(fold(tag.sum()), fold(sum(tag.as_bytes(), 0)));
        assert_eq!(Tag::read_from_bytes(&[0; TAG_LENGTH]).unwrap().direction(), None);
    }
}
