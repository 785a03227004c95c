//! Trace: what becomes of a packet that might come, and which table entry decides at every step.
//!
//! A first packet of a new flow, in a gateway that has just started with a configuration: its headers are parsed by
//! `parse`, decided by the stages of [`crate::gateway::DECIDE`], and followed to the way out by the data path's own look-ups and checks.
//! Nothing is decided here; what is here says in words what was. docs/trace.md says what a person needs to know.

pub mod grammar;
mod ingress;
pub mod json;
mod report;
mod stages;
mod text;
mod walk;
mod way;

use core::net::Ipv4Addr;

use engine::random::Random;
use engine::table::flow::HashSecret;
use engine::table::lpm::LpmError;
use engine::table::pages::PageArrayError;

use crate::control::build::{Builder, HostFacts};
use crate::control::config::model::Configuration;
use crate::control::kubernetes::ObjectStore;
use crate::drop_reason::{DropReason, describe};
use crate::flow::Flows;
use crate::table::Tables;
use crate::table::affinity::AffinityTable;

use grammar::PacketSpec;
use ingress::Arrival;
use json::Trace;
use walk::Walk;

/// Flows of the table that nothing is ever put in.
const FLOWS: usize = 8;

/// Where a packet comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// By this port, or from the `host`.
    Port(String),
    /// Through the tunnel: its VNI and other end.
    Tunnel(u32, Ipv4Addr),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The packet.
    pub packet: PacketSpec,
    /// Where it comes in; none: by the way that answers to it would take.
    pub ingress: Option<Ingress>,
    /// Decides all that is random.
    pub seed: u64,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot come in there.
    #[error("{0}")]
    Ingress(String),
    /// More routes than a table holds.
    #[error("the routing table cannot be built: {0}")]
    Routes(#[from] LpmError),
    /// No memory for a flow table, small as it is.
    #[error(transparent)]
    Memory(#[from] PageArrayError),
}

/// What all parts of a trace look at.
struct Scene<'a> {
    configuration: &'a Configuration,
    tables: &'a Tables,
    places: &'a dyn Fn(&str) -> Option<String>,
}

/// Traces a packet. `places` says where a key of the configuration is written.
pub fn trace(
    configuration: &Configuration,
    objects: &ObjectStore,
    places: &dyn Fn(&str) -> Option<String>,
    question: &Question,
) -> Result<Trace, TraceError> {
    let workers = configuration.workers.cores.len().max(1);
    let tables = Builder::new(workers, HostFacts::default()).build_with(configuration, objects)?;
    let arrival = Arrival::find(&tables, &question.packet, question.ingress.as_ref())?;
    let mut random = Random::new(question.seed);
    let flows = Flows::new(FLOWS, HashSecret::new(random.next_u64(), random.next_u64()))?;
    let scene = Scene { configuration, tables: &tables, places };
    let affinity = AffinityTable::new(FLOWS, random.next_u64());
    let mut walk = Walk { scene, question, arrival, flows, random, affinity, workers, steps: Vec::new() };
    Ok(walk.run())
}

/// The name under which a reason is counted.
fn reason_name(reason: DropReason) -> &'static str {
    describe(reason.code()).1
}
