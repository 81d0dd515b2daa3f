// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/kernel.h>

#include "compat/program.h"
#include "insns.h"
#include "symbols.h"
#include "table.h"

/* Where the check is. */
struct pv_cursor {
	const struct pv_image *image;
	u32 function;
	/* The function's instructions, and which one is next. */
	const struct bpf_insn *insns;
	u32 count;
	u32 next;
	/* The next relocation, and the function's last one. */
	const struct pv_reloc *reloc;
	const struct pv_reloc *reloc_end;
	/* The next descriptor of a tail call. */
	u32 *poke;
};

static bool pv_insn_good(struct pv_cursor *cursor);

bool pv_insns_good(const struct pv_image *image, u32 function, u32 *poke)
{
	const struct pv_function *record = &image->functions[function];
	const struct pv_reloc *relocs = image->relocs + le32_to_cpu(record->relocs.first);
	u32 size = le32_to_cpu(record->code.count);
	struct pv_cursor cursor = {
		.image = image,
		.function = function,
		.insns = (const void *)(image->code + le32_to_cpu(record->code.first)),
		.count = size / sizeof(struct bpf_insn),
		.reloc = relocs,
		.reloc_end = relocs + le32_to_cpu(record->relocs.count),
		.poke = poke,
	};
	const struct bpf_insn *last;

	/* All functions have whole instructions, so each starts at one. */
	if (!size || size % sizeof(struct bpf_insn))
		return false;
	while (cursor.next < cursor.count)
		if (!pv_insn_good(&cursor))
			return false;

	/* As the verifier asks for: nothing runs past the end. */
	last = &cursor.insns[cursor.count - 1];
	if (last->code != (BPF_JMP | BPF_EXIT) && last->code != (BPF_JMP | BPF_JA) &&
	    last->code != (BPF_JMP32 | BPF_JA))
		return false;
	return cursor.reloc == cursor.reloc_end;
}

static bool pv_opcode_known(u8 code);
static bool pv_wide_good(struct pv_cursor *cursor, const struct bpf_insn *insn);
static bool pv_call_good(struct pv_cursor *cursor, const struct bpf_insn *insn);
static bool pv_tail_call_good(struct pv_cursor *cursor, const struct bpf_insn *insn);
static bool pv_jump_good(const struct pv_cursor *cursor, const struct bpf_insn *insn);

static bool pv_insn_good(struct pv_cursor *cursor)
{
	const struct bpf_insn *insn = &cursor->insns[cursor->next];

	if (!pv_opcode_known(insn->code) || insn->dst_reg >= MAX_BPF_JIT_REG ||
	    insn->src_reg >= MAX_BPF_JIT_REG)
		return false;
	cursor->next++;
	switch (insn->code) {
	case BPF_LD | BPF_IMM | BPF_DW:
		return pv_wide_good(cursor, insn);
	case BPF_JMP | BPF_CALL:
		return pv_call_good(cursor, insn);
	case BPF_JMP | BPF_TAIL_CALL:
		return pv_tail_call_good(cursor, insn);
	case BPF_JMP | BPF_EXIT:
		return true;
	default:
		if (BPF_CLASS(insn->code) == BPF_JMP || BPF_CLASS(insn->code) == BPF_JMP32)
			return pv_jump_good(cursor, insn);
		return true;
	}
}

/* What programs can have, without what the verifier replaces, and what it replaces it with. */
static bool pv_opcode_known(u8 code)
{
	switch (code) {
	case BPF_LDX | BPF_PROBE_MEM | BPF_B:
	case BPF_LDX | BPF_PROBE_MEM | BPF_H:
	case BPF_LDX | BPF_PROBE_MEM | BPF_W:
	case BPF_LDX | BPF_PROBE_MEM | BPF_DW:
#ifdef BPF_PROBE_MEMSX
	case BPF_LDX | BPF_PROBE_MEMSX | BPF_B:
	case BPF_LDX | BPF_PROBE_MEMSX | BPF_H:
	case BPF_LDX | BPF_PROBE_MEMSX | BPF_W:
#endif
	case BPF_ST | BPF_NOSPEC:
	case BPF_JMP | BPF_TAIL_CALL:
		return true;
	}
	if (BPF_CLASS(code) == BPF_LD)
		return code == (BPF_LD | BPF_IMM | BPF_DW);
	return pv_call(bpf_opcode_in_insntable)(code);
}

/* Takes the next relocation if it is of this form and at the last instruction. */
static bool pv_take_reloc(struct pv_cursor *cursor, u16 form)
{
	u32 offset = (cursor->next - 1) * sizeof(struct bpf_insn);

	if (cursor->reloc == cursor->reloc_end || le32_to_cpu(cursor->reloc->offset) != offset ||
	    le16_to_cpu(cursor->reloc->form) != form)
		return false;
	cursor->reloc++;
	return true;
}

/* Nothing in a program refers to its entry; a program of one function has no other. */
static bool pv_function_known(const struct pv_cursor *cursor, const struct bpf_insn *insn)
{
	return insn->off > 0 && insn->off < pv_count(&cursor->image->header->functions);
}

/* Takes the second half, too. A constant is any value. */
static bool pv_wide_good(struct pv_cursor *cursor, const struct bpf_insn *insn)
{
	const struct bpf_insn *half = insn + 1;

	if (cursor->next == cursor->count || half->code || half->dst_reg || half->src_reg ||
	    half->off)
		return false;
	if (pv_is_own_address(insn)) {
		if (!pv_function_known(cursor, insn) || insn->imm || half->imm)
			return false;
	} else if (pv_take_reloc(cursor, PV_FORM_BPF_IMM64)) {
		if (insn->imm || half->imm)
			return false;
	}
	cursor->next++;
	return true;
}

static bool pv_call_good(struct pv_cursor *cursor, const struct bpf_insn *insn)
{
	switch (insn->src_reg) {
	case BPF_PSEUDO_CALL:
		return pv_function_known(cursor, insn) && !insn->imm;
	case 0:
		/* Its immediate says which helper, not where it is. */
		if (pv_jit_inlines(insn->imm))
			return true;
		fallthrough;
	case BPF_PSEUDO_KFUNC_CALL:
		return pv_take_reloc(cursor, PV_FORM_BPF_CALL) && !insn->imm;
	default:
		return false;
	}
}

/* The kernel patches what the descriptors say, so each belongs to one call and each is right. */
static bool pv_tail_call_good(struct pv_cursor *cursor, const struct bpf_insn *insn)
{
	const struct pv_image *image = cursor->image;
	const struct pv_poke *poke = image->pokes + *cursor->poke;

	if (insn->off)
		return false;
	if (!insn->imm)
		return true;
	if (*cursor->poke == pv_count(&image->header->pokes) || insn->imm != *cursor->poke + 1 ||
	    le32_to_cpu(poke->function) != cursor->function || poke->target || poke->bypass ||
	    poke->bypass_target)
		return false;
	++*cursor->poke;
	return true;
}

static bool pv_jump_good(const struct pv_cursor *cursor, const struct bpf_insn *insn)
{
	s64 distance = insn->code == (BPF_JMP32 | BPF_JA) ? insn->imm : insn->off;
	s64 target = cursor->next + distance;

	/* Only the second half of a wide load has no code. */
	return target >= 0 && target < cursor->count && cursor->insns[target].code;
}
