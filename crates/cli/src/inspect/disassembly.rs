//! The machine code of a bundle's programs, with names in the place of addresses.

use std::io::{self, Write};

use preverify_bundle::{Bundle, Program, Target};
use preverify_image::image::Image;
use preverify_image::{Line, disassemble};

use super::words::counted;
use crate::images::{self, ImageProblem};
use crate::output::{FAINT, GOOD, STRONG, shown};

/// Bytes of an instruction that stand beside it; few have more.
const SHOWN_BYTES: usize = 10;

/// Programs with their code.
pub struct Listing<'a> {
    programs: Vec<Entry<'a>>,
}

struct Entry<'a> {
    target: &'a Target,
    program: &'a Program,
    image: Image,
    lines: Vec<Line>,
}

impl<'a> Listing<'a> {
    /// All programs of a bundle, or those of one name (a bundle for several targets has several).
    pub fn new(bundle: &'a Bundle, name: Option<&str>) -> Result<Self, ImageProblem> {
        let mut programs = Vec::new();
        for target in &bundle.manifest().targets {
            let chosen = |program: &&Program| {
                name.is_none_or(|name| program.function == name || program.name == name)
            };
            for program in target.programs.iter().filter(chosen) {
                let Some(native) = program.native else {
                    continue;
                };
                let image = images::parse(bundle, target, program, native)?;
                let names: Vec<_> = program
                    .maps
                    .iter()
                    .filter_map(|&map| Some(&*target.maps.get(map as usize)?.full_name))
                    .collect();
                programs.push(Entry {
                    target,
                    program,
                    lines: disassemble(&image, &names),
                    image,
                });
            }
        }
        Ok(Self { programs })
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
            "{STRONG}{}{STRONG:#} for {}: {}",
            shown(&self.program.function),
            shown(&self.target.release),
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
        write!(
            out,
            "{:6x}  {FAINT}{bytes:width$}{FAINT:#} {style}{text}{style:#}",
            line.offset
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

/// The names that programs can be chosen by.
pub fn programs(bundle: &Bundle) -> Vec<String> {
    let targets = &bundle.manifest().targets;
    let mut names: Vec<_> = targets
        .iter()
        .flat_map(|target| &target.programs)
        .map(|program| program.function.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}
