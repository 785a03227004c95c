//! The neighbour machine: the one writer of next hops and bridge stations.
//!
//! A sans-IO state machine: events and time go in, ARP requests come out. It runs on the first worker, between batches,
//! a bounded slice at a time, and in replay just the same in virtual time. Other workers' events reach it by rings.
//!
//! A next hop is asked for when the first packet needs it (RFC 1122, section 2.3.2.2: at most one request a second),
//! asked again by unicast when it has not been confirmed for [`REACHABLE_MS`], and forgotten when it does not answer.

use std::sync::Arc;

use arrayvec::ArrayVec;
use engine::batch::PortId;
use engine::clock::Timestamp;
use engine::wire::arp::{self, ArpPacket, OPERATION_REQUEST};
use engine::wire::checksum;
use engine::wire::ethernet::{self, EthernetHeader, MacAddress, TYPE_ARP, TYPE_IPV4};
use engine::wire::ipv4::{Ipv4Header, PROTOCOL_UDP};
use engine::wire::udp::UdpHeader;
use engine::wire::vxlan::VxlanHeader;
use zerocopy::network_endian::U16;
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::table::bridge_mac::BridgeMacs;
use crate::table::interface::{HOST_INTERFACE, InterfaceId, InterfaceKind};
use crate::table::neighbour::{
    Adjacency, HOST_ADJACENCY, KIND_ETHERNET, KIND_HOST, KIND_INCOMPLETE, KIND_VXLAN, Neighbours,
    TEMPLATE_LENGTH,
};
use crate::table::route::{Route, RouteTable};
use crate::table::{OverlayTable, Tables};

/// Milliseconds after which a next hop is asked whether it is still there (Linux: base_reachable_time).
pub const REACHABLE_MS: u32 = 30_000;
/// Milliseconds between two requests.
pub const RETRY_MS: u32 = 1_000;
/// Requests without an answer before a next hop is given up (Linux: mcast_solicit, ucast_solicit).
pub const TRIES: u8 = 3;
/// Records and stations looked at in one step.
pub const SWEEP: usize = 64;
/// Frames that one step may send.
pub const FRAMES_MAX: usize = 32;
/// Route changes that are worked out one by one; more make all flows look their route up again, once.
const CHANGES_MAX: usize = 64;

/// Something that a worker saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet needs this next hop.
    Resolve {
        /// On which interface.
        interface: InterfaceId,
        /// Whose MAC is wanted (host order).
        address: u32,
    },
    /// ARP said where a next hop is.
    Learn {
        /// On which interface.
        interface: InterfaceId,
        /// Whose (host order).
        address: u32,
        /// Its MAC.
        mac: MacAddress,
        /// The port it was heard on.
        port: PortId,
        /// It spoke to the gateway, so it is worth knowing even if nothing was sent to it yet.
        to_us: bool,
    },
    /// A station of the bridge was heard behind a new port.
    Station {
        /// Its MAC.
        mac: MacAddress,
        /// That port.
        port: PortId,
    },
}

/// A frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The interface.
    pub interface: InterfaceId,
    /// The port; none: all ports of the bridge.
    pub port: Option<PortId>,
    /// Ethernet and ARP.
    pub bytes: [u8; FRAME_LENGTH],
}

/// Length of an ARP frame in bytes, without padding.
pub const FRAME_LENGTH: usize = ethernet::HEADER_LENGTH + arp::LENGTH;
/// Frames of one step.
pub type Frames = ArrayVec<Frame, FRAMES_MAX>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// From the configuration: never asked for, never forgotten.
    Static,
    /// Asked, no answer yet.
    Incomplete,
    /// Answered.
    Reachable,
    /// Answered once, asked again.
    Probing,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    state: State,
    interface: InterfaceId,
    address: u32,
    mac: MacAddress,
    port: Option<PortId>,
    /// When to act next.
    due_ms: u32,
    tries: u8,
    epoch: u32,
    /// Tunnels leave by it.
    is_carrier: bool,
}

const FREE: Record = Record {
    state: State::Free,
    interface: HOST_INTERFACE,
    address: 0,
    mac: MacAddress([0; 6]),
    port: None,
    due_ms: 0,
    tries: 0,
    epoch: 0,
    is_carrier: false,
};

/// The machine.
pub struct NeighbourMachine {
    neighbours: Arc<Neighbours>,
    stations: Arc<BridgeMacs>,
    records: Vec<Record>,
    free: Vec<u32>,
    next_epoch: u32,
    generation: Option<u64>,
    routes: Option<Arc<RouteTable>>,
    sweep_at: usize,
    station_sweep_ms: u32,
    /// All records from here on are free.
    used: usize,
    /// A station was heard behind a new port in this step.
    station_changed: bool,
    /// The outer next hop of a tunnel changed in this step.
    carrier_changed: bool,
}

impl NeighbourMachine {
    /// A machine that writes to these tables.
    pub fn new(neighbours: Arc<Neighbours>, stations: Arc<BridgeMacs>) -> Self {
        let capacity = neighbours.capacity();
        Self {
            neighbours,
            stations,
            records: vec![FREE; capacity],
            free: (1..capacity as u32).rev().collect(),
            next_epoch: 1,
            generation: None,
            routes: None,
            sweep_at: 1,
            station_sweep_ms: 0,
            used: 1,
            station_changed: false,
            carrier_changed: false,
        }
    }

    /// One bounded step: new tables first, then `events`, then a slice of what is due.
    pub fn step(
        &mut self,
        tables: &Tables,
        now: Timestamp,
        events: impl IntoIterator<Item = Event>,
        frames: &mut Frames,
    ) {
        let now_ms = now.millis();
        if self.generation != Some(tables.generation) {
            self.take_over(tables, now_ms, frames);
        }
        for event in events {
            match event {
                Event::Resolve { interface, address } => {
                    self.resolve(tables, interface, address, now_ms, frames);
                }
                Event::Learn { interface, address, mac, port, to_us } => {
                    self.learn(tables, interface, address, mac, port, to_us, now_ms);
                }
                Event::Station { mac, port } => self.hear_station(mac, port, now_ms),
            }
        }
        self.sweep(tables, now_ms, frames);
        self.pass_on(tables, now_ms, frames);
        self.age_stations(tables, now_ms);
    }

    /// Milliseconds after which the sweep has seen every record once, at one step a millisecond.
    pub fn sweep_period_ms(&self) -> usize {
        self.records.len().div_ceil(SWEEP)
    }

    fn take_over(&mut self, tables: &Tables, now_ms: u32, frames: &mut Frames) {
        self.generation = Some(tables.generation);
        self.neighbours.set_generation(tables.generation);
        let changed = self.changed_routes(tables);
        self.routes = Some(Arc::clone(&tables.routes));
        self.write_host(
            tables,
            changed.as_ref().is_none_or(|routes| routes.iter().any(|r| r.interface == HOST_INTERFACE)),
        );
        self.take_stations(tables, now_ms);
        for index in 1..self.used {
            let record = self.records[index];
            if record.state == State::Free {
                continue;
            }
            let is_static = tables.neighbours.contains_key(&(record.interface, record.address));
            if (record.state == State::Static) != is_static {
                // What it is has changed: the next packet makes it anew.
                self.release(index as u32);
                continue;
            }
            if changed.as_ref().is_none_or(|routes| routes.iter().any(|route| leads_to(route, &record))) {
                self.records[index].epoch = self.draw_epoch();
            }
        }
        for (interface, address) in tables.neighbours.keys() {
            self.resolve(tables, *interface, *address, now_ms, frames);
        }
        // Tunnels last: they are made of the records of their outer next hops.
        self.refresh_all(tables, now_ms, frames, |_, kind| !matches!(kind, InterfaceKind::Overlay { .. }));
        self.refresh_all(tables, now_ms, frames, |_, kind| matches!(kind, InterfaceKind::Overlay { .. }));
        (self.carrier_changed, self.station_changed) = (false, false);
    }

    /// Writes the records in use that `choose` wants, by what is known now.
    fn refresh_all(
        &mut self,
        tables: &Tables,
        now_ms: u32,
        frames: &mut Frames,
        choose: impl Fn(&Record, InterfaceKind) -> bool,
    ) {
        for index in 1..self.used {
            let record = self.records[index];
            if record.state != State::Free && choose(&record, tables.interface(record.interface).kind) {
                self.refresh(tables, index as u32, now_ms, frames);
            }
        }
    }

    /// Passes on what the step's events changed, once for all of them: whoever can send many events must not be able
    /// to have all records looked at for each.
    fn pass_on(&mut self, tables: &Tables, now_ms: u32, frames: &mut Frames) {
        if core::mem::take(&mut self.station_changed) {
            // Next hops whose station is behind another port, or is heard for the first time, leave by that port.
            let stations = Arc::clone(&self.stations);
            self.refresh_all(tables, now_ms, frames, |record, kind| {
                matches!(kind, InterfaceKind::Bridge)
                    && stations.find(record.mac).is_some_and(|port| record.port != Some(port))
            });
        }
        if core::mem::take(&mut self.carrier_changed) {
            self.refresh_all(tables, now_ms, frames, |_, kind| matches!(kind, InterfaceKind::Overlay { .. }));
        }
    }

    /// Static stations, before the next hops that stand on them.
    fn take_stations(&mut self, tables: &Tables, now_ms: u32) {
        if let Some(bridge) = &tables.bridge {
            // Forgetting one leaves the others where they are, so they may go while they are looked at.
            for station in self.stations.stations() {
                if station.is_static && !bridge.stations.contains(&(station.mac, station.port)) {
                    self.stations.forget(station.mac);
                }
            }
            for (mac, port) in &bridge.stations {
                self.stations.learn(*mac, *port, true, now_ms);
            }
        }
    }

    /// Old and new routes under which some destination may now go elsewhere; none: too many to tell.
    fn changed_routes(&self, tables: &Tables) -> Option<Vec<Route>> {
        let Some(old) = &self.routes else { return Some(Vec::new()) };
        if Arc::ptr_eq(old, &tables.routes) {
            return Some(Vec::new());
        }
        let set =
            |table: &RouteTable| table.routes().iter().copied().collect::<std::collections::HashSet<_>>();
        let (before, after) = (set(old), set(&tables.routes));
        let changed: Vec<Route> = before.symmetric_difference(&after).copied().collect();
        if changed.len() > CHANGES_MAX {
            return None;
        }
        // Whoever was routed by an old route that shares addresses with a changed one may have to move.
        let affected = |route: &&Route| changed.iter().any(|change| change.prefix.overlaps(route.prefix));
        Some(old.routes().iter().filter(affected).copied().collect())
    }

    fn draw_epoch(&mut self) -> u32 {
        self.next_epoch = self.next_epoch.wrapping_add(1);
        self.next_epoch
    }

    fn write_host(&mut self, tables: &Tables, renew: bool) {
        if renew || self.records[0].epoch == 0 {
            self.records[0].epoch = self.draw_epoch();
        }
        let (host, own) = tables.host_macs;
        let header = EthernetHeader { destination: host, source: own, ether_type: U16::new(TYPE_IPV4) };
        let mut adjacency = Adjacency {
            epoch: self.records[0].epoch,
            kind: KIND_HOST,
            interface: HOST_INTERFACE,
            mtu: tables.interface(HOST_INTERFACE).mtu,
            header_length: ethernet::HEADER_LENGTH as u16,
            ..Adjacency::FREE
        };
        copy_into(&mut adjacency.template, 0, &header);
        self.neighbours.write(HOST_ADJACENCY, &adjacency);
    }

    /// The record of a next hop, made if there is none. None: the table is full, or it can lead nowhere.
    fn resolve(
        &mut self,
        tables: &Tables,
        interface: InterfaceId,
        address: u32,
        now_ms: u32,
        frames: &mut Frames,
    ) -> Option<u32> {
        if let Some(index) = self.neighbours.find(interface, address) {
            self.ask_for_port(tables, index, now_ms, frames);
            return Some(index);
        }
        let static_mac = tables.neighbours.get(&(interface, address)).copied();
        let is_overlay = matches!(tables.interface(interface).kind, InterfaceKind::Overlay { .. });
        if interface == HOST_INTERFACE || (is_overlay && static_mac.is_none()) {
            return None;
        }
        let index = self.free.pop()?;
        if !self.neighbours.link(interface, address, index) {
            self.free.push(index);
            return None;
        }
        self.used = self.used.max(index as usize + 1);
        self.records[index as usize] = Record {
            state: if static_mac.is_some() { State::Static } else { State::Incomplete },
            interface,
            address,
            mac: static_mac.unwrap_or_default(),
            due_ms: now_ms,
            epoch: self.draw_epoch(),
            ..FREE
        };
        self.refresh(tables, index, now_ms, frames);
        if static_mac.is_none() {
            self.ask(tables, index, now_ms, frames);
        }
        Some(index)
    }

    /// Writes a record's content from what is known now.
    fn refresh(&mut self, tables: &Tables, index: u32, now_ms: u32, frames: &mut Frames) {
        let record = self.records[index as usize];
        if record.state == State::Static
            && let Some(mac) = tables.neighbours.get(&(record.interface, record.address))
        {
            self.records[index as usize].mac = *mac;
        }
        let adjacency = match tables.interface(record.interface).kind {
            InterfaceKind::Overlay { .. } => self.tunnel(tables, index, now_ms, frames),
            InterfaceKind::Underlay(port) => {
                self.records[index as usize].port = Some(port);
                self.plain(tables, index)
            }
            InterfaceKind::Bridge => {
                let mac = self.records[index as usize].mac;
                if let Some(port) = self.stations.find(mac) {
                    self.records[index as usize].port = Some(port);
                }
                self.ask_for_port(tables, index, now_ms, frames);
                self.plain(tables, index)
            }
            InterfaceKind::Host => Adjacency::FREE,
        };
        self.neighbours.write(index, &adjacency);
    }

    fn unresolved(&self, tables: &Tables, record: &Record) -> Adjacency {
        Adjacency {
            epoch: record.epoch,
            kind: KIND_INCOMPLETE,
            interface: record.interface,
            mtu: tables.interface(record.interface).mtu,
            address: record.address,
            ..Adjacency::FREE
        }
    }

    fn plain(&self, tables: &Tables, index: u32) -> Adjacency {
        let record = self.records[index as usize];
        let mut adjacency = self.unresolved(tables, &record);
        let (true, Some(port)) = (record.mac.is_unicast(), record.port) else { return adjacency };
        adjacency.kind = KIND_ETHERNET;
        adjacency.port = port;
        adjacency.header_length = ethernet::HEADER_LENGTH as u16;
        let source = tables.interface(record.interface).mac;
        let header = EthernetHeader { destination: record.mac, source, ether_type: U16::new(TYPE_IPV4) };
        copy_into(&mut adjacency.template, 0, &header);
        adjacency
    }

    fn tunnel(&mut self, tables: &Tables, index: u32, now_ms: u32, frames: &mut Frames) -> Adjacency {
        let record = self.records[index as usize];
        let unresolved = self.unresolved(tables, &record);
        let Some(overlay) = &tables.overlay else { return unresolved };
        let Some(remote) = overlay.fdb.get(&record.mac).copied() else { return unresolved };
        let Some(route) = tables.routes.lookup(remote) else { return unresolved };
        // A tunnel inside the tunnel would never end.
        if !matches!(tables.interface(route.interface).kind, InterfaceKind::Underlay(_)) {
            return unresolved;
        }
        let next_hop = route.via.unwrap_or(remote);
        let carrier = self.resolve(tables, route.interface, next_hop, now_ms, frames);
        let Some(carrier) = carrier else { return unresolved };
        self.records[carrier as usize].is_carrier = true;
        let Some(outer) = self.neighbours.read(carrier) else { return unresolved };
        if outer.kind != KIND_ETHERNET {
            return unresolved;
        }
        tunnel_adjacency(tables, overlay, &record, remote, &outer)
    }

    #[allow(clippy::too_many_arguments, reason = "an event's fields, and where and when")]
    fn learn(
        &mut self,
        tables: &Tables,
        interface: InterfaceId,
        address: u32,
        mac: MacAddress,
        port: PortId,
        to_us: bool,
        now_ms: u32,
    ) {
        let known = self.neighbours.find(interface, address);
        let Some(index) = known.or_else(|| {
            // Its address must be one that this interface reaches directly, or anybody could fill the table.
            let direct =
                tables.routes.lookup(address).is_some_and(|r| r.interface == interface && r.via.is_none());
            let mut unsent = Frames::new();
            (to_us && direct).then(|| self.resolve(tables, interface, address, now_ms, &mut unsent)).flatten()
        }) else {
            return;
        };
        let record = &mut self.records[index as usize];
        let before = (record.mac, record.port);
        let is_bridge = matches!(tables.interface(interface).kind, InterfaceKind::Bridge);
        if record.state != State::Static {
            record.mac = mac;
            record.state = State::Reachable;
            record.tries = 0;
            record.due_ms = now_ms.wrapping_add(REACHABLE_MS);
        } else if record.mac != mac {
            return;
        }
        if is_bridge {
            record.port = Some(port);
            self.hear_station(mac, port, now_ms);
        }
        let mut unsent = Frames::new();
        self.refresh(tables, index, now_ms, &mut unsent);
        let record = &self.records[index as usize];
        self.carrier_changed |= record.is_carrier && (record.mac, record.port) != before;
    }

    fn hear_station(&mut self, mac: MacAddress, port: PortId, now_ms: u32) {
        if !self.stations.hear(mac, port, now_ms) && self.stations.learn(mac, port, false, now_ms) {
            self.station_changed = true;
        }
    }

    fn sweep(&mut self, tables: &Tables, now_ms: u32, frames: &mut Frames) {
        for _ in 0..SWEEP.min(self.records.len()) {
            let index = self.sweep_at;
            self.sweep_at = if index + 1 < self.records.len() { index + 1 } else { 1 };
            let record = self.records[index];
            let is_due = now_ms.wrapping_sub(record.due_ms) as i32 >= 0;
            let is_asking = matches!(record.state, State::Incomplete | State::Reachable | State::Probing);
            if !is_asking || !is_due || frames.is_full() {
                continue;
            }
            if record.tries >= TRIES {
                self.carrier_changed |= record.is_carrier;
                self.release(index as u32);
                continue;
            }
            if record.state == State::Reachable {
                self.records[index].state = State::Probing;
            }
            self.ask(tables, index as u32, now_ms, frames);
        }
    }

    /// Of a static next hop on the bridge the MAC is known and the port may not be: the answer to a request tells. Asked
    /// when it is made and whenever a packet needs it, no more than once in [`RETRY_MS`].
    fn ask_for_port(&mut self, tables: &Tables, index: u32, now_ms: u32, frames: &mut Frames) {
        let record = &self.records[index as usize];
        let is_bridge = matches!(tables.interface(record.interface).kind, InterfaceKind::Bridge);
        let is_due = now_ms.wrapping_sub(record.due_ms) as i32 >= 0;
        if record.state == State::Static && record.port.is_none() && is_bridge && is_due {
            self.ask(tables, index, now_ms, frames);
        }
    }

    fn ask(&mut self, tables: &Tables, index: u32, now_ms: u32, frames: &mut Frames) {
        let record = &mut self.records[index as usize];
        if frames.is_full() {
            // It stays due, and this was no try.
            record.due_ms = now_ms;
            return;
        }
        let interface = tables.interface(record.interface);
        record.tries = record.tries.saturating_add(1);
        record.due_ms = now_ms.wrapping_add(RETRY_MS);
        let probing = record.state == State::Probing && record.port.is_some();
        let destination = if probing { record.mac } else { MacAddress::BROADCAST };
        let header = EthernetHeader { destination, source: interface.mac, ether_type: U16::new(TYPE_ARP) };
        let request = ArpPacket::new(
            OPERATION_REQUEST,
            interface.mac,
            interface.address,
            if probing { record.mac } else { MacAddress::default() },
            record.address,
        );
        let port = match interface.kind {
            InterfaceKind::Underlay(port) => Some(port),
            _ if probing => record.port,
            _ => None,
        };
        let mut frame = Frame { interface: record.interface, port, bytes: [0; FRAME_LENGTH] };
        copy_into(&mut frame.bytes, 0, &header);
        copy_into(&mut frame.bytes, ethernet::HEADER_LENGTH, &request);
        // There is room, as was seen above.
        let _ = frames.try_push(frame);
    }

    fn release(&mut self, index: u32) {
        let record = self.records[index as usize];
        self.neighbours.unlink(record.interface, record.address);
        let epoch = self.draw_epoch();
        self.records[index as usize] = FREE;
        self.neighbours.write(index, &Adjacency { epoch, ..Adjacency::FREE });
        self.free.push(index);
    }

    /// Forgets stations that have been silent for the ageing time; looked at once a second.
    fn age_stations(&mut self, tables: &Tables, now_ms: u32) {
        let Some(bridge) = &tables.bridge else { return };
        if now_ms.wrapping_sub(self.station_sweep_ms) < 1_000 {
            return;
        }
        self.station_sweep_ms = now_ms;
        let silent: ArrayVec<MacAddress, SWEEP> = self
            .stations
            .stations()
            .filter(|station| !station.is_static && now_ms.wrapping_sub(station.heard_ms) > bridge.ageing_ms)
            .map(|station| station.mac)
            .take(SWEEP)
            .collect();
        for mac in silent {
            self.stations.forget(mac);
        }
    }
}

/// Whether packets routed by `route` may use the record as their next hop.
fn leads_to(route: &Route, record: &Record) -> bool {
    route.interface == record.interface
        && match route.via {
            Some(via) => via == record.address,
            None => route.prefix.contains(record.address),
        }
}

fn tunnel_adjacency(
    tables: &Tables,
    overlay: &OverlayTable,
    record: &Record,
    remote: u32,
    outer: &Adjacency,
) -> Adjacency {
    let mut ip = Ipv4Header::new_zeroed();
    ip.version_and_length = 0x45;
    ip.time_to_live = 64;
    ip.protocol = PROTOCOL_UDP;
    ip.source = overlay.local.to_be_bytes();
    ip.destination = remote.to_be_bytes();
    let mut udp = UdpHeader::new_zeroed();
    udp.destination_port = U16::new(overlay.udp_port);
    let inner =
        EthernetHeader { destination: record.mac, source: overlay.mac, ether_type: U16::new(TYPE_IPV4) };
    let mut adjacency = Adjacency {
        epoch: record.epoch,
        kind: KIND_VXLAN,
        interface: record.interface,
        port: outer.port,
        mtu: tables.interface(record.interface).mtu,
        header_length: TEMPLATE_LENGTH as u16,
        address: record.address,
        remote,
        outer_sum: checksum::sum(ip.as_bytes(), 0) as u32,
        udp_checksum: u8::from(overlay.send_udp_checksum),
        ..Adjacency::FREE
    };
    adjacency.template[..14].copy_from_slice(&outer.template[..14]);
    copy_into(&mut adjacency.template, 14, &ip);
    copy_into(&mut adjacency.template, 34, &udp);
    copy_into(&mut adjacency.template, 42, &VxlanHeader::new(overlay.vni));
    copy_into(&mut adjacency.template, 50, &inner);
    adjacency
}

fn copy_into<T: IntoBytes + Immutable>(bytes: &mut [u8], at: usize, value: &T) {
    if let Some(place) = bytes.get_mut(at..) {
        let _ = value.write_to_prefix(place);
    }
}
