//! Which endpoints of a service's port take new connections: the cluster's, and this node's.
//!
//! As kube-proxy's CategorizeEndpoints (pkg/proxy/topology.go): ready endpoints, of this node's zone where hints say so;
//! where a set has none, those that terminate and still serve. The two sets are decided apart from each other.

use std::sync::Arc;

use super::desired::{DesiredEndpoint, DesiredService};
use crate::table::service::{IN_CLUSTER, IN_LOCAL};

/// The node that the gateway stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name; empty: no endpoint is local.
    pub name: Arc<str>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
}

/// What becomes of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `IN_*`: 0, it takes no new connection.
    pub scopes: u8,
    /// Connections that it has go on.
    pub serving: bool,
    /// On this node.
    pub local: bool,
    /// Why it takes no new connection; empty if it does.
    pub left_out: &'static str,
}

/// Whether a hint is to be followed, and which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    Everywhere,
    SameNode,
    SameZone,
}

/// Takes new connections when things are as they should be. One that says it is ready while it terminates and does not
/// serve contradicts itself, and is not believed.
pub(super) fn is_ready(endpoint: &DesiredEndpoint) -> bool {
    endpoint.ready && (endpoint.serving || !endpoint.terminating)
}

/// Takes new connections when no other does.
fn is_last_resort(endpoint: &DesiredEndpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

pub(super) fn is_local(endpoint: &DesiredEndpoint, node: &NodeIdentity) -> bool {
    !node.name.is_empty() && endpoint.node.as_ref() == Some(&node.name)
}

/// As topologyModeFromHints: hints count only if every ready endpoint has some and one is meant for this place.
fn topology(endpoints: &[DesiredEndpoint], node: &NodeIdentity) -> Topology {
    let ready = || endpoints.iter().filter(|endpoint| is_ready(endpoint));
    let is_here = |topology| ready().any(|endpoint| is_meant(endpoint, topology, node));
    if ready().all(|endpoint| !endpoint.node_hints.is_empty()) && is_here(Topology::SameNode) {
        return Topology::SameNode;
    }
    if ready().all(|endpoint| !endpoint.zone_hints.is_empty()) && is_here(Topology::SameZone) {
        return Topology::SameZone;
    }
    Topology::Everywhere
}

fn is_meant(endpoint: &DesiredEndpoint, topology: Topology, node: &NodeIdentity) -> bool {
    match topology {
        Topology::Everywhere => true,
        Topology::SameNode => !node.name.is_empty() && endpoint.node_hints.contains(&node.name),
        Topology::SameZone => node.zone.as_ref().is_some_and(|zone| endpoint.zone_hints.contains(zone)),
    }
}

/// What becomes of each endpoint of a port, in their order. `is_healthy` is what active health checks say.
pub fn categorize(
    service: &DesiredService,
    endpoints: &[DesiredEndpoint],
    node: &NodeIdentity,
    is_healthy: &dyn Fn(&DesiredEndpoint) -> bool,
) -> Vec<Place> {
    let topology = topology(endpoints, node);
    let wants_local = service.external_local || service.internal_local;
    let mut places: Vec<Place> = endpoints.iter().map(|endpoint| place(endpoint, node, is_healthy)).collect();
    for (scope, wanted) in [(IN_CLUSTER, true), (IN_LOCAL, wants_local)] {
        let covers = |endpoint: &DesiredEndpoint, place: &Place, topology| match scope {
            IN_LOCAL => place.local,
            _ => is_meant(endpoint, topology, node),
        };
        for (fits, topology) in
            [(is_ready as fn(&DesiredEndpoint) -> bool, topology), (is_last_resort, Topology::Everywhere)]
        {
            let mut any = false;
            for (endpoint, place) in endpoints.iter().zip(&mut places) {
                if wanted && fits(endpoint) && is_healthy(endpoint) && covers(endpoint, place, topology) {
                    place.scopes |= scope;
                    any = true;
                }
            }
            if any {
                break;
            }
        }
    }
    for (endpoint, place) in endpoints.iter().zip(&mut places) {
        if place.scopes == 0 && place.left_out.is_empty() {
            place.left_out =
                if is_ready(endpoint) { "meant for another zone or node" } else { "others are ready" };
        }
    }
    places
}

fn place(
    endpoint: &DesiredEndpoint,
    node: &NodeIdentity,
    is_healthy: &dyn Fn(&DesiredEndpoint) -> bool,
) -> Place {
    let left_out = match () {
        () if !is_healthy(endpoint) => "its health check fails",
        () if is_ready(endpoint) || is_last_resort(endpoint) => "",
        () if endpoint.terminating => "terminates and serves no more",
        () => "not ready",
    };
    let serving = (endpoint.serving || endpoint.ready) && is_healthy(endpoint);
    Place { scopes: 0, serving, local: is_local(endpoint, node), left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::model::Algorithm;
    use crate::control::services::desired::ServiceKey;

    fn service(external_local: bool) -> DesiredService {
        DesiredService {
            key: ServiceKey::new("default", "a"),
            origin: Arc::default(),
            cluster_ip: None,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            load_balancer_source_ranges: Vec::new(),
            external_local,
            internal_local: false,
            affinity_s: None,
            algorithm: Algorithm::Random,
            health_check_node_port: None,
            ports: Vec::new(),
        }
    }

    /// `r`eady, `s`erving, `t`erminating, `l`ocal; `n`, `z`: hinted for this node, this zone; `N`, `Z`: for another.
    fn endpoint(letters: &str) -> DesiredEndpoint {
        let has = |letter| letters.contains(letter);
        let hints = |here, elsewhere| -> Arc<[Arc<str>]> {
            let names = [(here, "here"), (elsewhere, "elsewhere")];
            names.iter().filter(|(letter, _)| has(*letter)).map(|(_, name)| Arc::from(*name)).collect()
        };
        DesiredEndpoint {
            address: core::net::Ipv4Addr::LOCALHOST,
            port: 80,
            weight: 1,
            ready: has('r'),
            serving: has('s'),
            terminating: has('t'),
            node: Some(if has('l') { "here" } else { "elsewhere" }.into()),
            zone_hints: hints('z', 'Z'),
            node_hints: hints('n', 'N'),
            origin: Arc::default(),
        }
    }

    /// The scopes of each endpoint: `c`luster, `l`ocal, `-` none.
    fn scopes(endpoints: &[&str]) -> String {
        let endpoints: Vec<DesiredEndpoint> = endpoints.iter().map(|letters| endpoint(letters)).collect();
        let node = NodeIdentity { name: "here".into(), zone: Some("here".into()) };
        let places = categorize(&service(true), &endpoints, &node, &|_| true);
        let text = |place: &Place| match place.scopes {
            0 => "-",
            IN_CLUSTER => "c",
            IN_LOCAL => "l",
            _ => "cl",
        };
        places.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ready_ones_first_and_each_set_by_itself() {
        for (endpoints, expected) in [
            (vec!["rs", "rsl"], "c cl"),
            (vec!["rs", "stl"], "c l"),
            (vec!["st", "stl"], "c cl"),
            (vec!["st", "", "t"], "c - -"),
            (vec!["", "t", "tl"], "- - -"),
            (vec!["rs", "s"], "c -"),
            (vec!["rt"], "-"),
            (vec!["r"], "c"),
        ] {
            assert_eq!(scopes(&endpoints), expected, "{endpoints:?}");
        }
    }

    #[test]
    fn hints_count_only_if_all_have_them_and_one_is_for_here() {
        for (endpoints, expected) in [
            (vec!["rsz", "rsZ"], "c -"),
            (vec!["rsz", "rs"], "c c"),
            (vec!["rsZ", "rsZ"], "c c"),
            (vec!["rsn", "rsN"], "c -"),
            (vec!["rsnZ", "rsNz"], "c -"),
            (vec!["rsNz", "rsZ"], "c -"),
            (vec!["rsz", "rsZ", "s"], "c - -"),
            // The local set asks nobody's hints; nor does the last resort.
            (vec!["rsZl", "rsz"], "l c"),
            (vec!["stZ", "stz"], "c c"),
        ] {
            assert_eq!(scopes(&endpoints), expected, "{endpoints:?}");
        }
    }

    #[test]
    fn a_node_without_a_name_has_no_endpoints() {
        let endpoints = [DesiredEndpoint { node: Some("".into()), ..endpoint("rs") }];
        let places = categorize(&service(true), &endpoints, &NodeIdentity::default(), &|_| true);
        assert_eq!(places[0].scopes, IN_CLUSTER);
    }
}
