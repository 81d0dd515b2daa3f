//! Names of the kernel's enumerations: what the numbers in a manifest mean to people.
//!
//! Nothing in the format depends on them; they stand here because both who builds bundles and
//! who loads them show them.

use core::fmt;

use crate::manifest::{
    ARCH_ARM, ARCH_ARM64, ARCH_X86_64, JIT_ARM64_BTI, JIT_ARM64_LSE, JIT_ARM64_PAC, JIT_ARM64_VHE,
    JIT_X86_BMI2, JIT_X86_CALL_DEPTH, JIT_X86_IBT, JIT_X86_INDIRECT_THUNK_ITS, JIT_X86_RETHUNK,
    JIT_X86_RETPOLINE, JIT_X86_RETPOLINE_LFENCE, POLICY_BYPASS_SPEC_V1, POLICY_BYPASS_SPEC_V4,
    POLICY_READ_KERNEL, POLICY_WRITE_USER,
};

/// `enum bpf_prog_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramType(pub u32);

macro_rules! constants {
    ($type:ident { $($name:ident = $value:literal, $shown:literal;)+ }) => {
        impl $type {
            $(#[doc = concat!("`", $shown, "`")] pub const $name: Self = Self($value);)+

            /// The name, if this is one of those that are known here.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($shown),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => self.0.fmt(f),
                }
            }
        }
    };
}

constants! { ProgramType {
    SOCKET_FILTER = 1, "socket_filter";
    KPROBE = 2, "kprobe";
    SCHED_CLS = 3, "sched_cls";
    SCHED_ACT = 4, "sched_act";
    TRACEPOINT = 5, "tracepoint";
    XDP = 6, "xdp";
    PERF_EVENT = 7, "perf_event";
    CGROUP_SKB = 8, "cgroup_skb";
    CGROUP_SOCK = 9, "cgroup_sock";
    LWT_IN = 10, "lwt_in";
    LWT_OUT = 11, "lwt_out";
    LWT_XMIT = 12, "lwt_xmit";
    SOCK_OPS = 13, "sock_ops";
    SK_SKB = 14, "sk_skb";
    CGROUP_DEVICE = 15, "cgroup_device";
    SK_MSG = 16, "sk_msg";
    RAW_TRACEPOINT = 17, "raw_tracepoint";
    CGROUP_SOCK_ADDR = 18, "cgroup_sock_addr";
    LWT_SEG6LOCAL = 19, "lwt_seg6local";
    LIRC_MODE2 = 20, "lirc_mode2";
    SK_REUSEPORT = 21, "sk_reuseport";
    FLOW_DISSECTOR = 22, "flow_dissector";
    CGROUP_SYSCTL = 23, "cgroup_sysctl";
    RAW_TRACEPOINT_WRITABLE = 24, "raw_tracepoint_writable";
    CGROUP_SOCKOPT = 25, "cgroup_sockopt";
    TRACING = 26, "tracing";
    STRUCT_OPS = 27, "struct_ops";
    EXT = 28, "ext";
    LSM = 29, "lsm";
    SK_LOOKUP = 30, "sk_lookup";
    SYSCALL = 31, "syscall";
    NETFILTER = 32, "netfilter";
} }

impl ProgramType {
    /// Whether programs of this type attach to cgroups.
    pub fn is_cgroup(self) -> bool {
        [
            Self::CGROUP_SKB,
            Self::CGROUP_SOCK,
            Self::SOCK_OPS,
            Self::CGROUP_DEVICE,
            Self::CGROUP_SOCK_ADDR,
            Self::CGROUP_SYSCTL,
            Self::CGROUP_SOCKOPT,
        ]
        .contains(&self)
    }
}

/// `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachType(pub u32);

constants! { AttachType {
    CGROUP_INET_INGRESS = 0, "cgroup_inet_ingress";
    CGROUP_INET_EGRESS = 1, "cgroup_inet_egress";
    CGROUP_INET_SOCK_CREATE = 2, "cgroup_inet_sock_create";
    CGROUP_SOCK_OPS = 3, "cgroup_sock_ops";
    SK_SKB_STREAM_PARSER = 4, "sk_skb_stream_parser";
    SK_SKB_STREAM_VERDICT = 5, "sk_skb_stream_verdict";
    CGROUP_DEVICE = 6, "cgroup_device";
    SK_MSG_VERDICT = 7, "sk_msg_verdict";
    CGROUP_INET4_BIND = 8, "cgroup_inet4_bind";
    CGROUP_INET6_BIND = 9, "cgroup_inet6_bind";
    CGROUP_INET4_CONNECT = 10, "cgroup_inet4_connect";
    CGROUP_INET6_CONNECT = 11, "cgroup_inet6_connect";
    CGROUP_INET4_POST_BIND = 12, "cgroup_inet4_post_bind";
    CGROUP_INET6_POST_BIND = 13, "cgroup_inet6_post_bind";
    CGROUP_UDP4_SENDMSG = 14, "cgroup_udp4_sendmsg";
    CGROUP_UDP6_SENDMSG = 15, "cgroup_udp6_sendmsg";
    LIRC_MODE2 = 16, "lirc_mode2";
    FLOW_DISSECTOR = 17, "flow_dissector";
    CGROUP_SYSCTL = 18, "cgroup_sysctl";
    CGROUP_UDP4_RECVMSG = 19, "cgroup_udp4_recvmsg";
    CGROUP_UDP6_RECVMSG = 20, "cgroup_udp6_recvmsg";
    CGROUP_GETSOCKOPT = 21, "cgroup_getsockopt";
    CGROUP_SETSOCKOPT = 22, "cgroup_setsockopt";
    TRACE_RAW_TP = 23, "trace_raw_tp";
    TRACE_FENTRY = 24, "trace_fentry";
    TRACE_FEXIT = 25, "trace_fexit";
    MODIFY_RETURN = 26, "modify_return";
    LSM_MAC = 27, "lsm_mac";
    TRACE_ITER = 28, "trace_iter";
    CGROUP_INET4_GETPEERNAME = 29, "cgroup_inet4_getpeername";
    CGROUP_INET6_GETPEERNAME = 30, "cgroup_inet6_getpeername";
    CGROUP_INET4_GETSOCKNAME = 31, "cgroup_inet4_getsockname";
    CGROUP_INET6_GETSOCKNAME = 32, "cgroup_inet6_getsockname";
    XDP_DEVMAP = 33, "xdp_devmap";
    CGROUP_INET_SOCK_RELEASE = 34, "cgroup_inet_sock_release";
    XDP_CPUMAP = 35, "xdp_cpumap";
    SK_LOOKUP = 36, "sk_lookup";
    XDP = 37, "xdp";
    SK_SKB_VERDICT = 38, "sk_skb_verdict";
    SK_REUSEPORT_SELECT = 39, "sk_reuseport_select";
    SK_REUSEPORT_SELECT_OR_MIGRATE = 40, "sk_reuseport_select_or_migrate";
    PERF_EVENT = 41, "perf_event";
    TRACE_KPROBE_MULTI = 42, "trace_kprobe_multi";
    LSM_CGROUP = 43, "lsm_cgroup";
    STRUCT_OPS = 44, "struct_ops";
    NETFILTER = 45, "netfilter";
    TCX_INGRESS = 46, "tcx_ingress";
    TCX_EGRESS = 47, "tcx_egress";
    TRACE_UPROBE_MULTI = 48, "trace_uprobe_multi";
    CGROUP_UNIX_CONNECT = 49, "cgroup_unix_connect";
    CGROUP_UNIX_SENDMSG = 50, "cgroup_unix_sendmsg";
    CGROUP_UNIX_RECVMSG = 51, "cgroup_unix_recvmsg";
    CGROUP_UNIX_GETPEERNAME = 52, "cgroup_unix_getpeername";
    CGROUP_UNIX_GETSOCKNAME = 53, "cgroup_unix_getsockname";
    NETKIT_PRIMARY = 54, "netkit_primary";
    NETKIT_PEER = 55, "netkit_peer";
    TRACE_KPROBE_SESSION = 56, "trace_kprobe_session";
} }

/// `enum bpf_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapType(pub u32);

constants! { MapType {
    HASH = 1, "hash";
    ARRAY = 2, "array";
    PROG_ARRAY = 3, "prog_array";
    PERF_EVENT_ARRAY = 4, "perf_event_array";
    PERCPU_HASH = 5, "percpu_hash";
    PERCPU_ARRAY = 6, "percpu_array";
    STACK_TRACE = 7, "stack_trace";
    CGROUP_ARRAY = 8, "cgroup_array";
    LRU_HASH = 9, "lru_hash";
    LRU_PERCPU_HASH = 10, "lru_percpu_hash";
    LPM_TRIE = 11, "lpm_trie";
    ARRAY_OF_MAPS = 12, "array_of_maps";
    HASH_OF_MAPS = 13, "hash_of_maps";
    DEVMAP = 14, "devmap";
    SOCKMAP = 15, "sockmap";
    CPUMAP = 16, "cpumap";
    XSKMAP = 17, "xskmap";
    SOCKHASH = 18, "sockhash";
    CGROUP_STORAGE = 19, "cgroup_storage";
    REUSEPORT_SOCKARRAY = 20, "reuseport_sockarray";
    PERCPU_CGROUP_STORAGE = 21, "percpu_cgroup_storage";
    QUEUE = 22, "queue";
    STACK = 23, "stack";
    SK_STORAGE = 24, "sk_storage";
    DEVMAP_HASH = 25, "devmap_hash";
    STRUCT_OPS = 26, "struct_ops";
    RINGBUF = 27, "ringbuf";
    INODE_STORAGE = 28, "inode_storage";
    TASK_STORAGE = 29, "task_storage";
    BLOOM_FILTER = 30, "bloom_filter";
    USER_RINGBUF = 31, "user_ringbuf";
    CGRP_STORAGE = 32, "cgrp_storage";
    ARENA = 33, "arena";
} }

impl MapType {
    /// Whether each CPU has a value of its own.
    pub fn is_per_cpu(self) -> bool {
        [
            Self::PERCPU_HASH,
            Self::PERCPU_ARRAY,
            Self::LRU_PERCPU_HASH,
            Self::PERCPU_CGROUP_STORAGE,
        ]
        .contains(&self)
    }

    /// Whether the values are maps.
    pub fn holds_maps(self) -> bool {
        [Self::ARRAY_OF_MAPS, Self::HASH_OF_MAPS].contains(&self)
    }
}

/// An ELF machine number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture(pub u32);

impl Architecture {
    /// 64-bit x86.
    pub const X86_64: Self = Self(ARCH_X86_64);
    /// 64-bit arm.
    pub const ARM64: Self = Self(ARCH_ARM64);
    /// 32-bit arm.
    pub const ARM: Self = Self(ARCH_ARM);
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::X86_64 => f.pad("x86_64"),
            Self::ARM64 => f.pad("arm64"),
            Self::ARM => f.pad("arm"),
            Self(other) => write!(f, "ELF machine {other}"),
        }
    }
}

/// Bits of a fingerprint: the names of those that are set, and what has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    bits: u64,
    names: &'static [(u64, &'static str)],
}

impl Bits {
    /// The `JIT_*` bits of an architecture.
    pub fn jit(architecture: Architecture, bits: u64) -> Self {
        let names: &[_] = match architecture {
            Architecture::X86_64 => &[
                (JIT_X86_BMI2, "BMI2"),
                (JIT_X86_RETPOLINE, "retpolines"),
                (JIT_X86_RETPOLINE_LFENCE, "lfence retpolines"),
                (JIT_X86_INDIRECT_THUNK_ITS, "ITS thunks"),
                (JIT_X86_CALL_DEPTH, "call depth tracking"),
                (JIT_X86_RETHUNK, "return thunks"),
                (JIT_X86_IBT, "indirect branch tracking"),
            ],
            Architecture::ARM64 => &[
                (JIT_ARM64_LSE, "LSE atomics"),
                (JIT_ARM64_VHE, "VHE"),
                (JIT_ARM64_PAC, "pointer authentication"),
                (JIT_ARM64_BTI, "branch target identification"),
            ],
            _ => &[],
        };
        Self { bits, names }
    }

    /// The `POLICY_*` bits.
    pub fn policy(bits: u64) -> Self {
        Self {
            bits,
            names: &[
                (POLICY_BYPASS_SPEC_V1, "no guards against Spectre v1"),
                (POLICY_BYPASS_SPEC_V4, "no guards against Spectre v4"),
                (POLICY_READ_KERNEL, "may read kernel memory"),
                (POLICY_WRITE_USER, "may write user memory"),
            ],
        }
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.names.iter().filter(|(bit, _)| self.bits & bit != 0);
        let mut rest = self.bits;
        let mut separator = "";
        for (bit, name) in set {
            write!(f, "{separator}{name}")?;
            rest &= !bit;
            separator = ", ";
        }
        match (rest, separator) {
            (0, "") => f.write_str("plain"),
            (0, _) => Ok(()),
            _ => write!(f, "{separator}unknown bits {rest:#x}"),
        }
    }
}
