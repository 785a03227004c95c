/*
 * The part of the DPDK binding that must be C: static inline functions, structures with bit-fields, and assertions
 * that `struct rte_mbuf` looks as packet.rs reads it. Decisions are taken in Rust; nothing here chooses anything.
 *
 * Functions that return int return zero or a positive value for success and a negative errno for failure.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Offsets that PacketHeader in packet.rs has; dpdk/shim.rs asserts the same numbers on its side. */
static_assert(sizeof(struct rte_mbuf) == 128, "rte_mbuf is two cache lines");
static_assert(offsetof(struct rte_mbuf, buf_addr) == 0, "buf_addr");
static_assert(offsetof(struct rte_mbuf, data_off) == 16, "data_off");
static_assert(offsetof(struct rte_mbuf, refcnt) == 18, "refcnt");
static_assert(offsetof(struct rte_mbuf, nb_segs) == 20, "nb_segs");
static_assert(offsetof(struct rte_mbuf, port) == 22, "port");
static_assert(offsetof(struct rte_mbuf, ol_flags) == 24, "ol_flags");
static_assert(offsetof(struct rte_mbuf, packet_type) == 32, "packet_type");
static_assert(offsetof(struct rte_mbuf, pkt_len) == 36, "pkt_len");
static_assert(offsetof(struct rte_mbuf, data_len) == 40, "data_len");
static_assert(offsetof(struct rte_mbuf, vlan_tci) == 42, "vlan_tci");
static_assert(offsetof(struct rte_mbuf, hash) == 44, "hash");
static_assert(offsetof(struct rte_mbuf, buf_len) == 54, "buf_len");
static_assert(offsetof(struct rte_mbuf, pool) == 56, "pool");
static_assert(RTE_PKTMBUF_HEADROOM == 128, "HEADROOM in packet.rs");

/* PRIVATE_SIZE and BUFFER_SIZE in packet.rs; dpdk/shim.rs passes them in, so that they are written down once. */
struct pollgate_pool_setup {
	uint32_t count;
	uint32_t cache_size;
	int32_t socket;
	uint16_t private_size;
	uint16_t buffer_size;
	uint8_t dense;
	const void *private_line;
};

struct pollgate_port_description {
	char driver[64];
	uint8_t mac[6];
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t max_receive_queues;
	uint16_t max_transmit_queues;
	int32_t socket;
	uint32_t min_receive_buffer;
	uint8_t hashes;
	uint8_t fast_free;
};

struct pollgate_port_setup {
	uint16_t port;
	uint16_t queue_pairs;
	uint16_t mtu;
	uint8_t hash;
	uint8_t fast_free;
};

struct pollgate_statistics {
	uint64_t received_packets;
	uint64_t received_bytes;
	uint64_t receive_missed;
	uint64_t receive_errors;
	uint64_t receive_no_buffer;
	uint64_t transmitted_packets;
	uint64_t transmitted_bytes;
	uint64_t transmit_errors;
};

/* What spreads flows over queues where the device can: addresses and ports of plain IP, which is also the outer
 * header of VXLAN, whose source port carries the inner flow's entropy (RFC 7348 section 5). */
#define POLLGATE_HASHED (RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP)

static int negative_errno(void)
{
	return rte_errno > 0 ? -rte_errno : -EIO;
}

int pollgate_eal_init(int count, char **arguments)
{
	return rte_eal_init(count, arguments) < 0 ? negative_errno() : 0;
}

const char *pollgate_version(void)
{
	return rte_version();
}

const char *pollgate_error_text(int error)
{
	return rte_strerror(error < 0 ? -error : error);
}

int pollgate_thread_register(void)
{
	return rte_thread_register() < 0 ? negative_errno() : 0;
}

void pollgate_thread_unregister(void)
{
	rte_thread_unregister();
}

/* Buffers. */

static void write_private_line(struct rte_mempool *pool, void *line, void *object, unsigned int index)
{
	(void)index;
	memcpy(rte_mbuf_to_priv(object), line, rte_pktmbuf_priv_size(pool));
}

static int fill_pool(struct rte_mempool *pool, const struct pollgate_pool_setup *setup)
{
	struct rte_pktmbuf_pool_private sizes;
	int result;

	memset(&sizes, 0, sizeof(sizes));
	sizes.mbuf_data_room_size = setup->buffer_size;
	sizes.mbuf_priv_size = setup->private_size;
	result = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (result != 0)
		return result;
	rte_pktmbuf_pool_init(pool, &sizes);
	result = rte_mempool_populate_default(pool);
	if (result < 0)
		return result;
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	rte_mempool_obj_iter(pool, write_private_line, (void *)(uintptr_t)setup->private_line);
	return 0;
}

/* As rte_pktmbuf_pool_create, which takes no flags. A dense pool lets buffers cross pages. */
struct rte_mempool *pollgate_pool_create(const char *name, const struct pollgate_pool_setup *setup, int *error)
{
	unsigned int size = sizeof(struct rte_mbuf) + setup->private_size + setup->buffer_size;
	unsigned int flags = setup->dense ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
	struct rte_mempool *pool =
		rte_mempool_create_empty(name, setup->count, size, setup->cache_size,
					 sizeof(struct rte_pktmbuf_pool_private), setup->socket, flags);

	*error = pool != NULL ? fill_pool(pool, setup) : negative_errno();
	if (*error == 0)
		return pool;
	rte_mempool_free(pool);
	return NULL;
}

uint32_t pollgate_pool_in_use(const struct rte_mempool *pool)
{
	return rte_mempool_in_use_count(pool);
}

struct rte_mbuf *pollgate_allocate(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void pollgate_free_bulk(struct rte_mbuf **packets, uint32_t count)
{
	rte_pktmbuf_free_bulk(packets, count);
}

/* Ports. */

int pollgate_port_find(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

int pollgate_port_describe(uint16_t port, struct pollgate_port_description *description)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int result = rte_eth_dev_info_get(port, &info);

	if (result == 0)
		result = rte_eth_macaddr_get(port, &mac);
	if (result != 0)
		return result;
	memset(description, 0, sizeof(*description));
	strncpy(description->driver, info.driver_name ? info.driver_name : "", sizeof(description->driver) - 1);
	memcpy(description->mac, mac.addr_bytes, sizeof(description->mac));
	description->min_mtu = info.min_mtu;
	description->max_mtu = info.max_mtu;
	description->max_receive_queues = info.max_rx_queues;
	description->max_transmit_queues = info.max_tx_queues;
	description->socket = rte_eth_dev_socket_id(port);
	description->min_receive_buffer = info.min_rx_bufsize;
	description->hashes = (info.flow_type_rss_offloads & POLLGATE_HASHED) != 0;
	description->fast_free = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE) != 0;
	return 0;
}

int pollgate_port_configure(const struct pollgate_port_setup *setup)
{
	struct rte_eth_conf configuration;
	struct rte_eth_dev_info info;
	int result = rte_eth_dev_info_get(setup->port, &info);

	if (result != 0)
		return result;
	memset(&configuration, 0, sizeof(configuration));
	configuration.rxmode.mtu = setup->mtu;
	if (setup->hash) {
		configuration.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		configuration.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & POLLGATE_HASHED;
	}
	if (setup->fast_free)
		configuration.txmode.offloads = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	return rte_eth_dev_configure(setup->port, setup->queue_pairs, setup->queue_pairs, &configuration);
}

int pollgate_port_adjust_descriptors(uint16_t port, uint16_t *receive, uint16_t *transmit)
{
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, receive, transmit);
}

/* Null for the queues' configuration means the driver's defaults plus the offloads given to configure. */
int pollgate_port_queue_setup(uint16_t port, uint16_t queue, uint16_t receive, uint16_t transmit,
			      struct rte_mempool *pool)
{
	unsigned int socket = (unsigned int)rte_eth_dev_socket_id(port);
	int result = rte_eth_rx_queue_setup(port, queue, receive, socket, NULL, pool);

	return result != 0 ? result : rte_eth_tx_queue_setup(port, queue, transmit, socket, NULL);
}

int pollgate_port_set_mtu(uint16_t port, uint16_t mtu)
{
	return rte_eth_dev_set_mtu(port, mtu);
}

int pollgate_port_promiscuous(uint16_t port)
{
	return rte_eth_promiscuous_enable(port);
}

int pollgate_port_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

/* 1 if a receive queue delivers packets in several segments, 0 if not or if the driver does not say. */
int pollgate_port_scatters(uint16_t port, uint16_t queue)
{
	struct rte_eth_rxq_info info;

	return rte_eth_rx_queue_info_get(port, queue, &info) == 0 && info.scattered_rx;
}

int pollgate_port_stop(uint16_t port)
{
	return rte_eth_dev_stop(port);
}

int pollgate_port_close(uint16_t port)
{
	return rte_eth_dev_close(port);
}

int pollgate_port_link(uint16_t port, uint32_t *speed_mbps)
{
	struct rte_eth_link link;
	int result = rte_eth_link_get_nowait(port, &link);

	if (result != 0)
		return result;
	*speed_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

int pollgate_port_statistics(uint16_t port, struct pollgate_statistics *statistics)
{
	struct rte_eth_stats stats;
	int result = rte_eth_stats_get(port, &stats);

	if (result != 0)
		return result;
	statistics->received_packets = stats.ipackets;
	statistics->received_bytes = stats.ibytes;
	statistics->receive_missed = stats.imissed;
	statistics->receive_errors = stats.ierrors;
	statistics->receive_no_buffer = stats.rx_nombuf;
	statistics->transmitted_packets = stats.opackets;
	statistics->transmitted_bytes = stats.obytes;
	statistics->transmit_errors = stats.oerrors;
	return 0;
}

uint16_t pollgate_receive(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t pollgate_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}
