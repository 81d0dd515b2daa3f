//! What a kernel runs of a bundle's images, linked at addresses that are the same for every bundle.

use preverify_abi::image::{Conclusions, Extable, Poke};
use preverify_btf::{Btf, Kind};
use preverify_bundle::{Bundle, Image as Sections, Program};
use preverify_image::export::Insn;
use preverify_image::image::Image;
use preverify_image::symbols::{KernelSymbols, SymbolsError};
use preverify_image::{Addresses, MapAddresses, RelinkError, Relinked, relink};
use preverify_target::DeviceSymbols;

/// Where the kernel image, the program's functions, and the rest lie; where exactly does not matter, if JIT compilers can
/// reach it from each other.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const END: u64 = 0xffff_ffff_8500_0000;
const FUNCTIONS: u64 = 0xffff_ffff_8600_0000;
const FUNCTION_ROOM: u64 = 1 << 14;
const MAPS: u64 = 0xffff_8881_2345_1234;
const MAP_ROOM: u64 = 1 << 16;
const PROG_AUX: u64 = 0xffff_c900_0123_4568;

/// A kernel's symbols, as it would tell them there.
pub fn symbols(of: &DeviceSymbols) -> Result<KernelSymbols, SymbolsError> {
    // Images have places in the kernel as they are, but for what bytecode's calls are relative to.
    let call_base = of.get("__bpf_call_base").map(|place| TEXT + place.offset);
    let lines: String = [
        ("_text", Some(TEXT)),
        ("__bpf_call_base", call_base),
        ("_end", Some(END)),
    ]
    .into_iter()
    .filter_map(|(name, address)| Some(format!("{:x} T {name}\n", address?)))
    .collect();
    KernelSymbols::parse(lines)
}

/// An image with addresses in it, and all else that the kernel is told but for tags: parts of names, which are digests of
/// bytecode with distances in the kernel that verified, and with numbers of its types.
#[derive(PartialEq, Eq)]
pub struct Linked {
    code: Vec<Vec<u8>>,
    functions: Vec<Told>,
    conclusions: Conclusions,
    pokes: Vec<Poke>,
    xlated: Vec<Insn>,
}

/// What the kernel is told of a function.
#[derive(PartialEq, Eq)]
struct Told {
    extable: Vec<Extable>,
    stack_depth: u32,
    flags: u32,
}

impl Linked {
    /// What is not the same, or nothing. Programs that ask the verifier for a type hold its number, which is another one in
    /// another build; `types` are those of the kernels that verified this and the other one.
    pub fn difference(&self, other: &Self, types: [&Btf; 2]) -> Option<String> {
        for (index, (a, b)) in self.code.iter().zip(&other.code).enumerate() {
            if let Some(place) = first_difference([a, b], types) {
                return Some(format!("byte {place:#x} of function {index}"));
            }
        }
        let sizes = |linked: &Self| linked.code.iter().map(Vec::len).collect::<Vec<_>>();
        let parts = [
            ("the sizes of functions", sizes(self) == sizes(other)),
            (
                "what is told of functions",
                self.functions == other.functions,
            ),
            ("the conclusions", self.conclusions == other.conclusions),
            ("the tail calls", self.pokes == other.pokes),
            (
                "the translated bytecode",
                self.xlated_is_that_of(other, types),
            ),
        ];
        let differs = parts.into_iter().find(|(_, same)| !same);
        differs.map(|(what, _)| what.to_owned())
    }

    fn xlated_is_that_of(&self, other: &Self, types: [&Btf; 2]) -> bool {
        let [a, b] = [self, other].map(|linked| -> Vec<u8> {
            let insns = linked.xlated.iter();
            insns.flat_map(|insn| insn.to_bytes()).collect()
        });
        a.len() == b.len() && first_difference([&a, &b], types).is_none()
    }
}

/// Where code differs first, if not in the numbers of types.
fn first_difference([a, b]: [&[u8]; 2], types: [&Btf; 2]) -> Option<usize> {
    let mut from = 0;
    while let Some(equal) = a.iter().zip(b).skip(from).position(|(a, b)| a != b) {
        let place = from + equal;
        let starts = place.saturating_sub(3)..=place;
        let number = starts.rev().find(|&start| {
            let [a, b] =
                [(a, types[0]), (b, types[1])].map(|(code, types)| name_at(code, start, types));
            a.is_some() && a == b
        });
        from = match number {
            Some(start) => start + 4,
            None => return Some(place),
        };
    }
    None
}

/// The type whose number stands in code, as the only four bytes of one.
fn name_at<'a>(code: &[u8], start: usize, types: &'a Btf) -> Option<(Kind, &'a str)> {
    let number = u32::from_le_bytes(code.get(start..start + 4)?.try_into().ok()?);
    types.named_type(number)
}

/// Links an image of a program.
pub fn link(
    bundle: &Bundle,
    program: &Program,
    image: Sections,
    symbols: &KernelSymbols,
) -> Result<Linked, RelinkError> {
    let section = |id| bundle.section(id).expect("the bundle was just made");
    let symbol_section = image.symbols.map(section).unwrap_or_default();
    let image =
        Image::parse(section(image.image), symbol_section).expect("the image was just made");
    let places = |start: u64, room: u64| (0..).map(move |index| start + index * room);
    let addresses = Addresses {
        functions: places(FUNCTIONS, FUNCTION_ROOM)
            .take(image.functions.len())
            .collect(),
        maps: places(MAPS, MAP_ROOM)
            .take(program.maps.len())
            .map(|map| MapAddresses {
                map,
                values: Some(map + MAP_ROOM / 2),
            })
            .collect(),
        prog_aux: PROG_AUX,
        symbols,
    };
    let Relinked { functions: code } = relink(&image, &addresses)?;
    let functions = image.functions.into_iter();
    let conclusions = Conclusions {
        tag: Default::default(),
        ..image.conclusions
    };
    Ok(Linked {
        code,
        functions: functions
            .map(|function| Told {
                extable: function.extable,
                stack_depth: function.stack_depth,
                flags: function.flags,
            })
            .collect(),
        conclusions,
        pokes: image.pokes,
        xlated: image.xlated,
    })
}
