//! Who answers the gateway's ARP requests in a replay: nobody listens to its output, so unresolved next hops would
//! swallow all that is sent to them.
//!
//! An address that a capture shows on the gateway's own links answers with the MAC it has there, from the first moment
//! on; any other with one made up from the address. A station, once asked by its MAC, is there for ever.

use std::collections::HashMap;

use engine::batch::PortId;
use engine::port::pcap::{CaptureError, CaptureReader};
use engine::wire::arp::{ArpPacket, OPERATION_REPLY, OPERATION_REQUEST};
use engine::wire::ethernet::{EthernetHeader, MacAddress, TYPE_ARP, TYPE_IPV4};
use engine::wire::ipv4::Ipv4Header;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use super::options::{Place, PortFile};
use crate::neighbour_machine::FRAME_LENGTH;
use crate::table::Tables;
use crate::table::interface::InterfaceId;

/// Stations that are remembered at the most; the rest gets made-up MACs.
const STATIONS_MAX: usize = 1 << 16;

/// Stations by interface and address: MAC, and the port they were heard on.
#[derive(Default)]
pub(super) struct Stations {
    heard: HashMap<(InterfaceId, u32), (MacAddress, PortId)>,
}

impl Stations {
    /// The stations that the captures show. Reads them from beginning to end; what is no file (a pipe) can be read only
    /// once and is left out.
    pub(super) fn look_ahead(
        tables: &Tables,
        inputs: &[PortFile],
        places: &[Place],
    ) -> Result<Self, CaptureError> {
        let mut stations = Self::default();
        for (input, place) in inputs.iter().zip(places) {
            let is_file = std::fs::metadata(&input.path).is_ok_and(|metadata| metadata.is_file());
            let (Place::Port(port), true) = (place, is_file) else { continue };
            let mut reader = CaptureReader::open(&input.path)?;
            while let Some(record) = reader.next_record()? {
                if let Some((key, station)) = speaker(tables, *port, record.bytes)
                    && stations.heard.len() < STATIONS_MAX
                {
                    stations.heard.entry(key).or_insert(station);
                }
            }
        }
        Ok(stations)
    }

    /// A frame comes in: who sent it is where it says from now on.
    pub(super) fn observe(&mut self, tables: &Tables, port: PortId, frame: &[u8]) {
        if let Some((key, station)) = speaker(tables, port, frame)
            && (self.heard.len() < STATIONS_MAX || self.heard.contains_key(&key))
        {
            self.heard.insert(key, station);
        }
    }

    /// The answer to `frame`, which the gateway sent by `port`, if it is an ARP request of its own and whom it asks for
    /// is behind that port.
    pub(super) fn answer(&self, tables: &Tables, port: PortId, frame: &[u8]) -> Option<[u8; FRAME_LENGTH]> {
        let (header, arp) = arp(frame)?;
        let own = tables.port(port)?.mac;
        if arp.operation.get() != OPERATION_REQUEST || arp.sender_mac != own {
            return None;
        }
        let asked = u32::from_be_bytes(arp.target_address);
        let (mac, behind) = if header.destination.is_multicast() {
            self.locate(tables, port, asked)
        } else {
            (header.destination, port)
        };
        if behind != port {
            return None;
        }
        let reply_header = EthernetHeader { destination: own, source: mac, ether_type: U16::new(TYPE_ARP) };
        let reply = ArpPacket::new(OPERATION_REPLY, mac, asked, own, u32::from_be_bytes(arp.sender_address));
        let mut bytes = [0; FRAME_LENGTH];
        reply_header.write_to_prefix(&mut bytes).ok()?;
        reply.write_to_suffix(&mut bytes).ok()?;
        Some(bytes)
    }

    /// MAC and port of an address that is asked for at all ports of the interface that `port` belongs to.
    fn locate(&self, tables: &Tables, port: PortId, address: u32) -> (MacAddress, PortId) {
        let interface = tables.interface_of(port);
        let heard = self.heard.get(&(interface, address));
        // The configuration's word on a MAC is final; the gateway would believe no other.
        let mac = match (tables.neighbours.get(&(interface, address)), heard) {
            (Some(mac), _) | (None, Some((mac, _))) => *mac,
            (None, None) => made_up(address),
        };
        let Some(bridge) = tables.bridge.as_ref().filter(|bridge| bridge.interface == interface) else {
            return (mac, port);
        };
        let fixed = bridge.stations.iter().find(|(station, _)| *station == mac).map(|(_, port)| *port);
        let spread = || bridge.members.get(address as usize % bridge.members.len().max(1)).copied();
        (mac, fixed.or(heard.map(|(_, port)| *port)).or_else(spread).unwrap_or(port))
    }
}

/// The made-up MAC of an address: 02:00 (locally administered, IEEE 802, clause 8.4) and the address.
fn made_up(address: u32) -> MacAddress {
    let [a, b, c, d] = address.to_be_bytes();
    MacAddress([0x02, 0, a, b, c, d])
}

fn arp(frame: &[u8]) -> Option<(&EthernetHeader, &ArpPacket)> {
    let (header, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let (arp, _) = ArpPacket::ref_from_prefix(rest).ok()?;
    (header.ether_type.get() == TYPE_ARP && arp.is_ethernet_ipv4()).then_some((header, arp))
}

/// Who sent a frame, if that is a station of the port's own link: ARP's sender, or the source of an IP packet whose
/// address is reached there directly.
fn speaker(
    tables: &Tables,
    port: PortId,
    frame: &[u8],
) -> Option<((InterfaceId, u32), (MacAddress, PortId))> {
    let (header, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let (mac, address) = match header.ether_type.get() {
        TYPE_ARP => {
            let (_, arp) = arp(frame)?;
            (arp.sender_mac, u32::from_be_bytes(arp.sender_address))
        }
        TYPE_IPV4 => (header.source, Ipv4Header::ref_from_prefix(rest).ok()?.0.source_address()),
        _ => return None,
    };
    let interface = tables.interface_of(port);
    let is_direct = tables
        .routes
        .lookup(address)
        .is_some_and(|route| route.interface == interface && route.via.is_none());
    let is_own = tables.port(port).is_none_or(|record| record.mac == mac);
    (mac.is_unicast() && is_direct && !is_own).then_some(((interface, address), (mac, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::build::{Builder, HostFacts};
    use crate::control::config;

    const ETH0: PortId = 0;
    const OWN: &str = "02:00:c0:a8:00:15";
    const BRIDGE: &str = "02:42:67:05:b5:30";

    fn tables() -> Tables {
        let text = include_str!("../../../configs/reference-cluster.toml").to_owned()
            + "[[neighbours]]\ninterface = \"docker0\"\naddress = \"172.30.76.7\"\nmac = \"02:00:00:00:00:77\"\n"
            + "[[fdb]]\ninterface = \"docker0\"\nmac = \"02:00:00:00:00:77\"\nport = \"data-product-1\"\n";
        let loaded = config::parse(&text, "test.toml").unwrap();
        Builder::new(1, HostFacts::default()).build(&loaded.configuration).unwrap()
    }

    fn mac(text: &str) -> MacAddress {
        text.parse().unwrap()
    }

    fn address(text: &str) -> u32 {
        text.parse::<core::net::Ipv4Addr>().unwrap().into()
    }

    fn arp_frame(operation: u16, from: MacAddress, sender: &str, to: MacAddress, target: &str) -> Vec<u8> {
        let header = EthernetHeader { destination: to, source: from, ether_type: U16::new(TYPE_ARP) };
        let arp = ArpPacket::new(operation, from, address(sender), MacAddress::default(), address(target));
        [header.as_bytes(), arp.as_bytes()].concat()
    }

    fn ask(port_mac: &str, target: &str) -> Vec<u8> {
        arp_frame(OPERATION_REQUEST, mac(port_mac), "192.168.0.21", MacAddress::BROADCAST, target)
    }

    /// MAC that answers, checked against the frame's other fields.
    fn answered(stations: &Stations, tables: &Tables, port: PortId, request: &[u8]) -> Option<String> {
        let bytes = stations.answer(tables, port, request)?;
        let (_, asked) = arp(request).unwrap();
        let (header, reply) = arp(&bytes).unwrap();
        assert_eq!((header.destination, reply.target_mac), (asked.sender_mac, asked.sender_mac));
        assert_eq!(
            (reply.sender_address, reply.target_address),
            (asked.target_address, asked.sender_address)
        );
        assert_eq!((header.source, reply.operation.get()), (reply.sender_mac, OPERATION_REPLY));
        Some(header.source.to_string())
    }

    #[test]
    fn unknown_stations_are_made_up_on_one_port() {
        let (tables, stations) = (tables(), Stations::default());
        let answer = answered(&stations, &tables, ETH0, &ask(OWN, "192.168.0.1"));
        assert_eq!(answer.as_deref(), Some("02:00:c0:a8:00:01"));
        let request = ask(BRIDGE, "172.30.76.9");
        let answers: Vec<String> =
            (1..=5).filter_map(|port| answered(&stations, &tables, port, &request)).collect();
        assert_eq!(answers, ["02:00:ac:1e:4c:09"]);
        let request = ask(BRIDGE, "172.30.76.7");
        let ports: Vec<PortId> =
            (1..=5).filter(|port| answered(&stations, &tables, *port, &request).is_some()).collect();
        assert_eq!(ports, [3], "as [[fdb]] has it");
        assert_eq!(answered(&stations, &tables, 3, &request).as_deref(), Some("02:00:00:00:00:77"));
    }

    #[test]
    fn stations_that_the_capture_shows_answer_as_themselves() {
        let (tables, mut stations) = (tables(), Stations::default());
        let router = mac("02:00:00:00:00:01");
        stations.observe(
            &tables,
            ETH0,
            &arp_frame(OPERATION_REPLY, router, "192.168.0.1", mac(OWN), "192.168.0.21"),
        );
        stations.observe(
            &tables,
            5,
            &arp_frame(OPERATION_REQUEST, mac("02:00:00:00:00:05"), "172.30.76.9", router, "172.30.76.1"),
        );
        assert_eq!(answered(&stations, &tables, ETH0, &ask(OWN, "192.168.0.1")), Some(router.to_string()));
        let ports: Vec<PortId> = (1..=5)
            .filter(|port| answered(&stations, &tables, *port, &ask(BRIDGE, "172.30.76.9")).is_some())
            .collect();
        assert_eq!(ports, [5]);
        let probe =
            arp_frame(OPERATION_REQUEST, mac(BRIDGE), "172.30.76.1", mac("02:00:00:00:00:99"), "172.30.76.9");
        assert_eq!(answered(&stations, &tables, 2, &probe).as_deref(), Some("02:00:00:00:00:99"));
    }

    #[test]
    fn only_stations_of_the_link_are_noted_and_only_the_gateway_is_answered() {
        let (tables, mut stations) = (tables(), Stations::default());
        let station = mac("02:00:00:00:00:01");
        for sender in ["8.8.8.8", "172.30.76.9", "192.168.0.21", "0.0.0.0"] {
            stations.observe(
                &tables,
                ETH0,
                &arp_frame(OPERATION_REQUEST, station, sender, station, "192.168.0.1"),
            );
        }
        stations.observe(&tables, ETH0, &ask(OWN, "192.168.0.1"));
        stations.observe(&tables, ETH0, &[0; 20]);
        assert!(stations.heard.is_empty(), "{:?}", stations.heard);
        let others =
            arp_frame(OPERATION_REQUEST, station, "172.30.76.9", MacAddress::BROADCAST, "172.30.76.3");
        assert_eq!(stations.answer(&tables, 3, &others), None, "a pod asks, not the gateway");
        let reply = arp_frame(OPERATION_REPLY, mac(OWN), "192.168.0.21", station, "192.168.0.1");
        assert_eq!(stations.answer(&tables, ETH0, &reply), None);
        assert_eq!(stations.answer(&tables, ETH0, &[0; 13]), None);
    }
}
