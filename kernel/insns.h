/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The instructions of bytecode images. That programs are safe is the verifier's word; that a JIT
 * compiler can walk through them without running astray is checked here.
 */
#ifndef PV_INSNS_H
#define PV_INSNS_H

#include <linux/filter.h>

#include "image.h"

/*
 * Whether the instructions of one function can be compiled: jumps and references stay within the
 * function and the image, and its relocations are where addresses are missing. Tail calls name
 * the image's descriptors one after the other: @poke is the next one, and moves on.
 */
bool pv_insns_good(const struct pv_image *image, u32 function, u32 *poke);

/* A wide load, which has two instructions. */
static inline bool pv_is_wide(const struct bpf_insn *insn)
{
	return insn->code == (BPF_LD | BPF_IMM | BPF_DW);
}

/* A wide load of the address of one of the program's own functions. */
static inline bool pv_is_own_address(const struct bpf_insn *insn)
{
	return pv_is_wide(insn) && insn->src_reg == BPF_PSEUDO_FUNC;
}

/* A call of one of the program's own functions. */
static inline bool pv_is_own_call(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && insn->src_reg == BPF_PSEUDO_CALL;
}

/* A load whose fault the exception table has an entry for, as jit_subprogs() counts them. */
static inline bool pv_may_fault(const struct bpf_insn *insn)
{
	if (BPF_CLASS(insn->code) != BPF_LDX)
		return false;
	switch (BPF_MODE(insn->code)) {
	case BPF_PROBE_MEM:
#ifdef BPF_PROBE_MEMSX
	case BPF_PROBE_MEMSX:
#endif
		return true;
	default:
		return false;
	}
}

#endif /* PV_INSNS_H */
