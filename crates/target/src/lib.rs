//! Target kernels: import, probe, store.
//!
//! A [`Store`] keeps everything below one folder, the cache:
//!
//! ```text
//! targets/NAME.json   one target: its kernel, its virtual hardware, what a boot told
//! kernels/ID/         a kernel with its configuration, modules and headers
//! parts/ID/           the kernel part, built for one kernel
//! layouts/ID/         snapshots of one booted target, each with another KASLR layout
//! devices/ID/         what is needed of the kernel of devices, where that is another build
//! accelerators.json   whether KVM works on this host
//! apt/                package lists
//! store.lock          held by whoever changes any of these
//! ```
//!
//! An ID is a digest over everything that its folder was made from, so what changes is made anew
//! and what is equal is kept once. A folder is made under another name and renamed when it is
//! whole. A target exists once its `.json` does, which is written last.

#![forbid(unsafe_code)]

mod accelerator;
mod agent;
mod arch;
mod board;
mod boot_file;
mod btf;
mod config;
pub mod debian;
mod device_build;
mod error;
mod facts;
mod files;
mod guest;
mod hardware;
mod kernel;
mod layouts;
mod modules;
mod part;
mod run;
mod source;
mod store;
mod target;

pub use agent::AGENT_VARIABLE;
pub use board::{BoardError, Difference};
pub use device_build::{Build, Builds, DeviceBuild, DeviceSymbols, Place};
pub use error::TargetError;
pub use facts::{Facts, fingerprint_words};
pub use files::{CACHE_VARIABLE, default_cache};
pub use hardware::{Hardware, HardwareRequest, MOST_CPUS};
pub use layouts::Boot;
pub use run::CommandError;
pub use source::{AddRequest, DebianKernel, DeviceFiles, KernelFiles, Source};
pub use store::{Added, Stamp, Store};
pub use target::{Contents, DeviceOptions, GuestFile, Sizes, Target};

/// Is told, in a few words, what takes time when it starts.
pub type Progress<'a> = dyn FnMut(&str) + 'a;
