//! Relocatable images of BPF programs: discover, relink, prove.
//!
//! A verifier VM's kernel part exports a loaded program ([`export`]), the kernel tells its symbols
//! ([`symbols`]); both together are a [`Capture`]. From two captures of one program, taken in two
//! boots of one kernel with different address layouts, [`discover()`] makes an [`image::Image`] of
//! its native code, and [`discover_bytecode()`] one of the verified bytecode that this was compiled
//! from: the code with all addresses taken out, and the relocations that put them back. [`prove()`]
//! then relinks the serialised image ([`relink()`]) with the addresses of a capture and compares
//! the result with what that kernel's own JIT wrote, or compiled, byte for byte. It shares no code
//! with the discovery. [`disassemble()`] shows an image as people read it.
//!
//! What depends on the architecture stands in the modules `x86_64` and `aarch64`, what is known of
//! bytecode in `bpf`; everything else is neutral.

#![forbid(unsafe_code)]

mod aarch64;
mod bpf;
mod disassemble;
mod discover;
pub mod export;
mod hex;
pub mod image;
mod native;
mod prove;
mod records;
mod relink;
mod sections;
pub mod symbols;
#[cfg(test)]
mod testing;
mod x86_64;

pub use disassemble::{Line, Relocation, disassemble};
pub use discover::{At, DiscoverError, Obstacles, discover, discover_bytecode};
pub use hex::Hex;
pub use prove::{Proof, ProofError, prove};
pub use relink::{Addresses, MapAddresses, Problem, RelinkError, Relinked, relink};

use export::Export;
use symbols::KernelSymbols;

/// One program as one boot of a kernel holds it.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// What the kernel part exported.
    pub export: &'a Export,
    /// The symbols of the same boot.
    pub symbols: &'a KernelSymbols,
}
