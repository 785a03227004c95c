//! The bridge's forwarding: learns where stations are, sends frames to the port of their destination, floods what it
//! does not know (IEEE 802.1D, clauses 7.7 and 7.8).

use engine::batch::{Batch, Disposition};
use engine::clock::Timestamp;
use engine::pool::PacketSource;
use engine::wire::ethernet::{EthernetHeader, MacAddress};
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::events::Events;
use crate::meta::{BRIDGED, GROUP, Kind, Meta};
use crate::neighbour_machine::Event;
use crate::table::Tables;
use crate::table::bridge_mac::BridgeMacs;

/// What bridging a frame took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flooded {
    /// Copies made, each to one more port.
    pub copies: u64,
    /// Copies that found no buffer or place.
    pub lost: u64,
}

/// Notes the stations that the batch's frames come from, and forwards what connection tracking has no use for: other
/// protocols' frames, ARP between pods, broadcasts.
pub fn run(
    batch: &mut Batch<Meta>,
    tables: &Tables,
    stations: &BridgeMacs,
    source: &mut dyn PacketSource,
    now: Timestamp,
    events: &mut Events,
) -> Flooded {
    let mut flooded = Flooded::default();
    let Some(bridge) = &tables.bridge else { return flooded };
    for index in 0..batch.len() {
        let meta = batch.meta[index];
        if meta.interface != bridge.interface || meta.kind == Kind::None {
            continue;
        }
        hear(batch, index, stations, now, events);
        let is_layer_2 = matches!(meta.kind, Kind::Arp | Kind::Frame) || meta.has(GROUP);
        if batch.is_pending(index) && meta.has(BRIDGED) && is_layer_2 {
            let outcome = forward(batch, index, tables, stations, source);
            flooded.copies += outcome.copies;
            flooded.lost += outcome.lost;
        }
    }
    flooded
}

fn hear(batch: &Batch<Meta>, index: usize, stations: &BridgeMacs, now: Timestamp, events: &mut Events) {
    let Some(packet) = batch.packet(index) else { return };
    let Ok((header, _)) = EthernetHeader::ref_from_prefix(packet.data()) else { return };
    // An ARP request that was answered in place carries the gateway's own MAC by now.
    if matches!(batch.dispositions[index], Disposition::Pending)
        && !stations.hear(header.source, packet.port(), now.millis())
    {
        events.raise(Event::Station { mac: header.source, port: packet.port() });
    }
}

/// Sends the frame at `index` to its station's port, or to all ports but the one it came by.
pub fn forward(
    batch: &mut Batch<Meta>,
    index: usize,
    tables: &Tables,
    stations: &BridgeMacs,
    source: &mut dyn PacketSource,
) -> Flooded {
    let mut flooded = Flooded::default();
    let (Some(bridge), Some(packet)) = (&tables.bridge, batch.packet(index)) else { return flooded };
    let ingress = packet.port();
    let destination = EthernetHeader::ref_from_prefix(packet.data())
        .map_or(MacAddress::BROADCAST, |(header, _)| header.destination);
    let known = if destination.is_multicast() { None } else { stations.find(destination) };
    batch.dispositions[index] = match known {
        Some(port) if port == ingress => Disposition::Drop(DropReason::BridgeSamePort.code()),
        Some(port) => Disposition::Transmit(port),
        None => {
            let mut members = bridge.members.iter().copied().filter(|port| *port != ingress);
            let Some(first) = members.next() else {
                batch.dispositions[index] = Disposition::Drop(DropReason::BridgeNoPort.code());
                return flooded;
            };
            for port in members {
                let copied = copy_to(batch, index, port, source);
                flooded.copies += u64::from(copied);
                flooded.lost += u64::from(!copied);
            }
            // The frame itself is the first port's; the others got copies.
            Disposition::Transmit(first)
        }
    };
    flooded
}

fn copy_to(batch: &mut Batch<Meta>, index: usize, port: u16, source: &mut dyn PacketSource) -> bool {
    if batch.added.is_full() {
        return false;
    }
    let (Some(original), Some(mut copy)) = (batch.packet(index), source.allocate()) else { return false };
    if !copy.fill(original.data()) {
        return false;
    }
    copy.set_port(original.port());
    batch.added.try_push((copy, Disposition::Transmit(port))).is_ok()
}
