/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Programs that use every kind of thing that a device must check before it loads them. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sums SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 16);
	__type(value, __u32);
	__uint(map_extra, 3);
} seen SEC(".maps");

/* The verifier takes it for a constant. */
const volatile __u32 steps = 3;

static long add(__u32 index, void *context)
{
	*(__u64 *)context += index;
	return 0;
}

SEC("xdp")
int on_packet(struct xdp_md *ctx)
{
	__u64 sum = 0, one = 1, *value;
	__u32 key = 0;

	(void)ctx;
	bpf_loop(steps, add, &sum, 0);
	value = bpf_map_lookup_elem(&counts, &key);
	if (value)
		__sync_fetch_and_add(value, 1);
	else
		bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
	value = bpf_map_lookup_elem(&sums, &key);
	if (value)
		__sync_fetch_and_add(value, sum);
	bpf_map_push_elem(&seen, &key, BPF_ANY);
	return sum == 3 ? XDP_PASS : XDP_DROP;
}

SEC("kprobe/do_nanosleep")
int on_sleep(void *ctx)
{
	__u64 one = 1;
	__u32 key = 1;

	(void)ctx;
	bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
