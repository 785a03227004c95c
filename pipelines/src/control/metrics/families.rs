//! Every metric family: its name, kind, meaning, and where its samples come from.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use engine::counters::Account;
use engine::worker::PORT_COUNTERS;

use super::collector::{Labels, Samples};
use crate::control::host_link::HostCounter;
use crate::control::show;
use crate::control::view::{DeviceStatistics, View};
use crate::drop_reason::{REASON_COUNT, describe};
use crate::gateway::Gauge;
use crate::report::{Report, Traffic};

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) write: fn(&Snapshot<'_>, &mut Samples<'_>) -> fmt::Result,
}

/// What all families of one answer are written from.
pub(super) struct Snapshot<'v> {
    pub(super) view: &'v View,
    report: Report,
}

impl<'v> Snapshot<'v> {
    pub(super) fn new(view: &'v View) -> Self {
        Self { view, report: show::report(view) }
    }

    fn each_worker(
        &self,
        mut write: impl FnMut(&str, &crate::control::view::WorkerView) -> fmt::Result,
    ) -> fmt::Result {
        self.view
            .workers
            .iter()
            .enumerate()
            .try_for_each(|(number, worker)| write(&number.to_string(), worker))
    }

    fn gauge(&self, gauge: Gauge, samples: &mut Samples<'_>) -> fmt::Result {
        self.each_worker(|number, worker| {
            samples.add(&[("worker", number)], worker.gauges.get(gauge as usize))
        })
    }

    fn turns(&self, place: usize, samples: &mut Samples<'_>) -> fmt::Result {
        self.each_worker(|number, worker| {
            samples.add(&[("worker", number)], worker.counters.turns.get(place))
        })
    }

    /// `places` of [`PORT_COUNTERS`], towards the gateway and out of it.
    fn ports(&self, places: [usize; 2], samples: &mut Samples<'_>) -> fmt::Result {
        self.each_worker(|number, worker| {
            for (port, shown) in self.view.ports.iter().enumerate() {
                for (place, direction) in places.into_iter().zip(["received", "transmitted"]) {
                    let labels =
                        [("worker", number), ("port", shown.name.as_str()), ("direction", direction)];
                    samples.add(&labels, worker.counters.ports.get(port * PORT_COUNTERS.len() + place))?;
                }
            }
            Ok(())
        })
    }

    fn each_service(
        &self,
        mut write: impl FnMut(Labels<'_>, &crate::report::ServiceReport) -> fmt::Result,
    ) -> fmt::Result {
        self.report.services.iter().try_for_each(|service| {
            let labels = [
                ("namespace", service.namespace.as_str()),
                ("service", service.name.as_str()),
                ("port", &service.port.to_string()),
                ("protocol", service.protocol),
            ];
            write(&labels, service)
        })
    }

    fn each_backend(
        &self,
        mut write: impl FnMut(Labels<'_>, &crate::report::BackendReport) -> fmt::Result,
    ) -> fmt::Result {
        self.each_service(|labels, service| {
            service.backends.iter().try_for_each(|backend| {
                let address = format!("{}:{}", backend.address, backend.port);
                write(&[labels, &[("backend", address.as_str())]].concat(), backend)
            })
        })
    }
}

fn directions(labels: Labels<'_>, traffic: [u64; 2], samples: &mut Samples<'_>) -> fmt::Result {
    ["in", "out"].into_iter().zip(traffic).try_for_each(|(direction, value)| {
        samples.add(&[labels, &[("direction", direction)]].concat(), value)
    })
}

fn packets(traffic: &Traffic) -> [u64; 2] {
    [traffic.packets_in, traffic.packets_out]
}

fn bytes(traffic: &Traffic) -> [u64; 2] {
    [traffic.bytes_in, traffic.bytes_out]
}

pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    write: fn(&Snapshot<'_>, &mut Samples<'_>) -> fmt::Result,
) -> Family {
    Family { name, kind: Kind::Counter, help, write }
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    write: fn(&Snapshot<'_>, &mut Samples<'_>) -> fmt::Result,
) -> Family {
    Family { name, kind: Kind::Gauge, help, write }
}

/// All of them, in the order of the answer.
pub(super) const FAMILIES: &[Family] = &[
    gauge("pollgate_info", "Always 1; the labels say what runs.", |snapshot, samples| {
        let node = snapshot.view.node.as_str();
        samples.add(&[("version", env!("CARGO_PKG_VERSION")), ("node", node)], 1)
    }),
    gauge("pollgate_start_time_seconds", "When the gateway started, since 1970.", |snapshot, samples| {
        let since = snapshot.view.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        samples.add(&[], since.as_secs())
    }),
    gauge(
        "pollgate_generation",
        "Generation of the tables that were published last.",
        |snapshot, samples| samples.add(&[], snapshot.report.generation),
    ),
    gauge(
        "pollgate_worker_generation",
        "Generation of the tables that a worker uses.",
        |snapshot, samples| snapshot.gauge(Gauge::Generation, samples),
    ),
    counter(
        "pollgate_reloads",
        "Reloads of the configuration, by what became of them.",
        |snapshot, samples| {
            let reloads = &snapshot.view.reloads;
            samples.add(&[("result", "applied")], reloads.applied.load(Relaxed))?;
            samples.add(&[("result", "failed")], reloads.failed.load(Relaxed))
        },
    ),
    counter(
        "pollgate_packets",
        "Packets by worker and term of the accounting equation.",
        |snapshot, samples| {
            snapshot.each_worker(|number, worker| {
                let terms = Account::ALL.iter().filter(|(account, _)| *account != Account::Held);
                for (account, name) in terms {
                    let value = worker.counters.accounts.get(*account as usize);
                    samples.add(&[("worker", number), ("account", *name)], value)?;
                }
                Ok(())
            })
        },
    ),
    gauge("pollgate_packets_held", "Packets that wait for their next hop's address.", |snapshot, samples| {
        snapshot.each_worker(|number, worker| {
            samples.add(&[("worker", number)], worker.counters.accounts.get(Account::Held as usize))
        })
    }),
    counter("pollgate_drops", "Packets dropped, by worker, stage and reason.", |snapshot, samples| {
        snapshot.each_worker(|number, worker| {
            (0..REASON_COUNT).try_for_each(|code| write_drop(number, code, worker, samples))
        })
    }),
    counter("pollgate_port_packets", "Frames by worker, port and direction.", |snapshot, samples| {
        snapshot.ports([0, 2], samples)
    }),
    counter("pollgate_port_bytes", "Bytes of those frames.", |snapshot, samples| {
        snapshot.ports([1, 3], samples)
    }),
    gauge(
        "pollgate_port_link_up",
        "Whether a port's link is up, where its device says.",
        |snapshot, samples| {
            for port in &snapshot.view.ports {
                if let Some((up, _)) = port.device.link() {
                    samples.add(&[("port", port.name.as_str())], u64::from(up))?;
                }
            }
            Ok(())
        },
    ),
    counter("pollgate_port_device_errors", "What a port's device counts by itself.", |snapshot, samples| {
        for port in &snapshot.view.ports {
            if let Some(statistics) = port.device.statistics() {
                for (kind, value) in device_errors(&statistics) {
                    samples.add(&[("port", port.name.as_str()), ("kind", kind)], value)?;
                }
            }
        }
        Ok(())
    }),
    counter(
        "pollgate_host_packets",
        "Packets of the exception link, by what became of them.",
        |snapshot, samples| {
            let Some(host) = &snapshot.view.host else { return Ok(()) };
            HostCounter::ALL.iter().try_for_each(|(counter, name)| {
                let event = name.trim_start_matches("host_");
                samples.add(&[("event", event)], host.get(*counter as usize))
            })
        },
    ),
    counter("pollgate_worker_turns", "Turns of a worker's loop.", |snapshot, samples| {
        snapshot.turns(0, samples)
    }),
    counter("pollgate_worker_busy_turns", "Turns in which something arrived.", |snapshot, samples| {
        snapshot.turns(1, samples)
    }),
    counter("pollgate_worker_packets", "Packets that arrived in busy turns.", |snapshot, samples| {
        snapshot.turns(2, samples)
    }),
    counter("pollgate_worker_sleeps", "Times a worker slept since nothing arrived.", |snapshot, samples| {
        snapshot.turns(3, samples)
    }),
    gauge("pollgate_flows", "Flows tracked now.", |snapshot, samples| snapshot.gauge(Gauge::Flows, samples)),
    gauge("pollgate_flow_capacity", "Flows tracked at the most.", |snapshot, samples| {
        snapshot.each_worker(|number, worker| samples.add(&[("worker", number)], worker.flow_capacity as u64))
    }),
    counter("pollgate_flows_created", "Flows created.", |snapshot, samples| {
        snapshot.gauge(Gauge::FlowsCreated, samples)
    }),
    counter("pollgate_flows_expired", "Flows that ended by timeout.", |snapshot, samples| {
        snapshot.gauge(Gauge::FlowsExpired, samples)
    }),
    counter("pollgate_flows_evicted", "Flows that made place for others.", |snapshot, samples| {
        snapshot.gauge(Gauge::FlowsEvicted, samples)
    }),
    counter("pollgate_flows_reopened", "Closed connections that were opened anew.", |snapshot, samples| {
        snapshot.gauge(Gauge::FlowsReopened, samples)
    }),
    counter(
        "pollgate_packets_stateless",
        "Packets sent on without a flow, since the table was full.",
        |snapshot, samples| snapshot.gauge(Gauge::PacketsStateless, samples),
    ),
    counter(
        "pollgate_flows_ended",
        "Flows that changes of services ended: the backend gone, or a service in its destination's place.",
        |snapshot, samples| snapshot.gauge(Gauge::FlowsEnded, samples),
    ),
    gauge(
        "pollgate_swept_generation",
        "Every flow of a worker was looked at with tables of this generation or a later one.",
        |snapshot, samples| snapshot.gauge(Gauge::SweptGeneration, samples),
    ),
    counter(
        "pollgate_events_lost",
        "Events for the neighbour machine that found no place.",
        |snapshot, samples| snapshot.gauge(Gauge::EventsLost, samples),
    ),
    counter("pollgate_neighbour_requests", "ARP requests sent.", |snapshot, samples| {
        snapshot.gauge(Gauge::NeighbourRequests, samples)
    }),
    counter("pollgate_service_connections", "Connections that a service took.", |snapshot, samples| {
        snapshot.each_service(|labels, service| samples.add(labels, service.traffic.connections))
    }),
    counter(
        "pollgate_service_refused",
        "Connections refused since a service had no backend.",
        |snapshot, samples| snapshot.each_service(|labels, service| samples.add(labels, service.refused)),
    ),
    counter("pollgate_service_packets", "Packets to and from a service's backends.", |snapshot, samples| {
        snapshot.each_service(|labels, service| directions(labels, packets(&service.traffic), samples))
    }),
    counter("pollgate_service_bytes", "Bytes of those packets, IP headers included.", |snapshot, samples| {
        snapshot.each_service(|labels, service| directions(labels, bytes(&service.traffic), samples))
    }),
    gauge(
        "pollgate_backend_weight",
        "A backend's share of new connections; 0 drains.",
        |snapshot, samples| {
            snapshot.each_backend(|labels, backend| samples.add(labels, u64::from(backend.weight)))
        },
    ),
    counter("pollgate_backend_connections", "Connections that went to a backend.", |snapshot, samples| {
        snapshot.each_backend(|labels, backend| samples.add(labels, backend.traffic.connections))
    }),
    counter("pollgate_backend_packets", "Packets to and from a backend.", |snapshot, samples| {
        snapshot.each_backend(|labels, backend| directions(labels, packets(&backend.traffic), samples))
    }),
    counter("pollgate_backend_bytes", "Bytes of those packets, IP headers included.", |snapshot, samples| {
        snapshot.each_backend(|labels, backend| directions(labels, bytes(&backend.traffic), samples))
    }),
];

fn write_drop(
    number: &str,
    code: usize,
    worker: &crate::control::view::WorkerView,
    samples: &mut Samples<'_>,
) -> fmt::Result {
    let (stage, reason, _) = describe(code as u16);
    if reason == "reserved" {
        return Ok(());
    }
    let labels = [("worker", number), ("stage", stage), ("reason", reason)];
    samples.add(&labels, worker.counters.drops.get(code))
}

fn device_errors(statistics: &DeviceStatistics) -> [(&'static str, u64); 4] {
    [
        ("receive_missed", statistics.receive_missed),
        ("receive_errors", statistics.receive_errors),
        ("receive_no_buffer", statistics.receive_no_buffer),
        ("transmit_errors", statistics.transmit_errors),
    ]
}
