/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything of the kernel that the kernel part uses and that is not exported.
 *
 * pv_call(bpf_prog_new_fd)(prog) calls such a function; pv_data(prog_idr) is the address of
 * such data. Built into the kernel, these are what they say. A module finds what is in
 * symbol_table.h; it is ready once pv_symbols_resolve() has returned zero.
 */
#ifndef PV_SYMBOLS_H
#define PV_SYMBOLS_H

#include <linux/bpf-cgroup.h>
#include <linux/bpf.h>
#include <linux/bpf_mem_alloc.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/elf.h>
#include <linux/filter.h>
#include <linux/idr.h>
#include <linux/perf_event.h>
#include <linux/sched/user.h>
#include <linux/security.h>
#include <linux/set_memory.h>
#include <linux/spinlock.h>
#include <linux/static_call.h>
#include <linux/trace_events.h>
#include <linux/vmalloc.h>
#ifdef PV_HAVE_CFI_MODE
#include <asm/cfi.h>
#endif

#include "compat/compat.h"

#ifdef PV_IN_TREE
#include "compat/in_tree.h"
#else
#define PV_FUNCTION(function)	DECLARE_STATIC_CALL(pv_##function, function)
#define PV_DATA(type, symbol)	extern typeof(type) *pv_data_##symbol
#include "symbol_table.h"

#define pv_call(function)	static_call(pv_##function)
#define pv_data(symbol)		(pv_data_##symbol)

/* Finds what this module's role needs; names in the kernel's log what is missing. */
int pv_symbols_resolve(void);
#endif

/*
 * The kernel image; its symbols are told by their distance from where it starts. If the kernel
 * names no data, then it is the part that it does name: functions.
 */
static inline unsigned long pv_kernel_start(void)
{
#ifdef PV_HAVE_DATA
	return (unsigned long)pv_data(_text);
#else
	return (unsigned long)pv_data(_stext);
#endif
}

static inline unsigned long pv_kernel_end(void)
{
#ifdef PV_HAVE_DATA
	return (unsigned long)pv_data(_end);
#else
	return (unsigned long)pv_data(_etext);
#endif
}

#endif /* PV_SYMBOLS_H */
