/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What it returns is decided by whoever loads it. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sized SEC(".maps");

const volatile __u32 wanted = 1;
__u32 started = 2;

SEC("xdp")
int returns_what_is_wanted(struct xdp_md *ctx)
{
	__u64 one = 1;
	__u32 key = started;

	(void)ctx;
	bpf_map_update_elem(&sized, &key, &one, BPF_ANY);
	return wanted * 10 + started;
}

SEC("xdp")
int left_out(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
