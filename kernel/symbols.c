// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finding unexported symbols. kallsyms_lookup_name() is not exported either, but a probe on it
 * tells where it is.
 *
 * All functions are called through static calls: on x86_64 these are direct calls, which neither
 * CFI nor IBT checks, and the kernel seals the landing pads of functions whose addresses it never
 * takes. Elsewhere they are calls through a pointer.
 *
 * Two modules contain this file under other names than its own, so KBUILD_MODNAME is neither's.
 */
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>

#include "symbols.h"

#if !defined(PV_ROLE_DEVICE) && !defined(PV_ROLE_EXPORT)
#error "Kbuild compiles this file once for each role."
#endif

DEFINE_STATIC_CALL_NULL(pv_kallsyms_lookup_name, kallsyms_lookup_name);

#define PV_FUNCTION(function)	DEFINE_STATIC_CALL_NULL(pv_##function, function)
#define PV_DATA(type, symbol)	typeof(type) *pv_data_##symbol __ro_after_init
#include "symbol_table.h"

/* Where a probe on a function's name lands may be past its landing pad. */
static int __init pv_find_kallsyms_lookup_name(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	char symbol[KSYM_SYMBOL_LEN];
	unsigned long offset;
	int err;

	err = register_kprobe(&probe);
	if (err) {
		pr_err("%s: cannot probe kallsyms_lookup_name: %d\n", THIS_MODULE->name, err);
		return err;
	}
	sprint_symbol(symbol, (unsigned long)probe.addr);
	unregister_kprobe(&probe);

	if (sscanf(symbol, "kallsyms_lookup_name+0x%lx/", &offset) != 1) {
		pr_err("%s: the probe on kallsyms_lookup_name is at %s\n", THIS_MODULE->name,
		       symbol);
		return -ENOENT;
	}
	static_call_update(pv_kallsyms_lookup_name,
			   (typeof(kallsyms_lookup_name) *)((char *)probe.addr - offset));
	return 0;
}

static unsigned long __init pv_find(const char *name)
{
	unsigned long address = pv_call(kallsyms_lookup_name)(name);

	if (!address)
		pr_err("%s: this kernel has no symbol %s\n", THIS_MODULE->name, name);
	return address;
}

static bool __init pv_find_function(const char *name, struct static_call_key *key,
				    void *trampoline)
{
	unsigned long address = pv_find(name);

	if (address)
		__static_call_update(key, trampoline, (void *)address);
	return address;
}

static bool __init pv_find_data(const char *name, const void **datum)
{
	*datum = (const void *)pv_find(name);
	return *datum;
}

int __init pv_symbols_resolve(void)
{
	bool found = true;
	int err;

	err = pv_find_kallsyms_lookup_name();
	if (err)
		return err;

#define PV_FUNCTION(function)	\
	(found &= pv_find_function(#function, &STATIC_CALL_KEY(pv_##function),	\
				   STATIC_CALL_TRAMP_ADDR(pv_##function)))
#define PV_DATA(type, symbol)	\
	(found &= pv_find_data(#symbol, (const void **)&pv_data_##symbol))
#include "symbol_table.h"

	return found ? 0 : -ENOENT;
}
