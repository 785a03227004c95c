//! The kinds, in the order in which they are counted. Each function counts the kinds of one scene.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what is not as it should be must not be counted"
)]

mod choice;
mod edges;
mod operations;
mod overlay;
mod pods;
mod protocols;
mod scene;
mod stages;
mod tcp;
mod workers;

use crate::meter::Meter;

/// Runs all of them.
pub(crate) fn run_all() {
    let mut meter = Meter::default();
    scene::port_and_loop(&mut meter);
    overlay::udp_flows(&mut meter);
    overlay::full_table(&mut meter);
    choice::remembered_and_hashed(&mut meter);
    tcp::connections(&mut meter);
    protocols::others(&mut meter);
    protocols::errors(&mut meter);
    pods::services(&mut meter);
    pods::bridge(&mut meter);
    edges::answers(&mut meter);
    edges::drops(&mut meter);
    edges::expiry(&mut meter);
    workers::strays(&mut meter);
    stages::batches(&mut meter);
    stages::decisions(&mut meter);
    operations::tables_and_routes(&mut meter);
    operations::writing(&mut meter);
}
