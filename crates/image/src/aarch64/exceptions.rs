//! Exception tables, as `ex_handler_bpf()` reads them.

use preverify_abi::image::Extable;

use super::{SIZE, words};

/// `EX_TYPE_BPF`.
const TYPE_BPF: u32 = 1;

/// The five highest bits of `fixup` are the register that is cleared; the kernel part takes the
/// others, which say where the table lies, and puts them back.
const REGISTER_SHIFT: u32 = 27;

/// The register that stands for none (`DONT_CLEAR`): the JIT uses it for nothing else.
const NONE: u32 = 5;

/// Whether the kernel's handler does with an exception what the JIT means: it clears the register that
/// is loaded into, none if something is stored, and goes on behind the instruction.
pub(super) fn check(code: &[u8], entry: &Extable) -> Result<(), &'static str> {
    let words = words(code);
    let offset = usize::try_from(entry.offset.get()).unwrap_or(usize::MAX);
    let instruction = words.get(offset / SIZE).filter(|_| offset % SIZE == 0);
    let &instruction = instruction.ok_or("it is at no instruction")?;
    if offset + SIZE >= code.len() {
        return Err("no instruction follows that could go on");
    }
    let cleared = match access(instruction) {
        Some(Access::Load(register)) if register != NONE => register,
        Some(Access::Store) => NONE,
        _ => {
            return Err("the instruction neither loads into one of the JIT's registers nor stores");
        }
    };
    if entry.data.get() != TYPE_BPF {
        return Err("its handler is not that for BPF programs");
    }
    if entry.fixup.get().cast_unsigned() != cleared << REGISTER_SHIFT {
        return Err("it does not clear the register that is loaded into");
    }
    Ok(())
}

enum Access {
    /// Into this register.
    Load(u32),
    Store,
}

/// `ldr` and `str` of all widths, at an immediate or a register's distance.
fn access(word: u32) -> Option<Access> {
    let is_immediate = word & 0x3f00_0000 == 0x3900_0000;
    let is_register = word & 0x3f20_0c00 == 0x3820_0800;
    if !is_immediate && !is_register {
        return None;
    }
    match (word >> 22 & 3, word >> 30) {
        (0, _) => Some(Access::Store),
        // `prfm`.
        (2, 3) => None,
        _ => Some(Access::Load(word & 31)),
    }
}
