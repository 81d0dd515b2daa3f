//! BTF, the types of kernels and BPF objects: read, put into words, and compared between two builds.
//!
//! - [`Btf`]: the types, by id and by name.
//! - [`Comparison`]: whether a name stands for the same in two kernels' BTF, and if not, what it stands for in each.
//! - [`TypeNumber`]: where an object wants the number of a kernel's type.
//! - [`attach`]: what a program attaches to, as a kernel finds it in its BTF.

#![forbid(unsafe_code)]

pub mod attach;
mod comparison;
mod ext;
mod flavour;
mod read;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "tests that fail shall say where")]
pub mod testing;
mod types;
mod words;

pub use comparison::{Comparison, Difference, Subject};
pub use ext::TypeNumber;
pub use flavour::without_flavour;
pub use read::BtfError;
pub use types::{Btf, Entry, Kind, Member, Type, TypeId};
