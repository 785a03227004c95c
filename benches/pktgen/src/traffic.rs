//! What a session sends and receives: datagrams or connections.

use engine::clock::Timestamp;
use engine::packet::Packet;

use crate::outbox::Outbox;
use crate::tally::Tally;

/// A kind of traffic: makes packets when it is told to, and checks those that come back.
///
/// **Invariant:** every packet that comes is either sent on as an answer or its buffer is recycled.
pub trait Traffic {
    /// Makes up to `count` datagrams, or opens up to `count` connections, and gives how many. Fewer when there is no
    /// buffer or no place.
    fn generate(&mut self, count: usize, now: Timestamp, outbox: &mut Outbox) -> usize;

    /// Checks a packet that came by `port`, and answers it if that is called for.
    fn take(&mut self, port: u16, packet: Packet, now: Timestamp, outbox: &mut Outbox);

    /// A bounded slice of housekeeping.
    fn tend(&mut self, now: Timestamp);

    /// Datagrams or connections that are under way, as far as is known.
    fn in_flight(&self) -> u64;

    /// The counts so far.
    fn tally(&self) -> &Tally;

    /// Starts counting anew.
    fn reset_tally(&mut self);
}
