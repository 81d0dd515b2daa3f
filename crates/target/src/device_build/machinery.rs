//! What code for BPF programs has built in, whatever the program: it must be the same in both kernels.
//!
//! The lists come from Linux 6.12, and hold for older kernels as far as these have the types.

use preverify_btf::{Comparison, Difference, Kind, Subject};

use crate::arch::Arch;

/// Structures of which the verifier's rewriting (`do_misc_fixups` and `convert_ctx_accesses` in `kernel/bpf/verifier.c`)
/// and JIT compilers write offsets or sizes into programs.
const STRUCTURES: &[&str] = &[
    // Programs and their stacks of calls: JIT compilers (`arch/*/net/`), `kernel/bpf/core.c`, trampolines.
    "bpf_prog",
    "bpf_prog_aux",
    "bpf_insn",
    "bpf_tramp_run_ctx",
    "bpf_trace_run_ctx",
    "bpf_run_ctx",
    "bpf_cg_run_ctx",
    "exception_table_entry",
    "pt_regs",
    "task_struct",
    "thread_info",
    "pcpu_hot",
    // Maps, whose look-ups are written into programs: `map_gen_lookup` of arrays, hashes and the others.
    "bpf_map",
    "bpf_map_ops",
    "bpf_array",
    "bpf_array_aux",
    "bpf_htab",
    "htab_elem",
    "bpf_lru_node",
    "bpf_ringbuf",
    "bpf_ringbuf_map",
    "bpf_local_storage",
    "bpf_local_storage_data",
    "bpf_local_storage_elem",
    "bpf_local_storage_map",
    "bpf_cgroup_storage",
    "bpf_storage_buffer",
    "bpf_dtab_netdev",
    "bpf_cpu_map_entry",
    "xsk_map",
    // What programs have in maps and on their stacks: `kernel/bpf/helpers.c`, `kernel/bpf/btf.c`.
    "bpf_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_list_node_kern",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_rb_node_kern",
    "bpf_refcount",
    "bpf_dynptr",
    "bpf_dynptr_kern",
    // Contexts: the `convert_ctx_access` of `net/core/filter.c`, `kernel/bpf/cgroup.c`, `kernel/trace/bpf_trace.c`,
    // `net/netfilter/nf_bpf_link.c`, and what they reach. (Not `sk_skb_cb`: only the rewriting itself uses it, so that
    // a kernel without it does not even have the type.)
    "sk_buff",
    "skb_shared_info",
    "qdisc_skb_cb",
    "tcp_skb_cb",
    "bpf_skb_data_end",
    "xdp_buff",
    "xdp_rxq_info",
    "xdp_txq_info",
    "xdp_frame",
    "xdp_sock",
    "net_device",
    "net",
    "sock",
    "sock_common",
    "inet_connection_sock",
    "tcp_sock",
    "sk_msg",
    "sk_msg_sg",
    "sk_reuseport_kern",
    "bpf_sk_lookup_kern",
    "bpf_sock_ops_kern",
    "bpf_sock_addr_kern",
    "bpf_sysctl_kern",
    "bpf_sockopt_kern",
    "bpf_flow_dissector",
    "bpf_perf_event_data_kern",
    "perf_sample_data",
    "bpf_nf_ctx",
    "bpf_cgroup_dev_ctx",
    "bpf_raw_tracepoint_args",
];

/// Enumerations whose values are in programs or their images.
const ENUMERATIONS: &[&str] = &[
    "bpf_attach_type",
    "bpf_func_id",
    "bpf_map_type",
    "bpf_prog_type",
];

/// Per-CPU variables whose places are in machine code.
fn per_cpu(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["this_cpu_off", "pcpu_hot", "cpu_number"],
        Arch::Arm64 => &["cpu_number"],
        Arch::Arm => &[],
    }
}

/// What is different of it.
pub(super) fn differences(builds: &Comparison<'_>, arch: Arch) -> Vec<Difference> {
    let named = |kind, names: &'static [&'static str]| {
        names.iter().map(move |name| (Subject::Named(kind), *name))
    };
    let per_cpu = per_cpu(arch).iter().map(|name| (Subject::PerCpu, *name));
    named(Kind::Struct, STRUCTURES)
        .chain(named(Kind::Enum, ENUMERATIONS))
        .chain(per_cpu)
        .filter_map(|(subject, name)| builds.difference(subject, name))
        .collect()
}
