/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program's functions and its direct tail calls, as jit_subprogs() lays them out: what images
 * of both kinds need.
 */
#ifndef PV_FUNCTIONS_H
#define PV_FUNCTIONS_H

#include <linux/bpf.h>

#include "image.h"
#include "reason.h"

/*
 * Adds the image's functions to the program, without code; those of bytecode have room for their
 * instructions. A program of one function is that function: nothing is added. The program frees
 * its functions.
 */
int pv_functions_add(struct bpf_prog *prog, const struct pv_image *image,
		     struct pv_reason *reason);

/* Whose code a function's is. */
struct bpf_prog *pv_function_owner(struct bpf_prog *prog, u32 function);

/*
 * Gives the program descriptors of the image's direct tail calls, which say what is called but
 * not where, and has prog arrays tell of changes. The program frees the descriptors, and lets go
 * of the prog arrays.
 */
int pv_pokes_add(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason);

/* Once the functions have their code: a program of several runs its first. */
void pv_functions_finish(struct bpf_prog *prog);

#endif /* PV_FUNCTIONS_H */
