//! Trace: what becomes of a packet that might come, and which table entry decides at every step.
//!
//! A first packet of a new flow, in a gateway that has just started with a configuration: its headers are parsed by
//! `parse`, decided by the stages of [`DECIDE`], and followed to the way out by the data path's own look-ups and checks.
//! Nothing is decided here; what is here says in words what was. docs/trace.md says what a person needs to know.

pub mod grammar;
mod ingress;
pub mod json;
mod stages;
mod text;
mod way;

use core::net::Ipv4Addr;

use engine::random::Random;
use engine::table::flow::{FlowKey, HashSecret};
use engine::table::lpm::LpmError;
use engine::table::pages::PageArrayError;
use engine::wire::ipv4::PROTOCOL_TCP;

use crate::assembly::ownership;
use crate::control::build::{Builder, HostFacts};
use crate::control::config::model::Configuration;
use crate::decision::{Decision, Outcome};
use crate::drop_reason::{DropReason, describe};
use crate::flow::{Flows, flow_key};
use crate::gateway::DECIDE;
use crate::gateway::forward::{Obstacle, check_limits};
use crate::gateway::host::check_entrance;
use crate::meta::{BRIDGED, Meta};
use crate::stage::dnat::must_masquerade;
use crate::stage::tcp_state::TcpState;
use crate::stage::{conntrack, route_lookup, snat_mark};
use crate::table::Tables;
use crate::table::interface::InterfaceKind;
use crate::table::neighbour::KIND_HOST;
use crate::table::route::RouteSource;

use grammar::{PacketSpec, Transport, flag_letters};
use ingress::Arrival;
use json::{Candidate, Egress, Flow, Packet, Service, Snat, Step, Trace, Translated, VERSION, Verdict};

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
    places: &dyn Fn(&str) -> Option<String>,
    question: &Question,
) -> Result<Trace, TraceError> {
    let workers = configuration.workers.cores.len().max(1);
    let tables = Builder::new(workers, HostFacts::default()).build(configuration)?;
    let arrival = Arrival::find(&tables, &question.packet, question.ingress.as_ref())?;
    let mut random = Random::new(question.seed);
    let flows = Flows::new(FLOWS, HashSecret::new(random.next_u64(), random.next_u64()))?;
    let scene = Scene { configuration, tables: &tables, places };
    let mut walk = Walk { scene, question, arrival, flows, random, workers, steps: Vec::new() };
    Ok(walk.run())
}

/// The name under which a reason is counted.
fn reason_name(reason: DropReason) -> &'static str {
    describe(reason.code()).1
}

/// How a packet ends.
struct Ending {
    verdict: Verdict,
    reason: String,
    reject_with: Option<&'static str>,
    /// The packet's key as it leaves.
    leaving: Option<FlowKey>,
    flow: Option<Flow>,
    egress: Option<Egress>,
}

impl Ending {
    fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), reject_with: None, leaving: None, flow: None, egress: None }
    }

    fn drop(reason: DropReason) -> Self {
        Self::new(Verdict::Drop, reason_name(reason))
    }

    fn reject(reason: DropReason, error: &'static str) -> Self {
        Self { reject_with: Some(error), ..Self::new(Verdict::Reject, reason_name(reason)) }
    }
}

/// One packet on its way.
struct Walk<'a> {
    scene: Scene<'a>,
    question: &'a Question,
    arrival: Arrival,
    flows: Flows,
    random: Random,
    workers: usize,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn run(&mut self) -> Trace {
        let tables = self.scene.tables;
        let (meta, decision, ending) = match self.arrival.parse(tables, &self.question.packet, &self.flows) {
            Ok(meta) => {
                self.note("parse", None, self.arrival_in_words());
                let decision = self.decide(&meta);
                let ending = self.end(&meta, &decision);
                (meta, decision, ending)
            }
            Err(code) => {
                let (stage, name, _) = describe(code);
                self.note(stage, None, format!("{}; dropped: {name}", self.arrival_in_words()));
                let meta = Meta { key: self.key(), ..Meta::default() };
                let decision = Decision::new(meta.key, meta.interface, false);
                (meta, decision, Ending::new(Verdict::Drop, name))
            }
        };
        self.report(&meta, &decision, ending)
    }

    fn note(&mut self, stage: &'static str, entry: Option<String>, result: impl Into<String>) {
        self.steps.push(Step { stage, entry, object: None, result: result.into() });
    }

    /// The packet's key, of which no table knows anything.
    fn key(&self) -> FlowKey {
        let PacketSpec { source, destination, transport, .. } = self.question.packet;
        let (from, to) = transport.ports().unwrap_or_default();
        flow_key(transport.number(), source.into(), from, destination.into(), to)
    }

    fn arrival_in_words(&self) -> String {
        let arrival = self.arrival.to_json(self.scene.tables);
        let interface = arrival.interface.unwrap_or_else(|| "no interface of this configuration".to_owned());
        let mut text = match arrival.port.filter(|port| *port != interface) {
            Some(port) => format!("in by {port}, {interface}"),
            None => format!("in by {interface}"),
        };
        if let Some(vni) = arrival.vni {
            let remote = arrival.remote.map_or_else(|| "an unknown node".to_owned(), |r| r.to_string());
            text += &format!(", through the tunnel {vni} from {remote}");
        }
        text + if arrival.derived { " (as answers would go)" } else { "" }
    }

    /// Whether any route leads anywhere but to the node itself.
    fn has_routes(&self) -> bool {
        self.scene.tables.routes.routes().iter().any(|route| route.source != RouteSource::Local)
    }

    /// Asks the stages one by one. Without any route those behind the service layer have nothing to say of what is for
    /// a service.
    fn decide(&mut self, meta: &Meta) -> Decision {
        let has_routes = self.has_routes();
        let mut decision = Decision::new(meta.key, meta.interface, meta.has(BRIDGED));
        for (name, stage) in DECIDE {
            if !decision.is_open() || (!has_routes && decision.frontend.is_some()) {
                break;
            }
            let before = decision;
            stage(self.scene.tables, &mut self.random, &mut decision);
            self.steps.push(stages::explain(&self.scene, name, &before, &decision));
        }
        decision
    }

    /// What the data path does with a decision: `Core::first_packet`, for one that no table knows anything of.
    fn end(&mut self, meta: &Meta, decision: &Decision) -> Ending {
        match decision.outcome {
            Outcome::Drop(DropReason::NoRoute) if decision.frontend.is_none() => {
                Ending::new(Verdict::Pass, reason_name(DropReason::NoRoute))
            }
            Outcome::Drop(reason) => Ending::drop(reason),
            Outcome::Reject(reason) => Ending::reject(reason, "icmp-port-unreachable"),
            Outcome::Answer => Ending::new(Verdict::Deliver, "an echo request to the gateway, which answers it"),
            Outcome::Deliver => self.deliver(meta, decision),
            Outcome::Forward | Outcome::Bridge | Outcome::Undecided => self.forward(meta, decision),
        }
    }

    fn deliver(&mut self, meta: &Meta, decision: &Decision) -> Ending {
        let tables = self.scene.tables;
        let entrance = if self.has_routes() { check_entrance(meta.interface, tables) } else { Ok(()) };
        if let Err(reason) = entrance {
            self.note("host", None, format!("dropped: {}", reason_name(reason)));
            return Ending::drop(reason);
        }
        let reason = format!("{} is the node's own address", Ipv4Addr::from(decision.destination));
        let Ok(state) = conntrack::initial_state(meta) else {
            self.note("conntrack", None, "begins no connection; the host may know it, so no flow is remembered");
            return Ending::new(Verdict::Deliver, reason);
        };
        let flow = self.flow(meta, &decision.key, &decision.key, state);
        let ending = Ending { flow: Some(flow), ..Ending::new(Verdict::Deliver, reason) };
        if self.has_routes() { self.leave(meta, decision.key, ending) } else { ending }
    }

    fn forward(&mut self, meta: &Meta, decision: &Decision) -> Ending {
        let state = match conntrack::initial_state(meta) {
            Ok(state) => state,
            Err(reason) => return self.refuse_flow(reason),
        };
        let leaving = match self.leaving_key(decision) {
            Ok(leaving) => leaving,
            Err(reason) => return self.refuse_flow(reason),
        };
        let flow = self.flow(meta, &decision.key, &leaving, state);
        let ending = Ending {
            leaving: Some(leaving),
            flow: Some(flow),
            ..Ending::new(Verdict::Forward, self.why_forwarded(decision))
        };
        match decision.outcome {
            Outcome::Undecided => {
                self.note("route_lookup", None, "no routes are configured: the service layer's verdict stands");
                ending
            }
            Outcome::Bridge => self.bridge(decision, ending),
            _ => self.leave(meta, leaving, ending),
        }
    }

    fn refuse_flow(&mut self, reason: DropReason) -> Ending {
        self.note("conntrack", None, format!("dropped: {}", reason_name(reason)));
        Ending::drop(reason)
    }

    fn why_forwarded(&self, decision: &Decision) -> String {
        let tables = self.scene.tables;
        let service = stages::service_of(tables, decision);
        let mut reasons: Vec<String> =
            service.iter().map(|(_, service)| format!("service {}", service.title())).collect();
        let chosen = self.chosen(decision);
        if chosen.as_ref().is_some_and(|chosen| chosen.masquerade) {
            reasons.push("masqueraded for the service".to_owned());
        } else if decision.is_masqueraded()
            && let Some(network) = tables.masquerade.egress_network
        {
            reasons.push(format!("egress masquerade: it leaves the pod network {network}"));
        }
        if reasons.is_empty() {
            reasons.push(if decision.bridged { "stays on the bridge" } else { "routed" }.to_owned());
        }
        reasons.join("; ")
    }

    /// The key it leaves with; a masqueraded one gets one of many ports.
    fn leaving_key(&mut self, decision: &Decision) -> Result<FlowKey, DropReason> {
        if decision.outcome == Outcome::Undecided || !decision.is_masqueraded() {
            return Ok(decision.leaving_key(decision.key.source_port));
        }
        let ports = self.scene.tables.masquerade.snat_ports;
        let key = &decision.key;
        let rule = ownership(self.scene.configuration, 0, self.workers);
        let owner = rule.of(key.protocol, key.source, key.source_port);
        let rule = ownership(self.scene.configuration, usize::from(owner), self.workers);
        snat_mark::choose_port(decision, ports, &self.flows, &rule, &mut self.random)
    }

    /// The flow of packets that come as `key` and leave as `leaving`.
    fn flow(&mut self, meta: &Meta, key: &FlowKey, leaving: &FlowKey, state: u8) -> Flow {
        let rule = ownership(self.scene.configuration, 0, self.workers);
        let owner = if key == leaving {
            rule.untranslated_home(key).map_or(rule.worker(), |home| home.0)
        } else {
            rule.of(key.protocol, key.source, key.source_port)
        };
        let is_tcp = meta.key.protocol == PROTOCOL_TCP;
        let state = if is_tcp { TcpState::from_number(state).name() } else { "unreplied" };
        self.note("conntrack", None, format!("a new flow, {state}, of worker {owner}"));
        Flow { state, owner }
    }

    /// By the bridge, to the port of its station or to all.
    fn bridge(&mut self, decision: &Decision, ending: Ending) -> Ending {
        let tables = self.scene.tables;
        let Some(bridge) = &tables.bridge else { return Ending::drop(DropReason::BridgeNoPort) };
        let known = ingress::station_port(tables, bridge.interface, decision.destination);
        let is_other = |port: &u16| Some(*port) != self.arrival.port;
        let refused = match known {
            Some(port) if !is_other(&port) => Some(DropReason::BridgeSamePort),
            None if !bridge.members.iter().any(is_other) => Some(DropReason::BridgeNoPort),
            _ => None,
        };
        if let Some(reason) = refused {
            self.note("fdb_lookup", None, format!("dropped: {}", reason_name(reason)));
            return Ending { flow: ending.flow, ..Ending::drop(reason) };
        }
        let port = way::port_name(tables, bridge.interface, known);
        let next_hop = Ipv4Addr::from(decision.destination);
        let result = match known {
            Some(_) => format!("to {port}"),
            None => "to the port where its station was heard, else to all".to_owned(),
        };
        self.note("fdb_lookup", None, result);
        Ending { egress: Some(Egress { port, next_hop, vxlan: None }), ..ending }
    }

    /// By a next hop, if hop limit and size allow.
    fn leave(&mut self, meta: &Meta, leaving: FlowKey, ending: Ending) -> Ending {
        let tables = self.scene.tables;
        let way = match way::find(tables, leaving.destination) {
            Ok(way) => way,
            Err(reason) => {
                self.note("neighbour", None, format!("dropped: {}", reason_name(reason)));
                return Ending { flow: ending.flow, ..Ending::drop(reason) };
            }
        };
        let is_host = way.adjacency.kind == KIND_HOST;
        let waits_for = way.waits_for(tables);
        let result = match &waits_for {
            _ if is_host => "to the host's own stack".to_owned(),
            Some(asked) => format!("to be resolved by ARP: {asked}"),
            None => "known".to_owned(),
        };
        self.note("neighbour", way.entry(tables), result);
        let (ttl, mtu) = (meta.time_to_live, way.adjacency.mtu);
        let refused = match check_limits(meta, &way.adjacency) {
            Ok(hop) => {
                let result = format!("hop limit {ttl} to {}, {} of {mtu} bytes", ttl - hop, meta.ip_length);
                self.note("apply", None, result);
                let egress = (!is_host).then(|| way.to_json(tables));
                let verdict = if is_host { Verdict::Deliver } else { ending.verdict };
                let held = waits_for.map(|asked| format!("; held until ARP is answered: {asked}"));
                return Ending { egress, verdict, reason: ending.reason + &held.unwrap_or_default(), ..ending };
            }
            Err(Obstacle::HopLimit) => Ending::reject(DropReason::TtlExceeded, "icmp-time-exceeded"),
            // As `Core::too_large`: the sender is told if it asked for no fragments.
            Err(_) if self.question.packet.dont_fragment => {
                Ending::reject(DropReason::MtuExceeded, "icmp-fragmentation-needed")
            }
            Err(_) => Ending::drop(DropReason::MtuExceeded),
        };
        let result = format!("hop limit {ttl}, {} of {mtu} bytes: {}", meta.ip_length, refused.reason);
        self.note("apply", None, result);
        Ending { flow: ending.flow, ..refused }
    }

    /// The backends that may be drawn, each with what the data path's own rule says of masquerading.
    fn candidates(&self, decision: &Decision) -> Vec<Candidate> {
        let tables = self.scene.tables;
        let Some((frontend, service)) = stages::service_of(tables, decision) else { return Vec::new() };
        let sum: f64 = service.backends.iter().map(|backend| f64::from(backend.weight)).sum();
        let drawn = service.backends.iter().filter(|backend| backend.weight > 0);
        let candidates = drawn.map(|backend| {
            let local = self.is_local(backend.address);
            let name = Some(&self.scene.configuration.node.name).filter(|name| local && !name.is_empty());
            Candidate {
                address: backend.address.into(),
                port: backend.port,
                weight: backend.weight,
                probability: f64::from(backend.weight) / sum,
                node: name.cloned(),
                local,
                masquerade: must_masquerade(
                    &tables.masquerade,
                    frontend.kind,
                    decision.key.source,
                    backend,
                ),
            }
        });
        candidates.collect()
    }

    /// Whether the tables show that an address is on this node: behind the bridge, or the node's own.
    fn is_local(&self, address: u32) -> bool {
        let tables = self.scene.tables;
        route_lookup::way_out(tables, address).is_some_and(|(interface, _)| {
            matches!(tables.interface(interface).kind, InterfaceKind::Bridge | InterfaceKind::Host)
        })
    }

    fn chosen(&self, decision: &Decision) -> Option<Candidate> {
        decision.backend?;
        let (address, port) = (Ipv4Addr::from(decision.destination), decision.destination_port);
        self.candidates(decision).into_iter().find(|c| c.address == address && c.port == port)
    }

    fn report(&mut self, meta: &Meta, decision: &Decision, ending: Ending) -> Trace {
        let candidates = self.candidates(decision);
        let source = Ipv4Addr::from(decision.key.source);
        let others = candidates.iter().filter(|candidate| candidate.address != source);
        let (mut others, mut all) = (others.peekable(), candidates.iter());
        let masquerade = match others.peek() {
            Some(_) => others.all(|candidate| candidate.masquerade),
            None => !candidates.is_empty() && all.all(|candidate| candidate.masquerade),
        };
        let snat = ending.leaving.filter(|_| decision.is_masqueraded()).map(|_| self.snat(decision));
        Trace {
            version: VERSION,
            generation: self.scene.tables.generation,
            packet: self.packet(),
            verdict: ending.verdict,
            reason: ending.reason,
            service: self.service(decision),
            masquerade,
            chosen: self.chosen(decision),
            translated: ending.leaving.and_then(|leaving| translated(meta, &leaving, snat.as_ref())),
            snat,
            flow: ending.flow,
            reject_with: ending.reject_with,
            egress: ending.egress,
            candidates,
            steps: core::mem::take(&mut self.steps),
        }
    }

    /// What it is masqueraded with. Without routes only an address that overrides the way out's is known.
    fn snat(&self, decision: &Decision) -> Snat {
        let rules = &self.scene.tables.masquerade;
        let (first, last) = rules.snat_ports;
        let is_routed = decision.outcome != Outcome::Undecided;
        let address = if is_routed { Some(decision.source) } else { rules.snat_address };
        Snat { address: address.map(Ipv4Addr::from), ports: format!("{first}-{last}") }
    }

    fn service(&self, decision: &Decision) -> Option<Service> {
        let (frontend, service) = stages::service_of(self.scene.tables, decision)?;
        Some(Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            kind: frontend.kind.name(),
            address: decision.key.destination.into(),
            protocol: service.protocol.name(),
            port: decision.key.destination_port,
            port_name: service.port_name.clone(),
        })
    }

    fn packet(&self) -> Packet {
        let packet = &self.question.packet;
        let ports = packet.transport.ports();
        let (identifier, flags) = match packet.transport {
            Transport::Echo(identifier) => (Some(identifier), None),
            Transport::Tcp(_, _, flags) => (None, Some(flag_letters(flags))),
            _ => (None, None),
        };
        Packet {
            text: packet.to_string(),
            protocol: packet.transport.name(),
            source: packet.source,
            source_port: ports.map(|ports| ports.0),
            destination: packet.destination,
            destination_port: ports.map(|ports| ports.1),
            identifier,
            flags,
            ttl: packet.time_to_live,
            length: packet.length,
            dont_fragment: packet.dont_fragment,
            ingress: self.arrival.to_json(self.scene.tables),
        }
    }
}

/// The packet as it leaves; none if it leaves as it came.
fn translated(meta: &Meta, leaving: &FlowKey, snat: Option<&Snat>) -> Option<Translated> {
    let is_unknown = snat.is_some_and(|snat| snat.address.is_none());
    if *leaving == meta.key && !is_unknown {
        return None;
    }
    let has_ports = crate::flow::has_ports(leaving.protocol);
    let has_identity = crate::flow::has_identity(leaving.protocol);
    // Without routes nothing has been drawn.
    let is_drawn = snat.is_none() || leaving.source != meta.key.source;
    Some(Translated {
        source: snat.map_or(Some(leaving.source.into()), |snat| snat.address),
        source_port: (has_identity && is_drawn).then_some(leaving.source_port),
        destination: leaving.destination.into(),
        destination_port: has_ports.then_some(leaving.destination_port),
    })
}
