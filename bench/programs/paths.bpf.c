/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A program whose number of paths is chosen, and whose size is not: 14 branches, each on a random bit.
 *
 * The first PATH_BITS of them add to an offset that must be known exactly in the end, because it is added to a
 * pointer: so the verifier cannot merge what comes from the two sides, and walks 2^PATH_BITS paths. The others add to
 * a number that is only stored: there it merges. The instructions are the same, whatever PATH_BITS is.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#ifndef PATH_BITS
#error "PATH_BITS says how many branches multiply paths: 0 to 13"
#endif

struct bytes {
	__u64 vague;
	__u8 at[1 << 13];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bytes);
} table SEC(".maps");

#define BRANCH(n, sum)							\
	asm volatile("if %[bits] & %[bit] goto +1\n"			\
		     "%[to] += %[bit]\n"				\
		     : [to] "+r"(sum)					\
		     : [bits] "r"(bits), [bit] "i"(1 << (n)))

#define STEP(n)								\
	do {								\
		if ((n) < PATH_BITS)					\
			BRANCH(n, exact);				\
		else							\
			BRANCH(n, vague);				\
	} while (0)

SEC("xdp")
int paths(struct xdp_md *ctx)
{
	__u64 exact = 0, vague = 0;
	struct bytes *bytes;
	__u64 bits;
	__u32 key = 0;

	(void)ctx;
	bytes = bpf_map_lookup_elem(&table, &key);
	if (!bytes)
		return XDP_ABORTED;
	bits = bpf_get_prandom_u32();

	STEP(0);
	STEP(1);
	STEP(2);
	STEP(3);
	STEP(4);
	STEP(5);
	STEP(6);
	STEP(7);
	STEP(8);
	STEP(9);
	STEP(10);
	STEP(11);
	STEP(12);
	STEP(13);

	bytes->at[exact]++;
	bytes->vague = vague;
	/* Where it is attached, a ping shows that it runs. */
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
