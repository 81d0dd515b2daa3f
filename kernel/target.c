// SPDX-License-Identifier: GPL-2.0-only
#include <linux/kernel.h>
#include <linux/string.h>

#include "arch.h"
#include "fingerprint.h"
#include "image.h"
#include "table.h"
#include "target.h"

static bool pv_same_build(const struct pv_target *target, const struct pv_machine_info *info);
static bool pv_has_bytecode(const struct pv_manifest *manifest, const struct pv_target *target);
static int pv_verification_check(const struct pv_fingerprint *expected,
				 const struct pv_fingerprint *found, struct pv_reason *reason);
static int pv_native_check(const struct pv_fingerprint *expected,
			   const struct pv_fingerprint *found, struct pv_reason *reason);

int pv_target_choose(const struct pv_manifest *manifest, const struct pv_target **target, u32 *fit,
		     struct pv_reason *reason)
{
	const struct pv_target *candidate, *end;
	struct pv_reason refusal = {};
	struct pv_machine_info info;
	int err;

	err = pv_info_read(&info);
	if (err)
		return pv_refuse(reason, err, "no memory to find out about this machine");

	*target = NULL;
	end = manifest->targets + pv_count(&manifest->header->targets);
	for (candidate = manifest->targets; candidate < end; candidate++) {
		const struct pv_fingerprint *expected = &candidate->fingerprint;
		struct pv_reason unfit = {};
		bool verified;

		if (!pv_same_build(candidate, &info))
			continue;
		verified = !pv_verification_check(expected, &info.fingerprint, &unfit);
		if (verified && !pv_native_check(expected, &info.fingerprint, &unfit)) {
			*target = candidate;
			*fit = PV_OPEN_NATIVE | (pv_compiles() ? PV_OPEN_BYTECODE : 0);
			reason->text[0] = 0;
			return 0;
		}
		if (!refusal.text[0])
			refusal = unfit;
		if (verified && !*target && pv_has_bytecode(manifest, candidate)) {
			*target = candidate;
			*fit = PV_OPEN_BYTECODE;
			*reason = unfit;
		}
	}
	if (*target)
		return 0;
	if (refusal.text[0]) {
		*reason = refusal;
		return -ENOEXEC;
	}
	return pv_refuse(reason, -ENOEXEC,
			 "the bundle is for another kernel build than the running one (build id %*phN)",
			 (int)min(info.build_id_size, 20U), info.build_id);
}

int pv_target_check(const struct pv_target *target, u32 kind, struct pv_reason *reason)
{
	struct pv_machine_info info;
	int err;

	err = pv_info_read(&info);
	if (err)
		return pv_refuse(reason, err, "no memory to find out about this machine");
	err = pv_verification_check(&target->fingerprint, &info.fingerprint, reason);
	if (err || kind == PV_IMAGE_BYTECODE)
		return err;
	return pv_native_check(&target->fingerprint, &info.fingerprint, reason);
}

static bool pv_same_build(const struct pv_target *target, const struct pv_machine_info *info)
{
	return le32_to_cpu(target->build_id_size) == info->build_id_size &&
	       !memcmp(target->build_id, info->build_id, info->build_id_size);
}

/* That this kernel takes. */
static bool pv_has_bytecode(const struct pv_manifest *manifest, const struct pv_target *target)
{
	const struct pv_program *program = manifest->programs +
					   le32_to_cpu(target->programs.first);
	const struct pv_program *end = program + le32_to_cpu(target->programs.count);

	if (!pv_compiles())
		return false;
	for (; program < end; program++)
		if (le32_to_cpu(program->bytecode) != PV_NONE)
			return true;
	return false;
}

struct pv_number {
	const char *name;
	__le32 expected, found;
};

static int pv_numbers_check(const struct pv_number *numbers, size_t count,
			    struct pv_reason *reason);
static int pv_policy_check(u64 expected, u64 found, struct pv_reason *reason);

/* What the verifier's conclusions depend on, and so images of every kind. */
static int pv_verification_check(const struct pv_fingerprint *expected,
				 const struct pv_fingerprint *found, struct pv_reason *reason)
{
	const struct pv_number numbers[] = {
		{ "ELF machine", expected->arch, found->arch },
		{ "page shift", expected->page_shift, found->page_shift },
	};
	int err;

	err = pv_numbers_check(numbers, ARRAY_SIZE(numbers), reason);
	if (err)
		return err;
	/* Programs know that the number of their CPU is below this. */
	if (le32_to_cpu(found->cpu_limit) > le32_to_cpu(expected->cpu_limit))
		return pv_refuse(reason, -ENOEXEC,
				 "the bundle is for machines with up to %u possible CPUs, this one has %u",
				 le32_to_cpu(expected->cpu_limit), le32_to_cpu(found->cpu_limit));
	return pv_policy_check(le64_to_cpu(expected->policy), le64_to_cpu(found->policy), reason);
}

static int pv_jit_flags_check(u64 expected, u64 found, struct pv_reason *reason);

/* What the JIT compiler's output depends on beside that. */
static int pv_native_check(const struct pv_fingerprint *expected,
			   const struct pv_fingerprint *found, struct pv_reason *reason)
{
	const struct pv_number numbers[] = {
		{ "bits of a virtual address", expected->va_bits, found->va_bits },
		{ "net.core.bpf_jit_harden", expected->jit_harden, found->jit_harden },
		{ "cfi_mode", expected->cfi_mode, found->cfi_mode },
	};
	int err;

	err = pv_numbers_check(numbers, ARRAY_SIZE(numbers), reason);
	if (err)
		return err;
	err = pv_jit_flags_check(le64_to_cpu(expected->jit_flags), le64_to_cpu(found->jit_flags),
				 reason);
	if (err)
		return err;
	if (expected->return_thunk != found->return_thunk)
		return pv_refuse(reason, -ENOEXEC,
				 "mitigations differ: functions return through another thunk here");
	return 0;
}

static int pv_numbers_check(const struct pv_number *numbers, size_t count,
			    struct pv_reason *reason)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (numbers[i].expected != numbers[i].found)
			return pv_refuse(reason, -ENOEXEC,
					 "the code is for machines with %s %u, this one has %u",
					 numbers[i].name, le32_to_cpu(numbers[i].expected),
					 le32_to_cpu(numbers[i].found));
	return 0;
}

static u64 pv_lowest_bit(u64 bits)
{
	return bits & -bits;
}

static int pv_jit_flags_check(u64 expected, u64 found, struct pv_reason *reason)
{
	u64 flag = pv_lowest_bit(expected ^ found);

	if (!flag)
		return 0;
	return pv_refuse(reason, -ENOEXEC,
			 flag & expected ? "the machine has no %s, and the code was made for it" :
					   "the machine has %s, and the code was made without it",
			 pv_arch_jit_flag_name(flag));
}

static int pv_policy_check(u64 expected, u64 found, struct pv_reason *reason)
{
	u64 differing = expected ^ found;

	if (!differing)
		return 0;
	if (differing & (PV_POLICY_BYPASS_SPEC_V1 | PV_POLICY_BYPASS_SPEC_V4))
		return pv_refuse(reason, -ENOEXEC,
				 "mitigations differ: the verifier %s Spectre, this kernel does%s",
				 expected & differing ? "did not guard against" : "guarded against",
				 found & differing ? " not" : "");
	return pv_refuse(reason, -ENOEXEC,
			 "lockdown differs: bits %#llx of what programs may do with memory",
			 differing);
}
