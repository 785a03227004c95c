//! A gateway in memory that does what it should: decapsulates, translates, routes and encapsulates, at once and without
//! loss. Tests let it have a [`Defect`]; the command offers it as the device `loop`, to try a plan on and to see what the
//! generator itself can do.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, PoisonError};

use engine::clock::Timestamp;
use engine::packet::Packet;
use engine::port::{BURST, Burst, PortQueue};
use engine::rate::TokenBucket;
use engine::wire::checksum::{delta_u16, delta_u32, fold, update};
use engine::wire::ethernet::EthernetHeader;
use engine::wire::ipv4::{HEADER_LENGTH, Ipv4Header, PROTOCOL_UDP};
use rustc_hash::FxHasher;
use zerocopy::FromBytes;

use crate::defect::{Defect, Defective};
use crate::link::Link;
use crate::plan::Service;
use crate::received::Peer;
use crate::scenario::Scenario;
use crate::template::{Ends, encapsulate};

/// A clock that can be read from anywhere.
pub type SharedClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<FxHasher>>;

/// Where in a segment or datagram the checksum stands.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    source: (u32, u16),
    destination: (u32, u16),
}

impl Key {
    fn new(protocol: u8, ends: Ends) -> Self {
        Self {
            protocol,
            source: (ends.source, ends.source_port),
            destination: (ends.destination, ends.destination_port),
        }
    }
}

#[derive(Clone, Copy)]
struct Translation {
    ends: Ends,
    port: u16,
    is_reply: bool,
}

/// The gateway.
pub struct IdealGateway {
    /// The cables from its end.
    links: Vec<Link>,
    scenario: Scenario,
    services: Map<(u32, u16), Service>,
    flows: Map<Key, Translation>,
    queues: Vec<VecDeque<Packet>>,
    /// Connections it has room for.
    capacity: usize,
    connections: usize,
    /// New connections that it takes a second, and what time it is.
    new_per_s: Option<(TokenBucket, SharedClock)>,
    next_backend: u32,
    next_source_port: u16,
    defective: Defective,
}

impl IdealGateway {
    /// The gateway that a scenario expects.
    pub fn new(scenario: Scenario) -> Self {
        let plan = &scenario.plan;
        Self {
            links: scenario.links.iter().map(Link::reversed).collect(),
            services: plan
                .services()
                .iter()
                .map(|service| ((service.address, service.port), *service))
                .collect(),
            flows: Map::default(),
            queues: scenario.links.iter().map(|_| VecDeque::new()).collect(),
            capacity: usize::MAX,
            connections: 0,
            new_per_s: None,
            next_backend: 0,
            next_source_port: 1_024,
            defective: Defective::default(),
            scenario,
        }
    }

    /// Gives it a defect that shows in each `every`-th packet.
    #[must_use]
    pub fn with_defect(mut self, defect: Defect, every: u64) -> Self {
        self.defective = Defective::new(defect, every);
        self
    }

    /// Bounds its table.
    #[must_use]
    pub fn with_capacity(mut self, connections: usize) -> Self {
        self.capacity = connections;
        self
    }

    /// Bounds the new connections that it takes a second, and at once.
    #[must_use]
    pub fn with_new_per_s(mut self, rate: u32, burst: u32, clock: SharedClock) -> Self {
        self.new_per_s = Some((TokenBucket::new(rate, burst), clock));
        self
    }

    /// Connections in its table.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Forgets all connections.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.connections = 0;
    }

    /// Its ports, in the scenario's order.
    pub fn into_ports(self) -> (Vec<Box<dyn PortQueue>>, Arc<Mutex<Self>>) {
        let count = self.links.len() as u16;
        let shared = Arc::new(Mutex::new(self));
        let port =
            |number| Box::new(IdealPort { gateway: Arc::clone(&shared), number }) as Box<dyn PortQueue>;
        ((0..count).map(port).collect(), shared)
    }

    fn forward(&mut self, port: u16, mut packet: Packet) {
        let out = if self.scenario.peer == Peer::Mirror {
            swap_macs(packet.data_mut()).map(|()| port)
        } else {
            self.translate(port, &mut packet)
        };
        // What it does not understand is dropped, as by any router.
        let Some(out) = out else { return };
        let link = &self.links[usize::from(out)];
        let inner_at = if self.scenario.peer == Peer::Mirror { 0 } else { link.inner_at() };
        let queue = &mut self.queues[usize::from(out)];
        // As long as the generator's pool has buffers.
        self.defective.deliver(packet, inner_at, |packet| queue.push_back(packet));
    }

    /// Does its work on a packet. Gives the port that it leaves by.
    fn translate(&mut self, port: u16, packet: &mut Packet) -> Option<u16> {
        let link = self.links.get(usize::from(port))?;
        if !packet.trim_front(link.inner_at()) {
            return None;
        }
        let (_, rest) = EthernetHeader::mut_from_prefix(packet.data_mut()).ok()?;
        let (protocol, ends) = read_ends(rest)?;
        let key = Key::new(protocol, ends);
        let translation = match self.flows.get(&key) {
            Some(translation) => *translation,
            None => self.admit(key, ends)?,
        };
        let ends = match self.defective.is_due() {
            true => self.defective.other_ends(translation.ends, ends, translation.is_reply),
            false => translation.ends,
        };
        let (_, rest) = EthernetHeader::mut_from_prefix(packet.data_mut()).ok()?;
        write_ends(rest, ends, self.scenario.hops)?;
        let link = &self.links[usize::from(translation.port)];
        encapsulate(link, packet).then_some(translation.port)
    }

    /// A new connection: chooses its backend, and the source that it shows.
    fn admit(&mut self, key: Key, ends: Ends) -> Option<Translation> {
        let service = *self.services.get(&key.destination)?;
        if self.connections >= self.capacity {
            return None;
        }
        if let Some((bucket, clock)) = &mut self.new_per_s
            && !bucket.take(clock())
        {
            return None;
        }
        self.connections += 1;
        self.next_backend = self.next_backend.wrapping_add(1);
        let mut translated = ends;
        let backends = self.scenario.plan.backends(service);
        if !backends.is_empty() {
            let range = backends[self.next_backend as usize % backends.len()];
            let place = u64::from(self.next_backend) % range.addresses.count();
            (translated.destination, translated.destination_port) =
                (range.addresses.at(place as u32), range.port);
        }
        if let Some(addresses) = self.scenario.plan.masquerade().first() {
            self.next_source_port = self.next_source_port.checked_add(1).unwrap_or(1_024);
            translated.source = addresses.at((u64::from(self.next_backend) % addresses.count()) as u32);
            translated.source_port = self.next_source_port;
        }
        let (client_port, backend_port) = (self.scenario.client_port, self.scenario.backend_port);
        let there = Translation { ends: translated, port: backend_port, is_reply: false };
        let back = Translation { ends: ends.reversed(), port: client_port, is_reply: true };
        self.flows.insert(Key::new(key.protocol, translated.reversed()), back);
        self.flows.insert(key, there);
        Some(there)
    }
}

fn swap_macs(frame: &mut [u8]) -> Option<()> {
    let (ethernet, _) = EthernetHeader::mut_from_prefix(frame).ok()?;
    core::mem::swap(&mut ethernet.source, &mut ethernet.destination);
    Some(())
}

fn port_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_ends(packet: &[u8]) -> Option<(u8, Ends)> {
    let (header, rest) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let ends = Ends {
        source: header.source_address(),
        source_port: port_at(rest, 0)?,
        destination: header.destination_address(),
        destination_port: port_at(rest, 2)?,
    };
    Some((header.protocol, ends))
}

/// Writes addresses, ports, hops and both checksums, incrementally (RFC 1624).
fn write_ends(packet: &mut [u8], ends: Ends, hops: u8) -> Option<()> {
    let (protocol, old) = read_ends(packet)?;
    let (header, rest) = Ipv4Header::mut_from_prefix(packet).ok()?;
    let addresses = delta_u32(old.source, ends.source) + delta_u32(old.destination, ends.destination);
    let ports =
        delta_u16(old.source_port, ends.source_port) + delta_u16(old.destination_port, ends.destination_port);
    let left = header.time_to_live.checked_sub(hops)?;
    let words = |hops_left: u8| u16::from_be_bytes([hops_left, protocol]);
    let delta = addresses + delta_u16(words(header.time_to_live), words(left));
    header.checksum.set(update(header.checksum.get(), fold(delta)));
    header.time_to_live = left;
    header.source = ends.source.to_be_bytes();
    header.destination = ends.destination.to_be_bytes();
    rest.get_mut(..2)?.copy_from_slice(&ends.source_port.to_be_bytes());
    rest.get_mut(2..4)?.copy_from_slice(&ends.destination_port.to_be_bytes());
    let at = if protocol == PROTOCOL_UDP { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let mut checksum = update(port_at(rest, at)?, fold(addresses + ports));
    if checksum == 0 && protocol == PROTOCOL_UDP {
        checksum = 0xffff;
    }
    rest.get_mut(at..at + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// The generator's side of one of the gateway's ports.
struct IdealPort {
    gateway: Arc<Mutex<IdealGateway>>,
    number: u16,
}

impl PortQueue for IdealPort {
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = gateway.queues.get_mut(usize::from(self.number)) else { return };
        for _ in 0..limit.min(BURST - burst.len()) {
            let Some(mut packet) = queue.pop_front() else { break };
            packet.set_port(self.number);
            burst.push(packet);
        }
    }

    fn transmit(&mut self, burst: &mut Burst) {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in burst.drain(..) {
            gateway.forward(self.number, packet);
        }
    }
}

const _: () = assert!(HEADER_LENGTH == size_of::<Ipv4Header>());
