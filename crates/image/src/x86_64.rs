//! 64-bit x86: what the kernel's JIT (`arch/x86/net/bpf_jit_comp.c`) writes, and where addresses
//! are in it.
//!
//! | bytes | what | carries |
//! |---|---|---|
//! | `e8`, `e9` rel32 | call, jump | helper, kernel function, inlined map operation, the program's own function; thunks for returns, retpolines, indirect jumps and for clearing the branch history |
//! | `0f 8x` rel32, `7x`, `eb` | jump | a place in the function itself |
//! | `48/49 b8+r` imm64 | `mov r64, imm64` | map, map's values, the program's `aux`; or a constant |
//! | `48/49 c7 /0` imm32 | `mov r64, simm32` | kernel image, module, callback; or a constant |
//! | `65 48 c1 3d` disp32 `05` | `sar qword [gs:rip+disp32], 5` | the per-CPU depth of calls, relative to the instruction |
//! | `65 4x 03 xx 25` abs32 | `add r64, [gs:abs32]` | a per-CPU variable, the same in all boots |
//! | `b8+r` imm32 | `mov r32, imm32` | a constant, or a per-CPU variable, the same in all boots |
//!
//! Everything else is the same in all boots of one kernel on one machine. The guard of `PROBE_MEM`
//! loads constants that look like addresses (`VSYSCALL_ADDR`, a limit): they are the same, too.

mod exceptions;
mod listing;
mod operands;
mod pokes;

use preverify_abi::image::Extable;

use crate::image::Reloc;
use crate::native::{Code, Decoded, Native, Obstruction, Operand, TailCalls};

/// Code for 64-bit x86.
pub(crate) struct X86;

impl Native for X86 {
    fn operands(&self, a: Code<'_>, b: Code<'_>) -> Result<Vec<Operand>, Obstruction> {
        operands::operands(a, b)
    }

    fn check_exception(&self, code: &[u8], entry: &Extable) -> Result<(), &'static str> {
        exceptions::check(code, entry)
    }

    fn tail_calls(&self) -> TailCalls {
        TailCalls::Patched(pokes::is_pristine)
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
