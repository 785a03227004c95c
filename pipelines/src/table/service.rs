//! Services: virtual addresses and ports, and the backends behind them.

use std::sync::Arc;

use engine::random::Random;
use engine::wire::ipv4::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::control::config::model::Protocol;

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
            Self::Sctp => PROTOCOL_SCTP,
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// By what a service is known: address (host order), port, IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// Virtual IP, or one of the node's addresses.
    pub address: u32,
    /// Port of the service there.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// What kind of address a service is reached by. It decides who is masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontendKind {
    /// The cluster IP.
    ClusterIp,
    /// A node port.
    NodePort,
}

impl FrontendKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster_ip",
            Self::NodePort => "node_port",
        }
    }
}

/// One way to reach a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Place in [`ServiceTable::services`].
    pub service: u32,
    /// What kind of address.
    pub kind: FrontendKind,
}

/// Where connections to a service go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Address in host order.
    pub address: u32,
    /// Port.
    pub port: u16,
    /// Share of new connections; 0: drains.
    pub weight: u16,
    /// Where its traffic is counted.
    pub slot: u32,
}

/// One port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub name: String,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual IP in host order.
    pub cluster_ip: u32,
    /// Port on the virtual IP.
    pub port: u16,
    /// Port on the node's addresses.
    pub node_port: Option<u16>,
    /// All backends, the draining ones too.
    pub backends: Vec<Backend>,
    /// Where what is refused is counted.
    pub slot: u32,
    /// Counter slots of all backends it has ever had, the gone ones too: a service's counters never go down.
    pub counted_slots: Vec<u32>,
    /// How to choose.
    pub choice: AliasTable,
}

impl ServicePort {
    /// Makes the way to choose from the backends' weights. To be called when the backends are final.
    pub fn prepare(mut self) -> Self {
        self.choice = AliasTable::build(self.backends.iter().map(|backend| u32::from(backend.weight)));
        self
    }

    /// A backend at random, by weight; none if no backend has any.
    #[inline]
    pub fn choose(&self, random: &mut Random) -> Option<usize> {
        self.choice.choose(random)
    }

    /// `namespace/name:port name`.
    pub fn title(&self) -> String {
        if self.port_name.is_empty() {
            format!("{}/{}", self.namespace, self.name)
        } else {
            format!("{}/{}:{}", self.namespace, self.name, self.port_name)
        }
    }
}

/// Weighted choice in constant time: Walker's alias method, built as by Vose ("A Linear Algorithm for Generating Random
/// Numbers with a Given Distribution", IEEE TSE 17(9), 1991). Exact: columns are whole numbers, not fractions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasTable {
    /// For each column with any weight: keep it below this, else take the other.
    columns: Vec<(u64, u32, u32)>,
    /// Height of a column: the sum of all weights.
    height: u64,
}

impl AliasTable {
    fn build(weights: impl Iterator<Item = u32>) -> Self {
        let weighted: Vec<(u32, u64)> = weights
            .enumerate()
            .map(|(index, weight)| (index as u32, u64::from(weight)))
            .filter(|w| w.1 > 0)
            .collect();
        let height: u64 = weighted.iter().map(|weight| weight.1).sum();
        let count = weighted.len() as u64;
        // Scaled by their number, weights are shares of columns that are `height` high.
        let mut small = Vec::new();
        let mut large = Vec::new();
        for (index, weight) in weighted {
            let scaled = weight * count;
            if scaled < height { small.push((index, scaled)) } else { large.push((index, scaled)) }
        }
        let mut columns = Vec::with_capacity(count as usize);
        while let Some((index, share)) = small.pop() {
            // The sum of all shares is count × height, so a small one leaves a large one.
            let Some((other, other_share)) = large.pop() else { break };
            columns.push((share, index, other));
            let left = other_share - (height - share);
            if left < height { small.push((other, left)) } else { large.push((other, left)) }
        }
        columns.extend(large.into_iter().map(|(index, _)| (height, index, index)));
        Self { columns, height }
    }

    #[inline]
    fn choose(&self, random: &mut Random) -> Option<usize> {
        let column = match self.columns.len() {
            0 => return None,
            1 => 0,
            count => random.below(count as u32) as usize,
        };
        let (share, index, other) = self.columns[column];
        // Heights above 2^32 need 65,538 backends of the largest weight; the build bounds both.
        let below = share == self.height || u64::from(random.below(self.height as u32)) < share;
        Some(if below { index } else { other } as usize)
    }
}

/// Most backends of one service port: keeps the sum of weights in 32 bits.
pub const BACKENDS_MAX: usize = 65_536;

/// All services. Unchanged ones are shared between one generation and the next.
#[derive(Default)]
pub struct ServiceTable {
    /// Where each (address, port, protocol) leads.
    pub frontends: Arc<HashMap<FrontendKey, Frontend, FxBuildHasher>>,
    /// Cluster IPs: what is for them and matches no frontend is refused.
    pub addresses: Arc<HashMap<u32, (), FxBuildHasher>>,
    /// Service ports.
    pub services: Vec<Arc<ServicePort>>,
}

impl ServiceTable {
    /// A table of these service ports; node ports are answered on `node_port_addresses` (host order).
    pub fn build(services: Vec<Arc<ServicePort>>, node_port_addresses: &[u32]) -> Self {
        let mut frontends = HashMap::with_capacity_and_hasher(services.len() * 2, FxBuildHasher);
        let mut addresses = HashMap::with_capacity_and_hasher(services.len(), FxBuildHasher);
        for (index, service) in services.iter().enumerate() {
            let (service_index, protocol) = (index as u32, service.protocol.number());
            let mut insert = |address, port, kind| {
                let key = FrontendKey { address, port, protocol };
                frontends.entry(key).or_insert(Frontend { service: service_index, kind });
            };
            insert(service.cluster_ip, service.port, FrontendKind::ClusterIp);
            if let Some(node_port) = service.node_port {
                for address in node_port_addresses {
                    insert(*address, node_port, FrontendKind::NodePort);
                }
            }
            addresses.insert(service.cluster_ip, ());
        }
        Self { frontends: Arc::new(frontends), addresses: Arc::new(addresses), services }
    }

    /// The service behind an address, port and protocol.
    #[inline]
    pub fn find(&self, key: &FrontendKey) -> Option<(Frontend, &ServicePort)> {
        let frontend = *self.frontends.get(key)?;
        Some((frontend, self.services.get(frontend.service as usize)?))
    }

    /// Whether any service has this virtual IP.
    #[inline]
    pub fn is_virtual(&self, address: u32) -> bool {
        self.addresses.contains_key(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The columns' shares add up to the weights exactly.
        #[test]
        fn alias_table_is_exact(weights in proptest::collection::vec(0u32..=65_535, 0..40)) {
            let table = AliasTable::build(weights.iter().copied());
            let mut shares = vec![0u64; weights.len()];
            for (share, index, other) in &table.columns {
                shares[*index as usize] += share;
                shares[*other as usize] += table.height - share;
            }
            for (weight, share) in weights.iter().zip(&shares) {
                prop_assert_eq!(u64::from(*weight) * table.columns.len() as u64, *share);
            }
            prop_assert_eq!(table.choose(&mut Random::new(1)).is_none(), weights.iter().all(|weight| *weight == 0));
        }
    }

    #[test]
    fn draining_backends_are_never_chosen() {
        let table = AliasTable::build([0, 3, 0, 1].into_iter());
        let mut random = Random::new(7);
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[table.choose(&mut random).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[2]), (0, 0));
        assert!((29_400..30_600).contains(&counts[1]), "{counts:?}");
    }
}
