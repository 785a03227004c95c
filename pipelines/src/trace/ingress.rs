//! Where a packet comes in, and what the data path reads in its bytes there.

use core::net::Ipv4Addr;
use core::str::FromStr;

use engine::batch::{Batch, Disposition, PortId};
use engine::pool::MemoryPool;
use engine::wire::checksum;
use engine::wire::ethernet::{EthernetHeader, MacAddress, TYPE_IPV4};
use engine::wire::icmp::{IcmpHeader, TYPE_ECHO_REQUEST};
use engine::wire::ipv4::{FLAG_DONT_FRAGMENT, HEADER_LENGTH, Ipv4Header, PROTOCOL_UDP};
use engine::wire::tcp::TcpHeader;
use engine::wire::udp::UdpHeader;
use engine::wire::vxlan::VxlanHeader;
use zerocopy::network_endian::U16;
use zerocopy::{FromZeros, IntoBytes};

use super::grammar::{PacketSpec, Transport};
use super::{Ingress, TraceError, json};
use crate::drop_reason::DropReason;
use crate::flow::Flows;
use crate::meta::Meta;
use crate::replay::HOST;
use crate::stage::{parse, route_lookup, vxlan_decap};
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, HOST_PORT, InterfaceId, InterfaceKind};

/// An interface that no configuration has: that of packets that come from nowhere it knows.
const ELSEWHERE: InterfaceId = InterfaceId::MAX;
/// A station that is not the gateway.
const STATION: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 1]);

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

/// How a packet arrives.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// None: from nowhere that the configuration knows.
    pub(super) interface: Option<InterfaceId>,
    /// The port, where that is known.
    pub(super) port: Option<PortId>,
    /// The tunnel's VNI and other end, where that is known.
    tunnel: Option<(u32, Option<u32>)>,
    /// For another station of the bridge.
    bridged: bool,
    derived: bool,
}

impl Arrival {
    fn at(interface: InterfaceId, port: Option<PortId>) -> Self {
        Self { interface: Some(interface), port, tunnel: None, bridged: false, derived: false }
    }

    /// Where the packet comes in: as it was said, else by the way that answers to it would take.
    pub(super) fn find(
        tables: &Tables,
        packet: &PacketSpec,
        ingress: Option<&Ingress>,
    ) -> Result<Self, TraceError> {
        let mut arrival = match ingress {
            Some(Ingress::Port(name)) => at_port(tables, name)?,
            Some(Ingress::Tunnel(vni, remote)) => through_tunnel(tables, *vni, Some((*remote).into()))
                .ok_or_else(|| {
                    TraceError::Ingress(
                        "--via: the configuration has no [overlay], so nothing comes through a tunnel".into(),
                    )
                })?,
            None => Self { derived: true, ..by_the_way_back(tables, packet.source.into()) },
        };
        // A station sends to another one of its network by its MAC, and to all else by the gateway's.
        let bridge = tables.bridge.as_ref().map(|bridge| bridge.interface);
        let route = tables.routes.lookup(packet.destination.into());
        arrival.bridged = bridge.is_some()
            && arrival.interface == bridge
            && route.is_some_and(|route| Some(route.interface) == bridge && route.via.is_none());
        Ok(arrival)
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

    /// What `parse` and `vxlan_decap` make of the packet's bytes; else the code of the reason they drop it for.
    pub(super) fn parse(self, tables: &Tables, packet: &PacketSpec, flows: &Flows) -> Result<Meta, u16> {
        let members = tables.bridge.as_ref().map_or(&[][..], |bridge| &bridge.members);
        let port = match self.interface {
            Some(interface) if interface != HOST_INTERFACE => {
                self.port.or_else(|| members.first().copied()).unwrap_or(HOST_PORT)
            }
            _ => HOST_PORT,
        };
        let mut batch = Batch::<Meta>::new();
        let arrived = MemoryPool::new(1).packet(port, &self.frame(tables, packet, port));
        // One headers' length of bytes fits into a buffer, and one packet into a batch.
        if arrived.and_then(|packet| batch.push(packet, 0).ok()).is_none() {
            return Err(DropReason::EthernetTruncated.code());
        }
        parse::run(&mut batch, tables, flows);
        vxlan_decap::run(&mut batch, tables);
        if let Disposition::Drop(code) = batch.dispositions[0] {
            return Err(code);
        }
        // The bytes are headers alone; the length is what the packet says.
        let mut meta = Meta { ip_length: packet.length, ..batch.meta[0] };
        if self.interface.is_none() {
            meta.interface = ELSEWHERE;
        }
        Ok(meta)
    }

    fn frame(self, tables: &Tables, packet: &PacketSpec, port: PortId) -> Vec<u8> {
        let own = tables.port(port).map_or_else(MacAddress::default, |record| record.mac);
        let ip = ip_packet(packet);
        let Some(((vni, remote), overlay)) = self.tunnel.zip(tables.overlay.as_ref()) else {
            let other = MacAddress([0x02, 0, 0, 0, 0, 2]);
            return ethernet(if self.bridged { other } else { own }, &ip);
        };
        let inner = ethernet(overlay.mac, &ip);
        let mut udp = UdpHeader::new_zeroed();
        udp.destination_port = U16::new(overlay.udp_port);
        let length = size_of::<UdpHeader>() + size_of::<VxlanHeader>() + inner.len();
        udp.length = U16::new(length as u16);
        let payload = [udp.as_bytes(), VxlanHeader::new(vni).as_bytes(), &inner].concat();
        let remote = remote.unwrap_or_default().to_be_bytes();
        let outer = Ipv4Header {
            protocol: PROTOCOL_UDP,
            source: remote,
            destination: overlay.local.to_be_bytes(),
            ..Ipv4Header::new_zeroed()
        };
        ethernet(own, &finish_ip(outer, 64, &payload))
    }
}

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
    Some(Arrival { tunnel: Some((vni, remote)), ..Arrival::at(overlay.interface, Some(port)) })
}

/// From where a packet of `source` comes: from where answers to it would go. From the host's own stack if the address is
/// the node's.
fn by_the_way_back(tables: &Tables, source: u32) -> Arrival {
    let nowhere = Arrival { interface: None, ..Arrival::at(ELSEWHERE, None) };
    let Some((interface, next_hop)) = route_lookup::way_out(tables, source) else {
        // Nothing checks the way back, so it may still come: by the first underlay, if there is one.
        let underlay = tables.ports.iter().position(|port| !port.bridged);
        return underlay
            .map_or(nowhere, |port| Arrival::at(tables.ports[port].interface, Some(port as PortId)));
    };
    match tables.interface(interface).kind {
        InterfaceKind::Host | InterfaceKind::Bridge => {
            Arrival::at(interface, station_port(tables, interface, source))
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

/// The bridge's port that an address is behind, where static entries tell.
pub(super) fn station_port(tables: &Tables, interface: InterfaceId, address: u32) -> Option<PortId> {
    let mac = tables.neighbours.get(&(interface, address))?;
    let stations = &tables.bridge.as_ref().filter(|bridge| bridge.interface == interface)?.stations;
    stations.iter().find(|station| station.0 == *mac).map(|station| station.1)
}

fn ethernet(destination: MacAddress, payload: &[u8]) -> Vec<u8> {
    let header = EthernetHeader { destination, source: STATION, ether_type: U16::new(TYPE_IPV4) };
    [header.as_bytes(), payload].concat()
}

fn ip_packet(packet: &PacketSpec) -> Vec<u8> {
    let header = Ipv4Header {
        protocol: packet.transport.number(),
        fragment: U16::new(if packet.dont_fragment { FLAG_DONT_FRAGMENT } else { 0 }),
        source: packet.source.octets(),
        destination: packet.destination.octets(),
        ..Ipv4Header::new_zeroed()
    };
    finish_ip(header, packet.time_to_live, &transport(packet.transport))
}

fn finish_ip(header: Ipv4Header, time_to_live: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header {
        version_and_length: 0x45,
        total_length: U16::new((HEADER_LENGTH + payload.len()) as u16),
        time_to_live,
        ..header
    };
    header.checksum = U16::new(checksum::checksum(header.as_bytes()));
    [header.as_bytes(), payload].concat()
}

/// The transport header. What the data path does not check (its sums) is left zero.
fn transport(transport: Transport) -> Vec<u8> {
    let ports = transport.ports().unwrap_or_default();
    match transport {
        Transport::Tcp(_, _, flags) => {
            let mut header = TcpHeader::new_zeroed();
            (header.source_port, header.destination_port) = (U16::new(ports.0), U16::new(ports.1));
            (header.data_offset, header.flags) = (0x50, flags);
            header.as_bytes().to_vec()
        }
        Transport::Udp(..) => {
            let mut header = UdpHeader::new_zeroed();
            (header.source_port, header.destination_port) = (U16::new(ports.0), U16::new(ports.1));
            header.length = U16::new(size_of::<UdpHeader>() as u16);
            header.as_bytes().to_vec()
        }
        Transport::Echo(identifier) => {
            let mut header = IcmpHeader::new_zeroed();
            (header.message_type, header.identifier) = (TYPE_ECHO_REQUEST, U16::new(identifier));
            header.as_bytes().to_vec()
        }
        Transport::Sctp(..) | Transport::Gre => {
            let mut bytes = vec![0; transport.header_length()];
            if transport.ports().is_some() {
                bytes[..2].copy_from_slice(&ports.0.to_be_bytes());
                bytes[2..4].copy_from_slice(&ports.1.to_be_bytes());
            }
            bytes
        }
    }
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
            assert_eq!(text.parse(), Ok(Ingress::Tunnel(1, remote)), "{text}");
        }
        for text in ["", "1", "16777216@192.168.0.22", "1@192.168.0", "@1.2.3.4", "flannel.1"] {
            let error = text.parse::<Ingress>().unwrap_err();
            assert!(error.contains("as in 1@192.168.0.22"), "{error}");
        }
    }
}
