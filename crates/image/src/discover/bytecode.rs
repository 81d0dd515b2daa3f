//! The verified bytecode as two boots hold it: the third witness of what an address is, and what is
//! kept of it without addresses.

use std::collections::{BTreeMap, BTreeSet};

use super::Pair;
use super::places::Place;
use crate::bpf::instructions;
use crate::export::Insn;

/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOV64: u8 = 0xb7;
/// `BPF_DIV | BPF_K` and `BPF_MOD | BPF_K`, of 32 and 64 bits: the JIT loads their divisors.
const DIVIDE: [u8; 4] = [0x34, 0x37, 0x94, 0x97];

/// Where kernels have addresses: the upper half of five-level paging, which includes that of four
/// levels. What lies above modules is left out, because small negative constants are there.
const KERNEL: std::ops::Range<u64> = 0xff00_0000_0000_0000..0xffff_ffff_ff00_0000;

/// What the bytecode of a function loads into registers.
pub(super) struct Loads {
    /// What 64-bit loads load in both boots, and the kinds of these loads (`src_reg`).
    wide: BTreeMap<Pair, BTreeSet<u8>>,
    /// What they load, one behind the other, where it is not the same in both boots.
    pointers: Vec<Pair>,
    /// Constants that come from other instructions, sign-extended.
    narrow: BTreeSet<u64>,
    /// The loads have their kinds: the kernel wipes them in programs of one function.
    kinds: bool,
}

/// What the bytecode says of a register that is set to what looks like an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the address.
    Address,
    /// It only looks like it.
    Constant,
    /// It may be either.
    Unknown,
    /// Nothing in the bytecode loads it, or only something of another kind.
    Disagrees,
}

impl Loads {
    /// Reads the bytecode of one function, equal in both boots but for addresses. `kinds` says
    /// whether the kernel has left the kinds of loads.
    pub(super) fn of(a: &[Insn], b: &[Insn], kinds: bool) -> Self {
        let mut wide: BTreeMap<Pair, BTreeSet<u8>> = BTreeMap::new();
        let mut pointers = Vec::new();
        for ((index, in_a), (_, in_b)) in wide_loads(a).zip(wide_loads(b)) {
            let kinds = wide.entry([in_a, in_b]).or_default();
            kinds.insert(a[index].source());
            if in_a != in_b {
                pointers.push([in_a, in_b]);
            }
        }
        let narrow = a
            .iter()
            .filter(|insn| insn.code == MOV64 || DIVIDE.contains(&insn.code))
            .map(|insn| i64::from(insn.imm).cast_unsigned())
            .collect();
        Self {
            wide,
            pointers,
            narrow,
            kinds,
        }
    }

    /// What the bytecode loads, one behind the other, where it is not the same in both boots. The
    /// JIT compiles one instruction behind the other, each load to one of its own.
    pub(super) fn pointers(&self) -> &[Pair] {
        &self.pointers
    }

    /// Judges a register that is set to `values`, which in both boots is the address of `place`.
    pub(super) fn judge(&self, values: Pair, place: &Place) -> Verdict {
        let no_kinds = BTreeSet::new();
        let kinds = self.wide.get(&values).unwrap_or(&no_kinds);
        let right = kinds_of(place);
        let mut named = kinds.iter().filter(|&&kind| kind != 0).peekable();
        let is_named = named.peek().is_some();
        if named.any(|kind| !right.contains(kind)) {
            return Verdict::Disagrees;
        }
        let [a, b] = values;
        if a != b {
            return match kinds.is_empty() {
                true => Verdict::Disagrees,
                false => Verdict::Address,
            };
        }
        // The same in both boots: only kinds can tell. The verifier itself loads kernel symbols and
        // `aux` without a kind, but never maps and functions.
        let is_plain = kinds.contains(&0) || self.narrow.contains(&a);
        match (is_named, is_plain) {
            (true, false) => Verdict::Address,
            (false, true) if self.kinds && place.is_always_named() => Verdict::Constant,
            (false, false) => Verdict::Disagrees,
            _ => Verdict::Unknown,
        }
    }
}

/// The kinds that a load of such an address can have, beside none (`BPF_PSEUDO_*`).
pub(super) fn kinds_of(place: &Place) -> &'static [u8] {
    match place {
        Place::Map(_) => &[1, 5],
        Place::MapValue { .. } => &[2, 6],
        Place::Text(_) | Place::Module { .. } => &[3],
        Place::Function(_) => &[4],
        Place::ProgAux => &[],
    }
}

/// Whether a number can be an address of the kernel.
pub(super) fn is_kernel_address(value: u64) -> bool {
    KERNEL.contains(&value)
}

/// Who calls the program's own functions, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnCalls {
    /// By number: the immediate stays.
    Numbered,
    /// By address.
    Addressed,
}

/// The bytecode as it is in all boots: whatever is, or could be, an address becomes zero.
///
/// That may take a user's constant with it. Nothing ever runs what is kept, and no address of the
/// machine that verified may be left in it. `is_far` says of the immediate of a call whether it
/// leads out of the kernel image.
pub(super) fn without_addresses(
    insns: &[Insn],
    other_boot: &[Insn],
    own_calls: OwnCalls,
    is_far: impl Fn(i32) -> bool,
) -> Vec<Insn> {
    let mut clean = insns.to_vec();
    let others: BTreeMap<usize, u64> = wide_loads(other_boot).collect();
    for (index, value) in wide_loads(insns) {
        if is_kernel_address(value) || others.get(&index) != Some(&value) {
            clean[index].imm = 0;
            clean[index + 1].imm = 0;
        }
    }
    for insn in &mut clean {
        let is_address = insn.is_own_call() && own_calls == OwnCalls::Addressed
            || insn.is_kernel_call() && is_far(insn.imm);
        if is_address {
            insn.imm = 0;
        }
    }
    clean
}

/// The 64-bit loads: where they stand, and what they load.
fn wide_loads(insns: &[Insn]) -> impl Iterator<Item = (usize, u64)> {
    instructions(insns).filter_map(|found| Some((found.index, found.wide()?)))
}
