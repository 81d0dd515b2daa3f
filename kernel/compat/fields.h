/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A map's fields before struct btf_record: one lock, one timer, and a table of kptrs.
 */
#ifndef PV_COMPAT_FIELDS_H
#define PV_COMPAT_FIELDS_H

#include <linux/sort.h>

static int pv_fields_compare(const void *a, const void *b)
{
	u32 offset_a = le32_to_cpu(((const struct pv_field *)a)->offset);
	u32 offset_b = le32_to_cpu(((const struct pv_field *)b)->offset);

	return (offset_a > offset_b) - (offset_a < offset_b);
}

static void pv_field_add(struct pv_field *fields, int *count, u32 kind, u32 offset, u32 size)
{
	fields[(*count)++] = (struct pv_field) {
		.offset = cpu_to_le32(offset),
		.size = cpu_to_le32(size),
		.kind = cpu_to_le32(kind),
	};
}

static int pv_fields_add_kptrs(const struct bpf_map_value_off *table, struct pv_field *fields,
			       int *count)
{
	const struct bpf_map_value_off_desc *kptr;
	const struct btf *btf;
	u32 i, kind;

	if (table->nr_off > PV_FIELDS_MAX - *count)
		return -EOPNOTSUPP;
	for (i = 0; i < table->nr_off; i++) {
		kptr = &table->off[i];
		btf = kptr->kptr.btf;
		if (pv_call(btf_is_module)(btf))
			return -EOPNOTSUPP;
		kind = kptr->type == BPF_KPTR_REF ? PV_FIELD_KPTR_REF : PV_FIELD_KPTR_UNREF;
		pv_field_add(fields, count, kind, kptr->offset, sizeof(u64));
		fields[*count - 1].btf_id = cpu_to_le32(kptr->kptr.btf_id);
		if (pv_call(btf_is_kernel)(btf))
			fields[*count - 1].flags = cpu_to_le32(PV_FIELD_KERNEL_BTF);
	}
	return 0;
}

int pv_fields_read(const struct bpf_map *map, struct pv_field fields[PV_FIELDS_MAX])
{
	int count = 0;
	int err;

	if (map_value_has_spin_lock(map))
		pv_field_add(fields, &count, PV_FIELD_SPIN_LOCK, map->spin_lock_off,
			     sizeof(struct bpf_spin_lock));
	if (map_value_has_timer(map))
		pv_field_add(fields, &count, PV_FIELD_TIMER, map->timer_off,
			     sizeof(struct bpf_timer));
	if (map_value_has_kptrs(map)) {
		err = pv_fields_add_kptrs(map->kptr_off_tab, fields, &count);
		if (err)
			return err;
	}
	sort(fields, count, sizeof(fields[0]), pv_fields_compare, NULL);
	return count;
}

#endif /* PV_COMPAT_FIELDS_H */
