/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* So many paths that the verifier needs many seconds, until it gives up. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define SUM_BITS 20
#include "sums.h"

SEC("xdp")
int endless(struct xdp_md *ctx)
{
	struct bytes *bytes;
	__u64 sum = 0, bits;
	__u32 key = 0;

	(void)ctx;
	bytes = bpf_map_lookup_elem(&table, &key);
	if (!bytes)
		return XDP_ABORTED;
	bits = bpf_get_prandom_u32();
	BRANCH(0); BRANCH(1); BRANCH(2); BRANCH(3); BRANCH(4); BRANCH(5); BRANCH(6);
	BRANCH(7); BRANCH(8); BRANCH(9); BRANCH(10); BRANCH(11); BRANCH(12); BRANCH(13);
	BRANCH(14); BRANCH(15); BRANCH(16); BRANCH(17); BRANCH(18);
	bytes->at[sum]++;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
