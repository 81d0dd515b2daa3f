use preverify_abi::export::OBSTACLE_EXCEPTIONS;
use proptest::prelude::*;

use super::*;
use crate::image::Form;
use crate::prove;
use crate::testing::{Boot, HELPER, JIFFIES, Layout, Piece, RETURN_THUNK, SPAN, two_boots};

/// Bytes in front of the first piece of a function.
const PROLOGUE: u32 = 9;

fn discovered(functions: &[Vec<Piece>]) -> Result<Image, DiscoverError> {
    let [a, b] = two_boots(functions);
    discover(a.capture(), b.capture())
}

/// The relocations of a program of two functions, whose first consists of these pieces.
fn relocs(pieces: Vec<Piece>) -> (Image, Vec<Reloc>) {
    let image = discovered(&[pieces, vec![]]).unwrap();
    let relocs = image.functions[0].relocs.clone();
    (image, relocs)
}

fn reloc(offset: u32, form: Form, target: Target, addend: i64) -> Reloc {
    Reloc {
        offset: PROLOGUE + offset,
        form,
        target,
        addend,
    }
}

fn error(functions: &[Vec<Piece>]) -> String {
    discovered(functions).unwrap_err().to_string()
}

#[test]
fn calls_and_jumps_go_to_symbols_and_functions() {
    let pieces = vec![
        Piece::Helper(HELPER),
        Piece::Call(1),
        Piece::Thunk(RETURN_THUNK),
    ];
    let (image, found) = relocs(pieces);
    let symbol = |name: &str, offset| Symbol::Text {
        name: name.to_owned(),
        offset,
    };
    assert_eq!(
        image.symbols,
        [
            symbol("bpf_helper", HELPER),
            symbol("__x86_return_thunk", RETURN_THUNK)
        ]
    );
    assert_eq!(
        found,
        [
            reloc(1, Form::Rel32, Target::Symbol(0), -4),
            reloc(6, Form::Rel32, Target::Function(1), -4),
            reloc(11, Form::Rel32, Target::Symbol(1), -4),
        ]
    );
}

#[test]
fn registers_are_set_to_maps_values_symbols_functions_and_aux() {
    let (image, found) = relocs(vec![
        Piece::Map(2),
        Piece::Value(1, 0x18),
        Piece::Symbol(JIFFIES),
        Piece::Callback(1),
        Piece::Aux,
    ]);
    // `jiffies_64` is at the same address, with a longer name.
    assert_eq!(image.symbols[0].name(), "jiffies");
    assert_eq!(
        found,
        [
            reloc(2, Form::Abs64, Target::Map(2), 0),
            reloc(12, Form::Abs64, Target::MapValue(1), 0x18),
            reloc(23, Form::Abs32S, Target::Symbol(0), 0),
            reloc(30, Form::Abs32S, Target::Function(1), 0),
            reloc(36, Form::Abs64, Target::ProgAux, 0),
        ]
    );
}

#[test]
fn the_depth_of_calls_is_absolute_but_written_relative() {
    let (image, found) = relocs(vec![Piece::CallDepth(0x2_d4c8)]);
    let addend = 0x2_d4c8 - 5;
    assert_eq!(found, [reloc(4, Form::Rel32, Target::Absolute, addend)]);
    assert_eq!(
        image.functions[0].code[9..18],
        [0x65, 0x48, 0xc1, 0x3d, 0, 0, 0, 0, 5]
    );
}

#[test]
fn jumps_within_a_function_and_per_cpu_offsets_stay() {
    let (image, found) = relocs(vec![
        // add rdi, [gs:0x2d460]
        Piece::Plain(
            &[0x65, 0x48, 0x03, 0x3c, 0x25, 0x60, 0xd4, 0x02, 0x00],
            vec![],
        ),
        // jmp to the function's start, short and near; je near
        Piece::Plain(&[0xeb, 0xec], vec![]),
        Piece::Plain(&[0xe9, 0xe7, 0xff, 0xff, 0xff], vec![]),
        Piece::Plain(&[0x0f, 0x84, 0xe1, 0xff, 0xff, 0xff], vec![]),
        // A call of itself, and mov r10, VSYSCALL_ADDR of PROBE_MEM's guard
        Piece::Call(0),
        Piece::Plain(&[0x49, 0xc7, 0xc2, 0x00, 0x00, 0x60, 0xff], vec![]),
    ]);
    assert_eq!(found, []);
    let [a, _] = two_boots(&[vec![], vec![]]);
    let start = &a.export.functions[0].code[..9];
    assert_eq!(&image.functions[0].code[..9], start);
}

#[test]
fn module_functions_are_named() {
    let (image, found) = relocs(vec![Piece::ModuleCall]);
    assert_eq!(
        image.symbols,
        [Symbol::Module {
            name: "testmod:function".to_owned(),
            offset: 0
        }]
    );
    assert_eq!(found, [reloc(1, Form::Rel32, Target::Symbol(0), -4)]);
    // How far it is from the kernel image differs from boot to boot.
    assert_eq!(image.xlated[0].imm, 0);
}

#[test]
fn a_pointer_into_values_is_within_them() {
    // The values of map 6 come first, those of map 7 follow at once.
    let (_, found) = relocs(vec![Piece::Value(6, SPAN - 1), Piece::Value(6, SPAN)]);
    assert_eq!(
        found,
        [
            reloc(2, Form::Abs64, Target::MapValue(6), 0xff),
            reloc(12, Form::Abs64, Target::MapValue(7), 0),
        ]
    );
    // Nothing follows those of map 1.
    let message = error(&[vec![Piece::Value(1, SPAN)], vec![]]);
    assert!(
        message.contains("are not the same map, map value"),
        "{message}"
    );
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
        }
    }
}

#[test]
fn where_a_map_does_not_move_the_bytecode_decides() {
    let [a, mut b] = [3, 17].map(Layout::new);
    b.maps[0] = a.maps[0];
    let address = a.maps[0];
    let discovered = |functions: &[Vec<Piece>]| {
        let [a, b] = [&a, &b].map(|layout| Boot::new(functions, layout));
        discover(a.capture(), b.capture())
    };

    let image = discovered(&[vec![Piece::Map(0)], vec![]]).unwrap();
    assert_eq!(
        image.functions[0].relocs,
        [reloc(2, Form::Abs64, Target::Map(0), 0)]
    );
    let image = discovered(&[vec![Piece::Constant(address)], vec![]]).unwrap();
    assert_eq!(image.functions[0].relocs, []);

    // Both at once, or no kinds: it cannot be told.
    let both = vec![Piece::Map(0), Piece::Constant(address)];
    for functions in [vec![both, vec![]], vec![vec![Piece::Map(0)]]] {
        let error = discovered(&functions).unwrap_err();
        assert!(
            matches!(error, DiscoverError::SameAddress { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("boot again"), "{error}");
    }
}

#[test]
fn where_functions_do_not_move_callbacks_are_still_found() {
    let [a, mut b] = [3, 17].map(Layout::new);
    b.functions = a.functions.clone();
    let constant = i32::try_from(a.functions[1].cast_signed()).unwrap();
    let discovered = |pieces: Vec<Piece>| {
        let functions = [pieces, vec![]];
        let [a, b] = [&a, &b].map(|layout| Boot::new(&functions, layout));
        discover(a.capture(), b.capture())
    };
    let image = discovered(vec![
        Piece::Callback(1),
        Piece::CallDepth(8),
        Piece::Call(1),
    ]);
    assert_eq!(
        image.unwrap().functions[0].relocs,
        [
            reloc(3, Form::Abs32S, Target::Function(1), 0),
            reloc(11, Form::Rel32, Target::Absolute, 3),
            reloc(17, Form::Rel32, Target::Function(1), -4),
        ]
    );
    let image = discovered(vec![Piece::Move(constant)]).unwrap();
    assert_eq!(image.functions[0].relocs, []);
    let error = discovered(vec![Piece::Move(constant), Piece::Callback(1)]).unwrap_err();
    assert!(
        matches!(error, DiscoverError::SameAddress { .. }),
        "{error}"
    );
}

#[test]
fn unknown_pointers_are_refused_by_name() {
    let [a, b] = [3, 17].map(|boot| Layout::new(boot).stray);
    let message = error(&[vec![Piece::Map(0), Piece::Stray]]);
    let expected = format!(
        "program `program`, function 0, offset 0x13, `mov rdi, {a:#x}`: {a:#x} in one boot and \
         {b:#x} in the other are not the same map, map value, function or kernel symbol"
    );
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains("bpf_obj_new"), "{message}");
}

#[test]
fn bytes_that_differ_outside_of_addresses_are_refused() {
    let functions = [vec![Piece::Helper(HELPER)]];
    let [a, mut b] = two_boots(&functions);
    // mov rbp, rsp becomes mov rbp, rbx
    b.export.functions[0].code[8] = 0xdd;
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "program `program`, function 0, offset 0x6, `mov rbp, rsp`: the other boot has \
         `mov rbp, rbx` here, and the two differ in more than an address \
         (48 89 e5 against 48 89 dd)"
    );

    // Another immediate of an instruction that holds no address: add rsp, 0x1000
    let add = Piece::Plain(&[0x48, 0x81, 0xc4, 0x00, 0x10, 0x00, 0x00], vec![]);
    let [a, mut b] = two_boots(&[vec![add]]);
    b.export.functions[0].code[13] = 0x20;
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::Unclassified { .. }),
        "{error}"
    );
}

#[test]
fn calls_to_nowhere_are_refused() {
    let [mut a, b] = two_boots(&[vec![Piece::Helper(HELPER)]]);
    a.export.functions[0].code[10] ^= 0x40;
    let message = discover(a.capture(), b.capture()).unwrap_err().to_string();
    assert!(message.contains("offset 0x9, `call 0x"), "{message}");
    assert!(
        message.contains("calls and jumps go to kernel functions"),
        "{message}"
    );

    // A function of another BPF program.
    let [mut a, mut b] = two_boots(&[vec![Piece::Call(0)], vec![]]);
    for boot in [&mut a, &mut b] {
        let distance = 0x2345_i32.to_le_bytes();
        boot.export.functions[0].code[10..14].copy_from_slice(&distance);
    }
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::UnknownAddress { .. }),
        "{error}"
    );
}

#[test]
fn native_code_that_loads_what_the_bytecode_does_not_is_refused() {
    let [mut a, mut b] = two_boots(&[vec![Piece::Map(0), Piece::Map(1)], vec![]]);
    for boot in [&mut a, &mut b] {
        let insns = &mut boot.export.functions[0].insns;
        insns.drain(..2);
    }
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::Disagreement { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("the address of map 0"),
        "{error}"
    );

    // A map by its address, but a function by its kind.
    let [mut a, mut b] = two_boots(&[vec![Piece::Map(0)], vec![]]);
    for boot in [&mut a, &mut b] {
        boot.export.functions[0].insns[0].registers = 0x41;
    }
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::Disagreement { .. }),
        "{error}"
    );
}

#[test]
fn native_code_that_lacks_a_pointer_of_the_bytecode_is_refused() {
    // In both boots, the address of one boot.
    let [a, mut b] = two_boots(&[vec![Piece::Map(0), Piece::Map(1)], vec![]]);
    let (code, stale) = (&mut b.export.functions[0].code, &a.export.functions[0].code);
    code[11..19].copy_from_slice(&stale[11..19]);
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "program `program`, function 0: the machine code loads 1 pointers, which are not the 2 \
         that the verified bytecode loads, in its order"
    );

    // The right ones, in the wrong order.
    let [mut a, mut b] = two_boots(&[vec![Piece::Map(0), Piece::Map(1)], vec![]]);
    for boot in [&mut a, &mut b] {
        boot.export.functions[0].insns[..4].rotate_left(2);
    }
    let error = discover(a.capture(), b.capture()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::OtherPointers { .. }),
        "{error}"
    );
}

#[test]
fn jumps_out_of_a_function_and_stray_relative_operands_are_refused() {
    let message = error(&[vec![Piece::Plain(&[0xeb, 0x70], vec![])]]);
    assert!(message.contains("short jumps stay within"), "{message}");
    // mov rax, [rip+0x10]
    let message = error(&[vec![Piece::Plain(
        &[0x48, 0x8b, 0x05, 0x10, 0, 0, 0],
        vec![],
    )]]);
    assert!(message.contains("only per-CPU variables"), "{message}");
    let message = error(&[vec![Piece::Plain(&[0x06], vec![])]]);
    assert!(
        message.contains("offset 0x9, `(bad)`: no instruction starts here (06 c9"),
        "{message}"
    );
}

#[test]
fn obstacles_are_refused_with_their_reasons() {
    let [a, mut b] = two_boots(&[vec![]]);
    b.export.obstacles = OBSTACLE_EXCEPTIONS | 1 << 31;
    let message = discover(a.capture(), b.capture()).unwrap_err().to_string();
    assert_eq!(
        message,
        "the program `program` cannot be made loadable: it throws exceptions (bpf_throw), whose \
         unwinding needs functions that the kernel adds when it verifies; the kernel part reports \
         an obstacle that this program does not know; build both from one source"
    );
    for bit in 0..12 {
        assert_eq!(Obstacles(1 << bit).reasons().count(), 1);
    }
}

#[test]
fn captures_that_do_not_fit_are_refused() {
    let functions = [vec![Piece::Map(0)]];
    let [a, b] = two_boots(&functions);
    let error = discover(a.capture(), a.capture()).unwrap_err();
    assert!(matches!(error, DiscoverError::SameLayout { .. }), "{error}");
    let mixed = Capture {
        export: &a.export,
        symbols: &b.symbols,
    };
    let error = discover(mixed, b.capture()).unwrap_err();
    assert!(matches!(error, DiscoverError::OtherBoot { .. }), "{error}");

    type Change = fn(&mut export::Export);
    let changes: [(&str, Change); 12] = [
        ("name", |export| export.name.push('x')),
        ("the program's type", |export| export.prog_type += 1),
        ("attach type", |export| export.expected_attach_type += 1),
        ("BTF id", |export| export.attach_btf_id += 1),
        ("max_pkt_offset", |export| {
            export.conclusions.max_pkt_offset = 9.into()
        }),
        ("number of maps", |export| drop(export.maps.pop())),
        ("map 2", |export| {
            export.maps[2].record.max_entries = 9.into()
        }),
        ("code of function 0", |export| {
            export.functions[0].code.push(0xcc)
        }),
        ("flags of function 0", |export| {
            export.functions[0].flags = 1
        }),
        ("exception table", |export| {
            export.functions[0].extable.clear()
        }),
        ("instruction 2 of the program's bytecode", |export| {
            export.xlated[2].off = 4
        }),
        ("instruction 0 of the bytecode of function 0", |export| {
            export.functions[0].insns[0].registers = 2;
        }),
    ];
    for (what, change) in changes {
        let [a, mut b] = two_boots(&functions);
        change(&mut b.export);
        let error = discover(a.capture(), b.capture()).unwrap_err();
        assert!(
            matches!(error, DiscoverError::Differ { .. }),
            "{what}: {error}"
        );
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn tail_calls_are_offsets_in_their_function() {
    let functions = [vec![], vec![Piece::Helper(HELPER), Piece::TailCall(3)]];
    let image = discovered(&functions).unwrap();
    let expected = abi::Poke {
        function: 1.into(),
        bypass: 14.into(),
        target: 25.into(),
        bypass_target: 30.into(),
        map: 3.into(),
        key: 2.into(),
        insn_idx: 7.into(),
        adjust: 12.into(),
    };
    assert_eq!(image.pokes, [expected]);
    // The main program's `aux` means its first function.
    let image = discovered(&[vec![Piece::TailCall(3)]]).unwrap();
    assert_eq!(image.pokes[0].function.get(), 0);
}

#[test]
fn tail_calls_that_somebody_patched_are_refused() {
    type Change = fn(&mut export::Export);
    let changes: [(&str, Change); 4] = [
        ("bypass is a nop", |export| {
            export.functions[0].code[9..14].copy_from_slice(&[0x0f, 0x1f, 0x44, 0, 0]);
        }),
        ("bypass goes elsewhere", |export| {
            export.functions[0].code[10] = 0
        }),
        ("not its end", |export| export.pokes[0].bypass_target -= 1),
        ("outside", |export| export.pokes[0].bypass = 0),
    ];
    for (what, change) in changes {
        let [mut a, mut b] = two_boots(&[vec![Piece::TailCall(3)]]);
        change(&mut a.export);
        change(&mut b.export);
        let error = discover(a.capture(), b.capture()).unwrap_err();
        assert!(
            matches!(error, DiscoverError::Poke { .. }),
            "{what}: {error}"
        );
    }
}

#[test]
fn the_bytecode_keeps_no_addresses() {
    let functions = [
        vec![
            Piece::Map(0),
            Piece::Value(1, 4),
            Piece::Symbol(JIFFIES),
            Piece::Aux,
            Piece::Constant(0xffff_c900_dead_0000),
            Piece::Constant(0x1234_5678_9abc),
            Piece::Constant(u64::MAX),
            Piece::Helper(HELPER),
            Piece::Call(1),
        ],
        vec![],
    ];
    let image = discovered(&functions).unwrap();
    let values: Vec<u64> = image.xlated[..14]
        .chunks(2)
        .map(|halves| {
            let [low, high] = [0, 1].map(|half: usize| u64::from(halves[half].imm.cast_unsigned()));
            high << 32 | low
        })
        .collect();
    assert_eq!(values, [0, 0, 0, 0, 0, 0x1234_5678_9abc, u64::MAX]);
    assert_eq!(image.xlated[14].imm, 0x1_2340);
    assert_eq!(image.xlated[15].imm, 1);
}

#[test]
fn tags_are_the_kernels_unless_they_depend_on_the_boot() {
    let functions = |last| {
        [
            vec![],
            vec![Piece::Symbol(JIFFIES)],
            vec![Piece::Move(last)],
        ]
    };
    let [mut a, mut b] = two_boots(&functions(1));
    for boot in [&mut a, &mut b] {
        boot.export.functions[2].tag = *b"kernel's";
    }
    let image = discover(a.capture(), b.capture()).unwrap();
    let [first, second, third] = [0, 1, 2].map(|index: usize| image.functions[index].tag);
    assert_eq!(first, *b"program!");
    assert_eq!(image.conclusions.tag, first);
    assert_eq!(third, *b"kernel's");
    assert_ne!(second, a.export.functions[1].tag);
    assert_ne!(second, b.export.functions[1].tag);

    // libbpf puts addresses of kernel variables into a program before the kernel sees it.
    a.export.conclusions.tag = *b"one boot";
    let image = discover(a.capture(), b.capture()).unwrap();
    assert_eq!(image, discover(b.capture(), a.capture()).unwrap());
    assert_eq!(image.conclusions.tag, image.functions[0].tag);
    assert_ne!(image.functions[0].tag, second);
    assert_eq!(image.functions[1].tag, second);

    let other = discovered(&functions(2)).unwrap();
    assert_ne!(other.functions[1].tag, second);
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        (0..0x200_0000_u64).prop_map(Piece::Helper),
        (0..3_usize).prop_map(Piece::Call),
        Just(Piece::ModuleCall),
        Just(Piece::Thunk(RETURN_THUNK)),
        (0..8_usize).prop_map(Piece::Map),
        (0..8_usize, 0..SPAN).prop_map(|(map, offset)| Piece::Value(map, offset)),
        (0..0x200_0000_u64).prop_map(Piece::Symbol),
        (0..3_usize).prop_map(Piece::Callback),
        Just(Piece::Aux),
        any::<u64>().prop_map(Piece::Constant),
        any::<u32>().prop_map(|low| Piece::Constant(0xffff_c900_0000_0000 | u64::from(low))),
        any::<i32>().prop_map(Piece::Move),
        (0..0x4_0000_u32).prop_map(Piece::CallDepth),
        (0..8_usize).prop_map(Piece::TailCall),
        Just(Piece::Plain(
            &[0x48, 0x83, 0xc4, 0x10],
            vec![Insn::default()]
        )),
    ]
}

/// Programs of three functions. Constants that look like addresses stand in front of helpers only:
/// in front of kernel functions, nobody could tell them from the verifier's own pointers.
pub(super) fn program() -> impl Strategy<Value = Vec<Vec<Piece>>> {
    let pieces = prop::collection::vec(piece(), 0..24).prop_map(|pieces| {
        let between = |piece| match piece {
            Piece::ModuleCall => vec![Piece::Helper(HELPER), piece],
            _ => vec![piece],
        };
        pieces.into_iter().flat_map(between).collect()
    });
    prop::collection::vec(pieces, 3)
}

proptest! {
    /// Any two boots give the same image, and it is right in every boot.
    #[test]
    fn any_two_boots_give_the_same_image_and_it_is_right(
        functions in program(),
        boots in prop::sample::subsequence((1..400_u32).collect::<Vec<_>>(), 4),
    ) {
        let boots: Vec<Boot> = boots
            .into_iter()
            .map(|boot| Boot::new(&functions, &Layout::new(boot)))
            .collect();
        let captures: Vec<Capture<'_>> = boots.iter().map(Boot::capture).collect();
        let image = discover(captures[0], captures[1]).unwrap();
        prop_assert_eq!(&image, &discover(captures[1], captures[0]).unwrap());
        prop_assert_eq!(&image, &discover(captures[2], captures[3]).unwrap());
        let sections = image.to_sections().unwrap();
        for capture in captures {
            let proof = prove(&sections, capture).unwrap();
            let sizes = capture.export.functions.iter().map(|function| function.code.len());
            prop_assert_eq!(proof.code_bytes, sizes.sum::<usize>());
        }
    }

    /// Code that is changed in one boot is refused, wherever the change is.
    #[test]
    fn changed_code_is_refused(
        functions in program(),
        position in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let [a, mut b] = two_boots(&functions);
        let code = &mut b.export.functions[0].code;
        let position = position.index(code.len());
        code[position] ^= change;
        prop_assert!(discover(a.capture(), b.capture()).is_err());
    }
}
