//! What tests, benchmarks and the demo share: a target and a signer, and devices in virtual machines.
//!
//! The tests of `tests/` need virtual machines and binaries that were built before; `cargo xtask test` prepares
//! both and runs them.

#![forbid(unsafe_code)]

mod device;
mod lab;

pub use device::{Device, DeviceError, LOADER, pinned};
pub use lab::{AGENT_VARIABLE, LOADER_VARIABLE, Lab, LabError, TARGET, file, signer};
