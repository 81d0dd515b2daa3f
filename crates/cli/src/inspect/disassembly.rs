//! The code of a bundle's programs, with names in the place of addresses.

use std::io::{self, Write};

use preverify_bundle::{Bundle, Program, Target};
use preverify_image::image::Image;
use preverify_image::{Line, disassemble};
use preverify_pipeline::ImageKind;

use super::words::counted;
use crate::images::{self, ImageProblem};
use crate::output::{FAINT, GOOD, STRONG, shown};

/// Bytes of an instruction of bytecode.
const INSN_SIZE: usize = 8;

/// Bytes of an instruction that stand beside it; few have more.
const SHOWN_BYTES: usize = 10;

/// Programs with their code.
pub struct Listing<'a> {
    programs: Vec<Entry<'a>>,
}

struct Entry<'a> {
    target: &'a Target,
    program: &'a Program,
    kind: ImageKind,
    image: Image,
    lines: Vec<Line>,
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

impl<'a> Listing<'a> {
    /// The programs' images of a kind; if it is left open, machine code where there is some, else
    /// bytecode.
    pub fn new(
        bundle: &Bundle,
        programs: &[(&'a Target, &'a Program)],
        wanted: Option<ImageKind>,
    ) -> Result<Self, ImageProblem> {
        let mut entries = Vec::new();
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
            entries.push(Entry {
                target,
                program,
                kind,
                lines: disassemble(&image, &names),
                image,
            });
        }
        Ok(Self { programs: entries })
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Writes the code.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (number, entry) in self.programs.iter().enumerate() {
            if number > 0 {
                writeln!(out)?;
            }
            entry.write(out)?;
        }
        Ok(())
    }
}

impl Entry<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{STRONG}{}{STRONG:#} for {}: {}, {}",
            shown(&self.program.function),
            shown(&self.target.release),
            self.kind,
            counted(self.image.functions.len(), "function"),
        )?;
        let mut function = None;
        for line in &self.lines {
            if function != Some(line.function) {
                function = Some(line.function);
                self.write_function(line.function, out)?;
            }
            self.write_line(line, out)?;
        }
        Ok(())
    }

    fn write_function(&self, number: usize, out: &mut dyn Write) -> io::Result<()> {
        let function = &self.image.functions[number];
        writeln!(
            out,
            "\n{STRONG}function {number}{STRONG:#}, {} bytes, tag {}",
            function.code.len(),
            hex::encode(function.tag),
        )
    }

    fn write_line(&self, line: &Line, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes: String = line
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x} "))
            .collect();
        if line.bytes.len() > SHOWN_BYTES {
            bytes.truncate(SHOWN_BYTES * 3 - 3);
            bytes.push_str("..");
        }
        let width = SHOWN_BYTES * 3;
        let style = match line.relocation {
            Some(_) => GOOD,
            None => anstyle::Style::new(),
        };
        let text = shown(&line.text);
        match self.kind {
            ImageKind::Native => write!(out, "{:6x}", line.offset)?,
            // As bpftool counts, and as jumps do.
            ImageKind::Bytecode => write!(out, "{:6}", line.offset / INSN_SIZE)?,
        }
        write!(
            out,
            "  {FAINT}{bytes:width$}{FAINT:#} {style}{text}{style:#}"
        )?;
        for note in self.notes(line) {
            write!(out, "  {FAINT}; {note}{FAINT:#}")?;
        }
        writeln!(out)
    }

    /// What the bytes do not say.
    fn notes(&self, line: &Line) -> Vec<String> {
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
