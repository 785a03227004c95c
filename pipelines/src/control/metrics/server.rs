//! Answers `GET /metrics`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tiny_http::{Header, Method, Request, Response, Server};
use tracing::{debug, info};

use super::collector;
use crate::control::view::View;

/// OpenMetrics' media type (its specification, section "Content Type").
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no metrics server.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be had.
    #[error("cannot answer metrics on {address}: {source}; free it, or change `[metrics] listen`")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server did not start.
    #[error("the metrics server did not start: {0}")]
    Start(String),
}

/// An address that is ours, and where nobody answers yet.
pub struct MetricsListener {
    listener: TcpListener,
}

impl MetricsListener {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let listener = TcpListener::bind(address).map_err(|source| MetricsError::Bind { address, source })?;
        Ok(Self { listener })
    }
}

/// The server. Dropping it ends it.
pub struct MetricsServer {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Answers whoever asks.
    pub fn start(listener: MetricsListener, view: &Arc<View>) -> Result<Self, MetricsError> {
        let server = Server::from_listener(listener.listener, None)
            .map_err(|error| MetricsError::Start(error.to_string()))?;
        let server = Arc::new(server);
        let (requests, view) = (Arc::clone(&server), Arc::clone(view));
        let serve = move || {
            for request in requests.incoming_requests() {
                answer(request, &view);
            }
        };
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(serve)
            .map_err(|error| MetricsError::Start(error.to_string()))?;
        info!(address = %server.server_addr(), "metrics are answered");
        Ok(Self { server, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.server_addr().to_ip()
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.server.unblock();
        // It ends with its requests.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(request: Request, view: &Arc<View>) {
    let path = request.url().split('?').next().unwrap_or_default().to_owned();
    let is_read = matches!(request.method(), Method::Get | Method::Head);
    let response = match path.as_str() {
        _ if !is_read => Response::from_string("only GET is answered\n").with_status_code(405),
        "/metrics" => match collector::encode(view) {
            Ok(text) => with_type(Response::from_string(text)),
            Err(_) => Response::from_string("the metrics could not be written\n").with_status_code(500),
        },
        "/" => Response::from_string("Pollgate. Its metrics are at /metrics.\n"),
        _ => Response::from_string("nothing here; metrics are at /metrics\n").with_status_code(404),
    };
    if let Err(error) = request.respond(response) {
        debug!(%error, "whoever asked for metrics went away");
    }
}

fn with_type(response: Response<std::io::Cursor<Vec<u8>>>) -> Response<std::io::Cursor<Vec<u8>>> {
    match Header::from_bytes("Content-Type", CONTENT_TYPE) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}
