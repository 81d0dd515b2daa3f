// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "compat/program.h"
#include "functions.h"
#include "symbols.h"
#include "table.h"

static struct bpf_prog *pv_new_function(const struct bpf_prog *prog, const struct pv_image *image,
					u32 index);

/* The program frees the array, too, but only if there is one function at least. */
int pv_functions_add(struct bpf_prog *prog, const struct pv_image *image,
		     struct pv_reason *reason)
{
	u32 visible = le32_to_cpu(image->header->conclusions.visible_functions);
	u32 count = pv_count(&image->header->functions);
	struct bpf_prog **functions;
	u32 i;

	if (count == 1)
		return 0;

	functions = kcalloc(count, sizeof(*functions), GFP_KERNEL);
	if (!functions)
		return pv_refuse(reason, -ENOMEM, "no memory for the program's functions");
	for (i = 0; i < count; i++) {
		functions[i] = pv_new_function(prog, image, i);
		if (!functions[i])
			goto err_functions;
		prog->aux->func = functions;
		pv_set_owned_functions(prog, i + 1);
	}
	for (i = 0; i < count; i++) {
		functions[i]->aux->func = functions;
		pv_set_owned_functions(functions[i], count);
		if (!pv_set_visible_functions(functions[i], visible))
			return pv_refuse(reason, -EBADMSG,
					 "the image hides functions, which this kernel cannot");
	}
	pv_set_visible_functions(prog, visible);
	return 0;

err_functions:
	if (!i)
		kfree(functions);
	return pv_refuse(reason, -ENOMEM, "no memory for the program's functions");
}

static struct bpf_prog *pv_new_function(const struct bpf_prog *prog, const struct pv_image *image,
					u32 index)
{
	const struct pv_function *record = &image->functions[index];
	u32 flags = le32_to_cpu(record->flags);
	struct bpf_prog *function;
	u32 length = 0;

	if (pv_is_bytecode(image))
		length = le32_to_cpu(record->code.count) / sizeof(struct bpf_insn);
	function = pv_call(bpf_prog_alloc_no_stats)(bpf_prog_size(length),
						    GFP_USER | __GFP_NOWARN);
	if (!function)
		return NULL;
	function->type = prog->type;
	function->len = length;
	function->is_func = 1;
	function->jit_requested = 1;
	function->blinding_requested = prog->blinding_requested;
	pv_set_sleepable(function, pv_is_sleepable(prog));
	pv_set_changes_pkt_data(function, flags & PV_FUNCTION_CHANGES_PKT_DATA);
	memcpy(function->tag, record->tag, sizeof(function->tag));
	function->aux->func_idx = index;
	/* As the kernel names functions without BTF. */
	function->aux->name[0] = 'F';
	function->aux->stack_depth = le32_to_cpu(record->stack_depth);
	function->aux->tail_call_reachable = flags & PV_FUNCTION_TAIL_CALL_REACHABLE;
	return function;
}

struct bpf_prog *pv_function_owner(struct bpf_prog *prog, u32 function)
{
	return prog->aux->func ? prog->aux->func[function] : prog;
}

static bool pv_poke_good(const struct bpf_prog_aux *aux, const struct pv_image *image,
			 const struct pv_poke *poke)
{
	u32 map = le32_to_cpu(poke->map);

	return le32_to_cpu(poke->function) < pv_count(&image->header->functions) &&
	       map < aux->used_map_cnt &&
	       aux->used_maps[map]->map_type == BPF_MAP_TYPE_PROG_ARRAY &&
	       le32_to_cpu(poke->key) < aux->used_maps[map]->max_entries;
}

int pv_pokes_add(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason)
{
	u32 count = pv_count(&image->header->pokes);
	struct bpf_jit_poke_descriptor *poke;
	struct bpf_prog_aux *aux = prog->aux;
	struct bpf_map *map;
	u32 i;
	int err;

	if (!count)
		return 0;

	aux->poke_tab = kcalloc(count, sizeof(*aux->poke_tab), GFP_KERNEL);
	if (!aux->poke_tab)
		return pv_refuse(reason, -ENOMEM, "no memory for the program's tail calls");
	for (i = 0; i < count; i++) {
		const struct pv_poke *record = &image->pokes[i];

		if (!pv_poke_good(aux, image, record))
			return pv_refuse(reason, -EBADMSG, "tail call %u of the image is malformed",
					 i);
		poke = &aux->poke_tab[i];
		poke->aux = pv_function_owner(prog, le32_to_cpu(record->function))->aux;
		poke->tail_call.map = aux->used_maps[le32_to_cpu(record->map)];
		poke->tail_call.key = le32_to_cpu(record->key);
		poke->reason = BPF_POKE_REASON_TAIL_CALL;
		poke->insn_idx = le32_to_cpu(record->insn_idx);
	}
	aux->size_poke_tab = count;
	for (i = 0; aux->func && i < pv_owned_functions(prog); i++) {
		aux->func[i]->aux->poke_tab = aux->poke_tab;
		aux->func[i]->aux->size_poke_tab = count;
	}

	for (i = 0; i < count; i++) {
		map = aux->poke_tab[i].tail_call.map;
		err = map->ops->map_poke_track(map, aux);
		if (err)
			return pv_refuse(reason, err, "no memory for the program's tail calls");
	}
	return 0;
}

void pv_functions_finish(struct bpf_prog *prog)
{
	const struct bpf_prog *first = pv_function_owner(prog, 0);

	if (first == prog)
		return;
	prog->bpf_func = first->bpf_func;
	prog->jited_len = first->jited_len;
	prog->jited = 1;
	prog->aux->num_exentries = first->aux->num_exentries;
	prog->aux->extable = first->aux->extable;
}
