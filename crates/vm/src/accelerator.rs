//! What runs a guest's code, and how to find out what works.

use std::env;
use std::fs::File;

use crate::error::VmError;

/// Chooses the accelerator: `kvm` or `tcg`. Without it, a probe boot does.
pub const ACCELERATOR_VARIABLE: &str = "PREVERIFY_ACCEL";

/// What runs a guest's code.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The host's processor, through the kernel.
    Kvm,
    /// QEMU's translator: works everywhere, several times slower.
    Tcg,
}

impl Accelerator {
    /// As [`ACCELERATOR_VARIABLE`] says, if it is set.
    pub fn from_environment() -> Result<Option<Self>, VmError> {
        match env::var_os(ACCELERATOR_VARIABLE) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) if value == "kvm" => Ok(Some(Self::Kvm)),
            Some(value) if value == "tcg" => Ok(Some(Self::Tcg)),
            Some(value) => Err(VmError::UnknownAccelerator {
                variable: ACCELERATOR_VARIABLE,
                found: value.to_string_lossy().into_owned(),
            }),
        }
    }

    /// Whether KVM may work at all: its device is there and may be opened. A KVM that can be
    /// opened may still abort or hang, so only a boot tells.
    pub fn kvm_can_be_opened() -> bool {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    }

    /// Its name, as [`ACCELERATOR_VARIABLE`] takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}
