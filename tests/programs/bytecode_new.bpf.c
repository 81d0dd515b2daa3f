/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* As bytecode.bpf.c, with what Linux 6.1 does not have. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

/* An address of the kernel where nothing is: the fault must be handled. */
static __noinline int read_nothing(__u64 nowhere)
{
	struct task_struct *task;

	task = bpf_rdonly_cast((void *)nowhere, bpf_core_type_id_kernel(struct task_struct));
	return task->pid;
}

SEC("xdp")
int faults(struct xdp_md *ctx)
{
	struct task_struct *task;

	(void)ctx;
	task = bpf_rdonly_cast((void *)0xfffff00000001000,
			       bpf_core_type_id_kernel(struct task_struct));
	return 40 + task->pid;
}

SEC("xdp")
int functions_fault(struct xdp_md *ctx)
{
	(void)ctx;
	return 50 + read_nothing(0xfffff00000002000) + read_nothing(0);
}

/* Calls of functions that are no helpers. */
SEC("tc")
int finds_init(struct __sk_buff *skb)
{
	struct task_struct *init = bpf_task_from_pid(1);
	int pid;

	(void)skb;
	if (!init)
		return 0;
	pid = init->pid;
	bpf_task_release(init);
	return pid;
}

char _license[] SEC("license") = "GPL";
