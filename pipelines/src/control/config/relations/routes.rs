//! Routes: next hops that can be reached, each destination once.

use core::net::Ipv4Addr;
use std::collections::{HashMap, HashSet};

use crate::control::config::draft::Draft;
use crate::control::config::model::InterfaceName;
use crate::control::config::notes::{At, Notes};
use crate::prefix::Ipv4Prefix;

use super::forwarding::Forwarding;
use super::{Connected, connected, own_addresses};

pub(super) fn check(draft: &Draft, forwarding: &Forwarding, notes: &Notes) {
    let connected = connected(draft);
    let own: HashMap<Ipv4Addr, String> = own_addresses(draft).into_iter().collect();
    let mut seen: HashMap<Ipv4Prefix, String> = connected
        .iter()
        .map(|connected| {
            (
                connected.network.value.prefix,
                format!("the network of `{}`, which is known by itself", connected.name),
            )
        })
        .collect();
    let on_overlay = draft.neighbours.iter().filter(|at| at.on.interface == Some(InterfaceName::Overlay));
    let neighbours = on_overlay.filter_map(|neighbour| Some(neighbour.address?.value)).collect();
    for route in &draft.routes {
        if let Some(At { value, offset }) = route.destination {
            match seen.get(&value) {
                Some(other) => {
                    notes.error(
                        offset,
                        format!("a route to {value} is there already: {other}"),
                        "remove one",
                    );
                }
                None => {
                    seen.insert(value, "another of `[[routes]]`".to_owned());
                }
            }
        }
        let (Some(via), Some(interface)) = (route.via, route.on.interface) else { continue };
        if let Some(whose) = own.get(&via.value) {
            notes.error(
                via.offset,
                format!("next hop {} is the gateway's own address ({whose})", via.value),
                "name the router behind the link, or leave `via` out if the destination is on it",
            );
        } else if interface == InterfaceName::Overlay {
            check_has_neighbour(via, &neighbours, notes);
        } else {
            check_on_link(via, interface, &connected, notes);
        }
    }
    check_remotes(draft, forwarding, notes);
}

fn check_on_link(via: At<Ipv4Addr>, interface: InterfaceName, connected: &[Connected<'_>], notes: &Notes) {
    let Some(link) = connected.iter().find(|connected| connected.interface == interface) else { return };
    let prefix = link.network.value.prefix;
    if !prefix.contains(u32::from(via.value)) {
        notes.error(
            via.offset,
            format!("next hop {} is not on the network of `{}`, {prefix}", via.value, link.name),
            format!("name a router in {prefix}, or another interface"),
        );
    }
}

/// Routes into the overlay are on-link, as flannel writes them: the next hop need not be in any prefix, but nobody
/// answers ARP there.
fn check_has_neighbour(via: At<Ipv4Addr>, neighbours: &HashSet<Ipv4Addr>, notes: &Notes) {
    if !neighbours.contains(&via.value) && notes.all_read(&["neighbours"]) {
        notes.warning(
            via.offset,
            format!("next hop {} on the overlay has no neighbour entry", via.value),
            "add a `[[neighbours]]` with its VTEP's MAC",
        );
    }
}

/// A tunnel's outer packets must find their way outside the tunnel.
fn check_remotes(draft: &Draft, forwarding: &Forwarding, notes: &Notes) {
    if !notes.all_read(&["ports", "bridge", "routes"]) {
        return;
    }
    let underlay = draft.overlay.as_ref().and_then(|overlay| overlay.underlay_port);
    let Some(underlay) = underlay.map(InterfaceName::Underlay) else { return };
    for entry in draft.fdb.iter().filter(|entry| entry.on.interface == Some(InterfaceName::Overlay)) {
        let Some(remote) = entry.remote else { continue };
        let problem = match forwarding.interface(Ipv4Prefix::host(remote.value)) {
            Some(interface) if interface == underlay => continue,
            Some(InterfaceName::Overlay) => {
                notes.error(
                    remote.offset,
                    format!("remote {} is routed into the overlay that it carries", remote.value),
                    "name the node's address on the underlay, or add a route to it by the underlay port",
                );
                continue;
            }
            Some(_) => "is not routed by the overlay's underlay port",
            None => "has no route",
        };
        notes.warning(
            remote.offset,
            format!("remote {} {problem}", remote.value),
            "add a route to it by the underlay port",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    const DEFAULT_VIA: &str = "via = \"192.168.0.1\"";

    fn with_route(lines: &str) -> String {
        changed(&[("[conntrack]", &format!("[[routes]]\n{lines}\n\n[conntrack]"))])
    }

    #[test]
    fn each_destination_is_there_once() {
        expect(
            &with_route("destination = \"172.30.9.0/24\"\ninterface = \"flannel.1\""),
            &[(
                "error",
                "\"172.30.9.0/24\"",
                "routes[3].destination",
                "there already: another of `[[routes]]`",
            )],
        );
        expect(
            &with_route("destination = \"192.168.0.0/24\"\ninterface = \"eth0\""),
            &[(
                "error",
                "\"192.168.0.0/24\"",
                "routes[3].destination",
                "the network of `eth0`, which is known by itself",
            )],
        );
    }

    #[test]
    fn next_hops_are_on_the_link() {
        expect_one(
            DEFAULT_VIA,
            "via = \"192.168.1.1\"",
            ("error", "\"192.168.1.1\"", "routes[2].via", "is not on the network of `eth0`, 192.168.0.0/24"),
        );
        for own in ["192.168.0.21", "172.30.76.1", "172.30.76.0"] {
            let at = format!("\"{own}\"");
            let expected = ("error", at.as_str(), "routes[2].via", "is the gateway's own address");
            expect_one(DEFAULT_VIA, &format!("via = {at}"), expected);
        }
        expect(
            &with_route("destination = \"10.9.0.0/16\"\nvia = \"172.30.76.9\"\ninterface = \"docker0\""),
            &[],
        );
    }

    #[test]
    fn next_hops_in_the_tunnel_have_neighbours() {
        expect_one(
            "via = \"172.30.9.0\"",
            "via = \"172.30.9.7\"",
            (
                "warning",
                "\"172.30.9.7\"",
                "routes[1].via",
                "next hop 172.30.9.7 on the overlay has no neighbour entry",
            ),
        );
        // A neighbour that cannot be read may be the one.
        expect_one(
            "address = \"172.30.9.0\"",
            "address = \"172.30.9\"",
            ("error", "\"172.30.9\"", "neighbours[0].address", "which is no IPv4 address"),
        );
    }

    #[test]
    fn remotes_are_reached_outside_the_tunnel() {
        expect_one(
            "remote = \"192.168.0.22\"",
            "remote = \"172.30.44.4\"",
            ("error", "\"172.30.44.4\"", "fdb[0].remote", "is routed into the overlay that it carries"),
        );
        let away = ("remote = \"192.168.0.22\"", "remote = \"10.1.1.1\"");
        expect(&changed(&[away]), &[]);
        let text = changed(&[away, ("destination = \"0.0.0.0/0\"", "destination = \"11.0.0.0/8\"")]);
        expect(&text, &[("warning", "\"10.1.1.1\"", "fdb[0].remote", "has no route")]);
        expect_one(
            "remote = \"192.168.0.22\"",
            "remote = \"172.30.76.9\"",
            ("warning", "\"172.30.76.9\"", "fdb[0].remote", "is not routed by the overlay's underlay port"),
        );
    }
}
