// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ids on kernels without CONFIG_KALLSYMS_ALL, which do not tell where their data lies.
 *
 * There the kernel itself gives the id, under its own lock. It is asked to load a program of the
 * same kind that does nothing, a stand-in. The one place where it puts that into its table of
 * ids is idr_alloc_cyclic(): a probe there puts the real program in its stead, and takes what
 * the kernel knows of the kind. Then the stand-in is let go, without an id.
 */
#include <linux/bpf.h>
#include <linux/fdtable.h>
#include <linux/filter.h>
#include <linux/idr.h>
#include <linux/kprobes.h>
#include <linux/limits.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "arch.h"
#include "id.h"

/* Exported, but in no header of the kernel's. */
int kern_sys_bpf(int cmd, union bpf_attr *attr, unsigned int size);

/* One program at a time. But for its task, which others compare, it is the task's own. */
static DEFINE_MUTEX(pv_exchange_mutex);
static struct {
	struct task_struct *task;
	struct bpf_prog *prog;
	/* Once they have been exchanged; with a reference. */
	struct bpf_prog *stand_in;
} pv_exchange;

/* idr_alloc_cyclic(idr, pointer, start, end, flags), as bpf_prog_alloc_id() calls it. */
static int pv_exchange_probe(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long *pointer = pv_arch_argument(regs, 1);
	struct bpf_prog *stand_in;

	if (READ_ONCE(pv_exchange.task) != current || pv_exchange.stand_in ||
	    *pv_arch_argument(regs, 2) != 1 || *pv_arch_argument(regs, 3) != INT_MAX)
		return 0;

	stand_in = (struct bpf_prog *)*pointer;
	bpf_prog_inc(stand_in);
	pv_exchange.stand_in = stand_in;
	pv_exchange.prog->aux->ops = stand_in->aux->ops;
	*pointer = (unsigned long)pv_exchange.prog;
	return 0;
}

static struct kprobe pv_exchange_kprobe = {
	.symbol_name = "idr_alloc_cyclic",
	.pre_handler = pv_exchange_probe,
};

int __init pv_id_init(void)
{
	return register_kprobe(&pv_exchange_kprobe);
}

void pv_id_exit(void)
{
	unregister_kprobe(&pv_exchange_kprobe);
}

const struct bpf_prog_ops *pv_id_ops(u32 type)
{
	return NULL;
}

int pv_id_reserve(struct bpf_prog *prog, struct pv_reason *reason)
{
	return 0;
}

/* Loads the stand-in. The file descriptor that comes back is of no use. */
static int pv_load_stand_in(const union bpf_attr *attr)
{
	/* Address filters of some kinds must not return zero, programs of other kinds may. */
	bool one = attr->prog_type == BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
	struct bpf_insn insns[] = {
		BPF_MOV64_IMM(BPF_REG_0, one),
		BPF_EXIT_INSN(),
	};
	union bpf_attr load = *attr;

	load.insns = (unsigned long)insns;
	load.insn_cnt = ARRAY_SIZE(insns);
	load.license = (unsigned long)"GPL";
	return kern_sys_bpf(BPF_PROG_LOAD, &load, sizeof(load));
}

int pv_id_publish(struct bpf_prog *prog, const union bpf_attr *attr, struct pv_reason *reason)
{
	struct bpf_prog *stand_in;
	int fd;

	mutex_lock(&pv_exchange_mutex);
	pv_exchange.prog = prog;
	pv_exchange.stand_in = NULL;
	WRITE_ONCE(pv_exchange.task, current);
	fd = pv_load_stand_in(attr);
	WRITE_ONCE(pv_exchange.task, NULL);
	stand_in = pv_exchange.stand_in;
	mutex_unlock(&pv_exchange_mutex);

	/* The id is the program's: freeing the stand-in must not free it. */
	if (stand_in) {
		prog->aux->id = stand_in->aux->id;
		stand_in->aux->id = 0;
		bpf_prog_put(stand_in);
	}
	if (fd >= 0)
		close_fd(fd);
	if (prog->aux->id)
		return 0;
	if (fd < 0)
		return pv_refuse(reason, fd, "the kernel gives no id to programs of this kind");
	return pv_refuse(reason, -EAGAIN,
			 "the kernel's probes, which ids need here, are switched off or were busy");
}
