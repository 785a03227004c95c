//! The configuration once it is known to be right: what the rest of the program works with.
//!
//! Built only by `config::load`, which has checked every relation between the parts (names that refer, MTU arithmetic,
//! overlaps). Keys and defaults are documented in docs/configuration.md; addresses are typed, never text.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::path::PathBuf;

use engine::wire::ethernet::MacAddress;

use crate::prefix::Ipv4Prefix;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// `[node]`
    pub node: Node,
    /// `[dpdk]`
    pub dpdk: Dpdk,
    /// `[workers]`
    pub workers: Workers,
    /// `[control]`
    pub control: Control,
    /// `[metrics]`; none: no metrics server.
    pub metrics: Option<Metrics>,
    /// `[[ports]]`, in file order; a port's number is its place here.
    pub ports: Vec<Port>,
    /// `[exception]`; none: what is addressed to the node itself is dropped by name.
    pub exception: Option<Exception>,
    /// `[bridge]`
    pub bridge: Option<Bridge>,
    /// `[overlay]`
    pub overlay: Option<Overlay>,
    /// `[[routes]]`; connected prefixes of the underlay ports and the bridge are added by the build.
    pub routes: Vec<Route>,
    /// `[[neighbours]]`: static ones.
    pub neighbours: Vec<Neighbour>,
    /// `[[fdb]]` of the bridge: static MACs.
    pub bridge_fdb: Vec<BridgeFdb>,
    /// `[[fdb]]` of the overlay.
    pub overlay_fdb: Vec<OverlayFdb>,
    /// `[conntrack]`
    pub conntrack: Conntrack,
    /// `[services]`
    pub service_settings: ServiceSettings,
    /// `[[service]]`
    pub services: Vec<Service>,
}

/// `[node]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The node's name. Default: empty.
    pub name: String,
    /// Every address the node itself owns.
    pub addresses: Vec<Ipv4Addr>,
    /// The ones node ports listen on by default. Default: those of its Node object, else all of `addresses` (empty here).
    pub primary_addresses: Vec<Ipv4Addr>,
}

/// Which memory DPDK runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DpdkMemory {
    /// Hugepages when enough are free, ordinary memory otherwise.
    #[default]
    Auto,
    /// Hugepages, or no start.
    Huge,
    /// Ordinary memory, all of it taken at start.
    None,
}

/// `[dpdk]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dpdk {
    /// `memory`
    pub memory: DpdkMemory,
    /// `buffers`: buffers in the pool. None: derived from queues, rings and bursts.
    pub buffers: Option<u32>,
    /// `extra_arguments`: given to EAL as they are.
    pub extra_arguments: Vec<String>,
}

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// `"poll"`: never sleeps.
    Poll,
    /// `"sleep"`: after some hundred empty polls sleeps, longer and longer up to `idle_sleep_max_us`.
    #[default]
    Sleep,
}

/// `[workers]`
#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// `cores`: one worker, pinned, for each. Default: one worker on the highest core the process may use (empty here).
    pub cores: Vec<usize>,
    /// `idle`
    pub idle: Idle,
    /// `idle_sleep_max_us`. Default: 500.
    pub idle_sleep_max_us: u32,
    /// `burst`: packets received in one call, 1 to 32. Default: 32.
    pub burst: usize,
    /// `handoff_ring`: packets that wait between two workers at the most. Default: 1,024.
    pub handoff_ring: usize,
    /// `queue_descriptors`: descriptors of each receive and transmit queue. Default: 512.
    pub queue_descriptors: u16,
}

/// `[control]`
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// `cores` of the main and control threads. Default: every core that no worker has (empty here).
    pub cores: Vec<usize>,
    /// `socket`: where `pollgate show` asks. None: no socket.
    pub socket: Option<PathBuf>,
    /// `watch`: reload when the file changes. Default: true.
    pub watch: bool,
    /// `manifests`: file or folder of Kubernetes objects, relative to the configuration's own folder. None: no objects.
    pub manifests: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// `listen`: address and port of the HTTP server.
    pub listen: core::net::SocketAddr,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// An L3 port with an address of its own: the node's network, and VXLAN's.
    Underlay,
    /// A member of the bridge, with pods behind it.
    Pod,
}

/// `[[ports]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Unique name; that of the underlay's interface too.
    pub name: String,
    /// What it is for.
    pub role: PortRole,
    /// PCI address (`0000:01:00.0`) or vdev string (`net_tap0,iface=pg0`). None: the configuration serves check,
    /// trace and replay, not run.
    pub device: Option<String>,
    /// MAC; must be given for underlay ports. Pod ports have none of their own.
    pub mac: Option<MacAddress>,
    /// Largest IP packet, in bytes. Default: 1500 for underlay ports, the bridge's for pod ports.
    pub mtu: u16,
    /// Address on the underlay; none for pod ports.
    pub address: Option<Ipv4Addr>,
    /// The prefix that the address was given with.
    pub prefix: Option<Ipv4Prefix>,
}

/// `[exception]`
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// A TAP vdev.
    pub device: String,
    /// Packets a second to the host for each worker. Default: 10,000.
    pub rate_pps: u32,
    /// The gateway's MAC on that link. Default: 02:70:67:00:00:01.
    pub mac: MacAddress,
    /// Packets that wait each way at the most. Default: 512.
    pub ring: usize,
}

/// `[bridge]`
#[derive(Clone, Debug, PartialEq)]
pub struct Bridge {
    /// Interface name. Default: docker0.
    pub name: String,
    /// The pods' gateway.
    pub address: Ipv4Addr,
    /// The pods' prefix.
    pub prefix: Ipv4Prefix,
    /// The bridge's MAC.
    pub mac: MacAddress,
    /// Largest IP packet, in bytes. Default: 1450.
    pub mtu: u16,
    /// Seconds after which a silent MAC is forgotten. Default: 300.
    pub ageing_s: u32,
}

/// `[overlay]`
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// Interface name. Default: flannel.1.
    pub name: String,
    /// Place in `ports` of the underlay port that carries it.
    pub underlay: usize,
    /// Network identifier, 1 to 2^24 - 1. Default: 1.
    pub vni: u32,
    /// UDP destination port. Default: 8472.
    pub udp_port: u16,
    /// The VTEP's address.
    pub address: Ipv4Addr,
    /// The VTEP's MAC.
    pub mac: MacAddress,
    /// Largest inner IP packet, in bytes. Default: 1450.
    pub mtu: u16,
    /// All pods' prefix. None: no egress masquerade is possible.
    pub pod_network: Option<Ipv4Prefix>,
    /// Pods that leave the pod network do so with the node's address. Default: false.
    pub masquerade_egress: bool,
    /// Send outer UDP checksums. Default: false (zero, RFC 7348 section 5).
    pub send_udp_checksum: bool,
}

/// Which interface: an underlay port, the bridge or the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterfaceName {
    /// The underlay port at this place in `ports`.
    Underlay(usize),
    /// The bridge.
    Bridge,
    /// The overlay.
    Overlay,
}

/// `[[routes]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Prefix,
    /// Next hop. None: the destination itself is on the link.
    pub via: Option<Ipv4Addr>,
    /// By which interface.
    pub interface: InterfaceName,
}

/// `[[neighbours]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// On which interface.
    pub interface: InterfaceName,
    /// Whose.
    pub address: Ipv4Addr,
    /// Where.
    pub mac: MacAddress,
}

/// `[[fdb]]` of the bridge.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeFdb {
    /// Which station.
    pub mac: MacAddress,
    /// Place in `ports` of the pod port it is behind.
    pub port: usize,
}

/// `[[fdb]]` of the overlay.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlayFdb {
    /// Which VTEP.
    pub mac: MacAddress,
    /// The node it is on.
    pub remote: Ipv4Addr,
}

/// `[conntrack]`: capacity, and timeouts in seconds by state, with the kernel's names
/// (`nf_conntrack_tcp_timeout_*`, Documentation/networking/nf_conntrack-sysctl.rst) and kube-proxy's values where it
/// sets them (established 86,400, close-wait 3,600).
#[derive(Clone, Debug, PartialEq)]
pub struct Conntrack {
    /// `capacity`: flows tracked by each worker at the most. Default: 65,536.
    pub capacity: usize,
    /// `tcp_syn_sent_s`. Default: 120.
    pub tcp_syn_sent_s: u32,
    /// `tcp_syn_received_s`. Default: 60.
    pub tcp_syn_received_s: u32,
    /// `tcp_established_s`. Default: 86,400.
    pub tcp_established_s: u32,
    /// `tcp_fin_wait_s`. Default: 120.
    pub tcp_fin_wait_s: u32,
    /// `tcp_close_wait_s`. Default: 3,600.
    pub tcp_close_wait_s: u32,
    /// `tcp_last_ack_s`. Default: 30.
    pub tcp_last_ack_s: u32,
    /// `tcp_time_wait_s`. Default: 120.
    pub tcp_time_wait_s: u32,
    /// `tcp_close_s`. Default: 10.
    pub tcp_close_s: u32,
    /// `udp_s`: no answer yet. Default: 30.
    pub udp_s: u32,
    /// `udp_stream_s`: answered. Default: 120.
    pub udp_stream_s: u32,
    /// `icmp_s`. Default: 30.
    pub icmp_s: u32,
    /// `generic_s`: other protocols. Default: 600.
    pub generic_s: u32,
}

/// `[services]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// Pods whose answers pass this gateway by themselves. Other sources are masqueraded to a cluster IP; with none
    /// given, no source is.
    pub pod_cidrs: Vec<Ipv4Prefix>,
    /// Where virtual IPs lie: an address inside that no service has is dropped.
    pub service_cidrs: Vec<Ipv4Prefix>,
    /// Masquerade every source on its way to a cluster IP. Default: false.
    pub masquerade_all: bool,
    /// Which of the node's addresses node ports listen on. Default: the primary ones.
    pub node_port_addresses: Vec<Ipv4Prefix>,
    /// Default: 30000 to 32767. Inclusive.
    pub node_port_range: (u16, u16),
    /// Overrides the address that a service's traffic is masqueraded with.
    pub snat_address: Option<Ipv4Addr>,
    /// Ports for masquerading. Default: 32768 to 60999. Inclusive.
    pub snat_port_range: (u16, u16),
    /// Seconds for which TCP connections to a removed backend go on. Default: until they end (none here).
    pub drain_timeout_s: Option<u32>,
    /// Clients whose session affinity is remembered at the most. Default: 65,536.
    pub affinity_capacity: usize,
}

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `"tcp"`
    #[default]
    Tcp,
    /// `"udp"`
    Udp,
    /// `"sctp"`
    Sctp,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `"random"`: at random, by weight.
    #[default]
    Random,
    /// `"maglev"`: by a consistent hash of the connection, by weight.
    Maglev,
}

/// `health_check` of a service's port: how backends are asked whether they serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `kind`, and what that kind needs: what is asked.
    pub probe: Probe,
    /// `port`: where it is asked. None: the backend's own.
    pub port: Option<u16>,
    /// `interval_ms`: milliseconds from one probe of a backend to the next. Default: 2,000.
    pub interval_ms: u32,
    /// `timeout_ms`: milliseconds after which a probe has failed. Default: 1,000, or the interval where that is shorter.
    pub timeout_ms: u32,
    /// `rise`: probes in a row that must succeed before a backend is used again. Default: 2.
    pub rise: u32,
    /// `fall`: probes in a row that must fail before a backend is used no more. Default: 3.
    pub fall: u32,
}

impl HealthCheck {
    /// Where the backend at `address` is asked.
    pub fn target(&self, address: SocketAddrV4) -> SocketAddrV4 {
        SocketAddrV4::new(*address.ip(), self.port.unwrap_or(address.port()))
    }

    /// From the start of one probe to the start of the next.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }

    /// How long a probe may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout_ms))
    }
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `"tcp"`: whether a TCP connection opens.
    Tcp,
    /// `"http"`: whether a GET is answered with the right status.
    Http {
        /// `path`, from the slash on, with the query if there is one. Default: /.
        path: String,
        /// `status`: first and last that are right, inclusive. Default: 200 alone.
        status: (u16, u16),
    },
}

/// `[[service]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Default: default.
    pub namespace: String,
    /// Unique within the namespace.
    pub name: String,
    /// The virtual IP.
    pub cluster_ip: Ipv4Addr,
    /// How a backend is chosen. Default: at random.
    pub algorithm: Algorithm,
    /// Seconds for which a client's connections go to the backend of its last one. Default: they do not (none here).
    pub session_affinity_s: Option<u32>,
    /// `[[service.ports]]`
    pub ports: Vec<ServicePort>,
}

/// `[[service.ports]]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// Unique within the service; empty if it has one port alone.
    pub name: String,
    /// Default: TCP.
    pub protocol: Protocol,
    /// On the virtual IP.
    pub port: u16,
    /// On the node's addresses.
    pub node_port: Option<u16>,
    /// How backends are asked whether they serve. Default: they are not (none here).
    pub health_check: Option<HealthCheck>,
    /// Where connections go.
    pub backends: Vec<Backend>,
}

/// One of `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Share of new connections, 0 to 65,535; 0: drains. Default: 1.
    pub weight: u16,
}
