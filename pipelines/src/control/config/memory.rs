//! How many buffers a configuration needs, and how much memory they take.

use engine::packet::{BUFFER_SIZE, PRIVATE_SIZE, PacketHeader};

use super::model::Configuration;

/// What DPDK's mempool keeps for itself beside each buffer: a header of one cache line (`rte_mempool_objhdr`).
const POOL_HEADER_BYTES: u64 = 64;
/// The most that one thread's cache in front of the pool holds back (`RTE_MEMPOOL_CACHE_MAX_SIZE`).
const CACHE_BUFFERS: u64 = 512;
/// What one thread has in its hands: a batch and what is added to it.
const BATCH_BUFFERS: u64 = (engine::batch::BATCH_CAPACITY + engine::batch::ADDED_CAPACITY) as u64;
/// What waits for next hops at one worker.
const WAITING_BUFFERS: u64 = crate::waiting::WAITING_MAX as u64;

/// Buffers that can be out at once: in every queue of every port, in the rings between threads, in the workers' hands
/// (packets that wait for a next hop among them) and in the caches in front of the pool. `[dpdk] buffers` overrides it.
pub fn buffers_needed(configuration: &Configuration) -> u64 {
    if let Some(buffers) = configuration.dpdk.buffers {
        return u64::from(buffers);
    }
    let workers = configuration.workers.cores.len().max(1) as u64;
    let ports = configuration.ports.len() as u64;
    let queue_pair = 2 * u64::from(configuration.workers.queue_descriptors);
    let handoff = configuration.workers.handoff_ring as u64;
    let exception = configuration.exception.as_ref().map_or(0, |exception| {
        queue_pair + 2 * workers * exception.ring as u64 + CACHE_BUFFERS + BATCH_BUFFERS
    });
    workers * (ports * queue_pair + BATCH_BUFFERS + WAITING_BUFFERS + CACHE_BUFFERS)
        + workers * (workers - 1) * handoff
        + exception
}

/// What those buffers take from hugepages, in bytes.
pub fn hugepage_bytes_needed(configuration: &Configuration) -> u64 {
    let buffer = size_of::<PacketHeader>() as u64 + u64::from(PRIVATE_SIZE) + u64::from(BUFFER_SIZE);
    buffers_needed(configuration) * (POOL_HEADER_BYTES + buffer)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{REFERENCE, parsed};
    use super::*;

    #[test]
    fn counts_queues_rings_batches_and_caches() {
        let mut configuration = parsed(REFERENCE);
        let one_worker = 6 * 1024 + 320 + 256 + 512;
        let exception = 1024 + 2 * 512 + 512 + 320;
        assert_eq!(buffers_needed(&configuration), one_worker + exception);
        assert_eq!(hugepage_bytes_needed(&configuration), (one_worker + exception) * 2432);
        configuration.exception = None;
        configuration.workers.cores = vec![1, 2, 3];
        assert_eq!(buffers_needed(&configuration), 3 * one_worker + 6 * 1024);
        configuration.dpdk.buffers = Some(5_000);
        assert_eq!(buffers_needed(&configuration), 5_000);
    }
}
