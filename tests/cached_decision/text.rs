//! The scene's text: a configuration, and the services as Kubernetes objects.

use std::fmt::Write as _;

use crate::scene::{Choice, Forwarding, PLACES, Policy};
use crate::support::{REFERENCE, pod_port};

impl Policy {
    fn settings(&self) -> String {
        let mut text =
            "\n[services]\nservice_cidrs = [\"10.254.0.0/16\"]\nnode_port_range = \"30000-32767\"\n"
                .to_owned();
        let port = self.snat_port.map_or("32768-60999".to_owned(), |port| format!("{port}-{port}"));
        let _ = writeln!(text, "snat_port_range = \"{port}\"\nmasquerade_all = {}", self.masquerade_all);
        if self.has_pod_cidrs {
            text += "pod_cidrs = [\"172.30.76.0/24\"]\n";
        }
        if self.snat_address {
            text += "snat_address = \"172.30.76.0\"\n";
        }
        text
    }

    fn services(&self) -> String {
        let mut text = String::new();
        for (number, (place, offer)) in
            PLACES.iter().zip(&self.offers).enumerate().filter(|(_, pair)| pair.1.is_there)
        {
            let protocol = protocol(place.protocol).to_lowercase();
            let choice = match offer.choice {
                Choice::Random => "",
                Choice::Maglev => "algorithm = \"maglev\"\n",
                Choice::Affinity => "session_affinity_s = 100\n",
            };
            let backends: Vec<String> = self
                .backends(number)
                .iter()
                .map(|(server, weight)| {
                    format!("{{ address = \"{server}:{}\", weight = {weight} }}", place.backend_port)
                })
                .collect();
            let _ = write!(
                text,
                "\n[[service]]\nnamespace = \"default\"\nname = \"s{number}\"\ncluster_ip = \"{}\"\n{choice}\n\
                 [[service.ports]]\nprotocol = \"{protocol}\"\nport = {}\nnode_port = {}\nbackends = [{}]\n",
                place.address,
                place.port,
                place.node_port,
                backends.join(", ")
            );
        }
        text
    }

    /// The services as Kubernetes objects, which know no weights: a server of weight 0 is not there.
    pub fn manifests(&self) -> String {
        let mut text = String::new();
        for (number, (place, offer)) in
            PLACES.iter().zip(&self.offers).enumerate().filter(|(_, pair)| pair.1.is_there)
        {
            let protocol = protocol(place.protocol);
            let annotation = match offer.choice {
                Choice::Maglev => ", annotations: { pollgate.io/algorithm: maglev }",
                _ => "",
            };
            let affinity = if offer.choice == Choice::Affinity { "ClientIP" } else { "None" };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s{number}{annotation} }}\nspec:\n  type: NodePort\n  \
                 clusterIP: {}\n  sessionAffinity: {affinity}\n  ports: [{{ protocol: {protocol}, port: {}, nodePort: {} }}]\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{number}\n  labels: {{ \
                 kubernetes.io/service-name: s{number} }}\naddressType: IPv4\nports: [{{ name: \"\", protocol: {protocol}, \
                 port: {} }}]\nendpoints:",
                place.address, place.port, place.node_port, place.backend_port
            );
            let servers: Vec<String> = self
                .backends(number)
                .into_iter()
                .filter(|(_, weight)| *weight > 0)
                .map(|(server, _)| server)
                .collect();
            text += if servers.is_empty() { " []\n" } else { "\n" };
            for server in servers {
                let _ = writeln!(text, "  - {{ addresses: [{server}] }}");
            }
        }
        text
    }
}

impl Forwarding {
    fn tables(&self) -> String {
        let mut text = String::new();
        let mut route = |destination: &str, via: &str, interface: &str| {
            let _ = write!(
                text,
                "\n[[routes]]\ndestination = \"{destination}\"\nvia = \"{via}\"\ninterface = \"{interface}\"\n"
            );
        };
        let (router, other) =
            if self.by_client { ("192.168.0.50", "192.168.0.1") } else { ("192.168.0.1", "192.168.0.50") };
        let vtep = if self.by_other_vtep { "172.30.9.1" } else { "172.30.9.0" };
        route("0.0.0.0/0", router, "eth0");
        route("172.30.9.0/24", vtep, "flannel.1");
        if self.has_more_specific {
            route("8.8.8.0/24", other, "eth0");
        }
        match self.is_tunnelled {
            true => route("10.99.0.0/16", vtep, "flannel.1"),
            false => route("10.99.0.0/16", other, "eth0"),
        }
        let mut neighbour = |interface: &str, address: &str, mac: &str| {
            let _ = write!(
                text,
                "\n[[neighbours]]\ninterface = \"{interface}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
            );
        };
        let vteps = [format!("96:8f:2d:49:c5:3{}", self.vtep_mac), "96:8f:2d:49:c5:44".to_owned()];
        neighbour("flannel.1", "172.30.9.0", &vteps[0]);
        neighbour("flannel.1", "172.30.9.1", &vteps[1]);
        neighbour("eth0", "192.168.0.1", &format!("02:00:c0:a8:00:0{}", self.router_mac));
        for (address, last) in [("192.168.0.22", 0x22), ("192.168.0.50", 0x50), ("192.168.0.103", 0x67)] {
            neighbour("eth0", address, &format!("02:00:c0:a8:00:{last:02x}"));
        }
        let pod_mac = |last: u8| match last {
            3 => format!("02:42:ac:1e:4{}:03", self.pod_mac),
            last => format!("02:42:ac:1e:4c:{last:02x}"),
        };
        let pods = [7, 6, 5, 3, 2];
        for last in pods {
            neighbour("docker0", &format!("172.30.76.{last}"), &pod_mac(last));
        }
        for last in pods {
            let (mac, port) = (pod_mac(last), pod_port(last));
            let _ = write!(text, "\n[[fdb]]\ninterface = \"docker0\"\nmac = \"{mac}\"\nport = \"{port}\"\n");
        }
        let remotes = [if self.is_elsewhere { "192.168.0.50" } else { "192.168.0.22" }, "192.168.0.22"];
        for (mac, remote) in vteps.iter().zip(remotes) {
            let _ = write!(
                text,
                "\n[[fdb]]\ninterface = \"flannel.1\"\nmac = \"{mac}\"\nremote = \"{remote}\"\n"
            );
        }
        text
    }
}

/// The configuration of both, with the services in it unless they are Kubernetes objects.
pub fn configuration(policy: &Policy, forwarding: &Forwarding, kubernetes: bool) -> String {
    let head = REFERENCE.find("# As flannel writes them").expect("where the routes begin");
    let overlay_mtu = if forwarding.small { 1_400 } else { 1_450 };
    let mut text = REFERENCE[..head]
        .replace("watch = true", "watch = false")
        .replace("masquerade_egress = true", &format!("masquerade_egress = {}", policy.masquerade_egress))
        .replace("send_udp_checksum = false", &format!("send_udp_checksum = {}", forwarding.outer_checksum))
        .replace("8a:22:81:5e:d8:b7\"\nmtu = 1450", &format!("8a:22:81:5e:d8:b7\"\nmtu = {overlay_mtu}"));
    text += "\n[conntrack]\ncapacity = 256\n";
    text += &policy.settings();
    text += &forwarding.tables();
    if !kubernetes {
        text += &policy.services();
    }
    text
}

fn protocol(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => panic!("no service has protocol {number}"),
    }
}
