//! Counters as metric families: read from the threads' own counters when somebody asks, and kept nowhere else.

use core::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::families::{FAMILIES, Family, Kind, Snapshot};
use super::sources;
use crate::control::view::View;

fn all() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().chain(sources::FAMILIES)
}

/// Labels of one sample.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

/// Where a family puts its samples.
pub(super) struct Samples<'s> {
    encoder: MetricEncoder<'s>,
    kind: Kind,
}

impl Samples<'_> {
    /// Adds a sample.
    pub(super) fn add(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        if labels.is_empty() {
            return write(&mut self.encoder, self.kind, value);
        }
        write(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }
}

fn write(encoder: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>),
        Kind::Gauge => encoder.encode_gauge(&value),
    }
}

struct ViewCollector(Arc<View>);

impl fmt::Debug for ViewCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ViewCollector")
    }
}

impl Collector for ViewCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = Snapshot::new(&self.0);
        for family in all() {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            (family.write)(&snapshot, &mut Samples { encoder, kind: family.kind })?;
        }
        Ok(())
    }
}

/// All families as text, in the OpenMetrics format.
pub fn encode(view: &Arc<View>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ViewCollector(Arc::clone(view))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Name and help of every family; counters' samples have `_total` behind the name.
pub fn families() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().map(|family| (family.name, family.help))
}
