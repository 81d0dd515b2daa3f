//! Instructions that set one register, one behind the other.

use super::encode;
use crate::image::Form;

/// A group of instructions that sets a register to a value, as the JIT writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) register: u32,
    /// Whether it sets the whole register, or the lower half and clears the other.
    pub(super) is64: bool,
    /// In instructions.
    pub(super) length: usize,
    pub(super) value: u64,
    /// How other values are written into it; none if few others fit.
    pub(super) form: Option<Form>,
}

/// Whether an instruction sets a register, or part of it, to a constant: `movn`, `movz`, `movk`.
pub(super) fn is_wide_move(word: u32) -> bool {
    word & 0x1f80_0000 == 0x1280_0000
}

/// The group that the code starts with; none if it starts with none that the JIT writes.
pub(super) fn group(code: &[u32]) -> Option<Group> {
    let (&start, rest) = code.split_first()?;
    let first = WideMove::read(start)?;
    let mut value = match first.operation {
        Operation::Not => !first.bits(),
        Operation::Zero => first.bits(),
        Operation::Keep => return None,
    };
    let mut length = 1;
    for &word in rest {
        let Some(next) = WideMove::read(word) else {
            break;
        };
        let is_part = next.operation == Operation::Keep
            && (next.is64, next.register) == (first.is64, first.register);
        if !is_part {
            break;
        }
        value = value & !(0xffff << next.shift) | next.bits();
        length += 1;
    }
    if !first.is64 {
        value &= u64::from(u32::MAX);
    }
    let form = form(&code[..length], first.is64, first.register, value)?;
    Some(Group {
        register: first.register,
        is64: first.is64,
        length,
        value,
        form,
    })
}

/// How the instructions were chosen for the value: outer none if not by the JIT, inner if it chooses
/// another number of them for most other values.
fn form(words: &[u32], is64: bool, register: u32, value: u64) -> Option<Option<Form>> {
    if encode::address(register, value).is_some_and(|address| address == words) {
        return Some(Some(Form::A64Addr48));
    }
    if encode::value(register, value) == words {
        return Some((words.len() == 3).then_some(Form::A64Mov64));
    }
    let constant = match is64 {
        true => i32::try_from(value.cast_signed()).ok()?,
        false => u32::try_from(value).ok()?.cast_signed(),
    };
    (encode::constant(is64, register, constant) == words).then_some(None)
}

struct WideMove {
    is64: bool,
    operation: Operation,
    register: u32,
    immediate: u16,
    shift: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Not,
    Zero,
    Keep,
}

impl WideMove {
    fn read(word: u32) -> Option<Self> {
        if !is_wide_move(word) {
            return None;
        }
        let operation = match word >> 29 & 3 {
            0 => Operation::Not,
            2 => Operation::Zero,
            3 => Operation::Keep,
            _ => return None,
        };
        let immediate = u16::try_from(word >> 5 & 0xffff).ok()?;
        Some(Self {
            is64: word >> 31 == 1,
            operation,
            register: word & 31,
            immediate,
            shift: (word >> 21 & 3) * 16,
        })
    }

    fn bits(&self) -> u64 {
        u64::from(self.immediate) << self.shift
    }
}
