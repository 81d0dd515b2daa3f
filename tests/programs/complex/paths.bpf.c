/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Eighteen branches, each of which makes another sum: 262,144 paths, and no two of them meet in one state. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define SUM_BITS 18
#include "../sums.h"

SEC("xdp")
int paths(struct xdp_md *ctx)
{
	struct bytes *bytes;
	__u64 sum = 0, bits;
	__u32 key = 0;

	bits = ctx->data_end - ctx->data;
	bytes = bpf_map_lookup_elem(&table, &key);
	if (!bytes)
		return XDP_ABORTED;
	BRANCH(0); BRANCH(1); BRANCH(2); BRANCH(3); BRANCH(4); BRANCH(5); BRANCH(6); BRANCH(7);
	BRANCH(8); BRANCH(9); BRANCH(10); BRANCH(11); BRANCH(12); BRANCH(13); BRANCH(14); BRANCH(15);
	BRANCH(16); BRANCH(17);
	bytes->at[sum]++;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
