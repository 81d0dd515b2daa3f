// SPDX-License-Identifier: GPL-2.0-only
#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "arch.h"
#include "compat/program.h"
#include "image.h"
#include "insns.h"
#include "symbols.h"
#include "table.h"

#define PV_PROG_KNOWN	((u64)PV_PROG_EXCEPTIONS * 2 - 1)
#define PV_FUNCTION_KNOWN	(PV_FUNCTION_TAIL_CALL_REACHABLE | PV_FUNCTION_CHANGES_PKT_DATA)

static int pv_check_header(const struct pv_image_header *header, u32 size, u32 kind,
			   struct pv_reason *reason);
static int pv_find_tables(struct pv_image *image, struct pv_reason *reason);
static int pv_check_functions(const struct pv_image *image, u32 map_count,
			      struct pv_reason *reason);
static int pv_check_xlated(const struct pv_image *image, struct pv_reason *reason);
static int pv_check_symbols(struct pv_image *image, struct pv_bytes symbols,
			    struct pv_reason *reason);

int pv_image_parse(struct pv_image *image, u32 kind, struct pv_bytes bytes,
		   struct pv_bytes symbols, u32 map_count, struct pv_reason *reason)
{
	int err;

	if (bytes.size < sizeof(*image->header))
		return pv_refuse(reason, -EBADMSG, "the image is cut off");

	image->header = bytes.data;
	err = pv_check_header(image->header, bytes.size, kind, reason);
	if (err)
		return err;
	err = pv_find_tables(image, reason);
	if (err)
		return err;
	err = pv_check_functions(image, map_count, reason);
	if (err)
		return err;
	err = pv_check_xlated(image, reason);
	if (err)
		return err;
	return pv_check_symbols(image, symbols, reason);
}

static int pv_check_header(const struct pv_image_header *header, u32 size, u32 kind,
			   struct pv_reason *reason)
{
	u32 machine = kind == PV_IMAGE_NATIVE ? pv_arch_machine : 0;
	u64 flags = le64_to_cpu(header->conclusions.flags);

	if (memcmp(header->magic, PV_IMAGE_MAGIC, sizeof(header->magic)) ||
	    le32_to_cpu(header->version) != PV_ABI_VERSION ||
	    le32_to_cpu(header->size) != size || size % sizeof(u64) || header->reserved)
		return pv_refuse(reason, -EBADMSG, "the image's header is malformed");
	if (le32_to_cpu(header->kind) != kind)
		return pv_refuse(reason, -EBADMSG, "the image is of kind %u, not %u",
				 le32_to_cpu(header->kind), kind);
	if (le32_to_cpu(header->arch) != machine)
		return pv_refuse(reason, -ENOEXEC, "the image is for ELF machine %u, not %u",
				 le32_to_cpu(header->arch), machine);
	if (flags & ~PV_PROG_KNOWN)
		return pv_refuse(reason, -EOPNOTSUPP,
				 "the image has flags that this module does not know: %#llx",
				 flags & ~PV_PROG_KNOWN);
	if (flags & PV_PROG_EXCEPTIONS)
		return pv_refuse(reason, -EOPNOTSUPP,
				 "the program throws exceptions (bpf_throw), which is not supported yet");
	return 0;
}

static int pv_find_tables(struct pv_image *image, struct pv_reason *reason)
{
	const struct pv_image_header *header = image->header;
	u32 size = le32_to_cpu(header->size);

	image->functions = pv_table_at(header, size, &header->functions,
				       sizeof(*image->functions));
	image->code = pv_table_at(header, size, &header->code, sizeof(*image->code));
	image->relocs = pv_table_at(header, size, &header->relocs, sizeof(*image->relocs));
	image->extable = pv_table_at(header, size, &header->extable, sizeof(*image->extable));
	image->pokes = pv_table_at(header, size, &header->pokes, sizeof(*image->pokes));
	image->xlated = pv_table_at(header, size, &header->xlated, sizeof(*image->xlated));

	if (!image->functions || !image->code || !image->relocs || !image->extable ||
	    !image->pokes || !image->xlated)
		return pv_refuse(reason, -EBADMSG, "a table of the image is out of bounds");
	return 0;
}

/* Whether a range starts where the last one ended; then takes it. */
static bool pv_range_follows(const struct pv_range *range, const struct pv_table *table, u32 *end)
{
	if (le32_to_cpu(range->first) != *end || !pv_range_within(range, table))
		return false;
	*end += le32_to_cpu(range->count);
	return true;
}

static int pv_check_code(const struct pv_image *image, u32 map_count, struct pv_reason *reason);

static int pv_check_functions(const struct pv_image *image, u32 map_count,
			      struct pv_reason *reason)
{
	const struct pv_image_header *header = image->header;
	u32 visible = le32_to_cpu(header->conclusions.visible_functions);
	u32 count = pv_count(&header->functions);
	u32 code = 0, relocs = 0, extable = 0;
	u32 i;

	if (!count || count > PV_IMAGE_MAX_FUNCTIONS)
		return pv_refuse(reason, -EBADMSG, "the image has %u functions, not 1 to %u",
				 count, PV_IMAGE_MAX_FUNCTIONS);
	/* A program of one function has none that the kernel keeps apart. */
	if (count == 1 ? visible != 0 : !visible || visible > count)
		return pv_refuse(reason, -EBADMSG,
				 "the image says that %u of its %u functions are visible",
				 visible, count);

	for (i = 0; i < count; i++) {
		const struct pv_function *function = &image->functions[i];

		if (!function->code.count ||
		    le32_to_cpu(function->flags) & (~PV_FUNCTION_KNOWN | PV_FUNCTION_FOREIGN) ||
		    !pv_range_follows(&function->code, &header->code, &code) ||
		    !pv_range_follows(&function->relocs, &header->relocs, &relocs) ||
		    !pv_range_follows(&function->extable, &header->extable, &extable))
			return pv_refuse(reason, -EBADMSG, "function %u of the image is malformed",
					 i);
	}
	if (code != pv_count(&header->code) || relocs != pv_count(&header->relocs) ||
	    extable != pv_count(&header->extable))
		return pv_refuse(reason, -EBADMSG, "the image has code of no function");
	return pv_check_code(image, map_count, reason);
}

static bool pv_relocs_good(const struct pv_image *image, const struct pv_function *function,
			   u32 map_count);
static bool pv_extable_good(const struct pv_image *image, const struct pv_function *function);
static bool pv_bytecode_good(const struct pv_image *image);

static int pv_check_code(const struct pv_image *image, u32 map_count, struct pv_reason *reason)
{
	bool bytecode = pv_is_bytecode(image);
	u32 poke = 0;
	u32 i;

	if (bytecode && !pv_bytecode_good(image))
		return pv_refuse(reason, -EBADMSG, "the image has what bytecode does not have");
	for (i = 0; i < pv_count(&image->header->functions); i++) {
		const struct pv_function *function = &image->functions[i];

		if (!pv_relocs_good(image, function, map_count))
			return pv_refuse(reason, -EBADMSG,
					 "a relocation of function %u is malformed or unknown here",
					 i);
		if (!bytecode && !pv_extable_good(image, function))
			return pv_refuse(reason, -EBADMSG,
					 "the exception table of function %u is malformed", i);
		if (bytecode && !pv_insns_good(image, i, &poke))
			return pv_refuse(reason, -EBADMSG,
					 "the instructions of function %u are malformed", i);
		cond_resched();
	}
	if (bytecode && poke != pv_count(&image->header->pokes))
		return pv_refuse(reason, -EBADMSG, "the image has tail calls of no function");
	return 0;
}

/* What the verifier allows, and what its rewriting adds at most. */
#define PV_STACK_MAX	(2 * MAX_BPF_STACK)

/*
 * All instructions of the program, and no exceptions: those are the JIT compiler's to find. For
 * a program of one function, the compiler goes by what is said of the program.
 */
static bool pv_bytecode_good(const struct pv_image *image)
{
	const struct pv_image_header *header = image->header;
	const struct pv_function *functions = image->functions;
	u32 count = pv_count(&header->functions);
	u32 i;

	for (i = 0; i < count; i++)
		if (le32_to_cpu(functions[i].stack_depth) > PV_STACK_MAX)
			return false;
	return !pv_count(&header->extable) &&
	       pv_count(&header->code) / sizeof(struct bpf_insn) == pv_count(&header->xlated) &&
	       (count > 1 || functions->stack_depth == header->conclusions.stack_depth);
}

static bool pv_reloc_index_good(const struct pv_image *image, const struct pv_reloc *reloc,
				u32 map_count)
{
	u32 index = le32_to_cpu(reloc->index);
	u16 form = le16_to_cpu(reloc->form);

	switch (le16_to_cpu(reloc->kind)) {
	case PV_RELOC_ABSOLUTE:
		return !index && form == PV_FORM_REL32;
	case PV_RELOC_SYMBOL:
		return index < le32_to_cpu(image->header->symbol_count);
	case PV_RELOC_MAP:
	case PV_RELOC_MAP_VALUE:
		return index < map_count && form != PV_FORM_BPF_CALL;
	case PV_RELOC_FUNCTION:
		/* Bytecode has the index in its instructions. */
		return index < pv_count(&image->header->functions) && !pv_is_bytecode(image);
	case PV_RELOC_PROG_AUX:
		return !index && form != PV_FORM_BPF_CALL;
	default:
		return false;
	}
}

/* Bytes of a relocated field, or zero if there is no such form in images of this kind. */
static u32 pv_field_size(const struct pv_image *image, u16 form)
{
	if (!pv_is_bytecode(image))
		return pv_arch_field_size(form);
	switch (form) {
	case PV_FORM_BPF_IMM64:
		return 2 * sizeof(struct bpf_insn);
	case PV_FORM_BPF_CALL:
		return sizeof(struct bpf_insn);
	default:
		return 0;
	}
}

/* What is not blank in bytecode is found where its instructions are looked at. */
static bool pv_field_blank(const struct pv_image *image, const u8 *field, u16 form)
{
	return pv_is_bytecode(image) || pv_arch_field_blank(form, field);
}

static bool pv_relocs_good(const struct pv_image *image, const struct pv_function *function,
			   u32 map_count)
{
	const struct pv_reloc *reloc = image->relocs + le32_to_cpu(function->relocs.first);
	const struct pv_reloc *end = reloc + le32_to_cpu(function->relocs.count);
	const u8 *code = image->code + le32_to_cpu(function->code.first);
	u32 code_size = le32_to_cpu(function->code.count);
	u32 free = 0;

	for (; reloc < end; reloc++) {
		u16 form = le16_to_cpu(reloc->form);
		u32 size = pv_field_size(image, form);
		u32 offset = le32_to_cpu(reloc->offset);

		if (!size || offset < free || offset > code_size || size > code_size - offset ||
		    !pv_field_blank(image, code + offset, form) || reloc->reserved ||
		    !pv_reloc_index_good(image, reloc, map_count))
			return false;
		free = offset + size;
	}
	return true;
}

/* The kernel searches the table by bisection. */
static bool pv_extable_good(const struct pv_image *image, const struct pv_function *function)
{
	const struct pv_extable *records = image->extable + le32_to_cpu(function->extable.first);
	u32 code_size = le32_to_cpu(function->code.count);
	u32 free = 0;
	u32 i;

	for (i = 0; i < le32_to_cpu(function->extable.count); i++) {
		if (le32_to_cpu(records[i].offset) < free ||
		    !pv_arch_exception_good(&records[i], code_size))
			return false;
		free = le32_to_cpu(records[i].offset) + 1;
	}
	return true;
}

/* It never runs; but what shows it to people expects the second half of a wide load. */
static int pv_check_xlated(const struct pv_image *image, struct pv_reason *reason)
{
	u32 count = pv_count(&image->header->xlated);

	if (!count || image->xlated[count - 1].code == (BPF_LD | BPF_IMM | BPF_DW))
		return pv_refuse(reason, -EBADMSG, "the image's instructions are cut off");
	return 0;
}

static int pv_check_symbol(const struct pv_symbol *symbol, const u8 *strings, u32 strings_size,
			   struct pv_reason *reason)
{
	u32 name = le32_to_cpu(symbol->name);
	u64 image_size = pv_kernel_end() - pv_kernel_start();

	switch (le32_to_cpu(symbol->kind)) {
	case PV_SYMBOL_TEXT:
		if (le64_to_cpu(symbol->value) >= image_size)
			return pv_refuse(reason, -EBADMSG, "a symbol is outside the kernel");
		return 0;
	case PV_SYMBOL_MODULE:
		if (name >= strings_size || !memchr(strings + name, 0, strings_size - name))
			return pv_refuse(reason, -EBADMSG, "a symbol's name is cut off");
		return pv_refuse(reason, -EOPNOTSUPP,
				 "the program needs %s, and symbols of modules are not supported yet",
				 strings + name);
	default:
		return pv_refuse(reason, -EBADMSG, "a symbol is of an unknown kind, %u",
				 le32_to_cpu(symbol->kind));
	}
}

static int pv_check_symbols(struct pv_image *image, struct pv_bytes symbols,
			    struct pv_reason *reason)
{
	const struct pv_symbols_header *header = symbols.data;
	const u8 *strings;
	int err;
	u32 i;

	if (symbols.size < sizeof(*header))
		return pv_refuse(reason, -EBADMSG, "the symbols are cut off");
	if (memcmp(header->magic, PV_SYMBOLS_MAGIC, sizeof(header->magic)) ||
	    le32_to_cpu(header->version) != PV_ABI_VERSION ||
	    le32_to_cpu(header->size) != symbols.size || symbols.size % sizeof(u64))
		return pv_refuse(reason, -EBADMSG, "the symbols' header is malformed");

	image->symbols = pv_table_at(header, symbols.size, &header->symbols,
				     sizeof(*image->symbols));
	strings = pv_table_at(header, symbols.size, &header->strings, sizeof(*strings));
	if (!image->symbols || !strings)
		return pv_refuse(reason, -EBADMSG, "a table of the symbols is out of bounds");
	if (pv_count(&header->symbols) != le32_to_cpu(image->header->symbol_count))
		return pv_refuse(reason, -EBADMSG, "the symbols are not those of the image");

	for (i = 0; i < pv_count(&header->symbols); i++) {
		err = pv_check_symbol(&image->symbols[i], strings, pv_count(&header->strings),
				      reason);
		if (err)
			return err;
	}
	return 0;
}

u64 pv_image_symbol(const struct pv_image *image, u32 index)
{
	return pv_kernel_start() + le64_to_cpu(image->symbols[index].value);
}
