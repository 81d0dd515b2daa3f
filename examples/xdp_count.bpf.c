/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Counts what comes in, by protocol and by source, and tells of each new source.
 *
 * Every packet passes. The maps are what a user looks at:
 *   packets  - per protocol (IPv4's number of it), per CPU
 *   sources  - per source address: packets and bytes
 *   events   - ring buffer: one struct new_source for each address seen for the first time
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTOCOLS 256

struct source {
	__u64 packets;
	__u64 bytes;
};

struct new_source {
	__u64 time_ns;
	__be32 address;
	__u8 protocol;
	__u8 reserved[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __be32);
	__type(value, struct source);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

/* Packets that are not IPv4: ARP, IPv6, and whatever else there is. */
__u64 other_packets;

/* Sources that did not fit into the map, and events that did not fit into the ring buffer. */
__u64 lost_sources;
__u64 lost_events;

static void tell(__be32 address, __u8 protocol)
{
	struct new_source *event;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost_events, 1);
		return;
	}
	*event = (struct new_source) {
		.time_ns = bpf_ktime_get_ns(),
		.address = address,
		.protocol = protocol,
	};
	bpf_ringbuf_submit(event, 0);
}

static void count_source(const struct iphdr *ip, __u64 bytes)
{
	struct source first = { .packets = 1, .bytes = bytes };
	__be32 address = ip->saddr;
	struct source *source;

	source = bpf_map_lookup_elem(&sources, &address);
	if (!source) {
		/* Another CPU may have been first: then the packet is counted below. */
		if (!bpf_map_update_elem(&sources, &address, &first, BPF_NOEXIST)) {
			tell(address, ip->protocol);
			return;
		}
		source = bpf_map_lookup_elem(&sources, &address);
		if (!source) {
			__sync_fetch_and_add(&lost_sources, 1);
			return;
		}
	}
	__sync_fetch_and_add(&source->packets, 1);
	__sync_fetch_and_add(&source->bytes, bytes);
}

SEC("xdp")
int xdp_count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = data + sizeof(*ethernet);
	__u32 protocol;
	__u64 *count;

	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP)) {
		__sync_fetch_and_add(&other_packets, 1);
		return XDP_PASS;
	}

	protocol = ip->protocol;
	count = bpf_map_lookup_elem(&packets, &protocol);
	if (count)
		(*count)++;
	count_source(ip, end - data);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
