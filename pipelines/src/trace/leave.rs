//! From a decision, or a flow that is known, to the way out.

use core::net::Ipv4Addr;

use engine::table::flow::FlowKey;
use engine::wire::ipv4::PROTOCOL_TCP;

use super::ingress::{port_of_station, station_port};
use super::json::{Egress, Flow, Verdict};
use super::walk::{Ending, Walk};
use super::{TraceError, reason_name, stages, way};
use crate::decision::{Decision, Outcome};
use crate::drop_reason::DropReason;
use crate::gateway::forward::{Obstacle, check_limits};
use crate::gateway::host::check_entrance;
use crate::meta::Meta;
use crate::stage::tcp_state::TcpState;
use crate::stage::{conntrack, snat_mark};
use crate::table::neighbour::KIND_HOST;

/// Ports of a running gateway that are asked for, whether they are free, before the last one drawn is shown all the same.
const DRAWS: usize = 4;

impl Walk<'_> {
    pub(super) fn deliver(&mut self, meta: &Meta, decision: &Decision) -> Ending {
        if self.has_routes()
            && let Some(ending) = self.refused_by_host(meta)
        {
            return ending;
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
        let flow = self.new_flow(meta, &decision.key, state);
        let ending = Ending { flow: Some(flow), ..Ending::new(Verdict::Deliver, reason) };
        if self.has_routes() { self.leave(meta, decision.key.destination, ending) } else { ending }
    }

    /// The end of a packet that cannot reach the host's stack; none if it can.
    pub(super) fn refused_by_host(&mut self, meta: &Meta) -> Option<Ending> {
        let reason = check_entrance(meta.interface, self.scene.tables).err()?;
        self.note("host", None, format!("dropped: {}", reason_name(reason)));
        Some(Ending::drop(reason))
    }

    pub(super) fn forward(&mut self, meta: &Meta, decision: &Decision) -> Result<Ending, TraceError> {
        let state = match conntrack::initial_state(meta) {
            Ok(state) => state,
            Err(reason) => return Ok(self.refuse_flow(reason)),
        };
        let leaving = match self.leaving_key(decision)? {
            Ok(leaving) => leaving,
            Err(reason) => return Ok(self.refuse_flow(reason)),
        };
        let flow = self.new_flow(meta, &decision.key, state);
        let ending = Ending {
            leaving: Some(leaving),
            flow: Some(flow),
            ..Ending::new(Verdict::Forward, self.why_forwarded(decision))
        };
        Ok(match decision.outcome {
            Outcome::Undecided => {
                self.note(
                    "route_lookup",
                    None,
                    "no routes are configured: the service layer's verdict stands",
                );
                ending
            }
            Outcome::Bridge => self.bridge(decision.destination, ending),
            _ => self.leave(meta, leaving.destination, ending),
        })
    }

    pub(super) fn refuse_flow(&mut self, reason: DropReason) -> Ending {
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

    /// The key it leaves with; a masqueraded one gets one of many ports. As `Core::leaving_key`, and a running gateway is
    /// asked whose answers would be taken for another flow's.
    fn leaving_key(&mut self, decision: &Decision) -> Result<Result<FlowKey, DropReason>, TraceError> {
        let unchanged = decision.leaving_key(decision.key.source_port);
        if decision.outcome == Outcome::Undecided {
            return Ok(Ok(unchanged));
        }
        let key = &decision.key;
        let owner = self.scene.ownership.of(key.protocol, key.source, key.source_port);
        if !decision.is_masqueraded() {
            let Some(other) = self.scene.ask(owner, &unchanged.reversed())? else { return Ok(Ok(unchanged)) };
            self.note("conntrack", None, "answers would be another flow's, so it gets another source port");
            let [first, second] = other.map(|entry| (entry.key, entry.value));
            let _ = self.flows.insert(first, second);
        }
        let rule = self.scene.ownership.of_worker(owner);
        let mut drawn = Ok(unchanged);
        for _ in 0..DRAWS {
            let (tables, random) = (self.scene.tables, &mut self.random);
            drawn = snat_mark::choose_port(decision, None, tables, &self.flows, &rule, random, &mut 0)
                .map(|(leaving, _)| leaving);
            let Ok(leaving) = &drawn else { break };
            let Some(other) = self.scene.ask(owner, &leaving.reversed())? else { break };
            let [first, second] = other.map(|entry| (entry.key, entry.value));
            let _ = self.flows.insert(first, second);
        }
        Ok(drawn)
    }

    /// The flow of packets that come as `key`.
    fn new_flow(&mut self, meta: &Meta, key: &FlowKey, state: u8) -> Flow {
        let owner = self.scene.ownership.of(key.protocol, key.source, key.source_port);
        let is_tcp = meta.key.protocol == PROTOCOL_TCP;
        let state = if is_tcp { TcpState::from_number(state).name() } else { "unreplied" };
        self.note("conntrack", None, format!("a new flow, {state}, of worker {owner}"));
        Flow { state, owner, known: None }
    }

    /// By the bridge, to the port of its station or to all.
    pub(super) fn bridge(&mut self, destination: u32, ending: Ending) -> Ending {
        let tables = self.scene.tables;
        let Some(bridge) = &tables.bridge else { return Ending::drop(DropReason::BridgeNoPort) };
        let known = match self.frame_mac() {
            Some(mac) if mac.is_multicast() => None,
            Some(mac) => port_of_station(&self.scene, mac),
            None => station_port(&self.scene, bridge.interface, destination),
        };
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
        let result = match known {
            Some(_) => format!("to {port}"),
            None if self.scene.running.is_some() => "its station is not known: to all ports".to_owned(),
            None => "to the port where its station was heard, else to all".to_owned(),
        };
        self.note("fdb_lookup", None, result);
        let next_hop = self.packet.addresses.v4().map_or_else(
            || self.packet.destination(),
            |(_, to)| if destination == 0 { to.into() } else { Ipv4Addr::from(destination).into() },
        );
        Ending { egress: Some(Egress { port, next_hop, vxlan: None }), ..ending }
    }

    /// A packet of the host's as it is: `Core::pass_on`.
    pub(super) fn pass_on(&mut self, meta: &Meta, destination: u32) -> Ending {
        let ending =
            self.leave(meta, destination, Ending::new(Verdict::Forward, "an ICMP error of the host's"));
        // No error is sent about an error.
        match ending.verdict {
            Verdict::Reject => Ending { verdict: Verdict::Drop, reject_with: None, ..ending },
            _ => ending,
        }
    }

    /// By a next hop, if hop limit and size allow.
    pub(super) fn leave(&mut self, meta: &Meta, destination: u32, ending: Ending) -> Ending {
        let tables = self.scene.tables;
        let way = match way::find(&self.scene, destination) {
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
            Err(_) if self.packet.dont_fragment => {
                Ending::reject(DropReason::MtuExceeded, "icmp-fragmentation-needed")
            }
            Err(_) => Ending::drop(DropReason::MtuExceeded),
        };
        let result = format!("hop limit {ttl}, {} of {mtu} bytes: {}", meta.ip_length, refused.reason);
        self.note("apply", None, result);
        Ending { flow: ending.flow, ..refused }
    }
}
