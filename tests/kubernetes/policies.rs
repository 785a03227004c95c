//! Point 3: traffic policies. Point 6: source ranges.

use crate::manifests::{gateway, service, slice, world, world_of};
use crate::stations::{Outcome, assert_spread, first};
use crate::support::packets::*;

const LOCAL: &str = "172.30.76.5:8080";
const REMOTE: &str = "172.30.9.3:8080";

/// A service `web` under these policies, of these endpoints.
fn web(policies: &str, endpoints: &[&str]) -> String {
    let more = format!(
        "  type: LoadBalancer\n{policies}  externalIPs: [203.0.113.1]\nstatus:\n  loadBalancer:\n    ingress: \
         [{{ ip: 198.51.100.1 }}]"
    );
    service("web", "10.254.1.1", &["/TCP/80/31001"], &more) + &slice("web", "web", &["/TCP/8080"], endpoints)
}

const BOTH: [&str; 2] = ["172.30.76.5 node=node-1", "172.30.9.3 node=node-2"];
const REMOTE_ONLY: [&str; 1] = ["172.30.9.3 node=node-2"];
const EXTERNAL: [&str; 3] = ["203.0.113.1:80", "198.51.100.1:80", "192.168.0.21:31001"];
const EXTERNAL_LOCAL: &str = "  externalTrafficPolicy: Local\n";
const INTERNAL_LOCAL: &str = "  internalTrafficPolicy: Local\n";

#[test]
fn external_local_keeps_outside_clients_here_with_their_addresses() {
    let mut world = world(&web(EXTERNAL_LOCAL, &BOTH));
    for (number, to) in EXTERNAL.into_iter().enumerate() {
        let ports = 1_000 * (number as u16 + 1);
        for outside in ["192.168.0.50", "8.8.8.8", "172.30.9.9"] {
            assert_spread(&mut world, "tcp", outside, to, ports, &[(LOCAL, false)]);
        }
        // Pods go everywhere as they are; the node everywhere, masqueraded.
        assert_spread(&mut world, "tcp", "172.30.76.7", to, ports, &[(LOCAL, false), (REMOTE, false)]);
        assert_spread(&mut world, "tcp", "192.168.0.21", to, ports, &[(LOCAL, true), (REMOTE, true)]);
    }
    // It never affects the cluster IP.
    assert_spread(
        &mut world,
        "tcp",
        "172.30.76.7",
        "10.254.1.1:80",
        9_000,
        &[(LOCAL, false), (REMOTE, false)],
    );
    assert_spread(&mut world, "tcp", "8.8.8.8", "10.254.1.1:80", 9_000, &[(LOCAL, true), (REMOTE, true)]);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn internal_local_affects_the_cluster_ip_alone_and_no_masquerading() {
    let mut world = world(&web(INTERNAL_LOCAL, &BOTH));
    assert_spread(&mut world, "tcp", "172.30.76.7", "10.254.1.1:80", 1_000, &[(LOCAL, false)]);
    for outside in ["8.8.8.8", "172.30.9.9", "192.168.0.21"] {
        assert_spread(&mut world, "tcp", outside, "10.254.1.1:80", 1_000, &[(LOCAL, true)]);
    }
    for to in EXTERNAL {
        for source in ["172.30.76.6", "8.8.8.8"] {
            assert_spread(&mut world, "tcp", source, to, 2_000, &[(LOCAL, true), (REMOTE, true)]);
        }
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn without_local_endpoints_local_drops_and_without_any_everything_rejects() {
    const ELSEWHERE: Outcome = Outcome::Dropped("service_no_local_backend");
    const NOBODY: Outcome = Outcome::Rejected("service_no_backend");
    let mut world = world(&web(&format!("{EXTERNAL_LOCAL}{INTERNAL_LOCAL}"), &REMOTE_ONLY));
    for (number, to) in EXTERNAL.into_iter().enumerate() {
        for outside in ["192.168.0.50:4000", "8.8.8.8:4000", "172.30.9.9:4000"] {
            assert_eq!(first(&mut world, "tcp", outside, to), ELSEWHERE, "{outside} to {to}");
        }
        let ports = 1_000 * (number as u16 + 1);
        assert_spread(&mut world, "tcp", "172.30.76.7", to, ports, &[(REMOTE, false)]);
        assert_spread(&mut world, "tcp", "192.168.0.21", to, ports, &[(REMOTE, true)]);
    }
    for source in ["172.30.76.7:4000", "8.8.8.8:4000", "192.168.0.21:4000"] {
        assert_eq!(first(&mut world, "tcp", source, "10.254.1.1:80"), ELSEWHERE, "{source}");
    }
    // Endpoints that are there and cannot be used are none.
    world.replace(
        "services",
        Some(&web(
            &format!("{EXTERNAL_LOCAL}{INTERNAL_LOCAL}"),
            &["172.30.76.5 node=node-1 ready=false", "172.30.9.3 node=node-2 ready=false"],
        )),
    );
    for to in EXTERNAL.into_iter().chain(["10.254.1.1:80"]) {
        for source in ["172.30.76.7:4001", "8.8.8.8:4001", "192.168.0.21:4001"] {
            assert_eq!(first(&mut world, "tcp", source, to), NOBODY, "{source} to {to}");
        }
    }
    world.settle();
    world.assert_drops(&[("service_no_backend", 12), ("service_no_local_backend", 12)]);
    world.assert_balanced();
}

#[test]
fn without_a_name_of_its_own_no_endpoint_is_this_nodes() {
    let text = gateway().replace("name = \"node-1\"\n", "");
    let mut world = world_of(&text, &web(EXTERNAL_LOCAL, &BOTH), 1, 1);
    let outcome = first(&mut world, "tcp", "8.8.8.8:4000", "192.168.0.21:31001");
    assert_eq!(outcome, Outcome::Dropped("service_no_local_backend"));
    assert_spread(
        &mut world,
        "tcp",
        "172.30.76.7",
        "192.168.0.21:31001",
        1_000,
        &[(LOCAL, false), (REMOTE, false)],
    );
    world.assert_drops(&[("service_no_local_backend", 1)]);
    world.assert_balanced();
}

#[test]
fn source_ranges_guard_load_balancer_ips_alone() {
    // Blanks around them are allowed; ranges of IPv6 concern addresses of IPv6.
    let ranges =
        "  loadBalancerSourceRanges: [\" 203.0.113.0/25 \", \"8.8.8.8/32\\t\", \"172.30.76.6/32\"]\n";
    for policy in ["", EXTERNAL_LOCAL] {
        let mut world = world(&web(&format!("{policy}{ranges}"), &BOTH[..1]));
        let is_pod_masqueraded = policy.is_empty();
        let outside_masqueraded = policy.is_empty();
        assert_spread(
            &mut world,
            "tcp",
            "8.8.8.8",
            "198.51.100.1:80",
            1_000,
            &[(LOCAL, outside_masqueraded)],
        );
        assert_spread(
            &mut world,
            "tcp",
            "203.0.113.127",
            "198.51.100.1:80",
            1_000,
            &[(LOCAL, outside_masqueraded)],
        );
        assert_spread(
            &mut world,
            "tcp",
            "172.30.76.6",
            "198.51.100.1:80",
            1_000,
            &[(LOCAL, is_pod_masqueraded)],
        );
        let missed = [
            "8.8.8.9",
            "203.0.113.128",
            "172.30.76.7",
            "172.30.76.5",
            "172.30.9.3",
            "192.168.0.21",
            "192.168.0.50",
        ];
        for source in missed {
            let outcome = first(&mut world, "tcp", &format!("{source}:2000"), "198.51.100.1:80");
            assert_eq!(outcome, Outcome::Dropped("service_source_range"), "{source}");
            for to in ["192.168.0.21:31001", "203.0.113.1:80", "10.254.1.1:80"] {
                let outcome = first(&mut world, "tcp", &format!("{source}:2000"), to);
                assert!(
                    matches!(&outcome, Outcome::Sent(_, seen) if seen.to() == LOCAL),
                    "{source} to {to}: {outcome:?}"
                );
            }
        }
        world.assert_drops(&[("service_source_range", missed.len() as u64)]);
        world.assert_balanced();
    }
}

/// Whom the ranges keep out is not told whether anybody serves; an open connection goes on when they change.
#[test]
fn source_ranges_are_asked_first_and_of_new_connections() {
    let ranges = |range: &str| format!("  loadBalancerSourceRanges: [\"{range}\"]\n");
    let mut world = world(&web(&ranges("8.8.8.0/24"), &[]));
    assert_eq!(
        first(&mut world, "tcp", "9.9.9.9:1", "198.51.100.1:80"),
        Outcome::Dropped("service_source_range")
    );
    assert_eq!(
        first(&mut world, "tcp", "8.8.8.8:1", "198.51.100.1:80"),
        Outcome::Rejected("service_no_backend")
    );
    world.replace("services", Some(&web(&ranges("8.8.8.0/24"), &BOTH[..1])));
    let call = crate::stations::Call::established(&mut world, 0, "tcp", "8.8.8.8:2", "198.51.100.1:80");
    world.replace("services", Some(&web(&ranges("9.9.9.0/24"), &BOTH[..1])));
    call.is_alive(&mut world, 0);
    assert_eq!(
        first(&mut world, "tcp", "8.8.8.8:3", "198.51.100.1:80"),
        Outcome::Dropped("service_source_range")
    );
    // Ranges of IPv6 alone leave addresses of IPv4 open.
    world.replace("services", Some(&web(&ranges("2001:db8::/32"), &BOTH[..1])));
    assert_spread(&mut world, "tcp", "8.8.8.8", "198.51.100.1:80", 10, &[(LOCAL, true)]);
    world.settle();
    world.assert_drops(&[("service_no_backend", 1), ("service_source_range", 2)]);
    world.assert_balanced();
}

/// Where a load balancer's IP is the node's own, the node's packets to it come from it, and are let in with the node
/// (pkg/proxy/nftables/proxier.go).
#[test]
fn a_node_that_the_ranges_let_in_may_use_the_ip_as_its_source() {
    let text = gateway()
        .replace("addresses = [\"192.168.0.21\"]", "addresses = [\"192.168.0.21\", \"198.51.100.1\"]");
    for (range, is_in) in [("192.168.0.0/24", true), ("192.168.1.0/24", false)] {
        let ranges = format!("  loadBalancerSourceRanges: [\"{range}\"]\n");
        let mut world = world_of(&text, &web(&ranges, &BOTH[..1]), 1, 1);
        let frame = ethernet(
            "02:70:67:00:00:01",
            "02:00:00:00:00:99",
            0x0800,
            &tcp("198.51.100.1:4000", "198.51.100.1:80", SYN, b""),
        );
        world.send_from_host(&frame);
        world.turn();
        let left = crate::stations::left(&mut world);
        assert_eq!(left.len(), usize::from(is_in), "{left:?}");
        world.assert_drops(if is_in { &[] } else { &[("service_source_range", 1)] });
        world.assert_balanced();
    }
}

/// kube-proxy's `firewall-ips` ask for the load balancer's IP and port, whatever else the address is.
#[test]
fn source_ranges_guard_an_ip_that_is_an_external_ip_too() {
    let ranges = "  loadBalancerSourceRanges: [\"8.8.8.0/24\"]\n";
    let text = web(ranges, &BOTH[..1]).replace("ip: 198.51.100.1", "ip: 203.0.113.1");
    let mut world = world(&text);
    assert_spread(&mut world, "tcp", "8.8.8.8", "203.0.113.1:80", 10, &[(LOCAL, true)]);
    let outcome = first(&mut world, "tcp", "9.9.9.9:1", "203.0.113.1:80");
    assert_eq!(outcome, Outcome::Dropped("service_source_range"));
    world.assert_drops(&[("service_source_range", 1)]);
    world.assert_balanced();
}
