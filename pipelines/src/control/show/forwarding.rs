//! Routes, next hops, stations.

use core::net::Ipv4Addr;

use engine::wire::ethernet::MacAddress;
use serde_json::{Value, json};

use super::Table;
use crate::control::view::View;
use crate::table::Tables;
use crate::table::interface::HOST_INTERFACE;
use crate::table::neighbour::{Adjacency, KIND_ETHERNET, KIND_FREE, KIND_HOST, KIND_INCOMPLETE, KIND_VXLAN};

const ROUTE_COLUMNS: &[(&str, &str)] =
    &[("destination", "destination"), ("via", "via"), ("interface", "interface"), ("source", "source")];

const NEIGHBOUR_COLUMNS: &[(&str, &str)] = &[
    ("interface", "interface"),
    ("address", "address"),
    ("state", "state"),
    ("mac", "mac"),
    ("port", "port"),
    ("remote", "remote"),
    ("mtu", "mtu"),
];

const FDB_COLUMNS: &[(&str, &str)] = &[
    ("interface", "interface"),
    ("mac", "mac"),
    ("port", "port"),
    ("remote", "remote"),
    ("kind", "kind"),
    ("idle s", "idle_s"),
];

fn address(number: u32) -> String {
    Ipv4Addr::from(number).to_string()
}

fn port_name(tables: &Tables, port: u16) -> Value {
    tables.port(port).map_or(Value::Null, |record| json!(record.name))
}

pub(super) fn routes(view: &View) -> Table {
    let tables = view.tables();
    let rows = tables.routes.routes().iter().map(|route| {
        json!({
            "destination": route.prefix.to_string(),
            "via": route.via.map(address),
            "interface": tables.interface(route.interface).name,
            "source": route.source.name(),
        })
    });
    Table::new(ROUTE_COLUMNS, rows.collect())
}

pub(super) fn neighbours(view: &View) -> Table {
    let tables = view.tables();
    let rows = view.neighbours.iter().map(|(_, adjacency)| {
        let is_static = tables.neighbours.contains_key(&(adjacency.interface, adjacency.address));
        let has_port = matches!(adjacency.kind, KIND_ETHERNET | KIND_VXLAN);
        let port = if has_port { port_name(&tables, adjacency.port) } else { Value::Null };
        json!({
            "interface": tables.interface(adjacency.interface).name,
            "address": if adjacency.interface == HOST_INTERFACE { None } else { Some(address(adjacency.address)) },
            "state": state(&adjacency, is_static),
            "mac": next_mac(&adjacency).map(|mac| mac.to_string()),
            "port": port,
            "remote": (adjacency.kind == KIND_VXLAN).then(|| address(adjacency.remote)),
            "mtu": adjacency.is_usable().then_some(adjacency.mtu),
        })
    });
    Table::new(NEIGHBOUR_COLUMNS, rows.collect())
}

fn state(adjacency: &Adjacency, is_static: bool) -> &'static str {
    match adjacency.kind {
        KIND_FREE => "free",
        // A tunnel whose outer next hop has not answered yet.
        KIND_INCOMPLETE if is_static => "static, unresolved",
        KIND_INCOMPLETE => "incomplete",
        KIND_HOST => "host",
        _ if is_static => "static",
        _ => "learned",
    }
}

/// The MAC that packets to a next hop carry: the last Ethernet header's in front of the IP packet.
fn next_mac(adjacency: &Adjacency) -> Option<MacAddress> {
    if !matches!(adjacency.kind, KIND_ETHERNET | KIND_VXLAN | KIND_HOST) {
        return None;
    }
    let length = usize::from(adjacency.header_length);
    let start = length.checked_sub(engine::wire::ethernet::HEADER_LENGTH)?;
    adjacency.template.get(start..)?.first_chunk::<6>().map(|bytes| MacAddress(*bytes))
}

pub(super) fn fdb(view: &View) -> Table {
    let tables = view.tables();
    let now_ms = view.clock.now().millis();
    let mut rows = Vec::new();
    if let Some(bridge) = &tables.bridge {
        let name = &tables.interface(bridge.interface).name;
        rows.extend(view.stations.stations().map(|station| {
            let idle_s = now_ms.wrapping_sub(station.heard_ms) / 1_000;
            json!({
                "interface": name,
                "mac": station.mac.to_string(),
                "port": port_name(&tables, station.port),
                "remote": null,
                "kind": if station.is_static { "static" } else { "learned" },
                "idle_s": (!station.is_static).then_some(idle_s),
            })
        }));
    }
    if let Some(overlay) = &tables.overlay {
        let name = &tables.interface(overlay.interface).name;
        rows.extend(overlay.fdb.iter().map(|(mac, remote)| {
            json!({
                "interface": name,
                "mac": mac.to_string(),
                "port": null,
                "remote": address(*remote),
                "kind": "static",
                "idle_s": null,
            })
        }));
    }
    // Both come from hashed tables: without this the order would differ from one look to the next.
    let key = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    rows.sort_by_key(|row| (key(row, "interface"), key(row, "mac")));
    Table::new(FDB_COLUMNS, rows)
}
