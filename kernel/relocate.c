// SPDX-License-Identifier: GPL-2.0-only
#include <linux/filter.h>
#include <linux/kernel.h>

#include "arch.h"
#include "map.h"
#include "relocate.h"

/* pv_image_parse() has checked kinds and indices. Returns whether there is such an address. */
static bool pv_address(const struct pv_addresses *addresses, const struct pv_reloc *reloc,
		       u64 *address)
{
	u32 index = le32_to_cpu(reloc->index);

	switch (le16_to_cpu(reloc->kind)) {
	case PV_RELOC_SYMBOL:
		*address = pv_image_symbol(addresses->image, index);
		return true;
	case PV_RELOC_MAP:
		*address = (unsigned long)addresses->maps[index];
		return true;
	case PV_RELOC_MAP_VALUE:
		*address = pv_map_value(addresses->maps[index]);
		return *address;
	case PV_RELOC_FUNCTION:
		*address = (unsigned long)addresses->functions[index];
		return true;
	case PV_RELOC_PROG_AUX:
		*address = (unsigned long)addresses->aux;
		return true;
	case PV_RELOC_ABSOLUTE:
		*address = 0;
		return true;
	default:
		return false;
	}
}

/* A call with an address in its immediate is an ordinary one, whatever it was to the verifier. */
static bool pv_relocate_call(struct bpf_insn *insn, u64 address)
{
	long distance = BPF_CALL_IMM((unsigned long)address);

	if (!distance || distance != (s32)distance)
		return false;
	insn->src_reg = 0;
	insn->off = 0;
	insn->imm = distance;
	return true;
}

static bool pv_write_field(u8 *field, u64 place, u16 form, u64 value)
{
	struct bpf_insn *insn = (void *)field;

	switch (form) {
	case PV_FORM_BPF_IMM64:
		insn[0].imm = lower_32_bits(value);
		insn[1].imm = upper_32_bits(value);
		return true;
	case PV_FORM_BPF_CALL:
		return pv_relocate_call(insn, value);
	default:
		return pv_arch_relocate(field, place, form, value);
	}
}

int pv_relocate(u8 *code, u32 function, const struct pv_addresses *addresses,
		struct pv_reason *reason)
{
	const struct pv_function *record = &addresses->image->functions[function];
	const struct pv_reloc *reloc = addresses->image->relocs +
				       le32_to_cpu(record->relocs.first);
	const struct pv_reloc *end = reloc + le32_to_cpu(record->relocs.count);
	const u8 *start = addresses->functions ? addresses->functions[function] : NULL;
	u64 place, address;
	u32 offset;

	for (; reloc < end; reloc++) {
		offset = le32_to_cpu(reloc->offset);
		place = (unsigned long)start + offset;
		if (!pv_address(addresses, reloc, &address))
			return pv_refuse(reason, -EINVAL,
					 "relocation at %#x of function %u: the map has no direct values",
					 offset, function);
		address += le64_to_cpu(reloc->addend);
		if (!pv_write_field(code + offset, place, le16_to_cpu(reloc->form), address))
			return pv_refuse(reason, -ERANGE,
					 "relocation at %#x of function %u: the address does not fit",
					 offset, function);
	}
	return 0;
}
