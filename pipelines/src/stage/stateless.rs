//! What can be forwarded without a flow: when the table is full, and none of its flows may go.
//!
//! Without a flow a packet can be sent on if all that is done to it follows from the packet and the tables, in both
//! directions. That is so for a cluster IP that chooses by a consistent hash and does not masquerade: the hash gives the same
//! backend for each packet, and tells of an answer whether its backend would have been asked by way of the service (Maglev,
//! NSDI 2016, section 3.4, relies on the hash alone in the same way; Katran and others leave answers to direct server return,
//! which needs help from the backends).

use engine::table::flow::FlowKey;
use engine::wire::ipv4::PROTOCOL_TCP;

use super::{dnat, tcp_state};
use crate::decision::Decision;
use crate::flow::{FLAG_ORIGINAL, FlowValue, has_ports};
use crate::meta::Meta;
use crate::table::Tables;
use crate::table::interface::HOST_INTERFACE;
use crate::table::maglev::Connection;
use crate::table::service::{FrontendKey, FrontendKind};

/// One end of a connection: address in host order, port.
type End = (u32, u16);

/// The cluster IP by which a client must have asked this server, if the choice by hash says so, and the backend's counter slot.
fn virtual_server(tables: &Tables, protocol: u8, client: End, server: End) -> Option<(End, u32)> {
    if !has_ports(protocol) {
        return None;
    }
    let services = &tables.services;
    let number = services.hashed.get(&FrontendKey { address: server.0, port: server.1, protocol })?;
    // None for an endpoint of several services.
    let service = services.port(number)?;
    let asked = FrontendKey { address: service.cluster_ip, port: service.port, protocol };
    let frontend = services.frontends.get(&asked)?;
    if (frontend.service, frontend.kind) != (number, FrontendKind::ClusterIp) {
        // Another service has the address.
        return None;
    }
    let selection = dnat::select(tables, service, FrontendKind::ClusterIp, client.0);
    if selection.masquerade || dnat::is_hairpin(client.0, server.0) {
        return None;
    }
    let connection = Connection { source: client.0, source_port: client.1, protocol };
    let place = service.choice(selection.scope).place_of(connection)?;
    let backend = service.backends.get(place)?;
    ((backend.address, backend.port) == server).then_some(((asked.address, asked.port), backend.slot))
}

/// Whether a packet may belong to a connection at all: not so TCP with flags that none has.
pub fn is_plausible(meta: &Meta) -> bool {
    meta.key.protocol != PROTOCOL_TCP || tcp_state::is_plausible(meta.tcp_flags)
}

/// How a decided packet to a service is rewritten without a flow; none: it cannot be sent on.
pub fn rewrite(tables: &Tables, decision: &Decision) -> Option<FlowValue> {
    let key = decision.key;
    // What comes from the host or goes to it is known by its flow alone.
    let is_host = decision.interface == HOST_INTERFACE || decision.egress == HOST_INTERFACE;
    if is_host || decision.is_masqueraded() || decision.frontend.is_none() {
        return None;
    }
    let (client, asked) = ((key.source, key.source_port), (key.destination, key.destination_port));
    let backend = (decision.destination, decision.destination_port);
    let (virtual_server, slot) = virtual_server(tables, key.protocol, client, backend)?;
    let rewrite = FlowValue::rewrite(&key, &decision.leaving_key(key.source_port));
    let flags = rewrite.flags | FLAG_ORIGINAL;
    (virtual_server == asked).then_some(FlowValue { flags, backend_slot: slot, ..rewrite })
}

/// How a packet is rewritten that is a backend's answer to a client of a service; none: it is none.
pub fn answer(tables: &Tables, meta: &Meta) -> Option<FlowValue> {
    let key = meta.key;
    if meta.interface == HOST_INTERFACE {
        return None;
    }
    let (client, server) = ((key.destination, key.destination_port), (key.source, key.source_port));
    let ((source, source_port), slot) = virtual_server(tables, key.protocol, client, server)?;
    let rewrite = FlowValue::rewrite(&key, &FlowKey { source, source_port, ..key });
    Some(FlowValue { backend_slot: slot, ..rewrite })
}
