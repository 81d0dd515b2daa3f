// SPDX-License-Identifier: GPL-2.0-only
#include <crypto/sha2.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "section.h"

void *pv_section_copy(const struct pv_section *section, u64 address, u32 size, const char *what,
		      struct pv_reason *reason)
{
	void *bytes;

	/* Before memory is allocated: the manifest bounds it, the caller does not. */
	if (le32_to_cpu(section->size) != size)
		return ERR_PTR(pv_refuse(reason, -EBADMSG,
					 "the %s section has %u bytes, the manifest says %u",
					 what, size, le32_to_cpu(section->size)));
	bytes = pv_copy_from_user(address, size);
	if (IS_ERR(bytes)) {
		pv_refuse(reason, PTR_ERR(bytes), "the %s section cannot be copied", what);
		return bytes;
	}
	if (!pv_section_is(section, bytes, size)) {
		kvfree(bytes);
		return ERR_PTR(pv_refuse(reason, -EBADMSG,
					 "the %s section is not the one that was signed: its SHA-256 differs",
					 what));
	}
	return bytes;
}

bool pv_section_is(const struct pv_section *section, const void *bytes, size_t size)
{
	u8 digest[SHA256_DIGEST_SIZE];
	struct sha256_state state;
	size_t part;

	if (le32_to_cpu(section->size) != size)
		return false;

	sha256_init(&state);
	while (size) {
		part = min_t(size_t, size, SZ_64K);
		sha256_update(&state, bytes, part);
		bytes += part;
		size -= part;
		cond_resched();
	}
	sha256_final(&state, digest);
	return !memcmp(digest, section->digest, sizeof(digest));
}

void *pv_copy_from_user(u64 address, u32 size)
{
	void *bytes;

	bytes = kvmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!bytes)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(bytes, u64_to_user_ptr(address), size)) {
		kvfree(bytes);
		return ERR_PTR(-EFAULT);
	}
	return bytes;
}
