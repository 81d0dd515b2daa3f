/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Programs that refer to everything that the verifier leaves in bytecode, in one function and in several.
 * What they return depends on the packet alone, so it is the same however they came to be machine code.
 * All of it works since Linux 6.1.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define EXIT_IF_SHORT(ctx, data)			\
	__u8 *data = (void *)(long)(ctx)->data;		\
	if ((void *)(data + 8) > (void *)(long)(ctx)->data_end)	\
		return 0

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} percpu SEC(".maps");

/* The verifier takes it for a constant. */
const volatile __u32 factor = 3;
__u64 seed = 5;
__u64 runs;

/* One function: the kernel does not say what its wide loads are. */
SEC("xdp")
int alone(struct xdp_md *ctx)
{
	__u64 sum = seed, *value, one = 1;
	__u32 key, slot = 1;

	EXIT_IF_SHORT(ctx, data);
	key = data[0];
	bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
	value = bpf_map_lookup_elem(&seen, &key);
	if (value)
		sum += __sync_fetch_and_add(value, 2);
	value = bpf_map_lookup_elem(&percpu, &slot);
	if (value) {
		*value = data[1];
		sum += *value * factor;
	}
	value = bpf_map_lookup_elem(&numbers, &slot);
	if (value) {
		*value = data[2];
		sum += *value;
	}
	bpf_map_delete_elem(&seen, &key);
	__sync_fetch_and_add(&runs, 1);
	return sum;
}

/* No reference to anything, and every kind of constant. */
SEC("xdp")
int constants(struct xdp_md *ctx)
{
	__u64 sum = 0xffffc900dead0000, number;
	__u32 i;

	EXIT_IF_SHORT(ctx, data);
	number = *(__u64 *)data;
	sum ^= number;
	sum += 0x1122334455667788 * (number | 1);
	sum %= 0x7fffffff;
	sum -= number / 1000003;
	sum ^= (__u32)number << 7;
	sum += (__s64)(number ^ sum) >> 13;
	sum ^= __builtin_bswap32(number) + __builtin_bswap64(number);
	for (i = 0; i < 5; i++)
		if ((sum >> i) & 0x10 && (__s32)sum > -77)
			sum += 0x7ffffff1;
	data[3] = sum;
	*(__u16 *)(data + 4) = 0x1234;
	return sum ^ (sum >> 32);
}

static __noinline __u64 mix(__u64 a, __u64 b)
{
	return (a ^ 0x5555) * 31 + b;
}

static __noinline __u64 count(__u32 key, __u64 more)
{
	__u64 *value = bpf_map_lookup_elem(&numbers, &key);

	if (!value)
		return more;
	*value = mix(more, seed);
	return *value;
}

/* It may be replaced, so the verifier looks at it alone. */
__noinline int weigh(int weight)
{
	__u64 *value;
	__u32 slot = 0;

	value = bpf_map_lookup_elem(&percpu, &slot);
	if (value)
		*value = weight;
	return weight * factor;
}

SEC("xdp")
int several(struct xdp_md *ctx)
{
	__u64 sum = 0;
	__u32 i;

	EXIT_IF_SHORT(ctx, data);
	for (i = 0; i < 4; i++)
		sum = mix(sum, count(data[i] & 7, sum + i));
	sum += weigh(data[4]);
	__sync_fetch_and_add(&runs, 1);
	return sum;
}

struct visited {
	__u64 sum;
	__u32 elements;
};

static long visit(void *map, __u32 *key, __u64 *value, struct visited *visited)
{
	(void)map;
	visited->sum = mix(visited->sum, *key) + *value;
	visited->elements++;
	return *key == 6;
}

static long step(__u32 index, struct visited *visited)
{
	visited->sum = mix(visited->sum, index);
	return 0;
}

/* The kernel calls one function back; the loop around the other one becomes the program's own. */
SEC("xdp")
int callbacks(struct xdp_md *ctx)
{
	struct visited visited = {};
	__u32 i;

	EXIT_IF_SHORT(ctx, data);
	for (i = 0; i < 4; i++)
		count(i, data[i]);
	bpf_for_each_map_elem(&numbers, visit, &visited, 0);
	bpf_loop(data[5], step, &visited, 0);
	return visited.sum + visited.elements;
}

int landed(struct xdp_md *ctx);
int landed_elsewhere(struct xdp_md *ctx);

/* The next load finds it filled. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, int(struct xdp_md *));
} landings SEC(".maps") = {
	.values = {
		[1] = (void *)&landed,
		[2] = (void *)&landed_elsewhere,
	},
};

SEC("xdp")
int landed(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	return 100 + data[0];
}

SEC("xdp")
int landed_elsewhere(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	return 200 + mix(data[0], data[1]) % 50;
}

/* One slot is empty. */
SEC("xdp")
int jumps(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&runs, 1);
	bpf_tail_call(ctx, &landings, 3);
	bpf_tail_call(ctx, &landings, 1);
	return 1;
}

SEC("xdp")
int jumps_anywhere(struct xdp_md *ctx)
{
	EXIT_IF_SHORT(ctx, data);
	bpf_tail_call(ctx, &landings, data[7]);
	return 2;
}

static __noinline int jump(struct xdp_md *ctx)
{
	volatile int stays = 3;

	bpf_tail_call(ctx, &landings, 4);
	bpf_tail_call(ctx, &landings, 2);
	return stays;
}

static __noinline int jump_too(struct xdp_md *ctx)
{
	volatile int stays = 4;

	bpf_tail_call(ctx, &landings, 1);
	return stays;
}

/* What is jumped to returns here. */
SEC("xdp")
int functions_jump(struct xdp_md *ctx)
{
	int sum = 1000;

	sum += jump(ctx);
	sum += jump_too(ctx) * 3;
	return sum;
}

struct io_context {
	void *icq_hint;
} __attribute__((preserve_access_index));

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *group_leader;
	struct io_context *io_context;
} __attribute__((preserve_access_index));

static __noinline int leader_of(struct task_struct *task)
{
	return task->group_leader->tgid;
}

/* The kernel handles the fault if there is one. */
SEC("raw_tp/task_rename")
int reads(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct io_context *missing = task->io_context;

	(void)ctx;
	return task->tgid == (int)(bpf_get_current_pid_tgid() >> 32) &&
	       !missing->icq_hint;
}

SEC("raw_tp/task_rename")
int functions_read(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	(void)ctx;
	return leader_of(task) == task->tgid;
}

extern const int bpf_prog_active __ksym;
extern const void bpf_link_fops __ksym;

/* One is found per CPU; of the other, no more is known than where it lies. */
SEC("raw_tp/task_rename")
int symbols(void *ctx)
{
	const int *active = bpf_per_cpu_ptr(&bpf_prog_active, 0);
	__u64 place = (__u64)&bpf_link_fops;

	(void)ctx;
	if (!active || *active < 0 || *active > 8)
		return 2;
	return place >> 63;
}

char _license[] SEC("license") = "GPL";
