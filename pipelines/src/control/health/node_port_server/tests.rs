//! Against real sockets on loopback.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream};
use std::time::{Duration, Instant};

use super::super::node_port_thread::{CONNECTION_PATIENCE, CONNECTIONS_MAX};
use super::super::testing::home;
use super::*;

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
/// In every test another address, so that the port is always free.
const PORT: u16 = 30_100;

fn wanted(port: u16, name: &str, local_endpoints: usize) -> HealthNodePort {
    HealthNodePort { port, namespace: "default".to_owned(), name: name.to_owned(), local_endpoints }
}

/// One port, open, and where.
fn open(name: &str, local_endpoints: usize) -> (HealthNodePorts, SocketAddrV4) {
    let address = home();
    let mut ports = HealthNodePorts::new(vec![address]);
    assert_eq!(said(&ports.apply(&[wanted(PORT, name, local_endpoints)])), "");
    (ports, SocketAddrV4::new(address, PORT))
}

fn said(errors: &[HealthNodePortError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn connect(address: SocketAddrV4) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// All that comes until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn ask(address: SocketAddrV4, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    rest(stream)
}

/// Waits for the thread to have noticed.
#[track_caller]
fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_answer_on_the_wire_is_kube_proxys() {
    let (ports, address) = open("web", 2);
    let text = ask(address, GET);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
    let age = std::time::SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
    assert!(age < Duration::from_secs(60), "{date}");
    let expected = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: 2\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close",
        body.len()
    );
    assert_eq!(head, expected);
    let json = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
                \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    assert_eq!(body, json);

    let head = ask(address, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("Connection: close\r\n\r\n"), "{head}");
    assert!(ask(address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 OK\r\n"));
    assert!(ask(address, "\r\nPOST /any?x=1 HTTP/1.1\nhost: a\n\n").starts_with("HTTP/1.1 200 OK\r\n"));
    let expected = HealthNodePortCounters { answered_ok: 4, ..Default::default() };
    assert_eq!(ports.counters(), expected);
    let status =
        HealthNodePortStatus { port: wanted(PORT, "web", 2), addresses: vec![*address.ip()], answers: 4 };
    assert_eq!(ports.statuses(), [status]);
}

#[test]
fn counts_and_the_gateways_own_health_act_at_once() {
    let (mut ports, address) = open("web", 1);
    assert!(ask(address, GET).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ports.apply(&[wanted(PORT, "web", 0)]).is_empty());
    let none = ask(address, GET);
    assert!(
        none.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && none.contains("\"localEndpoints\": 0,")
    );
    assert!(ports.apply(&[wanted(PORT, "web", 5)]).is_empty());
    assert!(ask(address, GET).contains("\r\nX-Load-Balancing-Endpoint-Weight: 5\r\n"));
    ports.set_proxy_healthy(false);
    let unwell = ask(address, GET);
    assert!(
        unwell.starts_with("HTTP/1.1 503 ") && unwell.contains("\"serviceProxyHealthy\": false"),
        "{unwell}"
    );
    ports.set_proxy_healthy(true);
    // Another service takes the port over.
    assert!(ports.apply(&[wanted(PORT, "other", 1)]).is_empty());
    assert!(ask(address, GET).contains("\"name\": \"other\""));
    let counters = ports.counters();
    assert_eq!((counters.answered_ok, counters.answered_unavailable), (3, 2));
}

#[test]
fn ports_open_and_close_by_difference() {
    let (mut ports, first) = open("first", 1);
    let second = SocketAddrV4::new(*first.ip(), PORT + 1);
    let mut early = connect(first);
    assert_eq!(said(&ports.apply(&[wanted(PORT, "first", 1), wanted(PORT + 1, "second", 1)])), "");
    assert!(ask(first, GET).contains("\"first\"") && ask(second, GET).contains("\"second\""));
    assert_eq!(said(&ports.apply(&[wanted(PORT + 1, "second", 1)])), "");
    assert!(TcpStream::connect(first).is_err(), "it is closed");
    assert!(ask(second, GET).contains("\"second\""));
    // A client of the closed port that had not asked yet hears nothing.
    early.write_all(GET.as_bytes()).unwrap();
    assert_eq!(rest(early), "");
    // And the port can be had again at once.
    assert_eq!(said(&ports.apply(&[wanted(PORT, "again", 0)])), "");
    assert!(ask(first, GET).contains("\"again\""));
    assert!(TcpStream::connect(second).is_err());
    drop(ports);
    assert!(TcpStream::connect(first).is_err(), "all end with their owner");
}

#[test]
fn without_ports_there_is_no_thread() {
    let mut ports = HealthNodePorts::new(vec![home()]);
    assert!(ports.apply(&[]).is_empty() && ports.thread.is_none());
    assert_eq!((ports.statuses(), ports.counters()), (Vec::new(), HealthNodePortCounters::default()));
}

#[test]
fn addresses_that_are_taken_are_told_and_tried_again() {
    let (taken, other) = (SocketAddrV4::new(home(), PORT), home());
    let blocker = StdListener::bind(taken).unwrap();
    let mut ports = HealthNodePorts::new(vec![*taken.ip(), other]);
    let errors = ports.apply(&[wanted(PORT, "web", 1)]);
    let begin =
        format!("service default/web: cannot answer health checks on {taken}: Address already in use");
    assert!(errors.len() == 1 && said(&errors).starts_with(&begin), "{errors:?}");
    assert_eq!(ports.statuses()[0].addresses, [other], "the other address is answered");
    assert_eq!(ports.apply(&[wanted(PORT, "web", 1)]).len(), 1, "still taken");
    assert_eq!(ports.counters().apply_errors, 2);
    drop(blocker);
    assert_eq!(said(&ports.apply(&[wanted(PORT, "web", 1)])), "");
    assert!(ask(taken, GET).contains("\"web\""));
    // An address that the host does not have, TEST-NET-1 of RFC 5737.
    ports.set_bind_addresses(vec![other, Ipv4Addr::new(192, 0, 2, 1)]);
    let errors = ports.apply(&[wanted(PORT, "web", 1)]);
    let is_absent = |error: &HealthNodePortError| matches!(error, HealthNodePortError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable);
    assert!(errors.len() == 1 && errors.iter().all(is_absent), "{errors:?}");
    assert!(TcpStream::connect(taken).is_err(), "no address of ours any more");
    assert_eq!(ports.statuses()[0].addresses, [other]);
}

#[test]
fn a_port_belongs_to_one_service() {
    let (mut ports, address) = open("holder", 1);
    let errors = ports.apply(&[wanted(PORT, "late", 1), wanted(PORT, "holder", 1), wanted(0, "none", 1)]);
    let text = said(&errors);
    let taken =
        format!("service default/late: health check node port {PORT} is that of service default/holder;");
    assert!(errors.len() == 2 && text.starts_with(&taken), "{text}");
    assert!(text.contains("\nservice default/none: 0 is no health check node port;"), "{text}");
    assert!(ask(address, GET).contains("\"holder\""));
}

#[test]
fn many_ports_are_one_thread_and_the_rest_is_refused_by_name() {
    let address = home();
    let numbers = PORT..PORT + HEALTH_NODE_PORTS_MAX as u16 + 4;
    let all: Vec<_> = numbers.map(|port| wanted(port, &format!("service-{port}"), 1)).collect();
    let mut ports = HealthNodePorts::new(vec![address]);
    let errors = ports.apply(&all);
    assert!(errors.iter().all(|error| matches!(error, HealthNodePortError::TooMany { .. })), "{errors:?}");
    let name = format!("service default/{}: no health", all[HEALTH_NODE_PORTS_MAX].name);
    assert!(errors.len() == 4 && said(&errors).starts_with(&name), "{errors:?}");
    let open = ports.statuses();
    assert_eq!(open.len(), HEALTH_NODE_PORTS_MAX);
    for HealthNodePortStatus { port, .. } in &open {
        let text = ask(SocketAddrV4::new(address, port.port), GET);
        assert!(text.contains(&format!("\"{}\"", port.name)), "{text}");
    }
    // Those that are open stay so when others come first.
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(ports.apply(&reversed).len(), 4);
    let still: Vec<_> = ports.statuses().into_iter().map(|status| status.port).collect();
    assert_eq!(still, all[..HEALTH_NODE_PORTS_MAX]);
}

#[test]
fn what_is_no_request_is_refused() {
    let (ports, address) = open("web", 1);
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request";
    assert_eq!(ask(address, "\x16\x03\x01 garbage\n\n"), refused);
    assert_eq!(ask(address, "GET / HTTP/1.1\r\n\r\n"), refused, "no Host");
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    assert!(ask(address, &huge).starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    let blank = "\r\n".repeat(10_000);
    assert!(ask(address, &blank).starts_with("HTTP/1.1 431 "), "nor empty lines for ever");
    // The connection is gone before all of it was sent, whatever the client makes of that.
    let mut flood = connect(address);
    let mut sent = 0;
    while sent < 64 << 20 {
        match flood.write(&[b'a'; 65_536]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "it took everything");
    assert!(ask(address, GET).starts_with("HTTP/1.1 200 "));
    assert_eq!(ports.counters().refused_requests, 5);
}

#[test]
fn half_a_request_has_its_time() {
    let (ports, address) = open("web", 1);
    let began = Instant::now();
    let mut half = connect(address);
    half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let silent = connect(address);
    // One that goes away halfway is not late.
    let mut gone = connect(address);
    gone.write_all(b"GET").unwrap();
    drop(gone);
    assert!(ask(address, GET).starts_with("HTTP/1.1 200 "), "others do not wait for them");
    assert_eq!(rest(half) + &rest(silent), "");
    let took = began.elapsed();
    assert!(took >= CONNECTION_PATIENCE && took < 3 * CONNECTION_PATIENCE, "{took:?}");
    until(|| ports.counters().timed_out == 2);
}

#[test]
fn a_request_in_pieces_is_one() {
    let (_ports, address) = open("web", 1);
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    for byte in GET.bytes() {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(rest(stream).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_follows_a_request_does_not_cost_the_answer() {
    let (_ports, address) = open("web", 1);
    let mut stream = connect(address);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n").unwrap();
    // Sent after the answer: a connection that was closed by then would be reset, and writing fail.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&[b'x'; 3_000]).unwrap();
    }
    assert!(rest(stream).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let (ports, address) = open("web", 1);
    let deaf: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(GET.as_bytes()).unwrap();
            stream
        })
        .collect();
    until(|| ports.counters().answered_ok == 20);
    let began = Instant::now();
    assert!(ask(address, GET).starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < CONNECTION_PATIENCE, "{:?}", began.elapsed());
    drop(deaf);
}

#[test]
fn a_thousand_silent_connections_do_not_keep_a_load_balancer_out() {
    let (ports, address) = open("web", 1);
    let mut held = VecDeque::new();
    for number in 0..1_000 {
        let mut stream = connect(address);
        if number % 2 == 0 {
            // Evicted ones may be closed by now.
            let _ = stream.write_all(b"GET /");
        }
        held.push_back(stream);
        // Held are always more than may be, and fewer than a process may open by default.
        if held.len() > 3 * CONNECTIONS_MAX {
            held.pop_front();
        }
        if number % 100 == 99 {
            assert!(ask(address, GET).starts_with("HTTP/1.1 200 "), "at {number}");
        }
    }
    until(|| {
        let counters = ports.counters();
        counters.answered_ok == 10 && counters.evicted >= 300
    });
    assert_eq!(ports.counters().accept_errors, 0);
}
