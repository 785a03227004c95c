//! An update storm: a random endpoint change every millisecond for a minute of virtual time, while connections run. No packet
//! is dropped, misdelivered or reordered; memory stays flat; every retired table is freed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::random::Random;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipelines::control::kubernetes::{Object, ObjectStore};
use pipelines::gateway::Gauge;
use support::packets::*;
use support::{World, reference};

const SERVICES: usize = 20;
/// Endpoints that a service may have: 172.30.9.1 and up, each service its own ten.
const POOL: usize = 10;
const SECONDS: u64 = 60;
const CLIENT: &str = "172.30.76.7";
const CLIENT_PORT: &str = "business-manager-1";

/// Even services are TCP, odd ones UDP.
fn is_udp(service: usize) -> bool {
    service % 2 == 1
}

fn address(service: usize) -> String {
    format!("10.254.200.{}:80", service + 1)
}

fn endpoint_address(service: usize, endpoint: usize) -> String {
    format!("172.30.9.{}", service * POOL + endpoint + 1)
}

fn service_object(service: usize) -> Object {
    let protocol = if is_udp(service) { "UDP" } else { "TCP" };
    let port = ServicePort {
        name: Some("p".to_owned()),
        port: 80,
        protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    };
    let cluster_ip = address(service).split_once(':').map(|parts| parts.0.to_owned());
    let spec = ServiceSpec { cluster_ip, ports: Some(vec![port]), ..ServiceSpec::default() };
    let metadata = ObjectMeta {
        name: Some(format!("s{service}")),
        namespace: Some("storm".to_owned()),
        ..ObjectMeta::default()
    };
    Object::Service(Box::new(Service { metadata, spec: Some(spec), ..Service::default() }))
}

/// What is true of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Unready,
    Absent,
}

fn slice_object(service: usize, states: &[State]) -> Object {
    let endpoints = states.iter().enumerate().filter(|(_, state)| **state != State::Absent);
    let endpoints = endpoints.map(|(number, state)| Endpoint {
        addresses: vec![endpoint_address(service, number)],
        conditions: Some(EndpointConditions {
            ready: Some(*state == State::Ready),
            ..EndpointConditions::default()
        }),
        ..Endpoint::default()
    });
    let protocol = if is_udp(service) { "UDP" } else { "TCP" };
    let labels = BTreeMap::from([("kubernetes.io/service-name".to_owned(), format!("s{service}"))]);
    Object::EndpointSlice(Box::new(EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints.collect()),
        metadata: ObjectMeta {
            name: Some(format!("s{service}-slice")),
            namespace: Some("storm".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ports: Some(vec![EndpointPort {
            name: Some("p".to_owned()),
            port: Some(8080),
            protocol: Some(protocol.to_owned()),
            ..EndpointPort::default()
        }]),
    }))
}

/// A connection as the test knows it.
struct Connection {
    service: usize,
    port: u16,
    /// Where its packets go, and the number of the next one.
    backend: String,
    next: u32,
    /// How often that backend had gone when it was used last.
    gone: u64,
}

struct Storm {
    world: World,
    store: ObjectStore,
    states: Vec<Vec<State>>,
    /// How often each backend was ready and then not.
    gone: BTreeMap<String, u64>,
    connections: Vec<Connection>,
    random: Random,
    next_port: u16,
    changed: u64,
    moved: u64,
}

impl Storm {
    fn new() -> Self {
        let text = reference().replace("capacity = 65536", "capacity = 4096\nudp_stream_s = 2");
        let mut storm = Self {
            world: World::new(&text),
            store: ObjectStore::new(),
            states: vec![vec![State::Ready; POOL]; SERVICES],
            gone: BTreeMap::new(),
            connections: Vec::new(),
            random: Random::new(20_261_126),
            next_port: 20_000,
            changed: 0,
            moved: 0,
        };
        for service in 0..SERVICES {
            storm.store.put(service_object(service), "test");
            storm.store.put(slice_object(service, &storm.states[service]), "test");
        }
        assert!(storm.store.findings().is_empty(), "{:?}", storm.store.findings());
        let World { builder, configuration, publisher, .. } = &mut storm.world;
        publisher.publish(Arc::new(builder.build_with(configuration, &storm.store).unwrap()));
        storm
    }

    /// One endpoint becomes something else; one of each service stays ready.
    fn change(&mut self) {
        let service = self.random.below(SERVICES as u32) as usize;
        let endpoint = self.random.below(POOL as u32) as usize;
        let state = [State::Ready, State::Unready, State::Absent][self.random.below(3) as usize];
        let states = &mut self.states[service];
        let others = states.iter().enumerate().any(|(number, s)| number != endpoint && *s == State::Ready);
        if states[endpoint] == state || (!others && state != State::Ready) {
            return;
        }
        if states[endpoint] == State::Ready {
            *self.gone.entry(endpoint_address(service, endpoint) + ":8080").or_default() += 1;
        }
        states[endpoint] = state;
        let changes = self.store.put(slice_object(service, &self.states[service]), "test");
        self.changed += 1;
        let World { builder, publisher, handles, .. } = &mut self.world;
        let swept = handles.iter().map(|handle| handle.gauges.get(Gauge::SweptGeneration as usize)).min();
        builder.reclaim(swept.unwrap_or(0));
        let tables = builder.update(&self.store, &changes.services).unwrap();
        assert!(publisher.publish(Arc::new(tables)) <= 2, "retired tables are freed as workers move on");
    }

    fn is_ready(&self, service: usize, backend: &str) -> bool {
        let ready = self.states[service].iter().enumerate().filter(|(_, state)| **state == State::Ready);
        ready.map(|(number, _)| endpoint_address(service, number) + ":8080").any(|ready| ready == backend)
    }

    /// Sends a packet to a service, and gives where it went.
    fn send(&mut self, service: usize, port: u16, flags: u8, number: u32) -> Seen {
        let (client, to) = (format!("{CLIENT}:{port}"), address(service));
        let payload = number.to_be_bytes();
        let packet = match is_udp(service) {
            true => udp(&client, &to, &payload),
            false => tcp_numbered(&client, &to, flags, 2_000 + number * 4, 1, &payload),
        };
        self.world.send(CLIENT_PORT, &from_pod(7, &packet));
        self.world.turn();
        let sent = self.world.sent("eth0");
        assert_eq!(sent.len(), 1, "a packet leaves at once: {:?}", self.world.drops());
        let seen = read_tunnel(&sent[0]).2;
        assert_eq!((seen.from(), &seen.payload[..]), (client, &payload[..]));
        seen
    }

    /// Answers a packet as its backend does; the client must get it from the service.
    fn answer(&mut self, service: usize, port: u16, backend: &str, flags: u8) {
        let client = format!("{CLIENT}:{port}");
        let packet = match is_udp(service) {
            true => udp(backend, &client, b"answer"),
            false => tcp(backend, &client, flags, b""),
        };
        let back = self.world.exchange("eth0", &from_tunnel(&packet), CLIENT_PORT);
        assert_eq!(back.len(), 1, "{:?}", self.world.drops());
        assert_eq!((read(&back[0]).from(), read(&back[0]).to()), (address(service), client));
    }

    fn open(&mut self) {
        let service = self.random.below(SERVICES as u32) as usize;
        let port = self.next_port;
        self.next_port = if port == 59_999 { 20_000 } else { port + 1 };
        let backend = self.send(service, port, SYN, 0).to();
        assert!(self.is_ready(service, &backend), "{backend} is not ready");
        self.answer(service, port, &backend, SYN | ACK);
        let gone = self.gone_count(&backend);
        self.connections.push(Connection { service, port, backend, next: 1, gone });
    }

    fn gone_count(&self, backend: &str) -> u64 {
        self.gone.get(backend).copied().unwrap_or(0)
    }

    /// The next packet of a connection, and its answer. TCP stays where it is; UDP moves when its backend is gone.
    fn go_on(&mut self, place: usize) {
        let Connection { service, port, next, gone, .. } = self.connections[place];
        let went = self.send(service, port, ACK, next).to();
        let expected = self.connections[place].backend.clone();
        if went != expected {
            assert!(is_udp(service), "a TCP connection moved");
            assert!(self.gone_count(&expected) > gone, "{expected} stayed, and its flow moved");
            assert!(self.is_ready(service, &went), "{went} is not ready");
            self.moved += 1;
        } else if is_udp(service) {
            assert!(self.is_ready(service, &went), "a UDP flow stays at a backend that is gone");
        }
        self.answer(service, port, &went, ACK);
        let gone = self.gone_count(&went);
        self.connections[place] = Connection { service, port, backend: went, next: next + 1, gone };
    }

    fn close(&mut self, place: usize) {
        let Connection { service, port, backend, next, .. } = self.connections.swap_remove(place);
        if !is_udp(service) {
            assert_eq!(self.send(service, port, RST, next).to(), backend);
        }
    }

    fn step(&mut self) {
        self.change();
        if self.connections.len() < 300 {
            self.open();
        }
        for _ in 0..3 {
            let place = self.random.below(self.connections.len() as u32) as usize;
            self.go_on(place);
        }
        if self.random.below(2) == 0 && self.connections.len() > 200 {
            let place = self.random.below(self.connections.len() as u32) as usize;
            self.close(place);
        }
        self.world.advance_ms(1);
    }
}

/// Memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn connections_outlive_an_update_storm() {
    let mut storm = Storm::new();
    let mut early = 0;
    for millisecond in 0..SECONDS * 1_000 {
        storm.step();
        if millisecond == SECONDS * 1_000 / 3 {
            early = resident_kib();
        }
    }
    let growth = resident_kib().saturating_sub(early);
    assert!(growth < 2_048, "{growth} KiB more after {SECONDS} s than after a third of it");
    assert!(storm.changed > SECONDS * 400 && storm.moved > 1_000, "{} {}", storm.changed, storm.moved);
    storm.world.assert_drops(&[]);
    storm.world.assert_balanced();

    // When it is over nothing is left of it: every table but the current one is freed, every slot of a gone backend too.
    storm.world.advance_ms(20);
    let World { builder, publisher, handles, .. } = &mut storm.world;
    let swept = handles[0].gauges.get(Gauge::SweptGeneration as usize);
    builder.reclaim(swept);
    publisher.publish(Arc::new(builder.update(&storm.store, &BTreeSet::new()).unwrap()));
    storm.world.advance_ms(20);
    storm.world.publisher.reclaim();
    assert_eq!(storm.world.publisher.retired(), 0);
    let tables = storm.world.publisher.current();
    assert!(tables.services.stale.is_empty());
    assert!(storm.world.builder.services().slot_count() < 600, "slots are used again");
}
