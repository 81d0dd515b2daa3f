use proptest::prelude::*;

use super::super::tests::program;
use crate::export::{Export, Insn};
use crate::image::{Form, Image, Machine, Reloc, Symbol, Target};
use crate::testing::{
    Boot, HELPER, JIFFIES, Layout, MACHINES, Piece, SPAN, two_boots, two_boots_on,
};
use crate::{Capture, DiscoverError, discover_bytecode, prove};

fn discovered(functions: &[Vec<Piece>]) -> Result<Image, DiscoverError> {
    let [a, b] = two_boots(functions);
    discover_bytecode(a.capture(), b.capture())
}

/// In boots with these layouts.
fn between(layouts: [&Layout; 2], functions: &[Vec<Piece>]) -> Result<Image, DiscoverError> {
    let [a, b] = layouts.map(|layout| Boot::new(functions, layout));
    discover_bytecode(a.capture(), b.capture())
}

/// In boots that were changed in the same way.
fn changed(functions: &[Vec<Piece>], change: impl Fn(&mut Export)) -> Result<Image, DiscoverError> {
    let [mut a, mut b] = two_boots(functions);
    change(&mut a.export);
    change(&mut b.export);
    discover_bytecode(a.capture(), b.capture())
}

fn insns(image: &Image, function: usize) -> Vec<Insn> {
    crate::bpf::parse(&image.functions[function].code)
}

fn reloc(insn: u32, form: Form, target: Target, addend: i64) -> Reloc {
    Reloc {
        offset: insn * 8,
        form,
        target,
        addend,
    }
}

/// Everything whose address bytecode can have.
fn addresses() -> Vec<Piece> {
    vec![
        Piece::Map(2),
        Piece::Value(1, 0x18),
        Piece::Symbol(JIFFIES),
        Piece::Aux,
        Piece::Helper(HELPER),
    ]
}

fn relocs_of_addresses() -> [Reloc; 5] {
    [
        reloc(0, Form::BpfImm64, Target::Map(2), 0),
        reloc(2, Form::BpfImm64, Target::MapValue(1), 0x18),
        reloc(4, Form::BpfImm64, Target::Symbol(1), 0),
        reloc(6, Form::BpfImm64, Target::ProgAux, 0),
        reloc(8, Form::BpfCall, Target::Symbol(0), 0),
    ]
}

#[test]
fn addresses_are_taken_out_and_the_rest_stays() {
    // With kinds of loads, and without.
    for functions in [vec![addresses(), vec![]], vec![addresses()]] {
        let image = discovered(&functions).unwrap();
        assert_eq!(image.machine, Machine::Bpf);
        assert_eq!(image.functions[0].relocs, relocs_of_addresses());
        assert_eq!(image.symbols[0].name(), "bpf_helper");
        assert_eq!(image.symbols[1].name(), "jiffies");
        let [boot, _] = two_boots(&functions);
        let kernel = &boot.export.functions[0].insns;
        let found = insns(&image, 0);
        assert_eq!(found.len(), kernel.len());
        for (found, kernel) in found.iter().zip(kernel) {
            assert_eq!(*found, Insn { imm: 0, ..*kernel });
        }
        assert!(image.functions.iter().all(|found| found.extable.is_empty()));
    }
}

#[test]
fn functions_of_the_program_are_numbers() {
    let image = discovered(&[
        vec![Piece::Call(2), Piece::Callback(1)],
        vec![],
        vec![Piece::Call(1)],
    ])
    .unwrap();
    assert!(image.functions.iter().all(|found| found.relocs.is_empty()));
    let main = insns(&image, 0);
    assert_eq!((main[0].off, main[0].imm), (2, 0));
    assert!(main[0].is_own_call());
    assert_eq!((main[1].source(), main[1].imm, main[2].imm), (4, 0, 0));
    // `off` is the function's number, as the kernel leaves it.
    assert_eq!(main[1].off, 1);
    assert_eq!((insns(&image, 2)[0].off, insns(&image, 2)[0].imm), (1, 0));
}

#[test]
fn functions_that_are_not_where_their_number_says_are_refused() {
    type Change = fn(&mut Export);
    let changes: [(&str, Change); 4] = [
        ("it is called as a function", |export| {
            export.functions[0].insns[0].imm += 64
        }),
        ("it is called as a function", |export| {
            export.functions[0].insns[0].off = 7
        }),
        ("it is loaded as a function", |export| {
            export.functions[0].insns[1].imm += 64
        }),
        ("it is loaded as a function", |export| {
            export.functions[0].insns[1].off = -1
        }),
    ];
    for (what, change) in changes {
        let functions = [vec![Piece::Call(1), Piece::Callback(1)], vec![]];
        let message = changed(&functions, change).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn loads_of_functions_that_the_verifier_removed_are_refused() {
    let error = changed(&[vec![Piece::Constant(0x5c)]], |export| {
        export.functions[0].insns[0].registers = 0x42;
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains("never called, and removed"), "{message}");
}

#[test]
fn constants_that_look_like_addresses_stay() {
    let [a, b] = [3, 17].map(Layout::new);
    for constant in [
        0xffff_c900_dead_0000,
        a.maps[0],
        b.values[2] + 8,
        a.text + JIFFIES,
        b.functions[1],
        a.aux,
        u64::MAX,
        0,
    ] {
        let piece = Piece::Constant(constant);
        for functions in [vec![vec![piece.clone()]], vec![vec![piece], vec![]]] {
            let image = discovered(&functions).unwrap();
            assert_eq!(image.functions[0].relocs, [], "{constant:#x}");
            let found = insns(&image, 0);
            let [low, high] = [0, 1].map(|half: usize| found[half].imm.cast_unsigned());
            assert_eq!(u64::from(high) << 32 | u64::from(low), constant);
        }
    }
}

#[test]
fn where_values_do_not_move_the_kind_decides() {
    // As on arm64, where the kernel puts values at the same addresses in all boots.
    let [a, mut b] = [3, 17].map(Layout::new);
    b.values.clone_from(&a.values);
    let value = a.values[1] + 0x18;
    let image = between([&a, &b], &[vec![Piece::Value(1, 0x18)], vec![]]).unwrap();
    let expected = reloc(0, Form::BpfImm64, Target::MapValue(1), 0x18);
    assert_eq!(image.functions[0].relocs, [expected]);

    // A constant and a pointer of the same value, told apart by their kinds.
    let both = vec![Piece::Constant(value), Piece::Value(1, 0x18)];
    let image = between([&a, &b], &[both.clone(), vec![]]).unwrap();
    let expected = reloc(2, Form::BpfImm64, Target::MapValue(1), 0x18);
    assert_eq!(image.functions[0].relocs, [expected]);
    let first = insns(&image, 0)[0].imm.cast_unsigned();
    assert_eq!(u64::from(first), value & u64::from(u32::MAX));

    // Where the kernel wiped the kinds, neither can be told.
    for functions in [
        both,
        vec![Piece::Constant(value)],
        vec![Piece::Value(1, 0x18)],
    ] {
        let error = between([&a, &b], &[functions]).unwrap_err();
        assert!(
            matches!(error, DiscoverError::SameAddress { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("boot again"), "{error}");
    }
}

#[test]
fn where_aux_does_not_move_nothing_can_tell() {
    let [a, mut b] = [3, 17].map(Layout::new);
    b.aux = a.aux;
    for functions in [vec![vec![Piece::Aux]], vec![vec![Piece::Aux], vec![]]] {
        let error = between([&a, &b], &functions).unwrap_err();
        assert!(
            matches!(error, DiscoverError::SameAddress { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("`r1 = 0xffff"), "{error}");
    }
}

#[test]
fn maps_that_change_places_are_two_maps() {
    // In the second boot, map 0 has the address that map 1 had in the first.
    let [a, mut b] = [3, 17].map(Layout::new);
    b.maps[0] = a.maps[1];
    for functions in [
        vec![vec![Piece::Map(0), Piece::Map(1)]],
        vec![vec![Piece::Map(0), Piece::Map(1)], vec![]],
    ] {
        let image = between([&a, &b], &functions).unwrap();
        assert_eq!(
            image.functions[0].relocs,
            [
                reloc(0, Form::BpfImm64, Target::Map(0), 0),
                reloc(2, Form::BpfImm64, Target::Map(1), 0),
            ]
        );
    }
}

#[test]
fn loads_that_are_not_of_their_kind_are_refused() {
    for kind in [2, 3, 4, 5, 6, 7] {
        let functions = [vec![Piece::Map(0)], vec![]];
        let found = changed(&functions, |export| {
            export.functions[0].insns[0].registers = kind << 4 | 1;
        });
        match kind {
            // A map by its place in the list of maps, not by its descriptor.
            5 => assert_eq!(found.unwrap().functions[0].relocs.len(), 1),
            _ => assert!(found.is_err(), "{kind}"),
        }
    }
    // A constant, of which the kernel says that it is a map.
    let functions = [vec![Piece::Constant(0xffff_8880_1234_5678)], vec![]];
    let error = changed(&functions, |export| {
        export.functions[0].insns[0].registers = 0x11;
    });
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("the verifier says that it is a map"),
        "{message}"
    );
    // Behind the last byte of a map's values.
    let error = discovered(&[vec![Piece::Value(1, SPAN)], vec![]]).unwrap_err();
    assert!(
        matches!(error, DiscoverError::UnknownAddress { .. }),
        "{error}"
    );
}

#[test]
fn per_cpu_variables_are_the_same_in_all_boots() {
    let functions = [vec![Piece::Constant(0x2_d460)], vec![]];
    let image = changed(&functions, |export| {
        export.functions[0].insns[0].registers = 0x31;
    });
    let image = image.unwrap();
    assert_eq!(image.functions[0].relocs, []);
    assert_eq!(insns(&image, 0)[0].imm, 0x2_d460);
}

#[test]
fn pointers_of_the_verifiers_own_are_refused() {
    for functions in [vec![vec![Piece::Stray]], vec![vec![Piece::Stray], vec![]]] {
        let message = discovered(&functions).unwrap_err().to_string();
        assert!(
            message.contains("function 0, offset 0x0, `r1 = 0xffff"),
            "{message}"
        );
        assert!(message.contains("bpf_obj_new"), "{message}");
    }
}

#[test]
fn pointers_of_the_verifiers_own_are_found_even_if_they_do_not_move() {
    let pointer = Piece::Constant(0xffff_8880_1234_5678);
    let refused = [
        vec![pointer.clone(), Piece::ModuleCall],
        // As in front of `bpf_rbtree_add_impl()`.
        vec![pointer.clone(), Piece::Move(8), Piece::ModuleCall],
    ];
    let fine = [
        // Not in front of a kernel function.
        vec![pointer.clone(), Piece::Helper(HELPER), Piece::ModuleCall],
        // Without special fields, there is no pointer.
        vec![Piece::Constant(0), Piece::ModuleCall],
        // What is known is no such pointer.
        vec![Piece::Map(0), Piece::ModuleCall],
    ];
    for pieces in refused {
        for functions in [vec![pieces.clone()], vec![pieces, vec![]]] {
            let message = discovered(&functions).unwrap_err().to_string();
            assert!(message.contains("bpf_obj_new"), "{message}");
            let [a, b] = two_boots(&functions);
            let error = crate::discover(a.capture(), b.capture()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
    for pieces in fine {
        discovered(&[pieces.clone(), vec![]]).unwrap();
        discovered(&[pieces]).unwrap();
    }
}

#[test]
fn calls_go_to_the_same_function_of_the_kernel_in_both_boots() {
    let image = discovered(&[vec![Piece::ModuleCall]]).unwrap();
    let expected = Symbol::Module {
        name: "testmod:function".to_owned(),
        offset: 0,
    };
    assert_eq!(image.symbols, [expected]);
    let expected = reloc(0, Form::BpfCall, Target::Symbol(0), 0);
    assert_eq!(image.functions[0].relocs, [expected]);

    // In one boot another one.
    let [a, mut b] = two_boots(&[vec![Piece::Helper(HELPER)]]);
    b.export.functions[0].insns[0].imm += 16;
    b.export.xlated[0].imm += 16;
    discover_bytecode(a.capture(), b.capture()).unwrap_err();
    // Out of the kernel, and a call of a kind that nobody knows.
    type Change = fn(&mut Export);
    let changes: [Change; 2] = [
        |export| export.functions[0].insns[0].imm = i32::MIN,
        |export| export.functions[0].insns[0].registers = 0x30,
    ];
    for change in changes {
        let message = changed(&[vec![Piece::Helper(HELPER)], vec![]], change)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("calls go to functions of the kernel"),
            "{message}"
        );
    }
}

#[test]
fn helpers_that_the_jit_replaces_keep_their_number() {
    let image = changed(&[vec![Piece::Helper(HELPER)], vec![]], |export| {
        export.functions[0].insns[0].imm = 8;
    });
    let image = image.unwrap();
    assert_eq!(image.functions[0].relocs, []);
    assert_eq!(insns(&image, 0)[0].imm, 8);
}

#[test]
fn half_a_wide_load_is_refused() {
    let error = changed(&[vec![Piece::Constant(1)], vec![]], |export| {
        export.functions[0].insns.truncate(1);
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains("a wide load has two halves"), "{message}");
}

#[test]
fn tail_calls_have_no_places() {
    for machine in MACHINES {
        let [a, b] = two_boots_on(machine, &[vec![], vec![Piece::TailCall(3)]]);
        let image = discover_bytecode(a.capture(), b.capture()).unwrap();
        let poke = &image.pokes[0];
        assert_eq!((poke.function.get(), poke.map.get()), (1, 3));
        assert_eq!((poke.key.get(), poke.insn_idx.get()), (2, 7));
        assert_eq!((poke.target.get(), poke.bypass.get()), (0, 0));
        assert_eq!(insns(&image, 1)[0].imm, 1);
        let sections = image.to_sections().unwrap();
        assert_eq!(prove(&sections, a.capture()).unwrap().relocations, 0);
    }
}

#[test]
fn a_kernel_that_never_moves_is_one_for_32_bit_arm() {
    let [a, mut b] = [3, 17].map(Layout::new);
    b.text = a.text;
    let functions = [vec![Piece::Symbol(JIFFIES), Piece::Helper(HELPER)]];
    let [mut a, mut b] = [&a, &b].map(|layout| Boot::new(&functions, layout));
    let error = discover_bytecode(a.capture(), b.capture()).unwrap_err();
    assert!(matches!(error, DiscoverError::SameLayout { .. }), "{error}");
    for boot in [&mut a, &mut b] {
        boot.export.arch = 40;
    }
    let image = discover_bytecode(a.capture(), b.capture()).unwrap();
    assert_eq!(image.functions[0].relocs.len(), 2);
    let error = crate::discover(a.capture(), b.capture()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("was compiled for arm, for which"),
        "{message}"
    );
}

proptest! {
    /// Any two boots give the same image, whatever the machine, and it is right in every boot.
    #[test]
    fn any_two_boots_give_the_same_image_and_it_is_right(
        functions in program(),
        boots in prop::sample::subsequence((1..400_u32).collect::<Vec<_>>(), 4),
    ) {
        // What only x86_64's JIT writes is in no bytecode.
        let functions: Vec<Vec<Piece>> = functions
            .into_iter()
            .map(|mut pieces| {
                pieces.retain(|piece| !matches!(piece, Piece::Thunk(_) | Piece::CallDepth(_) | Piece::Plain(..)));
                pieces
            })
            .collect();
        let mut images = Vec::new();
        for machine in MACHINES {
            let boots: Vec<Boot> = boots
                .iter()
                .map(|&boot| Boot::new(&functions, &Layout::on(machine, boot)))
                .collect();
            let captures: Vec<Capture<'_>> = boots.iter().map(Boot::capture).collect();
            let image = discover_bytecode(captures[0], captures[1]).unwrap();
            prop_assert_eq!(&image, &discover_bytecode(captures[1], captures[0]).unwrap());
            prop_assert_eq!(&image, &discover_bytecode(captures[2], captures[3]).unwrap());
            let sections = image.to_sections().unwrap();
            for capture in captures {
                let proof = prove(&sections, capture).unwrap();
                let sizes = capture.export.functions.iter().map(|function| function.insns.len() * 8);
                prop_assert_eq!(proof.code_bytes, sizes.sum::<usize>());
            }
            images.push(image);
        }
        for (index, function) in images[0].functions.iter().enumerate() {
            prop_assert_eq!(&function.code, &images[1].functions[index].code);
            prop_assert_eq!(&function.relocs, &images[1].functions[index].relocs);
        }
        prop_assert_eq!(&images[0].symbols, &images[1].symbols);
    }

    /// An instruction that is changed in one boot is refused, wherever the change is.
    #[test]
    fn a_changed_instruction_is_refused(
        functions in program(),
        position in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let [a, mut b] = two_boots(&functions);
        let insns = &mut b.export.functions[0].insns;
        let position = position.index(insns.len() * 8);
        let mut bytes = insns[position / 8].to_bytes();
        bytes[position % 8] ^= change;
        insns[position / 8] = Insn::from_bytes(bytes);
        prop_assert!(discover_bytecode(a.capture(), b.capture()).is_err());
    }
}
