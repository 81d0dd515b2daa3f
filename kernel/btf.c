// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/minmax.h>

#include "btf.h"
#include "section.h"

/*
 * struct btf is private to the kernel's BTF code. But it keeps the bytes as user space gave them,
 * and the first type follows the header in them. (A longer header has only zeroes in what the
 * kernel does not know, so it cannot pose as a header.)
 */
bool pv_btf_is(const struct btf *btf, const struct pv_section *section)
{
	const struct btf_type *first = btf ? btf_type_by_id(btf, 1) : NULL;
	const struct btf_header *header;
	size_t size;

	if (!first)
		return false;
	header = (const void *)first - sizeof(*header);
	if (header->magic != BTF_MAGIC || header->hdr_len != sizeof(*header) || header->type_off)
		return false;
	size = sizeof(*header) + max((size_t)header->type_len,
				     (size_t)header->str_off + header->str_len);
	return pv_section_is(section, header, size);
}
