//! Addresses that no packet may have here (RFC 1812, section 5.3.7; RFC 6890).

use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::table::Tables;
use crate::table::interface::HOST_INTERFACE;

const LOOPBACK: u32 = 127;
const FIRST_MULTICAST: u32 = 0xe000_0000;
const FIRST_RESERVED: u32 = 0xf000_0000;

/// Drops martians. Later packets of a flow need no such check: their addresses are the first one's.
pub fn decide(tables: &Tables, decision: &mut Decision) {
    let (source, destination) = (decision.key.source, decision.key.destination);
    let is_from_wire = decision.interface != HOST_INTERFACE;
    let is_own = is_from_wire && tables.routes.is_local(source);
    // From an address to itself: never on a wire but as an attack, and with equal ports no flow with two directions. The
    // node itself may call its own node ports.
    let is_sender_destination = is_from_wire && source == destination;
    let is_nobody = source >> 24 == 0 || source >> 24 == LOOPBACK || source >= FIRST_MULTICAST;
    if is_nobody || is_own || is_sender_destination {
        decision.outcome = Outcome::Drop(DropReason::MartianSource);
    } else if destination >= FIRST_MULTICAST && (destination < FIRST_RESERVED || destination == u32::MAX) {
        decision.outcome = Outcome::Drop(DropReason::Multicast);
    } else if destination >> 24 == 0 || destination >> 24 == LOOPBACK || destination >= FIRST_RESERVED {
        decision.outcome = Outcome::Drop(DropReason::MartianDestination);
    }
}
