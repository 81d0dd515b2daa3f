// SPDX-License-Identifier: GPL-2.0-only
/*
 * What jit_subprogs() and bpf_int_jit_compile() leave behind, without compiling.
 */
#include <linux/bpf.h>
#include <linux/err.h>
#include <linux/extable.h>
#include <linux/filter.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "arch.h"
#include "compat/memory.h"
#include "compat/program.h"
#include "functions.h"
#include "jit.h"
#include "relocate.h"
#include "symbols.h"
#include "table.h"

/* A program in the making. */
struct pv_build {
	struct bpf_prog *prog;
	const struct pv_image *image;
	u32 count;
	struct pv_memory *memory;
	/* Where the functions are going to run. */
	u8 **code;
};

static int pv_build_alloc(struct pv_build *build);
static void pv_build_free(struct pv_build *build);
static int pv_alloc_memory(struct pv_build *build, struct pv_reason *reason);
static int pv_write_code(struct pv_build *build, struct pv_reason *reason);
static void pv_locate_pokes(const struct pv_build *build);
static int pv_finish_code(struct pv_build *build, struct pv_reason *reason);
static void pv_finish_pokes(struct bpf_prog *prog);

int pv_jit(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason)
{
	struct pv_build build = {
		.prog = prog,
		.image = image,
		.count = pv_count(&image->header->functions),
	};
	int err;

	err = pv_build_alloc(&build);
	if (err)
		return pv_refuse(reason, err, "no memory for the program's functions");
	err = pv_functions_add(prog, image, reason);
	if (err)
		goto out;
	err = pv_alloc_memory(&build, reason);
	if (err)
		goto out;
	err = pv_write_code(&build, reason);
	if (err)
		goto out;
	err = pv_pokes_add(prog, image, reason);
	if (err)
		goto out;
	pv_locate_pokes(&build);
	err = pv_finish_code(&build, reason);
	if (err)
		goto out;
	pv_finish_pokes(prog);
	pv_functions_finish(prog);
out:
	pv_build_free(&build);
	return err;
}

static int pv_build_alloc(struct pv_build *build)
{
	build->memory = kcalloc(build->count, sizeof(*build->memory), GFP_KERNEL);
	build->code = kcalloc(build->count, sizeof(*build->code), GFP_KERNEL);
	if (build->memory && build->code)
		return 0;
	pv_build_free(build);
	return -ENOMEM;
}

static void pv_build_free(struct pv_build *build)
{
	u32 i;

	for (i = 0; build->memory && i < build->count; i++)
		if (build->memory[i].header)
			pv_memory_free(&build->memory[i]);
	kfree(build->memory);
	kfree(build->code);
}

/* All functions first: each can refer to each. */
static int pv_alloc_memory(struct pv_build *build, struct pv_reason *reason)
{
	const struct pv_function *record = build->image->functions;
	u32 i, size;

	for (i = 0; i < build->count; i++) {
		size = pv_arch_extable_offset(le32_to_cpu(record[i].code.count)) +
		       le32_to_cpu(record[i].extable.count) *
			       sizeof(struct exception_table_entry);
		build->code[i] = pv_memory_alloc(&build->memory[i], size);
		if (!build->code[i])
			return pv_refuse(reason, -ENOMEM,
					 "no executable memory for %u bytes of code", size);
	}
	return 0;
}

static void pv_write_extable(const struct pv_build *build, u32 function);
static int pv_check_pokes(const struct pv_build *build, struct pv_reason *reason);

static int pv_write_code(struct pv_build *build, struct pv_reason *reason)
{
	const struct pv_image *image = build->image;
	const struct pv_addresses addresses = {
		.image = image,
		.maps = build->prog->aux->used_maps,
		.functions = build->code,
		.aux = build->prog->aux,
	};
	int err;
	u32 i;

	for (i = 0; i < build->count; i++) {
		const struct pv_range *code = &image->functions[i].code;
		u32 size = le32_to_cpu(code->count);
		u8 *writable = build->memory[i].writable;

		memcpy(writable, image->code + le32_to_cpu(code->first), size);
		if (!pv_arch_code_good(writable, size))
			return pv_refuse(reason, -EBADMSG,
					 "function %u of the image does not end as code does here",
					 i);
		err = pv_relocate(writable, i, &addresses, reason);
		if (err)
			return err;
		pv_arch_write_trailer(writable, size);
		pv_write_extable(build, i);
		cond_resched();
	}
	return pv_check_pokes(build, reason);
}

static struct exception_table_entry *pv_extable_at(const struct pv_build *build, u8 *code,
						   u32 function)
{
	u32 size = le32_to_cpu(build->image->functions[function].code.count);

	return (struct exception_table_entry *)(code + pv_arch_extable_offset(size));
}

static void pv_write_extable(const struct pv_build *build, u32 function)
{
	const struct pv_range *range = &build->image->functions[function].extable;
	const struct pv_extable *records = build->image->extable + le32_to_cpu(range->first);
	u8 *code = build->code[function];
	u32 i;

	for (i = 0; i < le32_to_cpu(range->count); i++)
		pv_arch_write_exception(pv_extable_at(build, build->memory[function].writable,
						      function) + i,
					pv_extable_at(build, code, function) + i, code,
					&records[i]);
}

/* Their prog arrays are checked where the program gets its descriptors. */
static int pv_check_pokes(const struct pv_build *build, struct pv_reason *reason)
{
	u32 i, function;

	for (i = 0; i < pv_count(&build->image->header->pokes); i++) {
		const struct pv_poke *poke = &build->image->pokes[i];

		function = le32_to_cpu(poke->function);
		if (function >= build->count || le32_to_cpu(poke->adjust) > U8_MAX ||
		    !pv_arch_poke_good(build->memory[function].writable,
				       le32_to_cpu(build->image->functions[function].code.count),
				       poke))
			return pv_refuse(reason, -EBADMSG, "tail call %u of the image is malformed",
					 i);
	}
	return 0;
}

/* Nobody patches them yet: they are not marked as stable. */
static void pv_locate_pokes(const struct pv_build *build)
{
	const struct bpf_prog_aux *aux = build->prog->aux;
	u32 i;

	for (i = 0; i < aux->size_poke_tab; i++) {
		const struct pv_poke *record = &build->image->pokes[i];
		struct bpf_jit_poke_descriptor *poke = &aux->poke_tab[i];
		u8 *code = build->code[le32_to_cpu(record->function)];

		poke->tailcall_target = code + le32_to_cpu(record->target);
		poke->tailcall_bypass = code + le32_to_cpu(record->bypass);
		poke->bypass_addr = code + le32_to_cpu(record->bypass_target);
		poke->adj_off = le32_to_cpu(record->adjust);
	}
}

/* From here on the functions' owners free the code. */
static int pv_finish_code(struct pv_build *build, struct pv_reason *reason)
{
	u32 i;
	int err;

	for (i = 0; i < build->count; i++) {
		const struct pv_function *record = &build->image->functions[i];
		struct bpf_prog *owner = pv_function_owner(build->prog, i);
		u32 size = le32_to_cpu(record->code.count);

		err = pv_memory_finish(owner, &build->memory[i], build->code[i] + size);
		if (err)
			return pv_refuse(reason, err, "the code cannot be made executable");

		owner->bpf_func = (void *)build->code[i];
		owner->jited_len = size;
		owner->jited = 1;
		owner->aux->num_exentries = le32_to_cpu(record->extable.count);
		owner->aux->extable = pv_extable_at(build, build->code[i], i);
		cond_resched();
	}
	return 0;
}

/* bpf_tail_call_direct_fixup(): what prog arrays hold now; later they tell of changes. */
static void pv_finish_pokes(struct bpf_prog *prog)
{
	struct bpf_jit_poke_descriptor *poke;
	struct bpf_prog *target;
	struct bpf_array *array;
	u32 i;

	for (i = 0; i < prog->aux->size_poke_tab; i++) {
		poke = &prog->aux->poke_tab[i];
		array = container_of(poke->tail_call.map, struct bpf_array, map);

		mutex_lock(&array->aux->poke_mutex);
		target = array->ptrs[poke->tail_call.key];
		if (target)
			pv_call(bpf_arch_poke_desc_update)(poke, target, NULL);
		WRITE_ONCE(poke->tailcall_target_stable, true);
		mutex_unlock(&array->aux->poke_mutex);
	}
}
