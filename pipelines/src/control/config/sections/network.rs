//! Sections about the networks around the gateway: `[[ports]]`, `[bridge]`, `[overlay]`, `[[routes]]`,
//! `[[neighbours]]`, `[[fdb]]`.

use core::ops::RangeInclusive;

use crate::control::config::draft::{Bridge, Fdb, InterfaceReference, Neighbour, Overlay, Port, Route};
use crate::control::config::model::PortRole;
use crate::control::config::notes::At;
use crate::control::config::reader::Table;
use crate::control::config::values::{Device, InterfaceText};

/// From what every host takes (RFC 791 section 3.1) to a frame of 2,000 bytes (the envelope frame of IEEE 802.3as),
/// which lies whole in a buffer of 2,048 with room to spare for tags.
const MTU: RangeInclusive<u64> = 576..=1_986;
const DEFAULT_UNDERLAY_MTU: u16 = 1_500;
/// An Ethernet's 1,500 less the tunnel's 50.
const DEFAULT_INNER_MTU: u16 = 1_450;

fn name(table: &Table<'_>, default: Option<&str>) -> Option<At<String>> {
    let name = match default {
        Some(default) => table.with_default("name", InterfaceText(default.to_owned())),
        None => table.required("name", "\"eth0\""),
    };
    name.map(|name| name.map(|text| text.0))
}

fn reference(table: &Table<'_>, key: &'static str, example: &str) -> Option<At<String>> {
    table.required::<InterfaceText>(key, example).map(|name| name.map(|text| text.0))
}

fn on(table: &Table<'_>) -> InterfaceReference {
    InterfaceReference { name: reference(table, "interface", "\"eth0\""), interface: None }
}

pub(super) fn port(table: &Table<'_>) -> Port {
    let role = table.required("role", "\"pod\"");
    let underlay = role.is_none_or(|role| role.value == PortRole::Underlay);
    let port = Port {
        name: name(table, None),
        role,
        device: table.optional::<Device>("device").map(|device| device.map(|device| device.0)),
        mac: table.optional("mac"),
        mtu: if underlay {
            table.integer("mtu", MTU, DEFAULT_UNDERLAY_MTU)
        } else {
            table.optional_integer("mtu", MTU)
        },
        address: table.optional("address"),
    };
    if port.has_role(PortRole::Underlay) {
        if !table.has("mac") {
            table.missing(
                "mac",
                "an underlay port needs its own: add it, as in `mac = \"02:00:c0:a8:00:15\"`",
            );
        }
        if !table.has("address") {
            table.missing(
                "address",
                "an underlay port needs one: add it, as in `address = \"192.168.0.21/24\"`",
            );
        }
    }
    if port.has_role(PortRole::Pod) {
        let pod = "a pod port has none of its own: remove it (the bridge's are in `[bridge]`), or use role \"underlay\"";
        if let Some(mac) = port.mac {
            table.notes().error(mac.offset, "a pod port has a `mac`", pod);
        }
        if let Some(address) = port.address {
            table.notes().error(address.offset, "a pod port has an `address`", pod);
        }
    }
    port
}

pub(super) fn bridge(table: &Table<'_>) -> Bridge {
    Bridge {
        name: name(table, Some("docker0")),
        address: table.required("address", "\"172.30.76.1/24\""),
        mac: table.required("mac", "\"02:42:67:05:b5:30\""),
        mtu: table.integer("mtu", MTU, DEFAULT_INNER_MTU),
        // IEEE 802.1D-2004 table 7-5 ends there; less than its 10 s serves tests.
        ageing_s: table.integer("ageing_s", 1..=1_000_000, 300),
    }
}

pub(super) fn overlay(table: &Table<'_>) -> Overlay {
    let overlay = Overlay {
        name: name(table, Some("flannel.1")),
        underlay: reference(table, "underlay", "\"eth0\""),
        underlay_port: None,
        // 24 bits (RFC 7348 section 5); flannel begins at 1.
        vni: table.integer("vni", 1..=16_777_215, 1),
        udp_port: table.integer("udp_port", 1..=65_535, 8_472),
        address: table.required("address", "\"172.30.76.0\""),
        mac: table.required("mac", "\"8a:22:81:5e:d8:b7\""),
        mtu: table.integer("mtu", MTU, DEFAULT_INNER_MTU),
        pod_network: table.optional("pod_network"),
        masquerade_egress: table.with_default("masquerade_egress", false),
        send_udp_checksum: table.with_default("send_udp_checksum", false),
    };
    if let Some(egress) = overlay.masquerade_egress.filter(|egress| egress.value)
        && !table.has("pod_network")
    {
        table.notes().error(
            egress.offset,
            "`masquerade_egress` is true, but there is no `pod_network` to leave",
            "add the prefix of all pods, as in `pod_network = \"172.30.0.0/16\"`",
        );
    }
    if let (Some(network), Some(address)) = (overlay.pod_network, overlay.address)
        && !network.value.contains(u32::from(address.value))
    {
        table.notes().warning(
            address.offset,
            format!("the VTEP's address {} is outside the pod network {}", address.value, network.value),
            "use the base of this node's subnet, as flannel does",
        );
    }
    overlay
}

pub(super) fn route(table: &Table<'_>) -> Route {
    Route {
        destination: table.required("destination", "\"172.30.9.0/24\""),
        via: table.optional("via"),
        on: on(table),
    }
}

pub(super) fn neighbour(table: &Table<'_>) -> Neighbour {
    Neighbour {
        on: on(table),
        address: table.required("address", "\"172.30.9.0\""),
        mac: table.required("mac", "\"96:8f:2d:49:c5:31\""),
    }
}

pub(super) fn fdb(table: &Table<'_>) -> Fdb {
    Fdb {
        offset: table.offset(),
        on: on(table),
        mac: table.required("mac", "\"96:8f:2d:49:c5:31\""),
        remote: table.optional("remote"),
        port: table.optional::<InterfaceText>("port").map(|port| port.map(|text| text.0)),
        port_place: None,
        has_remote: table.has("remote"),
        has_port: table.has("port"),
    }
}
