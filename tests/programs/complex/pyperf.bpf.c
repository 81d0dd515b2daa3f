/* SPDX-License-Identifier: GPL-2.0-only */
/* The profiler of Python programs of the kernel's own tests, for stacks of 2000 frames. */
#pragma clang diagnostic ignored "-Weverything"
#define STACK_MAX_LEN 2000
#define NO_UNROLL
#include "pyperf.h"
