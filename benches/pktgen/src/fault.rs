//! What can be wrong with a packet that comes back, and the first few that were.

use engine::packet::Packet;
use serde::Serialize;

/// One thing that is wrong with a packet. A packet counts once, for the first that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Not to our MAC address, or not from the gateway's; inside a tunnel, likewise of the tunnel devices.
    LinkAddress,
    /// Outer addresses, ports, flags or network of the tunnel are not the configured ones.
    Tunnel,
    /// The outer IP or UDP checksum is wrong.
    OuterChecksum,
    /// A length field says other than the frame's bytes, or the size is none that was sent.
    Length,
    /// The IP header's checksum is wrong.
    IpChecksum,
    /// The UDP or TCP checksum is wrong, or gone.
    TransportChecksum,
    /// No packet of ours: no tag, no such flow, no such connection.
    Unknown,
    /// Came before, already.
    Duplicate,
    /// Source or destination is neither the flow's own nor what the translation should make of it.
    Address,
    /// Sent to an endpoint that does not serve the service.
    WrongBackend,
    /// Sent to another backend than the flow's packets before.
    MovedBackend,
    /// Comes from another masquerade address or port than the flow's packets before.
    MovedSource,
    /// It left the gateway by the wrong port.
    Port,
    /// Hops left are not as many as were sent less those that the gateway takes.
    TimeToLive,
    /// The payload is not what was sent, though the checksum agrees.
    Payload,
    /// Came behind a later packet of its flow.
    OutOfOrder,
    /// A segment that is not one of its connection's: flags, sequence or acknowledgement number.
    Segment,
}

impl Fault {
    /// All, about in the order of their checks.
    pub const ALL: [Self; 17] = [
        Self::LinkAddress,
        Self::Tunnel,
        Self::OuterChecksum,
        Self::Length,
        Self::IpChecksum,
        Self::TransportChecksum,
        Self::Unknown,
        Self::Duplicate,
        Self::Address,
        Self::WrongBackend,
        Self::MovedBackend,
        Self::MovedSource,
        Self::Port,
        Self::TimeToLive,
        Self::Payload,
        Self::OutOfOrder,
        Self::Segment,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        [
            "link_address",
            "tunnel",
            "outer_checksum",
            "length",
            "ip_checksum",
            "transport_checksum",
            "unknown",
            "duplicate",
            "address",
            "wrong_backend",
            "moved_backend",
            "moved_source",
            "port",
            "time_to_live",
            "payload",
            "out_of_order",
            "segment",
        ][self as usize]
    }
}

/// Packets that are kept as examples.
const EXAMPLES_MAX: usize = 8;
/// Bytes that are kept of each: all headers, and the tag.
const EXAMPLE_BYTES: usize = 128;

/// A packet with a fault, to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// What is wrong.
    pub fault: Fault,
    /// The port that it came by.
    pub port: u16,
    /// Its length in bytes.
    pub length: usize,
    /// Its first bytes in hexadecimal.
    pub bytes: String,
}

/// How often each fault was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    counts: [u64; Fault::ALL.len()],
    examples: Vec<Example>,
}

impl Faults {
    /// Counts a fault and keeps the packet's bytes if few were kept so far.
    #[cold]
    pub fn add(&mut self, fault: Fault, packet: &Packet) {
        self.counts[fault as usize] += 1;
        if self.examples.len() < EXAMPLES_MAX {
            let bytes = packet.data();
            let kept = &bytes[..bytes.len().min(EXAMPLE_BYTES)];
            self.examples.push(Example {
                fault,
                port: packet.port(),
                length: bytes.len(),
                bytes: kept.iter().map(|byte| format!("{byte:02x}")).collect(),
            });
        }
    }

    /// How often this one was seen.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }

    /// How many packets had one.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first packets that had one.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Name and number of those that were seen.
    pub fn seen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Fault::ALL.into_iter().map(|fault| (fault.name(), self.count(fault))).filter(|fault| fault.1 > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::pool::MemoryPool;

    #[test]
    fn names_are_those_of_serialisation_and_numbers_their_places() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(place, fault as usize);
            assert_eq!(serde_json::to_string(&fault).unwrap(), format!("\"{}\"", fault.name()));
        }
    }

    #[test]
    fn the_first_packets_are_kept_shortened() {
        let mut faults = Faults::default();
        let packet = MemoryPool::new(1).packet(3, &[0xab; 200]).unwrap();
        for _ in 0..20 {
            faults.add(Fault::Length, &packet);
        }
        faults.add(Fault::Segment, &packet);
        assert_eq!((faults.total(), faults.examples().len()), (21, EXAMPLES_MAX));
        assert_eq!((faults.examples()[0].length, faults.examples()[0].bytes.len()), (200, 256));
        assert_eq!(faults.seen().collect::<Vec<_>>(), [("length", 20), ("segment", 1)]);
    }
}
