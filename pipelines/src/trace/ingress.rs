//! Where a packet comes in, and what the data path reads in its bytes there.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;

use engine::batch::{Batch, Disposition, PortId};
use engine::packet::Packet;
use engine::pool::MemoryPool;
use engine::wire::ethernet::MacAddress;

use super::captured::{Asked, Captured};
use super::packet::PacketSpec;
use super::{Ingress, Scene, TraceError, headers, json};
use crate::drop_reason::DropReason;
use crate::flow::Flows;
use crate::meta::Meta;
use crate::replay::HOST;
use crate::stage::{parse, route_lookup, vxlan_decap};
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, HOST_PORT, InterfaceId, InterfaceKind};
use crate::table::neighbour::KIND_ETHERNET;

/// An interface that no configuration has: that of packets that come from nowhere it knows.
const ELSEWHERE: InterfaceId = InterfaceId::MAX;
/// A MAC that is not the gateway's, of a station of the bridge.
const OTHER_STATION: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 2]);

impl FromStr for Ingress {
    type Err = String;

    /// The tunnel as `VNI@REMOTE`; a comma, colon, slash, hyphen or space will do between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once(['@', ',', ':', '/', '-', ' ']);
        let parsed = parts.and_then(|(vni, remote)| {
            Some((vni.trim().parse().ok()?, remote.trim().parse::<Ipv4Addr>().ok()?))
        });
        match parsed {
            Some((vni, remote)) if vni < 1 << 24 => Ok(Self::Tunnel(vni, remote)),
            _ => Err(format!(
                "`{text}` is no tunnel; expected a VNI below 2^24, `@` and the other end's IPv4 address, as in \
                 1@192.168.0.22"
            )),
        }
    }
}

impl fmt::Display for Ingress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(name) => formatter.write_str(name),
            Self::Tunnel(vni, remote) => write!(formatter, "{vni}@{remote}"),
        }
    }
}

/// How the frame is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As stations send it there.
    Station,
    /// In a tunnel packet.
    Tunnelled,
    /// As it was captured, MACs and all.
    Captured,
}

/// What the data path reads in a packet's bytes.
pub(super) struct Parsed {
    pub(super) meta: Meta,
    pub(super) packet: Packet,
}

/// How a packet arrives.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// None: from nowhere that the configuration knows.
    pub(super) interface: Option<InterfaceId>,
    /// The port, where that is known.
    pub(super) port: Option<PortId>,
    /// The tunnel's VNI and other end, where that is known.
    tunnel: Option<(u32, Option<u32>)>,
    form: Form,
    /// For another station of the bridge.
    bridged: bool,
    derived: bool,
}

impl Arrival {
    fn at(interface: InterfaceId, port: Option<PortId>) -> Self {
        let form = Form::Station;
        Self { interface: Some(interface), port, tunnel: None, form, bridged: false, derived: false }
    }

    /// Where the packet comes in: as it was said, else by the way that answers to it would take. Gives what is asked about
    /// too: of a tunnel's datagram the packet inside.
    pub(super) fn find(
        scene: &Scene<'_>,
        asked: &Asked,
        ingress: Option<&Ingress>,
    ) -> Result<(Self, PacketSpec), TraceError> {
        let tables = scene.tables;
        let captured = asked.captured();
        let mut spec = *asked.spec();
        let mut arrival = match ingress {
            Some(Ingress::Port(name)) => at_port(tables, name)?,
            Some(Ingress::Tunnel(vni, remote)) => {
                let arrival = through_tunnel(tables, *vni, Some((*remote).into()));
                arrival.ok_or(TraceError::Ingress(NO_OVERLAY.to_owned()))?
            }
            None => Self { derived: true, ..derived(scene, asked) },
        };
        if matches!(ingress, Some(Ingress::Port(_)))
            && captured.is_some_and(|c| c.destination_mac().is_some())
        {
            arrival.form = Form::Captured;
        }
        if let Some(overlay) = &tables.overlay
            && arrival.interface == Some(overlay.underlay)
            && let Some(datagram) = captured.and_then(|captured| captured.datagram(overlay))
        {
            arrival.tunnel = Some((datagram.vni, Some(datagram.remote)));
            arrival.interface = Some(overlay.interface);
            spec = datagram.inner.unwrap_or(spec);
        }
        // A station sends to another one of its network by its MAC, and to all else by the gateway's.
        let bridge = tables.bridge.as_ref().map(|bridge| bridge.interface);
        let route = spec.addresses.v4().and_then(|(_, to)| tables.routes.lookup(to.into()));
        arrival.bridged = bridge.is_some()
            && arrival.interface == bridge
            && route.is_some_and(|route| Some(route.interface) == bridge && route.via.is_none());
        Ok((arrival, spec))
    }

    /// As the trace's JSON has it.
    pub(super) fn to_json(self, tables: &Tables) -> json::Ingress {
        let port = self.port.and_then(|port| tables.port(port));
        json::Ingress {
            interface: self.interface.map(|interface| tables.interface(interface).name.clone()),
            port: port.map(|port| port.name.clone()),
            vni: self.tunnel.map(|tunnel| tunnel.0),
            remote: self.tunnel.and_then(|tunnel| tunnel.1).map(Ipv4Addr::from),
            derived: self.derived,
        }
    }

    /// Whether the frame's MACs are those of where it was captured, which say nothing here.
    pub(super) fn replaces_macs(self, asked: &Asked) -> bool {
        self.form != Form::Captured && asked.captured().is_some_and(|c| c.destination_mac().is_some())
    }

    /// The MAC that the frame is for, if it is to be taken as it was captured.
    pub(super) fn destination_mac(self, asked: &Asked) -> Option<MacAddress> {
        asked.captured().filter(|_| self.form == Form::Captured)?.destination_mac()
    }

    /// What `parse` and `vxlan_decap` make of the packet's bytes; else the code of the reason they drop it for.
    pub(super) fn parse(self, tables: &Tables, asked: &Asked, flows: &Flows) -> Result<Parsed, u16> {
        let members = tables.bridge.as_ref().map_or(&[][..], |bridge| &bridge.members);
        let port = match self.interface {
            Some(interface) if interface != HOST_INTERFACE => {
                self.port.or_else(|| members.first().copied()).unwrap_or(HOST_PORT)
            }
            _ => HOST_PORT,
        };
        let mut batch = Batch::<Meta>::new();
        let arrived = MemoryPool::new(1).packet(port, &self.frame(tables, asked, port));
        // Bytes are bounded so that they fit into a buffer, and one packet fits into a batch.
        if arrived.and_then(|packet| batch.push(packet, 0).ok()).is_none() {
            return Err(DropReason::EthernetTruncated.code());
        }
        parse::run(&mut batch, tables, flows);
        vxlan_decap::run(&mut batch, tables);
        if let Disposition::Drop(code) = batch.dispositions[0] {
            return Err(code);
        }
        let mut meta = batch.meta[0];
        if let Asked::Said(spec) = asked {
            // The bytes are headers alone; the length is what the packet says.
            meta.ip_length = spec.length;
        }
        if self.interface.is_none() {
            meta.interface = ELSEWHERE;
        }
        let packet = batch.take(0).ok_or(DropReason::EthernetTruncated.code())?;
        Ok(Parsed { meta, packet })
    }

    fn frame(self, tables: &Tables, asked: &Asked, port: PortId) -> Vec<u8> {
        let own = tables.port(port).map_or_else(MacAddress::default, |record| record.mac);
        let tail = asked.tail();
        match (self.form, self.tunnel, tables.overlay.as_ref()) {
            (Form::Captured, ..) => asked.captured().and_then(Captured::as_captured).unwrap_or_default(),
            (Form::Tunnelled, Some((vni, remote)), Some(overlay)) => {
                headers::tunnelled(own, overlay, vni, remote.unwrap_or_default(), &tail)
            }
            _ => headers::frame(if self.bridged { OTHER_STATION } else { own }, &tail),
        }
    }
}

const NO_OVERLAY: &str = "--via: the configuration has no [overlay], so nothing comes through a tunnel";

fn at_port(tables: &Tables, name: &str) -> Result<Arrival, TraceError> {
    if let Some(port) = tables.ports.iter().position(|port| port.name == name) {
        return Ok(Arrival::at(tables.ports[port].interface, Some(port as PortId)));
    }
    if name == HOST {
        return Ok(Arrival::at(HOST_INTERFACE, None));
    }
    let known: Vec<&str> = tables.ports.iter().map(|port| port.name.as_str()).chain([HOST]).collect();
    Err(TraceError::Ingress(format!("--in: there is no port `{name}`; expected one of {}", known.join(", "))))
}

fn through_tunnel(tables: &Tables, vni: u32, remote: Option<u32>) -> Option<Arrival> {
    let overlay = tables.overlay.as_ref()?;
    let InterfaceKind::Underlay(port) = tables.interface(overlay.underlay).kind else { return None };
    let arrival = Arrival::at(overlay.interface, Some(port));
    Some(Arrival { tunnel: Some((vni, remote)), form: Form::Tunnelled, ..arrival })
}

/// Where nobody says: a tunnel's datagram by its underlay, a frame by the port whose MAC it is for, anything else by the
/// way back.
fn derived(scene: &Scene<'_>, asked: &Asked) -> Arrival {
    let tables = scene.tables;
    let back = by_the_way_back(scene, asked.spec().source());
    let Some(captured) = asked.captured() else { return back };
    let mac = captured.destination_mac();
    if let Some(overlay) = &tables.overlay
        && captured.datagram(overlay).is_some()
        && let InterfaceKind::Underlay(port) = tables.interface(overlay.underlay).kind
    {
        let is_for_port = tables.port(port).map(|record| record.mac) == mac;
        let form = if is_for_port { Form::Captured } else { Form::Station };
        return Arrival { form, ..Arrival::at(overlay.underlay, Some(port)) };
    }
    if back.interface == Some(HOST_INTERFACE) {
        return back;
    }
    let mut ports = tables.ports.iter().enumerate().filter(|(_, record)| Some(record.mac) == mac);
    let Some((port, record)) = ports.next() else { return back };
    let at = match back.interface {
        Some(interface) if interface == record.interface && !matches!(back.form, Form::Tunnelled) => back,
        // The bridge's ports share its MAC.
        _ => Arrival::at(record.interface, Some(port as PortId).filter(|_| ports.next().is_none())),
    };
    Arrival { form: Form::Captured, ..at }
}

/// From where a packet of `source` comes: from where answers to it would go. From the host's own stack if the address is
/// the node's.
fn by_the_way_back(scene: &Scene<'_>, source: IpAddr) -> Arrival {
    let tables = scene.tables;
    let nowhere = Arrival { interface: None, ..Arrival::at(ELSEWHERE, None) };
    let IpAddr::V4(source) = source else { return by_first_underlay(tables).unwrap_or(nowhere) };
    let source = source.into();
    let Some((interface, next_hop)) = route_lookup::way_out(tables, source) else {
        return by_first_underlay(tables).unwrap_or(nowhere);
    };
    match tables.interface(interface).kind {
        InterfaceKind::Host | InterfaceKind::Bridge => {
            Arrival::at(interface, station_port(scene, interface, source))
        }
        InterfaceKind::Underlay(port) => Arrival::at(interface, Some(port)),
        InterfaceKind::Overlay { .. } => {
            let mac = tables.neighbours.get(&(interface, next_hop));
            let overlay = tables.overlay.as_ref();
            let remote = mac.and_then(|mac| overlay?.fdb.get(mac).copied());
            overlay.and_then(|overlay| through_tunnel(tables, overlay.vni, remote)).unwrap_or(nowhere)
        }
    }
}

/// Without a route back: nothing checks that there is one, so a packet may still come by the first underlay, if any.
fn by_first_underlay(tables: &Tables) -> Option<Arrival> {
    let port = tables.ports.iter().position(|port| !port.bridged)?;
    Some(Arrival::at(tables.ports[port].interface, Some(port as PortId)))
}

/// The bridge's port that an address is behind, as far as that is known.
pub(super) fn station_port(scene: &Scene<'_>, interface: InterfaceId, address: u32) -> Option<PortId> {
    scene.tables.bridge.as_ref().filter(|bridge| bridge.interface == interface)?;
    port_of_station(scene, mac_of(scene, interface, address)?)
}

/// The bridge's port that a station is behind: as it was heard by a running gateway, or by a static entry.
pub(super) fn port_of_station(scene: &Scene<'_>, mac: MacAddress) -> Option<PortId> {
    if let Some(view) = scene.running {
        return view.stations.find(mac);
    }
    let stations = &scene.tables.bridge.as_ref()?.stations;
    stations.iter().find(|station| station.0 == mac).map(|station| station.1)
}

/// An address's MAC: by a static entry, or as a running gateway has learned it.
fn mac_of(scene: &Scene<'_>, interface: InterfaceId, address: u32) -> Option<MacAddress> {
    if let Some(mac) = scene.tables.neighbours.get(&(interface, address)) {
        return Some(*mac);
    }
    let neighbours = &scene.running?.neighbours;
    let adjacency = neighbours.read(neighbours.find(interface, address)?)?;
    let is_known = adjacency.kind == KIND_ETHERNET && adjacency.address == address;
    adjacency.template.first_chunk().copied().map(MacAddress).filter(|_| is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_read() {
        let remote = Ipv4Addr::new(192, 168, 0, 22);
        for text in
            ["1@192.168.0.22", "1,192.168.0.22", " 1:192.168.0.22", "1-192.168.0.22", "1 192.168.0.22"]
        {
            let tunnel = Ingress::Tunnel(1, remote);
            assert_eq!(text.parse(), Ok(tunnel.clone()), "{text}");
            assert_eq!(tunnel.to_string().parse(), Ok(tunnel));
        }
        for text in ["", "1", "16777216@192.168.0.22", "1@192.168.0", "@1.2.3.4", "flannel.1"] {
            let error = text.parse::<Ingress>().unwrap_err();
            assert!(error.contains("as in 1@192.168.0.22"), "{error}");
        }
    }
}
