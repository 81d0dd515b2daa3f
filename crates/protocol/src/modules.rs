//! Kernel modules and what they depend on, as `depmod` wrote it down: the host reads it to find the files that a guest
//! needs, the agent reads the same to insert them.

/// The files to insert for a module, from the text of `modules.dep`: a module stands behind all that it needs. None if
/// the list does not know the module.
pub fn insertion_order<'a>(modules_dep: &'a str, name: &str) -> Option<Vec<&'a str>> {
    modules_dep.lines().find_map(|line| {
        let (module, needs) = line.split_once(':')?;
        (module_name(module) == normalised(name)).then(|| {
            let mut files: Vec<&str> = needs.split_whitespace().collect();
            files.reverse();
            files.push(module);
            files
        })
    })
}

/// Whether a module is part of the kernel itself, from the text of `modules.builtin`.
pub fn is_built_in(modules_builtin: &str, name: &str) -> bool {
    modules_builtin
        .lines()
        .any(|line| module_name(line) == normalised(name))
}

/// `kernel/net/ipv4/tcp_bbr.ko.xz` is `tcp_bbr`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalised(file.split(".ko").next().unwrap_or(file))
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES_DEP: &str = "\
kernel/lib/libcrc32c.ko.xz:
kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz:
kernel/net/netfilter/nf_conntrack.ko.xz: kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/drivers/block/virtio-blk.ko:
";

    #[test]
    fn what_a_module_needs_is_inserted_before_it() {
        assert_eq!(
            insertion_order(MODULES_DEP, "nf_conntrack").unwrap(),
            [
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz",
                "kernel/net/netfilter/nf_conntrack.ko.xz",
            ]
        );
    }

    #[test]
    fn hyphens_and_underscores_are_the_same() {
        let expected = Some(vec!["kernel/drivers/block/virtio-blk.ko"]);
        assert_eq!(insertion_order(MODULES_DEP, "virtio_blk"), expected);
        assert_eq!(insertion_order(MODULES_DEP, "virtio-blk"), expected);
    }

    #[test]
    fn only_whole_names_count() {
        assert_eq!(insertion_order(MODULES_DEP, "nf_conn"), None);
        assert_eq!(insertion_order(MODULES_DEP, "conntrack"), None);
    }

    #[test]
    fn built_in_modules_are_known_by_name() {
        let list = "kernel/drivers/char/virtio_console.ko\nkernel/net/ipv4/tcp_cubic.ko\n";
        assert!(is_built_in(list, "tcp-cubic"));
        assert!(!is_built_in(list, "tcp"));
    }
}
