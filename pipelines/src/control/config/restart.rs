//! What a reload cannot change: threads, devices and what is sized when the gateway starts.

use super::model::{Configuration, Port};

/// Keys that differ between two configurations and take effect at the next start only. All others act on reload.
pub fn restart_needed(old: &Configuration, new: &Configuration) -> Vec<String> {
    let mut keys = Vec::new();
    let mut compare = |key: &str, differs: bool| {
        if differs {
            keys.push(key.to_owned());
        }
    };
    compare("dpdk.memory", old.dpdk.memory != new.dpdk.memory);
    compare("dpdk.buffers", old.dpdk.buffers != new.dpdk.buffers);
    compare("dpdk.extra_arguments", old.dpdk.extra_arguments != new.dpdk.extra_arguments);
    compare("workers.cores", old.workers.cores != new.workers.cores);
    compare("workers.idle", old.workers.idle != new.workers.idle);
    compare("workers.idle_sleep_max_us", old.workers.idle_sleep_max_us != new.workers.idle_sleep_max_us);
    compare("workers.burst", old.workers.burst != new.workers.burst);
    compare("workers.handoff_ring", old.workers.handoff_ring != new.workers.handoff_ring);
    compare("workers.queue_descriptors", old.workers.queue_descriptors != new.workers.queue_descriptors);
    compare("control.cores", old.control.cores != new.control.cores);
    compare("control.socket", old.control.socket != new.control.socket);
    compare("control.watch", old.control.watch != new.control.watch);
    compare("control.manifests", old.control.manifests != new.control.manifests);
    compare("metrics.listen", old.metrics != new.metrics);
    compare("exception", old.exception.is_some() != new.exception.is_some());
    if let (Some(old), Some(new)) = (&old.exception, &new.exception) {
        compare("exception.device", old.device != new.device);
        compare("exception.rate_pps", old.rate_pps != new.rate_pps);
        compare("exception.mac", old.mac != new.mac);
        compare("exception.ring", old.ring != new.ring);
    }
    if old.workers.cores.len() > 1 {
        // Several workers find out by these who owns a flow, so they must not change while flows live.
        let (before, after) = (&old.service_settings, &new.service_settings);
        compare("services.service_cidrs", before.service_cidrs != after.service_cidrs);
        compare("services.node_port_range", before.node_port_range != after.node_port_range);
        let (nodes, snat) = (before.node_port_range, after.snat_port_range);
        let overlaps = nodes.0 <= snat.1 && snat.0 <= nodes.1;
        compare("services.snat_port_range", overlaps && before.snat_port_range != after.snat_port_range);
        compare("services.node_port_addresses", before.node_port_addresses != after.node_port_addresses);
        compare("node.addresses", old.node.addresses != new.node.addresses);
        compare("node.primary_addresses", old.node.primary_addresses != new.node.primary_addresses);
    }
    let (before, after) = (&old.service_settings, &new.service_settings);
    compare("services.affinity_capacity", before.affinity_capacity != after.affinity_capacity);
    compare("conntrack.capacity", old.conntrack.capacity != new.conntrack.capacity);
    let same_ports = old.ports.iter().map(|port| &port.name).eq(new.ports.iter().map(|port| &port.name));
    compare("ports", !same_ports);
    if same_ports {
        for (place, (old, new)) in old.ports.iter().zip(&new.ports).enumerate() {
            keys.extend(changed_in_port(place, old, new));
        }
    }
    keys
}

fn changed_in_port(place: usize, old: &Port, new: &Port) -> impl Iterator<Item = String> {
    [
        ("role", old.role != new.role),
        ("device", old.device != new.device),
        ("mac", old.mac != new.mac),
        ("mtu", old.mtu != new.mtu),
        ("address", (old.address, old.prefix) != (new.address, new.prefix)),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(move |(key, _)| format!("ports[{place}].{key}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{REFERENCE, parsed};
    use super::*;

    #[test]
    fn names_what_waits_for_a_restart_and_nothing_else() {
        let restart = |from: &str, to: &str| {
            assert!(REFERENCE.contains(from), "{from}");
            restart_needed(&parsed(REFERENCE), &parsed(&REFERENCE.replacen(from, to, 1)))
        };
        assert!(restart("name = \"node-1\"", "name = \"node-x\"").is_empty());
        assert!(restart("weight = 1", "weight = 7").is_empty());
        assert!(restart("ageing_s = 300", "ageing_s = 30").is_empty());
        assert!(restart("10.254.0.0/16", "10.254.0.0/17").is_empty(), "one worker owns all flows anyhow");
        let several = parsed(&REFERENCE.replacen("cores = [1]", "cores = [1, 2]", 1));
        let mut changed = several.clone();
        changed.service_settings.service_cidrs.clear();
        assert_eq!(restart_needed(&several, &changed), ["services.service_cidrs"]);
        assert_eq!(restart("cores = [1]", "cores = [1, 2]"), ["workers.cores"]);
        assert_eq!(restart("capacity = 65536", "capacity = 1024"), ["conntrack.capacity"]);
        assert_eq!(restart("rate_pps = 10000", "rate_pps = 1"), ["exception.rate_pps"]);
        assert_eq!(restart("127.0.0.1:9106", "127.0.0.1:9107"), ["metrics.listen"]);
        assert_eq!(restart("02:00:c0:a8:00:15", "02:00:c0:a8:00:16"), ["ports[0].mac"]);
        assert_eq!(restart("net_tap2,", "net_tap9,"), ["ports[2].device"]);
        assert_eq!(restart("192.168.0.21/24", "192.168.0.21/25"), ["ports[0].address"]);
        assert_eq!(restart("name = \"data-product-2\"", "name = \"renamed\""), ["ports"]);
        let mut changed = parsed(REFERENCE);
        changed.exception = None;
        changed.ports[1].mtu = 1_400;
        assert_eq!(restart_needed(&parsed(REFERENCE), &changed), ["exception", "ports[1].mtu"]);
    }
}
