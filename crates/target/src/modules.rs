//! Kernel modules and what they depend on, as `depmod` wrote it down.

use std::path::{Path, PathBuf};

use preverify_protocol::modules::{insertion_order, is_built_in};

use crate::error::TargetError;
use crate::files;

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    folder: PathBuf,
    dep: String,
    builtin: String,
}

impl Modules {
    /// Reads the lists in a `/lib/modules/RELEASE`.
    pub(crate) fn open(folder: &Path) -> Result<Self, TargetError> {
        Ok(Self {
            folder: folder.to_owned(),
            dep: files::read_text(&folder.join("modules.dep"))?,
            builtin: files::read_text_if_there(&folder.join("modules.builtin"))?,
        })
    }

    /// The files of modules and of everything that they depend on, relative to the folder: what
    /// must be inserted first stands first. What is built into the kernel has none.
    pub(crate) fn files(&self, names: &[&str]) -> Result<Vec<String>, TargetError> {
        let mut files: Vec<String> = Vec::new();
        for name in names {
            match insertion_order(&self.dep, name) {
                Some(order) => {
                    for file in order {
                        if !files.iter().any(|there| there == file) {
                            files.push(file.to_owned());
                        }
                    }
                }
                None if is_built_in(&self.builtin, name) => {}
                None => {
                    return Err(TargetError::NoModule {
                        name: (*name).to_owned(),
                        folder: self.folder.clone(),
                    });
                }
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Modules {
        Modules {
            folder: "/lib/modules/6.12".into(),
            dep: "\
kernel/lib/libcrc32c.ko.xz:
kernel/net/netfilter/nf_conntrack.ko.xz: kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/net/netfilter/nf_nat.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/drivers/char/virtio-rng.ko:
"
            .into(),
            builtin: "kernel/drivers/char/virtio_console.ko\n".into(),
        }
    }

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        assert_eq!(
            sample().files(&["nf_conntrack", "nf_nat"]).unwrap(),
            [
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/ipv6/netfilter/nf_defrag_ipv6.ko.xz",
                "kernel/net/netfilter/nf_conntrack.ko.xz",
                "kernel/net/netfilter/nf_nat.ko.xz",
            ]
        );
    }

    #[test]
    fn hyphens_are_underscores_and_built_in_is_nothing() {
        let files = sample().files(&["virtio_rng", "virtio-console"]).unwrap();
        assert_eq!(files, ["kernel/drivers/char/virtio-rng.ko"]);
    }

    #[test]
    fn an_unknown_module_is_named() {
        for name in ["nf_conn", "conntrack", ""] {
            let error = sample().files(&[name]).unwrap_err();
            assert!(matches!(error, TargetError::NoModule { .. }), "{name}");
        }
    }
}
