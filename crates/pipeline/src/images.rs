//! The images of accepted programs: found in both boots, and proved against both.

use std::fmt;

use preverify_image::export::Export;
use preverify_image::image::{Image, Machine, Sections};
use preverify_image::symbols::KernelSymbols;
use preverify_image::{Capture, DiscoverError, Proof};
use preverify_protocol::Loaded;

use crate::error::{BuildError, Problem, ProgramProblem};

/// A program with its proved images: at least one.
#[derive(Debug)]
pub struct VerifiedProgram {
    /// What the kernel part exported in the first boot.
    pub export: Export,
    /// Machine code.
    pub native: Option<ProvedImage>,
    /// Verified bytecode.
    pub bytecode: Option<ProvedImage>,
}

impl VerifiedProgram {
    /// Its images, with their kinds.
    pub fn images(&self) -> impl Iterator<Item = (ImageKind, &ProvedImage)> {
        let images = [
            (ImageKind::Native, &self.native),
            (ImageKind::Bytecode, &self.bytecode),
        ];
        images
            .into_iter()
            .filter_map(|(kind, image)| Some((kind, image.as_ref()?)))
    }
}

/// An image that is what both kernels have.
#[derive(Debug)]
pub struct ProvedImage {
    /// The image.
    pub sections: Sections,
    /// What was proved.
    pub proof: Proof,
}

/// An image that could not be made, of a program that has its other one.
#[derive(Debug)]
pub struct Note {
    /// The name of the program's function.
    pub program: String,
    /// Which image.
    pub image: ImageKind,
    /// Why there is none.
    pub problem: Problem,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            image,
            problem,
        } = self;
        write!(f, "`{program}` is carried without {image}: {problem}")
    }
}

/// The two kinds of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Machine code.
    Native,
    /// Verified bytecode.
    Bytecode,
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "machine code",
            Self::Bytecode => "bytecode",
        })
    }
}

/// A program that both boots exported, and the images that were looked for.
pub(crate) struct Discovered {
    function: String,
    exports: [Export; 2],
    /// None where there is no machine code to look at: on architectures without native images.
    native: Option<Result<Sections, Problem>>,
    bytecode: Result<Sections, Problem>,
}

impl Discovered {
    /// Whether an image is missing that there may be once the program's maps lie elsewhere.
    pub(crate) fn depends_on_layout(&self) -> bool {
        let images = [self.native.as_ref(), Some(&self.bytecode)];
        images.into_iter().flatten().any(|image| match image {
            Err(Problem::Discover(error)) => error.depends_on_layout(),
            _ => false,
        })
    }
}

/// A program with the images that it will have.
pub(crate) struct Chosen {
    function: String,
    exports: [Export; 2],
    native: Option<Sections>,
    bytecode: Option<Sections>,
}

/// Looks for the images of all programs of an object that was loaded in two boots.
pub(crate) fn discover(
    loaded: [&Loaded; 2],
    symbols: [&KernelSymbols; 2],
) -> Result<Vec<Discovered>, BuildError> {
    let [first, second] = loaded;
    let pairs = first.programs.iter().zip(&second.programs);
    all_programs(pairs.map(|(program, again)| {
        let parse = |export: &Option<Vec<u8>>| {
            let export = export.as_deref().ok_or(Problem::NoExport)?;
            Ok::<_, Problem>(Export::parse(export)?)
        };
        let exports = parse(&program.export).and_then(|first| Ok([first, parse(&again.export)?]));
        let discovered = exports.map(|exports| {
            let [first, second] = captures(&exports, symbols);
            let sections = |found: Result<Image, DiscoverError>| Ok(found?.to_sections()?);
            let native = Machine::native(first.export.arch).is_some();
            Discovered {
                native: native.then(|| sections(preverify_image::discover(first, second))),
                bytecode: sections(preverify_image::discover_bytecode(first, second)),
                function: program.function.clone(),
                exports,
            }
        });
        (program.function.clone(), discovered)
    }))
}

/// Takes the images that there are, and notes which are missing; programs without any are refused.
pub(crate) fn choose(discovered: Vec<Discovered>) -> Result<(Vec<Chosen>, Vec<Note>), BuildError> {
    let mut notes = Vec::new();
    let chosen = all_programs(discovered.into_iter().map(|program| {
        let Discovered {
            function,
            exports,
            native,
            bytecode,
        } = program;
        let mut note = |image, problem| {
            notes.push(Note {
                program: function.clone(),
                image,
                problem,
            });
            None
        };
        let images = match (native, bytecode) {
            (Some(Err(native)), Err(bytecode)) => Err(Problem::no_image(native, bytecode)),
            (None, Err(bytecode)) => Err(bytecode),
            (Some(Err(problem)), Ok(bytecode)) => {
                Ok((note(ImageKind::Native, problem), Some(bytecode)))
            }
            (Some(Ok(native)), Err(problem)) => {
                Ok((Some(native), note(ImageKind::Bytecode, problem)))
            }
            (native, Ok(bytecode)) => Ok((native.and_then(Result::ok), Some(bytecode))),
        };
        let chosen = images.map(|(native, bytecode)| Chosen {
            function: function.clone(),
            exports,
            native,
            bytecode,
        });
        (function, chosen)
    }))?;
    Ok((chosen, notes))
}

/// Relinks all images for both boots and compares them with what those have.
pub(crate) fn prove(
    chosen: Vec<Chosen>,
    symbols: [&KernelSymbols; 2],
) -> Result<Vec<VerifiedProgram>, BuildError> {
    all_programs(chosen.into_iter().map(|program| {
        let Chosen {
            function,
            exports,
            native,
            bytecode,
        } = program;
        let prove = |sections: Option<Sections>| {
            let Some(sections) = sections else {
                return Ok(None);
            };
            let [first, second] = captures(&exports, symbols);
            preverify_image::prove(&sections, first)?;
            let proof = preverify_image::prove(&sections, second)?;
            Ok::<_, Problem>(Some(ProvedImage { sections, proof }))
        };
        let images = prove(native).and_then(|native| Ok((native, prove(bytecode)?)));
        let verified = images.map(|(native, bytecode)| {
            let [export, _] = exports;
            VerifiedProgram {
                export,
                native,
                bytecode,
            }
        });
        (function, verified)
    }))
}

fn captures<'a>(exports: &'a [Export; 2], symbols: [&'a KernelSymbols; 2]) -> [Capture<'a>; 2] {
    [0, 1].map(|boot| Capture {
        export: &exports[boot],
        symbols: symbols[boot],
    })
}

/// The results of all programs, or the problems of all that have some.
fn all_programs<T>(
    programs: impl Iterator<Item = (String, Result<T, Problem>)>,
) -> Result<Vec<T>, BuildError> {
    let mut done = Vec::new();
    let mut problems = Vec::new();
    for (program, result) in programs {
        match result {
            Ok(result) => done.push(result),
            Err(problem) => problems.push(ProgramProblem { program, problem }),
        }
    }
    if problems.is_empty() {
        Ok(done)
    } else {
        Err(BuildError::Programs(problems))
    }
}
