//! Services: virtual IPs that are nobody's address, and node ports that nothing else uses.

use core::net::Ipv4Addr;
use std::collections::HashMap;

use crate::control::config::draft::{Draft, Service};
use crate::control::config::model::{InterfaceName, Protocol};
use crate::control::config::notes::{At, Notes};

use super::{Connected, connected, own_addresses};

pub(super) fn check(draft: &Draft, notes: &Notes) {
    check_virtual_ips(draft, notes);
    check_unique_ports(draft, notes);
    check_node_ports(draft, notes);
    check_tunnel_port(draft, notes);
    check_snat_address(draft, notes);
    let addresses = &draft.node.addresses;
    for prefix in &draft.settings.node_port_addresses {
        let covers = |address: &At<Ipv4Addr>| prefix.value.contains(u32::from(address.value));
        if !addresses.iter().any(covers) && notes.all_read(&["node"]) {
            notes.warning(
                prefix.offset,
                format!("no address of the node is in {}", prefix.value),
                "name a prefix that holds one of `[node] addresses`",
            );
        }
    }
}

pub(super) fn name(service: &Service) -> String {
    let text = |name: &Option<At<String>>| name.as_ref().map_or("?".to_owned(), |name| name.value.clone());
    format!("{}/{}", text(&service.namespace), text(&service.name))
}

fn check_virtual_ips(draft: &Draft, notes: &Notes) {
    let own: HashMap<Ipv4Addr, String> = own_addresses(draft).into_iter().collect();
    let connected = connected(draft);
    let cidrs = &draft.settings.service_cidrs;
    let cidrs_read = notes.all_read(&["services"]);
    for service in &draft.services {
        let Some(address) = service.cluster_ip else { continue };
        if let Some(whose) = own.get(&address.value) {
            notes.error(
                address.offset,
                format!("cluster IP {} is the gateway's own address ({whose})", address.value),
                "use an address of the service network",
            );
            continue;
        }
        if cidrs.iter().any(|cidr| cidr.value.contains(u32::from(address.value))) {
            // A service network that overlaps others has been noted as a whole.
            continue;
        }
        let in_network = check_not_in_network(draft, &connected, address, notes);
        if !in_network && !cidrs.is_empty() && cidrs_read {
            let list: Vec<String> = cidrs.iter().take(4).map(|cidr| cidr.value.to_string()).collect();
            notes.warning(
                address.offset,
                format!("cluster IP {} is outside `service_cidrs`", address.value),
                format!("use an address in {}, or add its prefix there", list.join(" or ")),
            );
        }
    }
}

/// Notes a virtual IP among the addresses of pods or neighbours; says whether it was.
fn check_not_in_network(
    draft: &Draft,
    connected: &[Connected<'_>],
    address: At<Ipv4Addr>,
    notes: &Notes,
) -> bool {
    let number = u32::from(address.value);
    if let Some(link) = connected.iter().find(|link| link.network.value.prefix.contains(number)) {
        let wrong = format!(
            "cluster IP {} is in the network of `{}`, {}",
            address.value, link.name, link.network.value.prefix
        );
        if link.interface == InterfaceName::Bridge {
            notes.error(
                address.offset,
                wrong,
                "use an address of the service network: a pod can have this one",
            );
        } else {
            let right = "use an address of the service network: hosts there ask for this one by ARP, and nobody answers";
            notes.warning(address.offset, wrong, right);
        }
        return true;
    }
    let pod_network = draft.overlay.as_ref().and_then(|overlay| overlay.pod_network);
    if let Some(network) = pod_network.filter(|network| network.value.contains(number)) {
        notes.error(
            address.offset,
            format!("cluster IP {} is in the pod network {}", address.value, network.value),
            "use an address of the service network: a pod can have this one",
        );
        return true;
    }
    false
}

/// Each virtual IP and port, and each node port, leads to one service.
fn check_unique_ports(draft: &Draft, notes: &Notes) {
    let mut virtual_ports: HashMap<(Ipv4Addr, Protocol, u16), &Service> = HashMap::new();
    let mut node_ports: HashMap<(Protocol, u16), &Service> = HashMap::new();
    for service in &draft.services {
        for port in &service.ports {
            let Some(protocol) = port.protocol.map(|protocol| protocol.value) else { continue };
            if let (Some(address), Some(number)) = (service.cluster_ip, port.port)
                && let Some(other) = virtual_ports.insert((address.value, protocol, number.value), service)
            {
                let wrong = format!(
                    "{}:{} over {} is there already, in service {}",
                    address.value,
                    number.value,
                    protocol_name(protocol),
                    name(other)
                );
                notes.error(number.offset, wrong, "use another port or another cluster IP");
            }
            if let Some(number) = port.node_port
                && let Some(other) = node_ports.insert((protocol, number.value), service)
            {
                let wrong = format!(
                    "node port {} over {} is there already, in service {}",
                    number.value,
                    protocol_name(protocol),
                    name(other)
                );
                notes.error(number.offset, wrong, "use another node port");
            }
        }
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn check_node_ports(draft: &Draft, notes: &Notes) {
    let settings = &draft.settings;
    let mut first = None;
    for port in draft.services.iter().flat_map(|service| &service.ports).filter_map(|port| port.node_port) {
        first = first.or(Some(port));
        if let Some(range) = settings.snat_port_range.filter(|range| range.value.contains(port.value)) {
            notes.error(
                port.offset,
                format!("node port {} is inside `snat_port_range` {}", port.value, range.value),
                "move one: an answer to a masqueraded connection would be taken for the node port's",
            );
        } else if let Some(range) = settings.node_port_range.filter(|range| !range.value.contains(port.value))
        {
            notes.error(
                port.offset,
                format!("node port {} is outside `node_port_range` {}", port.value, range.value),
                format!("use one of {}, or widen `[services] node_port_range`", range.value),
            );
        }
    }
    if let Some(port) = first.filter(|_| draft.node.addresses.is_empty() && notes.all_read(&["node"])) {
        notes.warning(
            port.offset,
            "there are node ports, but the node has no address for them to listen on",
            "add it, as in `[node] addresses = [\"192.168.0.21\"]`",
        );
    }
}

/// VXLAN arrives on the node's own address, where node ports and masqueraded connections are too.
fn check_tunnel_port(draft: &Draft, notes: &Notes) {
    let Some(port) = draft.overlay.as_ref().and_then(|overlay| overlay.udp_port) else { return };
    let settings = &draft.settings;
    for (key, range) in
        [("node_port_range", settings.node_port_range), ("snat_port_range", settings.snat_port_range)]
    {
        if let Some(range) = range.filter(|range| range.value.contains(port.value)) {
            notes.error(
                port.offset,
                format!("the overlay's `udp_port` {} is inside `{key}` {}", port.value, range.value),
                "use another port, 8472 (Linux) or 4789 (RFC 7348), or move the range",
            );
        }
    }
}

fn check_snat_address(draft: &Draft, notes: &Notes) {
    let Some(address) = draft.settings.snat_address else { return };
    let is_own = own_addresses(draft).iter().any(|(own, _)| *own == address.value);
    let virtual_ip =
        draft.services.iter().find(|service| service.cluster_ip.is_some_and(|ip| ip.value == address.value));
    if let Some(service) = virtual_ip {
        notes.error(
            address.offset,
            format!("`snat_address` {} is the cluster IP of service {}", address.value, name(service)),
            "use an address of the node, or leave it out",
        );
    } else if !is_own && notes.all_read(&["node", "ports", "bridge", "overlay"]) {
        notes.warning(
            address.offset,
            format!("`snat_address` {} is no address of the gateway", address.value),
            "add it to `[node] addresses`, and see that answers to it are routed here",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    #[test]
    fn virtual_ips_are_nobodys_address() {
        let ip = "cluster_ip = \"10.254.80.22\"";
        for own in ["192.168.0.21", "172.30.76.1", "172.30.76.0"] {
            let at = format!("\"{own}\"");
            let expected = ("error", at.as_str(), "service[0].cluster_ip", "is the gateway's own address");
            expect_one(ip, &format!("cluster_ip = {at}"), expected);
        }
        let one = |address: &str, severity, said| {
            let at = format!("\"{address}\"");
            expect_one(ip, &format!("cluster_ip = {at}"), (severity, &at, "service[0].cluster_ip", said));
        };
        one("172.30.76.40", "error", "is in the network of `docker0`, 172.30.76.0/24");
        one("172.30.40.40", "error", "is in the pod network 172.30.0.0/16");
        one("192.168.0.40", "warning", "hosts there ask for this one by ARP, and nobody answers");
        one("10.253.0.1", "warning", "is outside `service_cidrs`; use an address in 10.254.0.0/16");
    }

    #[test]
    fn ports_lead_to_one_service() {
        let text = changed(&[
            ("cluster_ip = \"10.254.80.22\"", "cluster_ip = \"10.254.116.224\""),
            ("port = 80", "port = 50051"),
        ]);
        let said = "10.254.116.224:50051 over TCP is there already, in service default/business-manager";
        expect(&text, &[("error", "50051", "service[1].ports[0].port", said)]);
        expect_one(
            "node_port = 31522",
            "node_port = 30799",
            (
                "error",
                "30799",
                "service[4].ports[1].node_port",
                "in service ingress-nginx/ingress-nginx; use another",
            ),
        );
    }

    #[test]
    fn node_ports_are_in_their_range_and_no_other() {
        expect_one(
            "node_port = 30799",
            "node_port = 32800",
            ("error", "32800", "service[4].ports[0].node_port", "is inside `snat_port_range` 32768-60999"),
        );
        expect_one(
            "node_port = 30799",
            "node_port = 29999",
            ("error", "29999", "service[4].ports[0].node_port", "is outside `node_port_range` 30000-32767"),
        );
        expect_one(
            "udp_port = 8472",
            "udp_port = 40000",
            ("error", "40000", "overlay.udp_port", "is inside `snat_port_range` 32768-60999"),
        );
    }

    #[test]
    fn node_ports_have_addresses() {
        expect_one(
            "addresses = [\"192.168.0.21\"]",
            "addresses = []",
            ("warning", "30799", "service[4].ports[0].node_port", "add it, as in `[node] addresses"),
        );
        expect_one(
            "node_port_range =",
            "node_port_addresses = [\"192.168.0.0/24\", \"10.0.0.0/8\"]\nnode_port_range =",
            (
                "warning",
                "\"10.0.0.0/8\"",
                "services.node_port_addresses[1]",
                "no address of the node is in 10.0.0.0/8",
            ),
        );
    }

    #[test]
    fn masquerading_uses_an_address_of_the_gateway() {
        let with = |address| format!("snat_address = \"{address}\"\nnode_port_range =");
        expect(&changed(&[("node_port_range =", &with("192.168.0.21"))]), &[]);
        expect_one(
            "node_port_range =",
            &with("10.254.0.1"),
            (
                "error",
                "\"10.254.0.1\"",
                "services.snat_address",
                "is the cluster IP of service default/kubernetes",
            ),
        );
        expect_one(
            "node_port_range =",
            &with("192.168.0.99"),
            ("warning", "\"192.168.0.99\"", "services.snat_address", "is no address of the gateway"),
        );
    }
}
