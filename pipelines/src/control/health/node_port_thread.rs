//! The thread that answers on all health check node ports.
//!
//! **Invariant:** it never waits for one client. Clients beyond [`CONNECTIONS_MAX`] take the place of those that have
//! been there longest, so that somebody who only holds connections cannot keep a load balancer out: one that sends its
//! request at once is always answered before its turn to give way comes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Token};
use tracing::debug;

use super::node_port_connection::{Connection, Progress};
use super::node_port_server::Shared;
use super::poll_thread::Sockets;
use crate::control::view::lock;

/// Clients at the most, on all ports together.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// How long a client may stay, from its first packet to its last.
pub(super) const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);
/// Clients accepted on one port before others get their turn. Fewer than [`CONNECTIONS_MAX`]: what was accepted in one
/// turn is looked at before the next.
const ACCEPTED_A_TURN: usize = 64;
/// How long a port rests that cannot accept: descriptors are used up, for one, and somebody may free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until its owner ends it.
pub(super) fn run(sockets: Sockets, shared: Arc<Shared>) {
    let mut server = Server { sockets, shared, clients: BTreeMap::new(), again: BTreeMap::new() };
    while server.turn() {}
}

struct Server {
    sockets: Sockets,
    shared: Arc<Shared>,
    /// With the time when they must be gone. Tokens count up and all have the same patience, so the first is the one
    /// that has been there longest and must be gone soonest.
    clients: BTreeMap<Token, (Instant, Connection)>,
    /// Ports that may have more to accept, and when to look.
    again: BTreeMap<Token, Instant>,
}

impl Server {
    /// Waits, and does what there is to do; false when it shall end.
    fn turn(&mut self) -> bool {
        let first_client = self.clients.first_key_value().map(|(_, (end, _))| *end);
        let next = self.again.values().copied().chain(first_client).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        let Some(ready) = self.sockets.wait(timeout) else { return false };
        // Clients first: an accepted one may have to give way to the next.
        for token in &ready {
            self.advance(*token);
        }
        let now = Instant::now();
        self.again
            .extend(ready.iter().filter(|token| self.shared.is_listener(**token)).map(|token| (*token, now)));
        let due: Vec<Token> =
            self.again.iter().filter(|(_, at)| **at <= now).map(|(token, _)| *token).collect();
        for token in due {
            self.again.remove(&token);
            self.accept(token, now);
        }
        self.end_late_clients(now);
        true
    }

    fn advance(&mut self, token: Token) {
        if let Some((_, client)) = self.clients.get_mut(&token)
            && client.advance(&self.shared) == Progress::Ended
        {
            self.clients.remove(&token);
        }
    }

    fn accept(&mut self, listener: Token, now: Instant) {
        for _ in 0..ACCEPTED_A_TURN {
            match self.shared.accept(listener) {
                // Closed in the meantime.
                None => return,
                Some(Ok(client)) => self.admit(client, now),
                Some(Err(error)) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    // One client's matter; others may wait behind it (accept(2)).
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        debug!(%error, "a health check node port cannot accept");
                        lock(&self.shared.counters).accept_errors += 1;
                        self.again.insert(listener, now + ACCEPT_PAUSE);
                        return;
                    }
                },
            }
        }
        self.again.insert(listener, now);
    }

    fn admit(&mut self, mut client: Connection, now: Instant) {
        let token = self.shared.token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.sockets.registry().register(client.stream_mut(), token, interest).is_err() {
            lock(&self.shared.counters).accept_errors += 1;
            return;
        }
        if self.clients.len() >= CONNECTIONS_MAX
            && let Some((_, (_, longest))) = self.clients.pop_first()
            && !longest.is_answered()
        {
            lock(&self.shared.counters).evicted += 1;
        }
        self.clients.insert(token, (now + CONNECTION_PATIENCE, client));
    }

    fn end_late_clients(&mut self, now: Instant) {
        while let Some(first) = self.clients.first_entry().filter(|first| first.get().0 <= now) {
            let (_, client) = first.remove();
            if !client.is_answered() {
                lock(&self.shared.counters).timed_out += 1;
            }
        }
    }
}
