//! Prefixes that must not overlap, since an address in both would have two meanings.

use crate::control::config::draft::Draft;
use crate::control::config::model::InterfaceName;
use crate::control::config::notes::{At, Notes};
use crate::prefix::Ipv4Prefix;

use super::connected;

/// A prefix and what it is.
struct Named {
    prefix: Ipv4Prefix,
    offset: usize,
    what: String,
}

fn named(prefix: At<Ipv4Prefix>, what: impl Into<String>) -> Named {
    Named { prefix: prefix.value, offset: prefix.offset, what: what.into() }
}

pub(super) fn check(draft: &Draft, notes: &Notes) {
    let (mut underlays, mut bridge) = (Vec::new(), Vec::new());
    for interface in connected(draft) {
        let prefix = interface.network.map(|network| network.prefix);
        let named = named(prefix, format!("the network of `{}`", interface.name));
        if interface.interface == InterfaceName::Bridge { bridge.push(named) } else { underlays.push(named) }
    }
    let pod_network: Vec<Named> = (draft.overlay.iter())
        .filter_map(|overlay| Some(named(overlay.pod_network?, "the pod network")))
        .collect();
    let list = |prefixes: &[At<Ipv4Prefix>], what: &str| -> Vec<Named> {
        prefixes.iter().map(|prefix| named(*prefix, what)).collect()
    };
    let service_cidrs = list(&draft.settings.service_cidrs, "service CIDR");
    let pod_cidrs = list(&draft.settings.pod_cidrs, "pod CIDR");

    among(&underlays, notes);
    among(&service_cidrs, notes);
    among(&pod_cidrs, notes);
    between(&bridge, &[&underlays], notes);
    between(&pod_network, &[&underlays], notes);
    between(&service_cidrs, &[&underlays, &bridge, &pod_network, &pod_cidrs], notes);
    check_bridge_in_pod_network(&bridge, &pod_network, notes);
    check_pods_on_underlay(&pod_cidrs, &underlays, notes);
    check_vtep(draft, &underlays, &bridge, notes);
}

/// Notes the first of `others` that `one` overlaps: one finding is enough to act on.
fn overlap<'n>(one: &Named, others: impl IntoIterator<Item = &'n Named>, notes: &Notes) {
    if let Some(other) = others.into_iter().find(|other| other.prefix.overlaps(one.prefix)) {
        notes.error(
            one.offset,
            format!("{} {} overlaps {} {}", one.what, one.prefix, other.what, other.prefix),
            "give each a prefix of its own",
        );
    }
}

fn among(prefixes: &[Named], notes: &Notes) {
    for (place, one) in prefixes.iter().enumerate() {
        overlap(one, prefixes.iter().take(place), notes);
    }
}

fn between(some: &[Named], others: &[&[Named]], notes: &Notes) {
    for one in some {
        overlap(one, others.iter().copied().flatten(), notes);
    }
}

fn check_bridge_in_pod_network(bridge: &[Named], pod_network: &[Named], notes: &Notes) {
    for (bridge, network) in bridge.iter().zip(pod_network) {
        let inside = network.prefix.contains(bridge.prefix.base())
            && bridge.prefix.length() >= network.prefix.length();
        if !inside {
            notes.warning(
                bridge.offset,
                format!("{} {} is not inside the pod network {}", bridge.what, bridge.prefix, network.prefix),
                "use a subnet of the pod network: pods there count as outside it",
            );
        }
    }
}

/// Hosts on one link answer each other without the gateway: their answers would not be translated back.
fn check_pods_on_underlay(pod_cidrs: &[Named], underlays: &[Named], notes: &Notes) {
    for pods in pod_cidrs {
        if let Some(underlay) = underlays.iter().find(|underlay| underlay.prefix.overlaps(pods.prefix)) {
            notes.warning(
                pods.offset,
                format!("pod CIDR {} overlaps {} {}", pods.prefix, underlay.what, underlay.prefix),
                "leave that network out: hosts there answer each other past the gateway, so their sources must be masqueraded",
            );
        }
    }
}

fn check_vtep(draft: &Draft, underlays: &[Named], bridge: &[Named], notes: &Notes) {
    let Some(vtep) = draft.overlay.as_ref().and_then(|overlay| overlay.address) else { return };
    let number = u32::from(vtep.value);
    if let Some(underlay) = underlays.iter().find(|underlay| underlay.prefix.contains(number)) {
        notes.error(
            vtep.offset,
            format!("the VTEP's address {} is in {} {}", vtep.value, underlay.what, underlay.prefix),
            "use the base of this node's pod subnet: answers to it must come back through the tunnel",
        );
    }
    let gateway = draft.bridge.as_ref().and_then(|bridge| bridge.address);
    if !bridge.is_empty() && gateway.is_some_and(|gateway| gateway.value.address == vtep.value) {
        notes.error(
            vtep.offset,
            format!("the VTEP's address {} is the bridge's", vtep.value),
            "use the base of this node's pod subnet, as flannel does",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    #[test]
    fn service_networks_are_apart() {
        let service_cidrs = |with: &str| format!("service_cidrs = [\"10.254.0.0/16\", \"{with}\"]");
        let one = |with: &str, said: &str| {
            let at = format!("\"{with}\"");
            expect_one(
                "service_cidrs = [\"10.254.0.0/16\"]",
                &service_cidrs(with),
                ("error", &at, "services.service_cidrs[1]", said),
            );
        };
        one("10.254.9.0/24", "service CIDR 10.254.9.0/24 overlaps service CIDR 10.254.0.0/16");
        one("192.168.0.64/27", "overlaps the network of `eth0` 192.168.0.0/24");
        one("172.30.76.128/25", "overlaps the network of `docker0` 172.30.76.0/24");
        one("172.30.200.0/24", "overlaps the pod network 172.30.0.0/16");
        let text = "[services]\npod_cidrs = [\"10.0.0.0/8\"]\nservice_cidrs = [\"10.254.0.0/16\"]\n";
        expect(text, &[("error", "\"10.254", "services.service_cidrs[0]", "overlaps pod CIDR 10.0.0.0/8")]);
    }

    #[test]
    fn networks_are_apart() {
        let second = "[[ports]]\nname = \"eth1\"\nrole = \"underlay\"\nmac = \"02:00:c0:a8:00:16\"\naddress = \"192.168.0.199/25\"\n\n[exception]";
        expect_one(
            "[exception]",
            second,
            (
                "error",
                "\"192.168.0.199/25\"",
                "ports[6].address",
                "the network of `eth1` 192.168.0.128/25 overlaps the network of `eth0` 192.168.0.0/24",
            ),
        );
        let text = changed(&[("pod_network = \"172.30.0.0/16\"", "pod_network = \"0.0.0.0/0\"")]);
        expect(
            &text,
            &[
                ("error", "\"0.0.0.0/0\"", "overlay.pod_network", "overlaps the network of `eth0`"),
                (
                    "error",
                    "\"10.254.0.0/16\"",
                    "services.service_cidrs[0]",
                    "overlaps the pod network 0.0.0.0/0",
                ),
            ],
        );
        expect(
            &changed(&[("address = \"172.30.76.0\"", "address = \"172.30.76.1\"")]),
            &[("error", "\"172.30.76.1\"", "overlay.address", "is the bridge's")],
        );
        let text = changed(&[("address = \"172.30.76.0\"", "address = \"192.168.0.77\"")]);
        expect(
            &text,
            &[
                (
                    "error",
                    "\"192.168.0.77\"",
                    "overlay.address",
                    "is in the network of `eth0` 192.168.0.0/24",
                ),
                ("warning", "\"192.168.0.77\"", "overlay.address", "outside the pod network"),
            ],
        );
    }

    #[test]
    fn pods_are_where_their_prefixes_say() {
        let text = changed(&[("pod_network = \"172.30.0.0/16\"", "pod_network = \"172.30.0.0/18\"")]);
        expect(
            &text,
            &[
                (
                    "warning",
                    "\"172.30.76.1/24\"",
                    "bridge.address",
                    "is not inside the pod network 172.30.0.0/18",
                ),
                ("warning", "\"172.30.76.0\"", "overlay.address", "outside the pod network"),
            ],
        );
        expect_one(
            "pod_cidrs = [\"172.30.76.0/24\"]",
            "pod_cidrs = [\"172.30.76.0/24\", \"192.168.0.0/28\"]",
            (
                "warning",
                "\"192.168.0.0/28\"",
                "services.pod_cidrs[1]",
                "hosts there answer each other past the gateway",
            ),
        );
        expect_one(
            "pod_cidrs = [\"172.30.76.0/24\"]",
            "pod_cidrs = [\"172.30.76.0/24\", \"172.30.76.0/25\"]",
            ("error", "\"172.30.76.0/25\"", "services.pod_cidrs[1]", "overlaps pod CIDR 172.30.76.0/24"),
        );
    }
}
