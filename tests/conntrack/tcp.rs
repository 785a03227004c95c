//! TCP's life as a middlebox sees it.

use engine::table::flow::EntryId;
use pipelines::gateway::Gauge;
use pipelines::stage::tcp_state::TcpState;

use crate::support::packets::*;
use crate::support::{World, ip, pod_port, reference};

const CLIENT: &str = "192.168.0.50:5000";
const SERVER: &str = "172.30.76.7:80";
const URGENT: u8 = 0x20;
const PUSH: u8 = 0x08;
/// ECE and CWR (RFC 3168, section 6.1).
const ECN_SETUP: u8 = 0xc0;

/// A segment from the outside client to pod 7, with numbers; whether it arrives.
pub(crate) fn client_says(world: &mut World, flags: u8, sequence: u32, acknowledgement: u32) -> bool {
    let packet = tcp_numbered(CLIENT, SERVER, flags, sequence, acknowledgement, b"");
    let sent = world.exchange("eth0", &to_node(CLIENT_MAC, &packet), pod_port(7));
    sent.iter().for_each(|frame| assert_eq!(read(frame).flags, u16::from(flags)));
    sent.len() == 1
}

/// A segment from pod 7 back; whether it arrives.
pub(crate) fn server_says(world: &mut World, flags: u8, sequence: u32, acknowledgement: u32) -> bool {
    let packet = tcp_numbered(SERVER, CLIENT, flags, sequence, acknowledgement, b"");
    let sent = world.exchange(pod_port(7), &from_pod(7, &packet), "eth0");
    sent.iter().for_each(|frame| assert_eq!(read(frame).flags, u16::from(flags)));
    sent.len() == 1
}

/// Opens the connection: the client is at 101, the server at 501.
pub(crate) fn open(world: &mut World) {
    assert!(client_says(world, SYN, 100, 0));
    assert!(server_says(world, SYN | ACK, 500, 101));
    assert!(client_says(world, ACK, 101, 501));
    assert_eq!(states(world), [TcpState::Established]);
}

/// States of all TCP flows.
pub(crate) fn states(world: &World) -> Vec<TcpState> {
    let flows = world.workers[0].pipeline.flows();
    let pairs = (0..flows.capacity() as u32).filter_map(|pair| flows.pair(pair));
    pairs
        .map(|(first, second)| {
            assert_eq!(first.value.state, second.value.state, "both directions are in the same state");
            TcpState::from_number(first.value.state)
        })
        .collect()
}

#[test]
fn connection_opens_carries_data_and_closes() {
    let mut world = World::new(&reference());
    open(&mut world);
    for number in 0..10 {
        let data = tcp_numbered(CLIENT, SERVER, ACK | PUSH, 101 + number * 4, 501, b"data");
        let sent = world.exchange("eth0", &to_node(CLIENT_MAC, &data), pod_port(7));
        assert_eq!(read(&sent[0]).payload, b"data");
        assert!(server_says(&mut world, ACK, 501, 105 + number * 4));
    }
    assert_eq!(states(&world), [TcpState::Established]);
    for (from_client, flags, state) in [
        (true, FIN | ACK, TcpState::FinWait),
        (false, ACK, TcpState::CloseWait),
        (false, FIN | ACK, TcpState::LastAck),
        (true, ACK, TcpState::TimeWait),
    ] {
        let says = if from_client { client_says } else { server_says };
        assert!(says(&mut world, flags, if from_client { 141 } else { 501 }, 501));
        assert_eq!(states(&world), [state]);
    }
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 27, transmitted 27");
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsReopened)), (1, 0));
    world.assert_balanced();
}

#[test]
fn simultaneous_open_and_close_pass() {
    let mut world = World::new(&reference());
    assert!(client_says(&mut world, SYN, 100, 0) && server_says(&mut world, SYN, 500, 0));
    assert_eq!(states(&world), [TcpState::SynSent2]);
    assert!(client_says(&mut world, SYN | ACK, 100, 501) && server_says(&mut world, SYN | ACK, 500, 101));
    assert!(client_says(&mut world, ACK, 101, 501));
    assert_eq!(states(&world), [TcpState::Established]);
    assert!(client_says(&mut world, FIN | ACK, 101, 501) && server_says(&mut world, FIN | ACK, 501, 101));
    assert!(client_says(&mut world, ACK, 102, 502) && server_says(&mut world, ACK, 502, 102));
    assert_eq!(states(&world), [TcpState::TimeWait]);
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Flags that mean nothing (tcp_valid_flags in nf_conntrack_proto_tcp.c), and those that need a connection.
#[test]
fn what_starts_no_connection_is_invalid() {
    let mut world = World::new(&reference());
    let nothing = [
        0,
        FIN,
        PUSH,
        URGENT,
        SYN | FIN,
        SYN | RST,
        SYN | FIN | ACK,
        FIN | RST | ACK,
        FIN | PUSH | URGENT,
        SYN | ACK | URGENT,
        0x3f,
    ];
    let answers = [SYN | ACK, FIN | ACK, RST, RST | ACK];
    for flags in nothing.into_iter().chain(answers) {
        assert!(!client_says(&mut world, flags, 100, 1), "{flags:02x}");
    }
    let count = (nothing.len() + answers.len()) as u64;
    world.assert_drops(&[("tcp_invalid", count)]);
    assert_eq!(world.tracked(), 0);
    // To a service neither, and no backend is drawn for it.
    world.send(pod_port(7), &from_pod(7, &tcp("172.30.76.7:1", "10.254.116.224:50051", SYN | ACK, b"")));
    world.turn();
    world.assert_drops(&[("tcp_invalid", count + 1)]);
    // Meaningless flags do not pass within a connection, and do not move it.
    open(&mut world);
    for flags in nothing {
        assert!(!client_says(&mut world, flags, 101, 501), "{flags:02x}");
        assert!(!server_says(&mut world, flags, 501, 101), "{flags:02x}");
    }
    assert_eq!(states(&world), [TcpState::Established]);
    world.assert_balanced();
    // What is odd and right passes.
    let mut world = World::new(&reference());
    assert!(client_says(&mut world, SYN | ECN_SETUP, 100, 0));
    assert!(server_says(&mut world, SYN | ACK | 0x40, 500, 101));
    assert!(client_says(&mut world, ACK | PUSH | URGENT, 101, 501));
    assert!(client_says(&mut world, FIN | ACK | PUSH | URGENT, 101, 501));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn connection_in_the_middle_is_picked_up() {
    let mut world = World::new(&reference());
    assert!(client_says(&mut world, ACK, 1_000, 2_000));
    assert_eq!(states(&world), [TcpState::Established]);
    assert!(
        server_says(&mut world, ACK | PUSH, 2_000, 1_000) && client_says(&mut world, FIN | ACK, 1_000, 2_001)
    );
    assert_eq!(states(&world), [TcpState::FinWait]);
    world.assert_drops(&[]);
    assert_eq!(world.gauge(Gauge::FlowsCreated), 1);
    world.assert_balanced();
}

/// The largest window there is, since scales are not followed (RFC 7323, section 2.3).
const WINDOW: u32 = 1 << 30;

#[test]
fn reset_outside_the_window_does_not_end_the_flow() {
    let mut world = World::new(&reference());
    open(&mut world);
    // Passed on, for the receiver to answer it (RFC 5961, section 3.2); believed by nobody.
    for sequence in [100, 101u32.wrapping_sub(WINDOW), 102 + WINDOW, 0x8000_0000] {
        assert!(client_says(&mut world, RST, sequence, 0), "{sequence}");
    }
    assert!(server_says(&mut world, RST | ACK, 500, 10_101));
    assert_eq!(states(&world), [TcpState::Established]);
    // Nor do such resets' numbers count: the next right one ends the flow.
    assert!(client_says(&mut world, RST | ACK, 101, 501));
    assert_eq!(states(&world), [TcpState::Close]);
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn reset_inside_the_window_ends_the_flow() {
    for (from_client, sequence) in [(true, 101), (true, 101 + 64_000), (false, 501)] {
        let mut world = World::new(&reference());
        open(&mut world);
        let says = if from_client { client_says } else { server_says };
        assert!(says(&mut world, RST, sequence, 0));
        assert_eq!(states(&world), [TcpState::Close]);
        world.assert_drops(&[]);
        world.assert_balanced();
    }
    // A refusal: the SYN has announced no acknowledgement yet.
    let mut world = World::new(&reference());
    assert!(client_says(&mut world, SYN, 100, 0) && server_says(&mut world, RST | ACK, 0, 101));
    assert_eq!(states(&world), [TcpState::Close]);
    world.assert_balanced();
}

/// Client's and server's steps from open to TIME_WAIT.
fn close(world: &mut World) {
    assert!(client_says(world, FIN | ACK, 101, 501) && server_says(world, FIN | ACK, 501, 102));
    assert!(client_says(world, ACK, 102, 502));
    assert_eq!(states(world), [TcpState::TimeWait]);
}

#[test]
fn closed_connection_is_opened_anew_from_either_side() {
    let mut world = World::new(&reference());
    open(&mut world);
    close(&mut world);
    assert!(client_says(&mut world, SYN, 9_000, 0));
    assert_eq!((states(&world), world.gauge(Gauge::FlowsReopened)), (vec![TcpState::SynSent], 1));
    assert!(server_says(&mut world, SYN | ACK, 70, 9_001) && client_says(&mut world, ACK, 9_001, 71));
    assert_eq!(states(&world), [TcpState::Established]);
    assert!(client_says(&mut world, FIN | ACK, 9_001, 71) && server_says(&mut world, FIN | ACK, 71, 9_002));
    assert!(client_says(&mut world, ACK, 9_002, 72));
    // Now the server is the one who calls: it is the originator of the new connection, and a pod that calls outside is
    // masqueraded.
    let call = tcp_numbered(SERVER, CLIENT, SYN, 400, 0, b"");
    let seen = read(&world.exchange(pod_port(7), &from_pod(7, &call), "eth0")[0]);
    assert_eq!((states(&world), world.gauge(Gauge::FlowsReopened)), (vec![TcpState::SynSent], 2));
    assert_eq!((seen.source, seen.to()), (ip("192.168.0.21"), CLIENT.to_owned()));
    let answer = tcp_numbered(CLIENT, &seen.from(), SYN | ACK, 800, 401, b"");
    let back = read(&world.exchange("eth0", &to_node(CLIENT_MAC, &answer), pod_port(7))[0]);
    assert_eq!((back.from(), back.to()), (CLIENT.to_owned(), SERVER.to_owned()));
    assert!(server_says(&mut world, ACK, 401, 801));
    assert_eq!(states(&world), [TcpState::Established]);
    assert_eq!((world.tracked(), world.gauge(Gauge::FlowsCreated)), (1, 3));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// An answer that comes late does not open a connection: the closed flow stays as it is.
#[test]
fn late_answer_opens_nothing() {
    let mut world = World::new(&reference());
    open(&mut world);
    close(&mut world);
    assert!(!client_says(&mut world, SYN | ACK, 100, 501));
    assert!(server_says(&mut world, SYN | ACK, 500, 101), "ignored: for the client to judge");
    assert_eq!(states(&world), [TcpState::TimeWait]);
    world.assert_drops(&[("tcp_invalid", 1)]);
    assert_eq!((world.gauge(Gauge::FlowsCreated), world.gauge(Gauge::FlowsReopened)), (1, 0));
    world.assert_balanced();
}

const SERVICE: &str = "10.254.116.224:50051";

/// A segment of pod 7 to the service: the backend that it goes to.
fn backend_of(world: &mut World, source_port: u16, flags: u8) -> String {
    let packet = tcp(&format!("172.30.76.7:{source_port}"), SERVICE, flags, b"");
    world.send(pod_port(7), &from_pod(7, &packet));
    world.turn();
    let mut seen: Vec<Seen> =
        [5, 3].into_iter().flat_map(|last| world.sent(pod_port(last))).map(|frame| read(&frame)).collect();
    seen.extend(world.sent("eth0").iter().map(|frame| read_tunnel(frame).2));
    assert_eq!(seen.len(), 1, "{:?}", world.drops());
    seen[0].to()
}

fn answer_of(world: &mut World, backend: &str, source_port: u16, flags: u8) {
    let packet = tcp(backend, &format!("172.30.76.7:{source_port}"), flags, b"");
    let (port, frame) = if backend.starts_with("172.30.9.") {
        ("eth0", from_tunnel(&packet))
    } else {
        (pod_port(5), from_pod(5, &packet))
    };
    let back = world.exchange(port, &frame, pod_port(7));
    assert_eq!(read(&back[0]).from(), SERVICE);
}

#[test]
fn connection_that_is_opened_anew_draws_a_backend_anew() {
    let mut world = World::new(&reference());
    let mut moved = 0;
    for source_port in 40_000..40_030 {
        let backend = backend_of(&mut world, source_port, SYN);
        assert_eq!(backend_of(&mut world, source_port, SYN), backend, "sent again it goes to the same");
        answer_of(&mut world, &backend, source_port, SYN | ACK);
        for (from_client, flags) in [(true, ACK), (true, FIN | ACK), (false, FIN | ACK), (true, ACK)] {
            if from_client {
                assert_eq!(backend_of(&mut world, source_port, flags), backend);
            } else {
                answer_of(&mut world, &backend, source_port, flags);
            }
        }
        let next = backend_of(&mut world, source_port, SYN);
        answer_of(&mut world, &next, source_port, SYN | ACK);
        moved += u32::from(next != backend);
    }
    assert!((10..=29).contains(&moved), "two of three would move: {moved} of 30");
    assert_eq!((world.gauge(Gauge::FlowsReopened), world.tracked()), (30, 30));
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn both_directions_are_one_pair() {
    let mut world = World::new(&reference());
    open(&mut world);
    let flows = world.workers[0].pipeline.flows();
    let (first, second) = (flows.entry(EntryId(0)), flows.entry(EntryId(1)));
    assert_eq!(first.key.reversed(), second.key);
    world.assert_balanced();
}
