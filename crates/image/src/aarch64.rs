//! 64-bit Arm: what the kernel's JIT (`arch/arm64/net/bpf_jit_comp.c`) writes, and where addresses
//! are in it.
//!
//! | instructions | written by | carries |
//! |---|---|---|
//! | `movn`, `movk lsl 16`, `movk lsl 32`, `blr` | `emit_indirect_call()` | helper, kernel function, inlined map operation; the program's own function, where it is far or the kernel old |
//! | `bl` | `emit_direct_call()` | the program's own function |
//! | `movn`, `movk lsl 16`, `movk lsl 32` | `emit_addr_mov_i64()` | callback |
//! | `movn` or `movz`, then up to three `movk` of falling shifts | `emit_a64_mov_i64()` | map, map's values, kernel image, module, the program's `aux`; or a constant |
//! | the same, up to two | `emit_a64_mov_i()` | a constant |
//! | `b`, `b.cond`, `cbz`, `cbnz` | | a place in the function itself |
//! | `ldr x10, .+8`, `br x10` at the end | `build_plt()` | where a trampoline goes: the eight bytes that follow are no code, and the kernel part writes them |
//!
//! Everything else is the same in all boots of one kernel on one machine. How many instructions
//! `emit_a64_mov_i64()` takes depends on the value: for most addresses three, which is what can be
//! relocated. The first shift tells its three from those of `emit_addr_mov_i64()`.

pub(crate) mod encode;
mod exceptions;
mod groups;
mod listing;
mod operands;

use preverify_abi::image::Extable;

use crate::image::Reloc;
use crate::native::{Code, Decoded, Native, Obstruction, Operand, TailCalls};

/// Bytes of an instruction.
const SIZE: usize = 4;

/// Code for 64-bit Arm.
pub(crate) struct Aarch64;

impl Native for Aarch64 {
    fn operands(&self, a: Code<'_>, b: Code<'_>) -> Result<Vec<Operand>, Obstruction> {
        operands::operands(a, b)
    }

    fn check_exception(&self, code: &[u8], entry: &Extable) -> Result<(), &'static str> {
        exceptions::check(code, entry)
    }

    fn tail_calls(&self) -> TailCalls {
        TailCalls::Unprepared
    }

    fn text(&self, code: Code<'_>, offset: usize) -> String {
        listing::text(code, offset)
    }

    fn list(
        &self,
        code: &[u8],
        relocs: &[Reloc],
        name: &dyn Fn(usize, usize) -> String,
    ) -> Vec<Decoded> {
        listing::list(code, relocs, name)
    }
}

/// The code as instructions. Bytes at the end that are no whole one are left out.
fn words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().copied().map(u32::from_le_bytes).collect()
}
