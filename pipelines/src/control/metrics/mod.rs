//! Metrics over HTTP: what the threads have counted, read when somebody asks.
//!
//! docs/metrics.md lists every family; a test compares.

mod collector;
mod families;
mod server;
mod sources;

pub use collector::{encode, families};
pub use server::{MetricsError, MetricsListener, MetricsServer};

#[cfg(test)]
mod tests;
