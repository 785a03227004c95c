//! What changes of services mean to flows that are there already.
//!
//! A change costs the flows that it concerns and no others: each worker looks for them as packets come and in its sweep,
//! and only while there is anything to look for.

use engine::table::flow::{EntryId, FlowEntry, FlowKey};
use engine::wire::ipv4::{PROTOCOL_TCP, PROTOCOL_UDP};

use super::{Core, Gauge};
use crate::flow::{FLAG_ORIGINAL, FlowValue, Flows, NO_BACKEND, has_ports};
use crate::stage::conntrack::STATE_UNREPLIED;
use crate::stage::tcp_state::TcpState;
use crate::table::Tables;
use crate::table::service::{Backend, FrontendKey, ServicePort, ServiceTable};
use crate::table::stale::Fate;

/// Whether a flow must not be used any more: its backend is gone, or a service has taken its destination over.
pub(crate) fn is_outdated(flows: &Flows, id: EntryId, services: &ServiceTable) -> bool {
    services.stale.must_end(flows.entry(id).value.backend_slot)
        || (may_be_astray(&flows.entry(id).key, &flows.entry(id).value, services)
            && is_astray(flows, id, services))
}

/// Whether the destination that a flow began with may be a new one. Both directions have it: answers leave as if from there.
#[inline(always)]
fn may_be_astray(key: &FlowKey, value: &FlowValue, services: &ServiceTable) -> bool {
    let (address, port) = if value.has(FLAG_ORIGINAL) {
        (key.destination, key.destination_port)
    } else {
        (value.new_source, value.new_source_port)
    };
    services.is_new(&FrontendKey { address, port, protocol: key.protocol })
}

/// Whether a flow goes where its destination, which is a service's now and was not when it began, would not send it: past
/// the service, or to a backend of another that had the address before.
///
/// Of connections only those past the service that nobody has answered: an open one is to somebody who is there. Datagrams
/// stay if nothing serves (pkg/proxy/conntrack/cleanup.go, `CleanStaleEntries`).
fn is_astray(flows: &Flows, id: EntryId, services: &ServiceTable) -> bool {
    let Original { key, value, is_redirected } = original(flows, id);
    let may_move = match key.protocol {
        PROTOCOL_UDP => true,
        PROTOCOL_TCP => !is_redirected && value.state == TcpState::SynSent as u8,
        protocol => !is_redirected && has_ports(protocol) && value.state == STATE_UNREPLIED,
    };
    let Some(service) = may_move.then(|| service_of(key, services)).flatten() else { return false };
    let is_at_home = service.has_slot(value.backend_slot) || backend_of(value, service).is_some();
    key.protocol != PROTOCOL_UDP || !(service.backends.is_empty() || is_at_home)
}

/// A flow as its first packet saw it.
struct Original<'a> {
    key: &'a FlowKey,
    value: &'a FlowValue,
    is_redirected: bool,
}

fn original(flows: &Flows, id: EntryId) -> Original<'_> {
    let id = if flows.entry(id).value.flags & FLAG_ORIGINAL != 0 { id } else { id.peer() };
    let FlowEntry { key, value, .. } = flows.entry(id);
    let is_redirected =
        (value.new_destination, value.new_destination_port) != (key.destination, key.destination_port);
    Original { key, value, is_redirected }
}

/// The service that packets with this key are for now.
fn service_of<'a>(key: &FlowKey, services: &'a ServiceTable) -> Option<&'a ServicePort> {
    services.find(&FrontendKey::of_destination(key)).map(|(_, service)| service)
}

/// The backend that a flow goes to, if it is one of this service.
fn backend_of<'a>(value: &FlowValue, service: &'a ServicePort) -> Option<&'a Backend> {
    let is_it = |backend: &&Backend| {
        (backend.address, backend.port) == (value.new_destination, value.new_destination_port)
    };
    service.backends.iter().find(is_it)
}

/// Where a flow counts from now on that is nobody's: at the backend that it goes to, if a service has come under whose
/// address it began. So it ends with that backend as if the service had always been there.
fn adopter(flows: &Flows, id: EntryId, services: &ServiceTable) -> Option<u32> {
    let Original { key, value, is_redirected } = original(flows, id);
    let frontend = FrontendKey::of_destination(key);
    let service = (is_redirected && services.is_new(&frontend)).then(|| services.find(&frontend))??.1;
    backend_of(value, service).map(|backend| backend.slot)
}

impl Core {
    /// Ends the flow of a pair if it is outdated, or counts it elsewhere if its backend is gone.
    pub(super) fn follow_changes(&mut self, pair: u32, tables: &Tables) {
        let id = EntryId(pair * 2);
        let Some((first, _)) = self.flows.pair(pair) else { return };
        let (before, services) = (first.value.backend_slot, &tables.services);
        if is_outdated(&self.flows, id, services) {
            self.flows.remove(id);
            self.gauges.add(Gauge::FlowsEnded as usize, 1);
            return;
        }
        let mut slot = match services.stale.fate(before) {
            Some(Fate::Count(slot)) => slot,
            _ => before,
        };
        if slot == NO_BACKEND {
            slot = adopter(&self.flows, id, services).unwrap_or(slot);
        }
        if slot != before {
            self.flows.value_mut(id).backend_slot = slot;
            self.flows.value_mut(id.peer()).backend_slot = slot;
        }
    }
}
