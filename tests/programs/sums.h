/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Branches, each of which adds another bit to a sum that must be known exactly in the end, because it is added to a
 * pointer: so there are as many paths as sums, and no two of them meet in one state. The sum is below 1 << SUM_BITS.
 */
#ifndef SUMS_H
#define SUMS_H

struct bytes {
	__u8 at[1 << SUM_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bytes);
} table SEC(".maps");

#define BRANCH(n)							\
	asm volatile("if %[bits] & %[bit] goto +1\n"			\
		     "%[sum] += %[bit]\n"				\
		     : [sum] "+r"(sum)					\
		     : [bits] "r"(bits), [bit] "i"(1 << (n)))

#endif
