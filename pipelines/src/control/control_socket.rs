//! The control socket: one request and one reply a connection, each one line of JSON.
//!
//! Only the gateway's user may connect (mode 0600). Nothing that comes by it changes the gateway.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::warn;

use crate::control::live_trace::{self, LiveTraceError, TraceRequest};
use crate::control::show::{self, Request};
use crate::control::view::View;

/// Longest request.
const REQUEST_LENGTH_MAX: u64 = 16 << 10;
/// How long a client may take to send its request, and to take its reply.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// How long `show` waits for the reply: the workers may take 20 seconds to list their flows.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are answered side by side; others are told to come again.
const CONNECTIONS_MAX: usize = 8;
/// How often the server looks whether it should stop.
const ACCEPT_TICK: Duration = Duration::from_millis(200);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Someone answers there.
    #[error("another gateway answers at {}: stop it, or give this one another `[control] socket`", .0.display())]
    InUse(PathBuf),
    /// There is something else.
    #[error("{} is there and is no socket: move it away, or give another `[control] socket`", .0.display())]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A socket that clients can connect to, and that nobody answers yet. Dropping it removes its file.
pub struct BoundSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the socket's file in the end.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Someone else may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl BoundSocket {
    /// Makes the socket, and its folder; takes the place of one that a gateway left behind.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                use std::os::unix::fs::FileTypeExt;
                let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
                if !kind.is_socket() {
                    return Err(SocketError::NoSocket(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener: with_timeout(listener, ACCEPT_TICK).map_err(failed)?, file })
    }
}

/// A receive timeout bounds accept() too (socket(7), SO_RCVTIMEO), which has no other bound; the standard library sets
/// it for streams alone, and both are the same to the system.
fn with_timeout(listener: UnixListener, timeout: Duration) -> io::Result<UnixListener> {
    let stream = UnixStream::from(OwnedFd::from(listener));
    stream.set_read_timeout(Some(timeout))?;
    Ok(UnixListener::from(OwnedFd::from(stream)))
}

/// The server. Dropping it ends it.
pub struct ControlSocket {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _file: SocketFile,
}

impl ControlSocket {
    /// Answers whoever connects.
    pub fn start(socket: BoundSocket, view: &Arc<View>) -> Result<Self, SocketError> {
        let BoundSocket { listener, file } = socket;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, view) = (Arc::clone(&stop), Arc::clone(view));
        let thread = std::thread::Builder::new()
            .name("control-socket".to_owned())
            .spawn(move || serve(&listener, &view, &flag))
            .map_err(|source| SocketError::Io { path: file.0.clone(), source })?;
        Ok(Self { stop, thread: Some(thread), _file: file })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Connections have their bounds, so this ends.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn serve(listener: &UnixListener, view: &View, stop: &AtomicBool) {
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    // Out of descriptors, for one: others may free some.
                    warn!(%error, "the control socket cannot accept");
                    std::thread::sleep(ACCEPT_TICK);
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                reply(&stream, &json!({ "error": "too many requests at once: try again" }));
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = &open;
            scope.spawn(move || {
                reply(&stream, &answer(&stream, view));
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// What may be asked.
enum Asked {
    Show(Request),
    Trace(TraceRequest),
}

fn answer(stream: &UnixStream, view: &View) -> Value {
    let answered = read_request(stream).and_then(|request| match request {
        Asked::Show(request) => show::answer(view, &request).map_err(Refusal::of_gateway),
        Asked::Trace(request) => live_trace::answer(view, &request).map_err(|error| Refusal {
            is_question: matches!(error, LiveTraceError::Question(_)),
            reason: error.to_string(),
        }),
    });
    answered.unwrap_or_else(|Refusal { reason, is_question }| {
        json!({ "error": reason, "in": if is_question { "question" } else { "gateway" } })
    })
}

/// Why there is no answer.
struct Refusal {
    reason: String,
    /// What was asked makes no sense here; another question may.
    is_question: bool,
}

impl Refusal {
    fn of_gateway(reason: String) -> Self {
        Self { reason, is_question: false }
    }
}

fn read_request(stream: &UnixStream) -> Result<Asked, Refusal> {
    let failed = |error: io::Error| Refusal::of_gateway(format!("the request cannot be read: {error}"));
    stream.set_read_timeout(Some(CLIENT_PATIENCE)).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_LENGTH_MAX)).read_line(&mut line).map_err(failed)?;
    understood(&line).map_err(|error| Refusal::of_gateway(format!("the request is not understood: {error}")))
}

fn understood(line: &str) -> serde_json::Result<Asked> {
    let request: Value = serde_json::from_str(line)?;
    Ok(match request.get("trace") {
        Some(_) => Asked::Trace(serde_json::from_value(request)?),
        None => Asked::Show(serde_json::from_value(request)?),
    })
}

fn reply(mut stream: &UnixStream, reply: &Value) {
    let mut line = reply.to_string();
    line.push('\n');
    // A client that goes away, or does not read, has no need of the reply.
    let _ = stream.set_write_timeout(Some(CLIENT_PATIENCE)).and_then(|()| stream.write_all(line.as_bytes()));
}

/// Why a gateway gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("no gateway answers at {}: is `pollgate run` running with this `[control] socket`?", .0.display())]
    NoGateway(PathBuf),
    /// The socket cannot be used.
    #[error("cannot ask the gateway at {}: {source}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The answer did not come.
    #[error("the gateway at {} did not answer: {source}", socket.display())]
    Exchange {
        /// Where.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The answer is none: perhaps another version's.
    #[error("the reply of {} is not understood: {source}", socket.display())]
    Reply {
        /// Where.
        socket: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What was asked makes no sense there.
    #[error("{0}")]
    Question(String),
    /// The gateway has no answer.
    #[error("{0}")]
    Refused(String),
}

/// Asks the gateway at `socket`, and gives its reply.
pub fn ask(socket: &Path, request: &impl Serialize) -> Result<Value, AskError> {
    let at = || socket.to_owned();
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoGateway(at()),
        _ => AskError::Connect { socket: at(), source },
    })?;
    let exchange = || -> io::Result<String> {
        stream.set_read_timeout(Some(REPLY_PATIENCE))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        (&stream).write_all(line.as_bytes())?;
        let mut reply = String::new();
        (&stream).read_to_string(&mut reply)?;
        Ok(reply)
    };
    let reply = exchange().map_err(|source| AskError::Exchange { socket: at(), source })?;
    let reply: Value =
        serde_json::from_str(&reply).map_err(|source| AskError::Reply { socket: at(), source })?;
    match reply.get("error").and_then(Value::as_str) {
        Some(error) if reply["in"] == "question" => Err(AskError::Question(error.to_owned())),
        Some(error) => Err(AskError::Refused(error.to_owned())),
        None => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::show::{Filter, What};
    use crate::control::testing::start;

    /// Sends `line` and gives what comes back.
    fn exchange(socket: &Path, line: &str) -> String {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn requests_are_answered_in_one_line_and_wrong_ones_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("made/control.sock");
        let (gateway, _) = start(&folder.path().join("a.toml"));
        let server =
            ControlSocket::start(BoundSocket::bind(&socket).unwrap(), gateway.running.view()).unwrap();
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let reply = exchange(&socket, "{\"show\":\"routes\"}\n");
        assert_eq!((reply.matches('\n').count(), reply.starts_with("{\"rows\":[")), (1, true), "{reply}");
        for (request, expected) in [
            ("nonsense\n", "the request is not understood"),
            ("{\"show\":\"weather\"}\n", "unknown variant `weather`"),
            ("{\"show\":\"routes\",\"filter\":{\"color\":1}}\n", "unknown field `color`"),
            ("{\"show\":\"routes\",\"filter\":{\"port\":1}}\n", "the filter `port` means nothing here"),
            ("{\"show\":\"conntrack\",\"filter\":{\"protocol\":\"x\"}}\n", "`x` is no protocol"),
        ] {
            let reply: Value = serde_json::from_str(&exchange(&socket, request)).unwrap();
            let error = reply["error"].as_str().unwrap();
            assert!(error.contains(expected), "{error}");
        }
        let long = format!("{{\"show\":\"{}\"}}\n", "x".repeat(REQUEST_LENGTH_MAX as usize));
        let mut stream = UnixStream::connect(&socket).unwrap();
        // The server stops reading, so the rest may find nobody.
        let _ = stream.write_all(long.as_bytes());
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        assert!(reply.is_empty() || reply.contains("not understood"), "{reply}");

        let request = Request { show: What::Workers, filter: Filter::default(), text: true };
        assert!(ask(&socket, &request).unwrap()["text"].as_str().unwrap().starts_with("worker  core"));
        drop(server);
        assert!(!socket.exists());
        assert!(ask(&socket, &request).unwrap_err().to_string().contains("no gateway answers"));
        assert_eq!(gateway.running.stop().lost_threads, 0);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_anything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        // Closed without its file being removed, as after a crash.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let bound = BoundSocket::bind(&socket).unwrap();
        assert!(matches!(BoundSocket::bind(&socket), Err(SocketError::InUse(path)) if path == socket));
        drop(bound);
        std::fs::write(&socket, "precious").unwrap();
        assert!(matches!(BoundSocket::bind(&socket), Err(SocketError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    }
}
