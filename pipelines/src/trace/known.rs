//! Packets of flows that a running gateway has: what conntrack and the entry make of them.
//!
//! The owner gives a copy of the entry pair; the data path's own functions are asked about the copy, so nothing of the
//! gateway's moves.

use engine::batch::WorkerId;
use engine::table::flow::{EntryId, FlowEntry, FlowKey};
use engine::wire::ipv4::PROTOCOL_TCP;

use super::ingress::Parsed;
use super::json::{Backend, Ends, Flow, KnownFlow, Step, Verdict};
use super::walk::{Course, Ending, Walk};
use super::{Scene, TraceError, stages};
use crate::control::view::lock;
use crate::decision::{Decision, MARK_MASQUERADE, Outcome};
use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ASSURED, FLAG_ORIGINAL, FLAG_TRANSLATED, FlowValue, NO_BACKEND};
use crate::gateway::changes::is_outdated;
use crate::meta::{BRIDGED, Kind};
use crate::ownership::visit;
use crate::stage::conntrack::{self, STATE_REPLIED, Step as Advance};
use crate::stage::tcp_state::TcpState;
use crate::table::interface::HOST_INTERFACE;
use crate::table::service::{FrontendKey, ServicePort};
use crate::table::stale::Fate;

/// A flow's two entries, that of the packet asked about first.
pub(super) type Pair = [FlowEntry<FlowValue>; 2];

/// A flow that a running gateway has.
pub(super) struct Known {
    /// The first packet as it came.
    pub(super) original: FlowKey,
    /// The packet asked about goes the way of the first one.
    pub(super) is_original: bool,
}

impl Scene<'_> {
    /// Asks a worker of the running gateway for the flow of packets with this key.
    pub(super) fn ask(&self, worker: WorkerId, key: &FlowKey) -> Result<Option<Pair>, TraceError> {
        let Some(view) = self.running else { return Ok(None) };
        Ok(lock(&view.questions).look_up(usize::from(worker), *key)?)
    }

    /// Asks where a packet would be looked up, in that order.
    fn find_flow(&self, key: &FlowKey) -> Result<Option<(WorkerId, Pair)>, TraceError> {
        if self.running.is_none() {
            return Ok(None);
        }
        let (mut worker, mut visited) = (self.ownership.next(key, visit::NONE), visit::NONE);
        loop {
            if let Some(pair) = self.ask(worker, key)? {
                return Ok(Some((worker, pair)));
            }
            match self.ownership.of_worker(worker).after_miss(key, visited) {
                Some(next) => (worker, visited) = next,
                None => return Ok(None),
            }
        }
    }
}

impl Walk<'_> {
    /// What becomes of a packet whose flow is known: `Core::known_flow`. None: none is, or it is over, and the packet may
    /// begin another.
    pub(super) fn known_flow(&mut self, parsed: &Parsed) -> Result<Option<Course>, TraceError> {
        let meta = &parsed.meta;
        let Some((worker, pair)) = self.scene.find_flow(&meta.key)? else { return Ok(None) };
        let [found, peer] = &pair;
        let inserted = self.flows.insert((found.key, found.value), (peer.key, peer.value));
        let Ok(id) = inserted else { return Ok(None) };
        let mut flow = self.known_in_words(worker, &pair);
        if meta.kind == Kind::IcmpError {
            self.note_flow(&pair, &flow, "an ICMP error about it");
            // About a flow that nothing is rewritten of it is right as it is; others would have to be translated.
            let ending = if found.value.has(FLAG_TRANSLATED) {
                self.refuse_flow(DropReason::IcmpErrorTracked)
            } else {
                self.error_of_host(parsed, DropReason::IcmpErrorTracked)
            };
            return Ok(Some(self.without_decision(meta, ending)));
        }
        let now_ms = self.now_ms();
        let advanced = match self.why_over(id) {
            Some(why) => Err(why),
            None => match conntrack::advance(&mut self.flows, id, &parsed.packet, meta, now_ms) {
                Advance::Reopen => Err("closed, and this packet opens another in its place"),
                advanced => Ok(advanced),
            },
        };
        let value = self.flows.entry(id).value;
        match advanced {
            Err(why) => {
                self.note_flow(&pair, &flow, why);
                self.flows.remove(id);
                Ok(None)
            }
            Ok(advanced) => {
                let after = state_name(&found.key, value.state);
                let result = if after == flow.state { "it stays so" } else { after };
                self.note_flow(&pair, &flow, &format!("with this packet: {result}"));
                if let Some(known) = &mut flow.known {
                    known.state_after = after;
                }
                let ending = match advanced {
                    Advance::Invalid => {
                        Ending { flow: Some(flow), ..self.refuse_flow(DropReason::TcpInvalid) }
                    }
                    _ => self.follow(parsed, &value, flow),
                };
                let (decision, known) = (self.decision_of(&pair), known_of(&pair));
                self.steps.extend(
                    stages::backend(&self.scene, &decision).map(|step| Step { stage: "conntrack", ..step }),
                );
                Ok(Some(Course { meta: *meta, decision, ending, known: Some(known) }))
            }
        }
    }

    fn now_ms(&self) -> u32 {
        self.scene.now.millis()
    }

    /// Why a flow that is there is not used any more; its owner's sweep has not come by.
    fn why_over(&self, id: EntryId) -> Option<&'static str> {
        let tables = self.scene.tables;
        if conntrack::has_ended(&self.flows, id, &tables.timeouts, self.now_ms()) {
            return Some("its time is over");
        }
        let services = &tables.services;
        let is_outdated = services.needs_sweep() && is_outdated(&self.flows, id, services);
        is_outdated.then_some("ended by a change of services")
    }

    /// Leaves as the entry says: `Core::forward`.
    fn follow(&mut self, parsed: &Parsed, value: &FlowValue, flow: Flow) -> Ending {
        let meta = &parsed.meta;
        let leaving = FlowKey {
            source: value.new_source,
            source_port: value.new_source_port,
            destination: value.new_destination,
            destination_port: value.new_destination_port,
            ..meta.key
        };
        let of = flow.known.as_ref().and_then(|known| known.service.as_ref());
        let reason = match of {
            Some(service) => format!("as its flow, of service {service}"),
            None if value.has(FLAG_TRANSLATED) => "as its flow, translated".to_owned(),
            None => "as its flow, untranslated".to_owned(),
        };
        let ending =
            Ending { leaving: Some(leaving), flow: Some(flow), ..Ending::new(Verdict::Forward, reason) };
        if meta.has(BRIDGED) && value.new_destination == meta.key.destination {
            return self.bridge(value.new_destination, ending);
        }
        let ending = self.leave(meta, value.new_destination, ending);
        // `Core::admit_later`: what others say to the host itself may not come from the host.
        let is_direct = value.flags & (FLAG_ORIGINAL | FLAG_TRANSLATED) == FLAG_ORIGINAL;
        if ending.verdict == Verdict::Deliver
            && is_direct
            && let Some(refused) = self.refused_by_host(meta)
        {
            return Ending { flow: ending.flow, ..refused };
        }
        ending
    }

    fn note_flow(&mut self, pair: &Pair, flow: &Flow, result: &str) {
        let decision = self.decision_of(pair);
        let object = stages::service_of(self.scene.tables, &decision)
            .map(|(_, service)| stages::object(&self.scene, service, Some(&service.port_name)));
        let Some(known) = &flow.known else { return };
        let seconds = |ms: u32| f64::from(ms) / 1_000.0;
        let (protocol, from, to) = (self.packet.transport.name(), &known.original, &known.reply);
        let entry = format!("flow {protocol} {from}, answers {to}");
        let mut text = format!("{} of worker {}, {}", flow.state, flow.owner, known.direction);
        text += &format!(" direction, last packet {:.1} s ago", seconds(known.idle_ms));
        text += &format!(", ends in {:.1} s", seconds(known.expires_in_ms));
        if let Some(backend) = &known.backend {
            text += &format!(", backend {backend}");
        }
        text += &format!("; {result}");
        self.steps.push(Step { stage: "conntrack", entry: Some(entry), object, result: text });
    }

    fn known_in_words(&self, worker: WorkerId, pair: &Pair) -> Flow {
        let (original, reply) = both(pair);
        let timeouts = &self.scene.tables.timeouts;
        let idle_ms = conntrack::idle_ms(&original.value, &reply.value, self.now_ms());
        let timeout_ms = conntrack::timeout_ms(timeouts, &original.key, original.value.state);
        let decision = self.decision_of(pair);
        let services = &self.scene.tables.services;
        let service = stages::service_of(self.scene.tables, &decision).map(|(_, service)| service);
        // The address that it was reached by may be gone.
        let has_slot = |service: &&ServicePort| {
            service.backends.iter().any(|backend| backend.slot == decision.backend_slot)
        };
        let service = service.or_else(|| services.iter().map(|service| &**service).find(has_slot));
        let has_backend = original.value.backend_slot != NO_BACKEND;
        let backend = Backend { address: reply.key.source.into(), port: reply.key.source_port };
        let direction = if known_of(pair).is_original { "original" } else { "reply" };
        let state = state_name(&original.key, original.value.state);
        let known = KnownFlow {
            direction,
            state_after: state,
            original: Ends::new(&original.key),
            reply: Ends::new(&reply.key),
            translated: original.value.has(FLAG_TRANSLATED),
            assured: original.value.has(FLAG_ASSURED),
            idle_ms,
            expires_in_ms: timeout_ms.saturating_sub(idle_ms),
            service: service.map(ServicePort::title),
            backend: has_backend.then_some(backend),
        };
        Flow { state, owner: worker, known: Some(known) }
    }

    /// The decision that a flow was compiled from, as far as the flow and the tables of now still tell.
    fn decision_of(&self, pair: &Pair) -> Decision {
        let (original, reply) = both(pair);
        let (key, leaving) = (original.key, reply.key.reversed());
        let mut decision = Decision::new(key, HOST_INTERFACE, false);
        decision.outcome = Outcome::Forward;
        (decision.source, decision.destination) = (leaving.source, leaving.destination);
        decision.destination_port = leaving.destination_port;
        if (leaving.source, leaving.source_port) != (key.source, key.source_port) {
            decision.mark |= MARK_MASQUERADE;
        }
        let services = &self.scene.tables.services;
        let slot = match services.stale.fate(original.value.backend_slot) {
            Some(Fate::Count(slot)) => slot,
            _ => original.value.backend_slot,
        };
        let frontend = FrontendKey::of_destination(&key);
        if decision.is_redirected() || slot != NO_BACKEND {
            let found = services.find(&frontend);
            decision.frontend = found.map(|(frontend, _)| frontend);
            let backend = found.and_then(|(_, service)| service.backends.iter().position(|b| b.slot == slot));
            decision.backend = backend.map(|place| place as u32);
            decision.backend_slot = slot;
        }
        decision
    }
}

fn known_of(pair: &Pair) -> Known {
    Known { original: both(pair).0.key, is_original: pair[0].value.has(FLAG_ORIGINAL) }
}

/// The original direction's entry, and the answers'.
fn both(pair: &Pair) -> (&FlowEntry<FlowValue>, &FlowEntry<FlowValue>) {
    let [found, peer] = pair;
    if found.value.has(FLAG_ORIGINAL) { (found, peer) } else { (peer, found) }
}

fn state_name(key: &FlowKey, state: u8) -> &'static str {
    match key.protocol {
        PROTOCOL_TCP => TcpState::from_number(state).name(),
        _ if state == STATE_REPLIED => "replied",
        _ => "unreplied",
    }
}
