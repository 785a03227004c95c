//! Tables as the trials change them: what flows keep of them, and what they follow.

use engine::table::flow::FlowKey;
use proptest::prelude::*;

use crate::support::ip;
use crate::traffic::UDP;

/// Hosts that serve: two pods here, two behind the tunnel, one outside the cluster.
pub const SERVERS: [&str; 5] = ["172.30.76.5", "172.30.76.3", "172.30.9.2", "172.30.9.3", "192.168.0.103"];

/// A service: its address, protocol, port, node port, and its backends' port.
pub struct Place {
    pub address: &'static str,
    pub protocol: u8,
    pub port: u16,
    pub node_port: u16,
    pub backend_port: u16,
}

pub const PLACES: [Place; 4] = [
    Place { address: "10.254.1.1", protocol: 6, port: 80, node_port: 30_080, backend_port: 8_080 },
    Place { address: "10.254.1.2", protocol: 17, port: 53, node_port: 30_053, backend_port: 5_353 },
    Place { address: "10.254.1.3", protocol: 132, port: 3_868, node_port: 30_868, backend_port: 3_900 },
    // The port stays as it is, so that addresses alone change.
    Place { address: "10.254.1.4", protocol: 17, port: 7_000, node_port: 30_700, backend_port: 7_000 },
];

/// The node's address, where node ports are.
pub const NODE: &str = "192.168.0.21";

/// How a service chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    Random,
    Maglev,
    Affinity,
}

/// What there is of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub is_there: bool,
    pub choice: Choice,
    /// Weight of each server; none: it is no backend.
    pub weights: [Option<u8>; SERVERS.len()],
}

/// What a flow's translation comes from. A flow keeps it as it was when the flow began.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub offers: Vec<Offer>,
    pub has_pod_cidrs: bool,
    pub masquerade_all: bool,
    pub masquerade_egress: bool,
    pub snat_address: bool,
    /// Forced upon a fresh decision.
    pub snat_port: Option<u16>,
    /// A backend at an address that may be none of the servers'; forced as well.
    forced: Option<(usize, String)>,
}

/// The way out of packets: what every flow follows at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarding {
    /// The router's last byte: .1 or .50.
    pub by_client: bool,
    /// 8.8.8.0/24 has a route of its own, by the other of them.
    pub has_more_specific: bool,
    /// 10.99.0.0/16 is behind the tunnel.
    pub is_tunnelled: bool,
    /// Pods of node 2 are behind another address of its VTEP.
    pub by_other_vtep: bool,
    pub router_mac: u8,
    pub vtep_mac: u8,
    pub pod_mac: u8,
    /// The tunnel's other end is .50.
    pub is_elsewhere: bool,
    pub outer_checksum: bool,
    pub small: bool,
}

pub fn offer() -> impl Strategy<Value = Offer> {
    let weight = prop_oneof![2 => Just(None), 3 => (0u8..4).prop_map(Some)];
    let choice =
        prop_oneof![3 => Just(Choice::Random), 1 => Just(Choice::Maglev), 1 => Just(Choice::Affinity)];
    (
        prop::bool::weighted(0.9),
        choice,
        [weight.clone(), weight.clone(), weight.clone(), weight.clone(), weight],
    )
        .prop_map(|(is_there, choice, weights)| Offer { is_there, choice, weights })
}

pub fn policy() -> impl Strategy<Value = Policy> {
    (prop::collection::vec(offer(), PLACES.len()), any::<[bool; 4]>()).prop_map(|(offers, bits)| Policy {
        offers,
        has_pod_cidrs: bits[0],
        masquerade_all: bits[1],
        masquerade_egress: bits[2],
        snat_address: bits[3],
        snat_port: None,
        forced: None,
    })
}

pub fn forwarding() -> impl Strategy<Value = Forwarding> {
    (any::<[bool; 7]>(), [0u8..3, 0u8..3, 0u8..3]).prop_map(|(bits, macs)| Forwarding {
        by_client: bits[0],
        has_more_specific: bits[1],
        is_tunnelled: bits[2],
        by_other_vtep: bits[3],
        router_mac: macs[0],
        vtep_mac: macs[1],
        pod_mac: macs[2],
        is_elsewhere: bits[4],
        outer_checksum: bits[5],
        small: bits[6],
    })
}

impl Policy {
    /// Every service with every backend, masqueraded as in the reference cluster.
    pub fn usual() -> Self {
        let offer = Offer { is_there: true, choice: Choice::Random, weights: [Some(1); SERVERS.len()] };
        Self {
            offers: vec![offer; PLACES.len()],
            has_pod_cidrs: true,
            masquerade_all: false,
            masquerade_egress: true,
            snat_address: false,
            snat_port: None,
            forced: None,
        }
    }

    /// The same, with nothing left to chance: a flow of `key` can only come to leave as `to`.
    pub fn forced(&self, key: &FlowKey, to: &FlowKey) -> Self {
        let mut forced = self.clone();
        if (to.source, to.source_port) != (key.source, key.source_port) && to.source_port != 0 {
            forced.snat_port = Some(to.source_port);
        }
        let is_redirected = (to.destination, to.destination_port) != (key.destination, key.destination_port);
        if let Some(place) = place_of(key)
            && is_redirected
        {
            forced.offers[place].is_there = true;
            forced.offers[place].choice = Choice::Random;
            forced.forced = Some((place, std::net::Ipv4Addr::from(to.destination).to_string()));
        }
        forced
    }

    /// A policy by which a client's packets to a service go to where `direct` goes, and the key of such packets.
    pub fn with_service_before(direct: &FlowKey) -> (FlowKey, Self) {
        let is_it = |place: &&Place| {
            (place.protocol, place.backend_port) == (direct.protocol, direct.destination_port)
        };
        let place = PLACES.iter().find(is_it).expect("a service of that protocol and backend port");
        let key =
            FlowKey { destination: u32::from(ip(place.address)), destination_port: place.port, ..*direct };
        let policy = Self { has_pod_cidrs: false, masquerade_egress: false, ..Self::usual() };
        (key, policy.forced(&key, direct))
    }

    /// Whether a new flow of `key` may go where `to` does.
    pub fn may_choose(&self, key: &FlowKey, to: &FlowKey) -> bool {
        let backend = std::net::Ipv4Addr::from(to.destination).to_string();
        place_of(key).is_some_and(|place| {
            let serves = |(server, weight): &(String, u8)| *server == backend && *weight > 0;
            self.offers[place].is_there && self.backends(place).iter().any(serves)
        })
    }

    /// Whether a flow that is there must end: datagrams to a backend that is gone while others serve. One of weight 0 is
    /// still there, for the flows that it has; Kubernetes has none of those.
    pub fn must_leave(&self, key: &FlowKey, to: &FlowKey, kubernetes: bool) -> bool {
        let Some(place) = place_of(key).filter(|place| self.offers[*place].is_there) else { return false };
        let backend = std::net::Ipv4Addr::from(to.destination).to_string();
        let backends = self.backends(place);
        let is_there = |(server, weight): &(String, u8)| *server == backend && (*weight > 0 || !kubernetes);
        key.protocol == UDP
            && backends.iter().any(|(_, weight)| *weight > 0)
            && !backends.iter().any(is_there)
    }

    /// Backends of a service: address and weight.
    pub fn backends(&self, place: usize) -> Vec<(String, u8)> {
        if let Some((forced, address)) = &self.forced
            && *forced == place
        {
            return vec![(address.clone(), 1)];
        }
        let weights = self.offers[place].weights;
        SERVERS
            .iter()
            .zip(weights)
            .filter_map(|(server, weight)| Some(((*server).to_owned(), weight?)))
            .collect()
    }
}

impl Forwarding {
    /// As in the reference cluster.
    pub fn usual() -> Self {
        Self {
            by_client: false,
            has_more_specific: false,
            is_tunnelled: false,
            by_other_vtep: false,
            router_mac: 1,
            vtep_mac: 1,
            pod_mac: 0,
            is_elsewhere: false,
            outer_checksum: false,
            small: false,
        }
    }
}

/// The service that packets with this key are for.
fn place_of(key: &FlowKey) -> Option<usize> {
    PLACES.iter().position(|place| {
        let is_service =
            (key.destination, key.destination_port) == (u32::from(ip(place.address)), place.port);
        let is_node_port = (key.destination, key.destination_port) == (u32::from(ip(NODE)), place.node_port);
        key.protocol == place.protocol && (is_service || is_node_port)
    })
}
