/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Per-CPU objects of programs, which newer kernels have. The verifier makes the allocator ready
 * when it meets the first call of bpf_percpu_obj_new().
 */
#ifndef PV_COMPAT_PERCPU_H
#define PV_COMPAT_PERCPU_H

#include <linux/bpf_mem_alloc.h>
#include <linux/kernel.h>
#include <linux/mutex.h>

#include "symbols.h"

#ifdef PV_HAVE_PERCPU_KPTR

static inline bool pv_is_percpu_obj_new(unsigned long symbol)
{
	return symbol == (unsigned long)pv_data(bpf_percpu_obj_new_impl);
}

/* What is ready already stays. */
static inline int pv_percpu_obj_prepare(u32 size)
{
#ifdef PV_HAVE_PERCPU_PREPARE
	return pv_call(bpf_global_percpu_ma_prepare)(size);
#else
	int err = 0;

	mutex_lock(pv_data(bpf_percpu_ma_lock));
	if (!*pv_data(bpf_global_percpu_ma_set)) {
		err = pv_call(bpf_mem_alloc_percpu_init)(pv_data(bpf_global_percpu_ma), NULL);
		if (!err)
			*pv_data(bpf_global_percpu_ma_set) = true;
	}
	if (!err)
		err = pv_call(bpf_mem_alloc_percpu_unit_init)(pv_data(bpf_global_percpu_ma),
							      size);
	mutex_unlock(pv_data(bpf_percpu_ma_lock));
	return err;
#endif
}

/* For objects of all sizes: images do not tell the sizes. */
static inline int pv_percpu_obj_init(void)
{
	static const u32 sizes[] = { 16, 32, 64, 96, 128, 192, 256, 512 };
	int err = 0;
	size_t i;

	for (i = 0; !err && i < ARRAY_SIZE(sizes); i++)
		err = pv_percpu_obj_prepare(sizes[i]);
	return err;
}

#else

static inline bool pv_is_percpu_obj_new(unsigned long symbol)
{
	return false;
}

static inline int pv_percpu_obj_init(void)
{
	return 0;
}

#endif

#endif /* PV_COMPAT_PERCPU_H */
