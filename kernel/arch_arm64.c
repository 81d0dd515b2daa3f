// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything here mirrors arch/arm64/net/bpf_jit_comp.c.
 */
#include <linux/align.h>
#include <linux/bitfield.h>
#include <linux/bitops.h>
#include <linux/elf-em.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <asm/asm-extable.h>
#include <asm/byteorder.h>
#include <asm/cpufeature.h>
#include <asm/extable.h>
#include <asm/insn-def.h>
#include <asm/memory.h>
#include <asm/ptrace.h>

#include "arch.h"
#include "symbols.h"

const u32 pv_arch_machine = EM_AARCH64;
const unsigned int pv_arch_alignment = sizeof(u64);

u32 pv_arch_va_bits(void)
{
	return vabits_actual;
}

void pv_arch_fingerprint(struct pv_fingerprint *fingerprint)
{
	u64 flags = 0;

	if (cpus_have_cap(ARM64_HAS_LSE_ATOMICS))
		flags |= PV_JIT_ARM64_LSE;
#ifdef PV_HAVE_PERCPU_INSN
	/* Older compilers address no per-CPU variables. */
	if (cpus_have_cap(ARM64_HAS_VIRT_HOST_EXTN))
		flags |= PV_JIT_ARM64_VHE;
#endif
	/* The JIT compiler goes by the configuration here, whatever the CPU has. */
	if (IS_ENABLED(CONFIG_ARM64_PTR_AUTH_KERNEL))
		flags |= PV_JIT_ARM64_PAC;
	if (IS_ENABLED(CONFIG_ARM64_BTI_KERNEL))
		flags |= PV_JIT_ARM64_BTI;
	fingerprint->jit_flags = cpu_to_le64(flags);
}

const char *pv_arch_jit_flag_name(u64 flag)
{
	switch (flag) {
	case PV_JIT_ARM64_LSE:
		return "LSE atomics";
	case PV_JIT_ARM64_VHE:
		return "VHE (a kernel that runs at EL2)";
	case PV_JIT_ARM64_PAC:
		return "signed return addresses";
	case PV_JIT_ARM64_BTI:
		return "landing pads";
	default:
		return "features that this module does not know";
	}
}

#ifndef PV_HAVE_DATA
unsigned long *pv_arch_argument(struct pt_regs *regs, unsigned int index)
{
	return (unsigned long *)&regs->regs[index];
}
#endif

void pv_arch_fill(void *area, unsigned int size)
{
	__le32 *insn;

	for (insn = area; size >= sizeof(*insn); size -= sizeof(*insn))
		*insn++ = cpu_to_le32(AARCH64_BREAK_FAULT);
}

/*
 * Code ends with a jump to what the eight bytes behind it hold, the trailer. When the kernel
 * attaches something far away to the function, it puts the address there, and makes the
 * function's start go through this jump.
 */
#define PV_LDR_X10_TRAILER	0x5800004aU
#define PV_BR_X10		0xd61f0140U
#define PV_TRAILER_SIZE		sizeof(u64)

u32 pv_arch_extable_offset(u32 code_size)
{
	return round_up(code_size + PV_TRAILER_SIZE, __alignof__(struct exception_table_entry));
}

bool pv_arch_code_good(const u8 *code, u32 code_size)
{
	const __le32 *end = (const __le32 *)(code + code_size);

	/* The kernel writes the trailer at once, so it is aligned. */
	return code_size && IS_ALIGNED(code_size, PV_TRAILER_SIZE) &&
	       le32_to_cpu(end[-2]) == PV_LDR_X10_TRAILER && le32_to_cpu(end[-1]) == PV_BR_X10;
}

/* Where the jump goes as long as nothing is attached. */
void pv_arch_write_trailer(u8 *code, u32 code_size)
{
	*(u64 *)(code + code_size) = (unsigned long)pv_data(dummy_tramp);
}

/* As ex_handler_bpf() takes an entry's fixup apart. */
#define PV_FIXUP_OFFSET		GENMASK(26, 0)
#define PV_FIXUP_REGISTER	GENMASK(31, 27)

/*
 * How far before its fixup the handler is to go on: behind the instruction, always. That depends
 * on where the table lies, which is farther away if the last pass of the compiler made the code
 * shorter. So it is not part of a record.
 */
static u32 pv_fixup_offset(const struct exception_table_entry *entry, const u8 *code, u32 offset)
{
	return (unsigned long)&entry->fixup - (unsigned long)(code + offset + AARCH64_INSN_SIZE);
}

bool pv_arch_read_exception(struct pv_extable *record, const struct exception_table_entry *entry,
			    const u8 *code, u32 code_size)
{
	unsigned long offset = (unsigned long)&entry->insn + entry->insn - (unsigned long)code;
	u32 fixup = entry->fixup;

	if (offset >= code_size ||
	    FIELD_GET(PV_FIXUP_OFFSET, fixup) != pv_fixup_offset(entry, code, offset))
		return false;
	*record = (struct pv_extable) {
		.offset = cpu_to_le32(offset),
		.fixup = cpu_to_le32(fixup & PV_FIXUP_REGISTER),
		/* The compiler leaves the entry's data as it finds it; nothing reads it. */
		.data = cpu_to_le32((u16)entry->type),
	};
	return true;
}

/*
 * The handler clears a register of x0 to x30; compilers that mean none of them name one that BPF
 * never uses.
 */
bool pv_arch_exception_good(const struct pv_extable *record, u32 code_size)
{
	u32 offset = le32_to_cpu(record->offset);
	u32 fixup = le32_to_cpu(record->fixup);

	return offset < code_size && IS_ALIGNED(offset, AARCH64_INSN_SIZE) &&
	       code_size - offset > AARCH64_INSN_SIZE && !(fixup & PV_FIXUP_OFFSET) &&
	       FIELD_GET(PV_FIXUP_REGISTER, fixup) <= 30 &&
	       le32_to_cpu(record->data) == EX_TYPE_BPF && !record->reserved;
}

void pv_arch_write_exception(struct exception_table_entry *entry,
			     const struct exception_table_entry *final, const u8 *code,
			     const struct pv_extable *record)
{
	u32 offset = le32_to_cpu(record->offset);

	/* An image has more bytes than its code and table together. */
	BUILD_BUG_ON(!FIELD_FIT(PV_FIXUP_OFFSET, PV_IMAGE_MAX_SIZE));
	entry->insn = code + offset - (const u8 *)&final->insn;
	entry->fixup = le32_to_cpu(record->fixup) | pv_fixup_offset(final, code, offset);
	entry->type = EX_TYPE_BPF;
	entry->data = 0;
}

/* An address or value is put together by three instructions. */
#define PV_MOVES	3

u32 pv_arch_field_size(u16 form)
{
	switch (form) {
	case PV_FORM_A64_CALL26:
		return AARCH64_INSN_SIZE;
	case PV_FORM_A64_ADDR48:
	case PV_FORM_A64_MOV64:
		return PV_MOVES * AARCH64_INSN_SIZE;
	default:
		return 0;
	}
}

/* Of moves, the register is there, the same in each. */
bool pv_arch_field_blank(u16 form, const u8 *field)
{
	const __le32 *insn = (const __le32 *)field;

	if (form == PV_FORM_A64_CALL26)
		return !insn[0];
	return le32_to_cpu(insn[0]) < 32 && insn[1] == insn[0] && insn[2] == insn[0];
}

static bool pv_write_call(__le32 *insn, u64 distance);
static bool pv_write_address(__le32 *insns, u64 address);
static bool pv_write_value(__le32 *insns, u64 value);

bool pv_arch_relocate(u8 *field, u64 place, u16 form, u64 value)
{
	__le32 *insns = (__le32 *)field;

	if (!IS_ALIGNED(place, AARCH64_INSN_SIZE))
		return false;
	switch (form) {
	case PV_FORM_A64_CALL26:
		return pv_write_call(insns, value - place);
	case PV_FORM_A64_ADDR48:
		return pv_write_address(insns, value);
	case PV_FORM_A64_MOV64:
		return pv_write_value(insns, value);
	default:
		return false;
	}
}

#define PV_BL		0x94000000U
#define PV_MOVN		0x92800000U
#define PV_MOVZ		0xd2800000U
#define PV_MOVK		0xf2800000U
#define PV_MOVE_SHIFT	GENMASK(22, 21)
#define PV_MOVE_VALUE	GENMASK(20, 5)

static bool pv_write_call(__le32 *insn, u64 distance)
{
	s64 signed_distance = distance;

	if (signed_distance < -SZ_128M || signed_distance >= SZ_128M ||
	    !IS_ALIGNED(distance, AARCH64_INSN_SIZE))
		return false;
	*insn = cpu_to_le32(PV_BL | (distance / AARCH64_INSN_SIZE & GENMASK(25, 0)));
	return true;
}

/* The register stays. */
static void pv_write_move(__le32 *insn, u32 move, u16 value, unsigned int shift)
{
	*insn |= cpu_to_le32(move | FIELD_PREP(PV_MOVE_SHIFT, shift / 16) |
			     FIELD_PREP(PV_MOVE_VALUE, value));
}

/* emit_addr_mov_i64() */
static bool pv_write_address(__le32 *insns, u64 address)
{
	if (address >> 48 != U16_MAX)
		return false;
	pv_write_move(&insns[0], PV_MOVN, ~address, 0);
	pv_write_move(&insns[1], PV_MOVK, address >> 16, 16);
	pv_write_move(&insns[2], PV_MOVK, address >> 32, 32);
	return true;
}

/* How many of the 16-bit parts of a value a move does not have to say. */
static unsigned int pv_count_parts(u64 value, u16 part)
{
	unsigned int count = 0;
	unsigned int shift;

	for (shift = 0; shift < 64; shift += 16)
		count += (u16)(value >> shift) == part;
	return count;
}

/*
 * emit_a64_mov_i64(), always by three moves. Of some addresses it would say all by two, as of one
 * in the linear map at a multiple of 64 KiB: there the lowest part is said once more.
 */
static bool pv_write_value(__le32 *insns, u64 value)
{
	bool inverse = pv_count_parts(value, U16_MAX) > pv_count_parts(value, 0);
	u16 implied = inverse ? U16_MAX : 0;
	unsigned int written = 0;
	int shift;

	/* Of those, the compiler would have moved 32 bits. */
	if (!(value >> 32))
		return false;

	shift = max(round_down(fls64(inverse ? ~value : value) - 1, 16), 0);
	pv_write_move(&insns[written++], inverse ? PV_MOVN : PV_MOVZ,
		      (inverse ? ~value : value) >> shift, shift);
	for (shift -= 16; shift >= 0; shift -= 16) {
		u16 part = value >> shift;

		if (part == implied)
			continue;
		if (written == PV_MOVES)
			return false;
		pv_write_move(&insns[written++], PV_MOVK, part, shift);
	}
	while (written < PV_MOVES)
		pv_write_move(&insns[written++], PV_MOVK, value, 0);
	return true;
}

/* Code of tail calls is not patched on this architecture, so images describe none. */
bool pv_arch_poke_good(const u8 *code, u32 code_size, const struct pv_poke *poke)
{
	return false;
}
