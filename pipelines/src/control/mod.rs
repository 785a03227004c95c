//! The control side: configuration, sources, building tables, and the threads around the workers.

pub mod build;
pub mod config;
pub mod control_loop;
pub mod control_socket;
pub mod cores;
#[cfg(feature = "dpdk")]
mod devices;
pub mod events;
pub mod flow_questions;
pub mod health;
pub mod health_watch;
pub mod host_link;
pub mod kubernetes;
pub mod live_trace;
pub mod metrics;
pub mod nodes;
pub mod reload;
pub mod running;
#[cfg(feature = "dpdk")]
pub mod runtime;
pub mod services;
pub mod show;
pub mod signals;
pub mod slots;
pub mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
pub mod watch;
pub mod worker_threads;
