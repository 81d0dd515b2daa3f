//! The images of a bundle, held against its manifest.

use preverify_abi::NONE;
use preverify_bundle::{Bundle, Program, SectionId, Target};
use preverify_image::image::{Image, ImageError, Target as Meant};

/// Reads an image of a program and checks what only the manifest knows.
pub fn parse(
    bundle: &Bundle,
    target: &Target,
    program: &Program,
    sections: preverify_bundle::Image,
) -> Result<Image, ImageProblem> {
    let problem = |kind| ImageProblem {
        program: program.function.clone(),
        section: sections.image,
        source: Box::new(kind),
    };
    let symbols = sections
        .symbols
        .and_then(|symbols| bundle.section(symbols))
        .ok_or_else(|| problem(ProblemKind::NoSymbols))?;
    let image = bundle.section(sections.image).unwrap_or_default();
    let image = Image::parse(image, symbols)
        .map_err(ProblemKind::Malformed)
        .and_then(|image| check(&image, target, program).map(|()| image));
    image.map_err(problem)
}

fn check(image: &Image, target: &Target, program: &Program) -> Result<(), ProblemKind> {
    let expected = target.fingerprint.arch.get();
    if image.machine.number() != expected {
        return Err(ProblemKind::Machine {
            expected,
            found: image.machine.number(),
        });
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
#[error("the image of program {program} (section {section}) does not hold")]
pub struct ImageProblem {
    program: String,
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
    #[error("expected code for ELF machine {expected}, as the target, found code for {found}")]
    Machine { expected: u32, found: u32 },
    #[error("it refers to map {map}, but the program has {count}")]
    Map { map: u32, count: usize },
}
