//! One function's bytecode as two boots hold it: which of its immediates are addresses, and of what.
//!
//! The kernel says of most loads what they load, unless the program has a single function: then
//! only the two boots can tell, and what they cannot tell is refused.

use super::bytecode::{is_kernel_address, kinds_of};
use super::function::{Address, UNKNOWN_POINTER};
use super::places::Place;
use super::{At, Both, DiscoverError, Pair};
use crate::bpf::listing::text;
use crate::bpf::{Instruction, PSEUDO_FUNC, instructions};
use crate::export::Insn;
use crate::image::Form;

/// The bytecode of one function in both boots.
pub(super) struct InstructionsView<'a> {
    pub(super) both: Both<'a>,
    /// Which function.
    pub(super) index: usize,
    pub(super) a: &'a [Insn],
    pub(super) b: &'a [Insn],
    /// The loads have their kinds.
    pub(super) kinds: bool,
}

/// What an immediate is.
enum Meaning {
    /// The same in all boots.
    Constant,
    /// An address, which a relocation puts in.
    Address(Place),
    /// One of the program's own functions, which `off` names.
    Own,
}

impl InstructionsView<'_> {
    /// The code without addresses, and where they belong, by rising offset. The rest is the same
    /// in both boots.
    pub(super) fn read(&self) -> Result<(Vec<u8>, Vec<Address>), DiscoverError> {
        let what = format!("the bytecode of function {}", self.index);
        let (a, b) = (self.a.len(), self.b.len());
        self.both.equal(format!("the length of {what}"), &a, &b)?;
        let mut code = Vec::with_capacity(a * size_of::<[u8; 8]>());
        let mut addresses = Vec::new();
        for (a, b) in instructions(self.a).zip(instructions(self.b)) {
            let what = format!("instruction {} of {what}", a.index);
            self.both.equal(
                what.as_str(),
                &without_immediates(a),
                &without_immediates(b),
            )?;
            let (form, meaning) = match a.insn.code {
                Insn::LD_IMM64 => (Form::BpfImm64, self.load(a, b)?),
                Insn::CALL => (Form::BpfCall, self.call(a, b)?),
                _ => (Form::BpfCall, Meaning::Constant),
            };
            let start = code.len();
            for half in [Some(a.insn), a.high].into_iter().flatten() {
                code.extend(half.to_bytes());
            }
            match meaning {
                Meaning::Constant => self.both.equal(what, &a, &b)?,
                Meaning::Own => form.vacate(&mut code[start..]),
                Meaning::Address(place) => {
                    form.vacate(&mut code[start..]);
                    addresses.push(Address {
                        offset: u32::try_from(start).map_err(|_| DiscoverError::TooLarge {
                            program: self.both.program(),
                            what: "an offset in the bytecode",
                        })?,
                        form,
                        bias: 0,
                        place: Some(place),
                        value: 0,
                    });
                }
            }
        }
        Ok((code, addresses))
    }

    fn load(&self, a: Instruction, b: Instruction) -> Result<Meaning, DiscoverError> {
        let (Some(value_a), Some(value_b)) = (a.wide(), b.wide()) else {
            return Err(self.unknown(a, [0, 0], "a wide load has two halves"));
        };
        let values = [value_a, value_b];
        match a.insn.source() {
            0 => self.plain_load(a, values),
            PSEUDO_FUNC if !self.kinds => Err(self.unknown(
                a,
                values,
                "it was to be the address of a function that the verifier found never called, and removed",
            )),
            PSEUDO_FUNC => match self.own_function(a.insn) == Some(values) {
                true => Ok(Meaning::Own),
                false => Err(self.unknown(
                    a,
                    values,
                    "it is loaded as a function of the program's own, whose number stands beside",
                )),
            },
            kind => {
                let mut places = self.both.common_places(values);
                places.retain(|place| kinds_of(place).contains(&kind));
                match places.pop() {
                    Some(place) => Ok(Meaning::Address(place)),
                    // What is found per CPU is no address, but how far from one it lies.
                    None if kind == KSYM && is_per_cpu(values) => Ok(Meaning::Constant),
                    None => Err(self.unknown(
                        a,
                        values,
                        "the verifier says that it is a map, a map's value or a kernel variable",
                    )),
                }
            }
        }
    }

    /// A load of which the kernel does not say what it loads: a constant, a kernel symbol or `aux`;
    /// and anything, if the kernel has wiped the kinds.
    fn plain_load(&self, a: Instruction, values: Pair) -> Result<Meaning, DiscoverError> {
        let mut places = self.both.common_places(values);
        if values[0] == values[1] {
            // Symbols of a kernel that always lies at the same place are the same either way.
            if let Some(Place::Text(_)) = places.first() {
                return Ok(Meaning::Address(places.swap_remove(0)));
            }
            places.retain(|place| !(self.kinds && place.is_always_named()));
            return match places.first() {
                None => Ok(Meaning::Constant),
                Some(place) => Err(DiscoverError::SameAddress {
                    at: self.at(a),
                    address: values[0],
                    meaning: place.describe(self.both.a),
                }),
            };
        }
        match (places.pop(), places.as_slice()) {
            (None, _) => Err(self.unknown(a, values, UNKNOWN_POINTER)),
            (Some(place), []) => Ok(Meaning::Address(place)),
            (Some(last), others) => Err(DiscoverError::Ambiguous {
                at: self.at(a),
                a: values[0],
                b: values[1],
                meanings: others
                    .iter()
                    .chain([&last])
                    .map(|place| place.describe(self.both.a))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    fn call(&self, a: Instruction, b: Instruction) -> Result<Meaning, DiscoverError> {
        let bases = self.both.call_bases()?;
        if a.insn.is_own_call() {
            // The kernel takes four bytes of the distance, whether it fits or not: the JIT finds the
            // function by its number.
            let low_half = |value: u64| value & u64::from(u32::MAX);
            let called = self.own_function(a.insn);
            let expected = called.map(|called| {
                let [a, b] = called;
                [a.wrapping_sub(bases[0]), b.wrapping_sub(bases[1])].map(low_half)
            });
            let found = [a, b].map(|call| u64::from(call.insn.imm.cast_unsigned()));
            return match expected == Some(found) {
                true => Ok(Meaning::Own),
                false => Err(self.unknown(
                    a,
                    found,
                    "it is called as a function of the program's own, whose number stands beside",
                )),
            };
        }
        let [in_a, in_b] = [a, b].map(|call| i64::from(call.insn.imm));
        let values = [
            bases[0].wrapping_add_signed(in_a),
            bases[1].wrapping_add_signed(in_b),
        ];
        if self.is_inlined_helper(a.insn, values) {
            return Ok(Meaning::Constant);
        }
        let mut places = self.both.common_places(values);
        places.retain(|place| matches!(place, Place::Text(_) | Place::Module { .. }));
        match places.pop() {
            Some(place) if [0, PSEUDO_KFUNC].contains(&a.insn.source()) => {
                Ok(Meaning::Address(place))
            }
            _ => Err(self.unknown(a, values, "calls go to functions of the kernel")),
        }
    }

    /// A call of a helper that the JIT replaces keeps the helper's number: nothing is so near to what
    /// calls are relative to, and called.
    fn is_inlined_helper(&self, insn: Insn, [address, _]: Pair) -> bool {
        let mut names = self.both.a.symbols.names_at(address);
        HELPERS.contains(&insn.imm) && insn.source() == 0 && names.next().is_none()
    }

    /// The addresses of the function whose number an instruction has.
    fn own_function(&self, insn: Insn) -> Option<Pair> {
        let index = usize::try_from(insn.off).ok()?;
        let address = |functions: &[crate::export::Function]| Some(functions.get(index)?.address);
        Some([
            address(&self.both.a.export.functions)?,
            address(&self.both.b.export.functions)?,
        ])
    }

    /// Pointers that the verifier loads for a call of its own accord are no constants, even if by
    /// chance they are the same in both boots.
    pub(super) fn check_for_hidden_pointers(&self) -> Result<(), DiscoverError> {
        let all: Vec<Instruction> = instructions(self.a).collect();
        let others = instructions(self.b);
        for (number, (load, other)) in all.iter().zip(others).enumerate() {
            let (Some(a), Some(b)) = (load.wide(), other.wide()) else {
                continue;
            };
            let is_plain = load.insn.source() == 0 && a == b && is_kernel_address(a);
            let mut next = all[number + 1..].iter().map(|found| found.insn);
            let call = next.find(|insn| !is_argument(*insn));
            if is_plain
                && call.is_some_and(Insn::is_kernel_call)
                && self.both.common_places([a, b]).is_empty()
            {
                return Err(self.unknown(*load, [a, b], UNKNOWN_POINTER));
            }
        }
        Ok(())
    }

    fn unknown(&self, instruction: Instruction, values: Pair, role: &'static str) -> DiscoverError {
        let [a, b] = values;
        DiscoverError::UnknownAddress {
            at: self.at(instruction),
            a,
            b,
            role,
        }
    }

    fn at(&self, instruction: Instruction) -> Box<At> {
        Box::new(At {
            program: self.both.program(),
            function: self.index,
            offset: instruction.index * size_of::<[u8; 8]>(),
            instruction: text(instruction, None),
        })
    }
}

/// `BPF_PSEUDO_BTF_ID`: a wide load of a kernel variable's address.
const KSYM: u8 = 3;

/// `BPF_PSEUDO_KFUNC_CALL`: a call of a kernel function that is no helper.
const PSEUDO_KFUNC: u8 = 2;

/// More numbers than there are helpers.
const HELPERS: std::ops::Range<i32> = 1..1024;

/// Whether a kernel variable's address is that of a per-CPU variable, counted from the first of them.
fn is_per_cpu([a, b]: Pair) -> bool {
    a == b && !is_kernel_address(a)
}

/// Whether an instruction sets a register to a constant, as the verifier does in front of calls.
fn is_argument(insn: Insn) -> bool {
    /// `BPF_ALU64 | BPF_MOV | BPF_K`.
    const MOV64: u8 = 0xb7;
    insn.code == MOV64 || insn.code == Insn::LD_IMM64
}

fn without_immediates(instruction: Instruction) -> Instruction {
    Instruction {
        insn: Insn {
            imm: 0,
            ..instruction.insn
        },
        high: instruction.high.map(|high| Insn { imm: 0, ..high }),
        ..instruction
    }
}

#[cfg(test)]
mod tests;
