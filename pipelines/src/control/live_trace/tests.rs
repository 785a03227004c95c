use std::time::Duration;

use engine::wire::arp::{ArpPacket, OPERATION_REQUEST};
use engine::wire::ethernet::{EthernetHeader, MacAddress, TYPE_ARP};
use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::*;
use crate::control::show::{Filter, Request, What};
use crate::control::testing::{CONFIGURATION, TestGateway, start, start_with, wait_for};
use crate::gateway::Gauge;
use crate::table::affinity::Client;

const WEB: &str = "10.254.0.9:80";

fn request(packet: &str) -> TraceRequest {
    TraceRequest { trace: Wanted::Packet(packet.to_owned()), port: None, via: None, seed: 0, text: false }
}

fn rows(gateway: &TestGateway, show: What) -> Vec<Value> {
    let request = Request { show, filter: Filter::default(), text: false };
    match crate::control::show::answer(gateway.running.view(), &request).unwrap()["rows"].take() {
        Value::Array(rows) => rows,
        other => panic!("{other}"),
    }
}

/// All that counts packets, flows and events, and the flows themselves but for their age.
fn state(gateway: &TestGateway) -> Value {
    let view = gateway.running.view();
    let worker = &view.workers[0];
    let gauges = Gauge::ALL.map(|(gauge, name)| (name, worker.gauges.get(gauge as usize)));
    // The sweep goes round by itself.
    let gauges: Vec<_> = gauges.into_iter().filter(|(name, _)| *name != "swept_generation").collect();
    let flows: Vec<Value> = rows(gateway, What::Conntrack)
        .into_iter()
        .map(|mut row| {
            (row["idle_s"], row["expires_in_s"]) = (Value::Null, Value::Null);
            row
        })
        .collect();
    json!({
        "accounts": worker.counters.account_values(),
        "gauges": gauges,
        "flows": flows,
        "drops": rows(gateway, What::Drops),
        "services": rows(gateway, What::Services),
        "backends": rows(gateway, What::Backends),
        "neighbours": rows(gateway, What::Neighbours),
        "clients replaced": view.affinity.replaced(),
    })
}

/// Asks, and asserts that nothing moved by it.
fn ask(gateway: &TestGateway, request: &TraceRequest) -> Value {
    let before = state(gateway);
    let trace = answer(gateway.running.view(), request).unwrap_or_else(|error| panic!("{error}"));
    // A turn later whatever it might have set off has happened.
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(state(gateway), before);
    trace
}

fn flow_count(gateway: &TestGateway) -> usize {
    rows(gateway, What::Conntrack).len()
}

#[test]
fn before_a_flow_is_there_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    let syn = format!("tcp 192.168.0.31:40001 > {WEB}");
    let first = ask(&gateway, &request(&syn));
    assert_eq!(
        (&first["verdict"], &first["service"]["name"], &first["generation"]),
        (&json!("forward"), &json!("web"), &json!(1))
    );
    assert_eq!(first["flow"], json!({ "state": "syn_sent", "owner": 0, "known": null }));
    assert_eq!(first["candidates"].as_array().unwrap().len(), 1, "the other drains");

    gateway.send_syn(40_001, [10, 254, 0, 9], 80);
    wait_for("the flow", || (flow_count(&gateway) == 1).then_some(()));
    let again = ask(&gateway, &request(&syn));
    let known = &again["flow"]["known"];
    assert_eq!((&again["flow"]["state"], &again["flow"]["owner"]), (&json!("syn_sent"), &json!(0)));
    assert_eq!(
        (&known["direction"], &known["state_after"], &known["service"]),
        (&json!("original"), &json!("syn_sent"), &json!("default/web"))
    );
    assert_eq!(known["backend"], json!({ "address": "192.168.0.31", "port": 8080 }));
    assert!(known["idle_ms"].as_u64().unwrap() < 10_000 && known["expires_in_ms"].as_u64().unwrap() > 0);
    assert_eq!((&again["verdict"], &again["egress"]["port"]), (&json!("forward"), &json!("eth0")));
    assert_eq!(again["candidates"], json!([again["chosen"]]));
    assert_eq!(
        (&again["chosen"]["probability"], &again["chosen"]["masquerade"]),
        (&json!(1.0), &json!(true))
    );
    // Its own port, not one of many.
    let port = known["reply"]["destination_port"].as_u64().unwrap();
    assert_eq!(again["snat"], json!({ "address": "192.168.0.21", "ports": format!("{port}-{port}") }));
    assert_eq!(again["translated"]["source_port"], port);

    let answer = format!("tcp 192.168.0.31:8080 > 192.168.0.21:{port}");
    let reply = ask(&gateway, &request(&format!("{answer} flags SA")));
    let known = &reply["flow"]["known"];
    assert_eq!(
        (&known["direction"], &known["state_after"], &reply["snat"]),
        (&json!("reply"), &json!("syn_received"), &Value::Null)
    );
    assert_eq!(
        reply["translated"],
        json!({ "source": "10.254.0.9", "source_port": 80, "destination": "192.168.0.31",
            "destination_port": 40001 })
    );
    let invalid = ask(&gateway, &request(&format!("{answer} flags S")));
    let text = ask(&gateway, &TraceRequest { text: true, ..request(&format!("{answer} flags SA")) });
    let text = text["text"].as_str().unwrap();
    assert!(text.contains("answers 192.168.0.31:8080 > 192.168.0.21"), "{text}");
    assert!(text.contains("syn_sent of worker 0, reply direction"), "{text}");
    assert!(text.contains("[Service default/web, "), "{text}");
    assert_eq!(invalid["flow"]["known"]["direction"], "reply", "{invalid:#}");
    let other = ask(&gateway, &request(&format!("tcp 192.168.0.31:40002 > {WEB}")));
    assert_eq!(other["flow"]["known"], Value::Null);
    let limit = ask(&gateway, &request(&format!("{syn} ttl 1")));
    assert_eq!(limit["reason"], "ttl_exceeded");
    assert_eq!(limit["flow"]["known"]["direction"], "original");
    assert_eq!(gateway.running.stop().lost_threads, 0);
}

#[test]
fn what_has_been_learned_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    let out = request("udp 192.168.0.31:40001 > 8.8.8.8:53");
    let trace = ask(&gateway, &out);
    assert_eq!(trace["reason"], "routed; held until ARP is answered: 192.168.0.1 on eth0");

    let (router, address) =
        (MacAddress([2, 0, 0, 0, 0, 9]), |last: u8| u32::from_be_bytes([192, 168, 0, last]));
    let header =
        EthernetHeader { destination: MacAddress::BROADCAST, source: router, ether_type: U16::new(TYPE_ARP) };
    let arp = ArpPacket::new(OPERATION_REQUEST, router, address(1), MacAddress::default(), address(21));
    let frame = [header.as_bytes(), arp.as_bytes()].concat();
    gateway.port.inject(gateway.pool.clone().packet(0, &frame).unwrap());
    let view = gateway.running.view();
    wait_for("the router's MAC", || {
        let found = crate::gateway::forward::find_next_hop(address(1), &view.tables(), &view.neighbours);
        found.ok()
    });
    let trace = ask(&gateway, &out);
    assert_eq!(trace["reason"], "routed");
    assert_eq!(trace["egress"], json!({ "port": "eth0", "next_hop": "192.168.0.1", "vxlan": null }));
    let steps = trace["steps"].as_array().unwrap();
    let neighbour = steps.iter().find(|step| step["stage"] == "neighbour").unwrap();
    assert_eq!(neighbour["entry"], "neighbour 192.168.0.1 02:00:00:00:00:09 dev eth0 (learned)");
}

#[test]
fn other_flows_of_the_owner_count() {
    let folder = tempfile::tempdir().unwrap();
    // The client is no backend, so its source would stay.
    let text = CONFIGURATION.replace("192.168.0.31", "192.168.0.33");
    let (gateway, _) = start_with(&folder.path().join("a.toml"), &text);
    let to_service = request(&format!("tcp 192.168.0.31:40001 > {WEB}"));
    let trace = ask(&gateway, &to_service);
    assert_eq!((&trace["snat"], &trace["translated"]["source_port"]), (&Value::Null, &json!(40_001)));
    // Directly to the backend, from the same port: answers of both would look alike.
    gateway.send_syn(40_001, [192, 168, 0, 33], 8080);
    wait_for("the flow", || (flow_count(&gateway) == 1).then_some(()));
    let trace = ask(&gateway, &to_service);
    assert_eq!((&trace["flow"]["known"], &trace["verdict"]), (&Value::Null, &json!("forward")));
    assert_eq!(trace["translated"]["source"], "192.168.0.31");
    assert_ne!(trace["translated"]["source_port"], 40_001, "{trace:#}");
    assert_eq!(
        ask(&gateway, &request("tcp 192.168.0.31:40001 > 192.168.0.33:8080"))["reason"],
        "as its flow, untranslated"
    );
}

#[test]
fn a_masquerade_port_that_is_taken_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = CONFIGURATION.replace("[services]", "[services]\nsnat_port_range = \"40960-40960\"");
    let (gateway, _) = start_with(&folder.path().join("a.toml"), &text);
    let packet = request(&format!("tcp 192.168.0.31:40002 > {WEB}"));
    assert_eq!(ask(&gateway, &packet)["translated"]["source_port"], 40_960);
    gateway.send_syn(40_001, [10, 254, 0, 9], 80);
    wait_for("the flow", || (flow_count(&gateway) == 1).then_some(()));
    assert_eq!(ask(&gateway, &packet)["reason"], "snat_ports_exhausted");
}

#[test]
fn session_affinity_is_read_and_not_noted() {
    let folder = tempfile::tempdir().unwrap();
    let text = CONFIGURATION
        .replace("name = \"web\"", "name = \"web\"\nsession_affinity_s = 600")
        .replace("192.168.0.31:8080", "192.168.0.33:8080")
        .replace(", weight = 0", "");
    let (gateway, _) = start_with(&folder.path().join("a.toml"), &text);
    let view = gateway.running.view();
    let tables = view.tables();
    let service = tables.services.iter().find(|service| &*service.name == "web").unwrap();
    let client = Client { service: service.slot + 1, address: u32::from_be_bytes([192, 168, 0, 50]) };
    let now_s = || (view.clock.now().millis() / 1_000).max(1);
    for seed in 0..4 {
        for backend in &service.backends {
            view.affinity.note(client, backend.incarnation, now_s(), 600);
            let packet = request(&format!("tcp 192.168.0.50:40001 > {WEB}"));
            let trace = ask(&gateway, &TraceRequest { seed, ..packet });
            assert_eq!(trace["candidates"].as_array().unwrap().len(), 2);
            let address = core::net::Ipv4Addr::from(backend.address).to_string();
            assert_eq!(trace["chosen"]["address"], address, "{trace:#}");
        }
    }
    // Another client has no entry, and gets none by being asked about.
    let other = Client { address: client.address + 1, ..client };
    ask(&gateway, &request(&format!("tcp 192.168.0.51:40001 > {WEB}")));
    assert_eq!(view.affinity.find(other, now_s(), 600), None);
}

#[test]
fn wrong_questions_are_told_from_a_gateway_without_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    let good = request("gre 192.168.0.31 > 8.8.8.8");
    let (port, via) = (Some("eth9".to_owned()), Some("1@192.168.0.22".to_owned()));
    for (request, message) in [
        (request("tcp 1.2.3.4"), "column 5: `1.2.3.4`; expected"),
        (TraceRequest { trace: Wanted::Frame("0g".into()), ..good.clone() }, "`0g`"),
        (
            TraceRequest { trace: Wanted::Ip("45".into()), ..good.clone() },
            "IPv4's has 20 bytes, and 1 are there",
        ),
        (
            TraceRequest { port: port.clone(), ..good.clone() },
            "there is no port `eth9`; expected one of eth0, host",
        ),
        (TraceRequest { via: via.clone(), ..good.clone() }, "has no [overlay]"),
        (TraceRequest { port, via, ..good.clone() }, "not both"),
        (TraceRequest { via: Some("x".into()), ..good.clone() }, "--via: `x` is no tunnel"),
    ] {
        let error = answer(gateway.running.view(), &request).unwrap_err();
        assert!(matches!(error, LiveTraceError::Question(_)), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    let frame = TraceRequest { trace: Wanted::Ip("60".repeat(48)), ..good };
    assert_eq!(ask(&gateway, &frame)["reason"], "ether_type_unsupported");
    let view = std::sync::Arc::clone(gateway.running.view());
    gateway.running.stop();
    let error = answer(&view, &request("gre 192.168.0.31 > 8.8.8.8")).unwrap_err();
    assert!(error.to_string().contains("worker 0 did not answer"), "{error}");
}
