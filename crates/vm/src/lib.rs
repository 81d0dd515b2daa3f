//! Boot kernels in QEMU, snapshot and restore them, talk to their agent.
//!
//! - [`initramfs`]: what a guest boots into.
//! - [`Machine`]: a running guest whose first process speaks `preverify-protocol`.
//! - [`Recording`] and [`Snapshot`]: a booted guest on disk, restored many times at once.
//! - [`Accelerator`]: hardware virtualisation where it works.
//!
//! Nothing waits without a limit, and every failure tells what the guest printed last.

#![deny(unsafe_code)]

mod accelerator;
mod arguments;
mod console;
mod error;
pub mod initramfs;
mod kind;
mod machine;
mod monitor;
mod snapshot;
mod spawn;
mod timed;

pub use accelerator::{ACCELERATOR_VARIABLE, Accelerator};
pub use arguments::MachineSpec;
pub use error::{Printed, VmError};
pub use kind::MachineKind;
pub use machine::Machine;
pub use snapshot::{Recording, Snapshot};
pub use spawn::qemu_version;
