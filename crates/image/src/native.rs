//! Native code, as far as it is the same for all machines: what there is to know of the code that a
//! kernel's JIT writes.

use std::ops::Range;

use preverify_abi::image::Extable;

use crate::aarch64::Aarch64;
use crate::image::{Form, Machine, Reloc};
use crate::x86_64::X86;

/// The machine's code; none if it has no native code.
pub(crate) fn native(machine: Machine) -> Option<&'static dyn Native> {
    match machine {
        Machine::X86_64 => Some(&X86),
        Machine::Arm64 => Some(&Aarch64),
        Machine::Bpf => None,
    }
}

/// The code that the JIT for a machine writes.
pub(crate) trait Native {
    /// All operands of a function that can be addresses, by rising offset. Outside of them, the function
    /// is the same in both boots.
    fn operands(&self, a: Code<'_>, b: Code<'_>) -> Result<Vec<Operand>, Obstruction>;

    /// Whether the kernel's handler does with an exception in this function what the JIT means: what is
    /// wrong if not.
    fn check_exception(&self, code: &[u8], entry: &Extable) -> Result<(), &'static str>;

    /// What the JIT prepares for direct tail calls.
    fn tail_calls(&self) -> TailCalls;

    /// The instruction at an offset, as text.
    fn text(&self, code: Code<'_>, offset: usize) -> String;

    /// All instructions of a function, as text.
    ///
    /// `relocs` are by rising offset; `name` says what stands in the place of one's address, by its
    /// index and the end of its instruction. Jumps within the function show the offset that they go
    /// to. Bytes that are no instruction stand alone, as `(bad)`.
    fn list(
        &self,
        code: &[u8],
        relocs: &[Reloc],
        name: &dyn Fn(usize, usize) -> String,
    ) -> Vec<Decoded>;
}

/// One function's bytes, and the address of the first.
#[derive(Clone, Copy)]
pub(crate) struct Code<'a> {
    pub(crate) address: u64,
    pub(crate) bytes: &'a [u8],
}

impl Code<'_> {
    /// Whether an address lies within the function.
    pub(crate) fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.address) < self.bytes.len() as u64
    }
}

/// A field that can hold an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    /// The whole instruction, or all that together hold the address, in bytes from the start of the
    /// function.
    pub(crate) instruction: Range<usize>,
    /// The field, in bytes from the start of the function.
    pub(crate) field: Range<usize>,
    /// How other addresses are written; none if most others do not fit.
    pub(crate) form: Option<Form>,
    pub(crate) kind: OperandKind,
    /// The address that is meant, in each boot.
    pub(crate) values: [u64; 2],
    /// What the field is relative to, seen from the field: on x86_64, the end of its instruction.
    pub(crate) bias: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperandKind {
    /// Where a call or a jump goes.
    Branch,
    /// What a register is set to.
    Immediate,
    /// A per-CPU variable, addressed relative to the instruction.
    PerCpu,
}

/// Why two functions are not the same code at other addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstruction {
    /// No instruction starts here.
    Undecodable { offset: usize },
    /// The functions do not have the same number of bytes.
    Sizes,
    /// The instructions differ in more than operands.
    Differs { instruction: Range<usize> },
    /// An operand that cannot be what it should be in both boots.
    Unknown {
        instruction: Range<usize>,
        /// The addresses in both boots.
        values: [u64; 2],
        /// What it should be.
        role: &'static str,
    },
    /// An address that takes more instructions in one boot than in the other.
    Lengths {
        instruction: Range<usize>,
        kind: OperandKind,
        /// The addresses in both boots.
        values: [u64; 2],
    },
    /// Something that the JIT does not write.
    Foreign {
        instruction: Range<usize>,
        /// What it writes.
        rule: &'static str,
    },
}

/// What the JIT prepares for direct tail calls.
#[derive(Clone, Copy)]
pub(crate) enum TailCalls {
    /// Jumps that the kernel patches; the function says whether all three are as the JIT leaves them:
    /// the jump, the one around it, and where that one goes, in bytes from the start of the code.
    Patched(fn(&[u8], u32, u32, u32) -> bool),
    /// Nothing: they go through the prog array as all others do.
    Unprepared,
}

/// The first relocation whose field starts in a range of a function's code: its index. They are by
/// rising offset.
pub(crate) fn reloc_in(relocs: &[Reloc], range: &Range<usize>) -> Option<usize> {
    // On machines that cannot address it, there is no such code either.
    let place = |reloc: &Reloc| usize::try_from(reloc.offset).unwrap_or(usize::MAX);
    let first = relocs.partition_point(|reloc| place(reloc) < range.start);
    let found = relocs.get(first)?;
    range.contains(&place(found)).then_some(first)
}

/// One instruction, or several that together hold a relocated address.
pub(crate) struct Decoded {
    /// In bytes from the start of the function.
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
    /// Which of the relocations lies in it.
    pub(crate) reloc: Option<usize>,
}
