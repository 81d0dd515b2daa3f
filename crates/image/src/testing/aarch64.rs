//! 64-bit Arm. Written as the kernel's source is, and not as this crate's own encoder.

use preverify_abi::image::Extable;

use super::Jit;

/// `x10`, which addresses of calls are put into.
const TMP: u32 = 10;

const NOP: u32 = 0xd503_201f;

pub(super) struct Aarch64;

impl Jit for Aarch64 {
    fn start(&self, code: &mut Vec<u8>) {
        emit(
            code,
            &[
                0xaa1e_03e9, // mov x9, x30
                NOP,
                0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
                0x9100_03fd, // mov x29, sp
                0xa9bf_6bff, // stp xzr, x26, [sp, #-16]!
                0x9100_03fa, // mov x26, sp
                0xf940_0007, // ldr x7, [x0]
            ],
        );
    }

    fn end(&self, code: &mut Vec<u8>) {
        emit(
            code,
            &[
                0xa8c1_6bff, // ldp xzr, x26, [sp], #16
                0xa8c1_7bfd, // ldp x29, x30, [sp], #16
                0xaa07_03e0, // mov x0, x7
                0xd65f_03c0, // ret
            ],
        );
        if !code.len().is_multiple_of(8) {
            emit(code, &[NOP]);
        }
        // ldr x10, .+8; br x10
        emit(code, &[0x5800_004a, 0xd61f_0140]);
    }

    fn exception(&self) -> Extable {
        Extable {
            offset: 24.into(),
            fixup: (7 << 27).into(),
            data: 1.into(),
            reserved: 0.into(),
        }
    }

    fn call(&self, code: &mut Vec<u8>, start: u64, target: u64) {
        let distance = target.wrapping_sub(start + code.len() as u64).cast_signed();
        if (-0x800_0000..0x800_0000).contains(&distance) {
            let distance = u32::try_from(distance >> 2 & 0x3ff_ffff).unwrap();
            emit(code, &[0x9400_0000 | distance]);
        } else {
            emit_addr_mov_i64(code, TMP, target);
            emit(code, &[0xd63f_0140]); // blr x10
        }
        emit(code, &[0xaa00_03e7]); // mov x7, x0
    }

    fn thunk(&self, _: &mut Vec<u8>, _: u64, _: u64) {
        panic!("there are no thunks on arm64");
    }

    fn load(&self, code: &mut Vec<u8>, value: u64) {
        emit_a64_mov_i64(code, 0, value);
    }

    fn load_function(&self, code: &mut Vec<u8>, address: u64) {
        emit_addr_mov_i64(code, 0, address);
    }

    fn set(&self, code: &mut Vec<u8>, value: i32) {
        emit_a64_mov_i(code, true, 0, value);
    }

    fn call_depth(&self, _: &mut Vec<u8>, _: u64, _: u32) {
        panic!("calls are not counted on arm64");
    }

    /// As `emit_bpf_tail_call()` does, checks left out: nothing of it is ever patched.
    fn tail_call(&self, code: &mut Vec<u8>, _: u64) -> [u64; 3] {
        emit_a64_mov_i64(code, TMP, 0x24);
        emit(
            code,
            &[
                0xb86a_682a, // ldr w10, [x1, x10]
                0x6b0a_005f, // cmp w2, w10
                0x5400_0062, // b.cs .+12
                0x9100_714a, // add x10, x10, #0x1c
                0xd61f_0140, // br x10
            ],
        );
        [0; 3]
    }
}

pub(crate) fn emit(code: &mut Vec<u8>, words: &[u32]) {
    code.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn wide(code: &mut Vec<u8>, opcode: u32, is64: bool, register: u32, immediate: u64, shift: u32) {
    assert!(immediate <= 0xffff);
    let immediate = u32::try_from(immediate).unwrap();
    let word = u32::from(is64) << 31 | opcode | ((shift / 16) << 21) | immediate << 5 | register;
    emit(code, &[word]);
}

const MOVN: u32 = 0x1280_0000;
const MOVZ: u32 = 0x5280_0000;
const MOVK: u32 = 0x7280_0000;

pub(crate) fn emit_addr_mov_i64(code: &mut Vec<u8>, register: u32, value: u64) {
    let mut tmp = value;
    let mut shift = 0;
    wide(code, MOVN, true, register, !tmp & 0xffff, shift);
    while shift < 32 {
        tmp >>= 16;
        shift += 16;
        wide(code, MOVK, true, register, tmp & 0xffff, shift);
    }
}

pub(crate) fn emit_a64_mov_i(code: &mut Vec<u8>, is64: bool, register: u32, value: i32) {
    let value = u64::from(value.cast_unsigned());
    let (hi, lo) = (value >> 16, value & 0xffff);
    if hi & 0x8000 != 0 {
        if hi == 0xffff {
            wide(code, MOVN, is64, register, !lo & 0xffff, 0);
        } else {
            wide(code, MOVN, is64, register, !hi & 0xffff, 16);
            if lo != 0xffff {
                wide(code, MOVK, is64, register, lo, 0);
            }
        }
    } else {
        wide(code, MOVZ, is64, register, lo, 0);
        if hi != 0 {
            wide(code, MOVK, is64, register, hi, 16);
        }
    }
}

fn i64_i16_blocks(value: u64, inverse: bool) -> u32 {
    let common = if inverse { 0xffff } else { 0 };
    [0, 16, 32, 48]
        .iter()
        .map(|shift| u32::from(value >> shift & 0xffff != common))
        .sum()
}

pub(crate) fn emit_a64_mov_i64(code: &mut Vec<u8>, register: u32, value: u64) {
    let (nrm_tmp, rev_tmp) = (value, !value);
    if nrm_tmp >> 32 == 0 {
        let low = u32::try_from(value).unwrap().cast_signed();
        return emit_a64_mov_i(code, false, register, low);
    }
    let inverse = i64_i16_blocks(nrm_tmp, true) < i64_i16_blocks(nrm_tmp, false);
    let tmp = if inverse { rev_tmp } else { nrm_tmp };
    let fls64 = 64 - i32::try_from(tmp.leading_zeros()).unwrap();
    let mut shift = ((fls64 - 1) & !15).max(0);
    let block = |value: u64, shift: i32| value >> shift & 0xffff;
    let opcode = if inverse { MOVN } else { MOVZ };
    wide(
        code,
        opcode,
        true,
        register,
        block(tmp, shift),
        shift.cast_unsigned(),
    );
    shift -= 16;
    while shift >= 0 {
        if block(nrm_tmp, shift) != if inverse { 0xffff } else { 0 } {
            wide(
                code,
                MOVK,
                true,
                register,
                block(nrm_tmp, shift),
                shift.cast_unsigned(),
            );
        }
        shift -= 16;
    }
}
