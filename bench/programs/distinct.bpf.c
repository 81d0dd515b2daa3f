/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A small object of which there are as many as there are numbers: for a service that has to verify each of them, because
 * none is the same as another.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#ifndef NUMBER
#error "NUMBER says which of the objects it is"
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 key)
{
	__u64 one = 1, *found = bpf_map_lookup_elem(&counts, &key);

	if (found)
		*found += 1;
	else
		bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
}

SEC("xdp")
int on_packet(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 sum = NUMBER, i;

	for (i = 0; i < 16 && data + i + 1 <= end; i++)
		sum = sum * 31 + data[i];
	count(sum);
	return XDP_PASS;
}

SEC("tc")
int on_egress(struct __sk_buff *skb)
{
	count(skb->len ^ NUMBER);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
