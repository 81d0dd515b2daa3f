// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/string.h>

#include "fields.h"
#include "symbols.h"

#ifdef PV_HAVE_BTF_RECORD

static int pv_field_set_type(struct pv_field *field, const struct btf *btf, u32 btf_id)
{
	if (pv_call(btf_is_module)(btf))
		return -EOPNOTSUPP;
	if (pv_call(btf_is_kernel)(btf))
		field->flags = cpu_to_le32(PV_FIELD_KERNEL_BTF);
	field->btf_id = cpu_to_le32(btf_id);
	return 0;
}

static int pv_field_set_kptr(struct pv_field *field, u32 kind, const struct btf_field *from)
{
	field->kind = cpu_to_le32(kind);
	return pv_field_set_type(field, from->kptr.btf, from->kptr.btf_id);
}

static int pv_field_set_root(struct pv_field *field, u32 kind, const struct btf_field *from)
{
	field->kind = cpu_to_le32(kind);
	field->node_offset = cpu_to_le32(from->graph_root.node_offset);
	return pv_field_set_type(field, from->graph_root.btf, from->graph_root.value_btf_id);
}

static int pv_field_set_plain(struct pv_field *field, u32 kind)
{
	field->kind = cpu_to_le32(kind);
	return 0;
}

static int pv_field_set(struct pv_field *field, const struct btf_field *from)
{
	memset(field, 0, sizeof(*field));
	field->offset = cpu_to_le32(from->offset);
	field->size = cpu_to_le32(from->size);

	switch (from->type) {
	case BPF_SPIN_LOCK:
		return pv_field_set_plain(field, PV_FIELD_SPIN_LOCK);
	case BPF_TIMER:
		return pv_field_set_plain(field, PV_FIELD_TIMER);
	case BPF_WORKQUEUE:
		return pv_field_set_plain(field, PV_FIELD_WORKQUEUE);
	case BPF_REFCOUNT:
		return pv_field_set_plain(field, PV_FIELD_REFCOUNT);
	case BPF_LIST_NODE:
		return pv_field_set_plain(field, PV_FIELD_LIST_NODE);
	case BPF_RB_NODE:
		return pv_field_set_plain(field, PV_FIELD_RB_NODE);
	case BPF_KPTR_UNREF:
		return pv_field_set_kptr(field, PV_FIELD_KPTR_UNREF, from);
	case BPF_KPTR_REF:
		return pv_field_set_kptr(field, PV_FIELD_KPTR_REF, from);
	case BPF_KPTR_PERCPU:
		return pv_field_set_kptr(field, PV_FIELD_KPTR_PERCPU, from);
	case BPF_LIST_HEAD:
		return pv_field_set_root(field, PV_FIELD_LIST_HEAD, from);
	case BPF_RB_ROOT:
		return pv_field_set_root(field, PV_FIELD_RB_ROOT, from);
	default:
		return -EOPNOTSUPP;
	}
}

int pv_fields_read(const struct bpf_map *map, struct pv_field fields[PV_FIELDS_MAX])
{
	const struct btf_record *record = map->record;
	u32 i;
	int err;

	if (IS_ERR_OR_NULL(record))
		return 0;
	if (record->cnt > PV_FIELDS_MAX)
		return -EOPNOTSUPP;
	for (i = 0; i < record->cnt; i++) {
		err = pv_field_set(&fields[i], &record->fields[i]);
		if (err)
			return err;
	}
	return record->cnt;
}

#else
#include "compat/fields.h"
#endif

bool pv_fields_match(const struct bpf_map *map, const struct pv_field *expected, u32 count)
{
	struct pv_field fields[PV_FIELDS_MAX];
	int found = pv_fields_read(map, fields);

	return found >= 0 && found == count &&
	       !memcmp(fields, expected, found * sizeof(fields[0]));
}
