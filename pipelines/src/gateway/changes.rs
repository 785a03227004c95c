//! What changes of services mean to flows that are there already.
//!
//! A change costs the flows that it concerns and no others: each worker looks for them as packets come and in its sweep,
//! and only while there is anything to look for.

use engine::table::flow::EntryId;
use engine::wire::ipv4::{PROTOCOL_TCP, PROTOCOL_UDP};

use super::{Core, Gauge};
use crate::flow::{FLAG_ORIGINAL, Flows, has_ports};
use crate::stage::conntrack::STATE_UNREPLIED;
use crate::stage::tcp_state::TcpState;
use crate::table::Tables;
use crate::table::service::{FrontendKey, ServiceTable};
use crate::table::stale::Fate;

/// Whether a flow must not be used any more: its backend is gone, or a service has taken its destination over.
pub(crate) fn is_outdated(flows: &Flows, id: EntryId, services: &ServiceTable) -> bool {
    services.stale.must_end(flows.entry(id).value.backend_slot)
        || (services.has_new_frontends && bypasses_service(flows, id, services))
}

/// Whether a flow goes past a service that was not there when it began: an entry that is not redirected, to what is a
/// service's address now. Of connections only those that nobody has answered: an open one is to somebody who is there.
fn bypasses_service(flows: &Flows, id: EntryId, services: &ServiceTable) -> bool {
    let entry = flows.entry(id);
    let id = if entry.value.flags & FLAG_ORIGINAL != 0 { id } else { id.peer() };
    let entry = flows.entry(id);
    let (key, value) = (&entry.key, &entry.value);
    let is_redirected =
        (value.new_destination, value.new_destination_port) != (key.destination, key.destination_port);
    let may_move = match key.protocol {
        PROTOCOL_UDP => true,
        PROTOCOL_TCP => value.state == TcpState::SynSent as u8,
        protocol => has_ports(protocol) && value.state == STATE_UNREPLIED,
    };
    let frontend =
        FrontendKey { address: key.destination, port: key.destination_port, protocol: key.protocol };
    !is_redirected && may_move && services.frontends.get(&frontend).is_some()
}

impl Core {
    /// Ends the flow of a pair if it is outdated, or counts it elsewhere if its backend is gone.
    pub(super) fn follow_changes(&mut self, pair: u32, tables: &Tables) {
        let id = EntryId(pair * 2);
        let Some((first, _)) = self.flows.pair(pair) else { return };
        let slot = first.value.backend_slot;
        if is_outdated(&self.flows, id, &tables.services) {
            self.flows.remove(id);
            self.gauges.add(Gauge::FlowsEnded as usize, 1);
        } else if let Some(Fate::Count(slot)) = tables.services.stale.fate(slot) {
            self.flows.value_mut(id).backend_slot = slot;
            self.flows.value_mut(id.peer()).backend_slot = slot;
        }
    }
}
