/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The unexported symbols that the kernel part uses. This file is included several times, with
 * PV_FUNCTION(function) and PV_DATA(type, symbol) meaning something else each time: there is no
 * guard against that. A function's prototype is the one in the kernel's headers; an array is
 * here without its size.
 */

/* Both roles. */
#ifdef PV_HAVE_DATA
PV_DATA(const char, _text);
PV_DATA(const char, _end);
PV_DATA(const int, bpf_jit_harden);
#else
PV_DATA(const char, _stext);
PV_DATA(const char, _etext);
#endif
PV_FUNCTION(btf_is_kernel);
PV_FUNCTION(btf_is_module);
#ifdef PV_HAVE_RETHUNK
PV_DATA(void (*const)(void), x86_return_thunk);
#endif
#ifdef PV_HAVE_CFI_MODE
PV_DATA(const enum cfi_mode, cfi_mode);
#endif
#ifdef CONFIG_ARM64
PV_DATA(const char, dummy_tramp);
#endif

#ifndef PV_ROLE_EXPORT
/* The device. The JIT compiler's static jit_fill_hole() is not here: it sets bytes to 0xcc. */
#ifdef PV_HAVE_DATA
PV_DATA(const struct bpf_prog_ops *const[], bpf_prog_types);
PV_DATA(struct idr, prog_idr);
PV_DATA(spinlock_t, prog_idr_lock);
#endif
PV_DATA(const char, bpf_map_offload_map_free);
PV_DATA(const char, bpf_trace_printk);
PV_DATA(const char, bpf_trace_vprintk);
PV_FUNCTION(bpf_get_trace_printk_proto);
PV_FUNCTION(bpf_iter_prog_supported);
PV_FUNCTION(bpf_check_attach_target);
PV_FUNCTION(bpf_get_btf_vmlinux);
PV_FUNCTION(bpf_get_raw_tracepoint);
PV_FUNCTION(bpf_int_jit_compile);
PV_FUNCTION(bpf_opcode_in_insntable);
PV_FUNCTION(bpf_prog_alloc_no_stats);
PV_FUNCTION(bpf_prog_kallsyms_add);
PV_FUNCTION(bpf_prog_new_fd);
PV_FUNCTION(bpf_put_raw_tracepoint);
PV_FUNCTION(bpf_trampoline_get);
PV_FUNCTION(bpf_user_rnd_init_once);
PV_FUNCTION(btf_get);
PV_FUNCTION(btf_obj_id);
PV_FUNCTION(btf_put);
PV_FUNCTION(free_uid);
PV_FUNCTION(get_callchain_buffers);
PV_FUNCTION(perf_event_bpf_event);
#ifdef PV_NATIVE
PV_FUNCTION(bpf_arch_poke_desc_update);
#ifdef PV_HAVE_PACK
PV_FUNCTION(bpf_arch_text_copy);
PV_FUNCTION(bpf_jit_binary_pack_alloc);
PV_FUNCTION(bpf_jit_binary_pack_finalize);
PV_FUNCTION(bpf_jit_binary_pack_free);
#else
PV_FUNCTION(bpf_jit_binary_alloc);
PV_FUNCTION(bpf_jit_binary_free);
PV_FUNCTION(find_vm_area);
PV_FUNCTION(set_memory_ro);
PV_FUNCTION(set_memory_x);
#endif
#endif
#ifdef PV_HAVE_INLINED_HELPERS
PV_FUNCTION(bpf_jit_inlines_helper_call);
#endif
#ifdef CONFIG_CGROUP_BPF
PV_FUNCTION(bpf_cgroup_storage_assign);
#endif
#ifdef PV_HAVE_PERCPU_KPTR
PV_DATA(const char, bpf_percpu_obj_new_impl);
#ifdef PV_HAVE_PERCPU_PREPARE
PV_FUNCTION(bpf_global_percpu_ma_prepare);
#else
PV_DATA(struct bpf_mem_alloc, bpf_global_percpu_ma);
PV_DATA(bool, bpf_global_percpu_ma_set);
PV_DATA(struct mutex, bpf_percpu_ma_lock);
PV_FUNCTION(bpf_mem_alloc_percpu_init);
PV_FUNCTION(bpf_mem_alloc_percpu_unit_init);
#endif
#endif
#ifdef CONFIG_SECURITY
PV_FUNCTION(security_bpf);
#ifdef PV_HAVE_SECURITY_BPF_PROG_LOAD
PV_FUNCTION(security_bpf_prog_load);
#else
PV_FUNCTION(security_bpf_prog_alloc);
#endif
PV_FUNCTION(security_bpf_prog_free);
#endif
#endif /* !PV_ROLE_EXPORT */

#ifndef PV_ROLE_DEVICE
/* The verifier VM. */
PV_FUNCTION(bpf_prog_get);
#endif /* !PV_ROLE_DEVICE */

#undef PV_FUNCTION
#undef PV_DATA
