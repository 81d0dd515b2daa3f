//! Disassembly of one function as two boots hold it: the operands that can be addresses.

use std::ops::Range;

use super::groups::{Group, group, is_wide_move};
use super::listing::is_instruction;
use super::{SIZE, words};
use crate::image::Form;
use crate::native::{Code, Obstruction, Operand, OperandKind};

/// What every function ends with (`build_plt()`): `ldr x10, .+8` and `br x10`.
const TRAMPOLINE: [u32; 2] = [0x5800_004a, 0xd61f_0140];

/// All operands of a function that can be addresses, by rising offset. Outside of them, both
/// functions are equal.
pub(crate) fn operands(a: Code<'_>, b: Code<'_>) -> Result<Vec<Operand>, Obstruction> {
    let (in_a, in_b) = (words(a.bytes), words(b.bytes));
    let (a_side, b_side) = (Side::new(a, &in_a), Side::new(b, &in_b));
    compare_lengths(a_side, b_side)?;
    if a.bytes.len() != b.bytes.len() {
        return Err(Obstruction::Sizes);
    }
    let whole = in_a.len() * SIZE;
    if whole != a.bytes.len() {
        return Err(Obstruction::Undecodable { offset: whole });
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < in_a.len() {
        let (step, other) = (a_side.step(at)?, b_side.step(at)?);
        let operand = operand(&step, &other, at)?;
        let behind = operand.as_ref().map_or(at * SIZE, |found| found.field.end);
        let rest = behind..(at + step.length) * SIZE;
        if a.bytes.get(rest.clone()) != b.bytes.get(rest) {
            return Err(Obstruction::Differs {
                instruction: bytes(at, step.length),
            });
        }
        found.extend(operand);
        at += step.length;
    }
    check_end(&in_a)?;
    Ok(found)
}

/// Looks for an address that takes more instructions in one boot than in the other: whatever is
/// behind it lies elsewhere then, and jumps over it are others.
fn compare_lengths(a: Side<'_>, b: Side<'_>) -> Result<(), Obstruction> {
    let (mut at_a, mut at_b) = (0, 0);
    while at_a < a.words.len() && at_b < b.words.len() {
        // Code that is no code, or not the same, is found afterwards.
        let (Ok(in_a), Ok(in_b)) = (a.step(at_a), b.step(at_b)) else {
            break;
        };
        if in_a.length != in_b.length {
            let (kind, values) = match (in_a.kind, in_b.kind) {
                (Kind::Set(a), Kind::Set(b)) if a.register == b.register => {
                    (OperandKind::Immediate, [a.value, b.value])
                }
                (Kind::Call(a) | Kind::LongCall(a), Kind::Call(b) | Kind::LongCall(b)) => {
                    (OperandKind::Branch, [a, b])
                }
                _ => break,
            };
            return Err(Obstruction::Lengths {
                instruction: bytes(at_a, in_a.length),
                kind,
                values,
            });
        }
        at_a += in_a.length;
        at_b += in_b.length;
    }
    Ok(())
}

/// The operand of what stands at the same place in both boots.
fn operand(a: &Step, b: &Step, at: usize) -> Result<Option<Operand>, Obstruction> {
    let but_value = |group| Group { value: 0, ..group };
    let (kind, form, values) = match (a.kind, b.kind) {
        (Kind::Set(a), Kind::Set(b)) if but_value(a) == but_value(b) => {
            (OperandKind::Immediate, a.form, [a.value, b.value])
        }
        (Kind::LongCall(a), Kind::LongCall(b)) => {
            (OperandKind::Branch, Some(Form::A64Addr48), [a, b])
        }
        (Kind::Call(a), Kind::Call(b)) => (OperandKind::Branch, Some(Form::A64Call26), [a, b]),
        (Kind::Plain, Kind::Plain) => return Ok(None),
        _ => {
            return Err(Obstruction::Differs {
                instruction: bytes(at, a.length),
            });
        }
    };
    Ok(Some(Operand {
        instruction: bytes(at, a.length),
        field: bytes(at, form.map_or(a.length, |form| form.size() / SIZE)),
        form,
        kind,
        values,
        bias: 0,
    }))
}

/// One function in one boot.
#[derive(Clone, Copy)]
struct Side<'a> {
    address: u64,
    words: &'a [u32],
}

/// An instruction, or several that belong together.
struct Step {
    /// In instructions.
    length: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Sets a register.
    Set(Group),
    /// A call of an address that a register was set to for it.
    LongCall(u64),
    /// A call of a place that is near.
    Call(u64),
    /// Has no address, or that of a place in the same function.
    Plain,
}

impl<'a> Side<'a> {
    fn new(code: Code<'_>, words: &'a [u32]) -> Self {
        Self {
            address: code.address,
            words,
        }
    }

    fn step(self, at: usize) -> Result<Step, Obstruction> {
        let rest = self.words.get(at..).unwrap_or_default();
        let foreign = |rule| Obstruction::Foreign {
            instruction: bytes(at, 1),
            rule,
        };
        let &[word, ..] = rest else {
            return Err(Obstruction::Undecodable { offset: at * SIZE });
        };
        if !is_instruction(word) {
            return Err(Obstruction::Undecodable { offset: at * SIZE });
        }
        if is_wide_move(word) {
            let group = group(rest).ok_or(foreign(
                "registers are set to values by the fewest moves, or to addresses by three",
            ))?;
            let is_call = group.form == Some(Form::A64Addr48)
                && rest.get(group.length).and_then(|&word| called(word)) == Some(group.register);
            return Ok(match is_call {
                true => Step {
                    length: group.length + 1,
                    kind: Kind::LongCall(group.value),
                },
                false => Step {
                    length: group.length,
                    kind: Kind::Set(group),
                },
            });
        }
        let kind = match relative(word) {
            Some(Relative::Call(distance)) => {
                let place = self.address.wrapping_add((at * SIZE) as u64);
                Kind::Call(place.wrapping_add_signed(distance))
            }
            Some(Relative::Jump(distance)) => {
                let target = i64::try_from(at * SIZE).ok().map(|at| at + distance);
                let inside = target
                    .and_then(|target| usize::try_from(target).ok())
                    .is_some_and(|target| target < self.words.len() * SIZE);
                if !inside {
                    return Err(foreign("jumps stay within their function"));
                }
                Kind::Plain
            }
            Some(Relative::Data) if !rest.starts_with(&TRAMPOLINE) || rest.len() != 2 => {
                return Err(foreign(
                    "only the jump to a trampoline at a function's end reads what lies near it",
                ));
            }
            Some(Relative::Data) => Kind::Plain,
            None if called(word).is_some() => {
                return Err(foreign(
                    "calls follow the three moves that set their register",
                ));
            }
            None => Kind::Plain,
        };
        Ok(Step { length: 1, kind })
    }
}

/// The kernel part writes eight bytes behind the code: where the jump at its end goes.
fn check_end(words: &[u32]) -> Result<(), Obstruction> {
    if words.ends_with(&TRAMPOLINE) && words.len().is_multiple_of(2) {
        return Ok(());
    }
    let last = words.len().saturating_sub(1);
    Err(Obstruction::Foreign {
        instruction: bytes(last, 1),
        rule: "functions end with a jump to a trampoline, whose address follows at a multiple of eight",
    })
}

/// Something relative to the instruction, in bytes.
pub(super) enum Relative {
    /// `bl`.
    Call(i64),
    /// `b`, `b.cond`, `cbz`, `cbnz`, `tbz`, `tbnz`.
    Jump(i64),
    /// `ldr` of a literal, `prfm` of one, `adr`, `adrp`.
    Data,
}

pub(super) fn relative(word: u32) -> Option<Relative> {
    Some(match word {
        _ if word & 0xfc00_0000 == 0x9400_0000 => Relative::Call(distance(word, 0, 26)),
        _ if word & 0xfc00_0000 == 0x1400_0000 => Relative::Jump(distance(word, 0, 26)),
        _ if word & 0xff00_0000 == 0x5400_0000 => Relative::Jump(distance(word, 5, 19)),
        _ if word & 0x7e00_0000 == 0x3400_0000 => Relative::Jump(distance(word, 5, 19)),
        _ if word & 0x7e00_0000 == 0x3600_0000 => Relative::Jump(distance(word, 5, 14)),
        _ if word & 0x3b00_0000 == 0x1800_0000 => Relative::Data,
        _ if word & 0x1f00_0000 == 0x1000_0000 => Relative::Data,
        _ => return None,
    })
}

/// A signed number of instructions, in bytes.
fn distance(word: u32, start: u32, bits: u32) -> i64 {
    let shifted = (word << (32 - start - bits)).cast_signed() >> (32 - bits);
    i64::from(shifted) * 4
}

/// The register that holds where `blr` goes.
fn called(word: u32) -> Option<u32> {
    (word & 0xffff_fc1f == 0xd63f_0000).then_some(word >> 5 & 31)
}

/// So many instructions from that one on, in bytes from the start of the function.
fn bytes(at: usize, length: usize) -> Range<usize> {
    at * SIZE..(at + length) * SIZE
}
