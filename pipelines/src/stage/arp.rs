//! ARP (RFC 826): learns from what is heard, answers for the gateway's addresses, and leaves the bridge's own traffic to
//! the bridge.
//!
//! Towards the host's own stack the gateway answers for every address that is not the host's (RFC 1027): all that the
//! host sends goes through the pipeline.

use engine::batch::{Batch, Disposition};
use engine::packet::Packet;
use engine::wire::arp::{ArpPacket, OPERATION_REPLY, OPERATION_REQUEST};
use engine::wire::ethernet::{EthernetHeader, HEADER_LENGTH, MacAddress, TYPE_ARP};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use crate::drop_reason::DropReason;
use crate::events::Events;
use crate::meta::{BRIDGED, GROUP, Kind, Meta};
use crate::neighbour_machine::Event;
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, HOST_PORT};

/// What a batch's ARP comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Requests that were turned into replies: each consumed and originated.
    pub replies: u64,
}

/// Handles the batch's ARP packets. Bridged ones that are not for the gateway stay pending.
pub fn run(batch: &mut Batch<Meta>, tables: &Tables, events: &mut Events) -> Answered {
    let mut answered = Answered::default();
    for index in 0..batch.len() {
        if !batch.is_pending(index) || batch.meta[index].kind != Kind::Arp {
            continue;
        }
        let Some((packet, meta, disposition)) = batch.parts_mut(index) else { continue };
        let outcome = packet_outcome(packet, meta, tables, events);
        if matches!(outcome, Disposition::Transmit(_) | Disposition::Host) {
            answered.replies += 1;
        }
        *disposition = outcome;
    }
    answered
}

fn packet_outcome(packet: &mut Packet, meta: &Meta, tables: &Tables, events: &mut Events) -> Disposition {
    let drop = |reason: DropReason| Disposition::Drop(reason.code());
    let bytes = packet.data().get(HEADER_LENGTH..).unwrap_or_default();
    let Ok((arp, _)) = ArpPacket::read_from_prefix(bytes) else { return drop(DropReason::ArpMalformed) };
    let (sender, target) = (u32::from_be_bytes(arp.sender_address), u32::from_be_bytes(arp.target_address));
    if !arp.sender_mac.is_unicast() {
        return drop(DropReason::ArpMalformed);
    }
    let is_ours = tables.routes.is_local(target);
    if meta.interface == HOST_INTERFACE {
        return answer_host(packet, &arp, is_ours, tables);
    }
    if tables.routes.is_local(sender) {
        return drop(DropReason::ArpConflict);
    }
    if sender != 0 {
        let (interface, port) = (meta.interface, packet.port());
        let event = Event::Learn { interface, address: sender, mac: arp.sender_mac, port, to_us: is_ours };
        events.raise(event);
    }
    match arp.operation.get() {
        OPERATION_REQUEST if is_ours => {
            let mac = tables.interface(meta.interface).mac;
            answer(packet, &arp, mac, target);
            Disposition::Transmit(packet.port())
        }
        _ if meta.has(BRIDGED) => Disposition::Pending,
        OPERATION_REQUEST if meta.has(GROUP) => drop(DropReason::ArpUnanswered),
        _ => Disposition::Consume,
    }
}

fn answer_host(packet: &mut Packet, arp: &ArpPacket, is_ours: bool, tables: &Tables) -> Disposition {
    // A request for one of the host's own addresses is its probe for duplicates (RFC 5227): no answer means none.
    if arp.operation.get() != OPERATION_REQUEST || is_ours {
        return Disposition::Consume;
    }
    debug_assert_eq!(packet.port(), HOST_PORT);
    let (_, own) = tables.host_macs;
    answer(packet, arp, own, u32::from_be_bytes(arp.target_address));
    Disposition::Host
}

/// Turns the request into its reply, padding and all.
fn answer(packet: &mut Packet, arp: &ArpPacket, mac: MacAddress, address: u32) {
    let header = EthernetHeader { destination: arp.sender_mac, source: mac, ether_type: U16::new(TYPE_ARP) };
    let sender = u32::from_be_bytes(arp.sender_address);
    let reply = ArpPacket::new(OPERATION_REPLY, mac, address, arp.sender_mac, sender);
    let bytes = packet.data_mut();
    let _ = header.write_to_prefix(bytes);
    let _ = reply.write_to_prefix(bytes.get_mut(HEADER_LENGTH..).unwrap_or_default());
}
