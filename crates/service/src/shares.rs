//! Into how many shares an object's programs are divided, so that several workers verify them at the same time.

use preverify_pipeline::separable_programs;

/// So many programs are worth a verifier of their own.
const PROGRAMS: usize = 20;
/// The most shares of an object.
const MOST: usize = 8;

/// In how many shares an object's programs are verified. That depends on the object alone: whoever submits it again finds
/// the same shares.
pub fn shares(elf: &[u8]) -> u32 {
    let shares = separable_programs(elf) / PROGRAMS;
    u32::try_from(shares.clamp(1, MOST)).expect("it is a small number")
}
