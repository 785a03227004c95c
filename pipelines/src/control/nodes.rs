//! What Node objects add to a configuration: this node's addresses, and the ways to the other nodes' pods.
//!
//! As flannel does it (pkg/backend/vxlan/vxlan_network.go): for each other node a route to its pods through its VTEP, whose
//! address is the base of the pods' network, that VTEP's MAC as neighbour, and where that MAC is as FDB entry. What the
//! configuration itself says stays: an object adds what is not there.

use core::net::Ipv4Addr;

use crate::control::config::model::{Configuration, InterfaceName, Neighbour, OverlayFdb, Route};
use crate::control::config::{Diagnostic, Severity};
use crate::control::kubernetes::ObjectStore;
use crate::control::services::desired::{DesiredNode, Vtep};

/// The configuration with what nodes add, and what does not fit together.
pub fn with_nodes(configuration: &Configuration, objects: &ObjectStore) -> (Configuration, Vec<Diagnostic>) {
    let mut configuration = configuration.clone();
    let mut found = Vec::new();
    let name = configuration.node.name.clone();
    match objects.node(&name) {
        Some(node) => add_own(&mut configuration, node, &mut found),
        None if configuration.control.manifests.is_some() && !name.is_empty() => found.push(warning(
            "node.name",
            format!("there is no Node object named \"{name}\""),
            "add it: its zone, and its addresses if the configuration has none, are not known",
        )),
        None if configuration.control.manifests.is_some() => found.push(warning(
            "node.name",
            "the node has no name, so that no endpoint is local".to_owned(),
            "add `[node] name` with the name of its Node object",
        )),
        None => {}
    }
    for node in objects.nodes().filter(|node| *node.name != *name) {
        add_other(&mut configuration, node, &mut found);
    }
    (configuration, found)
}

fn warning(key: &str, wrong: String, right: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        place: None,
        key: key.to_owned(),
        wrong,
        right: right.to_owned(),
    }
}

/// This node's addresses. The first is where node ports are answered, unless the configuration names others
/// (`--nodeport-addresses=primary` of kube-proxy).
fn add_own(configuration: &mut Configuration, node: &DesiredNode, found: &mut Vec<Diagnostic>) {
    let own = &mut configuration.node;
    for address in &node.addresses {
        if !own.addresses.contains(address) {
            own.addresses.push(*address);
        }
    }
    if own.primary_addresses.is_empty() {
        own.primary_addresses.extend(node.addresses.first());
    }
    if let (Some(vtep), Some(overlay)) = (node.vtep, &configuration.overlay)
        && (vtep.vni, vtep.mac) != (overlay.vni, overlay.mac)
    {
        let wrong = format!(
            "the Node object {} announces VTEP {} of VNI {}, and the overlay is {} of VNI {}",
            node.name, vtep.mac, vtep.vni, overlay.mac, overlay.vni
        );
        found.push(warning(
            "overlay.mac",
            wrong,
            "make them the same: other nodes send to what is announced",
        ));
    }
}

fn add_other(configuration: &mut Configuration, node: &DesiredNode, found: &mut Vec<Diagnostic>) {
    let (Some(overlay), Some(vtep)) = (&configuration.overlay, node.vtep) else { return };
    if vtep.vni != overlay.vni {
        let wrong =
            format!("Node {} is in VNI {}, and the overlay's is {}", node.name, vtep.vni, overlay.vni);
        found.push(warning("overlay.vni", wrong, "its pods are not reached; make them the same"));
        return;
    }
    let Vtep { mac, public_ip, .. } = vtep;
    for network in &node.pod_cidrs {
        let via = Ipv4Addr::from(network.base());
        if !configuration.routes.iter().any(|route| route.destination == *network) {
            let interface = InterfaceName::Overlay;
            configuration.routes.push(Route { destination: *network, via: Some(via), interface });
        }
        let is_it =
            |neighbour: &Neighbour| (neighbour.interface, neighbour.address) == (InterfaceName::Overlay, via);
        if !configuration.neighbours.iter().any(is_it) {
            configuration.neighbours.push(Neighbour { interface: InterfaceName::Overlay, address: via, mac });
        }
    }
    if !configuration.overlay_fdb.iter().any(|entry| entry.mac == mac) {
        configuration.overlay_fdb.push(OverlayFdb { mac, remote: public_ip });
    }
}
