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

#[cfg(test)]
mod tests {
    use preverify_image::At;
    use preverify_image::image::TooLarge;

    use super::*;

    fn export() -> Export {
        Export {
            name: "program".into(),
            prog_type: 6,
            expected_attach_type: 37,
            attach_btf_id: 0,
            obstacles: 0,
            arch: 62,
            va_bits: 48,
            conclusions: Default::default(),
            aux_address: 0,
            text_address: 0,
            functions: Vec::new(),
            pokes: Vec::new(),
            xlated: Vec::new(),
            maps: Vec::new(),
        }
    }

    fn sections() -> Result<Sections, Problem> {
        Ok(Sections {
            image: vec![1],
            symbols: vec![2],
        })
    }

    fn at(instruction: &str) -> Box<At> {
        Box::new(At {
            program: "program".into(),
            function: 0,
            offset: 8,
            instruction: instruction.into(),
        })
    }

    fn coincidence() -> Problem {
        let at = at("r1 = 0x1000");
        let meaning = "map 0".into();
        Problem::Discover(DiscoverError::SameAddress {
            at,
            address: 0x1000,
            meaning,
        })
    }

    fn stray(instruction: &str) -> Problem {
        let (at, role) = (at(instruction), "it is nobody's");
        Problem::Discover(DiscoverError::UnknownAddress {
            at,
            a: 1,
            b: 2,
            role,
        })
    }

    fn too_large() -> Problem {
        Problem::TooLarge(TooLarge::Size { size: 1 << 30 })
    }

    fn discovered(
        native: Option<Result<Sections, Problem>>,
        bytecode: Result<Sections, Problem>,
    ) -> Discovered {
        Discovered {
            function: "count".into(),
            exports: [export(), export()],
            native,
            bytecode,
        }
    }

    #[test]
    fn one_image_is_enough_and_the_other_is_noted() {
        let all = vec![
            discovered(Some(sections()), sections()),
            discovered(Some(Err(too_large())), sections()),
            discovered(Some(sections()), Err(too_large())),
            // On 32-bit arm, nobody looks for machine code.
            discovered(None, sections()),
        ];
        let (chosen, notes) = choose(all).unwrap();
        let images: Vec<_> = chosen
            .iter()
            .map(|program| (program.native.is_some(), program.bytecode.is_some()))
            .collect();
        assert_eq!(
            images,
            [(true, true), (false, true), (true, false), (false, true)]
        );
        let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0]
                .starts_with("`count` is carried without machine code: the image has 1073741824"),
            "{notes:?}"
        );
        assert!(notes[1].contains("without bytecode: "), "{notes:?}");
    }

    #[test]
    fn without_any_image_a_program_is_refused() {
        let refusal = |native, bytecode| {
            let all = vec![
                discovered(native, Err(bytecode)),
                discovered(None, sections()),
            ];
            choose(all).err().unwrap().to_string()
        };
        let message = refusal(Some(Err(too_large())), coincidence());
        assert!(message.contains("1 of its programs"), "{message}");
        assert!(
            message.contains("`count`: no machine code can be made of it (the image has"),
            "{message}"
        );
        assert!(message.contains("and no bytecode (program"), "{message}");
        // What is the same for both is said once.
        let message = refusal(Some(Err(too_large())), too_large());
        assert!(message.contains("`count`: the image has"), "{message}");
        let message = refusal(Some(Err(stray("mov rdi, 0x1"))), stray("r1 = 0x1"));
        assert!(message.contains("`r1 = 0x1`"), "{message}");
        assert!(!message.contains("mov"), "{message}");
        let message = refusal(None, too_large());
        assert!(message.contains("`count`: the image has"), "{message}");
    }

    #[test]
    fn only_coincidences_are_worth_another_try() {
        for (native, bytecode, expected) in [
            (Some(sections()), sections(), false),
            (Some(Err(coincidence())), sections(), true),
            (None, Err(coincidence()), true),
            (Some(Err(too_large())), Err(stray("r1 = 0x1")), false),
        ] {
            assert_eq!(discovered(native, bytecode).depends_on_layout(), expected);
        }
    }
}
