//! Verified bytecode: what the verifier leaves to the JIT, and where addresses are in it.
//!
//! | opcode, source register | what | carries |
//! |---|---|---|
//! | `18`, 1 and 5 | wide load | a map |
//! | `18`, 2 and 6 | wide load | a place in a map's values |
//! | `18`, 3 | wide load | a kernel variable; of a per-CPU one what is the same in all boots |
//! | `18`, 4 | wide load | the program's function whose number is in `off` |
//! | `18`, 0 | wide load | a constant; or a kernel symbol (of libbpf's, `jiffies`), the program's `aux`, `kptr_struct_meta` |
//! | `85`, 0 and 2 | call | a function of the kernel, relative to `__bpf_call_base` |
//! | `85`, 1 | call | the program's function whose number is in `off`, relative to `__bpf_call_base` |
//!
//! In programs of one function, the kernel wipes the source registers of wide loads. Everything
//! else is the same in all boots of one kernel, whatever the machine.

pub(crate) mod listing;

use crate::export::Insn;

/// `BPF_PSEUDO_FUNC`: what a wide load of a function's address has for its source register.
pub(crate) const PSEUDO_FUNC: u8 = 4;

/// An instruction, both halves of a wide load together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Where it starts, counted in halves.
    pub(crate) index: usize,
    pub(crate) insn: Insn,
    /// The second half of a wide load.
    pub(crate) high: Option<Insn>,
}

impl Instruction {
    /// What a wide load loads.
    pub(crate) fn wide(self) -> Option<u64> {
        let [low, high] = [self.insn, self.high?].map(|half| u64::from(half.imm.cast_unsigned()));
        Some(high << 32 | low)
    }
}

/// The instructions of a function. A wide load without a second half, which no kernel has, is an
/// instruction that loads nothing.
pub(crate) fn instructions(insns: &[Insn]) -> impl Iterator<Item = Instruction> {
    let mut rest = insns.iter().copied().enumerate();
    std::iter::from_fn(move || {
        let (index, insn) = rest.next()?;
        let high = match insn.code {
            Insn::LD_IMM64 => rest.next().map(|(_, high)| high),
            _ => None,
        };
        Some(Instruction { index, insn, high })
    })
}

/// Bytes as instructions; an incomplete one at the end is left out.
pub(crate) fn parse(code: &[u8]) -> Vec<Insn> {
    let (insns, _) = code.as_chunks::<8>();
    insns.iter().copied().map(Insn::from_bytes).collect()
}
