//! Writes the Pollgate configuration that fits a generator's: the node at the other end of its tunnel, with the same
//! services. So one file describes a test, and both ends agree.

use core::fmt::Write as _;
use core::net::Ipv4Addr;

use crate::config::Configuration;
use crate::link::{Link, Tunnel};

/// Backends written for one service at the most.
const BACKENDS_MAX: usize = 1_024;
/// The overlay's address where no masquerade says which: node 1's in the reference cluster.
const OVERLAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 76, 0);
/// The generator's end of the overlay: node 2's in the reference cluster.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(172, 30, 9, 0);

/// What a gateway's file says besides what the generator's does.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The gateway's device: the other end of ours.
    pub device: String,
    /// Flows that it has room for.
    pub capacity: u64,
    /// The core of its worker.
    pub core: usize,
    /// The core of its control thread.
    pub control_core: usize,
    /// Where it answers questions.
    pub socket: Option<String>,
    /// `auto`, `huge` or `none`.
    pub memory: String,
}

/// Why no file can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayConfigError {
    /// The shape is another.
    #[error(
        "only for one port with [ports.vxlan] can the gateway's configuration be written; write another by hand"
    )]
    Shape,
    /// Nothing to route to.
    #[error("the ends of the tunnel, {0} and {1}, share no network of a host's size")]
    Network(Ipv4Addr, Ipv4Addr),
    /// Too many backends.
    #[error("a service has more than {BACKENDS_MAX} backends")]
    Backends,
}

/// The file's text.
pub fn gateway_config(
    configuration: &Configuration,
    link: &Link,
    options: &GatewayOptions,
) -> Result<String, GatewayConfigError> {
    let Some(tunnel) = &link.tunnel else { return Err(GatewayConfigError::Shape) };
    if configuration.ports.len() != 1 {
        return Err(GatewayConfigError::Shape);
    }
    let masquerade = configuration.expect.masquerade.first();
    let vtep = masquerade.map_or(OVERLAY_ADDRESS, |range| Ipv4Addr::from(range.at(0)));
    let mut text = machine(options);
    text += &node(link, tunnel, vtep, configuration.ports[0].mtu)?.replace("DEVICE", &options.device);
    let pods = if masquerade.is_some() { format!("\"{vtep}/32\"") } else { String::new() };
    // Writing to a string cannot fail.
    let _ =
        write!(text, "\n[conntrack]\ncapacity = {}\n\n[services]\npod_cidrs = [{pods}]\n", options.capacity);
    for service in &configuration.services {
        let backends = backends(service)?;
        if backends.is_empty() {
            continue;
        }
        for place in 0..service.addresses.count() {
            let address = Ipv4Addr::from(service.addresses.at(place as u32));
            let name = address.to_string().replace('.', "-");
            let _ = write!(text, "\n[[service]]\nname = \"s-{name}\"\ncluster_ip = \"{address}\"\n");
            for protocol in ["udp", "tcp"] {
                let _ = write!(
                    text,
                    "[[service.ports]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nport = {}\nbackends = [{backends}]\n",
                    service.port
                );
            }
        }
    }
    Ok(text)
}

fn machine(options: &GatewayOptions) -> String {
    let socket = options.socket.as_ref().map(|path| format!("socket = \"{path}\"\n")).unwrap_or_default();
    format!(
        "[dpdk]\nmemory = \"{}\"\n\n[workers]\ncores = [{}]\nidle = \"poll\"\nqueue_descriptors = 1024\n\n[control]\n\
         cores = [{}]\nwatch = false\n{socket}",
        options.memory, options.core, options.control_core
    )
}

fn node(link: &Link, tunnel: &Tunnel, vtep: Ipv4Addr, mtu: u16) -> Result<String, GatewayConfigError> {
    let (gateway, generator) = (Ipv4Addr::from(tunnel.remote), Ipv4Addr::from(tunnel.local));
    let length = common_network(tunnel).ok_or(GatewayConfigError::Network(gateway, generator))?;
    let (mac, gateway_mac, vtep_mac, remote_mac) =
        (link.mac, link.gateway_mac, tunnel.gateway_mac, tunnel.mac);
    Ok(format!(
        r#"
[node]
name = "gateway"
addresses = ["{gateway}"]

[[ports]]
name = "eth0"
role = "underlay"
device = "DEVICE"
mac = "{gateway_mac}"
mtu = {mtu}
address = "{gateway}/{length}"

[overlay]
underlay = "eth0"
vni = {vni}
udp_port = {udp_port}
address = "{vtep}"
mac = "{vtep_mac}"
mtu = {inner_mtu}

[[routes]]
destination = "0.0.0.0/0"
via = "{NEXT_HOP}"
interface = "flannel.1"

[[neighbours]]
interface = "flannel.1"
address = "{NEXT_HOP}"
mac = "{remote_mac}"

[[neighbours]]
interface = "eth0"
address = "{generator}"
mac = "{mac}"

[[fdb]]
interface = "flannel.1"
mac = "{remote_mac}"
remote = "{generator}"
"#,
        vni = tunnel.vni,
        udp_port = tunnel.udp_port,
        inner_mtu = mtu.saturating_sub(50),
    ))
}

/// Length of the smallest network in which both ends can be hosts.
fn common_network(tunnel: &Tunnel) -> Option<u32> {
    (8..=30).rev().find(|length| {
        let host_bits = u32::MAX >> length;
        let is_host = |address: u32| address & host_bits != 0 && address & host_bits != host_bits;
        tunnel.local & !host_bits == tunnel.remote & !host_bits
            && is_host(tunnel.local)
            && is_host(tunnel.remote)
    })
}

fn backends(service: &crate::config::Service) -> Result<String, GatewayConfigError> {
    let mut list = Vec::new();
    for range in &service.backends {
        for place in 0..range.addresses.count() {
            if list.len() == BACKENDS_MAX {
                return Err(GatewayConfigError::Backends);
            }
            let address = Ipv4Addr::from(range.addresses.at(place as u32));
            list.push(format!("{{ address = \"{address}:{}\" }}", range.port));
        }
    }
    Ok(list.join(", "))
}
