//! Names: each belongs to one thing, and each that refers must find it.

use std::collections::{HashMap, HashSet};

use crate::control::config::draft::{Draft, Fdb, InterfaceReference};
use crate::control::config::model::{InterfaceName, PortRole};
use crate::control::config::notes::{At, Notes};
use crate::control::config::readable::closest;

/// Finds what each name refers to, and writes it beside the name.
pub(super) fn resolve(draft: &mut Draft, notes: &Notes) {
    let names = Names::of(draft, notes);
    resolve_underlay(draft, &names, notes);
    let references = (draft.routes.iter_mut().map(|route| &mut route.on))
        .chain(draft.neighbours.iter_mut().map(|neighbour| &mut neighbour.on))
        .chain(draft.fdb.iter_mut().map(|entry| &mut entry.on));
    for reference in references {
        names.resolve(reference, notes);
    }
    for entry in &mut draft.fdb {
        resolve_fdb(entry, &names, notes);
    }
    check_services(draft, notes);
}

struct Names {
    interfaces: HashMap<String, InterfaceName>,
    /// Pod ports and their places.
    pods: HashMap<String, usize>,
    /// Whether every name could be read: if not, one that is not found may well be the one that could not.
    complete: bool,
}

impl Names {
    fn of<'d>(draft: &'d Draft, notes: &Notes) -> Self {
        let named = draft.ports.iter().all(|port| port.name.is_some() && port.role.is_some());
        let complete = named && notes.names_read(&["ports", "bridge", "overlay"]);
        let mut names = Self { interfaces: HashMap::new(), pods: HashMap::new(), complete };
        let mut taken: HashSet<&'d str> = HashSet::new();
        let mut take = |name: &'d At<String>, what: &str| {
            if !taken.insert(name.value.as_str()) {
                notes.error(
                    name.offset,
                    format!("{what} is named `{}`, as something before it is", name.value),
                    "give ports, bridge and overlay names of their own",
                );
            }
        };
        for (place, port) in draft.ports.iter().enumerate() {
            let Some(name) = &port.name else { continue };
            take(name, "this port");
            match port.role.map(|role| role.value) {
                Some(PortRole::Underlay) => {
                    names.interfaces.entry(name.value.clone()).or_insert(InterfaceName::Underlay(place));
                }
                Some(PortRole::Pod) => {
                    names.pods.entry(name.value.clone()).or_insert(place);
                }
                None => {}
            }
        }
        let bridge = draft.bridge.as_ref().and_then(|bridge| bridge.name.as_ref());
        let overlay = draft.overlay.as_ref().and_then(|overlay| overlay.name.as_ref());
        for (name, what, interface) in
            [(bridge, "the bridge", InterfaceName::Bridge), (overlay, "the overlay", InterfaceName::Overlay)]
        {
            let Some(name) = name else { continue };
            take(name, what);
            names.interfaces.entry(name.value.clone()).or_insert(interface);
        }
        names
    }

    fn resolve(&self, reference: &mut InterfaceReference, notes: &Notes) {
        let Some(name) = &reference.name else { return };
        reference.interface = self.interfaces.get(&name.value).copied();
        if reference.interface.is_some() || !self.complete {
            return;
        }
        if self.pods.contains_key(&name.value) {
            notes.error(
                name.offset,
                format!("`{}` is a pod port, which is no interface of its own", name.value),
                "name the bridge that it belongs to",
            );
            return;
        }
        let known = self.interfaces.keys().map(String::as_str);
        notes.error(
            name.offset,
            format!("there is no interface `{}`", name.value),
            suggest(&name.value, known),
        );
    }
}

fn suggest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    match closest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none yet: add it".to_owned(),
        None => {
            let list: Vec<String> = known.iter().take(8).map(|known| format!("`{known}`")).collect();
            format!("use one of {}", list.join(", "))
        }
    }
}

fn resolve_underlay(draft: &mut Draft, names: &Names, notes: &Notes) {
    let Some(overlay) = &mut draft.overlay else { return };
    let Some(name) = &overlay.underlay else { return };
    if let Some(InterfaceName::Underlay(place)) = names.interfaces.get(&name.value) {
        overlay.underlay_port = Some(*place);
    } else if names.complete {
        let underlays =
            names.interfaces.iter().filter(|(_, what)| matches!(what, InterfaceName::Underlay(_)));
        let known = underlays.map(|(name, _)| name.as_str());
        let right = match names.interfaces.values().any(|what| matches!(what, InterfaceName::Underlay(_))) {
            true => suggest(&name.value, known),
            false => "add a `[[ports]]` with role \"underlay\" to carry the tunnel".to_owned(),
        };
        notes.error(name.offset, format!("there is no underlay port `{}`", name.value), right);
    }
}

/// An entry of the bridge names a port, one of the overlay a remote.
fn resolve_fdb(entry: &mut Fdb, names: &Names, notes: &Notes) {
    let Some(interface) = entry.on.interface else { return };
    let offset = entry.on.name.as_ref().map_or(entry.offset, |name| name.offset);
    match interface {
        InterfaceName::Underlay(_) => notes.error(
            offset,
            "an underlay port has no forwarding entries",
            "name the bridge or the overlay, or use `[[neighbours]]`",
        ),
        InterfaceName::Bridge if entry.has_remote => notes.error(
            entry.remote.map_or(offset, |remote| remote.offset),
            "an entry of the bridge has a `remote`",
            "give the `port` that the station is behind",
        ),
        InterfaceName::Bridge if !entry.has_port => {
            notes.error(
                entry.offset,
                "an entry of the bridge has no `port`",
                "name the pod port it is behind",
            );
        }
        InterfaceName::Overlay if entry.has_port => notes.error(
            entry.port.as_ref().map_or(offset, |port| port.offset),
            "an entry of the overlay has a `port`",
            "give the `remote`, the underlay address of the VTEP's node",
        ),
        InterfaceName::Overlay if !entry.has_remote => notes.error(
            entry.offset,
            "an entry of the overlay has no `remote`",
            "add the underlay address of the VTEP's node, as in `remote = \"192.168.0.22\"`",
        ),
        InterfaceName::Bridge => {
            let Some(port) = &entry.port else { return };
            entry.port_place = names.pods.get(&port.value).copied();
            if entry.port_place.is_none() && names.complete {
                let known = names.pods.keys().map(String::as_str);
                let wrong = format!("there is no pod port `{}`", port.value);
                notes.error(port.offset, wrong, suggest(&port.value, known));
            }
        }
        InterfaceName::Overlay => {}
    }
}

fn check_services(draft: &Draft, notes: &Notes) {
    let mut seen = HashSet::new();
    for service in &draft.services {
        if let (Some(namespace), Some(name)) = (&service.namespace, &service.name)
            && !seen.insert((&namespace.value, &name.value))
        {
            notes.error(
                name.offset,
                format!("service {}/{} is there twice", namespace.value, name.value),
                "rename one, or put its ports under the other as `[[service.ports]]`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    #[test]
    fn names_belong_to_one_thing() {
        expect_one(
            "name = \"data-product-1\"",
            "name = \"eth0\"",
            ("error", "\"eth0\"", "ports[3].name", "this port is named `eth0`, as something before it is"),
        );
        expect_one(
            "name = \"docker0\"",
            "name = \"ingress-nginx\"",
            ("error", "\"ingress-nginx\"", "bridge.name", "the bridge is named"),
        );
        expect_one(
            "name = \"business-manager\"",
            "name = \"mysql\"",
            ("error", "\"mysql\"", "service[5].name", "service default/mysql is there twice"),
        );
    }

    #[test]
    fn another_keys_fault_hides_no_wrong_reference() {
        let text =
            changed(&[("mtu = 1500", "mtuu = 1500"), ("interface = \"eth0\"", "interface = \"eth9\"")]);
        expect(
            &text,
            &[
                ("error", "mtuu", "ports[0].mtuu", "unknown key `mtuu`"),
                ("error", "\"eth9\"", "routes[2].interface", "there is no interface `eth9`"),
            ],
        );
    }

    #[test]
    fn references_find_what_they_name() {
        expect_one(
            "via = \"172.30.9.0\"\ninterface = \"flannel.1\"",
            "via = \"172.30.9.0\"\ninterface = \"flanel.1\"",
            (
                "error",
                "\"flanel.1\"",
                "routes[1].interface",
                "no interface `flanel.1`; did you mean `flannel.1`?",
            ),
        );
        expect_one(
            "via = \"192.168.0.1\"\ninterface = \"eth0\"",
            "via = \"192.168.0.1\"\ninterface = \"wan\"",
            ("error", "\"wan\"", "routes[2].interface", "use one of `docker0`, `eth0`, `flannel.1`"),
        );
        expect_one(
            "via = \"192.168.0.1\"\ninterface = \"eth0\"",
            "via = \"192.168.0.1\"\ninterface = \"ingress-nginx\"",
            ("error", "\"ingress-nginx\"", "routes[2].interface", "pod port, which is no interface"),
        );
        expect_one(
            "underlay = \"eth0\"",
            "underlay = \"eth1\"",
            ("error", "\"eth1\"", "overlay.underlay", "no underlay port `eth1`; did you mean `eth0`?"),
        );
    }

    #[test]
    fn an_overlay_needs_an_underlay_port() {
        let text = "[overlay]\nunderlay = \"eth0\"\naddress = \"172.30.76.0\"\nmac = \"8a:22:81:5e:d8:b7\"\n";
        expect(
            text,
            &[("error", "\"eth0\"", "overlay.underlay", "add a `[[ports]]` with role \"underlay\"")],
        );
    }

    #[test]
    fn a_name_that_cannot_be_read_is_no_second_finding() {
        expect_one(
            "name = \"flannel.1\"",
            "name = 1",
            ("error", "1", "overlay.name", "`name` is an integer; write a string"),
        );
    }

    #[test]
    fn forwarding_entries_say_where() {
        let station = "[conntrack]";
        let with = |lines: &str| format!("[[fdb]]\n{lines}\n\n[conntrack]");
        let mac = "mac = \"02:00:00:00:00:07\"";
        let bridge = "interface = \"docker0\"";
        let overlay = "interface = \"flannel.1\"";
        let one = |lines: String, expected| expect_one(station, &with(&lines), expected);
        one(
            format!("{bridge}\n{mac}"),
            ("error", "[[fdb]]", "fdb[1]", "an entry of the bridge has no `port`"),
        );
        one(
            format!("{bridge}\n{mac}\nremote = \"192.168.0.30\"\nport = \"ingress-nginx\""),
            ("error", "\"192.168.0.30\"", "fdb[1].remote", "an entry of the bridge has a `remote`"),
        );
        one(
            format!("{bridge}\n{mac}\nport = \"ingress-ngnix\""),
            ("error", "\"ingress-ngnix\"", "fdb[1].port", "did you mean `ingress-nginx`?"),
        );
        one(
            format!("{overlay}\n{mac}"),
            ("error", "[[fdb]]", "fdb[1]", "an entry of the overlay has no `remote`"),
        );
        one(
            format!("{overlay}\n{mac}\nport = \"ingress-nginx\""),
            ("error", "\"ingress-nginx\"", "fdb[1].port", "an entry of the overlay has a `port`"),
        );
        one(
            format!("interface = \"eth0\"\n{mac}\nport = \"ingress-nginx\""),
            ("error", "\"eth0\"", "fdb[1].interface", "an underlay port has no forwarding entries"),
        );
    }
}
