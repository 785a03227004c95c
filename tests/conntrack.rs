//! Connection tracking on the reference cluster: states, timeouts, errors about flows, full tables, checksums.

mod support;

#[path = "conntrack/checksums.rs"]
mod checksums;
#[path = "conntrack/errors.rs"]
mod errors;
#[path = "conntrack/pressure.rs"]
mod pressure;
#[path = "conntrack/stateless.rs"]
mod stateless;
#[path = "conntrack/tcp.rs"]
mod tcp;
#[path = "conntrack/timeouts.rs"]
mod timeouts;
