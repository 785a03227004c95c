//! Which endpoint is a backend of which service that chooses by a consistent hash: how answers are told whose they are when
//! no flow is known.
//!
//! **Invariant:** the map depends on the service ports' present backends alone. An endpoint of several such services is
//! [`SEVERAL`]: nothing but a flow could tell whose its answers are.

use std::collections::HashMap;

use engine::table::sharded_map::ShardedMap;

use crate::table::service::{Choice, FrontendKey, SEVERAL, Scope, ServicePort};

/// What each service port has in the map.
#[derive(Default)]
pub(super) struct HashedBackends {
    of_port: HashMap<u32, Vec<FrontendKey>>,
    /// Service ports of endpoints that several have.
    claims: HashMap<FrontendKey, Vec<u32>>,
}

impl HashedBackends {
    /// Makes the map say what a service port's record does; none: it is gone.
    pub(super) fn set(
        &mut self,
        map: &mut ShardedMap<FrontendKey, u32>,
        number: u32,
        record: Option<&ServicePort>,
    ) {
        let wanted = record.map(endpoints).unwrap_or_default();
        let before = match wanted.is_empty() {
            true => self.of_port.remove(&number),
            false => self.of_port.insert(number, wanted.clone()),
        };
        let before = before.unwrap_or_default();
        if before == wanted {
            return;
        }
        for endpoint in before.iter().filter(|endpoint| wanted.binary_search(endpoint).is_err()) {
            self.release(map, number, endpoint);
        }
        for endpoint in wanted.iter().filter(|endpoint| before.binary_search(endpoint).is_err()) {
            self.claim(map, number, *endpoint);
        }
    }

    fn claim(&mut self, map: &mut ShardedMap<FrontendKey, u32>, number: u32, endpoint: FrontendKey) {
        let Some(holder) = map.get(&endpoint) else {
            map.insert(endpoint, number);
            return;
        };
        let claims = self.claims.entry(endpoint).or_default();
        if holder != SEVERAL {
            claims.push(holder);
        }
        claims.push(number);
        map.insert(endpoint, SEVERAL);
    }

    fn release(&mut self, map: &mut ShardedMap<FrontendKey, u32>, number: u32, endpoint: &FrontendKey) {
        let Some(claims) = self.claims.get_mut(endpoint) else {
            map.remove(endpoint);
            return;
        };
        claims.retain(|claimant| *claimant != number);
        if let [last] = claims[..] {
            map.insert(*endpoint, last);
            self.claims.remove(endpoint);
        }
    }
}

/// The endpoints that connections to a service port's cluster IP are sent to by a hash of the connection alone; none if
/// anything else decides. In order.
fn endpoints(record: &ServicePort) -> Vec<FrontendKey> {
    let scope = if record.internal_local { Scope::Local } else { Scope::Cluster };
    if record.affinity_s != 0 || !matches!(record.choice(scope), Choice::Maglev(_)) {
        return Vec::new();
    }
    let serving = record.backends.iter().filter(|backend| backend.weight > 0 && backend.is_in(scope));
    let mut endpoints: Vec<FrontendKey> = serving
        .map(|backend| FrontendKey {
            address: backend.address,
            port: backend.port,
            protocol: record.protocol.number(),
        })
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::maglev::{MaglevTable, Member};
    use crate::table::service::{Backend, IN_CLUSTER};

    fn record(addresses: &[u32]) -> ServicePort {
        let backends: Vec<Backend> = addresses
            .iter()
            .map(|address| Backend {
                address: *address,
                port: 80,
                weight: 1,
                slot: 0,
                incarnation: 0,
                scopes: IN_CLUSTER,
            })
            .collect();
        let members = backends.iter().enumerate().map(|(index, backend)| Member {
            index: index as u16,
            address: backend.address,
            port: 80,
            weight: 1,
        });
        let cluster =
            MaglevTable::build(members).map_or_else(Choice::default, |table| Choice::Maglev(Box::new(table)));
        ServicePort { backends, cluster, ..ServicePort::default() }
    }

    #[test]
    fn endpoints_lead_to_their_only_service() {
        let (mut hashed, mut map) = (HashedBackends::default(), ShardedMap::default());
        let of = |map: &ShardedMap<FrontendKey, u32>, address| {
            map.get(&FrontendKey { address, port: 80, protocol: 6 })
        };
        hashed.set(&mut map, 1, Some(&record(&[10, 11, 12])));
        hashed.set(&mut map, 2, Some(&record(&[12, 13])));
        hashed.set(&mut map, 3, Some(&record(&[12])));
        assert_eq!([10, 12, 13].map(|address| of(&map, address)), [Some(1), Some(SEVERAL), Some(2)]);
        hashed.set(&mut map, 1, Some(&record(&[11])));
        assert_eq!([10, 11, 12].map(|address| of(&map, address)), [None, Some(1), Some(SEVERAL)]);
        hashed.set(&mut map, 3, None);
        assert_eq!(of(&map, 12), Some(2));
        let sticky = ServicePort { affinity_s: 10, ..record(&[11]) };
        hashed.set(&mut map, 1, Some(&sticky));
        hashed.set(&mut map, 2, None);
        assert!(map.is_empty() && hashed.claims.is_empty() && hashed.of_port.is_empty());
    }
}
