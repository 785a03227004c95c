//! Manifests of the scenarios, and the gateway that they are for.

use crate::support::{World, reference};

/// Node 1, which the gateway stands for, and node 2, each in a zone of its own.
pub const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: node-1, labels: { topology.kubernetes.io/zone: east } }
spec: { podCIDR: 172.30.76.0/24 }
status: { addresses: [{ type: InternalIP, address: 192.168.0.21 }, { type: Hostname, address: node-1 }] }
---
apiVersion: v1
kind: Node
metadata: { name: node-2, labels: { topology.kubernetes.io/zone: west } }
spec: { podCIDR: 172.30.9.0/24 }
status: { addresses: [{ type: InternalIP, address: 192.168.0.22 }] }
"#;

/// The reference cluster's node 1 without any service.
pub fn gateway() -> String {
    let text = reference().replace("capacity = 65536", "capacity = 4096");
    let start = text.find("[[service]]").expect("the first service");
    let end = text.find("[[neighbours]]\ninterface = \"docker0\"").expect("what comes behind the services");
    format!("{}{}", &text[..start], &text[end..])
}

/// That gateway with other `[services]` settings as well.
pub fn gateway_with(settings: &str) -> String {
    gateway().replace("snat_port_range = \"32768-60999\"", settings)
}

/// A world of these manifests, in one file that is called `services`.
pub fn world(manifests: &str) -> World {
    world_of(&gateway(), manifests, 1, 1)
}

pub fn world_of(text: &str, manifests: &str, worker_count: usize, seed: u64) -> World {
    World::with_manifests(text, &[("nodes", NODES), ("services", manifests)], worker_count, seed)
}

/// A Service `default/NAME`. `ports` are `name/protocol/port` or `name/protocol/port/nodePort` (an empty name: none);
/// `more` goes on in the spec, two blanks deep, and may go on behind it.
pub fn service(name: &str, cluster_ip: &str, ports: &[&str], more: &str) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {cluster_ip}\n  ports:\n"
    );
    for port in ports {
        let parts: Vec<&str> = port.split('/').collect();
        let name = if parts[0].is_empty() { String::new() } else { format!("name: {}, ", parts[0]) };
        let node_port = parts.get(3).map(|port| format!(", nodePort: {port}")).unwrap_or_default();
        text += &format!("    - {{ {name}protocol: {}, port: {}{node_port} }}\n", parts[1], parts[2]);
    }
    text + more + "\n"
}

/// An EndpointSlice of `default/SERVICE`. `ports` are `name/protocol/port`; each endpoint is its address and what else
/// there is to say, as in `172.30.76.7 node=node-1 ready=false serving=true terminating=true zone=east hint=node-1`.
pub fn slice(service: &str, name: &str, ports: &[&str], endpoints: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels:\n    \
         kubernetes.io/service-name: {service}\naddressType: IPv4\nports:\n"
    );
    for port in ports {
        let parts: Vec<&str> = port.split('/').collect();
        let name = if parts[0].is_empty() { "\"\"" } else { parts[0] };
        text += &format!("  - {{ name: {name}, protocol: {}, port: {} }}\n", parts[1], parts[2]);
    }
    text += if endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" };
    for endpoint in endpoints {
        let mut words = endpoint.split(' ');
        text += &format!("  - addresses: [{}]\n", words.next().expect("an address"));
        let mut conditions = Vec::new();
        let mut hints = Vec::new();
        for word in words {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "node" => text += &format!("    nodeName: {value}\n"),
                "zone" => hints.push(format!("forZones: [{{ name: {value} }}]")),
                "hint" => hints.push(format!("forNodes: [{{ name: {value} }}]")),
                _ => conditions.push(format!("{key}: {value}")),
            }
        }
        if !conditions.is_empty() {
            text += &format!("    conditions: {{ {} }}\n", conditions.join(", "));
        }
        if !hints.is_empty() {
            text += &format!("    hints: {{ {} }}\n", hints.join(", "));
        }
    }
    text
}
