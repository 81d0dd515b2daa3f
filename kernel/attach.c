// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/err.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "attach.h"
#include "symbols.h"
#include "table.h"

/* What a program is attached to. */
struct pv_attachment {
	struct bpf_attach_target_info info;
	/* Identifies the trampoline. */
	u64 key;
};

static bool pv_has_target(const struct bpf_prog *prog);
static int pv_find_target(struct bpf_prog *prog, struct pv_attachment *attachment,
			  struct pv_reason *reason);
static int pv_signed_target(struct bpf_prog *prog, const struct pv_manifest *manifest,
			    const struct pv_attach_target *record,
			    struct pv_attachment *attachment, struct pv_reason *reason);
static int pv_get_trampoline(struct bpf_prog *prog, struct pv_attachment *attachment,
			     struct pv_reason *reason);

int pv_attach_target(struct bpf_prog *prog, const struct pv_manifest *manifest,
		     const struct pv_program *record, struct pv_reason *reason)
{
	bool raw_tracepoint = prog->expected_attach_type == BPF_TRACE_RAW_TP;
	u32 index = le32_to_cpu(record->attach_target);
	struct pv_attachment attachment = {};
	struct bpf_prog_aux *aux = prog->aux;
	int err;

	if (!pv_has_target(prog)) {
		if (aux->attach_btf_id || aux->attach_btf_trace || index != PV_NONE)
			return pv_refuse(reason, -EBADMSG,
					 "program %s has a target, but programs of its type have none",
					 aux->name);
		return 0;
	}
	if (aux->attach_btf_trace != raw_tracepoint)
		return pv_refuse(reason, -EBADMSG,
				 "program %s has conclusions that contradict its attach type",
				 aux->name);
	if (index == PV_NONE)
		err = pv_find_target(prog, &attachment, reason);
	else
		err = pv_signed_target(prog, manifest, &manifest->attach_targets[index],
				       &attachment, reason);
	if (err)
		return err;

	switch (prog->expected_attach_type) {
	case BPF_TRACE_RAW_TP:
	case BPF_TRACE_ITER:
		return 0;
	case BPF_TRACE_FENTRY:
	case BPF_TRACE_FEXIT:
	case BPF_MODIFY_RETURN:
	case BPF_LSM_MAC:
		return pv_get_trampoline(prog, &attachment, reason);
	default:
		return pv_refuse(reason, -EOPNOTSUPP,
				 "program %s: attach type %u is not supported yet", aux->name,
				 prog->expected_attach_type);
	}
}

static bool pv_has_target(const struct bpf_prog *prog)
{
	return prog->type == BPF_PROG_TYPE_TRACING || prog->type == BPF_PROG_TYPE_LSM;
}

static int pv_get_btf(struct bpf_prog *prog, struct pv_reason *reason);
static int pv_check_iterator(struct bpf_prog *prog, const char *name,
			     struct pv_reason *reason);

/* Has the kernel find it in its own BTF. */
static int pv_find_target(struct bpf_prog *prog, struct pv_attachment *attachment,
			  struct pv_reason *reason)
{
	struct bpf_attach_target_info *info = &attachment->info;
	struct bpf_prog_aux *aux = prog->aux;
	int err;

	err = pv_get_btf(prog, reason);
	if (err)
		return err;
	err = pv_call(bpf_check_attach_target)(NULL, prog, NULL, aux->attach_btf_id, info);
	if (err)
		return pv_refuse(reason, err,
				 "program %s cannot be attached to type %u of the kernel's BTF here",
				 aux->name, aux->attach_btf_id);
	aux->attach_func_proto = info->tgt_type;
	aux->attach_func_name = info->tgt_name;
	/* bpf_trampoline_compute_key() for a function of the kernel. */
	attachment->key = (u64)pv_call(btf_obj_id)(aux->attach_btf) << 32 | 0x80000000 |
			  aux->attach_btf_id;
	return pv_check_iterator(prog, info->tgt_name, reason);
}

static int pv_get_btf(struct bpf_prog *prog, struct pv_reason *reason)
{
	struct btf *btf = pv_call(bpf_get_btf_vmlinux)();

	if (IS_ERR_OR_NULL(btf))
		return pv_refuse(reason, btf ? PTR_ERR(btf) : -ENOENT,
				 "this kernel has no BTF, which program %s is attached by",
				 prog->aux->name);
	pv_call(btf_get)(btf);
	prog->aux->attach_btf = btf;
	return 0;
}

/* It also notes the type's id, by which links find the iterator. */
static int pv_check_iterator(struct bpf_prog *prog, const char *name,
			     struct pv_reason *reason)
{
	if (prog->expected_attach_type != BPF_TRACE_ITER)
		return 0;
	if (!pv_call(bpf_iter_prog_supported)(prog))
		return pv_refuse(reason, -EINVAL, "this kernel has no iterator %s", name);
	return 0;
}

static int pv_signed_name(struct bpf_prog *prog, const char *name, struct pv_reason *reason);
static int pv_signed_function(struct bpf_prog *prog, const struct pv_attach_target *record,
			      const char *name, struct pv_attachment *attachment,
			      struct pv_reason *reason);

/*
 * Takes it from the bundle: for kernels without BTF. The program has no attach_btf then, so the
 * kernel attaches it once, to this target, and to no other.
 */
static int pv_signed_target(struct bpf_prog *prog, const struct pv_manifest *manifest,
			    const struct pv_attach_target *record,
			    struct pv_attachment *attachment, struct pv_reason *reason)
{
	const u8 *strings = manifest->strings + le32_to_cpu(record->name.first);
	char *name;
	u32 i;
	int err;

	/* Programs of one array are told apart by their targets' types, which are not here. */
	for (i = 0; i < prog->aux->used_map_cnt; i++)
		if (prog->aux->used_maps[i]->map_type == BPF_MAP_TYPE_PROG_ARRAY)
			return pv_refuse(reason, -EOPNOTSUPP,
					 "program %s has tail calls, which need the kernel's BTF in programs of its type",
					 prog->aux->name);

	name = kmemdup_nul(strings, le32_to_cpu(record->name.count), GFP_KERNEL);
	if (!name)
		return pv_refuse(reason, -ENOMEM, "no memory for the name of a target");
	if (prog->expected_attach_type == BPF_TRACE_RAW_TP ||
	    prog->expected_attach_type == BPF_TRACE_ITER)
		err = pv_signed_name(prog, name, reason);
	else
		err = pv_signed_function(prog, record, name, attachment, reason);
	kfree(name);
	return err;
}

static int pv_signed_tracepoint(struct bpf_prog *prog, const char *name,
				struct pv_reason *reason);

/* What the kernel knows by name. */
static int pv_signed_name(struct bpf_prog *prog, const char *name, struct pv_reason *reason)
{
	int err;

	if (prog->expected_attach_type == BPF_TRACE_RAW_TP)
		return pv_signed_tracepoint(prog, name, reason);

	/* Only this look-up needs the name. */
	prog->aux->attach_func_name = name;
	err = pv_check_iterator(prog, name, reason);
	prog->aux->attach_func_name = NULL;
	return err;
}

static bool pv_in_kernel(unsigned long address)
{
	return address >= pv_kernel_start() && address < pv_kernel_end();
}

/* Its link finds it by the name again, so the program gets the kernel's own copy. */
static int pv_signed_tracepoint(struct bpf_prog *prog, const char *name,
				struct pv_reason *reason)
{
	struct bpf_raw_event_map *event = pv_call(bpf_get_raw_tracepoint)(name);

	if (!event)
		return pv_refuse(reason, -ENOENT, "this kernel has no tracepoint %s", name);
	prog->aux->attach_func_name = event->tp->name;
	pv_call(bpf_put_raw_tracepoint)(event);
	if (!pv_in_kernel((unsigned long)prog->aux->attach_func_name)) {
		prog->aux->attach_func_name = NULL;
		return pv_refuse(reason, -EOPNOTSUPP, "the tracepoint %s is a module's", name);
	}
	return 0;
}

/* All that is asked of a prototype without BTF is whether the function returns anything. */
static const struct btf_type pv_returns_nothing;
static const struct btf_type pv_returns_something = { .type = 1 };

static int pv_signed_function(struct bpf_prog *prog, const struct pv_attach_target *record,
			      const char *name, struct pv_attachment *attachment,
			      struct pv_reason *reason)
{
	struct bpf_attach_target_info *info = &attachment->info;
	u64 offset = le64_to_cpu(record->address);

	if (!offset || offset >= pv_kernel_end() - pv_kernel_start())
		return pv_refuse(reason, -EBADMSG, "the function %s is outside the kernel", name);
	if (record->ret_size > sizeof(u64) && prog->expected_attach_type != BPF_TRACE_FENTRY)
		return pv_refuse(reason, -EOPNOTSUPP,
				 "the function %s returns more than 8 bytes", name);

	info->tgt_addr = pv_kernel_start() + offset;
	info->fmodel.ret_size = record->ret_size;
#ifdef PV_HAVE_RET_FLAGS
	info->fmodel.ret_flags = record->ret_flags;
#endif
	info->fmodel.nr_args = record->arg_count;
	BUILD_BUG_ON(sizeof(info->fmodel.arg_size) != sizeof(record->arg_sizes));
	BUILD_BUG_ON(sizeof(info->fmodel.arg_flags) != sizeof(record->arg_flags));
	memcpy(info->fmodel.arg_size, record->arg_sizes, sizeof(record->arg_sizes));
	memcpy(info->fmodel.arg_flags, record->arg_flags, sizeof(record->arg_flags));
	prog->aux->attach_func_proto = le32_to_cpu(record->returns) ? &pv_returns_something :
								      &pv_returns_nothing;
	/* No BTF object has the id zero: such keys are nobody else's. */
	attachment->key = 0x80000000 | offset;
	return 0;
}

static int pv_get_trampoline(struct bpf_prog *prog, struct pv_attachment *attachment,
			     struct pv_reason *reason)
{
	struct bpf_trampoline *trampoline;

	trampoline = pv_call(bpf_trampoline_get)(attachment->key, &attachment->info);
	if (!trampoline)
		return pv_refuse(reason, -ENOMEM, "no memory for a trampoline");
	prog->aux->dst_trampoline = trampoline;
	return 0;
}
