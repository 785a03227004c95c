//! What is remembered of a flow: one direction's 48 bytes beside its key, all that its packets need.

use engine::table::flow::{FlowKey, FlowTable};
use engine::wire::checksum::{delta_u16, delta_u32, fold};
use engine::wire::ipv4::{PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flows of one worker.
pub type Flows = FlowTable<FlowValue>;

/// No adjacency known yet: the next routed packet looks its route up.
pub const NO_ADJACENCY: u32 = u32::MAX;
/// No backend counts this flow's packets.
pub const NO_BACKEND: u32 = u32::MAX;

/// This direction is the one that the first packet had.
pub const FLAG_ORIGINAL: u8 = 0x01;
/// Addresses or ports are rewritten.
pub const FLAG_TRANSLATED: u8 = 0x02;
/// Both sides have spoken; under pressure such flows are evicted last (nf_conntrack's ASSURED).
pub const FLAG_ASSURED: u8 = 0x04;

/// One direction of a flow. Addresses, ports and times in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowValue {
    /// Source address that its packets leave with. Written at creation.
    pub new_source: u32,
    /// Destination address that its packets leave with. Written at creation.
    pub new_destination: u32,
    /// Source port (or what stands for it) that its packets leave with. Written at creation.
    pub new_source_port: u16,
    /// Destination port that its packets leave with. Written at creation.
    pub new_destination_port: u16,
    /// What the rewrite adds to the IPv4 header's sum. Written at creation.
    pub ip_delta: u16,
    /// What the rewrite adds to the transport's sum. Written at creation.
    pub transport_delta: u16,
    /// Next hop, an index of [`crate::table::neighbour::Neighbours`]. Written when the route is looked up.
    pub adjacency: u32,
    /// The adjacency's epoch when the route was looked up; another one means: look again.
    pub epoch: u32,
    /// State of the connection, the same in both directions ([`crate::stage::tcp_state`] or [`crate::stage::conntrack`]).
    pub state: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// Millisecond tick of the last packet of this direction.
    pub last_seen_ms: u32,
    /// TCP: one past the last byte sent this way.
    pub tcp_end: u32,
    /// TCP: the last acknowledgement sent this way.
    pub tcp_acknowledged: u32,
    /// TCP: the largest window announced this way, unscaled.
    pub tcp_window: u32,
    /// Counter slot of the backend, or [`NO_BACKEND`].
    pub backend_slot: u32,
}

const _: () = assert!(size_of::<FlowValue>() == 48);

impl FlowValue {
    /// Whether the flag is set.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The rewrite of packets with key `from` so that they leave as `to`.
    pub fn rewrite(from: &FlowKey, to: &FlowKey) -> Self {
        let addresses = delta_u32(from.source, to.source) + delta_u32(from.destination, to.destination);
        let ports = delta_u16(from.source_port, to.source_port)
            + delta_u16(from.destination_port, to.destination_port);
        let transport = match from.protocol {
            // The pseudo-header holds the addresses (RFC 9293, section 3.1; RFC 768).
            PROTOCOL_TCP | PROTOCOL_UDP => addresses + ports,
            // ICMP's checksum covers no addresses (RFC 792); SCTP's is a CRC, recomputed when a port changes.
            PROTOCOL_ICMP => ports,
            _ => 0,
        };
        Self {
            new_source: to.source,
            new_destination: to.destination,
            new_source_port: to.source_port,
            new_destination_port: to.destination_port,
            ip_delta: fold(addresses),
            transport_delta: fold(transport),
            adjacency: NO_ADJACENCY,
            backend_slot: NO_BACKEND,
            flags: if from == to { 0 } else { FLAG_TRANSLATED },
            ..Self::default()
        }
    }

    /// The rewrites of both directions: of packets with key `from` so that they leave as `to`, and of their answers back. What
    /// one adds to a sum the other takes away, so the sums are computed once.
    #[inline]
    pub fn rewrite_both(from: &FlowKey, to: &FlowKey) -> [Self; 2] {
        let there = Self::rewrite(from, to);
        let back = Self {
            new_source: from.destination,
            new_destination: from.source,
            new_source_port: from.destination_port,
            new_destination_port: from.source_port,
            ip_delta: negated(there.ip_delta),
            transport_delta: negated(there.transport_delta),
            ..there
        };
        [there, back]
    }
}

/// The one's complement negative of a folded sum. As [`fold`] has it, zero is all ones (RFC 1624, section 3); a sum of
/// nothing at all stays one.
#[inline(always)]
fn negated(sum: u16) -> u16 {
    match sum {
        0 | 0xffff => sum,
        sum => !sum,
    }
}

/// The key of packets from `source` to `destination`.
#[inline(always)]
pub fn flow_key(
    protocol: u8,
    source: u32,
    source_port: u16,
    destination: u32,
    destination_port: u16,
) -> FlowKey {
    FlowKey { source, destination, source_port, destination_port, protocol, valid: 1, zone: 0 }
}

/// Whether the protocol has ports where TCP and UDP have them.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
}

/// Whether the protocol's packets say which of two hosts' flows they are of: by ports, or by an echo's identifier.
#[inline(always)]
pub fn has_identity(protocol: u8) -> bool {
    has_ports(protocol) || protocol == PROTOCOL_ICMP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_rewrites_are_those_of_each_direction(
            protocol in prop::sample::select(vec![1u8, 6, 17, 47, 132]),
            addresses: [u32; 4],
            ports: [u16; 4],
            same_source: bool,
            same_destination: bool,
        ) {
            let from = flow_key(protocol, addresses[0] | 1, ports[0], addresses[1] | 1, ports[1]);
            let mut to = flow_key(protocol, addresses[2] | 1, ports[2], addresses[3] | 1, ports[3]);
            if same_source {
                (to.source, to.source_port) = (from.source, from.source_port);
            }
            if same_destination {
                (to.destination, to.destination_port) = (from.destination, from.destination_port);
            }
            let back = FlowValue::rewrite(&to.reversed(), &from.reversed());
            prop_assert_eq!(FlowValue::rewrite_both(&from, &to), [FlowValue::rewrite(&from, &to), back]);
        }
    }

    #[test]
    fn rewrite_there_and_back_changes_no_sum() {
        let from = flow_key(PROTOCOL_TCP, 0x0a01_0203, 40000, 0x0afe_0001, 80);
        let to = flow_key(PROTOCOL_TCP, 0xac1e_4c01, 33000, 0xac1e_0902, 8080);
        let (there, back) = (FlowValue::rewrite(&from, &to), FlowValue::rewrite(&to, &from));
        for (one, other) in [(there.ip_delta, back.ip_delta), (there.transport_delta, back.transport_delta)] {
            let sum = fold(u64::from(one) + u64::from(other));
            assert!(sum == 0 || sum == 0xffff, "{sum:04x}");
        }
        assert!(there.has(FLAG_TRANSLATED) && !FlowValue::rewrite(&from, &from).has(FLAG_TRANSLATED));
    }
}
