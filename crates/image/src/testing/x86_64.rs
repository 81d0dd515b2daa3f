//! 64-bit x86.

use preverify_abi::image::Extable;

use super::Jit;

pub(super) struct X86;

impl Jit for X86 {
    fn start(&self, code: &mut Vec<u8>) {
        // nop5; push rbp; mov rbp, rsp
        code.extend([0x0f, 0x1f, 0x44, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5]);
    }

    fn end(&self, code: &mut Vec<u8>) {
        // leave; ret; int3
        code.extend([0xc9, 0xc3, 0xcc]);
    }

    fn exception(&self) -> Extable {
        Extable {
            offset: 5.into(),
            fixup: 0x5003.into(),
            data: 7.into(),
            reserved: 0.into(),
        }
    }

    fn call(&self, code: &mut Vec<u8>, start: u64, target: u64) {
        branch(code, start, 0xe8, target);
    }

    fn thunk(&self, code: &mut Vec<u8>, start: u64, target: u64) {
        branch(code, start, 0xe9, target);
    }

    /// As `emit_mov_imm64()` does for `rdi`.
    fn load(&self, code: &mut Vec<u8>, value: u64) {
        if let Ok(low) = u32::try_from(value) {
            code.push(0xbf);
            code.extend(low.to_le_bytes());
        } else if i32::try_from(value.cast_signed()).is_ok() {
            code.extend([0x48, 0xc7, 0xc7]);
            word(code, value);
        } else {
            code.extend([0x48, 0xbf]);
            code.extend(value.to_le_bytes());
        }
    }

    fn load_function(&self, code: &mut Vec<u8>, address: u64) {
        self.load(code, address);
    }

    fn set(&self, code: &mut Vec<u8>, value: i32) {
        self.load(code, i64::from(value).cast_unsigned());
    }

    fn call_depth(&self, code: &mut Vec<u8>, start: u64, variable: u32) {
        code.extend([0x65, 0x48, 0xc1, 0x3d]);
        let end = position(code, start) + 5;
        word(code, u64::from(variable).wrapping_sub(end));
        code.push(0x05);
    }

    /// As `emit_bpf_tail_call_direct()` does, after the checks of the counter.
    fn tail_call(&self, code: &mut Vec<u8>, start: u64) -> [u64; 3] {
        let bypass = position(code, start);
        let target = bypass + 5 + 6;
        branch(code, start, 0xe9, target + 5);
        code.extend([0x48, 0x83, 0x00, 0x01, 0x58, 0x58]);
        code.extend([0x0f, 0x1f, 0x44, 0x00, 0x00]);
        [target, bypass, target + 5]
    }
}

fn position(code: &[u8], start: u64) -> u64 {
    start + code.len() as u64
}

/// The low four bytes of a number that fits, sign-extended.
fn word(code: &mut Vec<u8>, value: u64) {
    let word = i32::try_from(value.cast_signed()).unwrap();
    code.extend(word.to_le_bytes());
}

fn branch(code: &mut Vec<u8>, start: u64, opcode: u8, target: u64) {
    code.push(opcode);
    let end = position(code, start) + 4;
    word(code, target.wrapping_sub(end));
}
