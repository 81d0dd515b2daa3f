/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Sends numbered records of several sizes through both kinds of buffers, and counts, for each CPU, those that
 * the kernel took.
 */
#include <linux/types.h>
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define RECORDS 20
#define BYTES 64

struct record {
	__u32 cpu;
	__u32 number;
	/* As many of them are sent as the number says; each is the number's lowest byte. */
	__u8 bytes[BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf SEC(".maps");

/* Too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} scratch SEC(".maps");

enum buffer { RING, PERF };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} sent SEC(".maps");

static __u32 *next_number(enum buffer buffer)
{
	__u32 key = buffer;

	return bpf_map_lookup_elem(&sent, &key);
}

/* Returns how much of it is to be sent. */
static __u32 write_record(struct record *record, __u32 number)
{
	record->cpu = bpf_get_smp_processor_id();
	record->number = number;
	for (__u32 i = 0; i < BYTES; i++)
		record->bytes[i] = number;
	return __builtin_offsetof(struct record, bytes) + (number & (BYTES - 1));
}

SEC("tp/syscalls/sys_enter_sync")
int on_sync(void *ctx)
{
	__u32 key = 0, *number;
	struct record *record = bpf_map_lookup_elem(&scratch, &key);

	if (!record)
		return 0;
	for (int i = 0; i < RECORDS; i++) {
		number = next_number(RING);
		if (number && !bpf_ringbuf_output(&ring, record, write_record(record, *number), 0))
			++*number;
		number = next_number(PERF);
		if (number && !bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, record,
						     write_record(record, *number)))
			++*number;
	}
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
