//! Services and backends.

use serde_json::{Value, json};

use super::packets::report;
use super::{Filter, Table, fields};
use crate::control::view::View;
use crate::report::ServiceReport;

const SERVICE_COLUMNS: &[(&str, &str)] = &[
    ("service", "title"),
    ("address", "address"),
    ("port", "port"),
    ("protocol", "protocol"),
    ("node port", "node_port"),
    ("backends", "backend_count"),
    ("connections", "connections"),
    ("refused", "refused"),
    ("packets in", "packets_in"),
    ("bytes in", "bytes_in"),
    ("packets out", "packets_out"),
    ("bytes out", "bytes_out"),
];

const BACKEND_COLUMNS: &[(&str, &str)] = &[
    ("service", "service"),
    ("address", "address"),
    ("port", "port"),
    ("weight", "weight"),
    ("state", "state"),
    ("connections", "connections"),
    ("packets in", "packets_in"),
    ("bytes in", "bytes_in"),
    ("packets out", "packets_out"),
    ("bytes out", "bytes_out"),
];

/// `namespace/name:port`.
fn title(service: &ServiceReport) -> String {
    if service.port_name.is_empty() {
        format!("{}/{}", service.namespace, service.name)
    } else {
        format!("{}/{}:{}", service.namespace, service.name, service.port_name)
    }
}

/// Whether `wanted` (`name`, `namespace/name` or `namespace/name:port`) names the service with this title.
pub(super) fn is_named(title: &str, wanted: &str) -> bool {
    let service = title.split(':').next().unwrap_or_default();
    let name = service.rsplit('/').next().unwrap_or_default();
    [title, service, name].contains(&wanted)
}

fn wanted(view: &View, filter: &Filter) -> impl Iterator<Item = (String, ServiceReport)> {
    let wanted = filter.service.clone();
    report(view)
        .services
        .into_iter()
        .map(|service| (title(&service), service))
        .filter(move |(title, _)| wanted.as_deref().is_none_or(|wanted| is_named(title, wanted)))
}

pub(super) fn services(view: &View, filter: &Filter) -> Table {
    let rows = wanted(view, filter).map(|(title, service)| {
        let mut row = fields(&service);
        row.insert("title".to_owned(), title.into());
        row.insert("backend_count".to_owned(), service.backends.len().into());
        Value::Object(row)
    });
    Table::new(SERVICE_COLUMNS, rows.collect())
}

pub(super) fn backends(view: &View, filter: &Filter) -> Table {
    let mut rows = Vec::new();
    for (title, service) in wanted(view, filter) {
        for backend in &service.backends {
            let mut row = fields(backend);
            row.insert("service".to_owned(), json!(title));
            row.insert("protocol".to_owned(), json!(service.protocol));
            row.insert("state".to_owned(), json!(if backend.weight == 0 { "draining" } else { "active" }));
            rows.push(Value::Object(row));
        }
        // Those that may still have connections but take no new one, and those that never took any, with why.
        for endpoint in &service.left_out {
            let mut row = fields(endpoint);
            let reason = row.remove("reason").unwrap_or_default();
            row.extend([
                ("service".to_owned(), json!(title)),
                ("protocol".to_owned(), json!(service.protocol)),
                ("state".to_owned(), reason),
            ]);
            rows.push(Value::Object(row));
        }
    }
    Table::new(BACKEND_COLUMNS, rows)
}
