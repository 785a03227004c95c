//! Routing: where a packet leaves, and to whom it goes next (RFC 1812, section 5.2.4).

use engine::wire::ipv4::PROTOCOL_ICMP;

use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, InterfaceId};

/// Looks the way out up. What is for the gateway itself is answered or delivered.
pub fn decide(tables: &Tables, decision: &mut Decision) {
    if decision.bridged {
        decision.outcome = Outcome::Bridge;
        return;
    }
    let Some((egress, next_hop)) = way_out(tables, decision.destination) else {
        decision.outcome = Outcome::Drop(DropReason::NoRoute);
        return;
    };
    decision.egress = egress;
    decision.next_hop = next_hop;
    if egress != HOST_INTERFACE || decision.is_redirected() {
        return;
    }
    // Echo requests are the one thing that the gateway answers by itself: they show that packets reach it.
    // (An echo reply to no request is dropped before anything is decided.)
    let is_echo = decision.key.protocol == PROTOCOL_ICMP && decision.interface != HOST_INTERFACE;
    decision.outcome = if is_echo { Outcome::Answer } else { Outcome::Deliver };
}

/// Interface and next hop towards `address`; none without a route.
#[inline]
pub fn way_out(tables: &Tables, address: u32) -> Option<(InterfaceId, u32)> {
    let route = tables.routes.lookup(address)?;
    Some((route.interface, route.via.unwrap_or(address)))
}
