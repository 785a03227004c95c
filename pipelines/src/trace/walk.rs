//! One packet on its way: the stages are asked, then the data path's own look-ups and checks, each with its step.

use core::net::Ipv4Addr;

use engine::random::Random;
use engine::wire::ethernet::MacAddress;
use engine::wire::ipv4::PROTOCOL_ICMP;

use super::ingress::{Arrival, Parsed};
use super::json::{Egress, Flow, Step, Trace, Verdict};
use super::known::Known;
use super::packet::PacketSpec;
use super::{Question, Scene, TraceError, reason_name, stages};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::{DropReason, describe};
use crate::flow::Flows;
use crate::gateway::{DECIDE, Situation};
use crate::meta::{BRIDGED, GROUP, Kind, Meta};
use crate::stage::parse::ECHO_REPLY;
use crate::table::route::RouteSource;
use engine::table::flow::FlowKey;

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
    pub(super) fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), reject_with: None, leaving: None, flow: None, egress: None }
    }

    pub(super) fn drop(reason: DropReason) -> Self {
        Self::new(Verdict::Drop, reason_name(reason))
    }

    pub(super) fn reject(reason: DropReason, error: &'static str) -> Self {
        Self { reject_with: Some(error), ..Self::new(Verdict::Reject, reason_name(reason)) }
    }
}

/// All that becomes of a packet.
pub(super) struct Course {
    pub(super) meta: Meta,
    pub(super) decision: Decision,
    pub(super) ending: Ending,
    /// The flow that it belongs to, if a running gateway has it.
    pub(super) known: Option<Known>,
}

/// One packet on its way.
pub(super) struct Walk<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) question: &'a Question,
    /// What is asked about: of a tunnel's datagram the packet inside.
    pub(super) packet: PacketSpec,
    pub(super) arrival: Arrival,
    /// No gateway's: a few entries to ask the data path's own functions about.
    pub(super) flows: Flows,
    pub(super) random: Random,
    pub(super) steps: Vec<Step>,
}

impl Walk<'_> {
    /// Goes to the end.
    pub(super) fn run(&mut self) -> Result<Trace, TraceError> {
        let course = match self.arrival.parse(self.scene.tables, &self.question.packet, &self.flows) {
            Ok(parsed) => {
                self.note("parse", None, self.arrival_in_words());
                self.course(&parsed)?
            }
            Err(code) => {
                let (stage, name, _) = describe(code);
                self.note(stage, None, format!("{}; dropped: {name}", self.arrival_in_words()));
                self.without_decision(&Meta::default(), Ending::new(Verdict::Drop, name))
            }
        };
        Ok(self.report(course))
    }

    pub(super) fn note(&mut self, stage: &'static str, entry: Option<String>, result: impl Into<String>) {
        self.steps.push(Step { stage, entry, object: None, result: result.into() });
    }

    pub(super) fn without_decision(&self, meta: &Meta, ending: Ending) -> Course {
        let decision = Decision::new(meta.key, meta.interface, false);
        Course { meta: *meta, decision, ending, known: None }
    }

    /// What the data path does, in its order: `Gateway::process`.
    fn course(&mut self, parsed: &Parsed) -> Result<Course, TraceError> {
        let meta = &parsed.meta;
        if meta.has(BRIDGED) && (meta.kind == Kind::Frame || meta.has(GROUP)) {
            let ending = self.bridge(0, Ending::new(Verdict::Forward, "stays on the bridge"));
            return Ok(self.without_decision(meta, ending));
        }
        if matches!(meta.kind, Kind::Flow | Kind::IcmpError)
            && let Some(course) = self.known_flow(parsed)?
        {
            return Ok(course);
        }
        if let Some(ending) = self.begins_no_flow(parsed) {
            return Ok(self.without_decision(meta, ending));
        }
        let decision = self.decide(meta);
        let ending = self.end(meta, &decision)?;
        Ok(Course { meta: *meta, decision, ending, known: None })
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
        if arrival.derived {
            text += if self.arrival.destination_mac(&self.question.packet).is_some() {
                " (whose MAC it is for)"
            } else {
                " (as answers would go)"
            };
        }
        let is_replaced = self.arrival.replaces_macs(&self.question.packet);
        text + if is_replaced { ", with the MACs of stations there" } else { "" }
    }

    /// Whether any route leads anywhere but to the node itself.
    pub(super) fn has_routes(&self) -> bool {
        self.scene.tables.routes.routes().iter().any(|route| route.source != RouteSource::Local)
    }

    /// Packets that no flow is known for and that begin none: the first lines of `Core::first_packet`.
    fn begins_no_flow(&mut self, parsed: &Parsed) -> Option<Ending> {
        let meta = &parsed.meta;
        let reason = match meta.kind {
            Kind::IcmpError => {
                return Some(self.error_of_host(parsed, DropReason::IcmpErrorUntracked));
            }
            Kind::IcmpOther => DropReason::IcmpTypeUnsupported,
            _ if meta.key.protocol == PROTOCOL_ICMP && meta.tcp_flags == ECHO_REPLY => {
                DropReason::IcmpUnsolicited
            }
            _ => return None,
        };
        Some(self.refuse_flow(reason))
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
            let Scene { tables, affinity, now, .. } = self.scene;
            stage(&Situation { tables, affinity, now }, &mut self.random, &mut decision);
            self.steps.push(stages::explain(&self.scene, name, &before, &decision));
            self.steps.extend(stages::backend(&self.scene, &decision).filter(|_| name == "dnat"));
        }
        decision
    }

    /// What the data path does with a decision: `Core::first_packet`.
    fn end(&mut self, meta: &Meta, decision: &Decision) -> Result<Ending, TraceError> {
        Ok(match decision.outcome {
            Outcome::Drop(DropReason::NoRoute) if decision.frontend.is_none() => {
                Ending::new(Verdict::Pass, reason_name(DropReason::NoRoute))
            }
            Outcome::Drop(reason) => Ending::drop(reason),
            Outcome::Reject(reason) => Ending::reject(reason, "icmp-port-unreachable"),
            Outcome::Answer => {
                Ending::new(Verdict::Deliver, "an echo request to the gateway, which answers it")
            }
            Outcome::Deliver => self.deliver(meta, decision),
            Outcome::Forward | Outcome::Bridge | Outcome::Undecided => self.forward(meta, decision)?,
        })
    }

    /// An ICMP error that is the host's own to say or to hear; any other is dropped for the reason: `Core::error_of_host`.
    pub(super) fn error_of_host(&mut self, parsed: &Parsed, otherwise: DropReason) -> Ending {
        let meta = &parsed.meta;
        let at = usize::from(meta.ip_offset) + 16;
        let bytes = parsed.packet.data().get(at..).and_then(|bytes| bytes.first_chunk()).copied();
        let destination = bytes.map_or(0, u32::from_be_bytes);
        let tables = self.scene.tables;
        if meta.interface == crate::table::interface::HOST_INTERFACE {
            return self.pass_on(meta, destination);
        }
        if !tables.routes.is_local(destination) {
            return self.refuse_flow(otherwise);
        }
        if let Some(ending) = self.refused_by_host(meta) {
            return ending;
        }
        let reason = format!("an ICMP error to {}, the node's own address", Ipv4Addr::from(destination));
        self.note("host", None, "to the host's own stack; no flow is remembered");
        Ending::new(Verdict::Deliver, reason)
    }

    /// The MAC that the frame is for, if that is known.
    pub(super) fn frame_mac(&self) -> Option<MacAddress> {
        self.arrival.destination_mac(&self.question.packet)
    }
}
