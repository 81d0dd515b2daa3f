/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A map of every kind, and programs that leave in each what a test can look for. What has no contents to
 * look at is used by a program that leaves in `found` what it found. All of it works since Linux 6.1.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define EAGAIN 11

/* Where each program leaves what it found. */
enum finding {
	FOUND_QUEUE,
	FOUND_STACK,
	FOUND_BLOOM_MEMBER,
	FOUND_BLOOM_STRANGER,
	FOUND_INNER_ARRAY,
	FOUND_INNER_HASH,
	FOUND_TASK,
	FOUND_UNDER_CGROUP,
	FOUND_USER_RING,
	FOUND_SOCKET,
	FOUND_SOCKMAP,
	FOUND_SOCKHASH,
	FOUND_DEVICE,
	FOUND_DEVICE_HASH,
	FOUND_CPU,
	FOUND_XSK,
	FOUND_OPENED,
	FOUND_TIMER,
	FOUND_LOCAL,
	FINDINGS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FINDINGS);
	__type(key, __u32);
	__type(value, __u64);
} found SEC(".maps");

struct locked {
	__u32 writes;
	struct bpf_spin_lock lock;
	__u64 sum;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct locked);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} percpu_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} percpu_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, __u64);
} lru SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, __u64);
} lru_percpu SEC(".maps");

struct prefix {
	__u32 bits;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u64);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, __u32);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4);
	__type(value, __u32);
} stack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 16);
	__uint(map_extra, 3);
	__type(value, __u32);
} bloom SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} inner_of_array SEC(".maps"), inner_of_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} array_of_maps SEC(".maps") = {
	.values = { [1] = &inner_of_array },
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} hash_of_maps SEC(".maps") = {
	.values = { [2] = &inner_of_hash },
};

/* Stays when the program that made it is gone, and the next one takes it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

const volatile __u64 factor = 3;
__u64 counter = 5;
__u64 zeroes;
extern int LINUX_KERNEL_VERSION __kconfig;

static void leave(enum finding finding, __u64 value)
{
	__u32 key = finding;

	bpf_map_update_elem(&found, &key, &value, BPF_ANY);
}

static void count(void *map, __u32 key, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(map, &key);

	if (value)
		__sync_fetch_and_add(value, by);
}

static void use_prefixes(void)
{
	struct prefix wide = { .bits = 8, .address = { 10 } };
	struct prefix narrow = { .bits = 16, .address = { 10, 1 } };
	struct prefix address = { .bits = 32, .address = { 10, 1, 2, 3 } };
	__u64 *matched, value = 8;

	bpf_map_update_elem(&prefixes, &wide, &value, BPF_NOEXIST);
	value = 16;
	bpf_map_update_elem(&prefixes, &narrow, &value, BPF_NOEXIST);
	/* Of those that match, the longest one counts. */
	matched = bpf_map_lookup_elem(&prefixes, &address);
	if (matched)
		*matched += 100;
}

static void use_sets(void)
{
	__u32 values[] = { 11, 22 };
	__u32 value = 0, stranger = 33;

	bpf_map_push_elem(&queue, &values[0], BPF_EXIST);
	bpf_map_push_elem(&queue, &values[1], BPF_EXIST);
	if (!bpf_map_pop_elem(&queue, &value))
		leave(FOUND_QUEUE, value);
	bpf_map_push_elem(&stack, &values[0], BPF_EXIST);
	bpf_map_push_elem(&stack, &values[1], BPF_EXIST);
	if (!bpf_map_peek_elem(&stack, &value))
		leave(FOUND_STACK, value);
	bpf_map_push_elem(&bloom, &values[0], BPF_ANY);
	leave(FOUND_BLOOM_MEMBER, !bpf_map_peek_elem(&bloom, &values[0]));
	leave(FOUND_BLOOM_STRANGER, !bpf_map_peek_elem(&bloom, &stranger));
}

static void use_maps_of_maps(void)
{
	__u32 key = 1;
	void *inner = bpf_map_lookup_elem(&array_of_maps, &key);

	leave(FOUND_INNER_ARRAY, inner != NULL);
	if (inner)
		count(inner, 1, 41);
	key = 2;
	inner = bpf_map_lookup_elem(&hash_of_maps, &key);
	leave(FOUND_INNER_HASH, inner != NULL);
	if (inner)
		count(inner, 0, 42);
}

SEC("tc")
int plain(struct __sk_buff *ctx)
{
	struct locked first = {}, *locked;
	__u32 key = 1, small = 9;
	__u64 *value, large = 0x1122334455667788;

	(void)ctx;
	counter += factor;
	zeroes++;
	count(&array, 1, 2);
	count(&shared, 0, 1);

	bpf_map_update_elem(&hash, &key, &first, BPF_NOEXIST);
	locked = bpf_map_lookup_elem(&hash, &key);
	if (locked) {
		bpf_spin_lock(&locked->lock);
		locked->writes++;
		locked->sum += 77;
		bpf_spin_unlock(&locked->lock);
	}
	value = bpf_map_lookup_elem(&percpu_array, &key);
	if (value)
		*value += 7;
	bpf_map_update_elem(&percpu_hash, &key, &small, BPF_ANY);
	bpf_map_update_elem(&lru, &key, &large, BPF_ANY);
	bpf_map_update_elem(&lru_percpu, &key, &large, BPF_ANY);
	use_prefixes();
	use_sets();
	use_maps_of_maps();
	return LINUX_KERNEL_VERSION;
}

struct timed {
	struct bpf_timer timer;
	__u64 fired;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

static int on_time(void *map, __u32 *key, struct timed *timed)
{
	(void)map;
	(void)key;
	timed->fired++;
	leave(FOUND_TIMER, 1);
	return 0;
}

SEC("tc")
int later(struct __sk_buff *ctx)
{
	__u32 key = 0;
	struct timed *timed = bpf_map_lookup_elem(&timers, &key);
	const int monotonic = 1;

	(void)ctx;
	if (!timed)
		return 1;
	bpf_timer_init(&timed->timer, &timers, monotonic);
	bpf_timer_set_callback(&timed->timer, on_time);
	return bpf_timer_start(&timed->timer, 0, 0);
}

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} of_socket SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sockmap SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sockhash SEC(".maps");

SEC("tc")
int sockets(struct __sk_buff *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	__u64 *value, first = 50;
	__u32 key = 0;

	if (socket)
		socket = bpf_sk_fullsock(socket);
	if (!socket)
		return BPF_OK;
	value = bpf_sk_storage_get(&of_socket, socket, &first, BPF_SK_STORAGE_GET_F_CREATE);
	if (value)
		*value += 5;
	value = bpf_sk_storage_get(&of_socket, socket, NULL, 0);
	if (value)
		leave(FOUND_SOCKET, *value);

	socket = bpf_map_lookup_elem(&sockmap, &key);
	leave(FOUND_SOCKMAP, socket == NULL);
	if (socket)
		bpf_sk_release(socket);
	socket = bpf_map_lookup_elem(&sockhash, &key);
	leave(FOUND_SOCKHASH, socket == NULL);
	if (socket)
		bpf_sk_release(socket);
	return BPF_OK;
}

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} device_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* Nobody has put anything into these maps, so each redirection gives its last argument. */
SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	(void)ctx;
	leave(FOUND_DEVICE, bpf_redirect_map(&devices, 0, XDP_PASS));
	leave(FOUND_DEVICE_HASH, bpf_redirect_map(&device_hash, 0, XDP_TX));
	leave(FOUND_CPU, bpf_redirect_map(&cpus, 0, XDP_DROP));
	leave(FOUND_XSK, bpf_redirect_map(&xsks, 0, XDP_PASS));
	return XDP_PASS;
}

int second(struct xdp_md *ctx);
int third(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 3);
	__uint(key_size, sizeof(__u32));
	__array(values, int (void *));
} jumps SEC(".maps") = {
	.values = { [1] = (void *)&second, [2] = (void *)&third },
};

SEC("xdp")
int first(struct xdp_md *ctx)
{
	count(&array, 2, 1);
	bpf_tail_call(ctx, &jumps, 0);
	bpf_tail_call(ctx, &jumps, 1);
	return XDP_ABORTED;
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	/* The slot is not known before it runs. */
	__u32 slot = ctx->data_end - ctx->data > 100 ? 2 : 0;

	count(&array, 2, 100);
	bpf_tail_call(ctx, &jumps, slot);
	return XDP_TX;
}

SEC("xdp")
int third(struct xdp_md *ctx)
{
	(void)ctx;
	count(&array, 2, 10000);
	return XDP_DROP;
}

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 127 * sizeof(__u64));
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} of_task SEC(".maps");

static long on_user_sample(void *sample, void *context)
{
	(void)sample;
	(void)context;
	return 1;
}

SEC("raw_tp/sys_enter")
int traced(void *ctx)
{
	static const char message[] = "a message";
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 *value, one = 1;

	bpf_ringbuf_output(&ring, (void *)message, sizeof(message), 0);
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, (void *)message, sizeof(message));
	bpf_get_stackid(ctx, &stacks, 0);
	leave(FOUND_USER_RING, bpf_user_ringbuf_drain(&user_ring, on_user_sample, NULL, 0));
	/* There is no cgroup in the array: "try again". */
	leave(FOUND_UNDER_CGROUP, bpf_current_task_under_cgroup(&cgroups, 0) == -EAGAIN);

	value = bpf_task_storage_get(&of_task, task, &one, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (value)
		leave(FOUND_TASK, (*value)++);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} of_inode SEC(".maps");

struct inode {
	unsigned long i_ino;
} __attribute__((preserve_access_index));

struct file {
	struct inode *f_inode;
} __attribute__((preserve_access_index));

/* How often the file has been opened that was opened most often. */
SEC("lsm/file_open")
int BPF_PROG(opened, struct file *file)
{
	__u64 *times, *most, zero = 0;
	__u32 key = FOUND_OPENED;

	(void)ctx;
	times = bpf_inode_storage_get(&of_inode, file->f_inode, &zero,
				      BPF_LOCAL_STORAGE_GET_F_CREATE);
	most = bpf_map_lookup_elem(&found, &key);
	if (times && most && ++*times > *most)
		*most = *times;
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} local SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} local_percpu SEC(".maps");

SEC("cgroup_skb/egress")
int sent(struct __sk_buff *ctx)
{
	__u64 *value = bpf_get_local_storage(&local, 0);
	__u64 *percpu = bpf_get_local_storage(&local_percpu, 0);

	(void)ctx;
	__sync_fetch_and_add(value, 1);
	*percpu += 1;
	leave(FOUND_LOCAL, *value);
	return 1;
}

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

SEC("sk_reuseport")
int choose(struct sk_reuseport_md *ctx)
{
	__u32 key = 0;

	return bpf_sk_select_reuseport(ctx, &listeners, &key, 0) ? SK_DROP : SK_PASS;
}

char _license[] SEC("license") = "GPL";
