//! What a trace says, as its JSON has it: docs/trace.md documents every key, docs/trace.schema.json is the schema.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use engine::table::flow::FlowKey;
use serde::Serialize;

use crate::flow::has_identity;

/// Version of the form; another one only if a key changes its meaning or goes.
pub const VERSION: u32 = 1;

/// A trace.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// [`VERSION`].
    pub version: u32,
    /// The tables' generation.
    pub generation: u64,
    /// What was asked about.
    pub packet: Packet,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The drop counter's name, or why.
    pub reason: String,
    /// The service it is for.
    pub service: Option<Service>,
    /// Backends that may be drawn.
    pub candidates: Vec<Candidate>,
    /// Whether the service masquerades: of the candidates that are no hairpin, or of all if every one is.
    pub masquerade: bool,
    /// The address and ports it leaves with.
    pub snat: Option<Snat>,
    /// The backend drawn.
    pub chosen: Option<Candidate>,
    /// The packet as it leaves, if that differs.
    pub translated: Option<Translated>,
    /// What is remembered of it.
    pub flow: Option<Flow>,
    /// The ICMP error that its sender gets.
    pub reject_with: Option<&'static str>,
    /// Which way it leaves.
    pub egress: Option<Egress>,
    /// What each stage decided.
    pub steps: Vec<Step>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It leaves.
    Forward,
    /// It ends, and its sender is told.
    Reject,
    /// It ends.
    Drop,
    /// To the host's own stack, or answered in its stead.
    Deliver,
    /// No service is concerned, and there is no route.
    Pass,
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Deliver => "deliver",
            Self::Pass => "pass",
        }
    }
}

/// The packet asked about.
#[derive(Clone, Debug, Serialize)]
pub struct Packet {
    /// In the grammar, with everything said.
    pub text: String,
    /// Protocol's name, or its number if the grammar does not know it.
    pub protocol: String,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// An echo's identifier.
    pub identifier: Option<u16>,
    /// TCP flags as letters.
    pub flags: Option<String>,
    /// Hop limit.
    pub ttl: u8,
    /// IP total length in bytes.
    pub length: u16,
    /// It must not be fragmented.
    pub dont_fragment: bool,
    /// Where it comes in.
    pub ingress: Ingress,
}

/// Where a packet comes in.
#[derive(Clone, Debug, Serialize)]
pub struct Ingress {
    /// Interface; `host` for the node's own packets; null: none that the configuration knows.
    pub interface: Option<String>,
    /// Port; null: not known.
    pub port: Option<String>,
    /// VXLAN network identifier, through the tunnel.
    pub vni: Option<u32>,
    /// The tunnel's other end.
    pub remote: Option<Ipv4Addr>,
    /// Whether it was worked out, not given.
    pub derived: bool,
}

/// A service's port and the address it was reached by.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Kind of address.
    pub kind: &'static str,
    /// The address.
    pub address: Ipv4Addr,
    /// Protocol's name.
    pub protocol: &'static str,
    /// The port there.
    pub port: u16,
    /// The port's name; may be empty.
    pub port_name: String,
}

/// A backend that may be drawn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// Share of new connections, 0 to 1.
    pub probability: f64,
    /// The node it is on, if known.
    pub node: Option<String>,
    /// Known to be on this node.
    pub local: bool,
    /// Whether the service masquerades what goes there.
    pub masquerade: bool,
}

/// Masquerading.
#[derive(Clone, Debug, Serialize)]
pub struct Snat {
    /// The address; null: that of an interface which is not known without routes.
    pub address: Option<Ipv4Addr>,
    /// The ports, first-last.
    pub ports: String,
}

/// A packet as it leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Translated {
    /// Source address; null as in [`Snat`].
    pub source: Option<Ipv4Addr>,
    /// Source port, or an echo's identifier; one of many if it is masqueraded.
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub destination_port: Option<u16>,
}

/// A flow.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// The state it begins in; of one that is known, the state it is in.
    pub state: &'static str,
    /// The worker that keeps it.
    pub owner: u8,
    /// What a running gateway knows of it; null: the packet would begin it.
    pub known: Option<KnownFlow>,
}

/// A flow that a running gateway has.
#[derive(Clone, Debug, Serialize)]
pub struct KnownFlow {
    /// Which way the packet goes: `original`, as the first one, or `reply`.
    pub direction: &'static str,
    /// The state that the packet puts it in.
    pub state_after: &'static str,
    /// The first packet as it came.
    pub original: Ends,
    /// Answers as they come.
    pub reply: Ends,
    /// Whether addresses or ports are rewritten.
    pub translated: bool,
    /// Whether both sides have spoken.
    pub assured: bool,
    /// Milliseconds since its last packet.
    pub idle_ms: u32,
    /// Milliseconds until it ends if nothing comes.
    pub expires_in_ms: u32,
    /// The service port, `namespace/name:port name`, if it is still there.
    pub service: Option<String>,
    /// The service's backend.
    pub backend: Option<Backend>,
}

/// Both ends of a flow, in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port; of an echo request its identifier, and of a reply 0.
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port; of an echo reply its identifier, and of a request 0.
    pub destination_port: Option<u16>,
}

impl Ends {
    pub(super) fn new(key: &FlowKey) -> Self {
        let port = |port: u16| has_identity(key.protocol).then_some(port);
        Self {
            source: key.source.into(),
            source_port: port(key.source_port),
            destination: key.destination.into(),
            destination_port: port(key.destination_port),
        }
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: Option<u16>| port.map_or_else(String::new, |port| format!(":{port}"));
        let (from, to) = (port(self.source_port), port(self.destination_port));
        write!(formatter, "{}{from} > {}{to}", self.source, self.destination)
    }
}

/// A backend that a flow has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.address, self.port)
    }
}

/// The way out.
#[derive(Clone, Debug, Serialize)]
pub struct Egress {
    /// The port; the bridge's name when ARP or learning must first tell the port.
    pub port: String,
    /// The next hop.
    pub next_hop: IpAddr,
    /// Through the tunnel.
    pub vxlan: Option<Vxlan>,
}

/// The outer headers.
#[derive(Clone, Debug, Serialize)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: u32,
    /// Outer source.
    pub local: Ipv4Addr,
    /// Outer destination.
    pub remote: Ipv4Addr,
    /// Destination of the inner frame.
    pub inner_destination_mac: String,
    /// UDP destination port.
    pub udp_port: u16,
}

/// What one stage decided.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The stage.
    pub stage: &'static str,
    /// The table entry that decided.
    pub entry: Option<String>,
    /// The object that the entry is made from.
    pub object: Option<Object>,
    /// What was decided.
    pub result: String,
}

/// An object.
#[derive(Clone, Debug, Serialize)]
pub struct Object {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub source: String,
}
