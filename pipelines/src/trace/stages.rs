//! What each stage of the decision changed, in words: the decision before and after it, and the entry it looked up.

use core::net::Ipv4Addr;

use super::json::{Object, Step};
use super::{Scene, reason_name};
use crate::control::services::desired::Origin;
use crate::decision::{Decision, Outcome};
use crate::stage::dnat::select;
use crate::table::Tables;
use crate::table::interface::{HOST_INTERFACE, InterfaceId};
use crate::table::service::{Scope, ServicePort};

/// The step of a stage.
pub(super) fn explain(scene: &Scene<'_>, stage: &'static str, before: &Decision, after: &Decision) -> Step {
    let step = match stage {
        "dnat" => dnat(scene, after),
        "route_lookup" => route_lookup(scene.tables, after),
        "snat_mark" => snat_mark(scene.tables, before, after),
        _ => Step { stage, entry: None, object: None, result: "nothing against it".to_owned() },
    };
    let result = match after.outcome {
        Outcome::Drop(reason) => format!("dropped: {}{}", reason_name(reason), nobody(scene, after)),
        Outcome::Reject(reason) => format!("rejected: {}{}", reason_name(reason), nobody(scene, after)),
        _ => step.result,
    };
    Step { stage, result, ..step }
}

/// Why nobody takes a packet that is for a service: whom it might have gone to.
fn nobody(scene: &Scene<'_>, after: &Decision) -> String {
    service_of(scene.tables, after).map_or_else(String::new, |(_, service)| left_out(service))
}

fn dnat(scene: &Scene<'_>, after: &Decision) -> Step {
    let tables = scene.tables;
    let (address, port) = (Ipv4Addr::from(after.key.destination), after.key.destination_port);
    let mut step = Step { stage: "dnat", entry: None, object: None, result: "for no service".to_owned() };
    if let Some((frontend, service)) = service_of(tables, after) {
        step.entry = Some(format!("{} {address}:{port}/{}", frontend.kind.name(), service.protocol.name()));
        step.object = Some(object(scene, service, Some(&service.port_name)));
        let selection = select(tables, service, frontend.kind, after.key.source);
        let asked = || service.backends.iter().filter(|backend| backend.is_in(selection.scope));
        let open = asked().filter(|backend| backend.weight > 0).count();
        let drawn = format!("{}:{}", Ipv4Addr::from(after.destination), after.destination_port);
        let source = if after.is_masqueraded() { "masqueraded" } else { "its source stays" };
        let draining = asked().count() - open;
        let draining = if draining > 0 { format!(" and {draining} draining") } else { String::new() };
        let backends = match (selection.scope, open) {
            (Scope::Local, 1) => "backend of this node",
            (Scope::Local, _) => "backends of this node",
            (Scope::Cluster, 1) => "backend",
            (Scope::Cluster, _) => "backends",
        };
        let (title, left_out) = (service.title(), left_out(service));
        step.result = format!("{title}, {open} {backends}{draining}{left_out}, {drawn} drawn, {source}");
    } else if tables.services.is_virtual(after.key.destination) {
        step.entry = Some(format!("service address {address}"));
        let owner = tables.services.iter().find(|service| service.cluster_ip == after.key.destination);
        step.object = owner.map(|service| object(scene, service, None));
    } else if let Some(network) = tables.service_cidrs.iter().find(|n| n.contains(after.key.destination)) {
        step.entry = Some(format!("service network {network}"));
    }
    step
}

/// Endpoints that are named as left out, at the most.
const LEFT_OUT_NAMED: usize = 4;

/// Endpoints that take no connection, and why.
fn left_out(service: &ServicePort) -> String {
    let list = &service.facts.left_out;
    let name =
        |(address, port, reason): &(u32, u16, &str)| format!("{}:{port}: {reason}", Ipv4Addr::from(*address));
    let named: Vec<String> = list.iter().take(LEFT_OUT_NAMED).map(name).collect();
    let more = if list.len() > LEFT_OUT_NAMED { ", ..." } else { "" };
    if list.is_empty() {
        String::new()
    } else {
        format!(", {} left out ({}{more})", list.len(), named.join(", "))
    }
}

/// The service that a decision found.
pub(super) fn service_of<'a>(
    tables: &'a Tables,
    decision: &Decision,
) -> Option<(crate::table::service::Frontend, &'a ServicePort)> {
    let frontend = decision.frontend?;
    tables.services.port(frontend.service).map(|service| (frontend, service))
}

/// The object that a service comes from. Of one in the configuration: where the port of this name, or the service itself,
/// is written.
pub(super) fn object(scene: &Scene<'_>, service: &ServicePort, port_name: Option<&str>) -> Object {
    let origin = &service.facts.origin;
    let place = (scene.places)(&origin.source, port_name);
    Object { source: place.unwrap_or_else(|| origin.source.to_string()), ..object_of(origin) }
}

fn object_of(origin: &Origin) -> Object {
    Object {
        kind: origin.kind,
        namespace: origin.namespace.to_string(),
        name: origin.name.to_string(),
        source: origin.source.to_string(),
    }
}

/// The backend that was drawn, where an object of its own says so.
pub(super) fn backend(scene: &Scene<'_>, after: &Decision) -> Option<Step> {
    let (_, service) = service_of(scene.tables, after)?;
    let facts = service.facts.backends.get(after.backend? as usize)?;
    if facts.origin == service.facts.origin {
        return None;
    }
    let entry = format!("backend {}:{}", Ipv4Addr::from(after.destination), after.destination_port);
    let node = facts.node.as_deref().map_or_else(String::new, |node| format!(" on {node}"));
    let here = if facts.local { ", this node" } else { "" };
    let result = format!("drawn{node}{here}");
    Some(Step { stage: "dnat", entry: Some(entry), object: Some(object_of(&facts.origin)), result })
}

fn name(tables: &Tables, interface: InterfaceId) -> &str {
    &tables.interface(interface).name
}

fn route_lookup(tables: &Tables, after: &Decision) -> Step {
    let stage = "route_lookup";
    if after.outcome == Outcome::Bridge {
        let entry = tables.bridge.as_ref().map(|bridge| format!("bridge {}", name(tables, bridge.interface)));
        let result = "for another station of the bridge".to_owned();
        return Step { stage, entry, object: None, result };
    }
    let entry = tables.routes.lookup(after.destination).map(|route| {
        let via = route.via.map_or_else(String::new, |via| format!(" via {}", Ipv4Addr::from(via)));
        let (dev, source) = (name(tables, route.interface), route.source.name());
        format!("route {}{via} dev {dev} ({source})", route.prefix)
    });
    let result = match after.outcome {
        Outcome::Answer => "an echo to the gateway itself".to_owned(),
        Outcome::Deliver => "for the node itself".to_owned(),
        _ => format!("by {}, next hop {}", name(tables, after.egress), Ipv4Addr::from(after.next_hop)),
    };
    Step { stage, entry, object: None, result }
}

fn snat_mark(tables: &Tables, before: &Decision, after: &Decision) -> Step {
    let (mut entry, mut result) = (None, "its source stays".to_owned());
    if after.is_masqueraded() {
        let (first, last) = tables.masquerade.snat_ports;
        let egress_network = tables.masquerade.egress_network.filter(|_| !before.is_masqueraded());
        entry = Some(match egress_network {
            Some(network) => format!("masquerade_egress of {network}"),
            None if after.source != tables.interface(after.egress).address => "snat_address".to_owned(),
            None => format!("interface {}", name(tables, after.egress)),
        });
        result = format!("masqueraded as {}, ports {first}-{last}", Ipv4Addr::from(after.source));
    } else if before.is_masqueraded() && after.egress == HOST_INTERFACE {
        "delivered here, so its source stays".clone_into(&mut result);
    }
    Step { stage: "snat_mark", entry, object: None, result }
}
