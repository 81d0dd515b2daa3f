//! From an object and a target to a bundle: the way of the data, on the host.
//!
//! - [`Object`]: an ELF file ([`elf`]), and what its own user space would set ([`inputs`]).
//! - [`Verifier`]: two boots of a target's kernel, in which objects are loaded and exported.
//! - [`Verified`]: an accepted object, its images discovered and proved; it becomes a target of a
//!   bundle.
//! - [`diagnosis`]: what a rejection means.
//!
//! A bundle comes out of [`Verified`] alone, and a [`Verified`] comes out of a [`Verifier`] alone:
//! nobody can hand in a ready image.

#![forbid(unsafe_code)]

mod assemble;
pub mod diagnosis;
pub mod elf;
mod error;
pub mod evidence;
mod images;
pub mod inputs;
mod limits;
mod object;
mod other_kernel;
mod verifier;

pub use assemble::bundle;
pub use error::{BuildError, Disagreement, Problem, ProgramProblem};
pub use images::{ImageKind, Note, ProvedImage, VerifiedProgram};
pub use limits::{Limits, LimitsError};
pub use object::{Object, inputs_beside, object_name, separable_programs};
pub use other_kernel::{AttachError, Mismatch, MismatchReason, OnDevice, SymbolError};
pub use verifier::{Stage, Verified, Verifier};
