/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * struct bpf_prog and what is called with it, where kernels differ.
 */
#ifndef PV_COMPAT_PROGRAM_H
#define PV_COMPAT_PROGRAM_H

#include <linux/bits.h>
#include <linux/bpf.h>
#include <linux/filter.h>

#include "preverified.h"
#include "symbols.h"

/* Conclusions that this kernel has no field for; its verifier never comes to them. */
#ifdef PV_HAVE_CHANGES_PKT_DATA
#define PV_PROG_FOREIGN		0ULL
#define PV_FUNCTION_FOREIGN	0U
#else
#define PV_PROG_FOREIGN		((u64)PV_PROG_CHANGES_PKT_DATA)
#define PV_FUNCTION_FOREIGN	((u32)PV_FUNCTION_CHANGES_PKT_DATA)
#endif

static inline void pv_set_changes_pkt_data(struct bpf_prog *prog, bool changes)
{
#ifdef PV_HAVE_CHANGES_PKT_DATA
	prog->aux->changes_pkt_data = changes;
#endif
}

/* The flag of newer kernels, under its number. */
#define PV_TEST_REG_INVARIANTS	((u32)BIT(7))

static inline bool pv_is_sleepable(const struct bpf_prog *prog)
{
#ifdef PV_HAVE_PROG_SLEEPABLE
	return prog->sleepable;
#else
	return prog->aux->sleepable;
#endif
}

static inline void pv_set_sleepable(struct bpf_prog *prog, bool sleepable)
{
#ifdef PV_HAVE_PROG_SLEEPABLE
	prog->sleepable = sleepable;
#else
	prog->aux->sleepable = sleepable;
#endif
}

/* A program that may sleep now uses the map; the kernel takes it back when it frees the program. */
static inline void pv_map_use_sleepable(struct bpf_map *map)
{
#ifdef PV_HAVE_SLEEPABLE_REFCNT
	atomic64_inc(&map->sleepable_refcnt);
#endif
}

/* How many functions of the program the kernel frees. */
static inline void pv_set_owned_functions(struct bpf_prog *prog, u32 count)
{
#ifdef PV_HAVE_REAL_FUNC_CNT
	prog->aux->real_func_cnt = count;
#else
	prog->aux->func_cnt = count;
#endif
}

static inline u32 pv_owned_functions(const struct bpf_prog *prog)
{
#ifdef PV_HAVE_REAL_FUNC_CNT
	return prog->aux->real_func_cnt;
#else
	return prog->aux->func_cnt;
#endif
}

/* How many of them it tells of. Kernels that know no hidden functions have one number for both. */
static inline bool pv_set_visible_functions(struct bpf_prog *prog, u32 count)
{
#ifdef PV_HAVE_REAL_FUNC_CNT
	prog->aux->func_cnt = count;
	return true;
#else
	return prog->aux->func_cnt == count;
#endif
}

/* Whether the JIT compiler has code of its own for a helper, which it knows by number. */
static inline bool pv_jit_inlines(s32 helper)
{
#ifdef PV_HAVE_INLINED_HELPERS
	return pv_call(bpf_jit_inlines_helper_call)(helper);
#else
	return false;
#endif
}

/* Fails if the program has another map of this kind. */
static inline int pv_assign_cgroup_storage(struct bpf_prog_aux *aux, struct bpf_map *map)
{
#ifdef CONFIG_CGROUP_BPF
	return pv_call(bpf_cgroup_storage_assign)(aux, map);
#else
	return -EOPNOTSUPP;
#endif
}

static inline int pv_security_bpf(union bpf_attr *attr)
{
#ifdef CONFIG_SECURITY
	return pv_call(security_bpf)(BPF_PROG_LOAD, attr, sizeof(*attr));
#else
	return 0;
#endif
}

static inline void pv_security_prog_free(struct bpf_prog *prog)
{
#ifndef CONFIG_SECURITY
#elif defined(PV_HAVE_SECURITY_BPF_PROG_LOAD)
	pv_call(security_bpf_prog_free)(prog);
#else
	pv_call(security_bpf_prog_free)(prog->aux);
#endif
}

/* Leaves nothing to free when it fails. */
static inline int pv_security_prog_load(struct bpf_prog *prog, union bpf_attr *attr)
{
#ifndef CONFIG_SECURITY
	return 0;
#elif defined(PV_HAVE_SECURITY_BPF_PROG_LOAD)
	int err = pv_call(security_bpf_prog_load)(prog, attr, NULL);

	if (err)
		pv_security_prog_free(prog);
	return err;
#else
	return pv_call(security_bpf_prog_alloc)(prog->aux);
#endif
}

#endif /* PV_COMPAT_PROGRAM_H */
