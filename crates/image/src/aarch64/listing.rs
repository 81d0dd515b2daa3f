//! Instructions as text, with names in the place of addresses.

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction};

use super::SIZE;
use crate::image::{Form, Reloc};
use crate::native::{Code, Decoded, reloc_in};

/// Names that the decoder does not know, of what the JIT uses.
const NAMES: [(&str, &str); 6] = [
    ("s3_0_c4_c1_0", "sp_el0"),
    ("s3_0_c13_c0_4", "tpidr_el1"),
    ("s3_4_c13_c0_2", "tpidr_el2"),
    ("hint #0x16", "clearbhb"),
    ("hint #0x24", "bti j"),
    ("hint #0x26", "bti jc"),
];

/// What stands for bytes that are no instruction.
const BAD: &str = "(bad)";

pub(super) fn list(
    code: &[u8],
    relocs: &[Reloc],
    name: &dyn Fn(usize, usize) -> String,
) -> Vec<Decoded> {
    let mut lines = Vec::new();
    let mut start = 0;
    while let Some(rest @ [_, ..]) = code.get(start..) {
        let reloc = reloc_in(relocs, &(start..start + 1));
        let held = reloc.and_then(|reloc| {
            let form = relocs[reloc].form;
            let field = rest.get(..form.size())?;
            let end = start + field.len();
            Some((vacant(form, field, || name(reloc, end))?, field.len()))
        });
        let (text, size) = held.unwrap_or_else(|| {
            let text = instruction(rest).map(|found| text_of(&found, start as u64));
            let size = if text.is_some() {
                SIZE
            } else {
                rest.len().min(SIZE)
            };
            (text.unwrap_or_else(|| BAD.to_owned()), size)
        });
        lines.push(Decoded {
            range: start..start + size,
            text,
            reloc,
        });
        start += size;
    }
    lines
}

/// The instructions of a field that its address was taken out of.
fn vacant(form: Form, field: &[u8], name: impl Fn() -> String) -> Option<String> {
    match form {
        Form::A64Call26 => Some(format!("bl {}", name())),
        Form::A64Addr48 | Form::A64Mov64 => {
            let register = field.first()? & 31;
            Some(format!("mov x{register}, {}", name()))
        }
        _ => None,
    }
}

pub(super) fn text(code: Code<'_>, offset: usize) -> String {
    let found = code.bytes.get(offset..).and_then(instruction);
    match found {
        Some(found) => text_of(&found, code.address.wrapping_add(offset as u64)),
        None => BAD.to_owned(),
    }
}

pub(super) fn is_instruction(word: u32) -> bool {
    instruction(&word.to_le_bytes()).is_some()
}

fn instruction(bytes: &[u8]) -> Option<Instruction> {
    let mut reader = U8Reader::new(bytes.get(..SIZE)?);
    InstDecoder::default().decode(&mut reader).ok()
}

/// The instruction, which lies at `place`.
fn text_of(instruction: &Instruction, place: u64) -> String {
    let mut text = instruction.to_string();
    for (unnamed, name) in NAMES {
        text = text.replace(unnamed, name);
    }
    // What is relative is written as `$+0x8`.
    let Some((start, distance)) = text.split_once('$') else {
        return text;
    };
    match relative(distance) {
        Some(distance) => format!("{start}{:#x}", place.wrapping_add_signed(distance)),
        None => text,
    }
}

fn relative(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix("+0x") {
        Some(digits) => (1, digits),
        None => (-1, text.strip_prefix("-0x")?),
    };
    Some(sign * i64::from_str_radix(digits, 16).ok()?)
}
