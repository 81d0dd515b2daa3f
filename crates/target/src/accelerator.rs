//! Whether hardware virtualisation runs a kernel on this host: only a boot tells, so its outcome is
//! kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use preverify_vm::{Accelerator, MachineKind};
use serde::{Deserialize, Serialize};

use crate::error::TargetError;
use crate::files;

/// `accelerators.json`: what works on this host since it was booted, with this QEMU.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Known {
    boot: String,
    qemu: String,
    kernels: BTreeMap<String, Accelerator>,
}

/// What is known about this host.
#[derive(Debug)]
pub(crate) struct Accelerators {
    path: PathBuf,
    known: Known,
}

impl Accelerators {
    /// Reads what is known. It is no loss if that cannot be read: it is found out again.
    pub(crate) fn open(cache: &Path, qemu: &str) -> Result<Self, TargetError> {
        let boot = files::read_text(Path::new("/proc/sys/kernel/random/boot_id"))?;
        Ok(Self::of(cache, boot.trim(), qemu))
    }

    fn of(cache: &Path, boot: &str, qemu: &str) -> Self {
        let path = cache.join("accelerators.json");
        let fresh = Known {
            boot: boot.to_owned(),
            qemu: qemu.to_owned(),
            kernels: BTreeMap::new(),
        };
        let known = files::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice::<Known>(&text).ok())
            .filter(|known| known.boot == fresh.boot && known.qemu == fresh.qemu)
            .unwrap_or(fresh);
        Self { path, known }
    }

    /// What runs a kernel, as far as that is clear without a boot: this host's processor does not know its code, or
    /// the environment says it, or KVM is not there, or a boot has told.
    pub(crate) fn get(
        &self,
        machine: MachineKind,
        kernel: &str,
    ) -> Result<Option<Accelerator>, TargetError> {
        if !machine.is_native() {
            return Ok(Some(Accelerator::Tcg));
        }
        if let Some(chosen) = Accelerator::from_environment()? {
            return Ok(Some(chosen));
        }
        if !Accelerator::kvm_can_be_opened() {
            return Ok(Some(Accelerator::Tcg));
        }
        Ok(self.known.kernels.get(kernel).copied())
    }

    /// Keeps what a boot told.
    pub(crate) fn learn(
        &mut self,
        kernel: &str,
        accelerator: Accelerator,
    ) -> Result<(), TargetError> {
        self.known.kernels.insert(kernel.to_owned(), accelerator);
        let text = serde_json::to_vec_pretty(&self.known).expect("all its keys are strings");
        files::write(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knowledge_ends_with_the_hosts_boot_and_with_qemus_version() {
        let scratch = tempfile::tempdir().unwrap();
        let open = |boot, qemu| Accelerators::of(scratch.path(), boot, qemu).known.kernels;
        Accelerators::of(scratch.path(), "b1", "7.2")
            .learn("k1", Accelerator::Kvm)
            .unwrap();
        Accelerators::of(scratch.path(), "b1", "7.2")
            .learn("k2", Accelerator::Tcg)
            .unwrap();
        assert_eq!(open("b1", "7.2").len(), 2);
        assert!(open("b2", "7.2").is_empty());
        assert!(open("b1", "9.0").is_empty());
        std::fs::write(scratch.path().join("accelerators.json"), "{").unwrap();
        assert!(open("b1", "7.2").is_empty());
    }
}
