//! What must hold between the parts of a configuration.
//!
//! **Invariant:** a check says nothing about what could not be read: that has been noted already.

mod backends;
mod cores;
mod devices;
mod forwarding;
mod names;
mod neighbours;
mod prefixes;
mod routes;
mod services;
mod sizes;
mod sources;

use super::draft::Draft;
use super::model::{InterfaceName, PortRole};
use super::notes::{At, Notes};
use super::values::InterfaceAddress;

/// Resolves the names in the draft and notes everything that does not fit together.
pub(crate) fn check(draft: &mut Draft, notes: &Notes) {
    names::resolve(draft, notes);
    let draft = &*draft;
    cores::check(draft, notes);
    devices::check(draft, notes);
    sizes::check(draft, notes);
    prefixes::check(draft, notes);
    let forwarding = forwarding::Forwarding::of(draft);
    routes::check(draft, &forwarding, notes);
    neighbours::check(draft, notes);
    services::check(draft, notes);
    backends::check(draft, &forwarding, notes);
    sources::check(draft, &forwarding, notes);
}

/// An interface with a network of its own.
struct Connected<'d> {
    interface: InterfaceName,
    name: &'d str,
    network: At<InterfaceAddress>,
}

/// The underlay ports and the bridge, as far as their addresses could be read.
fn connected(draft: &Draft) -> Vec<Connected<'_>> {
    let underlay = draft.ports.iter().enumerate().filter(|(_, port)| port.has_role(PortRole::Underlay));
    let ports = underlay.filter_map(|(place, port)| {
        let name = port.name.as_ref().map_or("?", |name| name.value.as_str());
        Some(Connected { interface: InterfaceName::Underlay(place), name, network: port.address? })
    });
    let bridge = draft.bridge.iter().filter_map(|bridge| {
        let name = bridge.name.as_ref().map_or("?", |name| name.value.as_str());
        Some(Connected { interface: InterfaceName::Bridge, name, network: bridge.address? })
    });
    ports.chain(bridge).collect()
}

/// Every address that the gateway itself owns, with whose it is.
fn own_addresses(draft: &Draft) -> Vec<(core::net::Ipv4Addr, String)> {
    let interfaces = connected(draft)
        .into_iter()
        .map(|connected| (connected.network.value.address, format!("`{}`", connected.name)));
    let overlay =
        draft.overlay.iter().filter_map(|overlay| Some((overlay.address?.value, "the VTEP".to_owned())));
    let node = draft.node.addresses.iter().map(|address| (address.value, "the node".to_owned()));
    interfaces.chain(overlay).chain(node).collect()
}
