/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* 500,000 branches, one after the other: while the verifier follows the first path, as many wait for it. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int branches(struct xdp_md *ctx)
{
	__u64 size = ctx->data_end - ctx->data, random = bpf_get_prandom_u32(), count = 0;

	asm volatile(".rept 500000\n"
		     "if %[size] == %[random] goto +1\n"
		     "%[count] += 1\n"
		     ".endr\n"
		     : [count] "+r"(count)
		     : [size] "r"(size), [random] "r"(random));
	return count < size ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
