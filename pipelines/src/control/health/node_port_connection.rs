//! One client of a health check node port: reads a request, answers it, closes.
//!
//! **Invariant:** whatever a client sends or does not send, it is read from for a bounded number of bytes, and the
//! thread ends it when its time is over.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use mio::net::TcpStream;

use super::http_head::{HEAD_LENGTH_MAX, head_end};
use super::node_port_answer::{Refusal, answer, is_available, read_head, refusal};
use super::node_port_server::{PortState, Shared};
use crate::control::view::lock;

/// Bytes read after the answer, before the connection is closed on a client that does not stop.
const DISCARDED_MAX: usize = 64 << 10;

/// What becomes of a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for the client.
    Waits,
    /// It is done with.
    Ended,
}

enum Phase {
    /// Collects a head; `received` counts what was skipped before it, too.
    Request { head: Vec<u8>, received: usize },
    /// Sends.
    Answer { bytes: Vec<u8>, sent: usize },
    /// Reads what the client still sends: closing on unread bytes would reset the connection, and the answer could be
    /// lost with it (RFC 9112 section 9.6).
    Discard { received: usize },
}

/// A client.
pub(super) struct Connection {
    stream: TcpStream,
    state: Arc<PortState>,
    phase: Phase,
}

impl Connection {
    /// A client that has just come.
    pub(super) fn new(stream: TcpStream, state: Arc<PortState>) -> Self {
        Self { stream, state, phase: Phase::Request { head: Vec::new(), received: 0 } }
    }

    /// The socket, to be registered.
    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the client was answered.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Discard { .. })
    }

    /// Does what can be done without waiting.
    pub(super) fn advance(&mut self, shared: &Shared) -> Progress {
        loop {
            let step = match &mut self.phase {
                Phase::Request { .. } => self.read_request(shared),
                Phase::Answer { .. } => self.write_answer(),
                Phase::Discard { .. } => self.discard(),
            };
            match step {
                Ok(Progress::Waits) => {}
                Ok(Progress::Ended) => return Progress::Ended,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The client has gone.
                Err(_) => return Progress::Ended,
            }
        }
    }

    fn read_request(&mut self, shared: &Shared) -> std::io::Result<Progress> {
        let Phase::Request { head, received } = &mut self.phase else { return Ok(Progress::Waits) };
        let mut chunk = [0; 1024];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(Progress::Ended);
        }
        *received += count;
        let bytes = chunk.get(..count).unwrap_or_default();
        // Empty lines before a request are no part of it (RFC 9112 section 2.2).
        let skipped = match head.is_empty() {
            true => bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count(),
            false => 0,
        };
        let seen = head.len().saturating_sub(2);
        head.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
        let request = if head_end(head, seen).is_some() {
            read_head(head)
        } else if *received > HEAD_LENGTH_MAX {
            Err(Refusal::TooLong)
        } else {
            return Ok(Progress::Waits);
        };
        if !self.state.is_open.load(Ordering::Relaxed) {
            return Ok(Progress::Ended);
        }
        let mut counters = lock(&shared.counters);
        let bytes = match request {
            Ok(request) => {
                let port = lock(&self.state.port);
                let is_proxy_healthy = shared.is_proxy_healthy.load(Ordering::Relaxed);
                match is_available(&port, is_proxy_healthy) {
                    true => counters.answered_ok += 1,
                    false => counters.answered_unavailable += 1,
                }
                self.state.answers.fetch_add(1, Ordering::Relaxed);
                answer(&port, is_proxy_healthy, request, SystemTime::now())
            }
            Err(why) => {
                counters.refused_requests += 1;
                refusal(why)
            }
        };
        self.phase = Phase::Answer { bytes, sent: 0 };
        Ok(Progress::Waits)
    }

    fn write_answer(&mut self) -> std::io::Result<Progress> {
        let Phase::Answer { bytes, sent } = &mut self.phase else { return Ok(Progress::Waits) };
        match bytes.get(*sent..) {
            Some(rest) if !rest.is_empty() => *sent += self.stream.write(rest)?,
            _ => {
                self.stream.shutdown(Shutdown::Write)?;
                self.phase = Phase::Discard { received: 0 };
            }
        }
        Ok(Progress::Waits)
    }

    fn discard(&mut self) -> std::io::Result<Progress> {
        let Phase::Discard { received } = &mut self.phase else { return Ok(Progress::Waits) };
        let count = self.stream.read(&mut [0; 1024])?;
        *received += count;
        let is_over = count == 0 || *received > DISCARDED_MAX;
        Ok(if is_over { Progress::Ended } else { Progress::Waits })
    }
}
