//! What is known of a packet while it is in a batch: one cache line, written by the stages that the fields name.

use engine::table::flow::FlowKey;

/// What a packet is to the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Not parsed, or dropped.
    #[default]
    None,
    /// ARP.
    Arp,
    /// A bridged frame that is neither IPv4 nor ARP.
    Frame,
    /// IPv4 with a key of its own: TCP, UDP, SCTP, ICMP echo, or another protocol by its addresses.
    Flow,
    /// An ICMP error; the key is that of the packets that come from where the quoted one went.
    IcmpError,
    /// ICMP that is neither echo nor error.
    IcmpOther,
}

/// It came through the tunnel.
pub const TUNNELLED: u8 = 0x01;
/// It is for another station of the bridge: MACs and hop limit stay.
pub const BRIDGED: u8 = 0x02;
/// It was for a group MAC.
pub const GROUP: u8 = 0x04;

/// No entry found, or none looked for.
pub const NO_ENTRY: u32 = u32::MAX;

/// A packet's metadata. Offsets are from the packet's first byte as it arrived.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Meta {
    /// Written by parse, read by all.
    pub key: FlowKey,
    /// Hash of `key`. Written by parse, read by conntrack and apply.
    pub hash: u64,
    /// The flow entry. Written and read by conntrack.
    pub entry: u32,
    /// Outer source address. Written by parse.
    pub remote: u32,
    /// VXLAN network identifier. Written by parse, read by vxlan_decap.
    pub vni: u32,
    /// Start of the frame that is routed: 0, or behind the tunnel's headers. Written by parse.
    pub frame_offset: u16,
    /// Start of the IP header. Written by parse, read by apply.
    pub ip_offset: u16,
    /// Start of the transport header. Written by parse, read by conntrack and apply.
    pub transport_offset: u16,
    /// IP total length. Written by parse.
    pub ip_length: u16,
    /// TCP payload length. Written by parse, read by conntrack.
    pub payload_length: u16,
    /// Written by parse, read by all.
    pub kind: Kind,
    /// Interface it came by. Written by parse; vxlan_decap makes it the overlay's.
    pub interface: u8,
    /// TCP flags. Written by parse, read by conntrack.
    pub tcp_flags: u8,
    /// Written by parse, read by apply.
    pub time_to_live: u8,
    /// DSCP and ECN. Written by parse; vxlan_decap adds the outer congestion mark.
    pub traffic_class: u8,
    /// ECN of the outer header. Written by parse, read by vxlan_decap.
    pub outer_ecn: u8,
    /// `TUNNELLED`, `BRIDGED`, `GROUP`. Written by parse; dnat clears `BRIDGED`.
    pub flags: u8,
}

const _: () = assert!(size_of::<Meta>() == 64);

impl Meta {
    /// Whether the flag is set.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
