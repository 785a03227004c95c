//! The configuration: a TOML file, keys that the command line sets over it, and what both mean.

mod flags;
mod machine;
mod model;
mod sizes;

pub use flags::{Setting, SettingError, apply};
pub use machine::{Machine, Memory, Port, Vxlan};
pub use model::{
    Clients, Configuration, Expect, Nat, Rate, Search, Service, Traffic, TrafficKind, TrialSection,
};
pub use sizes::{SizePart, Sizes};

use std::path::Path;

use crate::nat::{CapacityGoal, NatSettings};
use crate::plan::{Group, Plan, PlanError};
use crate::received::Peer;
use crate::runner::{Kind, Load};
use crate::scenario::Scenario;
use crate::search::SearchGoal;
use crate::sizes::SizeError;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or not our keys.
    #[error("{0}")]
    Toml(String),
    /// A flag that cannot be applied.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Sizes.
    #[error("traffic.sizes: {0}")]
    Sizes(#[from] SizeError),
    /// Services and clients.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A number out of its range.
    #[error("{key} is {value}: {wanted}")]
    Range {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// More flows than the plan has.
    #[error(
        "{wanted} flows need as many client endpoints, rounded up to a power of two, and [clients] has {space}: give \
         it more addresses or ports"
    )]
    Space {
        /// Flows.
        wanted: u64,
        /// Client endpoints.
        space: u64,
    },
}

/// The largest configuration file, in bytes.
const FILE_MAX: usize = 1 << 20;

impl Configuration {
    /// Reads a file, or none, and lets the settings override its keys.
    pub fn load(path: Option<&Path>, settings: &[Setting]) -> Result<Self, ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?,
            None => String::new(),
        };
        Self::parse(&text, settings)
    }

    /// The same from a text.
    pub fn parse(text: &str, settings: &[Setting]) -> Result<Self, ConfigError> {
        if text.len() > FILE_MAX {
            return Err(ConfigError::Toml(format!("the file is larger than {FILE_MAX} bytes")));
        }
        let broken = |error: toml::de::Error| ConfigError::Toml(error.to_string());
        if settings.is_empty() {
            // Errors then show the line.
            return toml::from_str(text).map_err(broken);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(broken)?;
        for setting in settings {
            apply(&mut table, setting)?;
        }
        toml::Value::Table(table).try_into().map_err(broken)
    }

    /// What is offered to whom through what.
    pub fn scenario(&self) -> Result<Scenario, ConfigError> {
        let ports = self.ports.len();
        within("[[ports]]", ports, (1..=2).contains(&ports), "one or two ports are wanted")?;
        let [client_port, backend_port] = [self.machine.client_port, self.machine.backend_port];
        let last = (ports - 1) as u16;
        let (client_port, backend_port) = (client_port.unwrap_or(0), backend_port.unwrap_or(last));
        let known = client_port <= last && backend_port <= last;
        let wanted = "ports are counted from 0 in the order of [[ports]]";
        within("machine.client_port or backend_port", client_port.max(backend_port), known, wanted)?;
        let queues = self.machine.queues;
        within("machine.queues", queues, (1..=16).contains(&queues), "1 to 16 pairs of queues can be had")?;
        let expect = &self.expect;
        let hops = expect.hops.unwrap_or(u8::from(!expect.mirror));
        let wanted = "it must be larger than expect.hops";
        within("expect.time_to_live", expect.time_to_live, expect.time_to_live > hops, wanted)?;
        let plan = self.plan()?;
        Ok(Scenario {
            links: self.ports.iter().map(Port::link).collect(),
            client_port,
            backend_port,
            plan,
            sizes: self.traffic.sizes.mix()?,
            peer: if expect.mirror { Peer::Mirror } else { Peer::Gateway },
            time_to_live: expect.time_to_live,
            hops,
        })
    }

    fn plan(&self) -> Result<Plan, ConfigError> {
        let group = |service: &Service| Group {
            addresses: service.addresses,
            port: service.port,
            // A mirror translates nothing.
            backends: if self.expect.mirror { Vec::new() } else { service.backends.clone() },
        };
        let groups: Vec<_> = self.services.iter().map(group).collect();
        let masquerade = if self.expect.mirror { Vec::new() } else { self.expect.masquerade.clone() };
        let clients = &self.clients;
        let plan = Plan::new(clients.addresses, clients.ports, &groups, masquerade)?;
        let (flows, space) = (u64::from(self.traffic.flows), plan.space());
        if self.traffic.kind == TrafficKind::Udp && flows.next_power_of_two() > space {
            return Err(ConfigError::Space { wanted: flows, space });
        }
        Ok(plan)
    }

    /// What is offered, apart from the rate.
    pub fn load_settings(&self) -> Result<Load, ConfigError> {
        let traffic = &self.traffic;
        let most = crate::datagram::FLOWS_MAX;
        within("traffic.flows", traffic.flows, (1..=most).contains(&traffic.flows), "1 to 67108864")?;
        let exchanges = traffic.exchanges;
        within("traffic.exchanges", exchanges, exchanges <= crate::script::EXCHANGES_MAX, "0 to 30")?;
        Ok(Load {
            kind: match traffic.kind {
                TrafficKind::Udp => Kind::Flows,
                TrafficKind::UdpNew => Kind::NewFlows,
                TrafficKind::Tcp => Kind::Connections,
            },
            flows: traffic.flows,
            answering: traffic.replies,
            connections: traffic.connections,
            exchanges,
            patience_ns: traffic.patience_ms.saturating_mul(1_000_000),
            first: traffic.first,
            burst: self.rate.burst,
            window: self.rate.window,
            drain_ns: self.trial.drain_ms.saturating_mul(1_000_000),
            warm_up_rate: rate(self.trial.warm_up_per_s),
            warm_up_rounds: self.trial.warm_up_rounds,
        })
    }

    /// The rate of a single trial; none: as fast as can be.
    pub fn trial_rate(&self) -> Option<u64> {
        rate(self.rate.per_s)
    }

    /// The length of a single trial.
    pub fn trial_seconds(&self) -> Result<f64, ConfigError> {
        seconds("trial.duration_s", self.trial.duration_s)
    }

    /// What is searched for.
    pub fn search_goal(&self) -> Result<SearchGoal, ConfigError> {
        let search = &self.search;
        let is_part = (0.0..1.0).contains(&search.loss_ratio);
        within("search.loss_ratio", search.loss_ratio, is_part, "a part below 1 is wanted")?;
        let is_part = search.precision > 0.0 && search.precision < 1.0;
        within("search.precision", search.precision, is_part, "a part between 0 and 1 is wanted")?;
        let rates = search.min_per_s > 0 && search.min_per_s <= search.max_per_s;
        within("search.min_per_s", search.min_per_s, rates, "1 up to search.max_per_s")?;
        Ok(SearchGoal {
            loss_ratio: search.loss_ratio,
            min_rate: search.min_per_s,
            max_rate: search.max_per_s,
            precision: search.precision,
            initial_s: seconds("search.initial_s", search.initial_s)?,
            final_s: seconds("search.final_s", search.final_s)?,
            stages: search.stages.clamp(1, 8),
            confirmations: search.confirmations.clamp(1, 100),
        })
    }

    /// What RFC 9693's tests have in common.
    pub fn nat_settings(&self) -> Result<NatSettings, ConfigError> {
        let nat = &self.nat;
        within("nat.alpha", nat.alpha, nat.alpha > 0.0 && nat.alpha <= 100.0, "a factor above 0 is wanted")?;
        let most = crate::datagram::FLOWS_MAX;
        within("nat.connections", nat.connections, (1..=most).contains(&nat.connections), "1 to 67108864")?;
        Ok(NatSettings { connections: nat.connections, alpha: nat.alpha, open_rate: rate(nat.open_per_s) })
    }

    /// What the capacity test searches for.
    pub fn capacity_goal(&self) -> Result<CapacityGoal, ConfigError> {
        let nat = &self.nat;
        for (key, value) in [("nat.beta", nat.beta), ("nat.gamma", nat.gamma)] {
            within(key, value, value > 0.0 && value < 1.0, "a part between 0 and 1 is wanted")?;
        }
        let most = crate::datagram::FLOWS_MAX;
        let ordered =
            nat.capacity_start > 0 && nat.capacity_start <= nat.capacity_max && nat.capacity_max <= most;
        within(
            "nat.capacity_start",
            nat.capacity_start,
            ordered,
            "1 up to nat.capacity_max, which is 67108864 at most",
        )?;
        Ok(CapacityGoal {
            start: nat.capacity_start,
            max: nat.capacity_max,
            max_rate: self.search.max_per_s,
            beta: nat.beta,
            gamma: nat.gamma,
            error: nat.capacity_error.max(1),
        })
    }
}

/// 0 stands for as fast as can be.
fn rate(per_s: u64) -> Option<u64> {
    (per_s > 0).then_some(per_s)
}

fn seconds(key: &'static str, value: f64) -> Result<f64, ConfigError> {
    within(key, value, value > 0.0 && value <= 3_600.0, "more than 0 and at most 3600 seconds")?;
    Ok(value)
}

fn within<T: ToString>(
    key: &'static str,
    value: T,
    is_right: bool,
    wanted: &'static str,
) -> Result<(), ConfigError> {
    if is_right { Ok(()) } else { Err(ConfigError::Range { key, value: value.to_string(), wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::SizeMix;

    const SMALL: &str = r#"
        [clients]
        addresses = "100.64.0.0/24"
        ports = "1024-2047"
        [[services]]
        addresses = "10.254.128.0-10.254.128.9"
        port = 80
        backends = ["172.30.9.2-172.30.9.49:8080"]
        [[ports]]
        device = "net_null0"
        mac = "02:00:00:00:00:01"
        gateway_mac = "02:00:00:00:00:02"
    "#;

    fn with(settings: &[&str]) -> Result<Configuration, ConfigError> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
        Configuration::parse(SMALL, &settings)
    }

    #[test]
    fn a_small_file_is_enough() {
        let configuration = with(&[]).unwrap();
        let scenario = configuration.scenario().unwrap();
        assert_eq!((scenario.client_port, scenario.backend_port, scenario.hops), (0, 0, 1));
        assert_eq!((scenario.plan.services().len(), scenario.plan.space()), (10, 256 * 1024));
        assert_eq!((configuration.trial_rate(), configuration.trial_seconds().unwrap()), (None, 10.0));
        let goal = configuration.search_goal().unwrap();
        assert!(goal.loss_ratio == 0.0 && goal.max_rate >= goal.min_rate);
        configuration.load_settings().unwrap();
        configuration.nat_settings().unwrap();
        configuration.capacity_goal().unwrap();
    }

    #[test]
    fn flags_set_any_key() {
        let configuration = with(&[
            "traffic.kind=tcp",
            "traffic.sizes=imix",
            "rate.per_s=1000000",
            "ports.0.device=net_memif0,role=client,socket=/tmp/a=b",
            "expect.masquerade=[\"172.30.76.0\"]",
            "ports.0.vxlan.local=192.168.0.22",
            "ports.0.vxlan.remote=192.168.0.21",
            "ports.0.vxlan.mac=96:8f:2d:49:c5:31",
            "ports.0.vxlan.gateway_mac=8a:22:81:5e:d8:b7",
        ])
        .unwrap();
        assert_eq!(configuration.ports[0].device, "net_memif0,role=client,socket=/tmp/a=b");
        assert_eq!(configuration.load_settings().unwrap().kind, Kind::Connections);
        assert_eq!(configuration.trial_rate(), Some(1_000_000));
        let scenario = configuration.scenario().unwrap();
        assert_eq!(scenario.sizes, SizeMix::imix());
        assert_eq!(scenario.links[0].tunnel.unwrap().vni, 1);
        assert_eq!(scenario.links[0].addresses.unwrap().to_string(), "192.168.0.22");
        let mirror = with(&["expect.mirror=true"]).unwrap().scenario().unwrap();
        assert_eq!((mirror.peer, mirror.hops), (Peer::Mirror, 0));
        assert!(mirror.plan.backends(mirror.plan.services()[0]).is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let message = |settings: &[&str]| {
            let configuration = match with(settings) {
                Ok(configuration) => configuration,
                Err(error) => return error.to_string(),
            };
            let all = configuration
                .scenario()
                .map(|_| ())
                .and_then(|()| configuration.load_settings().map(|_| ()))
                .and_then(|()| configuration.search_goal().map(|_| ()))
                .and_then(|()| configuration.nat_settings().map(|_| ()))
                .and_then(|()| configuration.capacity_goal().map(|_| ()));
            all.err().map_or(String::new(), |error| error.to_string())
        };
        assert_eq!(message(&[]), "");
        for (setting, part) in [
            ("traffic.flow=3", "unknown field `flow`"),
            ("traffic.kind=sctp", "unknown variant"),
            ("traffic.flows=0", "traffic.flows is 0: 1 to"),
            ("traffic.flows=300000", "300000 flows need as many client endpoints"),
            ("traffic.sizes=63", "a frame of 63 bytes"),
            ("traffic.exchanges=31", "0 to 30"),
            ("machine.backend_port=1", "counted from 0"),
            ("machine.queues=0", "1 to 16"),
            ("expect.time_to_live=1", "larger than expect.hops"),
            ("search.precision=0", "a part between 0 and 1"),
            ("search.final_s=0", "more than 0"),
            ("search.loss_ratio=1.5", "below 1"),
            ("nat.beta=2", "nat.beta is 2"),
            ("nat.connections=0", "nat.connections is 0"),
            ("clients.addresses=10.0.0.0/40", "is no set of addresses"),
            ("ports.0.mac=banana", "not a MAC address"),
        ] {
            let found = message(&[setting]);
            assert!(found.contains(part), "{setting}: {found}");
        }
        let error = Configuration::parse("[traffic]\nkind = 3\n", &[]).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
