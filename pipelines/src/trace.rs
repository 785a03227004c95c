//! Trace: what becomes of a packet that might come, and which table entry decides at every step.
//!
//! In a gateway that has just started with a configuration, or in one that runs: the packet's bytes are parsed by `parse`,
//! decided by the stages of [`crate::gateway::DECIDE`], and followed to the way out by the data path's own look-ups and
//! checks. Nothing is decided here; what is here says in words what was. A running gateway is only read: its tables, what
//! its workers have learned, and copies of flow entries that their owners give. docs/trace.md says what a person needs to
//! know.

pub mod captured;
mod describe;
pub mod grammar;
mod headers;
pub mod hex;
mod ingress;
pub mod json;
mod known;
mod leave;
mod packet;
mod report;
mod stages;
mod text;
mod walk;
mod way;

use core::net::Ipv4Addr;
use std::path::Path;

use engine::clock::Timestamp;
use engine::random::Random;
use engine::table::flow::HashSecret;
use engine::table::lpm::LpmError;
use engine::table::pages::PageArrayError;

use crate::assembly::ownership;
use crate::control::build::{Builder, HostFacts};
use crate::control::config;
use crate::control::config::model::Configuration;
use crate::control::flow_questions::NoAnswer;
use crate::control::kubernetes::ObjectStore;
use crate::control::view::View;
use crate::drop_reason::{DropReason, describe as describe_reason};
use crate::flow::Flows;
use crate::ownership::Ownership;
use crate::table::Tables;
use crate::table::affinity::AffinityTable;

use captured::Asked;
use ingress::Arrival;
use json::Trace;
use walk::Walk;

/// Flows of the table that is no gateway's.
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
    pub packet: Asked,
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
    /// A running gateway's worker does not say what flows it has.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// What all parts of a trace look at.
struct Scene<'a> {
    /// The node's name.
    node: &'a str,
    tables: &'a Tables,
    ownership: Ownership,
    affinity: &'a AffinityTable,
    now: Timestamp,
    /// Where a key of the configuration is written, if it is one; of a service with a port's name, that port.
    places: &'a dyn Fn(&str, Option<&str>) -> Option<String>,
    /// The gateway that runs; none: one that has just started.
    running: Option<&'a View>,
}

/// Traces a packet in a gateway that has just started. `places` says where a key of the configuration is written.
pub fn trace(
    configuration: &Configuration,
    objects: &ObjectStore,
    places: &dyn Fn(&str) -> Option<String>,
    question: &Question,
) -> Result<Trace, TraceError> {
    let workers = configuration.workers.cores.len().max(1);
    let tables = Builder::new(workers, HostFacts::default()).build_with(configuration, objects)?;
    let affinity = AffinityTable::new(FLOWS, Random::new(question.seed).fork(1).next_u64());
    let place = |source: &str, port_name: Option<&str>| {
        let number = service_number(source)?;
        let ports = configuration.services.get(number).map_or(&[][..], |service| &service.ports);
        let port = port_name.and_then(|name| ports.iter().position(|port| port.name == name));
        let key = port.map_or_else(|| source.to_owned(), |port| format!("{source}.ports[{port}]"));
        Some(places(&key).unwrap_or(key))
    };
    walk(
        Scene {
            node: &configuration.node.name,
            tables: &tables,
            ownership: ownership(configuration, 0, workers),
            affinity: &affinity,
            now: Timestamp::default(),
            places: &place,
            running: None,
        },
        question,
    )
}

/// Traces a packet in a running gateway, which is only read.
pub fn trace_live(view: &View, question: &Question) -> Result<Trace, TraceError> {
    let tables = view.tables();
    let place = |source: &str, _: Option<&str>| {
        service_number(source)?;
        let place = config::place_of(view.config_file.get().map(|file| -> &Path { file })?, source)?;
        Some(format!("{}:{}", place.file, place.line))
    };
    walk(
        Scene {
            node: &view.node,
            tables: &tables,
            ownership: view.ownership.clone(),
            affinity: &view.affinity,
            now: view.clock.now(),
            places: &place,
            running: Some(view),
        },
        question,
    )
}

fn walk(scene: Scene<'_>, question: &Question) -> Result<Trace, TraceError> {
    let (arrival, packet) = Arrival::find(&scene, &question.packet, question.ingress.as_ref())?;
    let mut random = Random::new(question.seed);
    let flows = Flows::new(FLOWS, HashSecret::new(random.next_u64(), random.next_u64()))?;
    Walk { scene, question, packet, arrival, flows, random, steps: Vec::new() }.run()
}

/// Which service of the configuration a key names: `service[3]`.
fn service_number(source: &str) -> Option<usize> {
    source.strip_prefix("service[")?.strip_suffix(']')?.parse().ok()
}

/// The name under which a reason is counted.
fn reason_name(reason: DropReason) -> &'static str {
    describe_reason(reason.code()).1
}
