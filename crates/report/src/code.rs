//! The code of a bundle's programs, with names in the place of addresses.

use preverify_bundle::{Bundle, Program, Target};
use preverify_image::image::Image;
use preverify_image::{Line, disassemble};
use preverify_pipeline::ImageKind;

use crate::images::{self, ImageProblem};

/// The code of one program for one target.
#[derive(Clone, Debug)]
pub struct Code<'a> {
    /// The target.
    pub target: &'a Target,
    /// The program.
    pub program: &'a Program,
    /// Which of its images it is.
    pub kind: ImageKind,
    /// The image.
    pub image: Image,
    /// Its code, all functions one behind the other.
    pub lines: Vec<Line>,
}

/// All programs of a bundle, or those of one name (a bundle for several targets has several).
pub fn programs<'a>(bundle: &'a Bundle, name: Option<&str>) -> Vec<(&'a Target, &'a Program)> {
    let targets = bundle.manifest().targets.iter();
    let all = targets.flat_map(|target| target.programs.iter().map(move |found| (target, found)));
    all.filter(|(_, program)| {
        name.is_none_or(|name| program.function == name || program.name == name)
    })
    .collect()
}

/// The names that programs can be chosen by.
pub fn names(bundle: &Bundle) -> Vec<String> {
    let programs = programs(bundle, None).into_iter();
    let mut names: Vec<_> = programs
        .map(|(_, program)| program.function.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

impl<'a> Code<'a> {
    /// The code of programs of a kind; if it is left open, machine code where there is some, else bytecode. What has none is
    /// left out.
    pub fn of(
        bundle: &Bundle,
        programs: &[(&'a Target, &'a Program)],
        wanted: Option<ImageKind>,
    ) -> Result<Vec<Self>, ImageProblem> {
        let mut all = Vec::new();
        for &(target, program) in programs {
            let mut images = images::of(program);
            let found = images.find(|&(kind, _)| wanted.is_none_or(|wanted| kind == wanted));
            let Some((kind, sections)) = found else {
                continue;
            };
            let image = images::parse(bundle, target, program, kind, sections)?;
            let names: Vec<_> = program
                .maps
                .iter()
                .filter_map(|&map| Some(&*target.maps.get(map as usize)?.full_name))
                .collect();
            all.push(Self {
                target,
                program,
                kind,
                lines: disassemble(&image, &names),
                image,
            });
        }
        Ok(all)
    }

    /// What the bytes of one of its lines do not say.
    pub fn notes(&self, line: &Line) -> Vec<String> {
        let here = |offset: u32| offset as usize == line.offset;
        let function = &self.image.functions[line.function];
        let mut notes = Vec::new();
        if self.kind == ImageKind::Bytecode {
            if line.bytes.first().is_some_and(|&code| may_fault(code)) {
                notes.push("faults are handled".to_owned());
            }
            return notes;
        }
        if function
            .extable
            .iter()
            .any(|entry| here(entry.offset.get()))
        {
            notes.push("faults are handled".to_owned());
        }
        for (number, poke) in self.image.pokes.iter().enumerate() {
            if poke.function.get() as usize != line.function {
                continue;
            }
            if here(poke.target.get()) {
                notes.push(format!("patched: tail call {number}, key {}", poke.key));
            }
            if here(poke.bypass.get()) {
                notes.push(format!("patched: around tail call {number}"));
            }
        }
        notes
    }
}

/// Whether an instruction of bytecode is a load that the JIT guards (`BPF_PROBE_MEM`,
/// `BPF_PROBE_MEMSX`).
fn may_fault(code: u8) -> bool {
    const LDX: u8 = 0x01;
    code & 0x07 == LDX && matches!(code & 0xe0, 0x20 | 0x40)
}
