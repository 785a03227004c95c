//! The way out of a packet: its next hop, as the neighbour machine has it or would learn it, and what leaves there.

use core::net::Ipv4Addr;
use std::sync::Arc;

use engine::batch::PortId;
use engine::clock::Timestamp;
use engine::wire::ethernet::MacAddress;

use super::Scene;
use super::json::{Egress, Vxlan};
use crate::drop_reason::DropReason;
use crate::gateway::forward::{NotYet, find_next_hop};
use crate::neighbour_machine::{Event, Frames, NeighbourMachine};
use crate::stage::route_lookup::way_out;
use crate::table::Tables;
use crate::table::bridge_mac::BridgeMacs;
use crate::table::interface::{InterfaceId, InterfaceKind};
use crate::table::neighbour::{Adjacency, KIND_ETHERNET, KIND_VXLAN, NEIGHBOURS_MAX, Neighbours};

/// Where in a tunnel's header the inner frame's destination stands: behind Ethernet, IPv4, UDP and VXLAN.
const INNER_DESTINATION: core::ops::Range<usize> = 50..56;

/// A next hop that packets can leave by.
pub(super) struct Way {
    pub(super) adjacency: Adjacency,
    /// Who must first answer ARP, and on which interface.
    pub(super) asked: Vec<(InterfaceId, u32)>,
}

/// The next hop towards an address: as a running gateway has it, else in one that has just started. What would have to be
/// asked for is answered by MACs that are made up.
pub(super) fn find(scene: &Scene<'_>, destination: u32) -> Result<Way, DropReason> {
    match scene.running.map(|view| find_next_hop(destination, scene.tables, &view.neighbours)) {
        Some(Ok((adjacency, _))) => Ok(Way { adjacency, asked: Vec::new() }),
        Some(Err(NotYet::Never(reason))) => Err(reason),
        Some(Err(NotYet::Wait(interface, address))) => {
            let mut way = find_afresh(scene.tables, destination)?;
            if way.asked.is_empty() {
                // A static one that the neighbour machine has not come to yet.
                way.asked.push((interface, address));
            }
            Ok(way)
        }
        None => find_afresh(scene.tables, destination),
    }
}

fn find_afresh(tables: &Tables, destination: u32) -> Result<Way, DropReason> {
    let neighbours = Arc::new(Neighbours::new(NEIGHBOURS_MAX));
    let mut machine = NeighbourMachine::new(Arc::clone(&neighbours), Arc::new(BridgeMacs::default()));
    let now = Timestamp::from_seconds(1);
    let mut step = |events: &[Event]| {
        machine.step(tables, now, events.iter().copied(), &mut Frames::new());
        find_next_hop(destination, tables, &neighbours)
    };
    match step(&[]) {
        Ok((adjacency, _)) => Ok(Way { adjacency, asked: Vec::new() }),
        Err(NotYet::Never(reason)) => Err(reason),
        Err(NotYet::Wait(interface, address)) => {
            let asked = questions(tables, interface, address);
            let resolve = |(interface, address): &(InterfaceId, u32)| Event::Resolve {
                interface: *interface,
                address: *address,
            };
            let _ = step(&asked.iter().map(resolve).collect::<Vec<_>>());
            let answers: Vec<Event> = asked.iter().filter_map(|asked| answer(tables, *asked)).collect();
            match step(&answers) {
                Ok((adjacency, _)) => Ok(Way { adjacency, asked }),
                // No answer helps: a tunnel to nowhere.
                Err(_) => Err(DropReason::NeighbourUnresolved),
            }
        }
    }
}

/// What ARP would be asked: the next hop itself, or that of the tunnel's outer packets.
fn questions(tables: &Tables, interface: InterfaceId, address: u32) -> Vec<(InterfaceId, u32)> {
    if !matches!(tables.interface(interface).kind, InterfaceKind::Overlay { .. }) {
        return vec![(interface, address)];
    }
    let mac = tables.neighbours.get(&(interface, address));
    let remote = mac.and_then(|mac| tables.overlay.as_ref()?.fdb.get(mac));
    remote.and_then(|remote| way_out(tables, *remote)).into_iter().collect()
}

fn answer(tables: &Tables, (interface, address): (InterfaceId, u32)) -> Option<Event> {
    let port = match tables.interface(interface).kind {
        InterfaceKind::Underlay(port) => port,
        InterfaceKind::Bridge => *tables.bridge.as_ref()?.members.first()?,
        InterfaceKind::Host | InterfaceKind::Overlay { .. } => return None,
    };
    let [a, b, c, d] = address.to_be_bytes();
    let made_up = MacAddress([0x02, 0, a, b, c, d]);
    let mac = tables.neighbours.get(&(interface, address)).copied().unwrap_or(made_up);
    Some(Event::Learn { interface, address, mac, port, to_us: true })
}

impl Way {
    /// As the trace's JSON has it.
    pub(super) fn to_json(&self, tables: &Tables) -> Egress {
        let Adjacency { interface, port, address, remote, kind, template, .. } = &self.adjacency;
        let is_bridge = matches!(tables.interface(*interface).kind, InterfaceKind::Bridge);
        let overlay = tables.overlay.as_ref().filter(|_| *kind == KIND_VXLAN);
        Egress {
            port: port_name(tables, *interface, Some(*port).filter(|_| !is_bridge || self.asked.is_empty())),
            next_hop: Ipv4Addr::from(*address).into(),
            vxlan: overlay.map(|overlay| Vxlan {
                vni: overlay.vni,
                local: overlay.local.into(),
                remote: (*remote).into(),
                inner_destination_mac: inner_destination(template).to_string(),
                udp_port: overlay.udp_port,
            }),
        }
    }

    /// The table entries that lead there.
    pub(super) fn entry(&self, tables: &Tables) -> Option<String> {
        let key = (self.adjacency.interface, self.adjacency.address);
        let (address, dev) = (Ipv4Addr::from(key.1), &tables.interface(key.0).name);
        let Some(mac) = tables.neighbours.get(&key) else {
            let is_learned = self.asked.is_empty() && self.adjacency.kind == KIND_ETHERNET;
            let mac =
                self.adjacency.template.first_chunk().copied().map(MacAddress).filter(|_| is_learned)?;
            return Some(format!("neighbour {address} {mac} dev {dev} (learned)"));
        };
        let fdb = if self.adjacency.kind == KIND_VXLAN {
            format!(", fdb {mac} on {}", Ipv4Addr::from(self.adjacency.remote))
        } else {
            String::new()
        };
        Some(format!("neighbour {address} {mac} dev {dev}{fdb}"))
    }

    /// Whose answers to ARP are waited for.
    pub(super) fn waits_for(&self, tables: &Tables) -> Option<String> {
        let asked = self.asked.iter().map(|(interface, address)| {
            format!("{} on {}", Ipv4Addr::from(*address), tables.interface(*interface).name)
        });
        (!self.asked.is_empty()).then(|| asked.collect::<Vec<_>>().join(", "))
    }
}

/// The port's name; the interface's as long as the port is not known.
pub(super) fn port_name(tables: &Tables, interface: InterfaceId, port: Option<PortId>) -> String {
    let record = port.and_then(|port| tables.port(port));
    record.map_or(&tables.interface(interface).name, |record| &record.name).clone()
}

fn inner_destination(template: &[u8]) -> MacAddress {
    let bytes = template.get(INNER_DESTINATION).and_then(|bytes| bytes.try_into().ok());
    MacAddress(bytes.unwrap_or_default())
}
