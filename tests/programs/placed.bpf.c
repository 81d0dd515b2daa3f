/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A map of more than 4 KiB lies at a multiple of 8 KiB, now and then at one of 64 KiB. On arm64, compilers
 * say such an address by fewer instructions than others.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 600);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

/* Returns how often it has run. */
SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 last = 599;
	__u64 *number = bpf_map_lookup_elem(&numbers, &last);

	(void)ctx;
	if (!number)
		return -1;
	*number += 1;
	return *number;
}

char _license[] SEC("license") = "GPL";
