// SPDX-License-Identifier: GPL-2.0-only
#include <linux/align.h>
#include <linux/compiler.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/elf.h>
#include <linux/mm.h>
#include <linux/security.h>
#include <linux/string.h>

#include "arch.h"
#include "fingerprint.h"
#include "symbols.h"

/* The type of the note that holds a build id; the kernel's headers do not name it. */
#define PV_NT_GNU_BUILD_ID 3

static int pv_build_id_read(struct pv_machine_info *info)
{
	const u8 *at = (const u8 *)pv_data(__start_notes);
	const u8 *end = (const u8 *)pv_data(__stop_notes);
	const struct elf_note *note;
	const u8 *name, *content;

	/* The kernel wrote its own notes: they are not checked as a stranger's would be. */
	for (; at + sizeof(*note) <= end; at = content + ALIGN(note->n_descsz, 4)) {
		note = (const struct elf_note *)at;
		name = at + sizeof(*note);
		content = name + ALIGN(note->n_namesz, 4);

		if (note->n_type != PV_NT_GNU_BUILD_ID || note->n_namesz != sizeof("GNU") ||
		    memcmp(name, "GNU", sizeof("GNU")))
			continue;
		if (!note->n_descsz || note->n_descsz > sizeof(info->build_id))
			return -EOPNOTSUPP;
		memcpy(info->build_id, content, note->n_descsz);
		info->build_id_size = note->n_descsz;
		return 0;
	}
	return -ENODATA;
}

/* What the verifier allows to those who have all capabilities. */
static u64 pv_policy(void)
{
	u64 policy = 0;

	if (cpu_mitigations_off())
		policy |= PV_POLICY_BYPASS_SPEC_V1 | PV_POLICY_BYPASS_SPEC_V4;
	if (!security_locked_down(LOCKDOWN_BPF_READ_KERNEL))
		policy |= PV_POLICY_READ_KERNEL;
	if (!security_locked_down(LOCKDOWN_BPF_WRITE_USER))
		policy |= PV_POLICY_WRITE_USER;
	return policy;
}

int pv_info_read(struct pv_machine_info *info)
{
	memset(info, 0, sizeof(*info));
	info->abi_version = PV_ABI_VERSION;
	info->fingerprint = (struct pv_fingerprint) {
		.arch = cpu_to_le32(pv_arch_machine),
		.page_shift = cpu_to_le32(PAGE_SHIFT),
		.va_bits = cpu_to_le32(pv_arch_va_bits()),
		.cpu_limit = cpu_to_le32(nr_cpu_ids),
		.policy = cpu_to_le64(pv_policy()),
		.jit_harden = cpu_to_le32(READ_ONCE(*pv_data(bpf_jit_harden))),
	};
	pv_arch_fingerprint(&info->fingerprint);
	return pv_build_id_read(info);
}
