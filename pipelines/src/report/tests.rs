use engine::batch::WorkerId;

use super::*;
use crate::control::build::{Builder, HostFacts};
use crate::control::config;
use crate::drop_reason::DropReason;

const CONFIGURATION: &str = r#"
[node]
addresses = ["192.168.0.21"]

[[ports]]
name = "eth0"
role = "underlay"
mac = "02:00:c0:a8:00:15"
address = "192.168.0.21/24"

[services]
service_cidrs = ["10.254.0.0/16"]

[[service]]
name = "web"
cluster_ip = "10.254.0.9"

[[service.ports]]
port = 80
node_port = 30080
backends = [{ address = "192.168.0.31:8080" }, { address = "192.168.0.32:8080", weight = 0 }]
"#;

fn tables(workers: usize) -> Tables {
    let loaded = config::parse(CONFIGURATION, "test.toml").unwrap();
    Builder::new(workers, HostFacts::default()).build(&loaded.configuration).unwrap()
}

/// Counters of a worker that received three packets, sent two and dropped one.
fn part(reason: u16) -> (WorkerCounters, Counters) {
    let (counters, gauges) = (WorkerCounters::new(1, REASON_COUNT), Counters::new(Gauge::ALL.len()));
    counters.accounts.add(Account::Received as usize, 3);
    counters.accounts.add(Account::Transmitted as usize, 2);
    counters.accounts.add(Account::Dropped as usize, 1);
    counters.drops.add(usize::from(reason), 1);
    for (counter, amount) in [3, 300, 2, 200].into_iter().enumerate() {
        counters.ports.add(counter, amount);
    }
    gauges.set(Gauge::FlowsCreated as usize, 5);
    (counters, gauges)
}

fn count(tables: &Tables, worker: WorkerId, backend: usize, connections: u64) {
    let slot = tables.services.port(0).unwrap().backends[backend].slot;
    let counters = &tables.backend_counters[usize::from(worker)];
    counters.add(slot, SlotCounter::Connections, connections);
    counters.add(slot, SlotCounter::BytesOut, 1_000);
}

#[test]
fn workers_are_added_up() {
    let tables = tables(2);
    count(&tables, 0, 0, 3);
    count(&tables, 1, 0, 4);
    count(&tables, 1, 1, 1);
    tables.backend_counters[1].add(tables.services.port(0).unwrap().slot, SlotCounter::Refused, 2);
    let no_route = DropReason::NoRoute.code();
    let report = Report::collect(&[part(no_route), part(no_route)], &tables);
    assert_eq!(report.accounting.terms().map(|(_, value)| value), [6, 0, 0, 0, 4, 0, 0, 2, 0]);
    assert!(report.accounting.balanced);
    assert_eq!(
        report.port("eth0").map(|port| (port.received_bytes, port.transmitted_packets)),
        Some((600, 4))
    );
    assert_eq!((report.dropped("no_route"), report.drops.len()), (2, 1));
    assert_eq!((report.gauge(Gauge::FlowsCreated), report.workers[1].gauges["flows_created"]), (10, 5));
    let service = report.service("default", "web", "").unwrap();
    assert_eq!((service.traffic.connections, service.traffic.bytes_out, service.refused), (8, 3_000, 2));
    let shares: Vec<(u64, u16)> =
        service.backends.iter().map(|backend| (backend.traffic.connections, backend.weight)).collect();
    assert_eq!(shares, [(7, 1), (1, 0)]);
}

#[test]
fn workers_whose_errors_cancel_out_are_not_balanced() {
    let parts = [part(0), part(0)];
    parts[0].0.accounts.add(Account::Received as usize, 1);
    parts[1].0.accounts.add(Account::Transmitted as usize, 1);
    let report = Report::collect(&parts, &tables(2));
    let terms = report.accounting.terms();
    let (come, gone) = terms.split_at(4);
    let sum = |terms: &[(&str, u64)]| terms.iter().map(|(_, value)| value).sum::<u64>();
    assert_eq!(sum(come), sum(gone));
    assert!(!report.accounting.balanced);
    assert!(report.to_string().contains("not balanced"));
}

#[test]
fn every_drop_is_listed_when_asked_for() {
    let rare = part(DropReason::TtlExceeded.code());
    let frequent = part(DropReason::HandOffLoop.code());
    frequent.0.drops.add(usize::from(DropReason::HandOffLoop.code()), 9);
    let report = Report::collect(&[rare, frequent], &tables(2));
    let reasons = |report: &Report| report.drops.iter().map(|drop| drop.reason).collect::<Vec<_>>();
    assert_eq!(reasons(&report), ["hand_off_loop", "ttl_exceeded"], "the most frequent first");
    let all = reasons(&report.with_every_drop());
    assert_eq!(all.len(), crate::drop_reason::CATALOGUE.len() + 4);
    assert_eq!((all[0], all.contains(&"reserved")), ("hand_off_loop", false));
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
}

#[test]
fn json_has_stable_names() {
    let tables = tables(1);
    count(&tables, 0, 0, 3);
    let report = Report::collect(&[part(DropReason::NoRoute.code())], &tables);
    let value = serde_json::to_value(&report).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&value),
        ["accounting", "drops", "generation", "ports", "services", "version", "workers"]
    );
    assert_eq!(value["accounting"]["balanced"], true);
    assert_eq!(value["workers"][0]["flows_created"], 5);
    assert_eq!(value["ports"][0]["received_bytes"], 300);
    assert_eq!(value["drops"][0]["stage"], "route_lookup");
    let service = &value["services"][0];
    assert_eq!(service["address"], "10.254.0.9");
    assert_eq!((&service["connections"], &service["node_port"]), (&3.into(), &30_080.into()));
    assert_eq!(
        keys(&service["backends"][0]),
        ["address", "bytes_in", "bytes_out", "connections", "packets_in", "packets_out", "port", "weight"]
    );
}

#[test]
fn columns_line_up() {
    let rows =
        [vec!["eth0".to_owned(), "7".to_owned()], vec!["a-long-name".to_owned(), "1234567".to_owned()]];
    let text = aligned(&["port", "packets"], &rows);
    assert_eq!(text, "port         packets\neth0               7\na-long-name  1234567\n");
    let report = Report::collect(&[part(DropReason::NoRoute.code())], &tables(1)).to_string();
    for line in ["received 3 + handed_in 0", "balanced", "default/web 10.254.0.9:80/tcp, node port 30080"] {
        assert!(report.contains(line), "{line} is missing:\n{report}");
    }
}
