//! What a change of objects concerns, and how many objects there are.

use std::collections::BTreeSet;

use super::object::Kind;
use crate::control::services::desired::ServiceKey;

/// What a change concerns. Nothing named: nothing that matters changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services to ask for again with [`super::ObjectStore::desired`]: new ones, gone ones, and those that a slice or an
    /// annotation changes.
    pub services: BTreeSet<ServiceKey>,
    /// Services that mean the same as before, but whose objects are written at another place now.
    pub moved: BTreeSet<ServiceKey>,
    /// Whether any node is another than before.
    pub nodes: bool,
    /// Whether [`super::ObjectStore::findings`] tells something else than before.
    pub findings: bool,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another change concerns.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.moved.extend(other.moved);
        self.moved.retain(|key| !self.services.contains(key));
        self.nodes |= other.nodes;
        self.findings |= other.findings;
    }
}

/// How many objects there are, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Objects in force, by kind.
    pub objects: [(Kind, usize); Kind::ALL.len()],
    /// Objects that are refused now, second versions of an object among them.
    pub rejected: usize,
    /// How often an object was refused since the start.
    pub rejected_total: u64,
    /// Objects of kinds that are not read.
    pub skipped: usize,
    /// Services that are headless, external names, or left to another proxy.
    pub services_not_proxied: usize,
    /// Services with addresses of IPv6, which are not programmed.
    pub services_ipv6: usize,
    /// Endpoints of IPv6, which are not programmed.
    pub endpoints_ipv6: usize,
    /// Findings now.
    pub findings: usize,
}
