// SPDX-License-Identifier: GPL-2.0-only
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/idr.h>
#include <linux/spinlock.h>

#include "id.h"
#include "symbols.h"

int __init pv_id_init(void)
{
	return 0;
}

void pv_id_exit(void)
{
}

const struct bpf_prog_ops *pv_id_ops(u32 type)
{
	return (*pv_data(bpf_prog_types))[type];
}

int pv_id_reserve(struct bpf_prog *prog, struct pv_reason *reason)
{
	int id;

	idr_preload(GFP_KERNEL);
	spin_lock_bh(pv_data(prog_idr_lock));
	id = idr_alloc_cyclic(pv_data(prog_idr), NULL, 1, INT_MAX, GFP_ATOMIC);
	spin_unlock_bh(pv_data(prog_idr_lock));
	idr_preload_end();
	if (id < 0)
		return pv_refuse(reason, id, "there is no id for the program");
	prog->aux->id = id;
	return 0;
}

static void pv_audit(const struct bpf_prog *prog)
{
	struct audit_buffer *buffer;

	if (audit_enabled == AUDIT_OFF)
		return;
	buffer = audit_log_start(audit_context(), GFP_KERNEL, AUDIT_BPF);
	if (!buffer)
		return;
	audit_log_format(buffer, "prog-id=%u op=LOAD", prog->aux->id);
	audit_log_end(buffer);
}

int pv_id_publish(struct bpf_prog *prog, const union bpf_attr *attr, struct pv_reason *reason)
{
	spin_lock_bh(pv_data(prog_idr_lock));
	idr_replace(pv_data(prog_idr), prog, prog->aux->id);
	spin_unlock_bh(pv_data(prog_idr_lock));

	pv_audit(prog);
	return 0;
}
