//! Why packets end: every reason, the stage that gives it, and what it means.
//!
//! One catalogue for counters, metrics, `pollgate show drops` and docs/counters.md (a test compares them).

use engine::worker::ENGINE_REASONS;

/// Why a packet was dropped; [`CATALOGUE`] says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "the catalogue below is their documentation")]
pub enum DropReason {
    Segmented,
    EthernetTruncated,
    VlanTag,
    EtherTypeUnsupported,
    SourceMacInvalid,
    ForeignMac,
    ArpMalformed,
    Ipv4Truncated,
    Ipv4Malformed,
    Ipv4Checksum,
    Ipv4SourceRoute,
    Fragment,
    TransportTruncated,
    TransportMalformed,
    OuterFragment,
    OuterUdpChecksum,
    VxlanMalformed,
    VniUnknown,
    InnerForeignMac,
    TunnelArp,
    CongestionNotCapable,
    ArpConflict,
    ArpUnanswered,
    BridgeSamePort,
    BridgeNoPort,
    FloodNoRoom,
    MartianSource,
    MartianDestination,
    Multicast,
    TcpInvalid,
    IcmpErrorTracked,
    IcmpErrorUntracked,
    IcmpUnsolicited,
    IcmpTypeUnsupported,
    FlowTableFull,
    ServiceIcmp,
    ServiceProtocol,
    ServiceUnknownPort,
    ServiceUnknownAddress,
    ServiceNoBackend,
    /// For a load balancer's IP, from a source that its ranges leave out.
    ServiceSourceRange,
    /// Under a local policy, and all backends are on other nodes.
    ServiceNoLocalBackend,
    NoRoute,
    TtlExceeded,
    MtuExceeded,
    NeighbourUnresolved,
    SnatPortsExhausted,
    HeadroomExhausted,
    IcmpRateLimited,
    IcmpNotAllowed,
    HostRateLimited,
    HostAbsent,
    HandOffLoop,
}

use DropReason::*;

/// Every reason in the order of its code, with stage, name and meaning.
pub const CATALOGUE: &[(DropReason, &str, &str, &str)] = &[
    (Segmented, "parse", "segmented", "The device delivered the packet in several buffers."),
    (EthernetTruncated, "parse", "ethernet_truncated", "Shorter than an Ethernet header."),
    (VlanTag, "parse", "vlan_tag", "Carries a VLAN tag; none is configured."),
    (EtherTypeUnsupported, "parse", "ether_type_unsupported", "Neither IPv4 nor ARP, and not to be bridged."),
    (SourceMacInvalid, "parse", "source_mac_invalid", "The source MAC is a group's or all zero."),
    (ForeignMac, "parse", "foreign_mac", "Addressed to another station's MAC."),
    (ArpMalformed, "parse", "arp_malformed", "Truncated, or not ARP for IPv4 over Ethernet."),
    (Ipv4Truncated, "parse", "ipv4_truncated", "Shorter than its IPv4 header says."),
    (Ipv4Malformed, "parse", "ipv4_malformed", "Wrong version, header length or total length."),
    (Ipv4Checksum, "parse", "ipv4_checksum", "The IPv4 header's checksum is wrong."),
    (Ipv4SourceRoute, "parse", "ipv4_source_route", "Carries a source route option (RFC 7126, section 4.3)."),
    (Fragment, "parse", "fragment", "One fragment of a datagram."),
    (TransportTruncated, "parse", "transport_truncated", "Too short for its transport header."),
    (
        TransportMalformed,
        "parse",
        "transport_malformed",
        "The transport header contradicts itself or the packet's length.",
    ),
    (OuterFragment, "parse", "outer_fragment", "One fragment of a VXLAN datagram."),
    (OuterUdpChecksum, "parse", "outer_udp_checksum", "The outer UDP checksum is given and wrong."),
    (VxlanMalformed, "parse", "vxlan_malformed", "Truncated, or without the flag that a VNI is there."),
    (VniUnknown, "vxlan_decap", "vni_unknown", "A VNI that is not configured."),
    (
        InnerForeignMac,
        "vxlan_decap",
        "inner_foreign_mac",
        "The inner frame is for another MAC than the VTEP's.",
    ),
    (TunnelArp, "vxlan_decap", "tunnel_arp", "ARP inside the tunnel, where all neighbours are static."),
    (
        CongestionNotCapable,
        "vxlan_decap",
        "congestion_not_capable",
        "Marked congested outside, not ECN-capable inside (RFC 6040, section 4.2).",
    ),
    (ArpConflict, "arp", "arp_conflict", "Another station claims one of the gateway's addresses (RFC 5227)."),
    (ArpUnanswered, "arp", "arp_unanswered", "A request for an address that is not the gateway's."),
    (
        BridgeSamePort,
        "fdb_lookup",
        "bridge_same_port",
        "The bridged frame's destination is behind the port it came from.",
    ),
    (BridgeNoPort, "fdb_lookup", "bridge_no_port", "Nothing to flood the bridged frame to."),
    (
        FloodNoRoom,
        "fdb_lookup",
        "flood_no_room",
        "No place or buffer for another copy of a flooded frame; counted on the original.",
    ),
    (MartianSource, "validate", "martian_source", "A source address that no packet may have here."),
    (MartianDestination, "validate", "martian_destination", "A destination that is never forwarded."),
    (Multicast, "validate", "multicast", "To a multicast or broadcast address, or MAC."),
    (TcpInvalid, "conntrack", "tcp_invalid", "TCP flags that fit no state of the connection."),
    (
        IcmpErrorTracked,
        "conntrack",
        "icmp_error_tracked",
        "An ICMP error about a tracked flow; translating them is not built yet.",
    ),
    (IcmpErrorUntracked, "conntrack", "icmp_error_untracked", "An ICMP error about nothing that is tracked."),
    (IcmpUnsolicited, "conntrack", "icmp_unsolicited", "An echo reply to no request."),
    (
        IcmpTypeUnsupported,
        "conntrack",
        "icmp_type_unsupported",
        "An ICMP message that is no echo and no error.",
    ),
    (
        FlowTableFull,
        "conntrack",
        "flow_table_full",
        "No place for another flow, none could be evicted, and the packet needs one.",
    ),
    (ServiceIcmp, "dnat", "service_icmp", "ICMP to a service's address: a service is rules, not a host."),
    (ServiceProtocol, "dnat", "service_protocol", "A protocol without ports to a service's address."),
    (
        ServiceUnknownPort,
        "dnat",
        "service_unknown_port",
        "To a service's address at a port it does not have; rejected.",
    ),
    (
        ServiceUnknownAddress,
        "dnat",
        "service_unknown_address",
        "To an address of the service network that no service has.",
    ),
    (
        ServiceNoBackend,
        "dnat",
        "service_no_backend",
        "To a service without backends, or whose backend is a service's address; rejected.",
    ),
    (
        ServiceSourceRange,
        "dnat",
        "service_source_range",
        "To a load balancer's IP from outside its loadBalancerSourceRanges.",
    ),
    (
        ServiceNoLocalBackend,
        "dnat",
        "service_no_local_backend",
        "Under a local traffic policy, to a service whose backends are all on other nodes.",
    ),
    (NoRoute, "route_lookup", "no_route", "No route to the destination."),
    (TtlExceeded, "route_lookup", "ttl_exceeded", "The hop limit is used up; answered with time exceeded."),
    (
        MtuExceeded,
        "route_lookup",
        "mtu_exceeded",
        "Larger than the way out takes; answered with fragmentation needed if DF is set.",
    ),
    (
        NeighbourUnresolved,
        "neighbour",
        "neighbour_unresolved",
        "The next hop did not answer, or too many packets wait for it.",
    ),
    (SnatPortsExhausted, "snat_mark", "snat_ports_exhausted", "No free source port to masquerade with."),
    (HeadroomExhausted, "apply", "headroom_exhausted", "No room in front of the packet for its new headers."),
    (IcmpRateLimited, "reject", "icmp_rate_limited", "An ICMP error was due, but the limit was reached."),
    (
        IcmpNotAllowed,
        "reject",
        "icmp_not_allowed",
        "An ICMP error was due, but none may be sent about such a packet (RFC 1122, section 3.2.2).",
    ),
    (HostRateLimited, "host", "host_rate_limited", "For the host's own stack, above its rate limit."),
    (
        HostAbsent,
        "host",
        "host_absent",
        "For the host's own stack, from itself or without an exception port.",
    ),
    (HandOffLoop, "ownership", "hand_off_loop", "Handed from worker to worker without finding its owner."),
];

impl DropReason {
    /// The number under which the engine counts it.
    #[inline(always)]
    pub fn code(self) -> u16 {
        ENGINE_REASONS + self as u16
    }
}

/// Counters that a worker needs for drop reasons, the engine's and the gateway's.
pub const REASON_COUNT: usize = ENGINE_REASONS as usize + CATALOGUE.len();

/// Stage and name of a reason by its number.
pub fn describe(code: u16) -> (&'static str, &'static str, &'static str) {
    match code.checked_sub(ENGINE_REASONS) {
        None => engine::worker::describe_reason(code),
        Some(own) => CATALOGUE
            .get(usize::from(own))
            .map_or(("unknown", "unknown", "not a reason"), |row| (row.1, row.2, row.3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_is_in_the_order_of_codes_with_unique_names() {
        let mut names = std::collections::HashSet::new();
        for (place, (reason, stage, name, meaning)) in CATALOGUE.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{name}");
            assert!(names.insert(name), "{name} twice");
            assert_eq!(describe(reason.code()), (*stage, *name, *meaning));
        }
    }
}
