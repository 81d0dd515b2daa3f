/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Programs for every place that a program can be attached to, on kernels since 6.1. Each tells that it has run. */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "hits.h"
#include "sys_sync.h"

#define ALLOW 1
#define FLOW_DISSECTOR_CONTINUE 129

/* The program on_NAME, which only tells that it has run, and returns `result`. */
#define PROGRAM(section, name, result)		\
	SEC(section)				\
	int on_##name(void *ctx)		\
	{					\
		(void)ctx;			\
		HIT(#name);			\
		return result;			\
	}

PROGRAM("kprobe/" SYS_SYNC, kprobe, 0)
PROGRAM("kretprobe/" SYS_SYNC, kretprobe, 0)
PROGRAM("ksyscall/sync", ksyscall, 0)
PROGRAM("kretsyscall/sync", kretsyscall, 0)
PROGRAM("kprobe.multi/ksys_syn*", multi, 0)
PROGRAM("kretprobe.multi/" SYS_SYNC, retmulti, 0)
PROGRAM("uprobe", uprobe, 0)
PROGRAM("uretprobe", uretprobe, 0)
PROGRAM("uprobe", uprobe_offset, 0)
PROGRAM("tp/syscalls/sys_enter_sync", tracepoint, 0)
PROGRAM("raw_tp/sys_enter", raw_tracepoint, 0)
PROGRAM("tp_btf/sys_enter", tp_btf, 0)
PROGRAM("fentry/ksys_sync", fentry, 0)
PROGRAM("fexit/ksys_sync", fexit, 0)
PROGRAM("fmod_ret/security_file_open", fmod_ret, 0)
PROGRAM("lsm/file_open", lsm, 0)
PROGRAM("lsm.s/file_open", lsm_sleeps, 0)
PROGRAM("perf_event", perf, 0)

PROGRAM("xdp", xdp_native, XDP_PASS)
PROGRAM("xdp", xdp_generic, XDP_PASS)
PROGRAM("tc", tc_ingress, 0)
PROGRAM("tc", tc_egress, 0)
PROGRAM("socket", socket, 0)
PROGRAM("sk_lookup", sk_lookup, SK_PASS)
PROGRAM("flow_dissector", flow_dissector, FLOW_DISSECTOR_CONTINUE)

PROGRAM("cgroup_skb/ingress", skb_ingress, ALLOW)
PROGRAM("cgroup_skb/egress", skb_egress, ALLOW)
PROGRAM("cgroup/sock_create", sock_create, ALLOW)
PROGRAM("cgroup/post_bind4", post_bind, ALLOW)
PROGRAM("cgroup/bind4", bind, ALLOW)
PROGRAM("cgroup/connect4", connect, ALLOW)
PROGRAM("cgroup/setsockopt", setsockopt, ALLOW)
PROGRAM("cgroup/dev", device, ALLOW)
PROGRAM("cgroup/sysctl", sysctl, ALLOW)

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} socks SEC(".maps");

/* Both ends of the last connection are in the map, so that its programs see what they say. */
SEC("sockops")
int on_sockops(struct bpf_sock_ops *ctx)
{
	__u32 active = 0, passive = 1;

	HIT("sockops");
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		bpf_sock_map_update(ctx, &socks, &active, BPF_ANY);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_map_update(ctx, &socks, &passive, BPF_ANY);
	return 0;
}

PROGRAM("sk_msg", sk_msg, SK_PASS)
PROGRAM("sk_skb/stream_verdict", sk_verdict, SK_PASS)

SEC("sk_skb/stream_parser")
int on_sk_parser(struct __sk_buff *ctx)
{
	HIT("sk_parser");
	return ctx->len;
}

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *key;
} __attribute__((preserve_access_index));

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} walked SEC(".maps");

SEC("iter/bpf_map_elem")
int on_iter_map(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;

	HIT("iter_map");
	if (key)
		BPF_SEQ_PRINTF(ctx->meta->seq, "element %d\n", *key);
	return 0;
}

SEC("iter/task")
int on_iter_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	HIT("iter_task");
	if (task)
		BPF_SEQ_PRINTF(ctx->meta->seq, "task %d\n", task->pid);
	return 0;
}

char _license[] SEC("license") = "GPL";
