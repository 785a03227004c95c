//! Tracked flows, asked of the workers that own them.

use core::net::Ipv4Addr;
use std::collections::HashMap;

use engine::table::flow::FlowKey;
use engine::wire::ipv4::{PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use serde_json::{Value, json};

use super::services::is_named;
use super::{Filter, Table};
use crate::control::view::{View, lock};
use crate::flow::{FLAG_ASSURED, FLAG_TRANSLATED, NO_BACKEND};
use crate::gateway::FlowReport;
use crate::stage::conntrack::STATE_REPLIED;
use crate::stage::tcp_state::TcpState;
use crate::table::Tables;

/// Flows that are listed when no limit is given.
const LIMIT: usize = 1_000;

const COLUMNS: &[(&str, &str)] = &[
    ("protocol", "protocol"),
    ("state", "state"),
    ("from", "source"),
    ("to", "destination"),
    ("answers from", "reply_source"),
    ("answers to", "reply_destination"),
    ("service", "service"),
    ("idle s", "idle_s"),
    ("expires s", "expires_in_s"),
    ("worker", "worker"),
];

/// Protocols by name; others by number.
const PROTOCOLS: [(u8, &str); 4] =
    [(PROTOCOL_TCP, "tcp"), (PROTOCOL_UDP, "udp"), (PROTOCOL_ICMP, "icmp"), (PROTOCOL_SCTP, "sctp")];

pub(super) fn conntrack(view: &View, filter: &Filter) -> Result<Table, String> {
    let protocol = filter.protocol.as_deref().map(protocol_number).transpose()?;
    let tables = view.tables();
    let services = services_by_slot(&tables);
    let is_wanted = |flow: &FlowReport| {
        let address = filter.address.map(u32::from);
        let ends = [&flow.original, &flow.reply];
        protocol.is_none_or(|protocol| flow.original.protocol == protocol)
            && address.is_none_or(|address| ends.iter().any(|key| has_address(key, address)))
            && filter.port.is_none_or(|port| ends.iter().any(|key| has_port(key, port)))
            && filter.service.as_deref().is_none_or(|wanted| {
                services.get(&flow.backend_slot).is_some_and(|title| is_named(title, wanted))
            })
    };
    let limit = filter.limit.unwrap_or(LIMIT);
    let found = lock(&view.questions).find(limit, is_wanted).map_err(|error| error.to_string())?;
    let rows = found.flows.iter().map(|(worker, flow)| row(*worker, flow, &services)).collect();
    Ok(Table { columns: COLUMNS, rows, truncated: found.truncated })
}

fn protocol_number(name: &str) -> Result<u8, String> {
    let known =
        PROTOCOLS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(number, _)| *number);
    known
        .or_else(|| name.parse().ok())
        .ok_or_else(|| format!("`{name}` is no protocol: use tcp, udp, icmp, sctp or a number up to 255"))
}

fn protocol_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

fn has_address(key: &FlowKey, address: u32) -> bool {
    key.source == address || key.destination == address
}

fn has_port(key: &FlowKey, port: u16) -> bool {
    key.source_port == port || key.destination_port == port
}

/// Backend slots to services' titles.
fn services_by_slot(tables: &Tables) -> HashMap<u32, String> {
    let services = tables.services.iter();
    services
        .flat_map(|service| {
            let title = service.title();
            service.backends.iter().map(move |backend| (backend.slot, title.clone()))
        })
        .collect()
}

fn row(worker: usize, flow: &FlowReport, services: &HashMap<u32, String>) -> Value {
    let end = |address: u32, port: u16| format!("{}:{port}", Ipv4Addr::from(address));
    let (original, reply) = (&flow.original, &flow.reply);
    let state = match original.protocol {
        PROTOCOL_TCP => TcpState::from_number(flow.state).name(),
        _ if flow.state == STATE_REPLIED => "replied",
        _ => "unreplied",
    };
    let service = (flow.backend_slot != NO_BACKEND).then(|| services.get(&flow.backend_slot)).flatten();
    json!({
        "worker": worker,
        "protocol": protocol_name(original.protocol),
        "state": state,
        "source": end(original.source, original.source_port),
        "destination": end(original.destination, original.destination_port),
        "reply_source": end(reply.source, reply.source_port),
        "reply_destination": end(reply.destination, reply.destination_port),
        "translated": flow.flags & FLAG_TRANSLATED != 0,
        "assured": flow.flags & FLAG_ASSURED != 0,
        "service": service,
        "idle_s": flow.idle_ms / 1_000,
        "expires_in_s": flow.expires_in_ms / 1_000,
    })
}
