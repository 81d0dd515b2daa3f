/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Functions with loops in loops: the verifier goes through a static function at each of its calls. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

static __noinline __u64 mix(__u64 hash, __u32 rounds)
{
	__u32 round;

	for (round = 0; round < 50 && round < rounds; round++) {
		hash = hash * 31 + round;
		barrier_var(hash);
	}
	return hash;
}

static __noinline __u64 row(__u64 hash)
{
	__u32 column;

	for (column = 0; column < 60; column++)
		hash = mix(hash, column) + mix(hash, 60 - column);
	return hash;
}

SEC("xdp")
int calls(struct xdp_md *ctx)
{
	__u64 hash = ctx->data_end - ctx->data;
	__u32 line;

	for (line = 0; line < 60; line++)
		hash = row(hash);
	return hash & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
