use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::control::testing::{start, wait_for};

/// Families by name with their kind, and samples by name and labels: as a scraper reads them.
fn parsed(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, u64>) {
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(helped.insert(help.split(' ').next().unwrap()), "{line} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none() && helped.contains(name),
                "{line}"
            );
        } else if line != "# EOF" {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let family = name.strip_suffix("_total").unwrap_or(name);
            let kind = kinds.get(family).unwrap_or_else(|| panic!("no family for {line}"));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    assert!(text.ends_with("# EOF\n"));
    (kinds, samples)
}

fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: pollgate\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn what_was_counted_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    gateway.send_syn(40_001, [10, 254, 0, 9], 80);
    gateway.send_syn(40_002, [10, 254, 3, 3], 80);
    let view = gateway.running.view();
    // Both packets' turns are over when their ends are counted and what they were is too; a request for a MAC may have
    // been transmitted before.
    let connections = "pollgate_service_connections_total{namespace=\"default\",service=\"web\",port=\"80\",protocol=\"tcp\"}";
    let dropped = "pollgate_packets_total{worker=\"0\",account=\"dropped\"}";
    let samples = wait_for("two packets", || {
        let (_, samples) = parsed(&encode(view).unwrap());
        (samples[connections] == 1 && samples[dropped] == 1).then_some(samples)
    });
    for (sample, value) in [
        ("pollgate_info{version=\"0.1.0\",node=\"node-1\"}", 1),
        ("pollgate_generation", 1),
        ("pollgate_drops_total{worker=\"0\",stage=\"dnat\",reason=\"service_unknown_address\"}", 1),
        ("pollgate_packets_total{worker=\"0\",account=\"dropped\"}", 1),
        ("pollgate_flow_capacity{worker=\"0\"}", 1_024),
        (
            "pollgate_service_connections_total{namespace=\"default\",service=\"web\",port=\"80\",protocol=\"tcp\"}",
            1,
        ),
        (
            "pollgate_backend_weight{namespace=\"default\",service=\"web\",port=\"80\",protocol=\"tcp\",backend=\"192.168.0.32:8080\"}",
            0,
        ),
        ("pollgate_port_link_up{port=\"eth0\"}", 1),
        ("pollgate_port_device_errors_total{port=\"eth0\",kind=\"receive_missed\"}", 3),
        ("pollgate_reloads_total{result=\"failed\"}", 0),
        ("pollgate_host_packets_total{event=\"received\"}", 0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in {samples:#?}");
    }
    gateway.running.stop();
}

#[test]
fn every_family_is_exported_and_documented() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    let (kinds, samples) = parsed(&encode(gateway.running.view()).unwrap());
    gateway.running.stop();
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let documented: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `pollgate_")?.split('`').next()).collect();
    let mut exported = BTreeSet::new();
    for (name, kind) in &kinds {
        let sample = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        assert!(samples.keys().any(|key| key.split('{').next() == Some(&sample)), "no sample of {name}");
        exported.insert(sample.strip_prefix("pollgate_").unwrap().to_owned());
    }
    assert_eq!(
        documented,
        exported.iter().map(String::as_str).collect(),
        "docs/metrics.md against the program"
    );
    assert_eq!(families().count(), kinds.len());
}

#[test]
fn the_server_answers_metrics_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    let listener = MetricsListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = MetricsServer::start(listener, gateway.running.view()).unwrap();
    let address = server.address().unwrap();

    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    assert!(body.contains("pollgate_generation 1"), "{body}");
    let (head, body) = get(address, "/");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("/metrics"), "{head} {body}");
    assert!(get(address, "/other").0.starts_with("HTTP/1.1 404"));

    let error = MetricsListener::bind(address).err().map(|error| error.to_string()).unwrap();
    assert!(error.contains(&address.to_string()) && error.contains("`[metrics] listen`"), "{error}");
    drop(server);
    gateway.running.stop();
}
