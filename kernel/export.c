// SPDX-License-Identifier: GPL-2.0-only
/*
 * The verifier VM's role: telling everything about a loaded program that the system call hides.
 *
 * An export is laid out first, which gives its size, and then written into one buffer, all under
 * the mutex that keeps the program's maps as they are. Nothing else of a loaded program changes,
 * but for direct tail calls, which are code that maps' updates patch: those must not have been
 * patched.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/extable.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>

#include "arch.h"
#include "compat/aux.h"
#include "fields.h"
#include "fingerprint.h"
#include "preverified.h"
#include "reason.h"
#include "symbols.h"

/* A program's function; those of a program with a single one are the program itself. */
static const struct bpf_prog *pv_function(const struct bpf_prog *prog, u32 index)
{
	return prog->aux->func ? prog->aux->func[index] : prog;
}

static u32 pv_function_count(const struct bpf_prog *prog)
{
	return prog->aux->func ? pv_real_function_count(prog->aux) : 1;
}

static u32 pv_code_size(const struct bpf_prog *func)
{
	return func->jited ? func->jited_len : 0;
}

static u32 pv_extable_count(const struct bpf_prog *func)
{
	return func->jited && func->aux->extable ? func->aux->num_exentries : 0;
}

/* The fields that an export can say; the others are an obstacle. */
static u32 pv_export_fields(const struct bpf_map *map, struct pv_field fields[PV_FIELDS_MAX])
{
	return max(pv_fields_read(map, fields), 0);
}

static bool pv_has_unsayable_fields(const struct bpf_map *map)
{
	struct pv_field fields[PV_FIELDS_MAX];

	return pv_fields_read(map, fields) < 0;
}

/* Kfuncs and types of modules: their module is held as long as the program lives. */
static bool pv_uses_module_btf(const struct bpf_prog_aux *aux)
{
	u32 i;

	if (aux->kfunc_btf_tab)
		return true;
	for (i = 0; i < aux->used_btf_cnt; i++) {
		if (aux->used_btfs[i].module)
			return true;
	}
	for (i = 0; i < aux->used_map_cnt; i++) {
		if (pv_has_unsayable_fields(aux->used_maps[i]))
			return true;
		if (aux->used_maps[i]->inner_map_meta &&
		    pv_has_unsayable_fields(aux->used_maps[i]->inner_map_meta))
			return true;
	}
	return false;
}

/* A program's first attachment takes dst_prog away, but not what was saved of it. */
static bool pv_targets_program(const struct bpf_prog *prog)
{
	return prog->type == BPF_PROG_TYPE_EXT || READ_ONCE(prog->aux->dst_prog) ||
	       prog->aux->saved_dst_prog_type;
}

static u32 pv_obstacles(const struct bpf_prog *prog)
{
	const struct bpf_prog_aux *aux = prog->aux;
	const struct btf *attach_btf = aux->attach_btf;
	const struct bpf_prog *func;
	u32 obstacles = 0;
	u32 i;

	if (pv_is_device_bound(aux))
		obstacles |= PV_OBSTACLE_DEVICE_BOUND;
	if (pv_targets_program(prog))
		obstacles |= PV_OBSTACLE_PROGRAM_TARGET;
	if (pv_has_token(aux))
		obstacles |= PV_OBSTACLE_TOKEN;
	if (pv_has_arena(aux))
		obstacles |= PV_OBSTACLE_ARENA;
	if (pv_uses_module_btf(aux))
		obstacles |= PV_OBSTACLE_MODULE_BTF;
	if (attach_btf && pv_call(btf_is_module)(attach_btf))
		obstacles |= PV_OBSTACLE_MODULE_TARGET;
	if (prog->type == BPF_PROG_TYPE_STRUCT_OPS)
		obstacles |= PV_OBSTACLE_STRUCT_OPS;
	if (prog->type == BPF_PROG_TYPE_LSM && prog->expected_attach_type == BPF_LSM_CGROUP)
		obstacles |= PV_OBSTACLE_LSM_CGROUP;

	for (i = 0; i < pv_function_count(prog); i++) {
		func = pv_function(prog, i);
		if (!pv_code_size(func))
			obstacles |= PV_OBSTACLE_INTERPRETED;
		if (func->blinded)
			obstacles |= PV_OBSTACLE_BLINDED;
		if (pv_has_exceptions(func->aux))
			obstacles |= PV_OBSTACLE_EXCEPTIONS;
	}
	return obstacles;
}

static u64 pv_prog_flags(const struct bpf_prog *prog)
{
	const struct bpf_prog_aux *aux = prog->aux;
	u64 flags = 0;
	u32 i;

	if (prog->gpl_compatible)
		flags |= PV_PROG_GPL_COMPATIBLE;
	if (prog->cb_access)
		flags |= PV_PROG_CB_ACCESS;
	if (prog->dst_needed)
		flags |= PV_PROG_DST_NEEDED;
	if (prog->kprobe_override)
		flags |= PV_PROG_KPROBE_OVERRIDE;
	if (prog->has_callchain_buf)
		flags |= PV_PROG_HAS_CALLCHAIN_BUF;
	if (prog->enforce_expected_attach_type)
		flags |= PV_PROG_ENFORCE_EXPECTED_ATTACH_TYPE;
	if (prog->call_get_stack)
		flags |= PV_PROG_CALL_GET_STACK;
	if (prog->call_get_func_ip)
		flags |= PV_PROG_CALL_GET_FUNC_IP;
	if (prog->tstamp_type_access)
		flags |= PV_PROG_TSTAMP_TYPE_ACCESS;
	if (pv_is_sleepable(prog))
		flags |= PV_PROG_SLEEPABLE;
	if (aux->attach_btf_trace)
		flags |= PV_PROG_ATTACH_BTF_TRACE;
	if (aux->func_proto_unreliable)
		flags |= PV_PROG_FUNC_PROTO_UNRELIABLE;
	if (aux->tail_call_reachable)
		flags |= PV_PROG_TAIL_CALL_REACHABLE;
	if (aux->xdp_has_frags)
		flags |= PV_PROG_XDP_HAS_FRAGS;
	if (pv_changes_pkt_data(aux))
		flags |= PV_PROG_CHANGES_PKT_DATA;
	if (aux->verifier_zext)
		flags |= PV_PROG_VERIFIER_ZEXT;
	for (i = 0; i < pv_function_count(prog); i++) {
		if (pv_has_exceptions(pv_function(prog, i)->aux))
			flags |= PV_PROG_EXCEPTIONS;
	}
	return flags;
}

static u32 pv_map_index(const struct bpf_prog_aux *aux, const struct bpf_map *map)
{
	u32 i;

	for (i = 0; i < aux->used_map_cnt; i++) {
		if (aux->used_maps[i] == map)
			return i;
	}
	return PV_NONE;
}

static void pv_write_conclusions(struct pv_conclusions *conclusions, const struct bpf_prog *prog)
{
	const struct bpf_prog_aux *aux = prog->aux;
	u32 i;

	*conclusions = (struct pv_conclusions) {
		.flags = cpu_to_le64(pv_prog_flags(prog)),
		.max_ctx_offset = cpu_to_le32(aux->max_ctx_offset),
		.max_pkt_offset = cpu_to_le32(aux->max_pkt_offset),
		.max_tp_access = cpu_to_le32(aux->max_tp_access),
		.max_rdonly_access = cpu_to_le32(aux->max_rdonly_access),
		.max_rdwr_access = cpu_to_le32(aux->max_rdwr_access),
		.verified_insns = cpu_to_le32(aux->verified_insns),
		.stack_depth = cpu_to_le32(aux->stack_depth),
		.visible_functions = cpu_to_le32(aux->func_cnt),
	};
	memcpy(conclusions->tag, prog->tag, sizeof(conclusions->tag));
	BUILD_BUG_ON(ARRAY_SIZE(conclusions->cgroup_storage) != MAX_BPF_CGROUP_STORAGE_TYPE);
	for (i = 0; i < MAX_BPF_CGROUP_STORAGE_TYPE; i++)
		conclusions->cgroup_storage[i] =
			cpu_to_le32(pv_map_index(aux, aux->cgroup_storage[i]));
}

/* Puts a table at the end of what is laid out so far. Too big a size is found out at the end. */
static void pv_place(struct pv_table *table, u64 *size, u64 count, size_t record_size)
{
	table->offset = cpu_to_le32(*size);
	table->count = cpu_to_le32(count);
	*size = ALIGN(*size + count * record_size, 8);
}

static int pv_lay_out(struct pv_export_header *header, const struct bpf_prog *prog,
		      struct pv_reason *reason)
{
	const struct bpf_prog_aux *aux = prog->aux;
	u64 code = 0, insns = 0, extable = 0, fields = 0;
	struct pv_field scratch[PV_FIELDS_MAX];
	u64 size = sizeof(*header);
	u32 i;

	for (i = 0; i < pv_function_count(prog); i++) {
		code += pv_code_size(pv_function(prog, i));
		insns += pv_function(prog, i)->len;
		extable += pv_extable_count(pv_function(prog, i));
	}
	for (i = 0; i < aux->used_map_cnt; i++) {
		fields += pv_export_fields(aux->used_maps[i], scratch);
		if (aux->used_maps[i]->inner_map_meta)
			fields += pv_export_fields(aux->used_maps[i]->inner_map_meta, scratch);
	}

	pv_place(&header->functions, &size, pv_function_count(prog),
		 sizeof(struct pv_export_function));
	pv_place(&header->code, &size, code, 1);
	pv_place(&header->insns, &size, insns, sizeof(struct bpf_insn));
	pv_place(&header->extable, &size, extable, sizeof(struct pv_extable));
	pv_place(&header->pokes, &size, aux->size_poke_tab, sizeof(struct pv_export_poke));
	pv_place(&header->xlated, &size, prog->len, sizeof(struct bpf_insn));
	pv_place(&header->maps, &size, aux->used_map_cnt, sizeof(struct pv_export_map));
	pv_place(&header->fields, &size, fields, sizeof(struct pv_field));
	if (size > INT_MAX)
		return pv_refuse(reason, -E2BIG, "the export needs %llu bytes, more than %d",
				 size, INT_MAX);
	header->size = cpu_to_le32(size);
	return 0;
}

static void pv_write_header(struct pv_export_header *header, const struct bpf_prog *prog)
{
	memcpy(header->magic, PV_EXPORT_MAGIC, sizeof(header->magic));
	header->version = cpu_to_le32(PV_ABI_VERSION);
	BUILD_BUG_ON(sizeof(header->name) != sizeof(prog->aux->name));
	memcpy(header->name, prog->aux->name, sizeof(header->name));
	header->prog_type = cpu_to_le32(prog->type);
	header->expected_attach_type = cpu_to_le32(prog->expected_attach_type);
	header->attach_btf_id = cpu_to_le32(prog->aux->attach_btf_id);
	header->obstacles = cpu_to_le32(pv_obstacles(prog));
	header->arch = cpu_to_le32(pv_arch_machine);
	header->va_bits = cpu_to_le32(pv_arch_va_bits());
	pv_write_conclusions(&header->conclusions, prog);
	header->aux_address = cpu_to_le64((unsigned long)prog->aux);
	header->text_address = cpu_to_le64(pv_kernel_start());
}

static int pv_write_extable(struct pv_extable *records, const struct bpf_prog *func,
			    struct pv_reason *reason)
{
	u32 i;

	for (i = 0; i < pv_extable_count(func); i++)
		if (!pv_arch_read_exception(&records[i], &func->aux->extable[i],
					    (const u8 *)func->bpf_func, pv_code_size(func)))
			return pv_refuse(reason, -EINVAL,
					 "exception %u is at no instruction of its function", i);
	return 0;
}

static struct pv_range pv_next_range(u32 *next, u32 count)
{
	struct pv_range range = { .first = cpu_to_le32(*next), .count = cpu_to_le32(count) };

	*next += count;
	return range;
}

static void *pv_table_in(void *bytes, const struct pv_table *table)
{
	return bytes + le32_to_cpu(table->offset);
}

static int pv_write_functions(void *bytes, const struct pv_export_header *header,
			      const struct bpf_prog *prog, struct pv_reason *reason)
{
	struct pv_export_function *records = pv_table_in(bytes, &header->functions);
	struct pv_extable *extable = pv_table_in(bytes, &header->extable);
	struct bpf_insn *insns = pv_table_in(bytes, &header->insns);
	u32 next_code = 0, next_insn = 0, next_extable = 0;
	u8 *code = pv_table_in(bytes, &header->code);
	const struct bpf_prog *func;
	u32 flags, i;
	int err;

	for (i = 0; i < pv_function_count(prog); i++) {
		func = pv_function(prog, i);
		memcpy(code + next_code, (const void *)func->bpf_func, pv_code_size(func));
		memcpy(insns + next_insn, func->insnsi, bpf_prog_insn_size(func));
		err = pv_write_extable(extable + next_extable, func, reason);
		if (err)
			return err;

		flags = 0;
		if (func->aux->tail_call_reachable)
			flags |= PV_FUNCTION_TAIL_CALL_REACHABLE;
		if (pv_changes_pkt_data(func->aux))
			flags |= PV_FUNCTION_CHANGES_PKT_DATA;

		records[i] = (struct pv_export_function) {
			.address = cpu_to_le64((unsigned long)func->bpf_func),
			.code = pv_next_range(&next_code, pv_code_size(func)),
			.insns = pv_next_range(&next_insn, func->len),
			.extable = pv_next_range(&next_extable, pv_extable_count(func)),
			.stack_depth = cpu_to_le32(func->aux->stack_depth),
			.flags = cpu_to_le32(flags),
		};
		memcpy(records[i].tag, func->tag, sizeof(records[i].tag));
	}
	return 0;
}

static int pv_find_poke_function(const struct bpf_prog *prog, const void *aux, u32 *index)
{
	u32 i;

	*index = PV_NONE;
	if (!aux || aux == prog->aux)
		return 0;
	for (i = 0; i < pv_function_count(prog); i++) {
		if (pv_function(prog, i)->aux == aux) {
			*index = i;
			return 0;
		}
	}
	return -EINVAL;
}

static bool pv_slot_is_taken(struct bpf_map *map, u32 key)
{
	struct bpf_array *array = container_of(map, struct bpf_array, map);

	return key < map->max_entries && READ_ONCE(array->ptrs[key]);
}

static int pv_write_pokes(struct pv_export_poke *records, const struct bpf_prog *prog,
			  struct pv_reason *reason)
{
	const struct bpf_jit_poke_descriptor *poke;
	u32 function, i;

	for (i = 0; i < prog->aux->size_poke_tab; i++) {
		poke = &prog->aux->poke_tab[i];
		if (poke->reason != BPF_POKE_REASON_TAIL_CALL)
			return pv_refuse(reason, -EOPNOTSUPP,
					 "patched place %u is no tail call but of kind %u", i,
					 poke->reason);
		if (pv_find_poke_function(prog, poke->aux, &function))
			return pv_refuse(reason, -EINVAL,
					 "tail call %u is in a function of another program", i);
		if (pv_slot_is_taken(poke->tail_call.map, poke->tail_call.key))
			return pv_refuse(reason, -EBUSY,
					 "prog array %s has a program at %u, so code is patched: delete it",
					 poke->tail_call.map->name, poke->tail_call.key);

		records[i] = (struct pv_export_poke) {
			.target = cpu_to_le64((unsigned long)poke->tailcall_target),
			.bypass = cpu_to_le64((unsigned long)poke->tailcall_bypass),
			.bypass_target = cpu_to_le64((unsigned long)poke->bypass_addr),
			.map = cpu_to_le64((unsigned long)poke->tail_call.map),
			.key = cpu_to_le32(poke->tail_call.key),
			.function = cpu_to_le32(function),
			.insn_idx = cpu_to_le32(poke->insn_idx),
			.adjust = cpu_to_le32(poke->adj_off),
		};
	}
	return 0;
}

/* Where programs find the values without a look-up; zero if they cannot. */
static u64 pv_value_address(const struct bpf_map *map)
{
	u64 address;

	if (!map->ops->map_direct_value_addr || map->ops->map_direct_value_addr(map, &address, 0))
		return 0;
	return address;
}

/* The verifier reads values of such maps, and takes what it reads for constants. */
static bool pv_is_constant(const struct bpf_map *map)
{
	return map->map_flags & BPF_F_RDONLY_PROG && READ_ONCE(map->frozen) &&
	       pv_value_address(map);
}

static void pv_write_map(struct pv_export_map *record, const struct bpf_map *map,
			 struct pv_field *fields, u32 *next_field)
{
	const struct bpf_map *inner = map->inner_map_meta;
	u64 value_address = pv_value_address(map);
	struct pv_field found[PV_FIELDS_MAX];
	u32 count;

	*record = (struct pv_export_map) {
		.address = cpu_to_le64((unsigned long)map),
		.value_address = cpu_to_le64(value_address),
		.value_span = cpu_to_le64(value_address ? map->value_size : 0),
		.map_extra = cpu_to_le64(map->map_extra),
		.id = cpu_to_le32(map->id),
		.map_type = cpu_to_le32(map->map_type),
		.key_size = cpu_to_le32(map->key_size),
		.value_size = cpu_to_le32(map->value_size),
		.max_entries = cpu_to_le32(map->max_entries),
		.map_flags = cpu_to_le32(map->map_flags),
		.flags = cpu_to_le32(pv_is_constant(map) ? PV_EXPORT_MAP_CONSTANT : 0),
	};

	count = pv_export_fields(map, found);
	memcpy(fields + *next_field, found, count * sizeof(*fields));
	record->fields = pv_next_range(next_field, count);
	if (!inner)
		return;

	record->inner_map_type = cpu_to_le32(inner->map_type);
	record->inner_key_size = cpu_to_le32(inner->key_size);
	record->inner_value_size = cpu_to_le32(inner->value_size);
	record->inner_max_entries = cpu_to_le32(inner->max_entries);
	record->inner_map_flags = cpu_to_le32(inner->map_flags);
	count = pv_export_fields(inner, found);
	memcpy(fields + *next_field, found, count * sizeof(*fields));
	record->inner_fields = pv_next_range(next_field, count);
}

static int pv_write_export(void *bytes, const struct pv_export_header *header,
			   const struct bpf_prog *prog, struct pv_reason *reason)
{
	struct pv_export_map *maps = pv_table_in(bytes, &header->maps);
	u32 next_field = 0;
	u32 i;
	int err;

	memcpy(bytes, header, sizeof(*header));
	err = pv_write_functions(bytes, header, prog, reason);
	if (err)
		return err;
	err = pv_write_pokes(pv_table_in(bytes, &header->pokes), prog, reason);
	if (err)
		return err;
	memcpy(pv_table_in(bytes, &header->xlated), prog->insnsi, bpf_prog_insn_size(prog));
	for (i = 0; i < prog->aux->used_map_cnt; i++)
		pv_write_map(&maps[i], prog->aux->used_maps[i],
			     pv_table_in(bytes, &header->fields), &next_field);
	return 0;
}

/* Makes the export, unless it is bigger than @room, and its size in any case. */
static int pv_make_export(const struct bpf_prog *prog, u32 room, void **bytes, u32 *size,
			  struct pv_reason *reason)
{
	struct pv_export_header header = {};
	int err;

	err = pv_lay_out(&header, prog, reason);
	if (err)
		return err;
	*size = le32_to_cpu(header.size);
	if (*size > room)
		return pv_refuse(reason, -ENOSPC, "the export needs %u bytes, there are %u", *size,
				 room);

	*bytes = kvzalloc(*size, GFP_KERNEL);
	if (!*bytes)
		return pv_refuse(reason, -ENOMEM, "no memory for an export of %u bytes", *size);
	pv_write_header(&header, prog);
	err = pv_write_export(*bytes, &header, prog, reason);
	if (err) {
		kvfree(*bytes);
		*bytes = NULL;
	}
	return err;
}

static int pv_export(struct pv_export *call, struct pv_reason *reason)
{
	struct bpf_prog *prog;
	void *bytes = NULL;
	u32 room = call->size;
	int err;

	call->size = 0;
	prog = pv_call(bpf_prog_get)(call->program);
	if (IS_ERR(prog))
		return pv_refuse(reason, PTR_ERR(prog), "file descriptor %d is not a BPF program's",
				 call->program);

	mutex_lock(&prog->aux->used_maps_mutex);
	err = pv_make_export(prog, room, &bytes, &call->size, reason);
	mutex_unlock(&prog->aux->used_maps_mutex);
	bpf_prog_put(prog);
	if (err)
		return err;

	if (copy_to_user(u64_to_user_ptr(call->buffer), bytes, call->size))
		err = pv_refuse(reason, -EFAULT, "the buffer is not %u writable bytes", call->size);
	kvfree(bytes);
	return err;
}

static int pv_ioc_export(struct pv_export __user *user)
{
	struct pv_reason reason = {};
	struct pv_export call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	err = pv_export(&call, &reason);
	BUILD_BUG_ON(sizeof(call.reason) != sizeof(reason.text));
	memcpy(call.reason, reason.text, sizeof(call.reason));
	if (copy_to_user(user, &call, sizeof(call)))
		return -EFAULT;
	return err;
}

static int pv_ioc_info(struct pv_machine_info __user *user)
{
	struct pv_machine_info info;
	int err;

	err = pv_info_read(&info);
	if (err)
		return err;
	return copy_to_user(user, &info, sizeof(info)) ? -EFAULT : 0;
}

static long pv_export_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case PV_IOC_INFO:
		return pv_ioc_info((struct pv_machine_info __user *)argument);
	case PV_IOC_EXPORT:
		return pv_ioc_export((struct pv_export __user *)argument);
	default:
		return -ENOTTY;
	}
}

/* An export is full of addresses of the kernel. */
static int pv_export_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_ADMIN) ? 0 : -EPERM;
}

static const struct file_operations pv_export_operations = {
	.owner = THIS_MODULE,
	.open = pv_export_open,
	.unlocked_ioctl = pv_export_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice pv_export_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "bpf_preverified_export",
	.fops = &pv_export_operations,
	.mode = 0600,
};

static int __init pv_export_init(void)
{
	int err;

	err = pv_symbols_resolve();
	if (err)
		return err;
	err = pv_fingerprint_init();
	if (err)
		return err;
	return misc_register(&pv_export_device);
}

static void __exit pv_export_exit(void)
{
	misc_deregister(&pv_export_device);
}

module_init(pv_export_init);
module_exit(pv_export_exit);

MODULE_DESCRIPTION("Tells what the kernel hides of loaded BPF programs, in verifier VMs");
MODULE_LICENSE("GPL");
