//! The report as tables for people.

use core::fmt;

use super::{Accounting, Report, ServiceReport, Traffic};

/// Lines of a table whose columns line up: numbers to the right, the rest to the left, two spaces between.
pub fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &str| !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
    let columns = header.len();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column)).map(String::as_str);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            cells(column).chain([header[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|column| {
            cells(column).next().is_some() && cells(column).all(|cell| cell == "-" || is_number(cell))
        })
        .collect();
    let mut text = String::new();
    let mut line = |row: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, cell) in row.take(columns).enumerate() {
            let (width, gap) = (widths[column], if column == 0 { "" } else { "  " });
            line += &if numeric[column] {
                format!("{gap}{cell:>width$}")
            } else {
                format!("{gap}{cell:<width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

impl fmt::Display for Accounting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = self.terms().map(|(name, value)| format!("{name} {value}"));
        let (come, gone) = terms.split_at(4);
        write!(formatter, "{}\n  = {}\n", come.join(" + "), gone.join(" + "))?;
        formatter.write_str(if self.balanced {
            "  balanced: every packet is accounted for"
        } else {
            "  not balanced: the workers were read while packets moved, or this is a defect"
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Packets (tables of generation {})\n  {}", self.generation, self.accounting)?;
        section(formatter, "Ports", &self.ports_table())?;
        section(formatter, "Drops", &self.drops_table())?;
        section(formatter, "Services", &self.services_table())?;
        section(formatter, "Workers", &self.workers_table())
    }
}

fn section(formatter: &mut fmt::Formatter<'_>, title: &str, table: &str) -> fmt::Result {
    writeln!(formatter, "\n{title}")?;
    if table.lines().count() < 2 {
        return writeln!(formatter, "  none");
    }
    table.lines().try_for_each(|line| writeln!(formatter, "  {line}"))
}

impl Report {
    /// Ports, as lines that line up.
    pub fn ports_table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .ports
            .iter()
            .map(|port| {
                let counters = [
                    port.received_packets,
                    port.received_bytes,
                    port.transmitted_packets,
                    port.transmitted_bytes,
                ];
                [vec![port.name.clone()], counters.map(|counter| counter.to_string()).to_vec()].concat()
            })
            .collect();
        aligned(&["port", "received", "bytes", "transmitted", "bytes"], &rows)
    }

    /// Drops, as lines that line up.
    pub fn drops_table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .drops
            .iter()
            .map(|drop| {
                vec![
                    drop.packets.to_string(),
                    drop.stage.to_owned(),
                    drop.reason.to_owned(),
                    drop.meaning.to_owned(),
                ]
            })
            .collect();
        aligned(&["packets", "stage", "reason", "meaning"], &rows)
    }

    /// Service ports, each followed by its backends.
    pub fn services_table(&self) -> String {
        let mut rows = Vec::new();
        for service in &self.services {
            rows.push(service_row(service));
            for backend in &service.backends {
                let name = format!("  {}:{}", backend.address, backend.port);
                rows.push(row(name, backend.weight.to_string(), &backend.traffic, "-".to_owned()));
            }
        }
        let header = [
            "service",
            "weight",
            "connections",
            "refused",
            "packets in",
            "bytes in",
            "packets out",
            "bytes out",
        ];
        aligned(&header, &rows)
    }

    /// Workers, as lines that line up.
    pub fn workers_table(&self) -> String {
        let gauges: Vec<&str> = crate::gateway::Gauge::ALL.iter().map(|(_, name)| *name).collect();
        let header = [&["worker", "turns", "busy turns", "packets", "sleeps"][..], &gauges].concat();
        let rows: Vec<Vec<String>> = self
            .workers
            .iter()
            .map(|worker| {
                let counters =
                    [worker.worker as u64, worker.turns, worker.busy_turns, worker.packets, worker.sleeps];
                let gauges = gauges.iter().map(|name| worker.gauges.get(name).copied().unwrap_or_default());
                counters.into_iter().chain(gauges).map(|value| value.to_string()).collect()
            })
            .collect();
        aligned(&header, &rows)
    }
}

fn service_row(service: &ServiceReport) -> Vec<String> {
    let port_name =
        if service.port_name.is_empty() { String::new() } else { format!(":{}", service.port_name) };
    let node_port = service.node_port.map_or(String::new(), |port| format!(", node port {port}"));
    let name = format!(
        "{}/{}{port_name} {}:{}/{}{node_port}",
        service.namespace, service.name, service.address, service.port, service.protocol
    );
    row(name, "-".to_owned(), &service.traffic, service.refused.to_string())
}

fn row(name: String, weight: String, traffic: &Traffic, refused: String) -> Vec<String> {
    let rest = [traffic.packets_in, traffic.bytes_in, traffic.packets_out, traffic.bytes_out];
    [
        vec![name, weight, traffic.connections.to_string(), refused],
        rest.map(|value| value.to_string()).to_vec(),
    ]
    .concat()
}
