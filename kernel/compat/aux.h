/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What struct bpf_prog and struct bpf_prog_aux have in newer kernels only. Where a kernel lacks
 * it, the answer is what that kernel behaves like.
 */
#ifndef PV_COMPAT_AUX_H
#define PV_COMPAT_AUX_H

#include <linux/bpf.h>
#include <linux/filter.h>

static inline bool pv_is_sleepable(const struct bpf_prog *prog)
{
#ifdef PV_HAVE_PROG_SLEEPABLE
	return prog->sleepable;
#else
	return prog->aux->sleepable;
#endif
}

/* Functions, those that the kernel adds and hides included; zero if there is only the main one. */
static inline u32 pv_real_function_count(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_REAL_FUNC_CNT
	return aux->real_func_cnt;
#else
	return aux->func_cnt;
#endif
}

static inline bool pv_has_exceptions(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_EXCEPTIONS
	return aux->exception_cb || aux->exception_boundary;
#else
	return false;
#endif
}

static inline bool pv_changes_pkt_data(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_CHANGES_PKT_DATA
	return aux->changes_pkt_data;
#else
	return false;
#endif
}

static inline bool pv_has_arena(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_ARENA
	return aux->arena;
#else
	return false;
#endif
}

static inline bool pv_has_token(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_TOKEN
	return aux->token;
#else
	return false;
#endif
}

static inline bool pv_is_device_bound(const struct bpf_prog_aux *aux)
{
#ifdef PV_HAVE_DEV_BOUND
	if (aux->dev_bound)
		return true;
#endif
	return aux->offload_requested;
}

#endif /* PV_COMPAT_AUX_H */
