// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads BPF programs that this very kernel's verifier has accepted elsewhere: from signed
 * bundles, through a character device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "bundle.h"
#include "fingerprint.h"
#include "id.h"
#include "load.h"
#include "symbols.h"
#include "trust.h"

static int pv_device_info(struct pv_machine_info __user *user)
{
	struct pv_machine_info info;
	int err;

	err = pv_info_read(&info);
	if (err)
		return err;
	return copy_to_user(user, &info, sizeof(info)) ? -EFAULT : 0;
}

static int pv_device_open(struct inode *inode, struct file *file)
{
	return pv_capable() ? 0 : -EPERM;
}

static long pv_device_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	/* A descriptor can come from someone who was allowed more: each call asks again. */
	switch (command) {
	case PV_IOC_INFO:
		if (!pv_capable())
			return -EPERM;
		return pv_device_info((struct pv_machine_info __user *)argument);
	case PV_IOC_OPEN:
		return pv_bundle_open((struct pv_open __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations pv_device_operations = {
	.owner = THIS_MODULE,
	.open = pv_device_open,
	.unlocked_ioctl = pv_device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice pv_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "bpf_preverified",
	.fops = &pv_device_operations,
	.mode = 0600,
};

static int __init pv_init(void)
{
	int err;

	err = pv_symbols_resolve();
	if (err)
		return err;
	err = pv_fingerprint_init();
	if (err)
		return err;
	err = pv_id_init();
	if (err)
		return err;
	err = pv_trust_init();
	if (err)
		goto err_id;
	err = misc_register(&pv_device);
	if (err)
		goto err_trust;
	return 0;

err_trust:
	pv_trust_exit();
err_id:
	pv_id_exit();
	return err;
}
module_init(pv_init);

static void __exit pv_exit(void)
{
	misc_deregister(&pv_device);
	pv_trust_exit();
	pv_id_exit();
}
module_exit(pv_exit);

MODULE_DESCRIPTION("Loads preverified BPF programs from signed bundles");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(BPF_INTERNAL);
