//! Exception tables, as `ex_handler_bpf()` reads them.

use preverify_abi::image::Extable;

/// `EX_TYPE_BPF`.
const TYPE_BPF: u32 = 7;

/// Bytes of the registers in `struct pt_regs`, up to `orig_ax`, and of one.
const REGISTERS: u32 = 15 * REGISTER;
const REGISTER: u32 = 8;

/// Whether the kernel's handler does with an exception what the JIT means: it clears the register that
/// is loaded into, and goes on behind the instruction.
pub(super) fn check(code: &[u8], entry: &Extable) -> Result<(), &'static str> {
    let offset = usize::try_from(entry.offset.get()).unwrap_or(usize::MAX);
    let fixup = entry.fixup.get().cast_unsigned();
    let (cleared, skipped) = (fixup >> 8, fixup & 0xff);
    if entry.data.get() != TYPE_BPF {
        return Err("its handler is not that for BPF programs");
    }
    if skipped == 0 || offset.saturating_add(skipped as usize) >= code.len() {
        return Err("it does not go on within its function");
    }
    if cleared >= REGISTERS || cleared % REGISTER != 0 {
        return Err("it clears no register");
    }
    Ok(())
}
