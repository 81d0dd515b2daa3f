/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Built into the kernel, the kernel part links against everything. Of what the kernel's headers
 * do not declare, this does.
 */
#ifndef PV_COMPAT_IN_TREE_H
#define PV_COMPAT_IN_TREE_H

#include <asm/sections.h>

#define pv_call(function)	function
#define pv_data(symbol)		(&(symbol))

u64 bpf_trace_printk(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5);
u64 bpf_trace_vprintk(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5);
void *bpf_percpu_obj_new_impl(u64 local_type_id__k, void *meta__ign);
#ifdef CONFIG_ARM64
asmlinkage void dummy_tramp(void);
#endif

static inline int pv_symbols_resolve(void)
{
	return 0;
}

#endif /* PV_COMPAT_IN_TREE_H */
