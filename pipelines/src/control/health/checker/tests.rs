//! Against real servers on loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::super::testing::home;
use super::*;
use crate::control::config::model::Probe as Question;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Fast, and so patient that only what hangs is late.
fn tcp() -> HealthCheck {
    HealthCheck { probe: Question::Tcp, port: None, interval_ms: 20, timeout_ms: 5_000, rise: 2, fall: 3 }
}

fn http() -> HealthCheck {
    let probe = Question::Http { path: "/healthz?full=1".to_owned(), status: (200, 200) };
    HealthCheck { probe, ..tcp() }
}

/// Serves each connection by `serve`, one after the other, as long as the test runs.
fn server(address: SocketAddrV4, serve: impl FnMut(TcpStream) + Send + 'static) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
}

/// Reads a request to its end, and gives it.
fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Answers `answer` to each request.
fn answers(answer: &'static str) -> impl FnMut(TcpStream) + Send + 'static {
    move |mut stream| {
        request(&mut stream);
        // A probe that has what it wants may be gone.
        let _ = stream.write_all(answer.as_bytes());
    }
}

fn new_address() -> SocketAddrV4 {
    SocketAddrV4::new(home(), 8080)
}

fn target(id: u64, address: SocketAddrV4, check: HealthCheck) -> CheckTarget {
    CheckTarget { id, address, check: Arc::new(check) }
}

fn checker(targets: Vec<CheckTarget>) -> (Checker, Receiver<HealthEvent>) {
    let (sender, events) = channel();
    let mut checker = Checker::new(move |event| sender.send(event).unwrap_or_default());
    let errors = checker.apply(targets);
    assert!(errors.is_empty(), "{errors:?}");
    (checker, events)
}

#[track_caller]
fn until(checker: &Checker, what: impl Fn(&CheckerCounters) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what(&checker.counters()) {
        assert!(Instant::now() < end, "it did not happen: {:?}", checker.counters());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The backend becomes unhealthy for this reason, and nothing else happens.
#[track_caller]
fn expect_unhealthy(address: SocketAddrV4, check: HealthCheck, reason: ProbeFailure) {
    let (checker, events) = checker(vec![target(4, address, check)]);
    let expected = HealthEvent { id: 4, address, healthy: false, reason: Some(reason) };
    assert_eq!(events.recv_timeout(PATIENCE), Ok(expected));
    let status = checker.statuses()[0];
    assert!(!status.healthy && status.failures >= 3 && status.last == Some(Err(reason)), "{status:?}");
}

/// Six probes pass, and nothing happens.
#[track_caller]
fn expect_healthy(address: SocketAddrV4, check: HealthCheck) {
    let (checker, events) = checker(vec![target(4, address, check)]);
    until(&checker, |counters| counters.passed >= 6);
    assert_eq!(checker.counters().failed, 0);
    assert_eq!(events.try_recv().ok(), None);
    assert!(checker.statuses()[0].healthy);
}

#[test]
fn a_backend_goes_and_comes_back() {
    let address = new_address();
    let (checker, events) = checker(vec![target(4, address, tcp())]);
    let down = HealthEvent { id: 4, address, healthy: false, reason: Some(ProbeFailure::Refused) };
    assert_eq!(events.recv_timeout(PATIENCE), Ok(down));
    server(address, |_| {});
    assert_eq!(events.recv_timeout(PATIENCE), Ok(HealthEvent { healthy: true, reason: None, ..down }));
    let counters = checker.counters();
    assert!(counters.failed >= 3 && counters.passed >= 2, "{counters:?}");
    assert_eq!((counters.became_unhealthy, counters.became_healthy, counters.unhealthy), (1, 1, 0));
}

#[test]
fn what_listens_and_what_answers_is_healthy() {
    let address = new_address();
    server(address, |_| {});
    expect_healthy(address, tcp());
    let address = new_address();
    server(address, answers(OK));
    expect_healthy(address, http());
    // Never accepted: the host's stack has opened the connection, which is all that TCP tells.
    let address = new_address();
    let _listener = TcpListener::bind(address).unwrap();
    expect_healthy(address, tcp());
}

#[test]
fn the_request_is_what_http_wants() {
    let address = new_address();
    let (sender, requests) = channel();
    server(address, move |mut stream| {
        sender.send(request(&mut stream)).unwrap_or_default();
        let _ = stream.write_all(OK.as_bytes());
    });
    let (_checker, _events) = checker(vec![target(1, address, http())]);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /healthz?full=1 HTTP/1.1\r\nHost: {address}\r\nUser-Agent: pollgate/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    assert_eq!(requests.recv_timeout(PATIENCE), Ok(expected));
}

#[test]
fn the_status_decides() {
    let address = new_address();
    server(address, answers("HTTP/1.0 503 Service Unavailable\r\n\r\n"));
    expect_unhealthy(address, http(), ProbeFailure::Status(503));
    let probe = Question::Http { path: "/".to_owned(), status: (200, 599) };
    expect_healthy(address, HealthCheck { probe, ..http() });
    let address = new_address();
    server(address, answers("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"));
    expect_unhealthy(address, http(), ProbeFailure::Status(302));
}

#[test]
fn an_answer_in_pieces_is_one() {
    let address = new_address();
    server(address, |mut stream| {
        request(&mut stream);
        stream.set_nodelay(true).unwrap();
        for byte in OK.bytes() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    expect_healthy(address, http());
}

#[test]
fn what_answers_otherwise_is_unhealthy() {
    let address = new_address();
    server(address, answers("SSH-2.0-OpenSSH_9.2p1\r\n"));
    expect_unhealthy(address, http(), ProbeFailure::NotHttp);
    // Closes after it has accepted; the request may meet that as a reset.
    let address = new_address();
    server(address, drop);
    expect_unhealthy(address, http(), ProbeFailure::Closed);
    let address = new_address();
    server(address, answers("HTTP/1.1 2"));
    expect_unhealthy(address, http(), ProbeFailure::Closed);
    // Interim answers for ever.
    let address = new_address();
    server(address, |mut stream| {
        request(&mut stream);
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
    });
    expect_unhealthy(address, http(), ProbeFailure::NotHttp);
}

#[test]
fn what_hangs_is_unhealthy_when_its_time_is_over() {
    let hurried = |check| HealthCheck { interval_ms: 150, timeout_ms: 100, ..check };
    // Accepts, and never answers.
    let address = new_address();
    let mut held = Vec::new();
    server(address, move |stream| held.push(stream));
    expect_unhealthy(address, hurried(http()), ProbeFailure::TimedOut);
    // Drops SYNs: its queue of connections that nobody accepts is full.
    let address = new_address();
    let _listener = TcpListener::bind(address).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address.into(), Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 600, "the queue does not fill");
    }
    expect_unhealthy(address, hurried(tcp()), ProbeFailure::TimedOut);
}

#[test]
fn what_is_slow_is_healthy() {
    let address = new_address();
    server(address, |mut stream| {
        request(&mut stream);
        std::thread::sleep(Duration::from_millis(200));
        let _ = stream.write_all(OK.as_bytes());
    });
    let (checker, events) = checker(vec![target(1, address, http())]);
    until(&checker, |counters| counters.passed >= 4);
    assert_eq!((checker.counters().failed, events.try_recv().ok()), (0, None));
}

#[test]
fn flapping_is_damped() {
    let address = new_address();
    let mut count = 0;
    server(address, move |stream| {
        count += 1;
        match count % 3 {
            0 => answers(OK)(stream),
            _ => answers("HTTP/1.1 500 \r\n\r\n")(stream),
        }
    });
    let (checker, events) = checker(vec![target(1, address, http())]);
    until(&checker, |counters| counters.failed >= 12 && counters.passed >= 5);
    assert_eq!(events.try_recv().ok(), None, "two of three fail, and never three in a row");
    assert!(checker.statuses()[0].healthy);
}

#[test]
fn hanging_backends_do_not_hold_the_others_up() {
    let address = new_address();
    // Connections wait to be accepted, so that this end of them costs no descriptor.
    let _listener = TcpListener::bind(address).unwrap();
    let good = new_address();
    server(good, answers(OK));
    let hurried = HealthCheck { interval_ms: 1_000, timeout_ms: 1_000, ..http() };
    let mut targets: Vec<CheckTarget> = (0..100).map(|id| target(id, address, hurried.clone())).collect();
    targets.push(target(1_000, good, HealthCheck { interval_ms: 50, ..http() }));
    let (checker, events) = checker(targets);
    let mut unhealthy = std::collections::BTreeSet::new();
    while unhealthy.len() < 100 {
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert_eq!((event.healthy, event.reason), (false, Some(ProbeFailure::TimedOut)));
        assert!(unhealthy.insert(event.id));
    }
    let statuses = checker.statuses();
    let good = statuses.iter().find(|status| status.id == 1_000).unwrap();
    // Three seconds at the least have gone by: 60 probes on an idle machine, and 3 if they waited for one another.
    assert!(good.healthy && good.failures == 0 && good.probes >= 15, "{good:?}");
}

#[test]
fn targets_change_while_probes_are_under_way() {
    let (hanging, good) = (new_address(), new_address());
    let _listener = TcpListener::bind(hanging).unwrap();
    server(good, answers(OK));
    let (mut checker, events) = checker((0..50).map(|id| target(id, hanging, http())).collect());
    until(&checker, |counters| counters.probes_under_way == 50);
    assert!(checker.apply((25..75).map(|id| target(id, good, http())).collect()).is_empty());
    until(&checker, |counters| counters.passed >= 200);
    let statuses = checker.statuses();
    assert!(statuses.len() == 50 && statuses.iter().all(|status| status.healthy && status.address == good));
    assert_eq!(events.try_recv().ok(), None);
    // Without targets nothing is probed; what is under way comes to its end.
    assert!(checker.apply(Vec::new()).is_empty());
    until(&checker, |counters| counters.probes_under_way == 0);
    let before = checker.counters();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((checker.counters(), before.targets), (before, 0));
}

#[test]
fn it_wakes_up_for_new_targets() {
    let address = new_address();
    server(address, |_| {});
    let (mut checker, _events) = checker(vec![target(1, address, tcp())]);
    checker.apply(Vec::new());
    // It waits, with nothing to wait for.
    std::thread::sleep(Duration::from_millis(200));
    let before = checker.counters().passed;
    let began = Instant::now();
    checker.apply(vec![target(2, address, tcp())]);
    until(&checker, |counters| counters.passed > before);
    assert!(began.elapsed() < super::super::poll_thread::WAIT_MAX / 2, "{:?}", began.elapsed());
}

#[test]
fn it_ends_at_once_whatever_is_under_way() {
    let address = new_address();
    let _listener = TcpListener::bind(address).unwrap();
    let slow = HealthCheck { timeout_ms: 60_000, ..http() };
    let (checker, events) = checker((0..20).map(|id| target(id, address, slow.clone())).collect());
    until(&checker, |counters| counters.probes_under_way == 20);
    let began = Instant::now();
    drop(checker);
    assert!(began.elapsed() < super::super::poll_thread::WAIT_MAX / 2, "{:?}", began.elapsed());
    assert_eq!(events.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn without_targets_there_is_no_thread() {
    let (checker, _events) = checker(Vec::new());
    assert!(checker.thread.is_none());
    assert_eq!(checker.counters(), CheckerCounters::default());
}
