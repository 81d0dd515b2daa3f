/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The function that does the system call sync(), by its name on each architecture. */
#ifndef SYS_SYNC_H
#define SYS_SYNC_H

#ifdef __TARGET_ARCH_arm64
#define SYS_SYNC "__arm64_sys_sync"
#else
#define SYS_SYNC "__x64_sys_sync"
#endif

#endif
