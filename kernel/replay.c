// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/bpf-cgroup.h>
#include <linux/filter.h>
#include <linux/perf_event.h>

#include "compat/percpu.h"
#include "compat/program.h"
#include "replay.h"
#include "symbols.h"

static int pv_replay_symbols(const struct pv_image *image, struct pv_reason *reason);
static int pv_replay_callchain(struct bpf_prog *prog, const struct pv_image *image,
			       struct pv_reason *reason);
static int pv_replay_cgroup_storage(struct bpf_prog *prog, const struct pv_image *image,
				    struct pv_reason *reason);

int pv_replay(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason)
{
	int err;

	/* bpf_get_prandom_u32() returns a constant without it. */
	pv_call(bpf_user_rnd_init_once)();

	err = pv_replay_symbols(image, reason);
	if (err)
		return err;
	err = pv_replay_callchain(prog, image, reason);
	if (err)
		return err;
	return pv_replay_cgroup_storage(prog, image, reason);
}

/* What the verifier does when it meets a call of one of these. */
static int pv_replay_symbols(const struct pv_image *image, struct pv_reason *reason)
{
	u32 count = le32_to_cpu(image->header->symbol_count);
	int err;
	u32 i;

	for (i = 0; i < count; i++) {
		unsigned long symbol = pv_image_symbol(image, i);

		/* It enables the tracing event that these print to. */
		if (symbol == (unsigned long)pv_data(bpf_trace_printk) ||
		    symbol == (unsigned long)pv_data(bpf_trace_vprintk))
			pv_call(bpf_get_trace_printk_proto)();

		if (pv_is_percpu_obj_new(symbol)) {
			err = pv_percpu_obj_init();
			if (err)
				return pv_refuse(reason, err, "no memory for per-CPU objects");
		}
	}
	return 0;
}

/* bpf_get_stack() and its like write into them. */
static int pv_replay_callchain(struct bpf_prog *prog, const struct pv_image *image,
			       struct pv_reason *reason)
{
	int err;

	if (!(le64_to_cpu(image->header->conclusions.flags) & PV_PROG_HAS_CALLCHAIN_BUF))
		return 0;
	/* They are as large as the system allows, whatever is asked for within that. */
	err = pv_call(get_callchain_buffers)(0);
	if (err)
		return pv_refuse(reason, err, "there are no buffers for call chains");
	prog->has_callchain_buf = 1;
	return 0;
}

/* At most one map of each kind holds a program's storage in cgroups. */
static int pv_replay_cgroup_storage(struct bpf_prog *prog, const struct pv_image *image,
				    struct pv_reason *reason)
{
	const __le32 *indices = image->header->conclusions.cgroup_storage;
	struct bpf_prog_aux *aux = prog->aux;
	struct bpf_map *expected;
	u32 i, index;

	for (i = 0; i < aux->used_map_cnt; i++) {
		struct bpf_map *map = aux->used_maps[i];

		if (map->map_type != BPF_MAP_TYPE_CGROUP_STORAGE &&
		    map->map_type != BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE)
			continue;
		if (pv_assign_cgroup_storage(aux, map))
			return pv_refuse(reason, -EBADMSG,
					 "the program has two maps for storage in cgroups");
	}
	for (i = 0; i < ARRAY_SIZE(image->header->conclusions.cgroup_storage); i++) {
		index = le32_to_cpu(indices[i]);
		expected = index < aux->used_map_cnt ? aux->used_maps[index] : NULL;
		if ((index != PV_NONE && !expected) || aux->cgroup_storage[i] != expected)
			return pv_refuse(reason, -EBADMSG,
					 "the image names other maps for storage in cgroups");
	}
	return 0;
}
