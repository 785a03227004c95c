//! One probe of one backend: connects without waiting, and for HTTP asks and reads the answer's status.
//!
//! What the backend sends is not trusted: a bounded number of bytes is read, and of these the status lines alone.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddrV4;

use mio::net::TcpStream;

use super::http_head::{HEAD_LENGTH_MAX, head_end};
use crate::control::config::model::{HealthCheck, Probe as Question};

/// Why a backend did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The host knows no way, or the backend's network says that it is not there.
    #[error("no way there")]
    Unreachable,
    /// The probe took too long.
    #[error("no answer in time")]
    TimedOut,
    /// It closed or reset the connection before it had answered.
    #[error("closed before it answered")]
    Closed,
    /// It answered with another status.
    #[error("status {0}")]
    Status(u16),
    /// What it answered is no HTTP/1.
    #[error("the answer is no HTTP")]
    NotHttp,
    /// Anything else that the system says.
    #[error("{0}")]
    Other(ErrorKind),
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeEnd {
    /// As it should.
    Passed,
    /// Otherwise.
    Failed(ProbeFailure),
    /// It could not be made, for want of something on this host: that says nothing of the backend.
    NotMade,
}

enum Phase {
    Connects,
    Asks { sent: usize },
    Reads { answer: Vec<u8> },
}

/// A probe that is under way. Dropping it ends it.
pub(super) struct Probe {
    stream: TcpStream,
    /// What is sent; none: connecting is all.
    request: Option<String>,
    /// First and last right status.
    status: (u16, u16),
    phase: Phase,
}

impl Probe {
    /// Begins, or ends at once.
    pub(super) fn start(address: SocketAddrV4, check: &HealthCheck) -> Result<Self, ProbeEnd> {
        let stream = TcpStream::connect(address.into()).map_err(|error| end_of(&error))?;
        // A probe is a flow of the gateway like any other: reset, it leaves the flow table in seconds and no socket
        // waits here for minutes. Kubelet shortens that wait for the same reason (pkg/probe/dialer_others.go).
        engine::socket::reset_on_close(&stream).map_err(|error| end_of(&error))?;
        let (request, status) = match &check.probe {
            Question::Tcp => (None, (0, 0)),
            Question::Http { path, status } => (Some(request(path, address)), *status),
        };
        Ok(Self { stream, request, status, phase: Phase::Connects })
    }

    /// The socket, to be registered.
    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Does what can be done without waiting; none while it is under way.
    pub(super) fn advance(&mut self) -> Option<ProbeEnd> {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(end)) => return Some(end),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(end_of(&error)),
            }
        }
    }

    fn step(&mut self) -> std::io::Result<Option<ProbeEnd>> {
        let request = self.request.as_deref().unwrap_or_default();
        match &mut self.phase {
            Phase::Connects => {
                check_connected(&self.stream)?;
                if self.request.is_none() {
                    return Ok(Some(ProbeEnd::Passed));
                }
                self.phase = Phase::Asks { sent: 0 };
            }
            Phase::Asks { sent } => match request.as_bytes().get(*sent..) {
                Some(rest) if !rest.is_empty() => *sent += self.stream.write(rest)?,
                _ => self.phase = Phase::Reads { answer: Vec::new() },
            },
            Phase::Reads { answer } => {
                let mut chunk = [0; 1024];
                let count = self.stream.read(&mut chunk)?;
                answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
                return Ok(match read_status(answer) {
                    Reply::Status(status) if (self.status.0..=self.status.1).contains(&status) => {
                        Some(ProbeEnd::Passed)
                    }
                    Reply::Status(status) => Some(ProbeEnd::Failed(ProbeFailure::Status(status))),
                    Reply::NotHttp => Some(ProbeEnd::Failed(ProbeFailure::NotHttp)),
                    Reply::Incomplete if count == 0 => Some(ProbeEnd::Failed(ProbeFailure::Closed)),
                    Reply::Incomplete if answer.len() > HEAD_LENGTH_MAX => {
                        Some(ProbeEnd::Failed(ProbeFailure::NotHttp))
                    }
                    Reply::Incomplete => None,
                });
            }
        }
        Ok(None)
    }
}

/// An error while it is not connected: `WouldBlock` while it may still become so.
fn check_connected(stream: &TcpStream) -> std::io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        // Nobody listens, and by chance the system took the backend's port for ours: a host's own address can meet
        // itself so.
        Ok(peer) if stream.local_addr()? == peer => Err(ErrorKind::ConnectionRefused.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotConnected => Err(ErrorKind::WouldBlock.into()),
        Err(error) => Err(error),
    }
}

/// RFC 9112 section 3.
fn request(path: &str, address: SocketAddrV4) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: pollgate/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
}

/// What an error of the system means for a probe.
fn end_of(error: &std::io::Error) -> ProbeEnd {
    // No descriptor, no memory, no port: connect(2) and socket(2).
    const OWN: [i32; 6] =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EAGAIN];
    if error.raw_os_error().is_some_and(|code| OWN.contains(&code)) {
        return ProbeEnd::NotMade;
    }
    ProbeEnd::Failed(match error.kind() {
        ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ProbeFailure::Unreachable,
        ErrorKind::TimedOut => ProbeFailure::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            ProbeFailure::Closed
        }
        other => ProbeFailure::Other(other),
    })
}

/// What an answer says so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Incomplete,
    Status(u16),
    NotHttp,
}

/// The final status (RFC 9112 section 4). Interim answers before it are skipped (RFC 9110 section 15.2).
fn read_status(answer: &[u8]) -> Reply {
    let mut rest = answer;
    loop {
        let status = match read_status_line(rest) {
            Reply::Status(status) => status,
            other => return other,
        };
        // 101 is final: what follows is no HTTP.
        if status >= 200 || status == 101 {
            return Reply::Status(status);
        }
        match head_end(rest, 0).and_then(|end| rest.get(end..)) {
            Some(behind) => rest = behind,
            None => return Reply::Incomplete,
        }
    }
}

fn read_status_line(line: &[u8]) -> Reply {
    // Digits where a # stands, and the end of the status where the last character does.
    const FORM: &[u8; 13] = b"HTTP/1.# ###_";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'#' => byte.is_ascii_digit(),
        b'_' => matches!(byte, b' ' | b'\r' | b'\n'),
        _ => byte == form,
    };
    if !line.iter().zip(FORM).all(fits) {
        return Reply::NotHttp;
    }
    let Some([hundreds, tens, ones]) = line.get(..FORM.len()).and_then(|line| line.get(9..12)) else {
        return Reply::Incomplete;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    match 100 * digit(hundreds) + 10 * digit(tens) + digit(ones) {
        status @ 100..=599 => Reply::Status(status),
        _ => Reply::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_are_read_and_nothing_else() {
        let read = |text: &str| read_status(text.as_bytes());
        assert_eq!(read("HTTP/1.1 200 OK\r\n"), Reply::Status(200));
        assert_eq!(read("HTTP/1.0 503\r\n"), Reply::Status(503));
        assert_eq!(read("HTTP/1.1 204\n"), Reply::Status(204));
        for incomplete in ["", "H", "HTTP/1.", "HTTP/1.1 20", "HTTP/1.1 200"] {
            assert_eq!(read(incomplete), Reply::Incomplete, "{incomplete}");
        }
        for wrong in [
            "SSH-2.0-OpenSSH_9.2",
            "HTTP/2.0 200 OK\r\n",
            "HTTP/1.1  200 OK\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1 20x OK\r\n",
            "HTTP/1.1 099 \r\n",
            "HTTP/1.1 600 \r\n",
            "HTTP/1x1 200 \r\n",
            "HTTP/1.1 200.\r\n",
            "http/1.1 200 OK\r\n",
            " HTTP/1.1 200 OK\r\n",
            "\r\n",
        ] {
            assert_eq!(read(wrong), Reply::NotHttp, "{wrong}");
        }
    }

    #[test]
    fn interim_answers_are_skipped() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        assert_eq!(read_status(interim.as_bytes()), Reply::Incomplete);
        assert_eq!(read_status(format!("{interim}HTTP/1.1 404 ").as_bytes()), Reply::Status(404));
        assert_eq!(read_status(format!("{interim}?").as_bytes()), Reply::NotHttp);
        assert_eq!(read_status(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"), Reply::Incomplete);
        assert_eq!(read_status(b"HTTP/1.1 101 Switching Protocols\r\n"), Reply::Status(101));
    }

    #[test]
    fn what_this_host_lacks_says_nothing_of_the_backend() {
        let end = |code| end_of(&std::io::Error::from_raw_os_error(code));
        assert_eq!(end(libc::EMFILE), ProbeEnd::NotMade);
        assert_eq!(end(libc::EADDRNOTAVAIL), ProbeEnd::NotMade);
        assert_eq!(end(libc::ECONNREFUSED), ProbeEnd::Failed(ProbeFailure::Refused));
        assert_eq!(end(libc::EHOSTUNREACH), ProbeEnd::Failed(ProbeFailure::Unreachable));
        assert_eq!(end(libc::ENETUNREACH), ProbeEnd::Failed(ProbeFailure::Unreachable));
        assert_eq!(end(libc::ETIMEDOUT), ProbeEnd::Failed(ProbeFailure::TimedOut));
        assert_eq!(end(libc::ECONNRESET), ProbeEnd::Failed(ProbeFailure::Closed));
        assert_eq!(end(libc::EACCES), ProbeEnd::Failed(ProbeFailure::Other(ErrorKind::PermissionDenied)));
    }

    /// Nobody listens on an even port of those that connections leave by, which is what Linux takes first for them
    /// (net/ipv4/inet_hashtables.c, `__inet_hash_connect`): sooner or later one of them meets itself.
    #[test]
    fn a_connection_to_itself_is_none() {
        let mut connected = (40_000..50_000u16)
            .step_by(2)
            .cycle()
            .take(1_000_000)
            .filter_map(|port| std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).ok());
        let own =
            connected.find(|stream| stream.local_addr().unwrap() == stream.peer_addr().unwrap()).unwrap();
        own.set_nonblocking(true).unwrap();
        let error = check_connected(&TcpStream::from_std(own)).unwrap_err();
        assert_eq!(end_of(&error), ProbeEnd::Failed(ProbeFailure::Refused));
    }

    proptest! {
        /// More bytes never change what was said, unless it was that some were missing.
        #[test]
        fn what_is_said_stays_said(
            begin in prop::sample::select(vec!["", "HTTP/1.1 ", "HTTP/1.1 100 \r\n\r\n", "HTTP/1.1 200 OK\r\n"]),
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let answer = [begin.as_bytes(), &bytes].concat();
            let mut before = Reply::Incomplete;
            for length in 0..=answer.len() {
                let now = read_status(&answer[..length]);
                prop_assert!(before == Reply::Incomplete || now == before);
                before = now;
            }
        }
    }
}
