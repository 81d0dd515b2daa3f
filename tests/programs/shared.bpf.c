/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Wants the map that maps.bpf.c pins, but a larger one. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

SEC("tc")
int other(struct __sk_buff *ctx)
{
	__u32 key = 1;

	(void)ctx;
	return bpf_map_lookup_elem(&shared, &key) != NULL;
}

char _license[] SEC("license") = "GPL";
