//! Keeps health checks and health check node ports in step with what is wanted, and tells the tables what checks say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::control::build::{Builder, node_port_addresses};
use crate::control::config::Configuration;
use crate::control::events::ControlEvent;
use crate::control::health::{CheckTarget, Checker, HealthEvent, HealthNodePort, HealthNodePorts};
use crate::control::services::builder::BackendName;
use crate::control::services::desired::ServiceKey;
use crate::control::view::HealthView;

/// Both kinds of health.
pub struct HealthWatch {
    checker: Checker,
    node_ports: HealthNodePorts,
    /// Backends that are checked, and the number of each.
    names: BTreeMap<BackendName, u64>,
    next_id: u64,
    /// As they were wanted last.
    wanted: Vec<HealthNodePort>,
    /// What went wrong with them, which was said.
    told: Vec<String>,
    /// When those that could not be opened are tried again; none: all are open.
    retry_at: Option<Instant>,
}

/// How long a health check node port that could not be opened is left alone: its address may come later.
const RETRY: Duration = Duration::from_secs(5);

impl HealthWatch {
    /// Nothing is checked yet; what checks say goes to `events`.
    pub fn new(events: Sender<ControlEvent>) -> Self {
        let report = move |event: HealthEvent| {
            // Nobody listens any more when the gateway ends.
            let _ = events.send(ControlEvent::Health { id: event.id, healthy: event.healthy });
        };
        Self {
            checker: Checker::new(report),
            node_ports: HealthNodePorts::new(Vec::new()),
            names: BTreeMap::new(),
            next_id: 0,
            wanted: Vec::new(),
            told: Vec::new(),
            retry_at: None,
        }
    }

    /// Checks the configuration's backends from now on. What is checked no more counts as healthy. True: by that the next
    /// tables differ.
    pub fn follow_configuration(&mut self, configuration: &Configuration, builder: &mut Builder) -> bool {
        let before = core::mem::take(&mut self.names);
        let mut targets = Vec::new();
        for service in &configuration.services {
            for port in &service.ports {
                let Some(check) = &port.health_check else { continue };
                let check = Arc::new(check.clone());
                for backend in &port.backends {
                    let address = core::net::SocketAddrV4::new(backend.address, backend.port);
                    let name = BackendName {
                        service: ServiceKey::new(&service.namespace, &service.name),
                        port_name: port.name.as_str().into(),
                        protocol: port.protocol,
                        address,
                    };
                    let id = before.get(&name).copied().unwrap_or_else(|| {
                        self.next_id += 1;
                        self.next_id
                    });
                    targets.push(CheckTarget {
                        id,
                        address: check.target(address),
                        check: Arc::clone(&check),
                    });
                    self.names.insert(name, id);
                }
            }
        }
        let mut is_news = false;
        for name in before.into_keys().filter(|name| !self.names.contains_key(name)) {
            is_news |= builder.set_health(name, true);
        }
        for error in self.checker.apply(targets) {
            warn!("{error}");
        }
        self.follow_addresses(configuration);
        is_news
    }

    /// Answers on health check node ports at the addresses that the node has now.
    pub fn follow_addresses(&mut self, configuration: &Configuration) {
        let addresses = node_port_addresses(configuration).into_iter().map(Into::into).collect();
        self.node_ports.set_bind_addresses(addresses);
        self.retry_at = Some(Instant::now());
    }

    /// Answers on the health check node ports that there are now. Those that could not be opened are tried again.
    pub fn follow_services(&mut self, wanted: Vec<HealthNodePort>) {
        let is_due = self.retry_at.is_some_and(|at| at <= Instant::now());
        if wanted == self.wanted && !is_due {
            return;
        }
        let errors = self.node_ports.apply(&wanted);
        // Once for each error, not once for each try.
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.iter().filter(|text| !self.told.contains(text)).for_each(|text| warn!("{text}"));
        self.retry_at = (!errors.is_empty()).then(|| Instant::now() + RETRY);
        (self.wanted, self.told) = (wanted, texts);
    }

    /// Tells the builder what a check says. True: the tables differ.
    pub fn note(&self, id: u64, is_healthy: bool, builder: &mut Builder) -> bool {
        let Some((name, _)) = self.names.iter().find(|(_, number)| **number == id) else { return false };
        let state = if is_healthy { "healthy" } else { "unhealthy" };
        info!(service = %name.service, port = &*name.port_name, backend = %name.address, "backend is {state}");
        builder.set_health(name.clone(), is_healthy)
    }

    /// What can be seen of it.
    pub fn view(&self) -> HealthView {
        HealthView {
            checks: self.checker.counters(),
            node_ports: self.node_ports.counters(),
            open_node_ports: self.node_ports.statuses().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::build::HostFacts;
    use crate::control::testing::{CONFIGURATION, parsed};

    /// A check that is taken out of the file leaves no backend out of the tables.
    #[test]
    fn what_is_checked_no_more_counts_as_healthy_in_the_next_tables() {
        let check = "port = 80\nhealth_check = { kind = \"tcp\" }\n";
        let checked = parsed(&CONFIGURATION.replacen("port = 80\n", check, 1));
        let unchecked = parsed(CONFIGURATION);
        let mut builder = Builder::new(1, HostFacts::default());
        builder.build(&checked).unwrap();
        let (sender, _events) = std::sync::mpsc::channel();
        let mut watch = HealthWatch::new(sender);
        assert!(!watch.follow_configuration(&checked, &mut builder));
        let (name, id) = watch.names.iter().next().map(|(name, id)| (name.clone(), *id)).unwrap();
        assert!(watch.note(id, false, &mut builder), "{name:?}");
        let backends = |builder: &mut Builder, configuration| {
            let tables = builder.build(configuration).unwrap();
            tables.services.port(0).unwrap().backends.len()
        };
        assert_eq!(backends(&mut builder, &unchecked), 1, "the check's word still counts");
        assert!(watch.follow_configuration(&unchecked, &mut builder), "tables are due");
        assert_eq!(backends(&mut builder, &unchecked), 2);
    }
}
