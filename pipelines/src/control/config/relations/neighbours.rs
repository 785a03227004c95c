//! Neighbours and forwarding entries: one place for each address and each MAC, and none that is the gateway's own.

use core::net::Ipv4Addr;
use std::collections::{HashMap, HashSet};

use engine::wire::ethernet::MacAddress;

use crate::control::config::draft::{Draft, Fdb};
use crate::control::config::model::{InterfaceName, PortRole};
use crate::control::config::notes::{At, Notes};

use super::{connected, own_addresses};

pub(super) fn check(draft: &Draft, notes: &Notes) {
    check_own_macs(draft, notes);
    check_neighbours(draft, notes);
    check_fdb(draft, notes);
    check_paths_into_tunnel(draft, notes);
}

/// The gateway's own MACs with the interface that has each.
fn own_macs(draft: &Draft) -> Vec<(Option<InterfaceName>, At<MacAddress>, &'static str)> {
    let ports = draft.ports.iter().enumerate().filter(|(_, port)| port.has_role(PortRole::Underlay));
    let underlays = ports.filter_map(|(place, port)| {
        Some((Some(InterfaceName::Underlay(place)), port.mac?, "an underlay port"))
    });
    let bridge = draft.bridge.iter();
    let bridge = bridge.filter_map(|bridge| Some((Some(InterfaceName::Bridge), bridge.mac?, "the bridge")));
    let overlay = draft.overlay.iter();
    let overlay =
        overlay.filter_map(|overlay| Some((Some(InterfaceName::Overlay), overlay.mac?, "the VTEP")));
    let exception = draft.exception.iter();
    let exception = exception.filter_map(|exception| Some((None, exception.mac?, "the exception port")));
    underlays.chain(bridge).chain(overlay).chain(exception).collect()
}

fn check_own_macs(draft: &Draft, notes: &Notes) {
    let mut seen = HashMap::new();
    for (_, mac, whose) in own_macs(draft) {
        if let Some(other) = seen.insert(mac.value, whose) {
            notes.warning(
                mac.offset,
                format!("{whose} has the MAC {}, as {other} has", mac.value),
                "give each interface a MAC of its own",
            );
        }
    }
}

fn check_neighbours(draft: &Draft, notes: &Notes) {
    let own: HashMap<Ipv4Addr, String> = own_addresses(draft).into_iter().collect();
    let macs = own_macs(draft);
    let connected = connected(draft);
    let mut seen = HashSet::new();
    for neighbour in &draft.neighbours {
        let Some(interface) = neighbour.on.interface else { continue };
        if let Some(mac) = neighbour.mac
            && macs.iter().any(|(on, own, _)| *on == Some(interface) && own.value == mac.value)
        {
            notes.error(
                mac.offset,
                format!("neighbour MAC {} is the gateway's own", mac.value),
                "give the other station's",
            );
        }
        let Some(address) = neighbour.address else { continue };
        if let Some(whose) = own.get(&address.value) {
            notes.error(
                address.offset,
                format!("neighbour {} is the gateway's own address ({whose})", address.value),
                "remove it, or give the other station's address",
            );
        } else if !seen.insert((interface, address.value)) {
            let wrong = format!("neighbour {} is there twice on this interface", address.value);
            notes.error(address.offset, wrong, "keep one");
        } else if let Some(link) = connected.iter().find(|link| link.interface == interface)
            && !link.network.value.prefix.contains(u32::from(address.value))
        {
            notes.warning(
                address.offset,
                format!(
                    "neighbour {} is not on the network of `{}`, {}, and is never used",
                    address.value, link.name, link.network.value.prefix
                ),
                "correct the address or the interface, or remove it",
            );
        }
    }
}

fn check_fdb(draft: &Draft, notes: &Notes) {
    let macs = own_macs(draft);
    let underlays: Vec<Ipv4Addr> = draft
        .ports
        .iter()
        .filter(|port| port.has_role(PortRole::Underlay))
        .filter_map(|port| Some(port.address?.value.address))
        .collect();
    let mut seen: HashMap<(InterfaceName, MacAddress), &Fdb> = HashMap::new();
    for entry in &draft.fdb {
        if let Some(remote) = entry.remote.filter(|remote| underlays.contains(&remote.value)) {
            notes.error(
                remote.offset,
                format!("remote {} is the gateway's own address", remote.value),
                "give the underlay address of the other VTEP's node",
            );
        }
        let (Some(interface), Some(mac)) = (entry.on.interface, entry.mac) else { continue };
        if macs.iter().any(|(on, own, _)| *on == Some(interface) && own.value == mac.value) {
            notes.error(
                mac.offset,
                format!("{} is the gateway's own MAC on this interface", mac.value),
                "give the other station's",
            );
        } else if let Some(earlier) = seen.insert((interface, mac.value), entry) {
            note_duplicate(earlier, entry, mac, notes);
        }
    }
}

fn note_duplicate(earlier: &Fdb, entry: &Fdb, mac: At<MacAddress>, notes: &Notes) {
    let remotes = (earlier.remote.map(|remote| remote.value), entry.remote.map(|remote| remote.value));
    if remotes.0 == remotes.1 && earlier.port_place == entry.port_place {
        notes.warning(mac.offset, format!("the entry for {} is there twice", mac.value), "remove one");
        return;
    }
    let places = match remotes {
        (Some(one), Some(other)) => format!("at {one} and at {other}"),
        _ => "behind two ports".to_owned(),
    };
    notes.error(
        mac.offset,
        format!("MAC {} is {places}", mac.value),
        "a station is in one place: correct one MAC, or remove the stale entry",
    );
}

/// A neighbour on the overlay is reached when its MAC has a forwarding entry.
fn check_paths_into_tunnel(draft: &Draft, notes: &Notes) {
    let overlay = Some(InterfaceName::Overlay);
    // Node objects may bring what the file does not have.
    let has_manifests = draft.control.rest.as_ref().is_some_and(|control| control.manifests.is_some());
    if has_manifests || !notes.all_read(&["fdb"]) {
        return;
    }
    let stations: HashSet<MacAddress> = (draft.fdb.iter())
        .filter(|entry| entry.on.interface == overlay)
        .filter_map(|entry| Some(entry.mac?.value))
        .collect();
    for mac in
        draft.neighbours.iter().filter(|neighbour| neighbour.on.interface == overlay).filter_map(|n| n.mac)
    {
        if !stations.contains(&mac.value) {
            notes.warning(
                mac.offset,
                format!("neighbour MAC {} on the overlay has no forwarding entry", mac.value),
                "add an `[[fdb]]` with its `remote`: what is sent there is dropped",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    fn with(lines: &str) -> String {
        changed(&[("[conntrack]", &format!("{lines}\n\n[conntrack]"))])
    }

    #[test]
    fn interfaces_have_macs_of_their_own() {
        expect_one(
            "mac = \"02:42:67:05:b5:30\"",
            "mac = \"02:00:c0:a8:00:15\"",
            (
                "warning",
                "\"02:00:c0",
                "bridge.mac",
                "the bridge has the MAC 02:00:c0:a8:00:15, as an underlay port has",
            ),
        );
    }

    #[test]
    fn neighbours_are_others_and_once() {
        let neighbour = |interface: &str, address: &str, mac: &str| {
            with(&format!(
                "[[neighbours]]\ninterface = \"{interface}\"\naddress = \"{address}\"\nmac = \"{mac}\""
            ))
        };
        let mac = "02:00:00:00:00:07";
        expect(&neighbour("eth0", "192.168.0.1", mac), &[]);
        expect(
            &neighbour("eth0", "192.168.0.21", mac),
            &[(
                "error",
                "\"192.168.0.21\"",
                "neighbours[3].address",
                "is the gateway's own address (the node)",
            )],
        );
        expect(
            &neighbour("flannel.1", "172.30.9.2", "96:8f:2d:49:c5:31"),
            &[("error", "\"172.30.9.2\"", "neighbours[3].address", "is there twice on this interface")],
        );
        expect(
            &neighbour("eth0", "192.168.7.1", mac),
            &[(
                "warning",
                "\"192.168.7.1\"",
                "neighbours[3].address",
                "not on the network of `eth0`, 192.168.0.0/24",
            )],
        );
        expect(
            &neighbour("docker0", "172.30.76.8", "02:42:67:05:b5:30"),
            &[("error", "\"02:42:67", "neighbours[3].mac", "is the gateway's own")],
        );
        expect(
            &neighbour("flannel.1", "172.30.8.0", mac),
            &[("warning", "\"02:00:00", "neighbours[3].mac", "has no forwarding entry; add an `[[fdb]]`")],
        );
    }

    #[test]
    fn a_vtep_is_in_one_place() {
        let vtep = |mac: &str, remote: &str| {
            with(&format!("[[fdb]]\ninterface = \"flannel.1\"\nmac = \"{mac}\"\nremote = \"{remote}\""))
        };
        expect(&vtep("96:8f:2d:49:c5:32", "192.168.0.23"), &[]);
        expect(
            &vtep("96:8f:2d:49:c5:31", "192.168.0.23"),
            &[(
                "error",
                "\"96:8f",
                "fdb[1].mac",
                "MAC 96:8f:2d:49:c5:31 is at 192.168.0.22 and at 192.168.0.23",
            )],
        );
        expect(
            &vtep("96:8f:2d:49:c5:31", "192.168.0.22"),
            &[("warning", "\"96:8f", "fdb[1].mac", "the entry for 96:8f:2d:49:c5:31 is there twice")],
        );
        expect(
            &vtep("8a:22:81:5e:d8:b7", "192.168.0.23"),
            &[("error", "\"8a:22", "fdb[1].mac", "is the gateway's own MAC")],
        );
        expect(
            &vtep("96:8f:2d:49:c5:32", "192.168.0.21"),
            &[("error", "\"192.168.0.21\"", "fdb[1].remote", "is the gateway's own address")],
        );
    }

    #[test]
    fn a_station_is_behind_one_port() {
        let station = |port: &str| {
            format!("[[fdb]]\ninterface = \"docker0\"\nmac = \"02:00:00:00:00:07\"\nport = \"{port}\"\n")
        };
        expect(&with(&station("ingress-nginx")), &[]);
        expect(
            &with(&(station("ingress-nginx") + &station("data-product-1"))),
            &[("error", "\"02:00", "fdb[2].mac", "is behind two ports")],
        );
    }
}
