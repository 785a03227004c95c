//! Which worker owns a flow. Computed in software: NIC hashing does not bring both directions of a translated,
//! tunnelled flow to one worker.
//!
//! Let `h(protocol, address, port)` be a worker, by bytes of the packet and a worker count that is fixed for the process.
//! A translated flow lives at `h` of its originator as the answer's destination shows it; a masquerade port is taken
//! only where `h` of it is this worker. So a packet has two candidates at the most: it is looked up at h(destination),
//! then at h(source), and a new flow, translated or not, is created there after both missed. Its answers find it at once,
//! and a client's connections that could be taken for each other (to a backend directly, and to it through a service) lie
//! at one worker, which keeps them apart. Addresses that never are an originator (service networks, the node's addresses at node ports) are not
//! asked for; that set too is fixed for the process. Flows of protocols without ports have no port to be drawn for a
//! worker: they all are the first worker's.

use engine::batch::{Batch, Disposition, WorkerId};
use engine::table::flow::FlowKey;

use crate::drop_reason::DropReason;
use crate::flow::has_identity;
use crate::meta::{Kind, Meta};
use crate::prefix::Ipv4Prefix;

/// Where a packet has been looked up already. Travels with it from worker to worker.
pub mod visit {
    /// Nowhere.
    pub const NONE: u8 = 0;
    /// At h(destination), and missed.
    pub const MISSED_DESTINATION: u8 = 1;
}

/// The rule, as one worker applies it.
#[derive(Clone, Debug)]
pub struct Ownership {
    worker: WorkerId,
    worker_count: u32,
    /// Networks whose addresses never originate a flow.
    passive_networks: Vec<Ipv4Prefix>,
    /// Addresses of the node: no originator in the node port range.
    node_addresses: Vec<u32>,
    node_ports: (u16, u16),
}

impl Ownership {
    /// The rule for `worker` of `worker_count`.
    pub fn new(
        worker: WorkerId,
        worker_count: usize,
        passive_networks: Vec<Ipv4Prefix>,
        node_addresses: Vec<u32>,
        node_ports: (u16, u16),
    ) -> Self {
        let worker_count = worker_count.clamp(1, usize::from(WorkerId::MAX)) as u32;
        Self { worker, worker_count, passive_networks, node_addresses, node_ports }
    }

    /// The rule as another worker applies it.
    pub fn of_worker(&self, worker: WorkerId) -> Self {
        Self { worker, ..self.clone() }
    }

    /// This worker.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The worker of an endpoint. Must be the same in every worker, so it has no secret in it.
    #[inline(always)]
    pub fn of(&self, protocol: u8, address: u32, port: u16) -> WorkerId {
        if self.worker_count == 1 || !has_identity(protocol) {
            return 0;
        }
        let word = u64::from(address) << 24 | u64::from(port) << 8 | u64::from(protocol);
        // Fibonacci hashing, twice, takes its high bits; then scaled to the number of workers.
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (((mixed >> 32) * u64::from(self.worker_count)) >> 32) as WorkerId
    }

    /// Whether this worker is an endpoint's.
    #[inline(always)]
    pub fn is_own(&self, protocol: u8, address: u32, port: u16) -> bool {
        self.of(protocol, address, port) == self.worker
    }

    fn of_source(&self, key: &FlowKey) -> WorkerId {
        self.of(key.protocol, key.source, key.source_port)
    }

    fn of_destination(&self, key: &FlowKey) -> WorkerId {
        self.of(key.protocol, key.destination, key.destination_port)
    }

    /// Whether nothing has this end, so that answers to it would be looked for elsewhere: no port to masquerade with.
    pub(crate) fn never_originates(&self, address: u32, port: u16) -> bool {
        let (first, last) = self.node_ports;
        self.passive_networks.iter().any(|network| network.contains(address))
            || ((first..=last).contains(&port) && self.node_addresses.contains(&address))
    }

    /// The worker that a packet must be looked up at next, having been where `visit` says.
    pub fn next(&self, key: &FlowKey, visited: u8) -> WorkerId {
        match visited {
            visit::NONE if !self.never_originates(key.destination, key.destination_port) => {
                self.of_destination(key)
            }
            _ => self.of_source(key),
        }
    }

    /// Where a packet goes that missed here: none if a new flow may be decided here.
    pub fn after_miss(&self, key: &FlowKey, visited: u8) -> Option<(WorkerId, u8)> {
        let source = self.of_source(key);
        (self.worker_count > 1 && visited == visit::NONE && source != self.worker)
            .then_some((source, visit::MISSED_DESTINATION))
    }
}

/// Hands packets to the worker that must look them up, if that is another one.
pub fn run(batch: &mut Batch<Meta>, ownership: &Ownership) {
    if ownership.worker_count == 1 {
        return;
    }
    for index in 0..batch.len() {
        let meta = &batch.meta[index];
        if !batch.is_pending(index) || !matches!(meta.kind, Kind::Flow | Kind::IcmpError) {
            continue;
        }
        let visited = batch.visits[index];
        let worker = ownership.next(&meta.key, visited);
        if worker != ownership.worker {
            batch.dispositions[index] = if visited != visit::NONE {
                // The rule is the same everywhere, so this never happens; if it did, it would go round for ever.
                Disposition::Drop(DropReason::HandOffLoop.code())
            } else {
                Disposition::HandOff { worker, visit: visited }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::flow_key;

    fn rules(count: usize) -> Vec<Ownership> {
        let services = vec!["10.254.0.0/16".parse().unwrap()];
        (0..count)
            .map(|worker| {
                Ownership::new(worker as u8, count, services.clone(), vec![0xc0a8_0015], (30_000, 32_767))
            })
            .collect()
    }

    /// Where a packet is looked up, in order, and where its flow would be created.
    fn way(rules: &[Ownership], key: &FlowKey) -> Vec<WorkerId> {
        let (mut visited, mut way) = (visit::NONE, vec![rules[0].next(key, visit::NONE)]);
        while let Some((worker, visit)) = rules[usize::from(way[way.len() - 1])].after_miss(key, visited) {
            assert_eq!(rules[usize::from(worker)].next(key, visit), worker, "arrives where it is sent");
            visited = visit;
            way.push(worker);
        }
        way
    }

    #[test]
    fn answers_find_a_flow_where_it_was_created() {
        for count in 1..=8 {
            let rules = rules(count);
            let mut used = vec![0; count];
            for number in 0..2_000u32 {
                let (client, server) = (0xac1e_4c00 + number % 200, 0xac1e_0900 + number % 97);
                let key = flow_key(6, client, 40_000 + number as u16, server, 8080);
                let home = *way(&rules, &key).last().unwrap();
                assert_eq!(way(&rules, &key.reversed())[0], home);
                used[usize::from(home)] += 1;
            }
            // Each about its share.
            assert!(used.iter().all(|flows| *flows > 2_000 / count * 3 / 4), "{used:?}");
        }
    }

    #[test]
    fn services_are_not_asked_for() {
        let rules = rules(4);
        for port in 0..100 {
            let to_service = flow_key(6, 0xac1e_4c07, 40_000 + port, 0x0afe_0001, 80);
            let to_node_port = flow_key(6, 0x0101_0101, 40_000 + port, 0xc0a8_0015, 30_799);
            for key in [to_service, to_node_port] {
                assert_eq!(way(&rules, &key), [rules[1].of_source(&key)]);
            }
        }
    }

    #[test]
    fn a_miss_travels_at_the_most_twice() {
        let rules = rules(8);
        for number in 0..1_000u32 {
            let key = flow_key(17, 0x0a00_0000 + number, 1_000, 0x0b00_0000 + number * 7, 2_000);
            assert!(way(&rules, &key).len() <= 2);
        }
    }
}
