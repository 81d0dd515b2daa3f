/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* A prog array that is filled from the start, in a slot that kernels of 32 bits do not show. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

int landed(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} landings SEC(".maps") = {
	.values = { [1] = (void *)&landed },
};

SEC("xdp")
int landed(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

SEC("xdp")
int jumps(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &landings, 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
