//! What `pollgate show` can ask for, and how each answer is gathered from what the gateway's threads have written.
//!
//! An answer is a table: rows of named fields, which programs get as they are and people as columns.

mod conntrack;
mod forwarding;
mod packets;
mod services;

pub use packets::counters_text;
pub(crate) use packets::report;

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::control::view::View;
use crate::report::aligned;

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Service ports with their traffic.
    Services,
    /// Backends of services, with weights and traffic.
    Backends,
    /// Routes, the gateway's own addresses among them.
    Routes,
    /// Next hops, learned and configured.
    Neighbours,
    /// Stations of the bridge, and VTEPs of the overlay.
    Fdb,
    /// Tracked flows, as their owners have them.
    Conntrack,
    /// Ports, their devices and counters.
    Ports,
    /// Workers: where they run and how busy they are.
    Workers,
    /// Packets that were dropped, by worker, stage and reason.
    Drops,
    /// Everything that is counted, in one.
    Counters,
}

/// Which rows are wanted. What is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Flows of this protocol: `tcp`, `udp`, `icmp`, `sctp`, or its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Flows with this address at either end, before or after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Flows with this port at either end, before or after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Flows, services or backends of this service: `name`, `namespace/name` or `namespace/name:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Rows at the most. Flows: 1,000 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Also drops that never happened.
    pub all: bool,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What to show.
    pub show: What,
    /// Which rows.
    #[serde(default)]
    pub filter: Filter,
    /// As text for people instead of rows for programs.
    #[serde(default)]
    pub text: bool,
}

impl What {
    /// Names of the filters that mean something here.
    pub fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Conntrack => &["protocol", "address", "port", "service", "limit"],
            Self::Services | Self::Backends => &["service", "limit"],
            Self::Drops => &["all", "limit"],
            Self::Counters => &[],
            _ => &["limit"],
        }
    }
}

impl Filter {
    /// The first filter that is given and means nothing for `what`.
    pub fn superfluous(&self, what: What) -> Option<&'static str> {
        let given = [
            ("protocol", self.protocol.is_some()),
            ("address", self.address.is_some()),
            ("port", self.port.is_some()),
            ("service", self.service.is_some()),
            ("limit", self.limit.is_some()),
            ("all", self.all),
        ];
        given
            .into_iter()
            .find(|(name, is_given)| *is_given && !what.filters().contains(name))
            .map(|(name, _)| name)
    }
}

/// Rows, and which of their fields people see under which title.
pub(crate) struct Table {
    /// Title and field.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Objects.
    pub(crate) rows: Vec<Value>,
    /// Whether there may be more.
    pub(crate) truncated: bool,
}

impl Table {
    pub(crate) fn new(columns: &'static [(&'static str, &'static str)], rows: Vec<Value>) -> Self {
        Self { columns, rows, truncated: false }
    }

    fn limited(mut self, limit: Option<usize>) -> Self {
        if let Some(limit) = limit.filter(|limit| *limit < self.rows.len()) {
            self.rows.truncate(limit);
            self.truncated = true;
        }
        self
    }

    fn text(&self) -> String {
        let titles: Vec<&str> = self.columns.iter().map(|(title, _)| *title).collect();
        let cells = |row: &Value| self.columns.iter().map(|(_, field)| cell(&row[*field])).collect();
        let mut text = aligned(&titles, &self.rows.iter().map(cells).collect::<Vec<Vec<String>>>());
        if self.truncated {
            text += &format!("{} shown, and there are more: see --limit\n", self.rows.len());
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The fields of a row that is written as a structure, to add others to.
pub(crate) fn fields(row: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(row) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Answers a request, or says why not.
pub fn answer(view: &View, request: &Request) -> Result<Value, String> {
    if let Some(name) = request.filter.superfluous(request.show) {
        return Err(format!("the filter `{name}` means nothing here"));
    }
    let filter = &request.filter;
    let table = match request.show {
        What::Services => services::services(view, filter),
        What::Backends => services::backends(view, filter),
        What::Routes => forwarding::routes(view),
        What::Neighbours => forwarding::neighbours(view),
        What::Fdb => forwarding::fdb(view),
        What::Conntrack => conntrack::conntrack(view, filter)?,
        What::Ports => packets::ports(view),
        What::Workers => packets::workers(view),
        What::Drops => packets::drops(view, filter.all),
        What::Counters if request.text => return Ok(json!({ "text": counters_text(view) })),
        What::Counters => return Ok(json!({ "show": What::Counters, "counters": packets::counters(view) })),
    };
    let table = if request.show == What::Conntrack { table } else { table.limited(filter.limit) };
    if request.text {
        return Ok(json!({ "text": table.text() }));
    }
    Ok(json!({ "show": request.show, "rows": table.rows, "truncated": table.truncated }))
}

#[cfg(test)]
mod tests;
