//! The code of a bundle's programs, as people read it.

use std::io::{self, Write};

use preverify_image::Line;
use preverify_pipeline::ImageKind;
use preverify_report::Code;

use super::words::counted;
use crate::output::{FAINT, GOOD, STRONG, shown};

/// Bytes of an instruction of bytecode.
const INSN_SIZE: usize = 8;

/// Bytes of an instruction that stand beside it; few have more.
const SHOWN_BYTES: usize = 10;

/// Writes the code of programs.
pub fn write(programs: &[Code<'_>], out: &mut dyn Write) -> io::Result<()> {
    for (number, code) in programs.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write_code(code, out)?;
    }
    Ok(())
}

fn write_code(code: &Code<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{STRONG}{}{STRONG:#} for {}: {}, {}",
        shown(&code.program.function),
        shown(&code.target.release),
        code.kind,
        counted(code.image.functions.len(), "function"),
    )?;
    let mut function = None;
    for line in &code.lines {
        if function != Some(line.function) {
            function = Some(line.function);
            write_function(code, line.function, out)?;
        }
        write_line(code, line, out)?;
    }
    Ok(())
}

fn write_function(code: &Code<'_>, number: usize, out: &mut dyn Write) -> io::Result<()> {
    let function = &code.image.functions[number];
    writeln!(
        out,
        "\n{STRONG}function {number}{STRONG:#}, {} bytes, tag {}",
        function.code.len(),
        hex::encode(function.tag),
    )
}

fn write_line(code: &Code<'_>, line: &Line, out: &mut dyn Write) -> io::Result<()> {
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
    match code.kind {
        ImageKind::Native => write!(out, "{:6x}", line.offset)?,
        // As bpftool counts, and as jumps do.
        ImageKind::Bytecode => write!(out, "{:6}", line.offset / INSN_SIZE)?,
    }
    write!(
        out,
        "  {FAINT}{bytes:width$}{FAINT:#} {style}{text}{style:#}"
    )?;
    for note in code.notes(line) {
        write!(out, "  {FAINT}; {note}{FAINT:#}")?;
    }
    writeln!(out)
}
