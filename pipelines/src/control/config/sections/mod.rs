//! The sections of the file: which keys each has, what each value may be, and the defaults. Checks that need one
//! section alone are here too; those between sections are in `relations`.

mod machine;
mod network;
mod services;

use super::draft::Draft;
use super::reader::Table;

/// Reads the whole file.
pub(crate) fn read(file: &Table<'_>) -> Draft {
    Draft {
        node: file.section_or_empty("node", machine::node),
        dpdk: file.section_or_empty("dpdk", machine::dpdk),
        workers: file.section_or_empty("workers", machine::workers),
        control: file.section_or_empty("control", machine::control),
        metrics: file.section("metrics", machine::metrics).flatten(),
        ports: file.each("ports", network::port),
        exception: file.section("exception", machine::exception),
        bridge: file.section("bridge", network::bridge),
        overlay: file.section("overlay", network::overlay),
        routes: file.each("routes", network::route),
        neighbours: file.each("neighbours", network::neighbour),
        fdb: file.each("fdb", network::fdb),
        conntrack: file.section_or_empty("conntrack", machine::conntrack),
        settings: file.section_or_empty("services", services::settings),
        services: file.each("service", services::service),
    }
}
