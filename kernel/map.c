// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "btf.h"
#include "fields.h"
#include "map.h"
#include "section.h"
#include "symbols.h"
#include "table.h"

/* How maps are created for user space's own access; the kernel does not keep these. */
#define PV_FLAGS_FORGOTTEN	(BPF_F_RDONLY | BPF_F_WRONLY)

static int pv_map_check(struct bpf_map *map, const struct pv_bundle *bundle,
			const struct pv_map *expected, struct pv_reason *reason);

int pv_maps_get(struct pv_maps *maps, const struct pv_bundle *bundle,
		const struct pv_program *program, const s32 *fds, struct pv_reason *reason)
{
	u32 count = le32_to_cpu(program->map_refs.count);
	const struct pv_manifest *manifest = &bundle->manifest;
	const __le32 *ref = manifest->map_refs + le32_to_cpu(program->map_refs.first);
	int err;
	u32 i, j;

	maps->count = 0;
	maps->maps = NULL;
	if (!count)
		return 0;

	/* The kernel frees this array with the program. */
	maps->maps = kmalloc_array(count, sizeof(*maps->maps), GFP_KERNEL);
	if (!maps->maps)
		return pv_refuse(reason, -ENOMEM, "no memory for the program's maps");

	for (i = 0; i < count; i++) {
		const struct pv_map *expected = &manifest->maps[le32_to_cpu(ref[i])];
		struct bpf_map *map = bpf_map_get(fds[i]);

		if (IS_ERR(map)) {
			err = pv_refuse(reason, PTR_ERR(map), "map %s: descriptor %d is no map",
					expected->name, fds[i]);
			goto err_put;
		}
		maps->maps[maps->count++] = map;

		/* The verifier took different maps for different. */
		for (j = 0; j < i; j++) {
			if (maps->maps[j] == map) {
				err = pv_refuse(reason, -EINVAL,
						"map %s: the descriptors %d and %d are the same map",
						expected->name, fds[j], fds[i]);
				goto err_put;
			}
		}
		err = pv_map_check(map, bundle, expected, reason);
		if (err)
			goto err_put;
	}
	return 0;

err_put:
	pv_maps_put(maps);
	return err;
}

void pv_maps_put(struct pv_maps *maps)
{
	while (maps->count)
		bpf_map_put(maps->maps[--maps->count]);
	kfree(maps->maps);
	maps->maps = NULL;
}

static int pv_map_check_kind(const struct bpf_map *map, const struct pv_map *expected,
			     struct pv_reason *reason);
static int pv_map_check_attributes(const struct bpf_map *map, const struct pv_map *expected,
				   const struct pv_map *outer, struct pv_reason *reason);
static int pv_map_check_fields(const struct bpf_map *map, const struct pv_bundle *bundle,
			       const struct pv_map *expected, const struct pv_map *outer,
			       struct pv_reason *reason);
static int pv_map_check_inner(const struct bpf_map *map, const struct pv_bundle *bundle,
			      const struct pv_map *expected, struct pv_reason *reason);
static int pv_map_check_contents(struct bpf_map *map, const struct pv_bundle *bundle,
				 const struct pv_map *expected, struct pv_reason *reason);

static int pv_map_check(struct bpf_map *map, const struct pv_bundle *bundle,
			const struct pv_map *expected, struct pv_reason *reason)
{
	int err;

	err = pv_map_check_kind(map, expected, reason);
	if (err)
		return err;
	err = pv_map_check_attributes(map, expected, expected, reason);
	if (err)
		return err;
	if (map->map_extra != le64_to_cpu(expected->map_extra))
		return pv_refuse(reason, -EINVAL, "map %s: map_extra is %#llx, not %#llx",
				 expected->name, map->map_extra,
				 le64_to_cpu(expected->map_extra));
	err = pv_map_check_fields(map, bundle, expected, expected, reason);
	if (err)
		return err;
	err = pv_map_check_inner(map, bundle, expected, reason);
	if (err)
		return err;
	if (le32_to_cpu(expected->flags) & PV_MAP_CONTENTS_VERIFIED)
		return pv_map_check_contents(map, bundle, expected, reason);
	return 0;
}

/* Map types that programs need more for than the map. */
static int pv_map_check_kind(const struct bpf_map *map, const struct pv_map *expected,
			     struct pv_reason *reason)
{
	u32 type = le32_to_cpu(expected->map_type);

	if (le32_to_cpu(expected->flags) & PV_MAP_TEMPLATE)
		return pv_refuse(reason, -EBADMSG,
				 "map %s: the manifest has it as a template, no program can use it",
				 expected->name);
	if (map->map_type != type)
		return pv_refuse(reason, -EINVAL, "map %s: the map is of type %u, not %u",
				 expected->name, map->map_type, type);
	if (type == BPF_MAP_TYPE_STRUCT_OPS)
		return pv_refuse(reason, -EOPNOTSUPP, "map %s: struct_ops is not supported yet",
				 expected->name);
#ifdef PV_HAVE_ARENA
	if (type == BPF_MAP_TYPE_ARENA)
		return pv_refuse(reason, -EOPNOTSUPP, "map %s: arenas are not supported yet",
				 expected->name);
#endif
	/* Inlined code would take an offloaded map for one of this type. */
	if ((const void *)map->ops->map_free == (const void *)pv_data(bpf_map_offload_map_free))
		return pv_refuse(reason, -EINVAL, "map %s: the map is offloaded to a device",
				 expected->name);
	return 0;
}

/* The flags that a map has when it was created as the manifest says. */
static u32 pv_kept_flags(const struct pv_map *expected)
{
	u32 flags = le32_to_cpu(expected->map_flags) & ~PV_FLAGS_FORGOTTEN;

	switch (le32_to_cpu(expected->map_type)) {
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_DEVMAP_HASH:
		/* dev_map_init_map() adds it. */
		return flags | BPF_F_RDONLY_PROG;
	default:
		return flags;
	}
}

/* What people call it: an inner map by the name of its outer map, which is itself otherwise. */
static const char *pv_inner(const struct pv_map *expected, const struct pv_map *outer)
{
	return expected == outer ? "" : "inner ";
}

static int pv_map_check_attributes(const struct bpf_map *map, const struct pv_map *expected,
				   const struct pv_map *outer, struct pv_reason *reason)
{
	u32 flags = pv_kept_flags(expected);
	const struct {
		const char *name;
		u32 found, expected;
	} attributes[] = {
		{ "type", map->map_type, le32_to_cpu(expected->map_type) },
		{ "key_size", map->key_size, le32_to_cpu(expected->key_size) },
		{ "value_size", map->value_size, le32_to_cpu(expected->value_size) },
		{ "map_flags", map->map_flags, flags },
		/* Rounded to the number of CPUs for these; no program depends on it. */
		{ "max_entries", map->max_entries,
		  flags & BPF_F_NO_COMMON_LRU ? map->max_entries :
						le32_to_cpu(expected->max_entries) },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(attributes); i++)
		if (attributes[i].found != attributes[i].expected)
			return pv_refuse(reason, -EINVAL, "map %s: the %smap's %s is %u, not %u",
					 outer->name, pv_inner(expected, outer),
					 attributes[i].name, attributes[i].found,
					 attributes[i].expected);
	return 0;
}

/* Whether the field refers to a type of the map's own BTF. */
static bool pv_field_has_own_type(const struct pv_field *field)
{
	switch (le32_to_cpu(field->kind)) {
	case PV_FIELD_KPTR_UNREF:
	case PV_FIELD_KPTR_REF:
	case PV_FIELD_KPTR_PERCPU:
	case PV_FIELD_LIST_HEAD:
	case PV_FIELD_RB_ROOT:
		return !(le32_to_cpu(field->flags) & PV_FIELD_KERNEL_BTF);
	default:
		return false;
	}
}

static int pv_map_check_fields(const struct bpf_map *map, const struct pv_bundle *bundle,
			       const struct pv_map *expected, const struct pv_map *outer,
			       struct pv_reason *reason)
{
	const struct pv_manifest *manifest = &bundle->manifest;
	const struct pv_field *fields = manifest->fields + le32_to_cpu(expected->fields.first);
	u32 count = le32_to_cpu(expected->fields.count);
	u32 btf = le32_to_cpu(bundle->target->btf);
	u32 i;

	if (!pv_fields_match(map, fields, count))
		return pv_refuse(reason, -EINVAL,
				 "map %s: the %smap's value has other locks, timers, kptrs or the like (BTF)",
				 outer->name, pv_inner(expected, outer));

	for (i = 0; i < count; i++) {
		if (!pv_field_has_own_type(&fields[i]))
			continue;
		/* The same number means the same type only in the same BTF. */
		if (btf == PV_NONE || !pv_btf_is(map->btf, &manifest->sections[btf]))
			return pv_refuse(reason, -EINVAL,
					 "map %s: the %smap holds objects, and its BTF is not the bundle's",
					 outer->name, pv_inner(expected, outer));
		break;
	}
	return 0;
}

static int pv_map_check_inner(const struct bpf_map *map, const struct pv_bundle *bundle,
			      const struct pv_map *expected, struct pv_reason *reason)
{
	u32 index = le32_to_cpu(expected->inner);
	const struct pv_map *inner;
	int err;

	if (index == PV_NONE) {
		if (map->inner_map_meta)
			return pv_refuse(reason, -EBADMSG,
					 "map %s: the manifest says nothing about its inner maps",
					 expected->name);
		return 0;
	}
	if (!map->inner_map_meta)
		return pv_refuse(reason, -EINVAL, "map %s: the map has no inner maps",
				 expected->name);

	inner = &bundle->manifest.maps[index];
	err = pv_map_check_attributes(map->inner_map_meta, inner, expected, reason);
	if (err)
		return err;
	return pv_map_check_fields(map->inner_map_meta, bundle, inner, expected, reason);
}

/* The verifier's bpf_map_is_rdonly(): nobody can change the contents any more. */
static bool pv_map_is_constant(const struct bpf_map *map)
{
	return map->map_flags & BPF_F_RDONLY_PROG && READ_ONCE(map->frozen) &&
	       !atomic64_read(&map->writecnt);
}

static int pv_map_check_contents(struct bpf_map *map, const struct pv_bundle *bundle,
				 const struct pv_map *expected, struct pv_reason *reason)
{
	u32 index = le32_to_cpu(expected->contents);
	const void *value;
	bool same;

	if (!pv_map_is_constant(map))
		return pv_refuse(reason, -EINVAL,
				 "map %s: the map must be frozen and read-only to programs (BPF_MAP_FREEZE)",
				 expected->name);
	value = (const void *)(unsigned long)pv_map_value(map);
	if (!value)
		return pv_refuse(reason, -EBADMSG,
				 "map %s: programs cannot take contents of such maps for constants",
				 expected->name);

	if (index == PV_NONE)
		same = !memchr_inv(value, 0, map->value_size);
	else
		same = pv_section_is(&bundle->manifest.sections[index], value,
				     map->value_size);
	if (!same)
		return pv_refuse(reason, -EINVAL,
				 "map %s: the map's contents are not the signed ones",
				 expected->name);
	return 0;
}

u64 pv_map_value(struct bpf_map *map)
{
	u64 address;

	if (!map->ops->map_direct_value_addr || map->ops->map_direct_value_addr(map, &address, 0))
		return 0;
	return address;
}
