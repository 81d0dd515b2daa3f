//! Words for numbers that only people who look at bundles need.

use preverify_abi::manifest as abi;
use preverify_bundle::Value;

/// The names of the set bits; unknown ones as a number.
fn bits(value: u32, names: &[&str]) -> Vec<String> {
    let known = (0..).zip(names).filter(|(bit, _)| value >> bit & 1 != 0);
    let mut words: Vec<_> = known.map(|(_, name)| (*name).to_owned()).collect();
    let rest = value.checked_shr(names.len().try_into().unwrap_or(u32::MAX));
    if let Some(rest) = rest.filter(|&rest| rest != 0) {
        words.push(format!("{:#x}", rest << names.len()));
    }
    words
}

/// How an argument, or what is returned, lies in registers.
pub fn value(value: &Value) -> String {
    let kind = match value.flags {
        flags if flags & abi::VALUE_STRUCT != 0 => "structure",
        flags if flags & abi::VALUE_SIGNED != 0 => "signed",
        _ => "plain",
    };
    match value.size {
        1 => format!("{kind} byte"),
        size => format!("{size} {kind} bytes"),
    }
}

/// `BPF_F_*` of maps, in the order of their bits.
pub fn map_flags(flags: u32) -> Vec<String> {
    bits(
        flags,
        &[
            "no_prealloc",
            "no_common_lru",
            "numa_node",
            "rdonly",
            "wronly",
            "stack_build_id",
            "zero_seed",
            "rdonly_prog",
            "wronly_prog",
            "clone",
            "mmapable",
            "preserve_elems",
            "inner_map",
            "link",
            "path_fd",
            "vtype_btf_obj_fd",
            "token_fd",
            "segv_on_fault",
            "no_user_conv",
        ],
    )
}

/// `BPF_F_*` of programs, in the order of their bits.
pub fn program_flags(flags: u32) -> Vec<String> {
    bits(
        flags,
        &[
            "strict_alignment",
            "any_alignment",
            "test_rnd_hi32",
            "test_state_freq",
            "sleepable",
            "xdp_has_frags",
            "xdp_dev_bound_only",
            "test_reg_invariants",
        ],
    )
}

/// `FIELD_*`, by the kernel's names.
pub fn field_kind(kind: u32) -> &'static str {
    match kind {
        abi::FIELD_SPIN_LOCK => "bpf_spin_lock",
        abi::FIELD_TIMER => "bpf_timer",
        abi::FIELD_WORKQUEUE => "bpf_wq",
        abi::FIELD_KPTR_UNREF => "kptr (unreferenced)",
        abi::FIELD_KPTR_REF => "kptr",
        abi::FIELD_KPTR_PERCPU => "kptr (per CPU)",
        abi::FIELD_LIST_HEAD => "bpf_list_head",
        abi::FIELD_LIST_NODE => "bpf_list_node",
        abi::FIELD_RB_ROOT => "bpf_rb_root",
        abi::FIELD_RB_NODE => "bpf_rb_node",
        abi::FIELD_REFCOUNT => "bpf_refcount",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_and_unknown_ones_shown() {
        assert_eq!(map_flags(0), [""; 0]);
        assert_eq!(map_flags(0x480), ["rdonly_prog", "mmapable"]);
        assert_eq!(program_flags(0x8000_0010), ["sleepable", "0x80000000"]);
    }
}
