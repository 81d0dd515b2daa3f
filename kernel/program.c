// SPDX-License-Identifier: GPL-2.0-only
/*
 * What bpf_prog_load() does around the verifier and the JIT compiler, in the same order.
 */
#include <linux/bpf.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/err.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/sched/user.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "attach.h"
#include "bytecode.h"
#include "compat/program.h"
#include "id.h"
#include "jit.h"
#include "program.h"
#include "replay.h"
#include "symbols.h"
#include "table.h"

static void pv_fill_attr(union bpf_attr *attr, const struct pv_program *record,
			 const struct pv_image *image);
static struct bpf_prog *pv_alloc(const struct pv_program *record, const struct pv_image *image,
				 struct pv_reason *reason);
static void pv_take_maps(struct bpf_prog *prog, struct pv_maps *maps);
static int pv_publish(struct bpf_prog *prog, const union bpf_attr *attr,
		      struct pv_reason *reason);

int pv_program_load(const struct pv_manifest *manifest, const struct pv_program *record,
		    const struct pv_image *image, struct pv_maps *maps, struct pv_reason *reason)
{
	union bpf_attr attr;
	struct bpf_prog *prog;
	int err;

	pv_fill_attr(&attr, record, image);
	err = pv_security_bpf(&attr);
	if (err)
		return pv_refuse(reason, err, "a security module forbids loading BPF programs");

	prog = pv_alloc(record, image, reason);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	pv_take_maps(prog, maps);

	err = pv_security_prog_load(prog, &attr);
	if (err) {
		pv_refuse(reason, err, "a security module forbids loading program %s",
			  prog->aux->name);
		goto err_prog;
	}
	err = pv_attach_target(prog, manifest, record, reason);
	if (err)
		goto err_security;
	err = pv_replay(prog, image, reason);
	if (err)
		goto err_security;
	if (pv_is_bytecode(image))
		err = pv_bytecode_compile(&prog, image, reason);
	else
		err = pv_jit(prog, image, reason);
	if (err)
		goto err_security;

	/* The code is there: what is left of this is the check of prog arrays' owners. */
	bpf_prog_select_runtime(prog, &err);
	if (err) {
		pv_refuse(reason, err,
			  "a prog array belongs to programs of another kind than program %s",
			  prog->aux->name);
		goto err_security;
	}
	err = pv_id_reserve(prog, reason);
	if (err)
		goto err_security;
	return pv_publish(prog, &attr, reason);

err_security:
	pv_security_prog_free(prog);
err_prog:
	pv_call(free_uid)(prog->aux->user);
	if (prog->aux->attach_btf)
		pv_call(btf_put)(prog->aux->attach_btf);
	bpf_prog_free(prog);
	return err;
}

/* For security modules: the call that this stands for, as far as it can be told. */
static void pv_fill_attr(union bpf_attr *attr, const struct pv_program *record,
			 const struct pv_image *image)
{
	memset(attr, 0, sizeof(*attr));
	attr->prog_type = le32_to_cpu(record->prog_type);
	attr->insn_cnt = pv_count(&image->header->xlated);
	attr->prog_flags = le32_to_cpu(record->prog_flags);
	attr->expected_attach_type = le32_to_cpu(record->expected_attach_type);
	attr->attach_btf_id = le32_to_cpu(record->attach_btf_id);
	memcpy(attr->prog_name, record->name, sizeof(attr->prog_name));
}

/* Flags that the verifier alone looked at, and two that the image repeats as conclusions. */
#define PV_KNOWN_FLAGS	\
	(BPF_F_STRICT_ALIGNMENT | BPF_F_ANY_ALIGNMENT | BPF_F_TEST_RND_HI32 |	\
	 BPF_F_TEST_STATE_FREQ | BPF_F_SLEEPABLE | BPF_F_XDP_HAS_FRAGS | PV_TEST_REG_INVARIANTS)

/* Types whose programs need nothing of the kernel but what is replayed here. */
static bool pv_type_known(u32 type)
{
	switch (type) {
	case BPF_PROG_TYPE_SOCKET_FILTER:
	case BPF_PROG_TYPE_KPROBE:
	case BPF_PROG_TYPE_SCHED_CLS:
	case BPF_PROG_TYPE_SCHED_ACT:
	case BPF_PROG_TYPE_TRACEPOINT:
	case BPF_PROG_TYPE_XDP:
	case BPF_PROG_TYPE_PERF_EVENT:
	case BPF_PROG_TYPE_CGROUP_SKB:
	case BPF_PROG_TYPE_CGROUP_SOCK:
	case BPF_PROG_TYPE_LWT_IN:
	case BPF_PROG_TYPE_LWT_OUT:
	case BPF_PROG_TYPE_LWT_XMIT:
	case BPF_PROG_TYPE_SOCK_OPS:
	case BPF_PROG_TYPE_SK_SKB:
	case BPF_PROG_TYPE_CGROUP_DEVICE:
	case BPF_PROG_TYPE_SK_MSG:
	case BPF_PROG_TYPE_RAW_TRACEPOINT:
	case BPF_PROG_TYPE_CGROUP_SOCK_ADDR:
	case BPF_PROG_TYPE_LWT_SEG6LOCAL:
	case BPF_PROG_TYPE_LIRC_MODE2:
	case BPF_PROG_TYPE_SK_REUSEPORT:
	case BPF_PROG_TYPE_FLOW_DISSECTOR:
	case BPF_PROG_TYPE_CGROUP_SYSCTL:
	case BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE:
	case BPF_PROG_TYPE_CGROUP_SOCKOPT:
	case BPF_PROG_TYPE_TRACING:
	case BPF_PROG_TYPE_LSM:
	case BPF_PROG_TYPE_SK_LOOKUP:
	case BPF_PROG_TYPE_SYSCALL:
		return true;
#if defined(PV_HAVE_NETFILTER) && defined(CONFIG_NETFILTER_BPF_LINK)
	/* It would be the array's last, and is not there without this option. */
	case BPF_PROG_TYPE_NETFILTER:
		return true;
#endif
	default:
		return false;
	}
}

static int pv_set_name(struct bpf_prog *prog, const u8 name[BPF_OBJ_NAME_LEN],
		       struct pv_reason *reason);
static int pv_set_conclusions(struct bpf_prog *prog, const struct pv_conclusions *conclusions,
			      struct pv_reason *reason);

static struct bpf_prog *pv_alloc(const struct pv_program *record, const struct pv_image *image,
				 struct pv_reason *reason)
{
	u32 type = le32_to_cpu(record->prog_type);
	u32 flags = le32_to_cpu(record->prog_flags);
	u32 length = pv_count(&image->header->xlated);
	struct bpf_prog *prog;
	int err;

	if (!pv_type_known(type))
		return ERR_PTR(pv_refuse(reason, -EOPNOTSUPP,
					 "programs of type %u are not supported", type));
	if (flags & ~PV_KNOWN_FLAGS)
		return ERR_PTR(pv_refuse(reason, -EOPNOTSUPP,
					 "program %s was loaded with flags that are not supported: %#x",
					 record->name, flags & ~PV_KNOWN_FLAGS));

	prog = bpf_prog_alloc(bpf_prog_size(length), GFP_USER | __GFP_NOWARN);
	if (!prog)
		return ERR_PTR(pv_refuse(reason, -ENOMEM, "no memory for the program"));

	prog->type = type;
	prog->expected_attach_type = le32_to_cpu(record->expected_attach_type);
	prog->len = length;
	memcpy(prog->insnsi, image->xlated, bpf_prog_insn_size(prog));

	prog->aux->ops = pv_id_ops(type);
	prog->aux->attach_btf_id = le32_to_cpu(record->attach_btf_id);
	prog->aux->load_time = ktime_get_boottime_ns();
	atomic64_set(&prog->aux->refcnt, 1);

	/* Settings of this machine that compiling would have obeyed. */
	if (!prog->jit_requested) {
		err = pv_refuse(reason, -EOPNOTSUPP,
				"net.core.bpf_jit_enable is 0: programs shall not be compiled");
		goto err_prog;
	}
	if (prog->blinding_requested && !pv_is_bytecode(image)) {
		err = pv_refuse(reason, -EOPNOTSUPP,
				"net.core.bpf_jit_harden asks for constants to be blinded");
		goto err_prog;
	}
	err = pv_set_name(prog, record->name, reason);
	if (err)
		goto err_prog;
	err = pv_set_conclusions(prog, &image->header->conclusions, reason);
	if (err)
		goto err_prog;

	prog->aux->user = get_current_user();
	return prog;

err_prog:
	bpf_prog_free(prog);
	return ERR_PTR(err);
}

/* As bpf_obj_name_cpy() allows. */
static int pv_set_name(struct bpf_prog *prog, const u8 name[BPF_OBJ_NAME_LEN],
		       struct pv_reason *reason)
{
	size_t i;

	for (i = 0; name[i]; i++) {
		if (!isalnum(name[i]) && name[i] != '_' && name[i] != '.')
			return pv_refuse(reason, -EBADMSG, "the program's name is no C identifier");
		prog->aux->name[i] = name[i];
	}
	return 0;
}

/* has_callchain_buf and the cgroup storage are set where what they stand for is done. */
static int pv_set_conclusions(struct bpf_prog *prog, const struct pv_conclusions *conclusions,
			      struct pv_reason *reason)
{
	u64 flags = le64_to_cpu(conclusions->flags);
	struct bpf_prog_aux *aux = prog->aux;

	if (flags & PV_PROG_FOREIGN)
		return pv_refuse(reason, -EBADMSG,
				 "the image has conclusions that this kernel's verifier does not draw");

	prog->gpl_compatible = !!(flags & PV_PROG_GPL_COMPATIBLE);
	prog->cb_access = !!(flags & PV_PROG_CB_ACCESS);
	prog->dst_needed = !!(flags & PV_PROG_DST_NEEDED);
	prog->kprobe_override = !!(flags & PV_PROG_KPROBE_OVERRIDE);
	prog->enforce_expected_attach_type =
		!!(flags & PV_PROG_ENFORCE_EXPECTED_ATTACH_TYPE);
	prog->call_get_stack = !!(flags & PV_PROG_CALL_GET_STACK);
	prog->call_get_func_ip = !!(flags & PV_PROG_CALL_GET_FUNC_IP);
	prog->tstamp_type_access = !!(flags & PV_PROG_TSTAMP_TYPE_ACCESS);
	pv_set_sleepable(prog, flags & PV_PROG_SLEEPABLE);
	pv_set_changes_pkt_data(prog, flags & PV_PROG_CHANGES_PKT_DATA);
	aux->attach_btf_trace = flags & PV_PROG_ATTACH_BTF_TRACE;
	aux->func_proto_unreliable = flags & PV_PROG_FUNC_PROTO_UNRELIABLE;
	aux->tail_call_reachable = flags & PV_PROG_TAIL_CALL_REACHABLE;
	aux->xdp_has_frags = flags & PV_PROG_XDP_HAS_FRAGS;
	aux->verifier_zext = flags & PV_PROG_VERIFIER_ZEXT;
	aux->max_ctx_offset = le32_to_cpu(conclusions->max_ctx_offset);
	aux->max_pkt_offset = le32_to_cpu(conclusions->max_pkt_offset);
	aux->max_tp_access = le32_to_cpu(conclusions->max_tp_access);
	aux->max_rdonly_access = le32_to_cpu(conclusions->max_rdonly_access);
	aux->max_rdwr_access = le32_to_cpu(conclusions->max_rdwr_access);
	aux->verified_insns = le32_to_cpu(conclusions->verified_insns);
	aux->stack_depth = le32_to_cpu(conclusions->stack_depth);
	memcpy(prog->tag, conclusions->tag, sizeof(prog->tag));
	return 0;
}

/* From here on the maps are put when the program is freed. */
static void pv_take_maps(struct bpf_prog *prog, struct pv_maps *maps)
{
	u32 i;

	if (pv_is_sleepable(prog))
		for (i = 0; i < maps->count; i++)
			pv_map_use_sleepable(maps->maps[i]);

	prog->aux->used_maps = maps->maps;
	prog->aux->used_map_cnt = maps->count;
	maps->maps = NULL;
	maps->count = 0;
}

/*
 * Makes the program known. It is complete before others can find it by its id: a fault in code
 * that is in no table would not be fixed up. Afterwards it belongs to whoever holds a reference.
 */
static int pv_publish(struct bpf_prog *prog, const union bpf_attr *attr,
		      struct pv_reason *reason)
{
	u32 i;
	int fd;

	for (i = 1; i < pv_owned_functions(prog); i++)
		pv_call(bpf_prog_kallsyms_add)(prog->aux->func[i]);
	pv_call(bpf_prog_kallsyms_add)(prog);

	fd = pv_id_publish(prog, attr, reason);
	if (fd)
		goto err_put;
	pv_call(perf_event_bpf_event)(prog, PERF_BPF_EVENT_PROG_LOAD, 0);

	fd = pv_call(bpf_prog_new_fd)(prog);
	if (fd < 0) {
		pv_refuse(reason, fd, "there is no file descriptor for the program");
		goto err_put;
	}
	return fd;

err_put:
	bpf_prog_put(prog);
	return fd;
}
