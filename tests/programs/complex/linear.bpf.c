/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What costs the verifier time and memory in proportion to the instructions that it processes: many rounds of a
 * loop whose body has no branches. Between branches it keeps no states.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Each processes 20,000 instructions: 64 million in all, unless fewer are wanted. */
const volatile __u32 rounds = 3200;

SEC("xdp")
int linear(struct xdp_md *ctx)
{
	__u64 hash = ctx->data_end - ctx->data;
	__u32 round;

	for (round = 0; round < rounds; round++)
		asm volatile(".rept 10000\n"
			     "%[hash] += 7\n"
			     "%[hash] ^= 5\n"
			     ".endr\n"
			     : [hash] "+r"(hash));
	return hash & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
