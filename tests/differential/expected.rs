//! What Kubernetes documents of some of the packets, written by hand: scenario, packet, outcome.

/// The pages are those of kubernetes.io/docs: `Virtual IPs and Service Proxies` (reference/networking/virtual-ips),
/// `Service` and `EndpointSlices` (concepts/services-networking), and the field descriptions of the API.
pub(crate) const EXPECTED: [(&str, &str, &str); 26] = [
    // A cluster IP: one of all endpoints; from outside the pod network masqueraded, and to oneself.
    ("kinds", "tcp 172.30.76.128 > 10.254.1.2:80", "forward 172.30.9.21:8080 172.30.76.21:8080"),
    (
        "kinds",
        "tcp 203.0.113.128 > 10.254.1.2:80",
        "forward 172.30.9.21:8080 masqueraded 172.30.76.21:8080 masqueraded",
    ),
    ("kinds", "tcp 172.30.76.21 > 10.254.1.2:80", "forward 172.30.9.21:8080 172.30.76.21:8080 masqueraded"),
    (
        "kinds no-pod-network",
        "tcp 203.0.113.128 > 10.254.1.2:80",
        "forward 172.30.9.21:8080 172.30.76.21:8080",
    ),
    (
        "kinds masquerade-all",
        "tcp 172.30.76.128 > 10.254.1.2:80",
        "forward 172.30.9.21:8080 masqueraded 172.30.76.21:8080 masqueraded",
    ),
    // Node ports on primary addresses alone (the nftables mode's default).
    (
        "kinds",
        "tcp 192.168.0.128 > 192.168.0.21:30002",
        "forward 172.30.9.21:8080 masqueraded 172.30.76.21:8080 masqueraded",
    ),
    ("kinds", "tcp 192.168.0.128 > 172.30.76.1:30002", "deliver"),
    // ipMode Proxy: the load balancer itself must see the packet.
    ("kinds", "tcp 192.168.0.128 > 198.51.100.24:80", "pass"),
    // externalTrafficPolicy Local keeps the client's address; pods and the node reach all endpoints.
    ("kinds", "tcp 192.168.0.128 > 198.51.100.32:80", "forward 172.30.76.31:8080 172.30.76.32:8080"),
    ("kinds", "tcp 192.168.0.128 > 198.51.100.42:80", "drop"),
    ("kinds", "tcp 172.30.76.128 > 198.51.100.42:80", "forward 172.30.9.41:8080 172.30.9.42:8080"),
    (
        "kinds",
        "tcp 192.168.0.21 > 198.51.100.42:80",
        "forward 172.30.9.41:8080 masqueraded 172.30.9.42:8080 masqueraded",
    ),
    // internalTrafficPolicy Local: this node's endpoints, or none.
    ("kinds", "tcp 172.30.76.128 > 10.254.1.6:80", "forward 172.30.76.61:8080"),
    ("kinds", "tcp 172.30.76.128 > 10.254.1.7:80", "drop"),
    // Nobody serves; a port that no service has; an address that none has.
    ("kinds", "tcp 192.168.0.128 > 198.51.100.102:80", "reject with icmp-port-unreachable"),
    ("kinds", "udp 172.30.76.128 > 10.254.1.1:9", "reject with icmp-port-unreachable"),
    ("kinds", "tcp 172.30.76.128 > 10.254.250.1:9", "drop"),
    // Protocols other than TCP.
    ("protocols", "sctp 172.30.76.128 > 10.254.2.2:3868", "forward 172.30.9.21:3868 172.30.76.21:3868"),
    ("protocols", "udp 172.30.76.128 > 10.254.2.1:53", "forward 172.30.9.11:5353 172.30.76.11:5353"),
    // Endpoints that terminate serve where no ready one is, for each policy by itself.
    ("readiness", "tcp 172.30.76.128 > 10.254.3.3:80", "forward 172.30.9.31:8080 172.30.76.31:8080"),
    ("readiness", "tcp 192.168.0.128 > 192.168.0.21:30204", "forward 172.30.76.41:8080"),
    // loadBalancerSourceRanges.
    ("sources", "tcp 203.0.113.128 > 198.51.100.12:80", "drop"),
    (
        "sources",
        "tcp 192.168.0.128 > 198.51.100.12:80",
        "forward 172.30.9.11:8080 masqueraded 172.30.76.11:8080 masqueraded",
    ),
    // Hints.
    ("topology", "tcp 172.30.76.128 > 10.254.5.1:80", "forward 172.30.9.12:8080 172.30.76.11:8080"),
    ("topology", "tcp 172.30.76.128 > 10.254.5.8:80", "forward 172.30.76.81:8080"),
    // Another proxy's.
    ("odd", "tcp 192.168.0.128 > 198.51.100.3:80", "pass"),
];
