//! Loads pre-verified bundles on a device: no verifier and no libbpf is asked, and no JIT where native images fit.
//!
//! ```no_run
//! use preverify_bundle::Reader;
//! use preverify_device::attach::plan::Plan;
//! use preverify_device::attach::{Attachment, Subject};
//! use preverify_device::{Device, Loaded, Selection};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reader = Reader::open("count.pvb".as_ref())?;
//! let mut bundle = Device::open()?.open_bundle(&mut reader)?;
//! let selection = Selection::all(bundle.target());
//! let loaded = Loaded::load(&mut bundle, &selection)?;
//! let target = bundle.target();
//! let attachment = Attachment::new(
//!     Subject {
//!         program: &target.programs[0],
//!         descriptor: loaded.program(0).ok_or("not loaded")?,
//!         target,
//!         maps: &loaded.maps,
//!     },
//!     &Plan::parse("xdp:eth0")?,
//! )?;
//! # drop(attachment);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Device`] and [`OpenBundle`]: the kernel part.
//! - [`Selection`], [`MapSet`], [`Loaded`]: programs with their maps.
//! - [`ImageChoice`], [`Fit`]: what programs are loaded from, machine code or bytecode.
//! - [`attach`]: where programs run.
//! - [`pins`]: a bundle's folder in a BPF file system.
//! - [`events`]: what programs send.
//! - [`keyring`]: whom the kernel part trusts.

#![deny(unsafe_code)]

pub mod attach;
mod device;
pub mod events;
mod hex;
mod images;
pub mod keyring;
mod loaded;
mod maps;
pub mod pins;
mod selection;
#[expect(unsafe_code, reason = "system calls")]
pub mod sys;
#[cfg(test)]
mod testing;

pub use device::{Device, DeviceError, OpenBundle, ProgramImage, Refusal, running_release};
pub use hex::hexadecimal;
pub use images::{Fit, ImageChoice, ImageError, ImageKind, Other};
pub use loaded::{LoadError, Loaded};
pub use maps::{MapError, MapSet};
pub use selection::{NoSuchProgram, Selection, program_named};
