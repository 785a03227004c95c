//! Protocol headers as zero-copy views, one file a protocol.
//!
//! **Invariant:** a view exists only over enough bytes, so no accessor can panic or read past a packet. Multi-byte
//! fields are in network byte order and typed so.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vxlan;
