use super::*;
use crate::control::testing::{TestGateway, start, wait_for};

const WEB: [u8; 4] = [10, 254, 0, 9];
const NODE: [u8; 4] = [192, 168, 0, 21];
const NOWHERE: [u8; 4] = [10, 254, 3, 3];

fn rows(gateway: &TestGateway, show: What, filter: Filter) -> Vec<Value> {
    let request = Request { show, filter, text: false };
    match answer(gateway.running.view(), &request).unwrap()["rows"].take() {
        Value::Array(rows) => rows,
        other => panic!("{other}"),
    }
}

/// Three connections to the service, one to an address of the service network that nobody has, one to the host.
fn with_traffic() -> (TestGateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _) = start(&folder.path().join("a.toml"));
    for source_port in 40_001..=40_003 {
        gateway.send_syn(source_port, WEB, 80);
    }
    gateway.send_syn(40_004, NOWHERE, 80);
    gateway.send_syn(40_005, NODE, 22);
    wait_for("five packets", || {
        let ports = rows(&gateway, What::Ports, Filter::default());
        (ports[0]["received_packets"] == 5 && ports[1]["transmitted_packets"] == 1).then_some(())
    });
    (gateway, folder)
}

#[test]
fn every_table_has_its_columns_and_text() {
    let (gateway, _folder) = with_traffic();
    for what in <What as clap::ValueEnum>::value_variants() {
        let ask = |text| {
            let request = Request { show: *what, filter: Filter::default(), text };
            answer(gateway.running.view(), &request).unwrap()
        };
        let (reply, text) = (ask(false), ask(true));
        assert!(text["text"].as_str().unwrap().lines().count() > 1 || *what == What::Fdb, "{what:?}: {text}");
        let Some(rows) = reply["rows"].as_array() else {
            assert_eq!((*what, &reply["counters"]["node"]), (What::Counters, &json!("node-1")));
            continue;
        };
        let table = match what {
            What::Services => services::services(gateway.running.view(), &Filter::default()),
            What::Backends => services::backends(gateway.running.view(), &Filter::default()),
            What::Routes => forwarding::routes(gateway.running.view()),
            What::Neighbours => forwarding::neighbours(gateway.running.view()),
            What::Fdb => forwarding::fdb(gateway.running.view()),
            What::Conntrack => conntrack::conntrack(gateway.running.view(), &Filter::default()).unwrap(),
            What::Ports => packets::ports(gateway.running.view()),
            What::Workers => packets::workers(gateway.running.view()),
            What::Drops | What::Counters => packets::drops(gateway.running.view(), false),
        };
        // A row of the exception port knows fewer fields, never others.
        let first = rows.first();
        for (title, field) in table.columns {
            assert!(first.is_none_or(|row| row.get(field).is_some()), "{what:?}: no {field} for {title}");
        }
    }
    gateway.running.stop();
}

#[test]
fn rows_say_what_happened() {
    let (gateway, _folder) = with_traffic();
    let services = rows(&gateway, What::Services, Filter::default());
    assert_eq!((&services[0]["title"], &services[0]["connections"]), (&json!("default/web"), &json!(3)));
    assert_eq!(services[0]["packets_in"], 3);
    let backends =
        rows(&gateway, What::Backends, Filter { service: Some("web".into()), ..Filter::default() });
    let states: Vec<&str> = backends.iter().filter_map(|row| row["state"].as_str()).collect();
    assert_eq!(states, ["active", "draining"]);
    let drops = rows(&gateway, What::Drops, Filter::default());
    assert_eq!((drops.len(), &drops[0]["reason"]), (1, &json!("service_unknown_address")), "{drops:?}");
    let all = rows(&gateway, What::Drops, Filter { all: true, ..Filter::default() });
    assert_eq!(all.len(), crate::drop_reason::CATALOGUE.len() + 4 + 2);
    let neighbours = rows(&gateway, What::Neighbours, Filter::default());
    let station = neighbours.iter().find(|row| row["address"] == "192.168.0.31").unwrap();
    assert_eq!((&station["state"], &station["mac"]), (&json!("static"), &json!("02:00:c0:a8:00:1f")));
    assert_eq!(neighbours[0]["state"], "host");
    let ports = rows(&gateway, What::Ports, Filter::default());
    assert_eq!((&ports[0]["link"], &ports[0]["receive_missed"]), (&json!("up"), &json!(3)));
    assert_eq!(ports[0]["workers"][0]["received_packets"], 5);
    let workers = rows(&gateway, What::Workers, Filter::default());
    assert_eq!((&workers[0]["flow_capacity"], &workers[0]["generation"]), (&json!(1_024), &json!(1)));
    gateway.running.stop();
}

#[test]
fn flows_are_picked_by_each_filter() {
    let (gateway, _folder) = with_traffic();
    let count = |filter: Filter| rows(&gateway, What::Conntrack, filter).len();
    assert_eq!(count(Filter::default()), 4);
    assert_eq!(count(Filter { port: Some(40_002), ..Filter::default() }), 1);
    assert_eq!(count(Filter { port: Some(8_080), ..Filter::default() }), 3, "after translation");
    assert_eq!(count(Filter { address: Some(WEB.into()), ..Filter::default() }), 3);
    assert_eq!(count(Filter { address: Some(NOWHERE.into()), ..Filter::default() }), 0);
    assert_eq!(
        count(Filter { protocol: Some("TCP".into()), ..Filter::default() }),
        4,
        "one is to the node itself"
    );
    assert_eq!(count(Filter { protocol: Some("17".into()), ..Filter::default() }), 0);
    assert_eq!(count(Filter { service: Some("default/web".into()), ..Filter::default() }), 3);
    assert_eq!(count(Filter { service: Some("none".into()), ..Filter::default() }), 0);
    let filter = Filter { limit: Some(2), ..Filter::default() };
    let request = Request { show: What::Conntrack, filter, text: false };
    let reply = answer(gateway.running.view(), &request).unwrap();
    assert_eq!((reply["rows"].as_array().unwrap().len(), &reply["truncated"]), (2, &json!(true)));
    let flow = &reply["rows"][0];
    assert_eq!((&flow["destination"], &flow["state"]), (&json!("10.254.0.9:80"), &json!("syn_sent")));
    assert_eq!((&flow["reply_source"], &flow["translated"]), (&json!("192.168.0.31:8080"), &json!(true)));
    gateway.running.stop();
}

#[test]
fn the_last_words_hold_everything_and_no_buffer_is_out() {
    let (gateway, _folder) = with_traffic();
    let TestGateway { running, pool, port, host } = gateway;
    let stopped = running.stop();
    assert_eq!(stopped.lost_threads, 0);
    assert!(crate::control::running::accounting_is_balanced(&stopped.view));
    let text = counters_text(&stopped.view);
    for expected in
        ["received 5 + handed_in 0", "balanced", "host_taken 1, host_transmitted 1", "0 applied, 0 failed"]
    {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let delivered = host.take_transmitted().unwrap();
    assert_eq!(delivered.data().get(..6), Some(&[2u8, 0, 0, 0, 0, 2][..]), "to the host's MAC");
    drop((delivered, port, host));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn services_are_named_in_three_ways() {
    for wanted in ["web", "shop/web", "shop/web:http"] {
        assert!(services::is_named("shop/web:http", wanted), "{wanted}");
    }
    for other in ["we", "http", "other/web", "shop/web:https", "shop"] {
        assert!(!services::is_named("shop/web:http", other), "{other}");
    }
}
