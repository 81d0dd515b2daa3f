// SPDX-License-Identifier: GPL-2.0-only
/*
 * A manifest's signature says who wrote it, not that it is well-formed: everything is checked
 * before it is used.
 */
#include <linux/kernel.h>
#include <linux/string.h>

#include "fields.h"
#include "manifest.h"
#include "table.h"

static int pv_check_header(const struct pv_manifest_header *header, u32 size,
			   struct pv_reason *reason);
static int pv_find_tables(struct pv_manifest *manifest, u32 size, struct pv_reason *reason);
static int pv_check_records(const struct pv_manifest *manifest, struct pv_reason *reason);

int pv_manifest_parse(struct pv_manifest *manifest, const void *bytes, u32 size,
		      struct pv_reason *reason)
{
	int err;

	if (size < sizeof(*manifest->header))
		return pv_refuse(reason, -EBADMSG, "the manifest is cut off");

	manifest->header = bytes;
	err = pv_check_header(manifest->header, size, reason);
	if (err)
		return err;
	err = pv_find_tables(manifest, size, reason);
	if (err)
		return err;
	return pv_check_records(manifest, reason);
}

static int pv_check_header(const struct pv_manifest_header *header, u32 size,
			   struct pv_reason *reason)
{
	u32 version = le32_to_cpu(header->version);
	u64 features = le64_to_cpu(header->features);

	if (memcmp(header->magic, PV_MANIFEST_MAGIC, sizeof(header->magic)))
		return pv_refuse(reason, -EBADMSG, "this is no manifest");
	if (version != PV_ABI_VERSION)
		return pv_refuse(reason, -EPROTONOSUPPORT,
				 "the bundle has version %u of the format, this module reads %u",
				 version, PV_ABI_VERSION);
	if (size % sizeof(u64))
		return pv_refuse(reason, -EBADMSG,
				 "a manifest's size is a multiple of 8, not %u", size);
	if (le32_to_cpu(header->size) != size)
		return pv_refuse(reason, -EBADMSG,
				 "the manifest says that it has %u bytes, but it has %u",
				 le32_to_cpu(header->size), size);
	if (features)
		return pv_refuse(reason, -EOPNOTSUPP,
				 "the bundle needs features that this module lacks: %#llx",
				 features);
	return 0;
}

static int pv_find_tables(struct pv_manifest *manifest, u32 size, struct pv_reason *reason)
{
	const struct pv_manifest_header *header = manifest->header;

	manifest->targets = pv_table_at(header, size, &header->targets,
					sizeof(*manifest->targets));
	manifest->programs = pv_table_at(header, size, &header->programs,
					 sizeof(*manifest->programs));
	manifest->maps = pv_table_at(header, size, &header->maps, sizeof(*manifest->maps));
	manifest->fields = pv_table_at(header, size, &header->fields, sizeof(*manifest->fields));
	manifest->map_refs = pv_table_at(header, size, &header->map_refs,
					 sizeof(*manifest->map_refs));
	manifest->slots = pv_table_at(header, size, &header->slots, sizeof(*manifest->slots));
	manifest->attach_targets = pv_table_at(header, size, &header->attach_targets,
					       sizeof(*manifest->attach_targets));
	manifest->sections = pv_table_at(header, size, &header->sections,
					 sizeof(*manifest->sections));
	manifest->strings = pv_table_at(header, size, &header->strings,
					sizeof(*manifest->strings));

	if (!manifest->targets || !manifest->programs || !manifest->maps || !manifest->fields ||
	    !manifest->map_refs || !manifest->slots || !manifest->attach_targets ||
	    !manifest->sections || !manifest->strings)
		return pv_refuse(reason, -EBADMSG, "a table of the manifest is out of bounds");
	return 0;
}

static bool pv_target_good(const struct pv_manifest *manifest, const struct pv_target *target);
static bool pv_program_good(const struct pv_manifest *manifest, const struct pv_program *program);
static bool pv_map_good(const struct pv_manifest *manifest, const struct pv_map *map);
static bool pv_slot_good(const struct pv_manifest *manifest, const struct pv_slot *slot);
static bool pv_attach_target_good(const struct pv_manifest *manifest,
				  const struct pv_attach_target *target);
static bool pv_section_good(const struct pv_section *section);

static int pv_check_records(const struct pv_manifest *manifest, struct pv_reason *reason)
{
	const struct pv_manifest_header *header = manifest->header;
	const char *table;
	u32 i;

	table = "sections";
	for (i = 0; i < pv_count(&header->sections); i++)
		if (!pv_section_good(&manifest->sections[i]))
			goto bad;
	table = "targets";
	for (i = 0; i < pv_count(&header->targets); i++)
		if (!pv_target_good(manifest, &manifest->targets[i]))
			goto bad;
	table = "programs";
	for (i = 0; i < pv_count(&header->programs); i++)
		if (!pv_program_good(manifest, &manifest->programs[i]))
			goto bad;
	table = "map_refs";
	for (i = 0; i < pv_count(&header->map_refs); i++)
		if (le32_to_cpu(manifest->map_refs[i]) >= pv_count(&header->maps))
			goto bad;
	table = "maps";
	for (i = 0; i < pv_count(&header->maps); i++)
		if (!pv_map_good(manifest, &manifest->maps[i]))
			goto bad;
	table = "slots";
	for (i = 0; i < pv_count(&header->slots); i++)
		if (!pv_slot_good(manifest, &manifest->slots[i]))
			goto bad;
	table = "attach_targets";
	for (i = 0; i < pv_count(&header->attach_targets); i++)
		if (!pv_attach_target_good(manifest, &manifest->attach_targets[i]))
			goto bad;
	return 0;

bad:
	return pv_refuse(reason, -EBADMSG,
			 "record %u of the manifest's table %s is malformed or unknown to this module",
			 i, table);
}

static bool pv_section_good(const struct pv_section *section)
{
	u32 size = le32_to_cpu(section->size);

	switch (le32_to_cpu(section->kind)) {
	case PV_SECTION_IMAGE:
	case PV_SECTION_SYMBOLS:
		return size <= PV_IMAGE_MAX_SIZE;
	case PV_SECTION_CONTENTS:
	case PV_SECTION_BTF:
	case PV_SECTION_EVIDENCE:
		return true;
	default:
		return false;
	}
}

/* Whether an index is PV_NONE, or that of a section of the right kind. */
static bool pv_section_ref_good(const struct pv_manifest *manifest, __le32 index, u32 kind)
{
	u32 i = le32_to_cpu(index);

	if (i == PV_NONE)
		return true;
	return i < pv_count(&manifest->header->sections) &&
	       le32_to_cpu(manifest->sections[i].kind) == kind;
}

static bool pv_name_good(const u8 *name, size_t size)
{
	return memchr(name, 0, size);
}

static bool pv_target_good(const struct pv_manifest *manifest, const struct pv_target *target)
{
	const struct pv_manifest_header *header = manifest->header;
	u32 build_id_size = le32_to_cpu(target->build_id_size);

	return build_id_size && build_id_size <= sizeof(target->build_id) &&
	       pv_zero(target->build_id + build_id_size,
		       sizeof(target->build_id) - build_id_size) &&
	       !target->reserved &&
	       pv_zero(target->fingerprint.reserved, sizeof(target->fingerprint.reserved)) &&
	       pv_range_within(&target->release, &header->strings) &&
	       pv_range_within(&target->programs, &header->programs) &&
	       pv_range_within(&target->maps, &header->maps) &&
	       pv_range_within(&target->slots, &header->slots) &&
	       pv_section_ref_good(manifest, target->btf, PV_SECTION_BTF) &&
	       pv_section_ref_good(manifest, target->evidence, PV_SECTION_EVIDENCE);
}

static bool pv_program_good(const struct pv_manifest *manifest, const struct pv_program *program)
{
	const struct pv_manifest_header *header = manifest->header;
	u32 attach_target = le32_to_cpu(program->attach_target);

	return pv_name_good(program->name, sizeof(program->name)) &&
	       pv_range_within(&program->function, &header->strings) &&
	       pv_range_within(&program->elf_section, &header->strings) &&
	       pv_range_within(&program->map_refs, &header->map_refs) &&
	       pv_section_ref_good(manifest, program->native, PV_SECTION_IMAGE) &&
	       pv_section_ref_good(manifest, program->native_symbols, PV_SECTION_SYMBOLS) &&
	       pv_section_ref_good(manifest, program->bytecode, PV_SECTION_IMAGE) &&
	       pv_section_ref_good(manifest, program->bytecode_symbols, PV_SECTION_SYMBOLS) &&
	       (attach_target == PV_NONE || attach_target < pv_count(&header->attach_targets)) &&
	       !(le32_to_cpu(program->flags) & ~PV_PROGRAM_RAISED_LIMITS);
}

static bool pv_fields_good(const struct pv_manifest *manifest, const struct pv_map *map)
{
	const struct pv_field *field = manifest->fields + le32_to_cpu(map->fields.first);
	const struct pv_field *end = field + le32_to_cpu(map->fields.count);
	u32 value_size = le32_to_cpu(map->value_size);
	u32 free = 0;

	if (le32_to_cpu(map->fields.count) > PV_FIELDS_MAX)
		return false;
	for (; field < end; field++) {
		u32 offset = le32_to_cpu(field->offset);
		u32 size = le32_to_cpu(field->size);
		u32 kind = le32_to_cpu(field->kind);

		if (kind < PV_FIELD_SPIN_LOCK || kind > PV_FIELD_REFCOUNT ||
		    le32_to_cpu(field->flags) & ~PV_FIELD_KERNEL_BTF ||
		    offset < free || offset > value_size || size > value_size - offset)
			return false;
		free = offset + size;
	}
	return true;
}

static bool pv_map_good(const struct pv_manifest *manifest, const struct pv_map *map)
{
	const struct pv_manifest_header *header = manifest->header;
	u32 inner = le32_to_cpu(map->inner);

	return pv_name_good(map->name, sizeof(map->name)) &&
	       !(le32_to_cpu(map->flags) & ~(PV_MAP_CONTENTS_VERIFIED | PV_MAP_TEMPLATE)) &&
	       pv_range_within(&map->fields, &header->fields) &&
	       pv_fields_good(manifest, map) &&
	       (inner == PV_NONE || inner < pv_count(&header->maps)) &&
	       pv_section_ref_good(manifest, map->contents, PV_SECTION_CONTENTS) &&
	       pv_range_within(&map->full_name, &header->strings) &&
	       pv_range_within(&map->pin_path, &header->strings);
}

static bool pv_slot_good(const struct pv_manifest *manifest, const struct pv_slot *slot)
{
	const struct pv_manifest_header *header = manifest->header;
	u32 index = le32_to_cpu(slot->index);

	if (le32_to_cpu(slot->map) >= pv_count(&header->maps))
		return false;
	switch (le32_to_cpu(slot->kind)) {
	case PV_SLOT_PROGRAM:
		return index < pv_count(&header->programs);
	case PV_SLOT_MAP:
		return index < pv_count(&header->maps);
	default:
		return false;
	}
}

/* The largest values that the kernel's trampolines pass on. */
#define PV_VALUE_MAX	16

static bool pv_value_good(u8 size, u8 flags)
{
	return size <= PV_VALUE_MAX && !(flags & ~(PV_VALUE_STRUCT | PV_VALUE_SIGNED));
}

static bool pv_attach_target_good(const struct pv_manifest *manifest,
				  const struct pv_attach_target *target)
{
	u32 unused, i;

	if (target->arg_count > PV_ATTACH_ARGS_MAX || target->reserved ||
	    le32_to_cpu(target->returns) > 1 ||
	    !pv_range_within(&target->name, &manifest->header->strings) ||
	    !pv_value_good(target->ret_size, target->ret_flags))
		return false;
	for (i = 0; i < target->arg_count; i++)
		if (!target->arg_sizes[i] ||
		    !pv_value_good(target->arg_sizes[i], target->arg_flags[i]))
			return false;
	unused = PV_ATTACH_ARGS_MAX - target->arg_count;
	return pv_zero(target->arg_sizes + target->arg_count, unused) &&
	       pv_zero(target->arg_flags + target->arg_count, unused);
}
