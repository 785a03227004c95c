//! The trace's facts about a packet that has come to its end.

use core::net::Ipv4Addr;

use engine::table::flow::FlowKey;

use super::json::{Candidate, Packet, Service, Snat, Trace, Translated, VERSION};
use super::known::Known;
use super::packet::{Transport, flag_letters};
use super::stages;
use super::walk::{Course, Walk};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::{has_identity, has_ports};
use crate::meta::Meta;
use crate::stage::dnat::{is_hairpin, select};
use crate::stage::route_lookup;
use crate::table::interface::InterfaceKind;
use crate::table::service::{Backend, BackendFacts, ServicePort};

impl Walk<'_> {
    /// The backends that may be drawn, each with what the data path's own rule says of masquerading.
    fn candidates(&self, decision: &Decision) -> Vec<Candidate> {
        let tables = self.scene.tables;
        let Some((frontend, service)) = stages::service_of(tables, decision) else { return Vec::new() };
        if matches!(decision.outcome, Outcome::Drop(DropReason::ServiceSourceRange)) {
            return Vec::new();
        }
        let source = decision.key.source;
        let selection = select(tables, service, frontend.kind, source);
        let asked = |backend: &Backend| backend.weight > 0 && backend.is_in(selection.scope);
        let drawn =
            service.backends.iter().zip(&service.facts.backends).filter(|(backend, _)| asked(backend));
        let sum: f64 = drawn.clone().map(|(backend, _)| f64::from(backend.weight)).sum();
        let candidates = drawn.map(|(backend, facts)| Candidate {
            probability: f64::from(backend.weight) / sum,
            masquerade: selection.masquerade || is_hairpin(source, backend.address),
            ..self.candidate(backend, facts)
        });
        candidates.collect()
    }

    /// A backend as it is written.
    fn candidate(&self, backend: &Backend, facts: &BackendFacts) -> Candidate {
        let is_written = facts.origin.kind == "Service";
        let local = if is_written { self.is_local(backend.address) } else { facts.local };
        let derived = Some(self.scene.node).filter(|name| is_written && local && !name.is_empty());
        Candidate {
            address: backend.address.into(),
            port: backend.port,
            weight: backend.weight,
            probability: 0.0,
            node: facts.node.as_deref().or(derived).map(str::to_owned),
            local,
            masquerade: false,
        }
    }

    /// The one backend that a flow which is known has: drawn already, and perhaps not there any more.
    fn flows_own(&self, decision: &Decision, known: &Known) -> Option<Candidate> {
        let (frontend, service) = stages::service_of(self.scene.tables, decision)?;
        let listed = |service: &ServicePort| {
            let place = decision.backend? as usize;
            Some(self.candidate(service.backends.get(place)?, service.facts.backends.get(place)?))
        };
        let candidate = listed(service).unwrap_or_else(|| Candidate {
            address: decision.destination.into(),
            port: decision.destination_port,
            weight: 0,
            probability: 0.0,
            node: None,
            local: self.is_local(decision.destination),
            masquerade: false,
        });
        let source = known.original.source;
        let selection = select(self.scene.tables, service, frontend.kind, source);
        let by_rule = selection.masquerade || is_hairpin(source, decision.destination);
        Some(Candidate { probability: 1.0, masquerade: decision.is_masqueraded() && by_rule, ..candidate })
    }

    /// Whether the tables show that an address is on this node: behind the bridge, or the node's own.
    fn is_local(&self, address: u32) -> bool {
        let tables = self.scene.tables;
        route_lookup::way_out(tables, address).is_some_and(|(interface, _)| {
            matches!(tables.interface(interface).kind, InterfaceKind::Bridge | InterfaceKind::Host)
        })
    }

    pub(super) fn chosen(&self, decision: &Decision) -> Option<Candidate> {
        decision.backend?;
        let (address, port) = (Ipv4Addr::from(decision.destination), decision.destination_port);
        self.candidates(decision).into_iter().find(|c| c.address == address && c.port == port)
    }

    pub(super) fn report(&mut self, course: Course) -> Trace {
        let Course { meta, decision, ending, known } = &course;
        let (candidates, chosen) = match known {
            Some(known) => {
                let own = self.flows_own(decision, known);
                (own.iter().cloned().collect(), own)
            }
            None => (self.candidates(decision), self.chosen(decision)),
        };
        let source = Ipv4Addr::from(decision.key.source);
        let others = candidates.iter().filter(|candidate| candidate.address != source);
        let (mut others, mut all) = (others.peekable(), candidates.iter());
        let masquerade = match others.peek() {
            Some(_) => others.all(|candidate| candidate.masquerade),
            None => !candidates.is_empty() && all.all(|candidate| candidate.masquerade),
        };
        let leaving = ending.leaving.as_ref();
        let snat = match known {
            Some(known) => {
                leaving.filter(|_| known.is_original && decision.is_masqueraded()).map(|leaving| {
                    let port = leaving.source_port;
                    Snat { address: Some(leaving.source.into()), ports: format!("{port}-{port}") }
                })
            }
            None => leaving.filter(|_| decision.is_masqueraded()).map(|_| self.snat(decision)),
        };
        // A flow that is known has its port, and does not get one of many.
        let drawn = snat.as_ref().filter(|_| known.is_none());
        Trace {
            version: VERSION,
            generation: self.scene.tables.generation,
            packet: self.packet(),
            verdict: ending.verdict,
            reason: ending.reason.clone(),
            service: self.service(decision),
            masquerade,
            chosen,
            translated: leaving.and_then(|leaving| translated(meta, leaving, drawn)),
            snat,
            flow: ending.flow.clone(),
            reject_with: ending.reject_with,
            egress: ending.egress.clone(),
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
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            kind: frontend.kind.name(),
            address: decision.key.destination.into(),
            protocol: service.protocol.name(),
            port: decision.key.destination_port,
            port_name: service.port_name.to_string(),
        })
    }

    fn packet(&self) -> Packet {
        let packet = &self.packet;
        let ports = packet.transport.ports();
        let flags = match packet.transport {
            Transport::Tcp(_, _, flags) => Some(flag_letters(flags)),
            _ => None,
        };
        Packet {
            text: packet.to_string(),
            protocol: packet.transport.name().into_owned(),
            source: packet.source(),
            source_port: ports.map(|ports| ports.0),
            destination: packet.destination(),
            destination_port: ports.map(|ports| ports.1),
            identifier: packet.transport.identifier(),
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
    // Without routes nothing has been drawn.
    let is_drawn = snat.is_none() || leaving.source != meta.key.source;
    Some(Translated {
        source: snat.map_or(Some(leaving.source.into()), |snat| snat.address),
        source_port: (has_identity(leaving.protocol) && is_drawn).then_some(leaving.source_port),
        destination: leaving.destination.into(),
        destination_port: has_ports(leaving.protocol).then_some(leaving.destination_port),
    })
}
