//! One function as two boots hold it: which of its operands are addresses, and of what.

use std::ops::Range;

use super::bytecode::{Loads, Verdict};
use super::places::Place;
use super::{At, Both, DiscoverError, Pair};
use crate::hex::Hex;
use crate::image::Form;
use crate::x86_64::listing::text;
use crate::x86_64::operands::{Code64, Obstruction, Operand, OperandKind, is_within, operands};

/// One function in both boots.
pub(super) struct FunctionView<'a> {
    pub(super) both: Both<'a>,
    /// Which one.
    pub(super) index: usize,
    pub(super) a: Code64<'a>,
    pub(super) b: Code64<'a>,
    /// What its bytecode loads.
    pub(super) loads: Loads,
}

impl FunctionView<'_> {
    /// All operands that are relocated, by rising offset. Outside of them, the function is the same
    /// in both boots.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, DiscoverError> {
        let mut addresses = Vec::new();
        let mut pointers = Vec::new();
        for operand in self.operands()? {
            addresses.extend(self.address(&operand)?);
            let [a, b] = operand.values;
            if operand.kind == OperandKind::Immediate && a != b {
                pointers.push(operand.values);
            }
        }
        if pointers != self.loads.pointers() {
            return Err(DiscoverError::OtherPointers {
                program: self.both.program(),
                function: self.index,
                native: pointers.len(),
                bytecode: self.loads.pointers().len(),
            });
        }
        Ok(addresses)
    }

    fn operands(&self) -> Result<Vec<Operand>, DiscoverError> {
        let bytes = |code: Code64<'_>, range: Range<usize>| {
            Hex(code.bytes.get(range).unwrap_or_default().to_vec())
        };
        operands(self.a, self.b).map_err(|obstruction| match obstruction {
            Obstruction::Undecodable { offset } => DiscoverError::Undecodable {
                at: self.at(offset),
                bytes: bytes(self.a, offset..self.a.bytes.len().min(offset + 15)),
            },
            Obstruction::Differs { instruction } => DiscoverError::Unclassified {
                at: self.at(instruction.start),
                other: text(self.b, instruction.start),
                a: bytes(self.a, instruction.clone()),
                b: bytes(self.b, instruction),
            },
            Obstruction::Unknown {
                instruction,
                values,
                role,
            } => self.unknown(instruction.start, values, role),
        })
    }

    /// What an operand is the address of; none if it is the same wherever the function lies.
    fn address(&self, operand: &Operand) -> Result<Option<Address>, DiscoverError> {
        let [a, b] = operand.values;
        let place = match operand.kind {
            OperandKind::PerCpu if a == b => None,
            OperandKind::PerCpu => {
                return Err(self.unknown(
                    operand.instruction.start,
                    operand.values,
                    "a per-CPU variable has the same address in all boots",
                ));
            }
            OperandKind::Branch => {
                let offset = a.wrapping_sub(self.a.address);
                if is_within(a, self.a) && offset == b.wrapping_sub(self.b.address) {
                    return Ok(None);
                }
                let place = self.common_place(operand)?;
                Some(place.ok_or_else(|| {
                    self.unknown(
                        operand.instruction.start,
                        operand.values,
                        "calls and jumps go to kernel functions and the program's own",
                    )
                })?)
            }
            OperandKind::Immediate => match self.common_place(operand)? {
                Some(place) => match self.judge(operand, &place)? {
                    true => Some(place),
                    false => return Ok(None),
                },
                None if a == b => return Ok(None),
                None => {
                    return Err(self.unknown(
                        operand.instruction.start,
                        operand.values,
                        "programs with pointers of the verifier's own (bpf_obj_new, bpf_obj_drop, \
                         lists and trees of objects) cannot be made loadable",
                    ));
                }
            },
        };
        let offset = u32::try_from(operand.offset).map_err(|_| DiscoverError::TooLarge {
            program: self.both.program(),
            what: "an offset in the code",
        })?;
        Ok(Some(Address {
            offset,
            form: operand.form,
            bias: operand.bias,
            place,
            value: a,
        }))
    }

    /// The one thing that the operand is the address of in both boots.
    fn common_place(&self, operand: &Operand) -> Result<Option<Place>, DiscoverError> {
        let [a, b] = operand.values;
        let in_b = Place::all_at(b, self.both.b);
        let mut common = Place::all_at(a, self.both.a);
        common.retain(|place| in_b.contains(place));
        match common.len() {
            0 | 1 => Ok(common.pop()),
            _ => Err(DiscoverError::Ambiguous {
                at: self.at(operand.instruction.start),
                a,
                b,
                meanings: common
                    .iter()
                    .map(|place| place.describe(self.both.a))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Whether a register that is set to a place's address is set to that place, not to a constant.
    fn judge(&self, operand: &Operand, place: &Place) -> Result<bool, DiscoverError> {
        let at = || self.at(operand.instruction.start);
        let meaning = || place.describe(self.both.a);
        match self.loads.judge(operand.values, place) {
            Verdict::Address => Ok(true),
            Verdict::Constant => Ok(false),
            Verdict::Unknown => Err(DiscoverError::SameAddress {
                at: at(),
                address: operand.values[0],
                meaning: meaning(),
            }),
            Verdict::Disagrees => Err(DiscoverError::Disagreement {
                at: at(),
                meaning: meaning(),
            }),
        }
    }

    fn unknown(&self, offset: usize, values: Pair, role: &'static str) -> DiscoverError {
        let [a, b] = values;
        DiscoverError::UnknownAddress {
            at: self.at(offset),
            a,
            b,
            role,
        }
    }

    fn at(&self, offset: usize) -> Box<At> {
        Box::new(At {
            program: self.both.program(),
            function: self.index,
            offset,
            instruction: text(self.a, offset),
        })
    }
}

/// An operand that is relocated.
pub(super) struct Address {
    /// Bytes from the start of the function to the field.
    pub(super) offset: u32,
    pub(super) form: Form,
    /// What a relative field is relative to, seen from the field.
    pub(super) bias: i64,
    /// What it is the address of; none: it is absolute.
    pub(super) place: Option<Place>,
    /// The address in the first boot.
    pub(super) value: u64,
}
