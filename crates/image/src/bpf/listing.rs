//! Instructions as text, as the kernel's `print_bpf_insn()` and so `bpftool prog dump xlated` write
//! them, with names in the place of addresses.

use super::{Instruction, instructions, parse};
use crate::export::Insn;
use crate::image::Reloc;
use crate::native::{Decoded, reloc_in};

/// What stands in the place of an opcode that the verifier never leaves.
const BAD: &str = "(bad)";

/// All instructions of a function. `relocs` are by rising offset; `name` says what stands in the
/// place of one's address, by its index and the end of its instruction, `tail_call` what a direct
/// tail call goes through, by its index. An instruction that is cut off stands alone, as `(bad)`.
pub(crate) fn list(
    code: &[u8],
    relocs: &[Reloc],
    name: &dyn Fn(usize, usize) -> String,
    tail_call: &dyn Fn(usize) -> Option<String>,
) -> Vec<Decoded> {
    const SIZE: usize = 8;
    let insns = parse(code);
    let mut lines: Vec<Decoded> = instructions(&insns)
        .map(|instruction| {
            let start = instruction.index * SIZE;
            let halves = if instruction.high.is_some() { 2 } else { 1 };
            let range = start..start + halves * SIZE;
            let reloc = reloc_in(relocs, &range);
            let operand = match reloc {
                Some(reloc) => Some(name(reloc, range.end)),
                None if instruction.insn.code == Insn::TAIL_CALL => {
                    let poke = usize::try_from(instruction.insn.imm).ok();
                    poke.and_then(|number| tail_call(number.checked_sub(1)?))
                }
                None => None,
            };
            Decoded {
                range,
                text: text(instruction, operand.as_deref()),
                reloc,
            }
        })
        .collect();
    let end = insns.len() * SIZE;
    if end < code.len() {
        lines.push(Decoded {
            range: end..code.len(),
            text: BAD.to_owned(),
            reloc: None,
        });
    }
    lines
}

/// One instruction. `operand` stands in the place of what a wide load loads, or of what is called.
///
/// Loads whose faults are handled look like any other, as bpftool shows them.
pub(crate) fn text(instruction: Instruction, operand: Option<&str>) -> String {
    let insn = instruction.insn;
    let text = match insn.code & 7 {
        LD => load_wide(instruction, operand),
        LDX => load(insn),
        ST => store(insn),
        STX => store_register(insn),
        ALU | ALU64 => arithmetic(insn),
        _ => jump(insn, operand),
    };
    text.unwrap_or_else(|| BAD.to_owned())
}

// Classes.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;

/// `BPF_X`: the operand is a register.
const REGISTER: u8 = 0x08;

// Modes of loads and stores.
const MEM: u8 = 0x60;
const MEMSX: u8 = 0x80;
const PROBE_MEM: u8 = 0x20;
const PROBE_MEMSX: u8 = 0x40;
const ATOMIC: u8 = 0xc0;
/// With class `ST`.
const NOSPEC: u8 = 0xc0;

fn load_wide(instruction: Instruction, operand: Option<&str>) -> Option<String> {
    let value = instruction.wide()?;
    let insn = instruction.insn;
    let to = target(insn);
    Some(match operand {
        Some(operand) => format!("r{to} = {operand}"),
        None if insn.is_own_address() => format!("r{to} = function {}", insn.off),
        None => format!("r{to} = {value:#x}"),
    })
}

fn load(insn: Insn) -> Option<String> {
    let size = match insn.code & 0xe0 {
        MEM | PROBE_MEM => unsigned(insn),
        MEMSX | PROBE_MEMSX => signed(insn)?,
        _ => return None,
    };
    let (to, from) = (target(insn), insn.source());
    Some(format!("r{to} = *({size} *)(r{from} {:+})", insn.off))
}

fn store(insn: Insn) -> Option<String> {
    match insn.code & 0xe0 {
        MEM => Some(format!("{} = {}", place(insn), insn.imm)),
        NOSPEC => Some("nospec".to_owned()),
        _ => None,
    }
}

fn store_register(insn: Insn) -> Option<String> {
    let from = insn.source();
    match insn.code & 0xe0 {
        MEM => Some(format!("{} = r{from}", place(insn))),
        ATOMIC => atomic(insn),
        _ => None,
    }
}

fn atomic(insn: Insn) -> Option<String> {
    const FETCH: i32 = 1;
    let from = insn.source();
    let (size, to) = (unsigned(insn), target(insn));
    let bits = if size == "u64" { "64" } else { "" };
    let pointer = format!("({size} *)(r{to} {:+})", insn.off);
    let (sign, word) = match insn.imm & !FETCH {
        0x00 => ("+=", "add"),
        0x40 => ("|=", "or"),
        0x50 => ("&=", "and"),
        0xa0 => ("^=", "xor"),
        0xe0 if insn.imm & FETCH != 0 => {
            return Some(format!("r{from} = atomic{bits}_xchg({pointer}, r{from})"));
        }
        0xf0 if insn.imm & FETCH != 0 => {
            return Some(format!("r0 = atomic{bits}_cmpxchg({pointer}, r0, r{from})"));
        }
        _ => return None,
    };
    Some(match insn.imm & FETCH {
        0 => format!("lock {} {sign} r{from}", place(insn)),
        _ => format!("r{from} = atomic{bits}_fetch_{word}({pointer}, r{from})"),
    })
}

fn arithmetic(insn: Insn) -> Option<String> {
    /// `BPF_ADDR_PERCPU`, which stands in `off`.
    const PERCPU: i16 = -1;
    let is_wide = insn.code & 7 == ALU64;
    let prefix = if is_wide { 'r' } else { 'w' };
    let (to, from) = (target(insn), insn.source());
    let is_signed = insn.off == 1;
    let sign = match insn.code & 0xf0 {
        0x00 => "+=",
        0x10 => "-=",
        0x20 => "*=",
        0x30 if is_signed => "s/=",
        0x30 => "/=",
        0x40 => "|=",
        0x50 => "&=",
        0x60 => "<<=",
        0x70 => ">>=",
        0x80 => return Some(format!("{prefix}{to} = -{prefix}{to}")),
        0x90 if is_signed => "s%=",
        0x90 => "%=",
        0xa0 => "^=",
        0xb0 => "=",
        0xc0 => "s>>=",
        0xd0 => {
            let how = match (is_wide, insn.code & REGISTER) {
                (true, _) => "bswap",
                (false, REGISTER) => "be",
                (false, _) => "le",
            };
            return Some(format!("r{to} = {how}{} r{to}", insn.imm));
        }
        _ => return None,
    };
    if insn.code & REGISTER == 0 {
        return Some(format!("{prefix}{to} {sign} {}", insn.imm));
    }
    let extended = match (insn.code & 0xf0, insn.off) {
        (0xb0, PERCPU) if is_wide => {
            return Some(format!("r{to} = &(void __percpu *)(r{from})"));
        }
        (0xb0, 8) => "(s8)",
        (0xb0, 16) => "(s16)",
        (0xb0, 32) => "(s32)",
        _ => "",
    };
    Some(format!("{prefix}{to} {sign} {extended}{prefix}{from}"))
}

fn jump(insn: Insn, operand: Option<&str>) -> Option<String> {
    const JA: u8 = 0x00;
    const CALL: u8 = 0x80;
    const EXIT: u8 = 0x90;
    let class = insn.code & 7;
    let prefix = if class == JMP { 'r' } else { 'w' };
    let sign = match (class, insn.code & 0xf0) {
        (JMP, JA) => return Some(format!("goto pc{:+}", insn.off)),
        (JMP32, JA) => return Some(format!("gotol pc{:+}", insn.imm)),
        (JMP, CALL) => return Some(call(insn, operand)),
        (JMP, EXIT) => return Some("exit".to_owned()),
        (JMP, _) if insn.code == Insn::TAIL_CALL => {
            return Some(match operand {
                Some(operand) => format!("call bpf_tail_call, {operand}"),
                None => "call bpf_tail_call".to_owned(),
            });
        }
        (_, 0x10) => "==",
        (_, 0x20) => ">",
        (_, 0x30) => ">=",
        (_, 0x40) => "&",
        (_, 0x50) => "!=",
        (_, 0x60) => "s>",
        (_, 0x70) => "s>=",
        (_, 0xa0) => "<",
        (_, 0xb0) => "<=",
        (_, 0xc0) => "s<",
        (_, 0xd0) => "s<=",
        _ => return None,
    };
    let (to, off) = (target(insn), insn.off);
    Some(match insn.code & REGISTER {
        0 => format!("if {prefix}{to} {sign} {:#x} goto pc{off:+}", insn.imm),
        _ => {
            let from = insn.source();
            format!("if {prefix}{to} {sign} {prefix}{from} goto pc{off:+}")
        }
    })
}

fn call(insn: Insn, operand: Option<&str>) -> String {
    match operand {
        Some(operand) => format!("call {operand}"),
        None if insn.is_own_call() => format!("call function {}", insn.off),
        None => {
            let sign = if insn.imm < 0 { '-' } else { '+' };
            format!("call __bpf_call_base{sign}{:#x}", insn.imm.unsigned_abs())
        }
    }
}

fn place(insn: Insn) -> String {
    format!("*({} *)(r{} {:+})", unsigned(insn), target(insn), insn.off)
}

fn target(insn: Insn) -> u8 {
    insn.registers & 0xf
}

fn unsigned(insn: Insn) -> &'static str {
    match insn.code & 0x18 {
        0x00 => "u32",
        0x08 => "u16",
        0x10 => "u8",
        _ => "u64",
    }
}

fn signed(insn: Insn) -> Option<&'static str> {
    match insn.code & 0x18 {
        0x00 => Some("s32"),
        0x08 => Some("s16"),
        0x10 => Some("s8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{instructions, parse};

    fn shown(bytes: [u8; 8]) -> String {
        let insns = parse(&bytes);
        text(instructions(&insns).next().unwrap(), None)
    }

    /// Bytes and text from `bpftool prog dump xlated opcodes` and the kernel's `print_bpf_insn()`.
    #[test]
    fn instructions_read_as_in_bpftool() {
        for (bytes, expected) in [
            ([0xbf, 0x16, 0, 0, 0, 0, 0, 0], "r6 = r1"),
            ([0xbc, 0x16, 0, 0, 0, 0, 0, 0], "w6 = w1"),
            ([0xbf, 0x21, 8, 0, 0, 0, 0, 0], "r1 = (s8)r2"),
            (
                [0xbf, 0x21, 0xff, 0xff, 0, 0, 0, 0],
                "r1 = &(void __percpu *)(r2)",
            ),
            ([0xb7, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff], "r0 = -2"),
            ([0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff], "r2 += -4"),
            ([0x37, 0x02, 1, 0, 3, 0, 0, 0], "r2 s/= 3"),
            ([0x9f, 0x32, 0, 0, 0, 0, 0, 0], "r2 %= r3"),
            ([0xc4, 0x02, 0, 0, 7, 0, 0, 0], "w2 s>>= 7"),
            ([0x87, 0x03, 0, 0, 0, 0, 0, 0], "r3 = -r3"),
            ([0xdc, 0x03, 0, 0, 16, 0, 0, 0], "r3 = be16 r3"),
            ([0xd4, 0x03, 0, 0, 32, 0, 0, 0], "r3 = le32 r3"),
            ([0xd7, 0x03, 0, 0, 64, 0, 0, 0], "r3 = bswap64 r3"),
            ([0x79, 0x63, 8, 0, 0, 0, 0, 0], "r3 = *(u64 *)(r6 +8)"),
            ([0x39, 0x63, 8, 0, 0, 0, 0, 0], "r3 = *(u64 *)(r6 +8)"),
            ([0x91, 0x63, 0xff, 0xff, 0, 0, 0, 0], "r3 = *(s8 *)(r6 -1)"),
            (
                [0x6b, 0x3a, 0xfc, 0xff, 0, 0, 0, 0],
                "*(u16 *)(r10 -4) = r3",
            ),
            ([0x62, 0x0a, 0xfc, 0xff, 5, 0, 0, 0], "*(u32 *)(r10 -4) = 5"),
            ([0xc2, 0, 0, 0, 0, 0, 0, 0], "nospec"),
            ([0xdb, 0x10, 0, 0, 0, 0, 0, 0], "lock *(u64 *)(r0 +0) += r1"),
            (
                [0xdb, 0x10, 0, 0, 1, 0, 0, 0],
                "r1 = atomic64_fetch_add((u64 *)(r0 +0), r1)",
            ),
            (
                [0xc3, 0x10, 0, 0, 0xe1, 0, 0, 0],
                "r1 = atomic_xchg((u32 *)(r0 +0), r1)",
            ),
            (
                [0xdb, 0x12, 4, 0, 0xf1, 0, 0, 0],
                "r0 = atomic64_cmpxchg((u64 *)(r2 +4), r0, r1)",
            ),
            ([0x05, 0, 0xfe, 0xff, 0, 0, 0, 0], "goto pc-2"),
            ([0x06, 0, 0, 0, 0, 0, 1, 0], "gotol pc+65536"),
            ([0x15, 0x01, 3, 0, 5, 0, 0, 0], "if r1 == 0x5 goto pc+3"),
            (
                [0x56, 0x01, 3, 0, 0xff, 0xff, 0xff, 0xff],
                "if w1 != 0xffffffff goto pc+3",
            ),
            ([0xdd, 0x21, 3, 0, 0, 0, 0, 0], "if r1 s<= r2 goto pc+3"),
            ([0x85, 0x10, 2, 0, 0, 0, 0, 0], "call function 2"),
            (
                [0x85, 0, 0, 0, 0x40, 0x23, 1, 0],
                "call __bpf_call_base+0x12340",
            ),
            ([0xf5, 0, 0, 0, 1, 0, 0, 0], "call bpf_tail_call"),
            ([0x95, 0, 0, 0, 0, 0, 0, 0], "exit"),
            // Half a wide load, a jump and an operation that nobody knows, an arena's store.
            ([0x18, 1, 0, 0, 0, 0, 0, 0], "(bad)"),
            ([0xe6, 0, 0, 0, 0, 0, 0, 0], "(bad)"),
            ([0xe7, 0, 0, 0, 0, 0, 0, 0], "(bad)"),
            ([0xa3, 0, 0, 0, 0, 0, 0, 0], "(bad)"),
        ] {
            assert_eq!(shown(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn wide_loads_are_one_instruction() {
        let insns = parse(&[
            0x18, 0x11, 0, 0, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0,
            0, 0,
        ]);
        let texts = |operand| -> Vec<String> {
            let instructions = instructions(&insns);
            instructions.map(|found| text(found, operand)).collect()
        };
        assert_eq!(texts(None), ["r1 = 0x112345678", "exit"]);
        assert_eq!(texts(Some("map 3")), ["r1 = map 3", "exit"]);
    }

    /// Whatever the bytes are, they are shown.
    #[test]
    fn every_opcode_has_a_text() {
        for code in 0..=u8::MAX {
            for rest in [0, 0x55, 0xff] {
                assert!(!shown([code, rest, rest, rest, rest, rest, rest, rest]).is_empty());
            }
        }
    }
}
