//! Health check node ports: where a load balancer asks whether a service of `externalTrafficPolicy: Local` has
//! endpoints on this node, after kube-proxy's pkg/proxy/healthcheck/service_health.go.
//!
//! The host's own stack listens, on the gateway's own addresses; one thread answers on all ports. It starts with the
//! first port that is wanted, so that a gateway without such services has none.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use tracing::info;

use super::node_port_connection::Connection;
use super::node_port_thread;
use super::poll_thread::PollThread;
use crate::control::view::lock;

/// Ports at the most.
pub const HEALTH_NODE_PORTS_MAX: usize = 256;

/// One service's health check node port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNodePort {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// Its ready endpoints on this node.
    pub local_endpoints: usize,
}

impl HealthNodePort {
    fn service(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn is_of_same_service(&self, other: &Self) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

/// Why a service's health is not answered. Nothing else suffers from it, and each [`HealthNodePorts::apply`] tries again.
#[derive(Debug, thiserror::Error)]
pub enum HealthNodePortError {
    /// The address cannot be had.
    #[error(
        "service {service}: cannot answer health checks on {address}: {source}; give the host that address, free the \
         port, or give the service another healthCheckNodePort"
    )]
    Bind {
        /// Namespace and name.
        service: String,
        /// Which address and port.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// Another service has the port.
    #[error(
        "service {service}: health check node port {port} is that of service {holder}; give one of them another"
    )]
    Taken {
        /// Namespace and name.
        service: String,
        /// Which port.
        port: u16,
        /// Whose it is.
        holder: String,
    },
    /// Port 0 is none.
    #[error("service {service}: 0 is no health check node port; give it one of the node port range")]
    NoPort {
        /// Namespace and name.
        service: String,
    },
    /// There are too many.
    #[error(
        "service {service}: no health check node port beyond the first {HEALTH_NODE_PORTS_MAX} is opened"
    )]
    TooMany {
        /// Namespace and name.
        service: String,
    },
    /// The thread did not start.
    #[error("health check node ports are not answered: {0}; raise the limits on descriptors or threads")]
    Start(#[source] io::Error),
}

/// What happened on all ports since the gateway started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthNodePortCounters {
    /// Answers with status 200.
    pub answered_ok: u64,
    /// Answers with status 503.
    pub answered_unavailable: u64,
    /// Clients told that what they sent is no request, or too long a one.
    pub refused_requests: u64,
    /// Clients that were not answered within 5 seconds.
    pub timed_out: u64,
    /// Clients that gave way to others before they had sent a request.
    pub evicted: u64,
    /// Times that a client could not be accepted.
    pub accept_errors: u64,
    /// Errors that [`HealthNodePorts::apply`] returned.
    pub apply_errors: u64,
}

/// One port as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNodePortStatus {
    /// Which port and service, and its local endpoints.
    pub port: HealthNodePort,
    /// Addresses that it is answered on.
    pub addresses: Vec<Ipv4Addr>,
    /// Answers since it was opened.
    pub answers: u64,
}

/// What the answers of one port depend on; its listeners and clients share it.
pub(super) struct PortState {
    pub(super) port: Mutex<HealthNodePort>,
    /// Cleared when the port is closed: clients still connected are not answered any more.
    pub(super) is_open: AtomicBool,
    pub(super) answers: AtomicU64,
}

struct Listener {
    socket: TcpListener,
    state: Arc<PortState>,
}

/// What the thread and its owner share.
pub(super) struct Shared {
    listeners: Mutex<HashMap<Token, Listener>>,
    pub(super) counters: Mutex<HealthNodePortCounters>,
    pub(super) is_proxy_healthy: AtomicBool,
    next_token: AtomicUsize,
}

impl Shared {
    /// A token that nobody had before.
    pub(super) fn token(&self) -> Token {
        Token(self.next_token.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a port is open by this token.
    pub(super) fn is_listener(&self, token: Token) -> bool {
        lock(&self.listeners).contains_key(&token)
    }

    /// The next client of a port; none when it is closed.
    pub(super) fn accept(&self, token: Token) -> Option<io::Result<Connection>> {
        let listeners = lock(&self.listeners);
        let listener = listeners.get(&token)?;
        // Without waiting: the socket never blocks.
        let accepted = listener.socket.accept();
        Some(accepted.map(|(stream, _)| Connection::new(stream, Arc::clone(&listener.state))))
    }

    fn listen(
        &self,
        address: SocketAddrV4,
        state: &Arc<PortState>,
        registry: &Registry,
    ) -> io::Result<Token> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpListener::from_std(socket);
        let token = self.token();
        // Held until the thread can find the listener: it may be told of a client at once, and only once.
        let mut listeners = lock(&self.listeners);
        registry.register(&mut socket, token, Interest::READABLE)?;
        listeners.insert(token, Listener { socket, state: Arc::clone(state) });
        Ok(token)
    }
}

struct OpenPort {
    state: Arc<PortState>,
    listeners: BTreeMap<Ipv4Addr, Token>,
}

/// All health check node ports. Dropping it closes them.
pub struct HealthNodePorts {
    addresses: Vec<Ipv4Addr>,
    ports: BTreeMap<u16, OpenPort>,
    shared: Arc<Shared>,
    thread: Option<PollThread>,
}

impl HealthNodePorts {
    /// None yet; those to come are answered on these addresses.
    pub fn new(bind_addresses: Vec<Ipv4Addr>) -> Self {
        let shared = Arc::new(Shared {
            listeners: Mutex::default(),
            counters: Mutex::default(),
            is_proxy_healthy: AtomicBool::new(true),
            next_token: AtomicUsize::new(0),
        });
        Self { addresses: bind_addresses, ports: BTreeMap::new(), shared, thread: None }
    }

    /// Other addresses, from the next [`Self::apply`] on.
    pub fn set_bind_addresses(&mut self, bind_addresses: Vec<Ipv4Addr>) {
        self.addresses = bind_addresses;
    }

    /// Whether the gateway itself is well: while it is not, every port answers 503, and says so in
    /// `serviceProxyHealthy`. True at first.
    pub fn set_proxy_healthy(&self, is_healthy: bool) {
        self.shared.is_proxy_healthy.store(is_healthy, Ordering::Relaxed);
    }

    /// Opens, closes and updates ports so that they are the wanted ones. What goes wrong is returned and tried again by
    /// the next call, which may have the same ports. A port that is open stays so, whichever place it has among the
    /// wanted ones.
    pub fn apply(&mut self, wanted: &[HealthNodePort]) -> Vec<HealthNodePortError> {
        let mut errors = Vec::new();
        let wanted = self.choose(wanted, &mut errors);
        self.close_others(&wanted);
        if !wanted.is_empty() {
            match self.registry() {
                Ok(registry) => wanted.values().for_each(|port| self.open(port, &registry, &mut errors)),
                Err(error) => errors.push(HealthNodePortError::Start(error)),
            }
        }
        lock(&self.shared.counters).apply_errors += errors.len() as u64;
        errors
    }

    /// Every port that is wanted and could be opened on one address at least.
    pub fn statuses(&self) -> Vec<HealthNodePortStatus> {
        let open = self.ports.values().filter(|open| !open.listeners.is_empty());
        open.map(|open| HealthNodePortStatus {
            port: lock(&open.state.port).clone(),
            addresses: open.listeners.keys().copied().collect(),
            answers: open.state.answers.load(Ordering::Relaxed),
        })
        .collect()
    }

    /// What happened on all ports.
    pub fn counters(&self) -> HealthNodePortCounters {
        *lock(&self.shared.counters)
    }

    /// One service for each port, and no more ports than there may be. Whoever has a port keeps it.
    fn choose<'w>(
        &self,
        wanted: &'w [HealthNodePort],
        errors: &mut Vec<HealthNodePortError>,
    ) -> BTreeMap<u16, &'w HealthNodePort> {
        let has_it = |wanted: &HealthNodePort| {
            let open = self.ports.get(&wanted.port).filter(|open| !open.listeners.is_empty());
            open.is_some_and(|open| lock(&open.state.port).is_of_same_service(wanted))
        };
        let (have, have_not): (Vec<_>, Vec<_>) = wanted.iter().partition(|wanted| has_it(wanted));
        let mut chosen: BTreeMap<u16, &HealthNodePort> = BTreeMap::new();
        for port in have.into_iter().chain(have_not) {
            let service = port.service();
            match chosen.get(&port.port) {
                _ if port.port == 0 => errors.push(HealthNodePortError::NoPort { service }),
                Some(holder) => {
                    let holder = holder.service();
                    errors.push(HealthNodePortError::Taken { service, port: port.port, holder });
                }
                None if chosen.len() >= HEALTH_NODE_PORTS_MAX => {
                    errors.push(HealthNodePortError::TooMany { service });
                }
                None => {
                    chosen.insert(port.port, port);
                }
            }
        }
        chosen
    }

    fn close_others(&mut self, wanted: &BTreeMap<u16, &HealthNodePort>) {
        let mut listeners = lock(&self.shared.listeners);
        self.ports.retain(|number, open| {
            let is_wanted = wanted.contains_key(number);
            open.listeners.retain(|address, token| {
                let stays = is_wanted && self.addresses.contains(address);
                if !stays {
                    listeners.remove(token);
                }
                stays
            });
            if !is_wanted {
                open.state.is_open.store(false, Ordering::Relaxed);
                info!(
                    port = number,
                    service = lock(&open.state.port).service(),
                    "health checks are answered no more"
                );
            }
            is_wanted
        });
    }

    fn open(&mut self, port: &HealthNodePort, registry: &Registry, errors: &mut Vec<HealthNodePortError>) {
        let open = self.ports.entry(port.port).or_insert_with(|| OpenPort {
            state: Arc::new(PortState {
                port: Mutex::new(port.clone()),
                is_open: AtomicBool::new(true),
                answers: AtomicU64::new(0),
            }),
            listeners: BTreeMap::new(),
        });
        port.clone_into(&mut lock(&open.state.port));
        for address in &self.addresses {
            if open.listeners.contains_key(address) {
                continue;
            }
            let socket = SocketAddrV4::new(*address, port.port);
            match self.shared.listen(socket, &open.state, registry) {
                Ok(token) => {
                    info!(address = %socket, service = port.service(), "health checks are answered");
                    open.listeners.insert(*address, token);
                }
                Err(source) => {
                    let service = port.service();
                    errors.push(HealthNodePortError::Bind { service, address: socket, source });
                }
            }
        }
    }

    /// The registry of the thread, which is started when there is none.
    fn registry(&mut self) -> io::Result<Registry> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => {
                let shared = Arc::clone(&self.shared);
                PollThread::start("health-ports", move |sockets| node_port_thread::run(sockets, shared))?
            }
        };
        self.thread.insert(thread).registry().try_clone()
    }
}

#[cfg(test)]
mod tests;
