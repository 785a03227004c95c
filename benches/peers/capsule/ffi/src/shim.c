/*
 * What capsule 0.1.5 expects of DPDK 19.11, told to DPDK 22.11: inline functions, two structures that are read in place
 * (their layout is asserted), and three that are handed over as plain ones of our own.
 */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* lib.rs has the same numbers. */
static_assert(offsetof(struct rte_mbuf, buf_addr) == 0, "buf_addr");
static_assert(offsetof(struct rte_mbuf, data_off) == 16, "data_off");
static_assert(offsetof(struct rte_mbuf, pkt_len) == 36, "pkt_len");
static_assert(offsetof(struct rte_mbuf, data_len) == 40, "data_len");
static_assert(offsetof(struct rte_mbuf, buf_len) == 54, "buf_len");
static_assert(offsetof(struct rte_mbuf, pool) == 56, "pool");
static_assert(RTE_MEMPOOL_NAMESIZE == 26, "name");
static_assert(offsetof(struct rte_mempool, flags) == 56, "flags");
static_assert(offsetof(struct rte_mempool, socket_id) == 60, "socket_id");
static_assert(offsetof(struct rte_mempool, size) == 64, "size");
static_assert(offsetof(struct rte_mempool, cache_size) == 68, "cache_size");
static_assert(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE == 0x10000, "DEV_TX_OFFLOAD_MBUF_FAST_FREE");
static_assert(RTE_MBUF_DEFAULT_BUF_SIZE == 2176, "RTE_MBUF_DEFAULT_BUF_SIZE");
static_assert(sizeof(rte_cpuset_t) == 128, "rte_cpuset_t");

struct peer_dev_info {
	const char *driver_name;
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t flow_type_rss_offloads;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
};

/* Threads that EAL does not know have no cache in a mempool. capsule does not register its own. */
static bool register_threads = true;

void peer_register_threads(bool wanted)
{
	register_threads = wanted;
}

int peer_errno(void)
{
	return rte_errno;
}

int peer_eal_init(int count, char **arguments)
{
	/* Renamed in DPDK 20.11, gone in 21.11. */
	static char main_lcore[] = "--main-lcore";
	for (int index = 0; index < count; index++)
		if (strcmp(arguments[index], "--master-lcore") == 0)
			arguments[index] = main_lcore;
	return rte_eal_init(count, arguments);
}

int peer_thread_set_affinity(rte_cpuset_t *set)
{
	/* The main thread is registered already; that is no error. */
	if (register_threads && rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() < 0)
		return -rte_errno;
	return rte_thread_set_affinity(set);
}

int peer_eth_dev_info_get(uint16_t port, struct peer_dev_info *info)
{
	struct rte_eth_dev_info full;
	int result = rte_eth_dev_info_get(port, &full);
	if (result == 0)
		*info = (struct peer_dev_info){
			.driver_name = full.driver_name,
			.rx_offload_capa = full.rx_offload_capa,
			.tx_offload_capa = full.tx_offload_capa,
			.flow_type_rss_offloads = full.flow_type_rss_offloads,
			.max_rx_queues = full.max_rx_queues,
			.max_tx_queues = full.max_tx_queues,
		};
	return result;
}

int peer_eth_dev_configure(uint16_t port, uint16_t receive, uint16_t transmit, uint64_t tx_offloads)
{
	struct rte_eth_conf configuration = { .txmode.offloads = tx_offloads };
	return rte_eth_dev_configure(port, receive, transmit, &configuration);
}

struct rte_mbuf *peer_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void peer_pktmbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

int peer_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void peer_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned int count)
{
	rte_mempool_put_bulk(pool, objects, count);
}

uint16_t peer_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t peer_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}
