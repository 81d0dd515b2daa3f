// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "image.h"
#include "load.h"
#include "map.h"
#include "program.h"
#include "section.h"
#include "table.h"
#include "target.h"

static int pv_load_program(const struct pv_bundle *bundle, const struct pv_load *load,
			   struct pv_reason *reason);

int pv_load(const struct pv_bundle *bundle, struct pv_load __user *user)
{
	struct pv_reason reason = {};
	struct pv_load load;
	int fd;

	if (copy_from_user(&load, user, offsetof(struct pv_load, reason)))
		return -EFAULT;

	fd = pv_load_program(bundle, &load, &reason);
	return fd < 0 ? pv_reason_return(&reason, user->reason, fd) : fd;
}

static int pv_check_call(const struct pv_bundle *bundle, const struct pv_load *load,
			 struct pv_reason *reason);
static int pv_check_capabilities(const struct pv_program *program, struct pv_reason *reason);
static const struct pv_section *pv_find_section(const struct pv_bundle *bundle,
						const struct pv_load *load, bool symbols);
static int pv_load_from(const struct pv_bundle *bundle, const struct pv_load *load,
			struct pv_bytes image, struct pv_bytes symbols, struct pv_reason *reason);

static int pv_load_program(const struct pv_bundle *bundle, const struct pv_load *load,
			   struct pv_reason *reason)
{
	const struct pv_program *program;
	void *image, *symbols;
	int err;

	err = pv_check_call(bundle, load, reason);
	if (err)
		return err;
	program = &bundle->manifest.programs[load->program];
	err = pv_check_capabilities(program, reason);
	if (err)
		return err;
	err = pv_target_check(bundle->target, load->kind, reason);
	if (err)
		return err;

	image = pv_section_copy(pv_find_section(bundle, load, false), load->image,
				load->image_size, "image", reason);
	if (IS_ERR(image))
		return PTR_ERR(image);
	symbols = pv_section_copy(pv_find_section(bundle, load, true), load->symbols,
				  load->symbols_size, "symbols", reason);
	if (IS_ERR(symbols)) {
		err = PTR_ERR(symbols);
		goto out_image;
	}
	err = pv_load_from(bundle, load, (struct pv_bytes){ image, load->image_size },
			   (struct pv_bytes){ symbols, load->symbols_size }, reason);

	kvfree(symbols);
out_image:
	kvfree(image);
	return err;
}

/* One of the two sections of the image that the caller chose; NULL if the program has no such. */
static const struct pv_section *pv_find_section(const struct pv_bundle *bundle,
						const struct pv_load *load, bool symbols)
{
	const struct pv_program *program = &bundle->manifest.programs[load->program];
	u32 index;

	if (load->kind == PV_IMAGE_NATIVE)
		index = le32_to_cpu(symbols ? program->native_symbols : program->native);
	else
		index = le32_to_cpu(symbols ? program->bytecode_symbols : program->bytecode);
	return index == PV_NONE ? NULL : &bundle->manifest.sections[index];
}

static int pv_check_call(const struct pv_bundle *bundle, const struct pv_load *load,
			 struct pv_reason *reason)
{
	const struct pv_manifest *manifest = &bundle->manifest;
	const struct pv_program *program;
	const __le32 *refs;
	u32 i;

	if (load->flags)
		return pv_refuse(reason, -EINVAL, "flags must be zero");
	if (load->kind != PV_IMAGE_NATIVE && load->kind != PV_IMAGE_BYTECODE)
		return pv_refuse(reason, -EINVAL, "there are no images of kind %u", load->kind);
	if (load->kind == PV_IMAGE_BYTECODE && !pv_compiles())
		return pv_refuse(reason, -EOPNOTSUPP,
				 "this kernel has no JIT compiler for BPF: it takes native images");
	if (!pv_range_has(&bundle->target->programs, load->program))
		return pv_refuse(reason, -ENOENT,
				 "the bundle has no program %u for this machine's target",
				 load->program);

	program = &manifest->programs[load->program];
	if (!pv_find_section(bundle, load, false))
		return pv_refuse(reason, -ENOENT, "program %s has no %s", program->name,
				 load->kind == PV_IMAGE_NATIVE ? "native image" : "bytecode");
	if (!pv_find_section(bundle, load, true))
		return pv_refuse(reason, -EBADMSG, "program %s has no symbols section",
				 program->name);
	if (load->map_count > PV_MAPS_MAX)
		return pv_refuse(reason, -E2BIG, "a program has at most %u maps", PV_MAPS_MAX);
	if (load->map_count != le32_to_cpu(program->map_refs.count))
		return pv_refuse(reason, -EINVAL, "program %s has %u maps, %u are given",
				 program->name, le32_to_cpu(program->map_refs.count),
				 load->map_count);

	refs = manifest->map_refs + le32_to_cpu(program->map_refs.first);
	for (i = 0; i < load->map_count; i++)
		if (!pv_range_has(&bundle->target->maps, le32_to_cpu(refs[i])))
			return pv_refuse(reason, -EBADMSG,
					 "program %s names a map that is not of this target",
					 program->name);
	return 0;
}

/* As bpf_prog_load() asks, beside what pv_capable() asks of all. */
static bool pv_needs_net_admin(u32 type)
{
	switch (type) {
	case BPF_PROG_TYPE_SCHED_CLS:
	case BPF_PROG_TYPE_SCHED_ACT:
	case BPF_PROG_TYPE_XDP:
	case BPF_PROG_TYPE_LWT_IN:
	case BPF_PROG_TYPE_LWT_OUT:
	case BPF_PROG_TYPE_LWT_XMIT:
	case BPF_PROG_TYPE_LWT_SEG6LOCAL:
	case BPF_PROG_TYPE_SK_SKB:
	case BPF_PROG_TYPE_SK_MSG:
	case BPF_PROG_TYPE_FLOW_DISSECTOR:
	case BPF_PROG_TYPE_CGROUP_DEVICE:
	case BPF_PROG_TYPE_CGROUP_SOCK:
	case BPF_PROG_TYPE_CGROUP_SOCK_ADDR:
	case BPF_PROG_TYPE_CGROUP_SOCKOPT:
	case BPF_PROG_TYPE_CGROUP_SYSCTL:
	case BPF_PROG_TYPE_SOCK_OPS:
#ifdef PV_HAVE_NETFILTER
	case BPF_PROG_TYPE_NETFILTER:
#endif
		return true;
	default:
		return false;
	}
}

static int pv_check_capabilities(const struct pv_program *program, struct pv_reason *reason)
{
	if (!pv_capable())
		return pv_refuse(reason, -EPERM, "loading needs CAP_BPF and CAP_PERFMON");
	if (pv_needs_net_admin(le32_to_cpu(program->prog_type)) &&
	    !capable(CAP_NET_ADMIN) && !capable(CAP_SYS_ADMIN))
		return pv_refuse(reason, -EPERM, "program %s needs CAP_NET_ADMIN", program->name);
	return 0;
}

static int pv_load_from(const struct pv_bundle *bundle, const struct pv_load *load,
			struct pv_bytes image_bytes, struct pv_bytes symbols,
			struct pv_reason *reason)
{
	const struct pv_program *program = &bundle->manifest.programs[load->program];
	struct pv_image image;
	struct pv_maps maps;
	s32 fds[PV_MAPS_MAX];
	int err;

	err = pv_image_parse(&image, load->kind, image_bytes, symbols, load->map_count, reason);
	if (err)
		return err;
	if (copy_from_user(fds, u64_to_user_ptr(load->map_fds), load->map_count * sizeof(*fds)))
		return pv_refuse(reason, -EFAULT, "the maps' descriptors cannot be copied");
	err = pv_maps_get(&maps, bundle, program, fds, reason);
	if (err)
		return err;

	err = pv_program_load(&bundle->manifest, program, &image, &maps, reason);
	pv_maps_put(&maps);
	return err;
}
