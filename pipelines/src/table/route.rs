//! Routes: longest prefix match to an interface and a next hop.

use engine::table::lpm::{Lpm, LpmError};

use crate::prefix::Ipv4Prefix;
use crate::table::interface::{HOST_INTERFACE, InterfaceId};

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteSource {
    /// One of the gateway's own addresses.
    Local,
    /// The prefix of an interface's address.
    Connected,
    /// The configuration.
    Static,
}

impl RouteSource {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Connected => "connected",
            Self::Static => "static",
        }
    }
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub prefix: Ipv4Prefix,
    /// Next hop in host order; none: the destination itself.
    pub via: Option<u32>,
    /// By which interface; the host's for the gateway's own addresses.
    pub interface: InterfaceId,
    /// Who says so.
    pub source: RouteSource,
}

/// All routes. Immutable once built.
pub struct RouteTable {
    lpm: Lpm,
    routes: Vec<Route>,
}

impl RouteTable {
    /// A table of these routes. Of two with the same prefix the one that came first holds.
    pub fn build(mut routes: Vec<Route>) -> Result<Self, LpmError> {
        let mut seen = std::collections::HashSet::new();
        routes.retain(|route| seen.insert(route.prefix));
        let entries = routes
            .iter()
            .enumerate()
            .map(|(index, route)| (route.prefix.base(), route.prefix.length(), index as u32));
        Ok(Self { lpm: Lpm::build(entries)?, routes })
    }

    /// The most specific route to `address` (host order).
    #[inline]
    pub fn lookup(&self, address: u32) -> Option<&Route> {
        self.routes.get(self.lpm.lookup(address)? as usize)
    }

    /// Whether `address` is one of the gateway's own.
    #[inline]
    pub fn is_local(&self, address: u32) -> bool {
        self.lookup(address).is_some_and(|route| route.interface == HOST_INTERFACE)
    }

    /// All routes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}
