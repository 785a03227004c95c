//! The rules of kube-proxy's nftables mode, as text for `nft -f`. Tables, chains, maps, sets and the order of rules are
//! those of kubernetes 1.34 and 1.35 (pkg/proxy/nftables/proxier.go: setupNFTables, syncProxyRules; the rules as a whole
//! stand in proxier_test.go, baseRules and TestOverallNFTablesRules). Names are without its hashes.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::kube_proxy::{ProxiedPort, Settings};

/// setupNFTables, for a node whose node ports are on its primary addresses (`--nodeport-addresses=primary`). What comes
/// in the maps and chains of services follows it.
const SKELETON: &str = r"
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; }
    set nodeport-ips { type ipv4_addr; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }

    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain masquerading {
        mark and 0x4000 == 0 return
        mark set mark xor 0x4000
        masquerade fully-random
    }
    chain reject-chain { reject; }
    chain cluster-ips-check {
        ip daddr @cluster-ips reject
        ip daddr { SERVICE_CIDRS } drop
    }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check {
        ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
    }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }

    chain filter-prerouting-pre-dnat {
        type filter hook prerouting priority -110;
        ct state new jump firewall-check
    }
    chain filter-output-pre-dnat {
        type filter hook output priority -110;
        ct state new jump firewall-check
    }
    chain filter-input {
        type filter hook input priority 0;
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
    }
    chain filter-forward {
        type filter hook forward priority 0;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output {
        type filter hook output priority 0;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

/// All rules for these services. `node_addresses` are the node's primary ones.
pub(crate) fn ruleset(
    ports: &[ProxiedPort],
    settings: &Settings,
    service_cidr: &str,
    node_addresses: &[Ipv4Addr],
) -> String {
    let mut rules = Rules(SKELETON.replace("SERVICE_CIDRS", service_cidr));
    for address in node_addresses {
        rules.element("nodeport-ips", address);
    }
    let mut cluster_ips: Vec<Ipv4Addr> = ports.iter().map(|port| port.cluster_ip).collect();
    cluster_ips.sort();
    cluster_ips.dedup();
    for address in cluster_ips {
        rules.element("cluster-ips", &address);
    }
    for port in ports {
        Chains::of(port, settings, node_addresses).write(&mut rules);
    }
    rules.0
}

struct Rules(String);

impl Rules {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("text takes it");
    }

    fn chain(&mut self, chain: &str) {
        self.line(format_args!("add chain ip kube-proxy {chain}"));
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        self.line(format_args!("add rule ip kube-proxy {chain} {rule}"));
    }

    fn element(&mut self, set: &str, element: &dyn std::fmt::Display) {
        self.line(format_args!("add element ip kube-proxy {set} {{ {element} }}"));
    }
}

/// The chains and verdicts of one service port.
struct Chains<'a> {
    port: &'a ProxiedPort,
    settings: &'a Settings,
    node_addresses: &'a [Ipv4Addr],
    cluster: String,
    local: String,
    external: String,
    firewall: String,
    has_internal: bool,
    has_external: bool,
}

impl<'a> Chains<'a> {
    fn of(port: &'a ProxiedPort, settings: &'a Settings, node_addresses: &'a [Ipv4Addr]) -> Self {
        let sets = &port.endpoints;
        Chains {
            port,
            settings,
            node_addresses,
            cluster: format!("service-{}", port.name),
            local: format!("local-{}", port.name),
            external: format!("external-{}", port.name),
            firewall: format!("firewall-{}", port.name),
            has_internal: sets.any && !(port.internal_local && sets.local.is_empty()),
            has_external: sets.any && !(port.external_local && sets.local.is_empty()),
        }
    }

    fn write(&self, rules: &mut Rules) {
        // Whether or not something is to be in them; kube-proxy makes those alone that it fills.
        rules.chain(&self.cluster);
        rules.chain(&self.local);
        self.write_endpoints(rules);
        let internal = if self.port.internal_local { &self.local } else { &self.cluster };
        if self.has_internal {
            self.write_cluster_ip_masquerade(internal, rules);
        }
        if self.port.endpoints.any && self.port.is_external() {
            rules.chain(&self.external);
            self.write_external(rules);
        }
        self.write_choice(&self.cluster, &self.port.endpoints.cluster, rules);
        self.write_choice(&self.local, &self.port.endpoints.local, rules);
        self.write_elements(internal, rules);
    }

    /// Chains of endpoints: hairpin, affinity, and the address.
    fn write_endpoints(&self, rules: &mut Rules) {
        let sets = &self.port.endpoints;
        let mut reachable = [sets.cluster.clone(), sets.local.clone()].concat();
        reachable.sort();
        reachable.dedup();
        for endpoint in reachable {
            let chain = self.endpoint_chain(&endpoint);
            rules.chain(&chain);
            rules.rule(&chain, &format!("ip saddr {} jump mark-for-masquerade", endpoint.ip()));
            if let Some(seconds) = self.port.sticky_s {
                let set = self.affinity_set(&endpoint);
                rules.line(format_args!(
                    "add set ip kube-proxy {set} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"
                ));
                rules.rule(&chain, &format!("update @{set} {{ ip saddr }}"));
            }
            rules.rule(&chain, &format!("meta l4proto {} dnat to {endpoint}", self.port.protocol));
        }
    }

    /// writeServiceToEndpointRules.
    fn write_choice(&self, chain: &str, endpoints: &[SocketAddrV4], rules: &mut Rules) {
        if endpoints.is_empty() {
            return;
        }
        if self.port.sticky_s.is_some() {
            for endpoint in endpoints {
                let (set, goto) = (self.affinity_set(endpoint), self.endpoint_chain(endpoint));
                rules.rule(chain, &format!("ip saddr @{set} goto {goto}"));
            }
        }
        let places = endpoints.iter().enumerate();
        let choices: Vec<String> = places
            .map(|(place, endpoint)| format!("{place} : goto {}", self.endpoint_chain(endpoint)))
            .collect();
        rules
            .rule(chain, &format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), choices.join(", ")));
    }

    /// Only for the cluster IP itself: what comes through the external chain passes here too.
    fn write_cluster_ip_masquerade(&self, chain: &str, rules: &mut Rules) {
        let port = self.port;
        let is_ours = format!("ip daddr {} {} dport {}", port.cluster_ip, port.protocol, port.port);
        if self.settings.masquerade_all {
            rules.rule(chain, &format!("{is_ours} jump mark-for-masquerade"));
        } else if let Some(cidr) = self.settings.pod_cidr {
            rules.rule(chain, &format!("{is_ours} ip saddr != {cidr} jump mark-for-masquerade"));
        }
    }

    fn write_external(&self, rules: &mut Rules) {
        let chain = &self.external;
        if self.port.external_local {
            if let Some(cidr) = self.settings.pod_cidr {
                rules.rule(chain, &format!("ip saddr {cidr} goto {}", self.cluster));
            }
            rules.rule(chain, "fib saddr type local jump mark-for-masquerade");
            rules.rule(chain, &format!("fib saddr type local goto {}", self.cluster));
        } else {
            rules.rule(chain, "jump mark-for-masquerade");
        }
        if self.has_external {
            let policy = if self.port.external_local { &self.local } else { &self.cluster };
            rules.rule(chain, &format!("goto {policy}"));
        }
    }

    /// Who is sent where: the maps that the skeleton's chains look into.
    fn write_elements(&self, internal: &str, rules: &mut Rules) {
        let port = self.port;
        let service = |address: &Ipv4Addr| format!("{address} . {} . {}", port.protocol, port.port);
        // None anywhere: reject; some, but none for this policy: drop.
        let refusal = if port.endpoints.any { "drop" } else { "goto reject-chain" };
        if self.has_internal {
            let goto = format!("{} : goto {internal}", service(&port.cluster_ip));
            rules.element("service-ips", &goto);
        } else {
            rules.element("no-endpoint-services", &format!("{} : {refusal}", service(&port.cluster_ip)));
        }
        let addresses: Vec<&Ipv4Addr> = port.external_ips.iter().chain(&port.balancer_ips).collect();
        for address in addresses {
            if port.endpoints.any {
                rules.element("service-ips", &format!("{} : goto {}", service(address), self.external));
            }
            if !self.has_external {
                rules.element("no-endpoint-services", &format!("{} : {refusal}", service(address)));
            }
        }
        if port.node_port != 0 {
            let key = format!("{} . {}", port.protocol, port.node_port);
            if port.endpoints.any {
                rules.element("service-nodeports", &format!("{key} : goto {}", self.external));
            }
            if !self.has_external {
                rules.element("no-endpoint-nodeports", &format!("{key} : {refusal}"));
            }
        }
        if !port.balancer_ips.is_empty() && !port.source_ranges.is_empty() {
            self.write_firewall(rules);
            for address in &port.balancer_ips {
                rules.element("firewall-ips", &format!("{} : goto {}", service(address), self.firewall));
            }
        }
    }

    /// loadBalancerSourceRanges. Where the node itself may, so may its packets with a load balancer's address as source.
    fn write_firewall(&self, rules: &mut Rules) {
        let mut sources = self.port.source_ranges.clone();
        let node = self.node_addresses.first();
        if sources.iter().any(|range| node.is_some_and(|node| is_within(*node, range))) {
            sources.extend(self.port.balancer_ips.iter().map(Ipv4Addr::to_string));
        }
        rules.chain(&self.firewall);
        rules.rule(&self.firewall, &format!("ip saddr != {{ {} }} drop", sources.join(", ")));
    }

    fn endpoint_chain(&self, endpoint: &SocketAddrV4) -> String {
        format!("endpoint-{}__{}/{}", self.port.name, endpoint.ip(), endpoint.port())
    }

    fn affinity_set(&self, endpoint: &SocketAddrV4) -> String {
        format!("affinity-{}__{}/{}", self.port.name, endpoint.ip(), endpoint.port())
    }
}

fn is_within(address: Ipv4Addr, range: &str) -> bool {
    let (base, length) = range.split_once('/').expect("a range has a length");
    let base: Ipv4Addr = base.parse().expect("a range has an address");
    let length: u32 = length.parse().expect("a length is a number");
    let difference = u32::from(address) ^ u32::from(base);
    difference.checked_shr(32 - length).unwrap_or(0) == 0
}
