//! What tests, benchmarks and the demo share: a target and a signer, and devices in virtual machines.
//!
//! The tests of `tests/` need virtual machines and binaries that were built before; `cargo xtask test` prepares
//! both and runs them.

#![forbid(unsafe_code)]

mod device;
mod dump;
mod hostile;
mod lab;
mod nats;
mod processes;
pub mod service;
mod subject;

pub use device::{BUSYBOX, Device, DeviceError, LOADER, PROBE, on_packet, pinned};
pub use dump::{Entry, Event, events, number};
pub use hostile::{Damage, Damaged, Vandal};
pub use lab::{
    BINARIES_VARIABLE, COMPILER_KERNEL_VARIABLE, DEVICE_KERNEL_VARIABLE, KERNELS_ARCH_VARIABLE,
    Lab, LabError, OBJECTS_VARIABLE, TARGET, file, object, signer, target, target_on,
};
pub use nats::NatsServers;
pub use preverify_target::AGENT_VARIABLE;
pub use processes::{is_running, machines_of, memory, peak_memory};
pub use subject::{Subject, assert_reason, assert_refused, image, is_refused, refusal};
