/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where kernels differ. The features (PV_HAVE_*) come from Kbuild.include in this folder.
 */
#ifndef PV_COMPAT_H
#define PV_COMPAT_H

#include <linux/version.h>

#if KERNEL_VERSION(6, 1, 0) > LINUX_VERSION_CODE
#error "This kernel is older than 6.1, the oldest that the kernel part has been held against."
#endif

#if KERNEL_VERSION(6, 13, 0) <= LINUX_VERSION_CODE
#error "This kernel is newer than 6.12, the newest that the kernel part has been held against."
#endif

#if !defined(CONFIG_X86_64) && !defined(CONFIG_ARM64) && !defined(CONFIG_ARM)
#error "The kernel part knows the JIT compilers of x86_64, arm64 and arm only."
#endif

#ifndef CONFIG_BPF_JIT
#error "The kernel must be built with CONFIG_BPF_JIT."
#endif

#ifdef CONFIG_CFI_CLANG
#error "The kernel part does not know the preambles that CONFIG_CFI_CLANG puts before functions."
#endif

#if !defined(CONFIG_KPROBES) && !defined(PV_IN_TREE)
#error "The kernel must be built with CONFIG_KPROBES: unexported symbols are found through it."
#endif

/* Without it, functions are found, data is not: compat/id.c has more of that. */
#if !defined(PV_HAVE_DATA) && (defined(CONFIG_X86_64) || defined(PV_HAVE_PERCPU_KPTR))
#error "The kernel must be built with CONFIG_KALLSYMS_ALL: unexported data is found through it."
#endif

#endif /* PV_COMPAT_H */
