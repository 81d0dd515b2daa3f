/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* As maps.bpf.c, for kinds of maps that Linux 6.1 does not have. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Headers from before Linux 6.2 do not have it. */
#define MAP_TYPE_CGRP_STORAGE 32

struct cgroup;

struct css_set {
	struct cgroup *dfl_cgrp;
} __attribute__((preserve_access_index));

struct task_struct {
	struct css_set *cgroups;
} __attribute__((preserve_access_index));

struct {
	__uint(type, MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} of_cgroup SEC(".maps");

/* How often it has run in the cgroup that it has run in most often. */
__u64 most;

SEC("raw_tp/sys_enter")
int traced(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 *times, none = 0;

	(void)ctx;
	times = bpf_cgrp_storage_get(&of_cgroup, task->cgroups->dfl_cgrp, &none,
				     BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (times && ++*times > most)
		most = *times;
	return 0;
}

char _license[] SEC("license") = "GPL";
