//! Health, both ways: load balancers ask this gateway which services have endpoints here (`node_port_server`), and the
//! gateway asks backends whether they serve (`checker`). Both talk through the host's own stack, each on one thread.
//!
//! Neither knows of tables or packets: what is wanted is an argument, and what was found is an event or an answer.

pub mod check_state;
pub mod checker;
mod http_head;
mod node_port_answer;
mod node_port_connection;
pub mod node_port_server;
mod node_port_thread;
mod poll_thread;
mod probe;
mod schedule;
#[cfg(test)]
mod testing;

pub use checker::{CheckTarget, Checker, CheckerCounters, CheckerError, HealthEvent, TargetStatus};
pub use node_port_server::{
    HealthNodePort, HealthNodePortCounters, HealthNodePortError, HealthNodePortStatus, HealthNodePorts,
};
pub use probe::ProbeFailure;
