// SPDX-License-Identifier: GPL-2.0-only
#include <linux/kernel.h>
#include <linux/stdarg.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "reason.h"

int pv_refuse(struct pv_reason *reason, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vscnprintf(reason->text, sizeof(reason->text), format, args);
	va_end(args);
	return err;
}

int pv_reason_return(const struct pv_reason *reason, u8 __user *user, int err)
{
	size_t length = strlen(reason->text);

	if (length && copy_to_user(user, reason->text, length + 1))
		return -EFAULT;
	return err;
}
