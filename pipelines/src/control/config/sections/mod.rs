//! The sections of the file: which keys each has, what each value may be, and the defaults. Checks that need one
//! section alone are here too; those between sections are in `relations`.

mod health_check;
mod machine;
mod network;
mod services;

use super::draft::Draft;
use super::reader::Table;

/// Reads the whole file.
pub(crate) fn read(file: &Table<'_>) -> Draft {
    Draft {
        node: file.section_or_empty("node", machine::node),
        dpdk: file.section_or_empty("dpdk", machine::dpdk),
        workers: file.section_or_empty("workers", machine::workers),
        control: file.section_or_empty("control", machine::control),
        metrics: file.section("metrics", machine::metrics).flatten(),
        ports: file.each("ports", network::port),
        exception: file.section("exception", machine::exception),
        bridge: file.section("bridge", network::bridge),
        overlay: file.section("overlay", network::overlay),
        routes: file.each("routes", network::route),
        neighbours: file.each("neighbours", network::neighbour),
        fdb: file.each("fdb", network::fdb),
        conntrack: file.section_or_empty("conntrack", machine::conntrack),
        settings: file.section_or_empty("services", services::settings),
        services: file.each("service", services::service),
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one, parsed};

    #[test]
    fn ports_have_what_their_role_needs() {
        expect_one(
            "mac = \"02:00:c0:a8:00:15\"\n",
            "",
            ("error", "[[ports]]", "ports[0].mac", "an underlay port needs its own"),
        );
        expect_one(
            "iface=pg-bm1\"",
            "iface=pg-bm1\"\nmac = \"02:00:00:00:00:09\"",
            (
                "error",
                "\"02:00",
                "ports[1].mac",
                "a pod port has a `mac`; a pod port has none of its own: remove it",
            ),
        );
        expect_one(
            "iface=pg-bm1\"",
            "iface=pg-bm1\"\naddress = \"172.30.76.8/24\"",
            ("error", "\"172", "ports[1].address", "a pod port has an `address`"),
        );
        let text = "[[ports]]\nname = \"a\"\nrole = \"underlay\"\nmac = \"02:00:00:00:00:01\"\n";
        expect(text, &[("error", "[[ports]]", "ports[0].address", "an underlay port needs one")]);
    }

    #[test]
    fn egress_masquerade_needs_a_network_to_leave() {
        expect_one(
            "pod_network = \"172.30.0.0/16\"\n",
            "",
            ("error", "true", "overlay.masquerade_egress", "there is no `pod_network` to leave"),
        );
        expect_one(
            "pod_network = \"172.30.0.0/16\"\n",
            "pod_network = 1\n",
            ("error", "1", "overlay.pod_network", "write a prefix"),
        );
    }

    #[test]
    fn primary_addresses_are_the_nodes() {
        let addresses = "addresses = [\"192.168.0.21\"]";
        let with = |primary: &str| format!("{addresses}\nprimary_addresses = [{primary}]");
        expect_one(
            addresses,
            &with("\"192.168.0.22\""),
            ("error", "\"192.168.0.22\"", "node.primary_addresses[0]", "is not in `addresses`"),
        );
        expect_one(
            addresses,
            &with("\"192.168.0.21\", \"192.168.0.21\""),
            ("error", "\"192.168.0.21\"]", "node.primary_addresses[1]", "has 192.168.0.21 twice"),
        );
        let node = parsed("[node]\naddresses = [\"10.0.0.1\", \"10.0.0.2\"]\n").node;
        assert!(node.primary_addresses.is_empty(), "none is named");
    }

    #[test]
    fn rings_and_servers_are_of_use() {
        expect_one(
            "idle = \"sleep\"",
            "queue_descriptors = 600 #",
            ("error", "600", "workers.queue_descriptors", "devices want powers of two: write 1024 or 512"),
        );
        expect_one(
            "127.0.0.1:9106",
            "127.0.0.1:0",
            ("warning", "\"127", "metrics.listen", "port 0 makes the metrics server listen on any free port"),
        );
        expect_one(
            "net_tap6,iface=pg-host",
            "net_null0",
            ("warning", "\"net_null0\"", "exception.device", "which is no TAP interface"),
        );
    }

    #[test]
    fn port_ranges_are_apart_and_wide_enough() {
        expect_one(
            "snat_port_range = \"32768-60999\"",
            "snat_port_range = \"32767-60999\"",
            (
                "error",
                "\"32767",
                "services.snat_port_range",
                "30000-32767 and `snat_port_range` 32767-60999 overlap",
            ),
        );
        let text = "[services]\nnode_port_range = \"40000-41000\"\n";
        expect(text, &[("error", "\"40000", "services.node_port_range", "overlap")]);
        expect_one(
            "snat_port_range = \"32768-60999\"",
            "snat_port_range = \"33000-33999\"",
            ("warning", "\"33000", "services.snat_port_range", "fewer than 1024 ports"),
        );
    }

    #[test]
    fn service_ports_can_be_told_apart() {
        expect_one(
            "name = \"dns\"\n",
            "",
            (
                "error",
                "[[service.ports]]",
                "service[3].ports[0]",
                "several ports, and this one has no `name`",
            ),
        );
        expect_one(
            "name = \"dns-tcp\"",
            "name = \"dns\"",
            ("error", "\"dns\"", "service[3].ports[1].name", "the service has two ports named \"dns\""),
        );
        expect(&changed(&[("name = \"mysql\"\nprotocol", "protocol")]), &[]);
        expect(
            "[[service]]\nname = \"a\"\ncluster_ip = \"10.0.0.1\"\n",
            &[("error", "[[service]]", "service[0].ports", "has no `ports`; add a `[[service.ports]]`")],
        );
        expect_one(
            "backends = [] # none: refused with ICMP port unreachable\n",
            "",
            (
                "error",
                "[[service.ports]]",
                "service[3].ports[0].backends",
                "with `[]` connections are refused",
            ),
        );
    }

    #[test]
    fn backends_share_connections() {
        let backend = "{ address = \"172.30.76.2:80\" }";
        expect_one(
            backend,
            &format!("{backend}, {backend}"),
            (
                "error",
                "\"172",
                "service[4].ports[0].backends[1].address",
                "keep one, with the sum of their weights",
            ),
        );
        expect_one(
            backend,
            "{ address = \"172.30.76.2:80\", weight = 0 }",
            ("warning", "0 }", "service[4].ports[0].backends[0].weight", "every backend has weight 0"),
        );
    }

    #[test]
    fn an_empty_file_has_every_default() {
        expect("", &[]);
        let configuration = parsed("[node]\n[services]\n");
        assert_eq!(configuration, parsed(""));
        assert_eq!(configuration.workers.queue_descriptors, 512);
        assert_eq!(configuration.conntrack.tcp_established_s, 86_400);
        assert_eq!(configuration.service_settings.node_port_range, (30_000, 32_767));
        assert!(configuration.control.watch && configuration.metrics.is_none());
    }
}
