//! Services: virtual addresses and ports, and the backends behind them.
//!
//! Immutable once built. The next generation shares all that did not change: a change of one service copies its own
//! record, a chunk of references, and a shard of addresses only if addresses changed. Addresses are IPv4; a table for
//! IPv6 is the same maps and choices with another key ([`FrontendKey`]) and another address in [`Backend`].

use std::sync::Arc;

use arrayvec::ArrayVec;
use engine::random::Random;
use engine::table::chunked_vec::ChunkedVec;
use engine::table::flow::FlowKey;
use engine::table::sharded_map::ShardedMap;
use engine::wire::ipv4::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};

use super::alias::AliasTable;
use super::filter::Filter;
use super::maglev::{Connection, MaglevTable};
use super::stale::StaleBackends;
use crate::control::config::model::Protocol;
use crate::control::services::desired::Origin;
use crate::prefix::Ipv4Prefix;

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
            Self::Sctp => PROTOCOL_SCTP,
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// By what a service is known: address (host order), port, IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// Virtual IP, or one of the node's addresses.
    pub address: u32,
    /// Port of the service there.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl FrontendKey {
    /// Where packets with this key go, as a service would be known by.
    #[inline(always)]
    pub fn of_destination(key: &FlowKey) -> Self {
        Self { address: key.destination, port: key.destination_port, protocol: key.protocol }
    }

    /// The key in one word.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        u64::from(self.address) << 32 | u64::from(self.port) << 16 | u64::from(self.protocol)
    }
}

/// What kind of address a service is reached by. It decides who is masqueraded, and which backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontendKind {
    /// The cluster IP.
    ClusterIp,
    /// A node port.
    NodePort,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// A load balancer's IP that is captured here.
    LoadBalancer,
}

impl FrontendKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster_ip",
            Self::NodePort => "node_port",
            Self::ExternalIp => "external_ip",
            Self::LoadBalancer => "load_balancer",
        }
    }
}

/// One way to reach a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The service port's number in the table.
    pub service: u32,
    /// What kind of address.
    pub kind: FrontendKind,
}

/// Which of a service's backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the whole cluster.
    Cluster,
    /// Those on this node.
    Local,
}

/// In a backend's scopes: it is asked for the whole cluster's.
pub const IN_CLUSTER: u8 = 1;
/// In a backend's scopes: it is asked for this node's.
pub const IN_LOCAL: u8 = 2;

/// Where connections to a service go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Address in host order.
    pub address: u32,
    /// Port.
    pub port: u16,
    /// Share of new connections; 0: drains.
    pub weight: u16,
    /// Where its traffic is counted.
    pub slot: u32,
    /// Another number each time that it comes back after it was gone or unready: session affinity ends with it.
    pub incarnation: u32,
    /// `IN_*`: the scopes that it is in.
    pub scopes: u8,
}

impl Backend {
    /// Whether it is asked in a scope; if its weight is 0, for connections that it has.
    pub fn is_in(&self, scope: Scope) -> bool {
        let bit = match scope {
            Scope::Cluster => IN_CLUSTER,
            Scope::Local => IN_LOCAL,
        };
        self.scopes & bit != 0
    }
}

/// How one of the backends in a scope is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// At random, by weight.
    Random(AliasTable),
    /// By a consistent hash.
    Maglev(Box<MaglevTable>),
}

impl Default for Choice {
    fn default() -> Self {
        Self::Random(AliasTable::default())
    }
}

impl Choice {
    /// Whether there is none to choose.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Random(table) if table.is_empty())
    }

    /// Reads where a choice among a few begins.
    #[inline]
    fn touch(&self) {
        if let Self::Random(table) = self {
            table.touch();
        }
    }

    /// The backend of a connection, if the connection alone decides.
    #[inline]
    pub fn place_of(&self, connection: Connection) -> Option<usize> {
        match self {
            Self::Random(_) => None,
            Self::Maglev(table) => Some(table.choose(connection)),
        }
    }

    /// The backend of a connection; none if no backend has any weight.
    #[inline]
    pub fn choose(&self, random: &mut Random, connection: Connection) -> Option<usize> {
        match self {
            Self::Random(table) => table.choose(random),
            Self::Maglev(table) => Some(table.choose(connection)),
        }
    }
}

/// What people want to know of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendFacts {
    /// The node it runs on, if the source says.
    pub node: Option<Arc<str>>,
    /// Whether that is this node.
    pub local: bool,
    /// The object that it comes from.
    pub origin: Arc<Origin>,
}

/// What people want to know of a service port; the data path reads it only while services change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFacts {
    /// The object that the service comes from.
    pub origin: Arc<Origin>,
    /// In the order of [`ServicePort::backends`].
    pub backends: Vec<BackendFacts>,
    /// Slots of backends that are not listed, since they take no new connections, but may have flows.
    pub other_slots: Vec<u32>,
    /// Endpoints that take no connection, with why.
    pub left_out: Vec<(u32, u16, &'static str)>,
}

/// One port of a service. What a new connection reads lies in front, in the first two cache lines.
#[derive(Clone, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct ServicePort {
    /// All backends that serve, the draining ones too.
    pub backends: Vec<Backend>,
    /// Chooses among the cluster's.
    pub cluster: Choice,
    /// Where the service's own events are counted.
    pub slot: u32,
    /// Seconds for which a client stays at its backend; 0: no affinity.
    pub affinity_s: u32,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// Chooses among this node's; empty unless a policy asks for it.
    pub local: Choice,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the service's addresses.
    pub port: u16,
    /// Port on the node's addresses.
    pub node_port: Option<u16>,
    /// The cluster IP in host order.
    pub cluster_ip: u32,
    /// Who may use the load-balancer IPs; empty: everybody.
    pub source_ranges: Vec<Ipv4Prefix>,
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Name of the service.
    pub name: Arc<str>,
    /// Name of the port; may be empty.
    pub port_name: Arc<str>,
    /// What backends that are gone have counted: a service's counters never go down.
    pub gone: [u64; super::SLOT_COUNTERS],
    /// For people.
    pub facts: ServiceFacts,
}

impl ServicePort {
    /// How a backend in a scope is chosen.
    #[inline]
    pub fn choice(&self, scope: Scope) -> &Choice {
        match scope {
            Scope::Cluster => &self.cluster,
            Scope::Local => &self.local,
        }
    }

    /// Whether a source may use the load-balancer IPs.
    #[inline]
    pub fn admits(&self, source: u32) -> bool {
        self.source_ranges.is_empty() || self.source_ranges.iter().any(|range| range.contains(source))
    }

    /// The backend of this incarnation, if it takes new connections in this scope.
    pub fn incarnation(&self, incarnation: u32, scope: Scope) -> Option<usize> {
        self.backends.iter().position(|backend| {
            backend.incarnation == incarnation && backend.weight > 0 && backend.is_in(scope)
        })
    }

    /// Whether flows of this slot are its own: to backends that it has, or had while there is one that looks for them.
    pub fn has_slot(&self, slot: u32) -> bool {
        self.backends.iter().any(|backend| backend.slot == slot) || self.facts.other_slots.contains(&slot)
    }

    /// `namespace/name:port name`.
    pub fn title(&self) -> String {
        if self.port_name.is_empty() {
            format!("{}/{}", self.namespace, self.name)
        } else {
            format!("{}/{}:{}", self.namespace, self.name, self.port_name)
        }
    }
}

/// In [`ServiceTable::hashed`]: an endpoint of several services.
pub const SEVERAL: u32 = u32::MAX;

/// Most backends of one service port: keeps the sum of weights in 32 bits.
pub const BACKENDS_MAX: usize = 65_536;

/// All services of one generation.
#[derive(Clone, Default)]
pub struct ServiceTable {
    /// Where each (address, port, protocol) leads.
    pub frontends: ShardedMap<FrontendKey, Frontend>,
    /// Addresses that frontends have, and how many each.
    pub frontend_addresses: ShardedMap<u32, u32>,
    /// Backends (address, port, protocol) of cluster IPs that choose by a consistent hash, and the number of the service
    /// port, or [`SEVERAL`].
    pub hashed: ShardedMap<FrontendKey, u32>,
    /// Cluster IPs, and how many service ports have each: what is for them and matches no frontend is refused.
    pub addresses: ShardedMap<u32, u32>,
    /// The lowest and the highest cluster IP that there ever was: nearly all other addresses are told apart by that.
    pub address_range: Option<(u32, u32)>,
    /// Service ports by number; numbers of those that are gone are free.
    pub ports: ChunkedVec<Option<Arc<ServicePort>>>,
    /// Backends that are gone, as long as a flow may still go there.
    pub stale: Arc<StaleBackends>,
    /// Some frontends lead where they did not, and flows that began before may go elsewhere.
    pub has_new_frontends: bool,
    /// Which those are.
    pub new_frontends: Filter,
}

impl ServiceTable {
    /// The service behind an address, port and protocol.
    #[inline]
    pub fn find(&self, key: &FrontendKey) -> Option<(Frontend, &ServicePort)> {
        let frontend = self.frontends.get(key)?;
        Some((frontend, self.port(frontend.service)?))
    }

    /// Whether a service is reached at an address, port and protocol: nearly all addresses have none, whatever the port.
    #[inline]
    pub fn listens(&self, address: u32, port: u16, protocol: u8) -> bool {
        self.frontend_addresses.get(&address).is_some()
            && self.frontends.get(&FrontendKey { address, port, protocol }).is_some()
    }

    /// Reads all that looking these up and drawing their backends will read, step by step for all of them, so that they wait
    /// for memory together: of tens of thousands of services none is in a cache. Reads, since hints are dropped when a
    /// page's address is not at hand, too. Changes nothing.
    pub fn read_ahead<const AT_ONCE: usize>(&self, keys: &ArrayVec<FrontendKey, AT_ONCE>) {
        for key in keys {
            self.frontends.touch(key);
        }
        let mut numbers = ArrayVec::<u32, AT_ONCE>::new();
        for frontend in keys.iter().filter_map(|key| self.frontends.get(key)) {
            numbers.push(frontend.service);
        }
        let mut ports = ArrayVec::<&ServicePort, AT_ONCE>::new();
        for port in numbers.iter().filter_map(|number| self.port(*number)) {
            ports.push(port);
        }
        for port in &ports {
            // Of each of the two lines that new connections read.
            core::hint::black_box((port.slot, port.internal_local, port.backends.len()));
        }
        for port in &ports {
            // A line has two backends and a half.
            for backend in port.backends.iter().step_by(2).take(4) {
                core::hint::black_box(backend.port);
            }
            port.cluster.touch();
        }
    }

    /// The service port of a number.
    #[inline]
    pub fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.get(number as usize)?.as_deref()
    }

    /// All service ports, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServicePort>> {
        self.ports.iter().flatten()
    }

    /// Whether any service has this virtual IP.
    #[inline]
    pub fn is_virtual(&self, address: u32) -> bool {
        self.address_range.is_some_and(|(first, last)| (first..=last).contains(&address))
            && self.addresses.get(&address).is_some()
    }

    /// Whether a frontend may be one that leads where it did not.
    #[inline]
    pub fn is_new(&self, key: &FrontendKey) -> bool {
        self.has_new_frontends && self.new_frontends.may_have(key.number())
    }

    /// Whether workers have anything to look for in their flows.
    #[inline]
    pub fn needs_sweep(&self) -> bool {
        self.has_new_frontends || !self.stale.is_empty()
    }
}
