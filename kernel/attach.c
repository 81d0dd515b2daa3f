// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/err.h>

#include "attach.h"
#include "symbols.h"

static bool pv_has_target(const struct bpf_prog *prog);
static int pv_get_btf(struct bpf_prog *prog, struct pv_reason *reason);
static int pv_get_trampoline(struct bpf_prog *prog, struct bpf_attach_target_info *target,
			     struct pv_reason *reason);

int pv_attach_target(struct bpf_prog *prog, struct pv_reason *reason)
{
	bool raw_tracepoint = prog->expected_attach_type == BPF_TRACE_RAW_TP;
	struct bpf_attach_target_info target = {};
	struct bpf_prog_aux *aux = prog->aux;
	int err;

	if (!pv_has_target(prog)) {
		if (aux->attach_btf_id || aux->attach_btf_trace)
			return pv_refuse(reason, -EBADMSG,
					 "program %s has a target, but programs of its type have none",
					 aux->name);
		return 0;
	}
	err = pv_get_btf(prog, reason);
	if (err)
		return err;
	err = pv_call(bpf_check_attach_target)(NULL, prog, NULL, aux->attach_btf_id, &target);
	if (err)
		return pv_refuse(reason, err,
				 "program %s cannot be attached to type %u of the kernel's BTF here",
				 aux->name, aux->attach_btf_id);
	aux->attach_func_proto = target.tgt_type;
	aux->attach_func_name = target.tgt_name;

	if (aux->attach_btf_trace != raw_tracepoint)
		return pv_refuse(reason, -EBADMSG,
				 "program %s has conclusions that contradict its attach type",
				 aux->name);

	switch (prog->expected_attach_type) {
	case BPF_TRACE_RAW_TP:
		return 0;
	case BPF_TRACE_ITER:
		/* It also notes the type's id, by which links find the iterator. */
		if (!pv_call(bpf_iter_prog_supported)(prog))
			return pv_refuse(reason, -EINVAL, "this kernel has no iterator %s",
					 aux->attach_func_name);
		return 0;
	case BPF_TRACE_FENTRY:
	case BPF_TRACE_FEXIT:
	case BPF_MODIFY_RETURN:
	case BPF_LSM_MAC:
		return pv_get_trampoline(prog, &target, reason);
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

static int pv_get_trampoline(struct bpf_prog *prog, struct bpf_attach_target_info *target,
			     struct pv_reason *reason)
{
	/* bpf_trampoline_compute_key() for a function of the kernel. */
	u64 key = (u64)pv_call(btf_obj_id)(prog->aux->attach_btf) << 32 | 0x80000000 |
		  prog->aux->attach_btf_id;
	struct bpf_trampoline *trampoline;

	trampoline = pv_call(bpf_trampoline_get)(key, target);
	if (!trampoline)
		return pv_refuse(reason, -ENOMEM, "no memory for a trampoline");
	prog->aux->dst_trampoline = trampoline;
	return 0;
}
