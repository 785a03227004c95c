//! Where packets would go: connected networks and routes, the longest prefix first.

use std::collections::{BTreeMap, HashMap};

use crate::control::config::draft::Draft;
use crate::control::config::model::InterfaceName;
use crate::prefix::Ipv4Prefix;

use super::connected;

/// Routes by length, so that looking up costs a hash for each length in use.
pub(super) struct Forwarding {
    by_length: BTreeMap<u8, HashMap<Ipv4Prefix, InterfaceName>>,
}

impl Forwarding {
    pub(super) fn of(draft: &Draft) -> Self {
        let mut forwarding = Self { by_length: BTreeMap::new() };
        for connected in connected(draft) {
            forwarding.add(connected.network.value.prefix, connected.interface);
        }
        for route in &draft.routes {
            if let (Some(destination), Some(interface)) = (route.destination, route.on.interface) {
                forwarding.add(destination.value, interface);
            }
        }
        forwarding
    }

    fn add(&mut self, prefix: Ipv4Prefix, interface: InterfaceName) {
        self.by_length.entry(prefix.length()).or_default().entry(prefix).or_insert(interface);
    }

    /// Whether there is no route at all, as in a configuration that names services alone.
    pub(super) fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }

    /// Which interface the whole of `prefix` leaves by, unless parts of it have routes of their own.
    pub(super) fn interface(&self, prefix: Ipv4Prefix) -> Option<InterfaceName> {
        self.by_length.range(..=prefix.length()).rev().find_map(|(length, routes)| {
            routes.get(&Ipv4Prefix::new(prefix.base().into(), *length)?).copied()
        })
    }
}
