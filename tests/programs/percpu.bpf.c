/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Programs that find what each CPU has of its own, in ways that machine code is involved in. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} visits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} visitors SEC(".maps");

struct rq {
	int cpu;
} __attribute__((preserve_access_index));

extern const struct rq runqueues __ksym;

/* Counts in this CPU's own values, and returns its number, as three who know it say it. */
SEC("xdp")
int where(struct xdp_md *ctx)
{
	const struct rq *queue = bpf_this_cpu_ptr(&runqueues);
	__u32 cpu = bpf_get_smp_processor_id(), slot = 0, visitor = 7;
	const struct rq *same = bpf_per_cpu_ptr(&runqueues, cpu);
	__u64 none = 0, *value;

	(void)ctx;
	value = bpf_map_lookup_elem(&visits, &slot);
	if (value)
		*value += 1;
	if (!bpf_map_lookup_elem(&visitors, &visitor))
		bpf_map_update_elem(&visitors, &visitor, &none, BPF_NOEXIST);
	value = bpf_map_lookup_elem(&visitors, &visitor);
	if (value)
		*value += 1;
	if (!same)
		return -1;
	return queue->cpu * 10000 + same->cpu * 100 + cpu;
}

char _license[] SEC("license") = "GPL";
