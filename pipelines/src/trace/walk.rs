//! One packet on its way: the stages are asked, then the data path's own look-ups and checks, each with its step.

use core::net::Ipv4Addr;

use engine::clock::Timestamp;
use engine::random::Random;
use engine::table::flow::FlowKey;
use engine::wire::ipv4::PROTOCOL_TCP;

use super::grammar::PacketSpec;
use super::ingress::{Arrival, station_port};
use super::json::{Egress, Flow, Step, Trace, Verdict};
use super::{Question, Scene, reason_name, stages, way};
use crate::assembly::ownership;
use crate::decision::{Decision, Outcome};
use crate::drop_reason::{DropReason, describe};
use crate::flow::{Flows, flow_key};
use crate::gateway::forward::{Obstacle, check_limits};
use crate::gateway::host::check_entrance;
use crate::gateway::{DECIDE, Situation};
use crate::meta::{BRIDGED, Meta};
use crate::stage::tcp_state::TcpState;
use crate::stage::{conntrack, snat_mark};
use crate::table::affinity::AffinityTable;
use crate::table::neighbour::KIND_HOST;
use crate::table::route::RouteSource;

/// How a packet ends.
pub(super) struct Ending {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
    pub(super) reject_with: Option<&'static str>,
    /// The packet's key as it leaves.
    pub(super) leaving: Option<FlowKey>,
    pub(super) flow: Option<Flow>,
    pub(super) egress: Option<Egress>,
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
pub(super) struct Walk<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) question: &'a Question,
    pub(super) arrival: Arrival,
    pub(super) flows: Flows,
    pub(super) random: Random,
    pub(super) affinity: AffinityTable,
    pub(super) workers: usize,
    pub(super) steps: Vec<Step>,
}

impl Walk<'_> {
    /// Goes to the end.
    pub(super) fn run(&mut self) -> Trace {
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
            let affinity = &self.affinity;
            let situation = Situation { tables: self.scene.tables, affinity, now: Timestamp::default() };
            stage(&situation, &mut self.random, &mut decision);
            self.steps.push(stages::explain(&self.scene, name, &before, &decision));
            self.steps.extend(stages::backend(&self.scene, &decision).filter(|_| name == "dnat"));
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
            Outcome::Answer => {
                Ending::new(Verdict::Deliver, "an echo request to the gateway, which answers it")
            }
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
            self.note(
                "conntrack",
                None,
                "begins no connection; the host may know it, so no flow is remembered",
            );
            return Ending::new(Verdict::Deliver, reason);
        };
        let flow = self.flow(meta, &decision.key, state);
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
        let flow = self.flow(meta, &decision.key, state);
        let ending = Ending {
            leaving: Some(leaving),
            flow: Some(flow),
            ..Ending::new(Verdict::Forward, self.why_forwarded(decision))
        };
        match decision.outcome {
            Outcome::Undecided => {
                self.note(
                    "route_lookup",
                    None,
                    "no routes are configured: the service layer's verdict stands",
                );
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
        let by_service = self.chosen(decision).is_some_and(|chosen| chosen.masquerade);
        if decision.is_masqueraded() && by_service {
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
        let key = &decision.key;
        let rule = ownership(self.scene.configuration, 0, self.workers);
        let owner = rule.of(key.protocol, key.source, key.source_port);
        let rule = ownership(self.scene.configuration, usize::from(owner), self.workers);
        snat_mark::choose_port(decision, self.scene.tables, &self.flows, &rule, &mut self.random, &mut 0)
    }

    /// The flow of packets that come as `key`.
    fn flow(&mut self, meta: &Meta, key: &FlowKey, state: u8) -> Flow {
        let rule = ownership(self.scene.configuration, 0, self.workers);
        let owner = rule.of(key.protocol, key.source, key.source_port);
        let is_tcp = meta.key.protocol == PROTOCOL_TCP;
        let state = if is_tcp { TcpState::from_number(state).name() } else { "unreplied" };
        self.note("conntrack", None, format!("a new flow, {state}, of worker {owner}"));
        Flow { state, owner }
    }

    /// By the bridge, to the port of its station or to all.
    fn bridge(&mut self, decision: &Decision, ending: Ending) -> Ending {
        let tables = self.scene.tables;
        let Some(bridge) = &tables.bridge else { return Ending::drop(DropReason::BridgeNoPort) };
        let known = station_port(tables, bridge.interface, decision.destination);
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
                return Ending {
                    egress,
                    verdict,
                    reason: ending.reason + &held.unwrap_or_default(),
                    ..ending
                };
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
}
