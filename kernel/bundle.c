// SPDX-License-Identifier: GPL-2.0-only
#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "bundle.h"
#include "load.h"
#include "section.h"
#include "target.h"
#include "trust.h"

/* A signature by a few signers, with their certificates. */
#define PV_SIGNATURE_MAX_SIZE	SZ_64K

static struct pv_bundle *pv_bundle_read(const struct pv_open *open, struct pv_reason *reason);
static int pv_bundle_install(struct pv_bundle *bundle, struct pv_open __user *user,
			     struct pv_reason *reason);
static void pv_bundle_free(struct pv_bundle *bundle);

int pv_bundle_open(struct pv_open __user *user)
{
	struct pv_reason reason = {};
	struct pv_bundle *bundle;
	struct pv_open open;
	int fd;

	if (copy_from_user(&open, user, offsetof(struct pv_open, reason)))
		return -EFAULT;

	bundle = pv_bundle_read(&open, &reason);
	if (IS_ERR(bundle))
		return pv_reason_return(&reason, user->reason, PTR_ERR(bundle));

	fd = pv_bundle_install(bundle, user, &reason);
	if (fd < 0) {
		pv_bundle_free(bundle);
		return pv_reason_return(&reason, user->reason, fd);
	}
	return fd;
}

static struct pv_bundle *pv_bundle_read(const struct pv_open *open, struct pv_reason *reason)
{
	void *manifest, *signature;
	struct pv_bundle *bundle;
	int err;

	if (!pv_capable())
		return ERR_PTR(pv_refuse(reason, -EPERM,
					 "opening a bundle needs CAP_BPF and CAP_PERFMON"));
	if (open->flags || open->reserved)
		return ERR_PTR(pv_refuse(reason, -EINVAL,
					 "flags and reserved fields must be zero"));
	if (!open->manifest_size || open->manifest_size > PV_MANIFEST_MAX_SIZE)
		return ERR_PTR(pv_refuse(reason, -E2BIG,
					 "the manifest has %u bytes, not 1 to %u",
					 open->manifest_size, PV_MANIFEST_MAX_SIZE));
	if (!open->signature_size || open->signature_size > PV_SIGNATURE_MAX_SIZE)
		return ERR_PTR(pv_refuse(reason, -E2BIG,
					 "the signature has %u bytes, not 1 to %u",
					 open->signature_size, PV_SIGNATURE_MAX_SIZE));

	manifest = pv_copy_from_user(open->manifest, open->manifest_size);
	if (IS_ERR(manifest))
		return ERR_PTR(pv_refuse(reason, PTR_ERR(manifest),
					 "the manifest cannot be copied"));
	signature = pv_copy_from_user(open->signature, open->signature_size);
	if (IS_ERR(signature)) {
		err = pv_refuse(reason, PTR_ERR(signature), "the signature cannot be copied");
		goto err_manifest;
	}
	err = pv_trust_verify(manifest, open->manifest_size, signature, open->signature_size,
			      reason);
	kvfree(signature);
	if (err)
		goto err_manifest;

	bundle = kmalloc(sizeof(*bundle), GFP_KERNEL_ACCOUNT);
	if (!bundle) {
		err = pv_refuse(reason, -ENOMEM, "no memory for the bundle");
		goto err_manifest;
	}
	err = pv_manifest_parse(&bundle->manifest, manifest, open->manifest_size, reason);
	if (err)
		goto err_bundle;
	err = pv_target_choose(&bundle->manifest, &bundle->target, &bundle->fit, reason);
	if (err)
		goto err_bundle;
	return bundle;

err_bundle:
	kfree(bundle);
err_manifest:
	kvfree(manifest);
	return ERR_PTR(err);
}

static void pv_bundle_free(struct pv_bundle *bundle)
{
	kvfree(bundle->manifest.header);
	kfree(bundle);
}

static int pv_bundle_release(struct inode *inode, struct file *file)
{
	pv_bundle_free(file->private_data);
	return 0;
}

static long pv_bundle_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case PV_IOC_LOAD:
		return pv_load(file->private_data, (struct pv_load __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations pv_bundle_operations = {
	.owner = THIS_MODULE,
	.release = pv_bundle_release,
	.unlocked_ioctl = pv_bundle_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/*
 * The descriptor becomes visible last: from then on others can close it. @reason says already
 * why native images do not fit, if that is so.
 */
static int pv_bundle_install(struct pv_bundle *bundle, struct pv_open __user *user,
			     struct pv_reason *reason)
{
	struct file *file;
	int fd;

	if (put_user(bundle->target - bundle->manifest.targets, &user->target) ||
	    put_user(bundle->fit, &user->fit) ||
	    pv_reason_return(reason, user->reason, 0))
		return -EFAULT;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return pv_refuse(reason, fd, "there is no file descriptor for the bundle");
	file = anon_inode_getfile("bpf-preverified", &pv_bundle_operations, bundle, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return pv_refuse(reason, PTR_ERR(file), "there is no file for the bundle");
	}
	fd_install(fd, file);
	return fd;
}
