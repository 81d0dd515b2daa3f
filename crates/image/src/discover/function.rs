//! One function as two boots hold it: which of its operands are addresses, and of what.

use std::ops::Range;

use super::bytecode::{Loads, Verdict};
use super::places::Place;
use super::{At, Both, DiscoverError, Pair};
use crate::export;
use crate::hex::Hex;
use crate::image::Form;
use crate::native::{Code, Native, Obstruction, Operand, OperandKind};

/// What a register can be set to, but for constants.
pub(super) const UNKNOWN_POINTER: &str = "programs with pointers of the verifier's own (bpf_obj_new, bpf_obj_drop, \
     lists and trees of objects) cannot be made loadable";

/// One function in both boots.
pub(super) struct FunctionView<'a> {
    pub(super) both: Both<'a>,
    /// Which one.
    pub(super) index: usize,
    /// The code that their machine has.
    pub(super) native: &'a dyn Native,
    pub(super) a: &'a export::Function,
    pub(super) b: &'a export::Function,
    /// What its bytecode loads.
    pub(super) loads: Loads,
}

impl FunctionView<'_> {
    /// All operands that are relocated, by rising offset. Outside of them, the function is the same
    /// in both boots.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, DiscoverError> {
        let operands = self.operands()?;
        self.check_exceptions()?;
        let mut addresses = Vec::new();
        let mut pointers = Vec::new();
        for operand in operands {
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
        let bytes = |code: Code<'_>, range: Range<usize>| {
            Hex(code.bytes.get(range).unwrap_or_default().to_vec())
        };
        let (a, b) = (code(self.a), code(self.b));
        let operands = self.native.operands(a, b);
        operands.map_err(|obstruction| match obstruction {
            Obstruction::Undecodable { offset } => DiscoverError::Undecodable {
                at: self.at(offset),
                bytes: bytes(a, offset..a.bytes.len().min(offset + 15)),
            },
            Obstruction::Sizes => DiscoverError::Differ {
                program: self.both.program(),
                what: format!("the bytes of code of function {}", self.index),
                a: a.bytes.len().to_string(),
                b: b.bytes.len().to_string(),
            },
            Obstruction::Differs { instruction } => DiscoverError::Unclassified {
                at: self.at(instruction.start),
                other: self.native.text(b, instruction.start),
                a: bytes(a, instruction.clone()),
                b: bytes(b, instruction),
            },
            Obstruction::Unknown {
                instruction,
                values,
                role,
            } => self.unknown(instruction.start, values, role),
            Obstruction::Lengths {
                instruction,
                kind,
                values,
            } => match self.common_place(instruction.start, values) {
                Err(ambiguous) => ambiguous,
                Ok(None) => self.unknown(instruction.start, values, UNKNOWN_POINTER),
                Ok(Some(place)) if kind == OperandKind::Branch => {
                    self.short_call(instruction.start, &place)
                }
                Ok(Some(place)) => self.short_group(instruction.start, values, &place),
            },
            Obstruction::Foreign { instruction, rule } => DiscoverError::Foreign {
                at: self.at(instruction.start),
                rule,
            },
        })
    }

    /// The exception table must be one that the kernel's handler understands.
    fn check_exceptions(&self) -> Result<(), DiscoverError> {
        for (index, entry) in self.a.extable.iter().enumerate() {
            let check = self.native.check_exception(&self.a.code, entry);
            check.map_err(|problem| DiscoverError::Exception {
                program: self.both.program(),
                function: self.index,
                index,
                problem,
            })?;
        }
        self.both.equal(
            format!("the exception table of function {}", self.index),
            &self.a.extable,
            &self.b.extable,
        )
    }

    /// What an operand is the address of; none if it is the same wherever the function lies.
    fn address(&self, operand: &Operand) -> Result<Option<Address>, DiscoverError> {
        let [a, b] = operand.values;
        let start = operand.instruction.start;
        let place = match operand.kind {
            OperandKind::PerCpu if a == b => None,
            OperandKind::PerCpu => {
                return Err(self.unknown(
                    start,
                    operand.values,
                    "a per-CPU variable has the same address in all boots",
                ));
            }
            OperandKind::Branch => {
                let offset = a.wrapping_sub(self.a.address);
                if code(self.a).contains(a) && offset == b.wrapping_sub(self.b.address) {
                    return Ok(None);
                }
                let place = self.common_place(start, operand.values)?;
                let place = place.ok_or_else(|| {
                    self.unknown(
                        start,
                        operand.values,
                        "calls and jumps go to kernel functions and the program's own",
                    )
                })?;
                let is_own = matches!(place, Place::Function(_));
                if operand.form == Some(Form::A64Call26) && !is_own {
                    return Err(self.short_call(start, &place));
                }
                Some(place)
            }
            OperandKind::Immediate => match self.common_place(start, operand.values)? {
                Some(place) => match self.judge(operand, &place)? {
                    true => Some(place),
                    false => return Ok(None),
                },
                None if a == b => return Ok(None),
                None => return Err(self.unknown(start, operand.values, UNKNOWN_POINTER)),
            },
        };
        let form = match (operand.form, &place) {
            (Some(form), _) => form,
            (None, Some(place)) => return Err(self.short_group(start, operand.values, place)),
            (None, None) => return Ok(None),
        };
        let offset = u32::try_from(operand.field.start).map_err(|_| DiscoverError::TooLarge {
            program: self.both.program(),
            what: "an offset in the code",
        })?;
        Ok(Some(Address {
            offset,
            form,
            bias: operand.bias,
            place,
            value: a,
        }))
    }

    /// The one thing that has these addresses in both boots; `start` is where they stand.
    fn common_place(&self, start: usize, values: Pair) -> Result<Option<Place>, DiscoverError> {
        let mut common = self.both.common_places(values);
        let [a, b] = values;
        match common.len() {
            0 | 1 => Ok(common.pop()),
            _ => Err(DiscoverError::Ambiguous {
                at: self.at(start),
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

    fn short_group(&self, offset: usize, values: Pair, place: &Place) -> DiscoverError {
        let [a, b] = values;
        DiscoverError::ShortGroup {
            at: self.at(offset),
            meaning: place.describe(self.both.a),
            a,
            b,
        }
    }

    fn short_call(&self, offset: usize, place: &Place) -> DiscoverError {
        DiscoverError::ShortCall {
            at: self.at(offset),
            meaning: place.describe(self.both.a),
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
            instruction: self.native.text(code(self.a), offset),
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

fn code(function: &export::Function) -> Code<'_> {
    Code {
        address: function.address,
        bytes: &function.code,
    }
}
