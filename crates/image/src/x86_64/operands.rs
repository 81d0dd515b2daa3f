//! Disassembly of one function as two boots hold it: the operands that can be addresses.

use std::ops::Range;

use iced_x86::{Code as Opcode, ConstantOffsets, Instruction, OpKind, Register};

use super::listing::decoder;
use crate::image::Form;
use crate::native::{Code, Obstruction, Operand, OperandKind};

/// All operands of a function that can be addresses, by rising offset. Outside of them, both
/// functions are equal.
pub(crate) fn operands(a: Code<'_>, b: Code<'_>) -> Result<Vec<Operand>, Obstruction> {
    if a.bytes.len() != b.bytes.len() {
        return Err(Obstruction::Sizes);
    }
    let mut found = Vec::new();
    let mut decoder = decoder(a);
    while decoder.can_decode() {
        let start = decoder.position();
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(Obstruction::Undecodable { offset: start });
        }
        let range = start..decoder.position();
        let offsets = decoder.get_constant_offsets(&instruction);
        let operand = operand(&instruction, &offsets, range.clone(), a, b)?;
        let field = match &operand {
            Some(operand) => operand.field.clone(),
            None => range.end..range.end,
        };
        let same = |part: Range<usize>| a.bytes.get(part.clone()) == b.bytes.get(part);
        if !same(range.start..field.start) || !same(field.end..range.end) {
            return Err(Obstruction::Differs { instruction: range });
        }
        found.extend(operand);
    }
    Ok(found)
}

fn operand(
    instruction: &Instruction,
    offsets: &ConstantOffsets,
    range: Range<usize>,
    a: Code<'_>,
    b: Code<'_>,
) -> Result<Option<Operand>, Obstruction> {
    let (kind, form, offset) = if instruction.op0_kind() == OpKind::NearBranch64 {
        if offsets.immediate_size() == 1 {
            let target = instruction.near_branch_target();
            if a.contains(target) {
                return Ok(None);
            }
            return Err(Obstruction::Unknown {
                instruction: range,
                values: [
                    target,
                    target.wrapping_sub(a.address).wrapping_add(b.address),
                ],
                role: "short jumps stay within their function",
            });
        }
        let offset = offsets.immediate_offset();
        (OperandKind::Branch, Form::Rel32, offset)
    } else if instruction.is_ip_rel_memory_operand() {
        if instruction.segment_prefix() != Register::GS {
            let target = instruction.ip_rel_memory_address();
            return Err(Obstruction::Unknown {
                instruction: range,
                values: [
                    target,
                    target.wrapping_sub(a.address).wrapping_add(b.address),
                ],
                role: "only per-CPU variables are addressed relative to the instruction",
            });
        }
        let offset = offsets.displacement_offset();
        (OperandKind::PerCpu, Form::Rel32, offset)
    } else {
        let form = match instruction.code() {
            Opcode::Mov_r64_imm64 => Form::Abs64,
            Opcode::Mov_rm64_imm32 if instruction.op0_kind() == OpKind::Register => Form::Abs32S,
            _ => return Ok(None),
        };
        (OperandKind::Immediate, form, offsets.immediate_offset())
    };

    let offset = range.start + offset;
    let value = |code: Code<'_>| {
        let field = field(code.bytes, offset, form)?;
        Some(match form {
            Form::Rel32 => code
                .address
                .wrapping_add(range.end as u64)
                .wrapping_add_signed(field),
            _ => field.cast_unsigned(),
        })
    };
    let (Some(value_a), Some(value_b)) = (value(a), value(b)) else {
        return Err(Obstruction::Undecodable {
            offset: range.start,
        });
    };
    let bias = match form {
        // An instruction has at most 15 bytes.
        Form::Rel32 => i64::try_from(range.end - offset).unwrap_or(i64::MAX),
        _ => 0,
    };
    Ok(Some(Operand {
        instruction: range,
        field: offset..offset + form.size(),
        form: Some(form),
        kind,
        values: [value_a, value_b],
        bias,
    }))
}

fn field(bytes: &[u8], offset: usize, form: Form) -> Option<i64> {
    let bytes = bytes.get(offset..)?;
    Some(match form {
        Form::Rel32 | Form::Abs32S => i32::from_le_bytes(*bytes.first_chunk()?).into(),
        _ => i64::from_le_bytes(*bytes.first_chunk()?),
    })
}
