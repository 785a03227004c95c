//! Sections about the node and the machine that the gateway runs on: `[node]`, `[dpdk]`, `[workers]`, `[control]`,
//! `[metrics]`, `[exception]`, `[conntrack]`.

use core::ops::RangeInclusive;

use engine::wire::ethernet::MacAddress;

use crate::control::config::draft::{Control, Exception, Node, Workers};
use crate::control::config::model::{self, DpdkMemory, Idle};
use crate::control::config::notes::At;
use crate::control::config::reader::Table;
use crate::control::config::values::{AnyPath, Device};

/// More cores than any machine has.
const CORES: RangeInclusive<u64> = 0..=1023;
/// Packets that wait in a ring.
const RING: RangeInclusive<u64> = 64..=65_536;
/// One second to one year.
const TIMEOUT_S: RangeInclusive<u64> = 1..=31_536_000;
/// The gateway's own end of the link to the host: locally administered, "pg" in ASCII.
const EXCEPTION_MAC: MacAddress = MacAddress([0x02, 0x70, 0x67, 0x00, 0x00, 0x01]);

pub(super) fn node(table: &Table<'_>) -> Node {
    let node = Node {
        name: table.with_default("name", String::new()),
        addresses: table.list("addresses"),
        primary_addresses: table.list("primary_addresses"),
    };
    for (key, list) in [("addresses", &node.addresses), ("primary_addresses", &node.primary_addresses)] {
        for (place, address) in list.iter().enumerate() {
            if list.iter().take(place).any(|earlier| earlier.value == address.value) {
                let wrong = format!("`{key}` has {} twice", address.value);
                table.notes().error(address.offset, wrong, "remove one");
            }
        }
    }
    if table.notes().all_read(&["node"]) {
        for address in &node.primary_addresses {
            if !node.addresses.iter().any(|own| own.value == address.value) {
                let wrong = format!("primary address {} is not in `addresses`", address.value);
                table.notes().error(address.offset, wrong, "add it there, or remove it here");
            }
        }
    }
    node
}

pub(super) fn dpdk(table: &Table<'_>) -> Option<model::Dpdk> {
    let memory = table.with_default("memory", DpdkMemory::Auto);
    let buffers = table.optional_integer("buffers", 1_024..=16_777_216);
    let arguments = table.list::<String>("extra_arguments");
    Some(model::Dpdk {
        memory: memory?.value,
        buffers: buffers.map(|buffers| buffers.value),
        extra_arguments: arguments.into_iter().map(|argument| argument.value).collect(),
    })
}

pub(super) fn workers(table: &Table<'_>) -> Workers {
    let cores = table.integers("cores", CORES);
    let idle = table.with_default("idle", Idle::Sleep);
    let idle_sleep_max_us = table.integer("idle_sleep_max_us", 1..=1_000_000, 500);
    // The upper end is `engine::port::BURST`.
    let burst = table.integer("burst", 1..=32, 32);
    let handoff_ring = table.integer("handoff_ring", RING, 1_024);
    let queue_descriptors = table.integer::<u16>("queue_descriptors", 64..=8_192, 512);
    if let Some(At { value, offset }) = queue_descriptors.filter(|count| !count.value.is_power_of_two()) {
        let next = value.next_power_of_two();
        let wrong = format!("`queue_descriptors` is {value}, which is no power of two");
        table.notes().error(
            offset,
            wrong,
            format!("devices want powers of two: write {next} or {}", next / 2),
        );
    }
    let rest = || {
        Some(model::Workers {
            cores: Vec::new(),
            idle: idle?.value,
            idle_sleep_max_us: idle_sleep_max_us?.value,
            burst: burst?.value,
            handoff_ring: handoff_ring?.value,
            queue_descriptors: queue_descriptors?.value,
        })
    };
    Workers { rest: rest(), cores }
}

pub(super) fn control(table: &Table<'_>) -> Control {
    let cores = table.integers("cores", CORES);
    let socket = table.optional("socket");
    let watch = table.with_default("watch", true);
    let manifests = table.optional::<AnyPath>("manifests");
    let rest = watch.map(|watch| model::Control {
        cores: Vec::new(),
        socket: socket.map(|socket| socket.value),
        watch: watch.value,
        manifests: manifests.map(|manifests| manifests.value.0),
    });
    Control { cores, rest }
}

pub(super) fn metrics(table: &Table<'_>) -> Option<model::Metrics> {
    let listen = table.required::<core::net::SocketAddr>("listen", "\"127.0.0.1:9106\"")?;
    if listen.value.port() == 0 {
        table.notes().warning(
            listen.offset,
            "port 0 makes the metrics server listen on any free port",
            "write a fixed port, so that Prometheus finds it",
        );
    }
    Some(model::Metrics { listen: listen.value })
}

pub(super) fn exception(table: &Table<'_>) -> Exception {
    let device =
        table.required::<Device>("device", "\"net_tap9,iface=pg-host\"").map(|at| at.map(|device| device.0));
    if let Some(At { value, offset }) = device.as_ref().filter(|device| !device.value.starts_with("net_tap"))
    {
        table.notes().warning(
            *offset,
            format!("the way to the host is `{value}`, which is no TAP interface"),
            "write a TAP vdev, as in \"net_tap9,iface=pg-host\": nothing else has been tried",
        );
    }
    Exception {
        device,
        mac: table.with_default("mac", EXCEPTION_MAC),
        rate_pps: table.integer("rate_pps", 1..=10_000_000, 10_000),
        ring: table.integer("ring", RING, 512),
    }
}

pub(super) fn conntrack(table: &Table<'_>) -> Option<model::Conntrack> {
    let capacity = table.integer("capacity", 64..=67_108_864, 65_536);
    let timeout = |key, default| table.integer::<u32>(key, TIMEOUT_S, default).map(|seconds| seconds.value);
    // All are read before the first that is missing ends this.
    let [syn_sent, syn_received, established, fin_wait, close_wait, last_ack, time_wait, close] = [
        timeout("tcp_syn_sent_s", 120),
        timeout("tcp_syn_received_s", 60),
        timeout("tcp_established_s", 86_400),
        timeout("tcp_fin_wait_s", 120),
        timeout("tcp_close_wait_s", 3_600),
        timeout("tcp_last_ack_s", 30),
        timeout("tcp_time_wait_s", 120),
        timeout("tcp_close_s", 10),
    ];
    let [udp, udp_stream, icmp, generic] = [
        timeout("udp_s", 30),
        timeout("udp_stream_s", 120),
        timeout("icmp_s", 30),
        timeout("generic_s", 600),
    ];
    Some(model::Conntrack {
        capacity: capacity?.value,
        tcp_syn_sent_s: syn_sent?,
        tcp_syn_received_s: syn_received?,
        tcp_established_s: established?,
        tcp_fin_wait_s: fin_wait?,
        tcp_close_wait_s: close_wait?,
        tcp_last_ack_s: last_ack?,
        tcp_time_wait_s: time_wait?,
        tcp_close_s: close?,
        udp_s: udp?,
        udp_stream_s: udp_stream?,
        icmp_s: icmp?,
        generic_s: generic?,
    })
}
