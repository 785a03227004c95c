//! Services.

use super::{findings, key, service, store, web};
use crate::control::config::Severity;
use crate::control::config::model::{Algorithm, Protocol};
use crate::control::kubernetes::Kind;

fn addresses(texts: &[&str]) -> Vec<core::net::Ipv4Addr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_service_is_known_by_all_its_addresses_and_ports() {
    let text = service(
        "type: LoadBalancer
externalIPs: [203.0.113.1, 'fd00::7', 203.0.113.2, 203.0.113.1]
ports:
- {name: http, port: 80, nodePort: 30080, targetPort: 8080}
- {name: dns, port: 53, protocol: UDP, nodePort: 30053}
- {name: sigtran, port: 2905, protocol: SCTP}",
    ) + "status:
  loadBalancer:
    ingress:
    - {ip: 198.51.100.1}
    - {ip: 198.51.100.2, ipMode: VIP}
    - {ip: 198.51.100.3, ipMode: Proxy}
    - {hostname: balancer.example.org}
    - {ip: 'fd00::8'}
";
    let store = store(&text);
    let service = store.desired(&key("web")).unwrap();
    assert_eq!(service.cluster_ip, Some("10.254.0.1".parse().unwrap()));
    assert_eq!(service.external_ips, addresses(&["203.0.113.1", "203.0.113.2"]));
    assert_eq!(service.load_balancer_ips, addresses(&["198.51.100.1", "198.51.100.2"]));
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (&*port.name, port.protocol, port.port, port.node_port, port.endpoints.len()))
        .collect();
    assert_eq!(
        ports,
        [
            ("http", Protocol::Tcp, 80, Some(30_080), 0),
            ("dns", Protocol::Udp, 53, Some(30_053), 0),
            ("sigtran", Protocol::Sctp, 2_905, None, 0)
        ]
    );
    assert_eq!(store.ipv6(&key("web")).len(), 2);
    assert_eq!((service.origin.kind, &*service.origin.source), ("Service", "f.yaml:2"));
}

/// What stands in the metadata and the spec, whether it is programmed, and what is said of it.
#[test]
fn what_no_proxy_programs_is_left_alone() {
    for (metadata, spec, said) in [
        ("", "clusterIP: None", ""),
        ("", "clusterIP: None\nclusterIPs: [None]\nipFamilies: [IPv4]", ""),
        ("", "clusterIP: ''\ntype: ExternalName\nexternalName: db.example.org\nports: []", ""),
        ("", "type: ExternalName\nexternalName: db.example.org", ""),
        ("  labels: {service.kubernetes.io/service-proxy-name: other}\n", "", ""),
        ("  labels: {service.kubernetes.io/service-proxy-name: ''}\n", "", ""),
        ("  labels: {service.kubernetes.io/headless: ''}\n", "", ""),
        (
            "",
            "clusterIP: ''",
            "f.yaml:7:3: warning: Service default/web: spec: this service has no cluster IP, so it is not programmed; give `clusterIP`; the API server would choose one, a manifest has to say it",
        ),
    ] {
        let text = service(spec).replace("  name: web\n", &format!("  name: web\n{metadata}"));
        let store = store(&text);
        assert_eq!(store.desired(&key("web")), None, "{text}");
        assert_eq!(store.service_keys().collect::<Vec<_>>(), [&key("web")], "it is known all the same");
        assert_eq!(store.counts().services_not_proxied, 1);
        let expected: Vec<&str> = Some(said).filter(|said| !said.is_empty()).into_iter().collect();
        assert_eq!(findings(&store), expected, "{text}");
    }
}

#[test]
fn traffic_policies() {
    for (spec, external_local, internal_local) in [
        ("", false, false),
        ("type: NodePort\nports: [{port: 80, nodePort: 30080}]\nexternalTrafficPolicy: Local", true, false),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 30080}]\nexternalTrafficPolicy: Cluster",
            false,
            false,
        ),
        ("externalIPs: [203.0.113.1]\nexternalTrafficPolicy: Local", true, false),
        ("externalTrafficPolicy: Cluster", false, false),
        ("internalTrafficPolicy: Local", false, true),
        ("internalTrafficPolicy: Cluster", false, false),
        (
            "type: LoadBalancer\nexternalTrafficPolicy: Local\ninternalTrafficPolicy: Local\nhealthCheckNodePort: 32000",
            true,
            true,
        ),
    ] {
        let service = web(&service(spec));
        assert_eq!(
            (service.external_local, service.internal_local),
            (external_local, internal_local),
            "{spec}"
        );
    }
    let store = store(&service("externalTrafficPolicy: Local"));
    assert!(!store.desired(&key("web")).unwrap().external_local, "nothing reaches it from outside");
    assert_eq!(findings(&store).len(), 1);
}

#[test]
fn session_affinity() {
    for (spec, expected) in [
        ("", None),
        ("sessionAffinity: None", None),
        ("sessionAffinity: ClientIP", Some(10_800)),
        ("sessionAffinity: ClientIP\nsessionAffinityConfig: {clientIP: {}}", Some(10_800)),
        ("sessionAffinity: ClientIP\nsessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}", Some(1)),
        (
            "sessionAffinity: ClientIP\nsessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}}",
            Some(86_400),
        ),
    ] {
        assert_eq!(web(&service(spec)).affinity_s, expected, "{spec}");
    }
}

#[test]
fn health_check_node_ports_belong_to_load_balancers_under_local() {
    let balancer = "type: LoadBalancer\nexternalTrafficPolicy: Local\nhealthCheckNodePort: 32000";
    assert_eq!(web(&service(balancer)).health_check_node_port, Some(32_000));
    for (spec, said) in [
        ("type: LoadBalancer\nexternalTrafficPolicy: Local", "there is no `healthCheckNodePort`"),
        ("type: LoadBalancer\nhealthCheckNodePort: 32000", "it means nothing without"),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 30080}]\nexternalTrafficPolicy: Local\nhealthCheckNodePort: 32000",
            "it means nothing without",
        ),
    ] {
        let store = store(&service(spec));
        assert_eq!(store.desired(&key("web")).unwrap().health_check_node_port, None, "{spec}");
        assert!(findings(&store).first().unwrap().contains(said), "{:?}", findings(&store));
    }
}

#[test]
fn source_ranges_are_trimmed_masked_and_of_one_family() {
    let ranges = |list: &str| {
        let store = store(&service(&format!("type: LoadBalancer\nloadBalancerSourceRanges: [{list}]")));
        let ranges = store.desired(&key("web")).unwrap().load_balancer_source_ranges;
        (ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), findings(&store).len())
    };
    assert_eq!(
        ranges("' 203.0.113.0/25 ', 10.1.2.3/8, 10.0.0.0/8"),
        (vec!["203.0.113.0/25".into(), "10.0.0.0/8".into()], 0)
    );
    assert_eq!(ranges("'fd00::/64', 203.0.113.0/24"), (vec!["203.0.113.0/24".into()], 0));
    assert_eq!(ranges("'fd00::/64'"), (vec![], 1), "open to everybody by IPv4, so somebody should be told");
    assert_eq!(ranges(""), (vec![], 0));
}

#[test]
fn ipv6_is_kept_apart_and_reported_once() {
    let dual = "clusterIP: 10.254.0.1\nclusterIPs: [10.254.0.1, 'fd00::1']\nipFamilies: [IPv4, IPv6]\nipFamilyPolicy: PreferDualStack";
    let six = "clusterIP: 'fd00::2'\nclusterIPs: ['fd00::2', 10.254.0.2]\nipFamilies: [IPv6, IPv4]";
    let only = "clusterIP: 'fd00::3'\nexternalIPs: [203.0.113.9]";
    let text = service(dual) + &super::named_service("six", six) + &super::named_service("only", only);
    let store = store(&text);
    let cluster_ip =
        |name: &str| store.desired(&key(name)).map(|service| service.cluster_ip.unwrap().to_string());
    assert_eq!(cluster_ip("web").as_deref(), Some("10.254.0.1"));
    assert_eq!(cluster_ip("six").as_deref(), Some("10.254.0.2"));
    assert_eq!(cluster_ip("only"), None, "kube-proxy's IPv4 side skips it too, its external IP included");
    assert_eq!(store.ipv6(&key("only")), ["fd00::3".parse::<core::net::Ipv6Addr>().unwrap()]);
    let counts = store.counts();
    assert_eq!((counts.services_ipv6, counts.services_not_proxied), (3, 0));
    assert_eq!(
        findings(&store),
        [
            "f.yaml:23:1: warning: Service default/only: spec.clusterIPs: its addresses of IPv6 are not programmed, nor are those of 2 more services; use IPv4 for what has to pass this gateway"
        ]
    );
}

#[test]
fn the_algorithm_is_an_annotation() {
    let with = |value: &str| {
        let metadata = format!("  name: web\n  annotations: {{pollgate.io/algorithm: {value}}}\n");
        store(&service("").replace("  name: web\n", &metadata))
    };
    assert_eq!(with("maglev").desired(&key("web")).unwrap().algorithm, Algorithm::Maglev);
    assert_eq!(with("random").desired(&key("web")).unwrap().algorithm, Algorithm::Random);
    let store = with("fastest");
    assert_eq!(store.desired(&key("web")).unwrap().algorithm, Algorithm::Random);
    assert_eq!(
        findings(&store),
        [
            "f.yaml:6:40: warning: Service default/web: metadata.annotations[pollgate.io/algorithm]: `fastest` is no algorithm, so it is random; give \"random\" or \"maglev\""
        ]
    );
}

/// What the API server refuses: the place of the first error, and what it says.
#[test]
fn what_the_api_server_refuses_is_refused() {
    for (spec, expected) in [
        ("type: Cluster", "9:9: spec.type: `Cluster` is no type of a service"),
        ("ports: []", "8:10: spec.ports: this service has no ports"),
        ("ports: [{port: 0}]", "8:18: spec.ports[0].port: 0 is no port"),
        ("ports: [{name: a}]", "8:11: spec.ports[0].port: 0 is no port"),
        ("ports:\n- port: 70000", "9:11: spec.ports[0].port: 70000 is no port"),
        ("ports: [{port: 80, protocol: ICMP}]", "8:32: spec.ports[0].protocol: `ICMP` is no protocol"),
        ("ports: [{port: 80, protocol: tcp}]", "8:32: spec.ports[0].protocol: `tcp` is no protocol"),
        ("ports: [{port: 80, name: HTTP}]", "8:28: spec.ports[0].name: `HTTP` is no name of a port"),
        ("ports: [{port: 80, targetPort: 99999}]", "8:34: spec.ports[0].targetPort: 99999 is no port"),
        ("ports: [{port: 80, name: a}, {port: 81}]", "8:32: spec.ports[1].name: this port has no name"),
        (
            "ports: [{port: 80, name: a}, {port: 81, name: a}]",
            "8:49: spec.ports[1].name: `a` is the name of another port too",
        ),
        (
            "ports: [{port: 80, name: a}, {port: 80, name: b}]",
            "8:39: spec.ports[1].port: port 80 of this protocol is listed before",
        ),
        (
            "ports: [{port: 80, nodePort: 30080}]",
            "8:32: spec.ports[0].nodePort: a service of type ClusterIP has no node ports",
        ),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 99999}]",
            "9:32: spec.ports[0].nodePort: 99999 is no port",
        ),
        (
            "type: NodePort\nports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 30080}]",
            "9:79: spec.ports[1].nodePort: node port 30080 of this protocol is listed before",
        ),
        ("clusterIP: 10.254.0", "8:14: spec.clusterIP: `10.254.0` is no IP address"),
        ("clusterIP: 0.0.0.0", "8:14: spec.clusterIP: `0.0.0.0` is the unspecified address"),
        (
            "clusterIP: None\ntype: NodePort",
            "8:14: spec.clusterIP: a service of this type cannot be headless",
        ),
        (
            "externalIPs: [203.0.113.1, 127.0.0.1]",
            "9:30: spec.externalIPs[1]: `127.0.0.1` is a loopback address",
        ),
        ("externalIPs: [web.example.org]", "9:17: spec.externalIPs[0]: `web.example.org` is no IP address"),
        (
            "type: LoadBalancer\nloadBalancerSourceRanges: [203.0.113.1]",
            "10:30: spec.loadBalancerSourceRanges[0]: `203.0.113.1` is no prefix",
        ),
        ("sessionAffinity: Cookie", "9:20: spec.sessionAffinity: `Cookie` is no session affinity"),
        (
            "sessionAffinity: ClientIP\nsessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            "10:54: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 seconds",
        ),
        ("internalTrafficPolicy: Node", "9:26: spec.internalTrafficPolicy: `Node` is no traffic policy"),
        ("externalTrafficPolicy: node", "9:26: spec.externalTrafficPolicy: `node` is no traffic policy"),
        (
            "type: LoadBalancer\nexternalTrafficPolicy: Local\nhealthCheckNodePort: -1",
            "11:24: spec.healthCheckNodePort: -1 is no port",
        ),
        // What has another type than the API has it.
        (
            "ports: [{port: eighty}]",
            "8:18: spec.ports[0].port: invalid type: string \"eighty\", expected i32",
        ),
        ("ports: {port: 80}", "8:10: spec.ports: invalid type: map, expected a sequence"),
        (
            "externalIPs: [1.5]",
            "9:17: spec.externalIPs[0]: invalid type: floating point `1.5`, expected a string",
        ),
        (
            "publishNotReadyAddresses: maybe",
            "9:29: spec.publishNotReadyAddresses: invalid type: string \"maybe\", expected a boolean",
        ),
    ] {
        let store = store(&service(spec));
        assert_eq!(store.desired(&key("web")), None, "{spec}");
        let found = store.findings();
        let first = found.iter().find(|finding| finding.severity == Severity::Error).unwrap();
        let place = first.place.as_ref().unwrap();
        let said = format!("{}:{}: {}: {}", place.line, place.column, first.field, first.wrong);
        assert_eq!(said, expected, "{spec}");
        assert_eq!(first.object.as_ref().unwrap().to_string(), "Service default/web");
        assert!(!first.right.is_empty());
        assert_eq!((store.counts().rejected, store.counts().rejected_total), (1, 1));
    }
}

#[test]
fn a_status_that_is_wrong_is_refused() {
    let text = service("type: LoadBalancer")
        + "status: {loadBalancer: {ingress: [{ip: 1.2.3.4, ipMode: Both}, {ip: one}]}}\n";
    let store = store(&text);
    let said: Vec<_> = store.findings().into_iter().map(|finding| (finding.field, finding.wrong)).collect();
    assert_eq!(
        said,
        [
            ("status.loadBalancer.ingress[0].ipMode".to_owned(), "`Both` is no mode".to_owned()),
            ("status.loadBalancer.ingress[1].ip".to_owned(), "`one` is no IP address".to_owned())
        ]
    );
}

#[test]
fn names_are_those_of_dns() {
    for (metadata, said) in [
        ("name: Web", "metadata.name: `Web` is no name of a Service"),
        ("name: a.b", "metadata.name: `a.b` is no name of a Service"),
        ("name: ''", "metadata.name: this Service has no name"),
        ("labels: {}", "metadata.name: this Service has no name"),
        ("{name: web, namespace: a/b}", "metadata.namespace: `a/b` is no name of a namespace"),
    ] {
        let store = store(&service("").replace("name: web", metadata).replace("  {name", "    {name"));
        let found = store.findings();
        let first = found.first().unwrap();
        assert_eq!(format!("{}: {}", first.field, first.wrong), said);
        assert_eq!(store.counts().rejected, 1);
    }
    let counts = store(&service("")).counts();
    assert_eq!(counts.objects.iter().find(|(kind, _)| *kind == Kind::Service).unwrap().1, 1);
}

/// A short file cannot ask for work or memory without end.
#[test]
fn addresses_and_what_they_make_with_ports_are_bounded() {
    let list = |first: u8, count: usize| -> String {
        let address = |number: usize| format!("{first}.0.{}.{}", number / 250, number % 250 + 1);
        (0..count).map(address).collect::<Vec<_>>().join(", ")
    };
    let external = |count| service(&format!("externalIPs: [{}]", list(20, count)));
    assert_eq!(web(&external(1_024)).external_ips.len(), 1_024);
    let refused = store(&external(1_025));
    assert!(findings(&refused).join("").contains("spec.externalIPs: 1025 of them; give 1024 at the most"));
    assert!(refused.desired(&key("web")).is_none());
    let ports = |count: u32| -> String {
        (1..=count).map(|port| format!("- {{name: p{port}, port: {port}}}\n")).collect()
    };
    let both = |count| service(&format!("externalIPs: [{}]\nports:\n{}", list(20, 1_023), ports(count)));
    assert_eq!(web(&both(64)).ports.len(), 64);
    assert!(findings(&store(&both(65))).join("").contains("66560 addresses times ports"));
}
