//! Numbers of the kernel's types that programs hold: another build counts its types otherwise.
//!
//! They are mostly there for `bpf_rdonly_cast`, which asks the verifier for a type and leaves nothing behind. Whatever else
//! is done with one would be done with another type's on devices.

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use preverify_btf::{Btf, Comparison, Kind, TypeNumber, without_flavour};
use preverify_image::export::Insn;

use super::MismatchReason;

/// Bytes of an instruction.
const INSN_SIZE: usize = 8;
/// `r2 = number`, in one instruction or in two.
const MOVES: [u8; 3] = [0xb7, 0xb4, Insn::LD_IMM64];
/// The register of a function's second argument.
const SECOND_ARGUMENT: u8 = 2;
/// The function that the verifier alone asks for a type.
const CAST: &str = "bpf_rdonly_cast";

/// The numbers that are others in the kernel of devices, and matter there.
pub(super) fn of_object(
    file: &object::File<'_>,
    own: &Btf,
    comparison: &Comparison<'_>,
) -> Result<Vec<MismatchReason>, String> {
    let Some(section) = file.section_by_name(".BTF.ext") else {
        return Ok(Vec::new());
    };
    let bytes = section.data().map_err(|error| error.to_string())?;
    let numbers = own
        .type_numbers(bytes)
        .ok_or("its section .BTF.ext cannot be read")?;
    let matter = numbers
        .into_iter()
        .filter(|number| !is_for_cast(file, number));
    Ok(matter
        .filter_map(|number| difference(number.named, comparison))
        .collect())
}

fn difference(named: Option<(Kind, &str)>, comparison: &Comparison<'_>) -> Option<MismatchReason> {
    let Some((kind, name)) = named else {
        return Some(MismatchReason::NamelessNumber);
    };
    let name = without_flavour(name);
    let [verifier, device] = [comparison.verifier(), comparison.device()]
        .map(|kernel| kernel.find(kind, name).first().copied());
    (verifier != device).then(|| MismatchReason::Number {
        kind,
        name: name.to_owned(),
        verifier: verifier.unwrap_or(0),
        device: device.unwrap_or(0),
    })
}

/// Whether a number goes to a cast and nowhere else.
fn is_for_cast(file: &object::File<'_>, number: &TypeNumber<'_>) -> bool {
    let Some(section) = file.section_by_name(number.section) else {
        return false;
    };
    let Some(call) = section
        .data()
        .ok()
        .and_then(|code| call_with(code, number.offset))
    else {
        return false;
    };
    section
        .relocations()
        .filter(|(offset, _)| *offset == call)
        .any(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(symbol) => file
                .symbol_by_index(symbol)
                .and_then(|symbol| symbol.name())
                .is_ok_and(|name| name == CAST),
            _ => false,
        })
}

/// The call whose second argument an instruction sets: none if anything between them might use it. Calls leave no arguments
/// behind.
fn call_with(code: &[u8], setting: u32) -> Option<u64> {
    let (insns, _) = code.as_chunks::<INSN_SIZE>();
    let setting = usize::try_from(setting).ok()? / INSN_SIZE;
    let [operation, registers, ..] = insns.get(setting)?;
    if !MOVES.contains(operation) || registers & 15 != SECOND_ARGUMENT {
        return None;
    }
    let mut rest = insns.iter().enumerate().skip(setting + 1);
    if *operation == Insn::LD_IMM64 {
        rest.next()?;
    }
    while let Some((index, [operation, registers, ..])) = rest.next() {
        if *operation == Insn::CALL {
            return u64::try_from(index * INSN_SIZE).ok();
        }
        let jumps = matches!(operation & 7, 5 | 6);
        if jumps || [registers & 15, registers >> 4].contains(&SECOND_ARGUMENT) {
            return None;
        }
        if *operation == Insn::LD_IMM64 {
            rest.next()?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use preverify_btf::testing::Builder;

    use super::*;

    const MOVE: [u8; 8] = [0xb7, 2, 0, 0, 9, 0, 0, 0];
    const HALVES: [[u8; 8]; 2] = [[Insn::LD_IMM64, 2, 0, 0, 9, 0, 0, 0], [0; 8]];
    const CALLS: [u8; 8] = [Insn::CALL, 0x20, 0, 0, 0xff, 0xff, 0xff, 0xff];

    #[test]
    fn the_call_that_takes_a_number_is_found() {
        // r1 = r6, r3 = 5, r3 = 5 in two instructions.
        let copies = [0xbf, 0x61, 0, 0, 0, 0, 0, 0];
        let others = [
            [0xb7, 3, 0, 0, 5, 0, 0, 0],
            [Insn::LD_IMM64, 3, 0, 0, 5, 0, 0, 0],
            [0, 0x20, 0, 0, 0, 0, 0, 0],
        ];
        let code = [&[copies, MOVE, copies][..], &others, &[CALLS]]
            .concat()
            .concat();
        assert_eq!(call_with(&code, 8), Some(48));
        assert_eq!(call_with(&code, 0), None);
        let code = [&HALVES[..], &[copies, CALLS]].concat().concat();
        assert_eq!(call_with(&code, 0), Some(24));
    }

    #[test]
    fn what_else_may_be_done_with_a_number_is_seen() {
        for between in [
            // *(u32 *)(r1 + 0) = r2, r7 = r2, r2 = r2 + 1, if r0 == 0 goto, goto, exit.
            [0x63, 0x21, 0, 0, 0, 0, 0, 0],
            [0xbf, 0x27, 0, 0, 0, 0, 0, 0],
            [0x07, 2, 0, 0, 1, 0, 0, 0],
            [0x15, 0, 1, 0, 0, 0, 0, 0],
            [0x05, 0, 1, 0, 0, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(
                call_with(&[MOVE, between, CALLS].concat(), 0),
                None,
                "{between:x?}"
            );
        }
        // Another register, no move, no call, nothing.
        let mut other = MOVE;
        other[1] = 3;
        assert_eq!(call_with(&[other, CALLS].concat(), 0), None);
        assert_eq!(call_with(&[CALLS, CALLS].concat(), 0), None);
        assert_eq!(call_with(&MOVE, 0), None);
        assert_eq!(call_with(&HALVES[0], 0), None);
        assert_eq!(call_with(&MOVE, 80), None);
    }

    #[test]
    fn numbers_are_compared_by_what_the_types_are_called() {
        let kernel = |before: &[&str]| {
            let mut types = Builder::default();
            for name in before {
                types.composite(Kind::Struct, name, 8, &[]);
            }
            types.composite(Kind::Struct, "sock", 8, &[]);
            types.btf()
        };
        let (ours, theirs) = (kernel(&["a", "b"]), kernel(&["b"]));
        let comparison = Comparison::new(&ours, &theirs);
        let of = |name| {
            difference(Some((Kind::Struct, name)), &comparison).map(|reason| reason.to_string())
        };
        let reason = of("sock___mine").unwrap();
        assert!(
            reason.contains("struct sock") && reason.contains("3") && reason.contains("2"),
            "{reason}"
        );
        assert!(of("a").unwrap().contains("0"));
        assert_eq!(of("unknown"), None);
        assert!(difference(None, &comparison).is_some());
        let comparison = Comparison::new(&ours, &ours);
        assert!(difference(Some((Kind::Struct, "sock")), &comparison).is_none());
    }
}
