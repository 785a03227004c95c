//! The file's sections and keys with their defaults. docs/pktgen.md describes each.

use serde::{Deserialize, Serialize};

use super::machine::{Machine, Port};
use super::sizes::Sizes;
use crate::address::{AddressRange, EndpointRange, PortRange};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// What kind of traffic.
    #[serde(default)]
    pub traffic: Traffic,
    /// Who asks.
    pub clients: Clients,
    /// Who is asked.
    #[serde(default)]
    pub services: Vec<Service>,
    /// What is right.
    #[serde(default)]
    pub expect: Expect,
    /// How fast.
    #[serde(default)]
    pub rate: Rate,
    /// How long.
    #[serde(default)]
    pub trial: TrialSection,
    /// The search for the highest rate.
    #[serde(default)]
    pub search: Search,
    /// RFC 9693's tests.
    #[serde(default)]
    pub nat: Nat,
    /// One or two ports.
    pub ports: Vec<Port>,
    /// Cores, memory, which side is at which port.
    #[serde(default)]
    pub machine: Machine,
}

/// UDP flows, UDP packets that are new flows each, or TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficKind {
    /// So many flows in turn.
    #[default]
    Udp,
    /// Each packet a new flow.
    UdpNew,
    /// Connections from SYN to the last ACK.
    Tcp,
}

/// `[traffic]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Its kind.
    pub kind: TrafficKind,
    /// UDP flows.
    pub flows: u32,
    /// Whether backends answer each datagram.
    pub replies: bool,
    /// TCP connections at once.
    pub connections: u32,
    /// Exchanges of data in each.
    pub exchanges: u32,
    /// When a connection has failed.
    pub patience_ms: u64,
    /// Frame sizes.
    pub sizes: Sizes,
    /// Number of the first flow in the plan.
    pub first: u32,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            kind: TrafficKind::Udp,
            flows: 64_000,
            replies: false,
            connections: 10_000,
            exchanges: 1,
            patience_ms: 1_000,
            sizes: Sizes::One(64),
            first: 0,
        }
    }
}

/// `[clients]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Their addresses.
    pub addresses: AddressRange,
    /// Their ports.
    pub ports: PortRange,
}

/// `[[services]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Virtual addresses.
    pub addresses: AddressRange,
    /// Their port.
    pub port: u16,
    /// Who may serve them.
    #[serde(default)]
    pub backends: Vec<EndpointRange>,
}

/// `[expect]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Sources that backends see instead of clients.
    pub masquerade: Vec<AddressRange>,
    /// Hops left in what is sent.
    pub time_to_live: u8,
    /// Hops that the gateway takes.
    pub hops: Option<u8>,
    /// Whether a mirror is there instead of a gateway.
    pub mirror: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self { masquerade: Vec::new(), time_to_live: 64, hops: None, mirror: false }
    }
}

/// `[rate]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Packets (TCP: connections) a second; 0: as fast as can be.
    pub per_s: u64,
    /// At once at the most; 0: as many as 50 µs of the rate.
    pub burst: u32,
    /// In flight at the most; 0: any number.
    pub window: u64,
}

/// `[trial]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrialSection {
    /// How long is sent.
    pub duration_s: f64,
    /// How long after the last arrival more is waited for.
    pub drain_ms: u64,
    /// Rate at which flows are introduced; 0: as fast as can be.
    pub warm_up_per_s: u64,
    /// Packets by which each is.
    pub warm_up_rounds: u32,
}

impl Default for TrialSection {
    fn default() -> Self {
        Self { duration_s: 10.0, drain_ms: 500, warm_up_per_s: 200_000, warm_up_rounds: 1 }
    }
}

/// `[search]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// The part that may be lost.
    pub loss_ratio: f64,
    /// The lowest rate.
    pub min_per_s: u64,
    /// The highest.
    pub max_per_s: u64,
    /// Width of the result.
    pub precision: f64,
    /// Length of the first trials.
    pub initial_s: f64,
    /// Length of the last.
    pub final_s: f64,
    /// Lengths.
    pub stages: u32,
    /// Last trials.
    pub confirmations: u32,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            loss_ratio: 0.0,
            min_per_s: 1_000,
            max_per_s: 30_000_000,
            precision: 0.005,
            initial_s: 0.5,
            final_s: 10.0,
            stages: 3,
            confirmations: 1,
        }
    }
}

/// `[nat]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nat {
    /// N.
    pub connections: u32,
    /// Alpha.
    pub alpha: f64,
    /// Rate of opening where that is not measured; 0: as fast as can be.
    pub open_per_s: u64,
    /// C0.
    pub capacity_start: u32,
    /// The most that is tried.
    pub capacity_max: u32,
    /// E.
    pub capacity_error: u32,
    /// Beta.
    pub beta: f64,
    /// Gamma.
    pub gamma: f64,
    /// Empties the gateway's table before each test.
    pub clear_command: Option<String>,
    /// How long is waited after that, or instead.
    pub clear_wait_ms: u64,
    /// Deletes all connections at once, to be timed.
    pub delete_command: Option<String>,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            connections: 100_000,
            alpha: 1.0,
            open_per_s: 200_000,
            capacity_start: 10_000,
            capacity_max: 1 << 24,
            capacity_error: 1_000,
            beta: 0.2,
            gamma: 0.4,
            clear_command: None,
            clear_wait_ms: 0,
            delete_command: None,
        }
    }
}
