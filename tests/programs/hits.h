/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* How often each program has run, by name: in a map that is there when the programs are gone. */
#ifndef HITS_H
#define HITS_H

#define NAME_SIZE 16

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, char[NAME_SIZE]);
	__type(value, __u64);
} hits SEC(".maps");

static void count_hit(const char name[NAME_SIZE])
{
	__u64 *count, none = 0;

	bpf_map_update_elem(&hits, name, &none, BPF_NOEXIST);
	count = bpf_map_lookup_elem(&hits, name);
	if (count)
		__sync_fetch_and_add(count, 1);
}

#define HIT(name) count_hit((const char[NAME_SIZE]){ name })

#endif
