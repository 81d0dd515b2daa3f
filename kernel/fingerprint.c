// SPDX-License-Identifier: GPL-2.0-only
#include <linux/align.h>
#include <linux/compiler.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/elf.h>
#include <linux/filter.h>
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/security.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "arch.h"
#include "fingerprint.h"
#include "symbols.h"

/* The type of the note that holds a build id; the kernel's headers do not name it. */
#define PV_NT_GNU_BUILD_ID 3

static u8 pv_build_id[sizeof_field(struct pv_machine_info, build_id)] __ro_after_init;
static u32 pv_build_id_size __ro_after_init;

static int __init pv_build_id_find(const u8 *at, const u8 *end)
{
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
		if (!note->n_descsz || note->n_descsz > sizeof(pv_build_id))
			return -EOPNOTSUPP;
		memcpy(pv_build_id, content, note->n_descsz);
		pv_build_id_size = note->n_descsz;
		return 0;
	}
	return -ENODATA;
}

/*
 * The notes are what /sys/kernel/notes would say. It is not asked by its path, where someone
 * could have put another file.
 */
static int __init pv_notes_read(void)
{
	struct kernfs_node *node = kernfs_find_and_get(kernel_kobj->sd, "notes");
	struct bin_attribute *notes;
	ssize_t size = -ENOMEM;
	char *bytes;

	if (!node)
		return -ENODATA;
	notes = node->priv;
	bytes = kvmalloc(notes->size, GFP_KERNEL);
	if (bytes)
		size = notes->read(NULL, kernel_kobj, notes, bytes, 0, notes->size);
	kernfs_put(node);
	if (size > 0)
		size = pv_build_id_find(bytes, bytes + size);
	kvfree(bytes);
	return size;
}

int __init pv_fingerprint_init(void)
{
	int err = pv_notes_read();

	if (err)
		pr_err("%s: this kernel has no build id: %d\n", module_name(THIS_MODULE), err);
	return err;
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

#ifdef PV_HAVE_DATA
static int pv_jit_harden(void)
{
	return READ_ONCE(*pv_data(bpf_jit_harden));
}
#else
/*
 * The setting is data that this kernel does not show. What it means to those who have all
 * capabilities shows in a program: 2, or nothing.
 */
static int pv_jit_harden(void)
{
	struct bpf_prog *prog = bpf_prog_alloc(bpf_prog_size(1), GFP_USER);
	bool blinding;

	if (!prog)
		return -ENOMEM;
	blinding = prog->blinding_requested;
	bpf_prog_free(prog);
	return blinding ? 2 : 0;
}
#endif

int pv_info_read(struct pv_machine_info *info)
{
	int jit_harden = pv_jit_harden();

	if (jit_harden < 0)
		return jit_harden;
	memset(info, 0, sizeof(*info));
	info->abi_version = PV_ABI_VERSION;
	BUILD_BUG_ON(sizeof(info->build_id) != sizeof(pv_build_id));
	memcpy(info->build_id, pv_build_id, sizeof(pv_build_id));
	info->build_id_size = pv_build_id_size;
	info->fingerprint = (struct pv_fingerprint) {
		.arch = cpu_to_le32(pv_arch_machine),
		.page_shift = cpu_to_le32(PAGE_SHIFT),
		.va_bits = cpu_to_le32(pv_arch_va_bits()),
		.cpu_limit = cpu_to_le32(nr_cpu_ids),
		.policy = cpu_to_le64(pv_policy()),
		.jit_harden = cpu_to_le32(jit_harden),
	};
	pv_arch_fingerprint(&info->fingerprint);
	return 0;
}
