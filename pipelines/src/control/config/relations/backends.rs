//! Backends: addresses that packets can be sent to, once translated.

use core::net::Ipv4Addr;
use std::collections::{HashMap, HashSet};

use crate::control::config::draft::{Draft, Service};
use crate::control::config::notes::Notes;
use crate::prefix::Ipv4Prefix;

use super::forwarding::Forwarding;
use super::{own_addresses, services};

pub(super) fn check(draft: &Draft, forwarding: &Forwarding, notes: &Notes) {
    let virtual_ips: HashMap<Ipv4Addr, &Service> =
        (draft.services.iter()).filter_map(|service| Some((service.cluster_ip?.value, service))).collect();
    let own: HashSet<Ipv4Addr> = own_addresses(draft).into_iter().map(|(address, _)| address).collect();
    let has_exception = draft.exception.is_some() || !notes.all_read(&["exception"]);
    let routes_read = notes.all_read(&["ports", "bridge", "overlay", "routes"]) && !forwarding.is_empty();
    if !has_exception && !forwarding.is_empty() {
        note_probes_without_way(draft, notes);
    }
    let backends = draft.services.iter().flat_map(|service| &service.ports).flat_map(|port| &port.backends);
    for backend in backends.filter_map(|backend| backend.address) {
        let address = *backend.value.ip();
        if let Some(service) = virtual_ips.get(&address) {
            notes.error(
                backend.offset,
                format!("backend {address} is the cluster IP of service {}", services::name(service)),
                "name that service's backends instead: a connection is translated once",
            );
        } else if let Some(cidr) =
            draft.settings.service_cidrs.iter().find(|cidr| cidr.value.contains(u32::from(address)))
        {
            notes.warning(
                backend.offset,
                format!("backend {address} is in the service network {}", cidr.value),
                "name the address of a pod or a host: what is sent there is dropped",
            );
        } else if own.contains(&address) {
            if !has_exception && !forwarding.is_empty() {
                notes.warning(
                    backend.offset,
                    format!("backend {address} is the gateway itself, and there is no way to its own stack"),
                    "add `[exception]` with a TAP device",
                );
            }
        } else if routes_read && forwarding.interface(Ipv4Prefix::host(address)).is_none() {
            notes.warning(
                backend.offset,
                format!("there is no route to backend {address}"),
                "add one to `[[routes]]`",
            );
        }
    }
}

/// Probes are sent by the host's own stack.
fn note_probes_without_way(draft: &Draft, notes: &Notes) {
    let mut ports = draft.services.iter().flat_map(|service| &service.ports);
    if let Some(check) = ports.find_map(|port| port.health_check.as_ref()) {
        notes.warning(
            check.offset,
            "backends are probed by the host's own stack, and it has no way through the gateway",
            "add `[exception]` with a TAP device",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    const EXCEPTION: &str = "[exception]\ndevice = \"net_tap6,iface=pg-host\"\nrate_pps = 10000\n";
    const BACKEND: &str = "address = \"172.30.76.7:8080\"";

    fn one(address: &str, severity: &str, said: &str) {
        let at = format!("\"{address}");
        let to = format!("address = \"{address}:8080\"");
        expect_one(BACKEND, &to, (severity, &at, "service[0].ports[0].backends[0].address", said));
    }

    #[test]
    fn backends_are_reached_with_one_translation() {
        one(
            "10.254.0.1",
            "error",
            "is the cluster IP of service default/kubernetes; name that service's backends",
        );
        one("10.254.9.9", "warning", "is in the service network 10.254.0.0/16");
    }

    #[test]
    fn backends_have_a_way() {
        let default = ("destination = \"0.0.0.0/0\"", "destination = \"11.0.0.0/8\"");
        let text = changed(&[default, (BACKEND, "address = \"12.0.0.1:8080\"")]);
        let key = "service[0].ports[0].backends[0].address";
        expect(&text, &[("warning", "\"12.0.0.1", key, "there is no route to backend 12.0.0.1")]);

        let own = (BACKEND, "address = \"192.168.0.21:8080\"");
        expect(&changed(&[own]), &[]);
        let text = changed(&[own, (EXCEPTION, "")]);
        expect(&text, &[("warning", "\"192.168.0.21", key, "add `[exception]`")]);
    }

    #[test]
    fn probes_have_a_way() {
        let check = ("port = 80\n", "port = 80\nhealth_check = {}\n");
        expect(&changed(&[check]), &[]);
        let said = "it has no way through the gateway; add `[exception]`";
        expect(
            &changed(&[check, (EXCEPTION, "")]),
            &[("warning", "{}", "service[0].ports[0].health_check", said)],
        );
        let services = "[[service]]\nname = \"a\"\ncluster_ip = \"10.0.0.1\"\n[[service.ports]]\nport = 80\n";
        expect(&format!("{services}health_check = {{}}\nbackends = []\n"), &[]);
    }
}
