//! Scenarios, and runners in virtual time against a gateway in memory.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use engine::clock::Timestamp;
use engine::pool::MemoryPool;
use engine::wire::ethernet::MacAddress;
use pktgen::ideal::{IdealGateway, SharedClock};
use pktgen::link::{Link, Tunnel};
use pktgen::plan::{Group, Plan};
use pktgen::received::Peer;
use pktgen::runner::{Clock, Kind, Load, Runner};
use pktgen::scenario::Scenario;
use pktgen::sizes::SizeMix;

pub fn mac(text: &str) -> MacAddress {
    text.parse().unwrap()
}

/// Node 2 of the reference cluster, as node 1 sees it.
pub fn tunnel_link() -> Link {
    Link {
        mac: mac("02:00:c0:a8:00:22"),
        gateway_mac: mac("02:00:c0:a8:00:15"),
        addresses: Some("192.168.0.22".parse().unwrap()),
        tunnel: Some(Tunnel {
            local: 0xc0a8_0016,
            remote: 0xc0a8_0015,
            udp_port: 8472,
            vni: 1,
            mac: mac("96:8f:2d:49:c5:31"),
            gateway_mac: mac("8a:22:81:5e:d8:b7"),
            checksum: false,
        }),
    }
}

pub fn plain_link(number: u8) -> Link {
    Link {
        mac: MacAddress([2, 0, 0, 0, number, 1]),
        gateway_mac: MacAddress([2, 0, 0, 0, number, 2]),
        addresses: None,
        tunnel: None,
    }
}

pub fn plan(backends: &[&str], masquerade: &[&str]) -> Plan {
    let group = Group {
        addresses: "10.254.128.0-10.254.128.4".parse().unwrap(),
        port: 80,
        backends: backends.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let masquerade = masquerade.iter().map(|text| text.parse().unwrap()).collect();
    Plan::new("100.64.0.0/16".parse().unwrap(), "1024-65535".parse().unwrap(), &[group], masquerade).unwrap()
}

/// Clients and backends behind one tunnel.
pub fn overlay() -> Scenario {
    Scenario {
        links: vec![tunnel_link()],
        client_port: 0,
        backend_port: 0,
        plan: plan(&["172.30.9.2-172.30.9.49:8080"], &[]),
        sizes: SizeMix::new(&[(64, 1)]).unwrap(),
        peer: Peer::Gateway,
        time_to_live: 64,
        hops: 1,
    }
}

/// Clients on one cable, backends on another.
pub fn two_cables() -> Scenario {
    Scenario { links: vec![plain_link(1), plain_link(2)], backend_port: 1, ..overlay() }
}

pub fn load(kind: Kind) -> Load {
    Load {
        kind,
        flows: 200,
        answering: false,
        connections: 50,
        exchanges: 1,
        patience_ns: 20_000_000,
        first: 0,
        burst: 32,
        window: 0,
        drain_ns: 30_000_000,
        warm_up_rate: None,
        warm_up_rounds: 1,
    }
}

/// A clock that goes on by a microsecond each time it is read, and can be read beside that.
pub fn virtual_clock() -> (Clock, SharedClock) {
    let time = Arc::new(AtomicU64::new(1_000_000));
    let reader = Arc::clone(&time);
    (
        Box::new(move || Timestamp(time.fetch_add(1_000, Ordering::Relaxed))),
        Arc::new(move || Timestamp(reader.load(Ordering::Relaxed))),
    )
}

/// A runner against a gateway in memory.
pub fn runner(
    scenario: Scenario,
    load: Load,
    adjust: impl FnOnce(IdealGateway) -> IdealGateway,
) -> (Runner, Arc<Mutex<IdealGateway>>) {
    let (clock, _) = virtual_clock();
    let (ports, gateway) = adjust(IdealGateway::new(scenario.clone())).into_ports();
    let pool = MemoryPool::new(8_192);
    (Runner::new(scenario, load, ports, Box::new(pool), clock), gateway)
}
