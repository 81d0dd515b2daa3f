/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Many programs: more than one verifier is worth. `rounds` says how long the verification of each of them takes. Of the
 * maps, each is used by some of the programs only.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* A constant for the verifier, since the object's section `.rodata` is frozen before the programs are loaded. */
const volatile __u32 rounds = 4;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 100);
	__type(key, __u32);
	__type(value, __u64);
} sums SEC(".maps");

struct locked {
	__u64 calls;
	struct bpf_spin_lock lock;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked);
} rarely SEC(".maps");

static __always_inline int work(__u32 number)
{
	__u64 *sum = bpf_map_lookup_elem(&sums, &number);
	__u32 round;

	if (!sum)
		return 0;
	for (round = 0; round < rounds; round++) {
		if (bpf_get_prandom_u32() & 1)
			*sum += number;
		else
			*sum += round;
	}
	return 1;
}

#define PROGRAM(number)						\
	SEC("socket") int many_##number(void *ctx)		\
	{							\
		(void)ctx;					\
		return work(1##number - 100);			\
	}

#define TEN(tens)						\
	PROGRAM(tens##0) PROGRAM(tens##1) PROGRAM(tens##2)	\
	PROGRAM(tens##3) PROGRAM(tens##4) PROGRAM(tens##5)	\
	PROGRAM(tens##6) PROGRAM(tens##7) PROGRAM(tens##8)	\
	PROGRAM(tens##9)

TEN(0) TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7)
PROGRAM(80) PROGRAM(81) PROGRAM(82) PROGRAM(83) PROGRAM(84)
PROGRAM(85) PROGRAM(86) PROGRAM(87) PROGRAM(88)

SEC("tc")
int the_last(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct locked *value = bpf_map_lookup_elem(&rarely, &key);

	(void)skb;
	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	value->calls++;
	bpf_spin_unlock(&value->lock);
	return 0;
}

char _license[] SEC("license") = "GPL";
