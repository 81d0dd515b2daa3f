#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! Code that kernels' JITs wrote: `vectors/`, whose README says how it was made.
//!
//! The unit tests write code as the kernel's source says; these are about what kernels really write.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use preverify_abi::image::Extable;
use preverify_image::export::{Export, Insn};
use preverify_image::image::{Form, Function, Image, Reloc, Sections, Symbol, Target};
use preverify_image::symbols::KernelSymbols;
use preverify_image::{Capture, DiscoverError, ProofError, discover, discover_bytecode, prove};

/// The folders: a machine each.
const MACHINES: [&str; 3] = ["arm64", "arm64-neoverse-n1-el2", "x86_64"];

/// One machine's programs, by name, as two boots hold them.
struct Vectors {
    symbols: [KernelSymbols; 2],
    programs: BTreeMap<String, [Export; 2]>,
}

impl Vectors {
    fn of(machine: &str) -> Self {
        let folder = folder().join(machine);
        let read = |name: String| fs::read(folder.join(name)).unwrap();
        let symbols = [0, 1].map(|boot| {
            let text = String::from_utf8(read(format!("{boot}.kallsyms"))).unwrap();
            KernelSymbols::parse(text).unwrap()
        });
        let programs = fs::read_dir(&folder).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let program = name.strip_suffix(".0.export")?.to_owned();
            let exports = [0, 1].map(|boot| {
                let bytes = read(format!("{program}.{boot}.export"));
                Export::parse(&bytes).unwrap()
            });
            Some((program, exports))
        });
        Self {
            symbols,
            programs: programs.collect(),
        }
    }

    fn program(&self, name: &str) -> Boots<'_> {
        Boots {
            exports: self.programs[name].clone(),
            symbols: &self.symbols,
        }
    }

    fn all(&self) -> impl Iterator<Item = (&str, Boots<'_>)> {
        let names = self.programs.keys();
        names.map(|name| (name.as_str(), self.program(name)))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// One program, to look at and to change.
#[derive(Clone)]
struct Boots<'a> {
    exports: [Export; 2],
    symbols: &'a [KernelSymbols; 2],
}

impl Boots<'_> {
    fn captures(&self) -> [Capture<'_>; 2] {
        [0, 1].map(|boot| Capture {
            export: &self.exports[boot],
            symbols: &self.symbols[boot],
        })
    }

    fn native(&self) -> Result<Image, DiscoverError> {
        let [a, b] = self.captures();
        discover(a, b)
    }

    fn bytecode(&self) -> Result<Image, DiscoverError> {
        let [a, b] = self.captures();
        discover_bytecode(a, b)
    }

    fn images(&self) -> [Image; 2] {
        [self.native().unwrap(), self.bytecode().unwrap()]
    }

    /// The instructions of all functions, on arm64.
    fn words(&self) -> impl Iterator<Item = u32> {
        let functions = self.exports[0].functions.iter();
        functions.flat_map(|function| words(&function.code))
    }
}

fn words(code: &[u8]) -> Vec<u32> {
    let (words, rest) = code.as_chunks();
    assert!(rest.is_empty());
    words.iter().copied().map(u32::from_le_bytes).collect()
}

fn sections(image: &Image) -> Sections {
    image.to_sections().unwrap()
}

#[test]
fn all_images_are_proved_in_both_boots() {
    for machine in MACHINES {
        for (name, boots) in Vectors::of(machine).all() {
            for image in boots.images() {
                let sections = sections(&image);
                assert_eq!(
                    Image::parse(&sections.image, &sections.symbols).as_ref(),
                    Ok(&image)
                );
                for capture in boots.captures() {
                    let proof = prove(&sections, capture);
                    let proof = proof.unwrap_or_else(|error| panic!("{machine} {name}: {error}"));
                    assert_eq!(proof.relocations, references(&image).len());
                }
            }
        }
    }
}

/// What a program's source says of its images, whatever the machine.
struct Expected {
    program: &'static str,
    /// What is called and loaded, in the order of the code. Maps are numbered as the code comes to them.
    references: &'static [&'static str],
    exceptions: usize,
    tail_calls: usize,
}

const EXPECTED: [Expected; 9] = [
    Expected {
        program: "alone",
        references: &[
            "load values 0",
            "load map 1",
            "call htab_map_update_elem",
            "load map 1",
            "call __htab_map_lookup_elem",
            // The look-ups in arrays are inlined.
            "load map 2",
            "load values 3",
            "load map 4",
            "load map 1",
            "call htab_map_delete_elem",
            "load values 5",
        ],
        exceptions: 0,
        tail_calls: 0,
    },
    Expected {
        program: "callbacks",
        references: &[
            "call function 1",
            "call function 1",
            "call function 1",
            "call function 1",
            "load map 0",
            "load function 3",
            "call bpf_for_each_array_elem",
            // `bpf_loop` is inlined, and calls the function; its address is left over.
            "load function 4",
            "call function 4",
            "load map 0",
            "load values 1",
            "call function 2",
            "call function 2",
            "call function 2",
        ],
        exceptions: 0,
        tail_calls: 0,
    },
    Expected {
        program: "constants",
        references: &[],
        exceptions: 0,
        tail_calls: 0,
    },
    Expected {
        program: "finds_init",
        references: &["call bpf_task_from_pid", "call bpf_task_release"],
        exceptions: 1,
        tail_calls: 0,
    },
    Expected {
        program: "functions_fault",
        references: &["call function 1", "call function 1"],
        exceptions: 1,
        tail_calls: 0,
    },
    Expected {
        program: "functions_jump",
        references: &[
            "call function 1",
            "call function 2",
            "load map 0",
            "load map 0",
            "load map 0",
        ],
        exceptions: 0,
        tail_calls: 3,
    },
    Expected {
        program: "jumps",
        references: &["load values 0", "load map 1", "load map 1"],
        exceptions: 0,
        tail_calls: 2,
    },
    Expected {
        program: "several",
        references: &[
            "call function 1",
            "call function 2",
            "call function 1",
            "call function 2",
            "call function 1",
            "call function 2",
            "call function 1",
            "call function 2",
            "call function 3",
            "load values 0",
            "load map 1",
            "load values 2",
            "call function 2",
            "load map 3",
            "load values 4",
        ],
        exceptions: 0,
        tail_calls: 0,
    },
    Expected {
        program: "symbols",
        references: &[PER_CPU, "call bpf_per_cpu_ptr", "load bpf_link_fops"],
        exceptions: 0,
        tail_calls: 0,
    },
];

/// On x86_64, a per-CPU variable has the same address in all boots.
const PER_CPU: &str = "load bpf_prog_active";

#[test]
fn images_refer_to_what_their_sources_say() {
    for machine in MACHINES {
        let vectors = Vectors::of(machine);
        let programs: Vec<_> = vectors.programs.keys().map(String::as_str).collect();
        assert_eq!(programs, EXPECTED.map(|expected| expected.program));
        for expected in EXPECTED {
            let what = format!("{machine} {}", expected.program);
            let [native, bytecode] = vectors.program(expected.program).images();
            let mut references = expected.references.to_vec();
            references.retain(|&reference| machine != "x86_64" || reference != PER_CPU);
            assert_eq!(self::references(&native), references, "{what}");
            // The kernel that compiles bytecode puts a program's own functions in.
            references.retain(|reference| !reference.contains(" function "));
            assert_eq!(self::references(&bytecode), references, "{what}");

            let exceptions = |image: &Image| -> usize {
                let functions = image.functions.iter();
                functions.map(|function| function.extable.len()).sum()
            };
            assert_eq!(exceptions(&native), expected.exceptions, "{what}");
            assert_eq!(exceptions(&bytecode), 0, "{what}");
            // On arm64, nothing of a tail call is patched.
            let patched = if machine == "x86_64" {
                expected.tail_calls
            } else {
                0
            };
            assert_eq!(native.pokes.len(), patched, "{what}");
            assert_eq!(bytecode.pokes.len(), expected.tail_calls, "{what}");
        }
    }
}

/// All that an image refers to, in the order of its code.
fn references(image: &Image) -> Vec<String> {
    let relocs = image.functions.iter().flat_map(|found| &found.relocs);
    relocs.map(|reloc| reference(image, reloc)).collect()
}

fn reference(image: &Image, reloc: &Reloc) -> String {
    let what = match reloc.target {
        Target::Symbol(index) => image.symbols[index as usize].to_string(),
        Target::Map(map) => format!("map {map}"),
        Target::MapValue(map) => format!("values {map}"),
        Target::Function(function) => format!("function {function}"),
        other => panic!("no program of these refers to {other:?}"),
    };
    let is_call = match reloc.form {
        Form::Rel32 | Form::A64Call26 | Form::BpfCall => true,
        // Programs' own functions are near; what is loaded into a register is for callbacks.
        Form::A64Addr48 => !matches!(reloc.target, Target::Function(_)),
        Form::Abs32S | Form::Abs64 | Form::A64Mov64 | Form::BpfImm64 => false,
    };
    format!("{} {what}", if is_call { "call" } else { "load" })
}

/// Atomics, and where a per-CPU variable is found, are other instructions on each of these processors; nothing else is.
#[test]
fn processors_have_code_of_their_own() {
    let [small, large] = ["arm64", "arm64-neoverse-n1-el2"].map(Vectors::of);
    let uses = |vectors: &Vectors, is: fn(u32) -> bool| vectors.program("alone").words().any(is);
    let is_exclusive = |word| word & 0x3fa0_0000 == 0x0800_0000;
    let is_atomic = |word| word & 0x3f20_0c00 == 0x3820_0000;
    let is_el1_offset = |word| word & 0xffff_ffe0 == 0xd538_d080;
    let is_el2_offset = |word| word & 0xffff_ffe0 == 0xd53c_d040;
    for (is, on_small) in [
        (is_exclusive as fn(u32) -> bool, true),
        (is_atomic, false),
        (is_el1_offset, true),
        (is_el2_offset, false),
    ] {
        assert_eq!([uses(&small, is), uses(&large, is)], [on_small, !on_small]);
    }
    for (name, boots) in small.all() {
        let (on_small, on_large) = (boots.images(), large.program(name).images());
        assert_eq!(on_small[1], on_large[1], "bytecode of {name}");
        let uses_one = boots
            .words()
            .any(|word| is_exclusive(word) || is_el1_offset(word));
        assert_eq!(on_small[0] != on_large[0], uses_one, "code of {name}");
    }
}

/// Both the comparison of the boots and the proof see every byte of code, and of addresses every bit.
#[test]
fn code_that_one_boot_has_otherwise_is_refused() {
    for machine in MACHINES {
        for (name, mut boots) in Vectors::of(machine).all() {
            let image = boots.native().unwrap();
            let sections = sections(&image);
            for (index, function) in image.functions.iter().enumerate() {
                for offset in 0..function.code.len() {
                    let bits = match fields(function).any(|field| field.contains(&offset)) {
                        true => 0..8,
                        false => offset % 8..offset % 8 + 1,
                    };
                    let boot = offset % 2;
                    for bit in bits {
                        let what =
                            format!("{machine} {name}, function {index}, {offset:#x}, {bit}");
                        boots.exports[boot].functions[index].code[offset] ^= 1 << bit;
                        assert!(boots.native().is_err(), "{what}");
                        match prove(&sections, boots.captures()[boot]) {
                            Err(ProofError::Code {
                                function,
                                offset: found,
                                ..
                            }) => assert_eq!((function, found), (index, offset), "{what}"),
                            other => panic!("{what}: {other:?}"),
                        }
                        boots.exports[boot].functions[index].code[offset] ^= 1 << bit;
                    }
                }
            }
        }
    }
}

/// The bytes that a function's addresses are written into.
fn fields(function: &Function) -> impl Iterator<Item = Range<usize>> {
    function.relocs.iter().map(|reloc| {
        let start = reloc.offset as usize;
        start..start + reloc.form.size()
    })
}

#[test]
fn bytecode_that_one_boot_has_otherwise_is_refused() {
    for machine in MACHINES {
        for (name, mut boots) in Vectors::of(machine).all() {
            let sections = sections(&boots.bytecode().unwrap());
            for index in 0..boots.exports[0].functions.len() {
                for at in 0..boots.exports[0].functions[index].insns.len() * 8 {
                    let (boot, bit) = (at % 2, at % 7);
                    let what = format!("{machine} {name}, function {index}, byte {at:#x}");
                    let insn = boots.exports[boot].functions[index].insns[at / 8];
                    let mut bytes = insn.to_bytes();
                    bytes[at % 8] ^= 1 << bit;
                    boots.exports[boot].functions[index].insns[at / 8] = Insn::from_bytes(bytes);
                    assert!(boots.bytecode().is_err(), "{what}");
                    let proof = prove(&sections, boots.captures()[boot]);
                    assert!(
                        matches!(proof, Err(ProofError::Instruction { .. })),
                        "{what}: {proof:?}"
                    );
                    boots.exports[boot].functions[index].insns[at / 8] = insn;
                }
            }
        }
    }
}

#[test]
fn exceptions_that_the_handler_would_take_otherwise_are_refused() {
    for machine in MACHINES {
        let vectors = Vectors::of(machine);
        let boots = vectors.program("functions_fault");
        let changes: [fn(&mut Extable); 3] = [
            |entry| entry.offset = (entry.offset.get() + 4).into(),
            |entry| entry.fixup = (entry.fixup.get() ^ 1 << 28).into(),
            |entry| entry.data = (entry.data.get() ^ 1).into(),
        ];
        for change in changes {
            // Both boots agree, or do not.
            for boots_changed in [&[0, 1][..], &[1]] {
                let mut boots = boots.clone();
                for &boot in boots_changed {
                    change(exceptions(&mut boots.exports[boot]).next().unwrap());
                }
                let error = boots.native().unwrap_err();
                assert!(
                    matches!(
                        error,
                        DiscoverError::Exception { .. } | DiscoverError::Differ { .. }
                    ),
                    "{machine}: {error}"
                );
            }
        }
    }
}

fn exceptions(export: &mut Export) -> impl Iterator<Item = &mut Extable> {
    let functions = export.functions.iter_mut();
    functions.flat_map(|function| &mut function.extable)
}

/// Without KASLR, the kernel lies so near to programs that one instruction reaches it.
#[test]
fn short_calls_of_the_kernel_are_refused_by_name() {
    for machine in ["arm64", "arm64-neoverse-n1-el2"] {
        let vectors = Vectors::of(machine);
        let boots = vectors.program("alone");
        let image = boots.native().unwrap();
        let call = image.functions[0].relocs.iter();
        let call = call.filter(|reloc| reloc.form == Form::A64Addr48);
        for call in call {
            let Target::Symbol(symbol) = call.target else {
                panic!("{machine}: a call of {:?}", call.target);
            };
            let Symbol::Text { name, offset } = &image.symbols[symbol as usize] else {
                panic!("{machine}: a call of a module");
            };
            for shortened in [&[0, 1][..], &[0], &[1]] {
                let mut boots = boots.clone();
                for &boot in shortened {
                    let text = boots.symbols[boot].text();
                    let function = &mut boots.exports[boot].functions[0];
                    function.address = text - 0x10_0000;
                    let distance = 0x10_0000 + offset - u64::from(call.offset);
                    let bl = 0x9400_0000 | u32::try_from(distance / 4).unwrap();
                    put(&mut function.code, call.offset, &[bl, NOP, NOP, NOP]);
                }
                match boots.native().unwrap_err() {
                    DiscoverError::ShortCall { at, meaning } => {
                        assert_eq!(at.offset, call.offset as usize);
                        assert_eq!(meaning, format!("the kernel symbol `{name}`"));
                    }
                    other => panic!("{machine}: {other}"),
                }
            }
        }
    }
}

/// Some addresses take the JIT fewer instructions than most.
#[test]
fn short_groups_are_refused_by_name() {
    const SHORT: [u64; 2] = [0xffff_0000_0000_4400, 0xffff_0000_0000_8800];
    const LONG: [u64; 2] = [0xffff_0000_1234_4400, 0xffff_0000_1357_8800];
    for machine in ["arm64", "arm64-neoverse-n1-el2"] {
        let vectors = Vectors::of(machine);
        let boots = vectors.program("alone");
        let image = boots.native().unwrap();
        let first = |map| {
            let mut relocs = image.functions[0].relocs.iter();
            relocs.find(|reloc| reloc.target == Target::Map(map))
        };
        let maps = (0..boots.exports[0].maps.len()).filter_map(|map| u32::try_from(map).ok());
        for (map, first) in maps.filter_map(|map| Some((map, first(map)?))) {
            // It is the address that is refused, not that it was changed.
            let mut moved = boots.clone();
            (0..2).for_each(|boot| move_map(&mut moved.exports[boot], &image, map, LONG[boot]));
            assert_eq!(moved.images(), boots.images());

            for shortened in [&[0, 1][..], &[0], &[1]] {
                let mut moved = boots.clone();
                for &boot in shortened {
                    move_map(&mut moved.exports[boot], &image, map, SHORT[boot]);
                }
                let error = moved.native().unwrap_err();
                assert!(error.depends_on_layout());
                match error {
                    DiscoverError::ShortGroup { at, meaning, .. } => {
                        assert_eq!(at.offset, first.offset as usize);
                        assert_eq!(meaning, format!("map {map}"));
                    }
                    other => panic!("{machine}: {other}"),
                }
                // Bytecode takes every address.
                assert_eq!(moved.bytecode(), boots.bytecode());
            }
        }
    }
}

/// Has a program's first function refer to a map elsewhere, in its code and in its bytecode.
fn move_map(export: &mut Export, image: &Image, map: u32, address: u64) {
    let record = &mut export.maps[map as usize].record;
    let old = record.address.get();
    record.address = address.into();
    let [function] = &mut export.functions[..] else {
        panic!("the program has one function");
    };
    for reloc in &image.functions[0].relocs {
        if reloc.target == Target::Map(map) {
            let register = u32::from(function.code[reloc.offset as usize]) & 31;
            put(&mut function.code, reloc.offset, &load(register, address));
        }
    }
    let ([old_low, old_high], [low, high]) = (halves(old), halves(address));
    for at in 1..function.insns.len() {
        if let [first, second] = &mut function.insns[at - 1..=at]
            && (first.code, first.imm, second.imm) == (Insn::LD_IMM64, old_low, old_high)
        {
            (first.imm, second.imm) = (low, high);
        }
    }
}

/// The lower and the upper half of a value.
fn halves(value: u64) -> [i32; 2] {
    let bytes = value.to_le_bytes();
    [0, 4].map(|index: usize| i32::from_le_bytes(*bytes[index..].first_chunk().unwrap()))
}

const NOP: u32 = 0xd503_201f;

/// `movz` of the highest 16 bits, which are ones, and `movk` of those that are not zero.
fn load(register: u32, address: u64) -> [u32; 3] {
    let [low, middle, 0, 0xffff] = [0, 16, 32, 48].map(|shift| (address >> shift & 0xffff) as u32)
    else {
        panic!("{address:#x} takes other instructions");
    };
    let movz = 0xd2ff_ffe0 | register;
    let movk = |block: u32, shift: u32| 0xf280_0000 | shift << 17 | block << 5 | register;
    match middle {
        0 => [movz, movk(low, 0), NOP],
        _ => [movz, movk(middle, 16), movk(low, 0)],
    }
}

fn put(code: &mut [u8], offset: u32, words: &[u32]) {
    for (field, word) in code[offset as usize..].chunks_mut(4).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
}
