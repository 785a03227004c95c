//! Offers a gateway flows and connections, and checks every packet that comes back.
//!
//! A [`scenario::Scenario`] says who talks to whom through what. A [`runner::Runner`] makes trials of it: a
//! [`traffic::Traffic`] (datagrams or connections) makes packets from templates and checks those that return, a
//! [`session::Session`] moves them at a rate between it and the ports. [`search`] and [`nat`] decide which trials to make.
//! Ports, time and buffers are arguments, so all of it runs in tests without a device.

pub mod address;
pub mod binding;
pub mod cli;
pub mod config;
pub mod connection;
pub mod datagram;
pub mod defect;
pub mod device;
pub mod fault;
pub mod gateway_config;
pub mod ideal;
mod judge;
pub mod latency;
pub mod link;
pub mod nat;
pub mod outbox;
pub mod pace;
pub mod plan;
pub mod received;
pub mod runner;
pub mod scenario;
pub mod script;
pub mod search;
pub mod sequence;
pub mod session;
pub mod sizes;
pub mod tag;
pub mod tally;
pub mod template;
#[cfg(test)]
mod testing;
pub mod traffic;
pub mod trial;
