/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Finds a field of the kernel's by BTF, also where the kernel has none: where some is given. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int tgid;
} __attribute__((preserve_access_index));

SEC("raw_tp/task_rename")
int finds_itself(void *ctx)
{
	struct task_struct *task = (void *)(long)bpf_get_current_task();

	(void)ctx;
	return BPF_CORE_READ(task, tgid) == (int)(bpf_get_current_pid_tgid() >> 32);
}

char _license[] SEC("license") = "GPL";
