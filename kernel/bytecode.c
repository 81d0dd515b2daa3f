// SPDX-License-Identifier: GPL-2.0-only
/*
 * What jit_subprogs() and bpf_prog_select_runtime() do with bytecode that has been verified.
 */
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/mm.h>
#include <linux/moduleloader.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "bytecode.h"
#include "functions.h"
#include "insns.h"
#include "relocate.h"
#include "symbols.h"
#include "table.h"

static int pv_fill(struct bpf_prog *prog, const struct pv_image *image,
		   struct pv_reason *reason);
static int pv_compile_one(struct bpf_prog **prog, const struct pv_image *image,
			  struct pv_reason *reason);
static int pv_compile_several(struct bpf_prog *prog, u32 count, struct pv_reason *reason);

int pv_bytecode_compile(struct bpf_prog **prog, const struct pv_image *image,
			struct pv_reason *reason)
{
	u32 count = pv_count(&image->header->functions);
	int err;

	err = pv_functions_add(*prog, image, reason);
	if (err)
		return err;
	/* As the verifier has it: where constants are blinded, tail calls are not direct. */
	if (!(*prog)->blinding_requested) {
		err = pv_pokes_add(*prog, image, reason);
		if (err)
			return err;
	}
	err = pv_fill(*prog, image, reason);
	if (err)
		return err;

	if (count == 1)
		return pv_compile_one(prog, image, reason);
	err = pv_compile_several(*prog, count, reason);
	if (err)
		return err;
	pv_functions_finish(*prog);
	return 0;
}

static void pv_prepare(struct bpf_prog *function);

/* Gives each function its instructions, ready to be compiled for the first time. */
static int pv_fill(struct bpf_prog *prog, const struct pv_image *image,
		   struct pv_reason *reason)
{
	const struct pv_addresses addresses = {
		.image = image,
		.maps = prog->aux->used_maps,
		.aux = prog->aux,
	};
	struct bpf_prog *function;
	int err;
	u32 i;

	for (i = 0; i < pv_count(&image->header->functions); i++) {
		const struct pv_range *code = &image->functions[i].code;

		function = pv_function_owner(prog, i);
		memcpy(function->insnsi, image->code + le32_to_cpu(code->first),
		       le32_to_cpu(code->count));
		err = pv_relocate((u8 *)function->insnsi, i, &addresses, reason);
		if (err)
			return err;
		pv_prepare(function);
		cond_resched();
	}
	return 0;
}

static void pv_set_wide(struct bpf_insn *insn, unsigned long value)
{
	insn[0].imm = lower_32_bits(value);
	insn[1].imm = upper_32_bits(value);
}

/*
 * The addresses of the program's functions are not known yet, but the code must become as long
 * as with them: the stand-ins are as close as can be, as in jit_subprogs().
 */
static void pv_prepare(struct bpf_prog *function)
{
	struct bpf_insn *insn = function->insnsi;
	const struct bpf_insn *end = insn + function->len;
	u32 exceptions = 0;

	for (; insn < end; insn++) {
		if (pv_is_own_address(insn))
			pv_set_wide(insn, MODULES_VADDR);
		else if (pv_is_own_call(insn))
			insn->imm = 1;
		else if (insn->code == (BPF_JMP | BPF_TAIL_CALL) && !function->aux->poke_tab)
			insn->imm = 0;
		else if (pv_may_fault(insn))
			exceptions++;
	}
	function->aux->num_exentries = exceptions;
}

static int pv_refuse_interpreter(u32 function, struct pv_reason *reason)
{
	return pv_refuse(reason, -EOPNOTSUPP,
			 "this kernel's JIT compiler does not compile function %u of the program",
			 function);
}

/* Afterwards its instructions are only shown, so they are those that are meant to be. */
static int pv_compile_one(struct bpf_prog **prog, const struct pv_image *image,
			  struct pv_reason *reason)
{
	u32 length = (*prog)->len;

	*prog = pv_call(bpf_int_jit_compile)(*prog);
	if (!(*prog)->jited)
		return pv_refuse_interpreter(0, reason);
	(*prog)->len = length;
	memcpy((*prog)->insnsi, image->xlated, bpf_prog_insn_size(*prog));
	return 0;
}

static void pv_connect(struct bpf_prog *function, struct bpf_prog *const *functions);

static int pv_compile_several(struct bpf_prog *prog, u32 count, struct pv_reason *reason)
{
	struct bpf_prog **functions = prog->aux->func;
	struct bpf_prog *compiled;
	bpf_func_t place;
	u32 i;

	for (i = 0; i < count; i++) {
		functions[i] = pv_call(bpf_int_jit_compile)(functions[i]);
		/* A compiler that keeps nothing for a second time would start anew, elsewhere. */
		if (!functions[i]->jited || !functions[i]->aux->jit_data)
			return pv_refuse_interpreter(i, reason);
		cond_resched();
	}
	for (i = 0; i < count; i++)
		pv_connect(functions[i], functions);
	for (i = 0; i < count; i++) {
		place = functions[i]->bpf_func;
		compiled = pv_call(bpf_int_jit_compile)(functions[i]);
		if (compiled != functions[i] || compiled->bpf_func != place)
			return pv_refuse_interpreter(i, reason);
		cond_resched();
	}
	return 0;
}

/* Now that it is known where the functions are. */
static void pv_connect(struct bpf_prog *function, struct bpf_prog *const *functions)
{
	struct bpf_insn *insn = function->insnsi;
	const struct bpf_insn *end = insn + function->len;

	for (; insn < end; insn++) {
		if (pv_is_own_address(insn))
			pv_set_wide(insn, (unsigned long)functions[insn->off]->bpf_func);
		else if (pv_is_own_call(insn))
			insn->imm = BPF_CALL_IMM(functions[insn->off]->bpf_func);
	}
}
