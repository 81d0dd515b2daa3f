//! The two places of a direct tail call that the kernel patches.

/// What stands at `tailcall_target` as long as the prog array has no program there: `nop5`.
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// The opcode of the jump at `tailcall_bypass`, which goes around the tail call.
const JUMP: u8 = 0xe9;

/// Bytes of a place that is patched.
const SIZE: usize = 5;

/// Whether a direct tail call is as the JIT writes it, patched by nobody.
pub(crate) fn is_pristine(code: &[u8], target: u32, bypass: u32, bypass_target: u32) -> bool {
    let check = || {
        let [target, bypass, end] = [target, bypass, bypass_target].map(usize::try_from);
        let (target, bypass, end) = (target.ok()?, bypass.ok()?, end.ok()?);
        if code.get(target..target.checked_add(SIZE)?)? != NOP || target + SIZE != end {
            return None;
        }
        let (&opcode, distance) = code.get(bypass..bypass.checked_add(SIZE)?)?.split_first()?;
        let distance = i32::from_le_bytes(*distance.first_chunk()?);
        let goes_to = i64::try_from(bypass + SIZE).ok()? + i64::from(distance);
        Some(opcode == JUMP && goes_to == i64::try_from(end).ok()?)
    };
    check() == Some(true)
}
