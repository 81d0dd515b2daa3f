//! Instructions as text, with names in the place of addresses.

use std::collections::HashMap;
use std::ops::Range;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter, OpKind, SymbolResolver,
    SymbolResult,
};

use crate::image::Reloc;
use crate::native::{Code, Decoded, reloc_in};

/// All instructions of a function.
pub(super) fn list(
    code: &[u8],
    relocs: &[Reloc],
    name: &dyn Fn(usize, usize) -> String,
) -> Vec<Decoded> {
    let mut lines = Vec::new();
    let mut names = HashMap::new();
    let instructions = instructions(code);
    for (instruction, range) in &instructions {
        let reloc = reloc_in(relocs, range);
        if let Some(reloc) = reloc {
            names.insert(instruction.ip(), name(reloc, range.end));
        }
        lines.push(Decoded {
            range: range.clone(),
            text: String::new(),
            reloc,
        });
    }
    let mut formatter = formatter(Some(Box::new(Names(names))));
    for (line, (instruction, _)) in lines.iter_mut().zip(&instructions) {
        formatter.format(instruction, &mut line.text);
    }
    lines
}

fn instructions(code: &[u8]) -> Vec<(Instruction, Range<usize>)> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(rest @ [_, ..]) = code.get(start..) {
        let instruction = decoder(Code {
            address: start as u64,
            bytes: rest,
        })
        .decode();
        let size = if instruction.is_invalid() {
            1
        } else {
            instruction.len()
        };
        found.push((instruction, start..start + size));
        start += size;
    }
    found
}

/// The instruction at an offset, as text.
pub(super) fn text(code: Code<'_>, offset: usize) -> String {
    let mut decoder = decoder(Code {
        address: code.address.wrapping_add(offset as u64),
        bytes: code.bytes.get(offset..).unwrap_or_default(),
    });
    let mut text = String::new();
    formatter(None).format(&decoder.decode(), &mut text);
    text
}

pub(super) fn decoder(code: Code<'_>) -> Decoder<'_> {
    Decoder::with_ip(64, code.bytes, code.address, DecoderOptions::NONE)
}

fn formatter(names: Option<Box<dyn SymbolResolver>>) -> NasmFormatter {
    let mut formatter = NasmFormatter::with_options(names, None);
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_branch_leading_zeros(false);
    options.set_space_after_operand_separator(true);
    formatter
}

/// What stands in the place of operands, by the instruction's address.
struct Names(HashMap<u64, String>);

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        match instruction.op_kind(instruction_operand?) {
            OpKind::NearBranch64
            | OpKind::Immediate32to64
            | OpKind::Immediate64
            | OpKind::Memory => {
                let name = self.0.get(&instruction.ip())?;
                Some(SymbolResult::with_str(address, name))
            }
            _ => None,
        }
    }
}
