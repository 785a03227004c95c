//! What arrives: frames made from templates, so that eight million flows need no eight million frames.

use engine::packet::Packet;
use engine::random::Random;
use engine::wire::checksum::fold;

use crate::support::packets;

/// Where the parts of the inner packet lie: behind outer Ethernet, IPv4, UDP, VXLAN and inner Ethernet.
const INNER_IP: usize = 64;
const INNER_TRANSPORT: usize = INNER_IP + 20;

/// First client address: 100.0.0.0.
const CLIENTS: u32 = 0x6400_0000;

/// Addresses and ports of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source: u32,
    pub(crate) source_port: u16,
    pub(crate) destination: u32,
    pub(crate) destination_port: u16,
}

/// The client of flow `number`: 16,384 ports of each address.
pub(crate) fn client(number: u64) -> (u32, u16) {
    (CLIENTS + ((number >> 14) & 0xff_ffff) as u32, 1_024 + (number & 0x3fff) as u16)
}

/// The service that flow `number` goes to. Fibonacci hashing scatters them, so that no order helps the caches.
pub(crate) fn service_of(number: u64, services: usize) -> u32 {
    let mixed = u64::from((number as u32).wrapping_mul(0x9e37_79b1));
    ((mixed * services as u64) >> 32) as u32
}

/// A frame whose addresses and ports are filled in.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the transport's checksum lies.
    checksum_at: usize,
    /// Sums without addresses and ports.
    ip_sum: u64,
    transport_sum: u64,
}

impl Template {
    /// A UDP datagram: with 18 bytes of payload the inner frame has 64 bytes with its check sequence.
    pub(crate) fn udp() -> Self {
        Self::new(&packets::udp("0.0.0.0:0", "0.0.0.0:0", &[0x5a; 18]), 6)
    }

    /// A TCP segment.
    pub(crate) fn tcp(flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Self {
        let packet =
            packets::tcp_numbered("0.0.0.0:0", "0.0.0.0:0", flags, sequence, acknowledgement, payload);
        Self::new(&packet, 16)
    }

    fn new(packet: &[u8], checksum_at: usize) -> Self {
        let mut bytes = packets::from_tunnel(packet);
        // No outer checksum, as the peers were measured.
        bytes[40..42].fill(0);
        let checksum_at = INNER_TRANSPORT + checksum_at;
        // Made with zeros for addresses and ports, the checksums are the sums of all else.
        let sum = |at: usize| u64::from(!u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let (ip_sum, transport_sum) = (sum(INNER_IP + 10), sum(checksum_at));
        Self { bytes, checksum_at, ip_sum, transport_sum }
    }

    /// Makes the packet one of this template. False: its buffer is too small.
    pub(crate) fn write(&self, packet: &mut Packet, ends: &Ends) -> bool {
        if !packet.fill(&self.bytes) {
            return false;
        }
        let bytes = packet.data_mut();
        let addresses = u64::from(ends.source) + u64::from(ends.destination);
        let ports = u64::from(ends.source_port) + u64::from(ends.destination_port);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(INNER_IP + 10, &(!fold(self.ip_sum + addresses)).to_be_bytes());
        put(INNER_IP + 12, &ends.source.to_be_bytes());
        put(INNER_IP + 16, &ends.destination.to_be_bytes());
        put(INNER_TRANSPORT, &ends.source_port.to_be_bytes());
        put(INNER_TRANSPORT + 2, &ends.destination_port.to_be_bytes());
        // A sum of 0xffff leaves zero, which in UDP means that there is none (RFC 768).
        let checksum = !fold(self.transport_sum + addresses + ports);
        put(self.checksum_at, &(if checksum == 0 { 0xffff } else { checksum }).to_be_bytes());
        true
    }
}

/// Says what comes next.
pub(crate) trait Traffic: Send {
    /// Makes the packet the next one. False: nothing is to come.
    fn next(&mut self, packet: &mut Packet) -> bool;
}

/// The services that traffic is for, by number from the first one's address on.
#[derive(Clone, Copy)]
pub(crate) struct Services {
    pub(crate) first: u32,
    pub(crate) count: usize,
}

impl Services {
    /// From the client of flow `number` to its service.
    pub(crate) fn ends(&self, number: u64) -> Ends {
        let (source, source_port) = client(number);
        let destination = self.first + service_of(number, self.count);
        Ends { source, source_port, destination, destination_port: 80 }
    }
}

/// The same flows over and over: first in their order, then for ever in another, so that entries are not used in the order
/// in which they were made.
pub(crate) struct Listed {
    template: Template,
    services: Services,
    order: Vec<u32>,
    next: usize,
    is_first_pass: bool,
}

impl Listed {
    pub(crate) fn new(services: Services, flows: Vec<u32>) -> Self {
        Self { template: Template::udp(), services, order: flows, next: 0, is_first_pass: true }
    }

    /// Fisher and Yates's shuffle, the same every time.
    fn shuffle(&mut self) {
        let mut random = Random::new(9);
        for last in (1..self.order.len()).rev() {
            self.order.swap(last, random.below(last as u32 + 1) as usize);
        }
    }
}

impl Traffic for Listed {
    fn next(&mut self, packet: &mut Packet) -> bool {
        let Some(flow) = self.order.get(self.next) else { return false };
        let ends = self.services.ends(u64::from(*flow));
        self.next += 1;
        if self.next == self.order.len() {
            self.next = 0;
            if core::mem::take(&mut self.is_first_pass) {
                self.shuffle();
            }
        }
        self.template.write(packet, &ends)
    }
}

/// Every packet the first of a new flow.
pub(crate) struct Counting {
    template: Template,
    services: Services,
    next: u64,
    /// Flows at the most.
    limit: u64,
}

impl Counting {
    pub(crate) fn new(template: Template, services: Services, limit: u64) -> Self {
        Self { template, services, next: 0, limit }
    }
}

impl Traffic for Counting {
    fn next(&mut self, packet: &mut Packet) -> bool {
        if self.next == self.limit {
            return false;
        }
        let ends = self.services.ends(self.next);
        self.next += 1;
        self.template.write(packet, &ends)
    }
}
