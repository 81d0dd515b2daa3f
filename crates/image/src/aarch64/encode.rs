//! Instructions as the kernel's JIT emits them.

/// How far `bl` reaches, in bytes.
const REACH: i64 = 128 << 20;

/// What a wide move does to the rest of the register.
#[derive(Clone, Copy)]
enum Rest {
    /// `movn`: ones, and the block is inverted.
    Ones,
    /// `movz`: zeroes.
    Zeroes,
    /// `movk`: it stays.
    Kept,
}

/// `bl` at `place` (`emit_direct_call()`); none if it cannot reach the target.
pub(crate) fn call(place: u64, target: u64) -> Option<u32> {
    let distance = target.wrapping_sub(place).cast_signed();
    if !(-REACH..REACH).contains(&distance) || distance % 4 != 0 {
        return None;
    }
    let distance = u32::try_from((distance >> 2).cast_unsigned() & 0x03ff_ffff).ok()?;
    Some(0x9400_0000 | distance)
}

/// Sets a register to an address of the kernel (`emit_addr_mov_i64()`); none if it is not one, because
/// its 16 highest bits are not ones.
pub(crate) fn address(register: u32, value: u64) -> Option<[u32; 3]> {
    let [first, second, third, 0xffff] = blocks(value) else {
        return None;
    };
    Some([
        wide_move(true, Rest::Ones, register, first, 0),
        wide_move(true, Rest::Kept, register, second, 1),
        wide_move(true, Rest::Kept, register, third, 2),
    ])
}

/// Sets a register to a value (`emit_a64_mov_i64()`), by one to four instructions.
pub(crate) fn value(register: u32, value: u64) -> Vec<u32> {
    if let Ok(low) = u32::try_from(value) {
        return constant(false, register, low.cast_signed());
    }
    let blocks = blocks(value);
    let others = |rest: u16| blocks.iter().filter(|&&block| block != rest).count();
    let (rest, common) = match others(0xffff) < others(0) {
        true => (Rest::Ones, 0xffff),
        false => (Rest::Zeroes, 0),
    };
    let first = blocks.iter().rposition(|&block| block != common);
    let first = first.unwrap_or(0);
    let mut words = vec![wide_move(true, rest, register, blocks[first], first)];
    for index in (0..first).rev().filter(|&index| blocks[index] != common) {
        words.push(wide_move(true, Rest::Kept, register, blocks[index], index));
    }
    words
}

/// Sets a register, of 64 or 32 bits, to a constant (`emit_a64_mov_i()`), by one or two instructions.
pub(crate) fn constant(is64: bool, register: u32, value: i32) -> Vec<u32> {
    let [low, high, ..] = blocks(i64::from(value).cast_unsigned());
    let wide_move = |rest, block, index| wide_move(is64, rest, register, block, index);
    match high {
        0xffff => vec![wide_move(Rest::Ones, low, 0)],
        0x8000.. if low == 0xffff => vec![wide_move(Rest::Ones, high, 1)],
        0x8000.. => vec![
            wide_move(Rest::Ones, high, 1),
            wide_move(Rest::Kept, low, 0),
        ],
        0 => vec![wide_move(Rest::Zeroes, low, 0)],
        _ => vec![
            wide_move(Rest::Zeroes, low, 0),
            wide_move(Rest::Kept, high, 1),
        ],
    }
}

/// `movn`, `movz` or `movk` of the 16 bits that are to stand in a block of the register.
fn wide_move(is64: bool, rest: Rest, register: u32, block: u16, index: usize) -> u32 {
    let (opcode, immediate) = match rest {
        Rest::Ones => (0x1280_0000, !block),
        Rest::Zeroes => (0x5280_0000, block),
        Rest::Kept => (0x7280_0000, block),
    };
    let shift = [0, 1 << 21, 2 << 21, 3 << 21][index];
    u32::from(is64) << 31 | opcode | shift | u32::from(immediate) << 5 | register & 31
}

/// 16 bits each, the lowest first.
fn blocks(value: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}
