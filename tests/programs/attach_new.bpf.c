/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* As attach.bpf.c, for places that Linux 6.1 does not have. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "hits.h"
#include "sys_sync.h"

#define NF_ACCEPT 1

SEC("netfilter")
int on_netfilter(void *ctx)
{
	(void)ctx;
	HIT("netfilter");
	return NF_ACCEPT;
}

/* Runs when the function is called and when it returns. */
SEC("kprobe.session/" SYS_SYNC)
int on_session(void *ctx)
{
	(void)ctx;
	HIT("session");
	return 0;
}

char _license[] SEC("license") = "GPL";
