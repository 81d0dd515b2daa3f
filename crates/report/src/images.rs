//! The images of a bundle, held against its manifest.

use preverify_abi::NONE;
use preverify_abi::kinds::Architecture;
use preverify_bundle::{Bundle, Program, SectionId, Target};
use preverify_image::image::{Image, ImageError, Machine, Target as Meant};
use preverify_pipeline::ImageKind;

/// The sections of a program's images, with their kinds.
pub fn of(program: &Program) -> impl Iterator<Item = (ImageKind, preverify_bundle::Image)> {
    let images = [
        (ImageKind::Native, program.native),
        (ImageKind::Bytecode, program.bytecode),
    ];
    images
        .into_iter()
        .filter_map(|(kind, sections)| Some((kind, sections?)))
}

/// Reads an image of a program and checks what only the manifest knows.
pub fn parse(
    bundle: &Bundle,
    target: &Target,
    program: &Program,
    kind: ImageKind,
    sections: preverify_bundle::Image,
) -> Result<Image, ImageProblem> {
    let problem = |problem| ImageProblem {
        program: program.function.clone(),
        kind,
        section: sections.image,
        source: Box::new(problem),
    };
    let symbols = sections
        .symbols
        .and_then(|symbols| bundle.section(symbols))
        .ok_or_else(|| problem(ProblemKind::NoSymbols))?;
    let image = bundle.section(sections.image).unwrap_or_default();
    let image = Image::parse(image, symbols)
        .map_err(ProblemKind::Malformed)
        .and_then(|image| check(&image, kind, target, program).map(|()| image));
    image.map_err(problem)
}

fn check(
    image: &Image,
    kind: ImageKind,
    target: &Target,
    program: &Program,
) -> Result<(), ProblemKind> {
    let arch = target.fingerprint.arch.get();
    let found = image.machine;
    match (kind, found) {
        (ImageKind::Native, Machine::Bpf) => return Err(ProblemKind::NotNative),
        (ImageKind::Native, _) if found.number() != arch => {
            return Err(ProblemKind::Machine {
                expected: Architecture(arch),
                found: Architecture(found.number()),
            });
        }
        (ImageKind::Bytecode, Machine::Bpf) | (ImageKind::Native, _) => {}
        (ImageKind::Bytecode, _) => return Err(ProblemKind::NotBytecode),
    }
    let relocations = image.functions.iter().flat_map(|function| &function.relocs);
    let relocated = relocations.filter_map(|reloc| match reloc.target {
        Meant::Map(map) | Meant::MapValue(map) => Some(map),
        _ => None,
    });
    let tail_called = image.pokes.iter().map(|poke| poke.map.get());
    let storage = image.conclusions.cgroup_storage;
    let storage = storage
        .into_iter()
        .map(|map| map.get())
        .filter(|&map| map != NONE);
    let count = program.maps.len();
    let unknown = relocated
        .chain(tail_called)
        .chain(storage)
        .find(|&map| map as usize >= count);
    unknown.map_or(Ok(()), |map| Err(ProblemKind::Map { map, count }))
}

/// What is wrong with a program's image.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} of program {program} (section {section}) does not hold")]
pub struct ImageProblem {
    program: String,
    kind: ImageKind,
    section: SectionId,
    // Its causes are long; results that are fine stay small.
    source: Box<ProblemKind>,
}

#[derive(Debug, thiserror::Error)]
enum ProblemKind {
    #[error(transparent)]
    Malformed(ImageError),
    #[error("it comes without its symbols")]
    NoSymbols,
    #[error("expected machine code, found an image of bytecode")]
    NotNative,
    #[error("expected an image of bytecode, found one of machine code")]
    NotBytecode,
    #[error("expected code for {expected}, as the target, found code for {found}")]
    Machine {
        expected: Architecture,
        found: Architecture,
    },
    #[error("it refers to map {map}, but the program has {count}")]
    Map { map: u32, count: usize },
}
