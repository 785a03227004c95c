//! A gateway that really runs, threads and all, on ports in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::host::available_cores;
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::memory::MemoryPort;
use engine::wire::ethernet::MacAddress;

use crate::assembly::WorkerInput;
use crate::control::build::{Builder, HostFacts};
use crate::control::config::{self, Configuration};
use crate::control::reload::Reloader;
use crate::control::running::{Ports, Running};
use crate::control::sources::{SourcePaths, Sources};
use crate::control::view::{DeviceStatistics, PortDevice, PortView};
use crate::gateway::Gauge;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An underlay with a service of two backends, of which one drains, and one without; a way to the host.
pub(crate) const CONFIGURATION: &str = r#"
[node]
name = "node-1"
addresses = ["192.168.0.21"]

[conntrack]
capacity = 1024

[[ports]]
name = "eth0"
role = "underlay"
mac = "02:00:c0:a8:00:15"
address = "192.168.0.21/24"

[exception]
device = "net_tap0,iface=pg-host"

[[routes]]
destination = "0.0.0.0/0"
via = "192.168.0.1"
interface = "eth0"

[[neighbours]]
interface = "eth0"
address = "192.168.0.31"
mac = "02:00:c0:a8:00:1f"

[services]
service_cidrs = ["10.254.0.0/16"]

[[service]]
name = "web"
cluster_ip = "10.254.0.9"

[[service.ports]]
port = 80
backends = [{ address = "192.168.0.31:8080" }, { address = "192.168.0.32:8080", weight = 0 }]

[[service]]
name = "none"
cluster_ip = "10.254.0.10"

[[service.ports]]
port = 53
protocol = "udp"
backends = []
"#;

struct FakeDevice;

impl PortDevice for FakeDevice {
    fn driver(&self) -> String {
        "memory".to_owned()
    }

    fn mac(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 1])
    }

    fn link(&self) -> Option<(bool, Option<u32>)> {
        Some((true, Some(10_000)))
    }

    fn statistics(&self) -> Option<DeviceStatistics> {
        Some(DeviceStatistics { receive_missed: 3, ..DeviceStatistics::default() })
    }
}

pub(crate) struct TestGateway {
    pub(crate) running: Running,
    pub(crate) pool: MemoryPool,
    pub(crate) port: MemoryPort,
    pub(crate) host: MemoryPort,
}

pub(crate) fn parsed(text: &str) -> Configuration {
    config::parse(text, "test.toml").unwrap_or_else(|report| panic!("{report}")).configuration
}

/// Starts it on one worker. Also gives what reloads it from `path`.
pub(crate) fn start(path: &Path) -> (TestGateway, Reloader) {
    start_with(path, CONFIGURATION)
}

/// As [`start`], with another configuration of the same port.
pub(crate) fn start_with(path: &Path, text: &str) -> (TestGateway, Reloader) {
    let configuration = parsed(text);
    std::fs::write(path, text).unwrap();
    let (pool, port, host) = (MemoryPool::new(1_024), MemoryPort::new(), MemoryPort::new());
    let view = |name: &str, role| PortView {
        name: name.to_owned(),
        role,
        device_name: format!("memory-{name}"),
        mac: MacAddress::default(),
        mtu: 1_500,
        device: Arc::new(FakeDevice),
    };
    let ports = Ports {
        inputs: vec![WorkerInput {
            ports: vec![Some(Box::new(port.clone()) as Box<dyn PortQueue>)],
            source: Box::new(pool.clone()),
        }],
        exception_queue: Some(Box::new(host.clone())),
        views: vec![view("eth0", "underlay")],
        exception_view: Some(view("host", "exception")),
        entry: Arc::new(|| Ok(Box::new(()))),
    };
    let mut builder =
        Builder::new(1, HostFacts { host_mac: MacAddress([2, 0, 0, 0, 0, 2]), host_mtu: 1_500 });
    let tables = builder.build(&configuration).unwrap();
    let cores: Vec<usize> = available_cores().into_iter().rev().take(1).collect();
    let running = Running::start(&configuration, tables, ports, &cores, 7).unwrap();
    let gauges = running.view().workers[0].gauges.clone();
    // Next hops, the host among them, are there from the worker's first look at the tables on.
    wait_for("the first turn", || (gauges.get(Gauge::Generation as usize) == 1).then_some(()));
    let paths = SourcePaths::of_config(path);
    let sources = Sources::load(&paths).unwrap();
    (TestGateway { running, pool, port, host }, Reloader::new(paths, sources, builder))
}

impl TestGateway {
    /// Lets a TCP SYN arrive from 192.168.0.31 with this source port.
    pub(crate) fn send_syn(&self, source_port: u16, destination: [u8; 4], destination_port: u16) {
        let frame = syn(source_port, destination, destination_port);
        self.port.inject(self.pool.clone().packet(0, &frame).unwrap());
    }
}

/// Asks again and again until it is so.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn syn(source_port: u16, destination: [u8; 4], destination_port: u16) -> Vec<u8> {
    use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
    use pnet::packet::ip::IpNextHeaderProtocols;
    use pnet::packet::ipv4::{self, MutableIpv4Packet};
    use pnet::packet::tcp::{self, MutableTcpPacket, TcpFlags};
    let (source, destination) = ([192, 168, 0, 31].into(), destination.into());
    let mut bytes = vec![0u8; 14 + 20 + 20];
    let mut ethernet = MutableEthernetPacket::new(&mut bytes).unwrap();
    ethernet.set_destination("02:00:c0:a8:00:15".parse().unwrap());
    ethernet.set_source("02:00:c0:a8:00:1f".parse().unwrap());
    ethernet.set_ethertype(EtherTypes::Ipv4);
    let mut ip = MutableIpv4Packet::new(&mut bytes[14..]).unwrap();
    ip.set_version(4);
    ip.set_header_length(5);
    ip.set_total_length(40);
    ip.set_ttl(64);
    ip.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
    ip.set_source(source);
    ip.set_destination(destination);
    let checksum = ipv4::checksum(&ip.to_immutable());
    ip.set_checksum(checksum);
    let mut segment = MutableTcpPacket::new(&mut bytes[34..]).unwrap();
    segment.set_source(source_port);
    segment.set_destination(destination_port);
    segment.set_data_offset(5);
    segment.set_flags(TcpFlags::SYN);
    segment.set_window(1_000);
    let checksum = tcp::ipv4_checksum(&segment.to_immutable(), &source, &destination);
    segment.set_checksum(checksum);
    bytes
}
