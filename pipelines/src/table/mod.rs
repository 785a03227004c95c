//! The gateway's tables. [`Tables`] is immutable once built; what is learned at packet time (next hops, stations) lies
//! beside it, in [`neighbour`] and [`bridge_mac`].

pub mod affinity;
pub mod alias;
pub mod bridge_mac;
pub mod filter;
pub mod interface;
pub mod maglev;
pub mod neighbour;
pub mod route;
pub mod service;
pub mod stale;

use std::sync::Arc;

use engine::batch::{PortId, WorkerId};
use engine::counters::Counters;
use engine::wire::ethernet::MacAddress;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::control::slots::SlotBases;
use crate::prefix::Ipv4Prefix;
use interface::{HOST_PORT, Interface, InterfaceId, PortRecord};
use route::RouteTable;
use service::ServiceTable;

/// The overlay as the data path needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayTable {
    /// The overlay's interface.
    pub interface: InterfaceId,
    /// The interface that carries it.
    pub underlay: InterfaceId,
    /// Network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub udp_port: u16,
    /// The VTEP's MAC.
    pub mac: MacAddress,
    /// Outer source address in host order.
    pub local: u32,
    /// Send outer UDP checksums.
    pub send_udp_checksum: bool,
    /// Which node each VTEP MAC is on (host order).
    pub fdb: HashMap<MacAddress, u32, FxBuildHasher>,
}

/// The bridge as the data path needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeTable {
    /// The bridge's interface.
    pub interface: InterfaceId,
    /// Its ports.
    pub members: Vec<PortId>,
    /// Static stations.
    pub stations: Vec<(MacAddress, PortId)>,
    /// Milliseconds after which a silent station is forgotten.
    pub ageing_ms: u32,
}

/// Timeouts of tracked flows in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// By [`crate::stage::tcp_state::TcpState`].
    pub tcp_ms: [u32; 10],
    /// UDP without an answer.
    pub udp_ms: u32,
    /// UDP with answers.
    pub udp_stream_ms: u32,
    /// ICMP echo.
    pub icmp_ms: u32,
    /// Anything else.
    pub generic_ms: u32,
}

/// What decides who is masqueraded, and with which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasqueradeRules {
    /// Sources whose answers pass this gateway by themselves.
    pub pod_cidrs: Vec<Ipv4Prefix>,
    /// Every source on its way to a cluster IP.
    pub masquerade_all: bool,
    /// Pods of this prefix leave it with the node's address.
    pub egress_network: Option<Ipv4Prefix>,
    /// Overrides the address for services, in host order.
    pub snat_address: Option<u32>,
    /// Ports to masquerade with, inclusive.
    pub snat_ports: (u16, u16),
}

/// All that the data path reads and that changes only by publishing anew. What one generation has in common with the next
/// is shared.
#[derive(Clone)]
pub struct Tables {
    /// Counts up with each publication.
    pub generation: u64,
    /// By interface number; the host's first.
    pub interfaces: Arc<Vec<Interface>>,
    /// By port number.
    pub ports: Arc<Vec<PortRecord>>,
    /// The overlay, if there is one.
    pub overlay: Option<Arc<OverlayTable>>,
    /// The bridge, if there is one.
    pub bridge: Option<Arc<BridgeTable>>,
    /// Static next hops.
    pub neighbours: Arc<HashMap<(InterfaceId, u32), MacAddress, FxBuildHasher>>,
    /// The gateway's own addresses, in order.
    pub own_addresses: Arc<Vec<u32>>,
    /// Routes, the gateway's own addresses among them.
    pub routes: Arc<RouteTable>,
    /// Services.
    pub services: ServiceTable,
    /// Where services' addresses lie.
    pub service_cidrs: Vec<Ipv4Prefix>,
    /// Who is masqueraded.
    pub masquerade: MasqueradeRules,
    /// Timeouts of flows.
    pub timeouts: Timeouts,
    /// Packets a second to the host's stack, for each worker; 0: no exception port.
    pub host_rate_pps: u32,
    /// The host's and the gateway's MAC on the exception link.
    pub host_macs: (MacAddress, MacAddress),
    /// By worker: counters of backends and services.
    pub backend_counters: Arc<Vec<SlotCounters>>,
    /// What slots stood at when they were given to another.
    pub slot_bases: SlotBases,
}

impl Tables {
    /// The record of a port; none for the exception port.
    #[inline(always)]
    pub fn port(&self, port: PortId) -> Option<&PortRecord> {
        self.ports.get(usize::from(port))
    }

    /// An interface; the host's for a number that does not exist.
    #[inline(always)]
    pub fn interface(&self, interface: InterfaceId) -> &Interface {
        self.interfaces.get(usize::from(interface)).unwrap_or(&self.interfaces[0])
    }

    /// What a worker counts of backends and services.
    #[inline(always)]
    pub fn counters_of(&self, worker: WorkerId) -> Option<&SlotCounters> {
        self.backend_counters.get(usize::from(worker))
    }

    /// Whether an address is the gateway's own.
    #[inline]
    pub fn is_own(&self, address: u32) -> bool {
        self.own_addresses.binary_search(&address).is_ok()
    }

    /// What a backend or service has counted, all workers together.
    pub fn slot_value(&self, slot: u32, counter: SlotCounter) -> u64 {
        let base = self.slot_bases.get(&slot).map_or(0, |bases| bases[counter as usize]);
        slot_sum(&self.backend_counters, slot, counter).wrapping_sub(base)
    }

    /// The interface a port belongs to.
    #[inline(always)]
    pub fn interface_of(&self, port: PortId) -> InterfaceId {
        if port == HOST_PORT {
            return interface::HOST_INTERFACE;
        }
        self.port(port).map_or(interface::HOST_INTERFACE, |record| record.interface)
    }
}

/// Counters of one backend or service, for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum SlotCounter {
    /// Connections sent there (backend) or accepted (service).
    Connections,
    /// Packets to it.
    PacketsIn,
    /// Bytes to it, IP headers included.
    BytesIn,
    /// Packets from it.
    PacketsOut,
    /// Bytes from it.
    BytesOut,
    /// Connections refused (service).
    Refused,
}

/// Counters of a slot.
pub const SLOT_COUNTERS: usize = 6;

/// A slot's counter since the process began, all workers together.
pub fn slot_sum(counters: &[SlotCounters], slot: u32, counter: SlotCounter) -> u64 {
    counters.iter().map(|worker| worker.get(slot, counter)).fold(0, u64::wrapping_add)
}

impl SlotCounter {
    /// All, in their order.
    pub const ALL: [Self; SLOT_COUNTERS] =
        [Self::Connections, Self::PacketsIn, Self::BytesIn, Self::PacketsOut, Self::BytesOut, Self::Refused];
}

/// Slots in one chunk: a large page of them.
const CHUNK_SLOTS: usize = 32_768;

/// One worker's counters by slot: one cache line a slot, in chunks, so that more can be added while it counts.
#[derive(Clone, Default)]
pub struct SlotCounters {
    chunks: Vec<Counters>,
}

impl SlotCounters {
    /// Slots that there is room for.
    pub fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK_SLOTS
    }

    /// The same counters, and room for `slots` slots.
    pub fn grown(&self, slots: usize) -> Self {
        let mut chunks = self.chunks.clone();
        while chunks.len() * CHUNK_SLOTS < slots {
            chunks.push(Counters::on_large_pages(CHUNK_SLOTS * 8));
        }
        Self { chunks }
    }

    /// Asks the cache for a slot's line.
    #[inline(always)]
    pub fn prefetch(&self, slot: u32) {
        let slot = slot as usize;
        if let Some(chunk) = self.chunks.get(slot / CHUNK_SLOTS) {
            chunk.prefetch(slot % CHUNK_SLOTS * 8);
        }
    }

    /// Adds. For the worker alone.
    #[inline(always)]
    pub fn add(&self, slot: u32, counter: SlotCounter, amount: u64) {
        let slot = slot as usize;
        if let Some(chunk) = self.chunks.get(slot / CHUNK_SLOTS) {
            chunk.add(slot % CHUNK_SLOTS * 8 + counter as usize, amount);
        }
    }

    /// The value as of now.
    pub fn get(&self, slot: u32, counter: SlotCounter) -> u64 {
        let slot = slot as usize;
        self.chunks
            .get(slot / CHUNK_SLOTS)
            .map_or(0, |chunk| chunk.get(slot % CHUNK_SLOTS * 8 + counter as usize))
    }
}
