/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Two million instructions, each of which is executed once. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int straight(struct xdp_md *ctx)
{
	__u64 sum = ctx->data_end - ctx->data;

	asm volatile(".rept 1000000\n"
		     "%[sum] += 7\n"
		     "%[sum] ^= 5\n"
		     ".endr\n"
		     : [sum] "+r"(sum));
	return sum & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
