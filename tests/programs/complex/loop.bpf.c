/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* A loop that the verifier goes through a million times: its counter makes every round another state. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int loop(struct xdp_md *ctx)
{
	__u64 hash = ctx->data_end - ctx->data;
	__u32 round;

	for (round = 0; round < 250000; round++) {
		hash = hash * 31 + round;
		barrier_var(hash);
	}
	return hash & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
