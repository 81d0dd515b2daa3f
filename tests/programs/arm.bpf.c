/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the JIT compiler of 32-bit arm compiles, and what it does not. What the former programs return depends on
 * the packet, and on how often they have run.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define EXIT_IF_SHORT(ctx, data)			\
	__u8 *data = (void *)(long)(ctx)->data;		\
	if ((void *)(data + 8) > (void *)(long)(ctx)->data_end)	\
		return 0

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sums SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} percpu SEC(".maps");

/* The verifier takes it for a constant. */
const volatile __u32 factor = 3;
__u64 seed = 0x100000007;
__u64 runs;

SEC("xdp")
int counts(struct xdp_md *ctx)
{
	__u64 *sum, *times, first = 1;
	__u32 *last, key, slot = 1;

	EXIT_IF_SHORT(ctx, data);
	runs++;
	key = data[0];
	times = bpf_map_lookup_elem(&seen, &key);
	if (times)
		(*times)++;
	else
		bpf_map_update_elem(&seen, &key, &first, BPF_NOEXIST);
	last = bpf_map_lookup_elem(&percpu, &slot);
	if (last)
		*last = data[1];
	sum = bpf_map_lookup_elem(&sums, &slot);
	if (!sum)
		return 0;
	*sum += seed * factor + ((__u64)data[2] << 40);
	return *sum ^ *sum >> 32;
}

/* No reference to anything, and numbers of 64 bits in registers of 32. */
SEC("xdp")
int computes(struct xdp_md *ctx)
{
	__u64 number;

	EXIT_IF_SHORT(ctx, data);
	number = *(__u64 *)data;
	number ^= 0x1122334455667788 * (number | 1);
	number -= (__s64)number >> 13;
	number ^= (__u64)((__u32)number / 1000003) << 31;
	number += __builtin_bswap64(number);
	if ((__s64)number < 0)
		number = ~number;
	return number ^ number >> 32;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} landings SEC(".maps");

/* Nothing is there. */
SEC("xdp")
int jumps(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	bpf_tail_call(ctx, &landings, 1);
	bpf_tail_call(ctx, &landings, data[0]);
	return 77;
}

static __noinline __u64 mix(__u64 a, __u64 b)
{
	return (a ^ 0x5555) * 31 + b;
}

/* It would be interpreted. */
SEC("xdp")
int calls_function(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	return mix(data[0], mix(data[1], data[2]));
}

/* The next two would be, or are not taken at all: that depends on the kernel's version. */
SEC("xdp")
int adds_atomically(struct xdp_md *ctx)
{
	(void)ctx;
	__sync_fetch_and_add(&runs, 1);
	return XDP_PASS;
}

SEC("xdp")
int divides_wide(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	return *(__u64 *)data / 1000003;
}

char _license[] SEC("license") = "GPL";
