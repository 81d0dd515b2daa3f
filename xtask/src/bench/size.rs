//! What a kernel without the verifier, the JIT compiler and BTF saves.

use std::error::Error;
use std::fs;
use std::process::Command;

use super::{results, write};
use crate::arch::Arch;
use crate::linux::{self, Built, Role};
use crate::run::output;

/// The kernels, each with one thing less than the one before.
const ROWS: [(Role, &str); 4] = [
    (Role::Stock, "stock"),
    (Role::NoVerifier, "without the verifier"),
    (Role::NoCompiler, "and without the JIT compiler"),
    (Role::Device, "and without BTF"),
];

struct Row {
    what: &'static str,
    /// The bootable file.
    image: u64,
    text: u64,
    /// What the kernel occupies in memory before it allocates anything.
    resident: u64,
    /// BTF, as it lies in memory.
    btf: u64,
}

/// Measures kernels of an architecture; builds those that are not there.
pub fn size(arch: Arch) -> Result<(), Box<dyn Error>> {
    let rows = ROWS
        .into_iter()
        .map(|(role, what)| row(&linux::build(role, arch)?, what, arch))
        .collect::<Result<Vec<_>, _>>()?;
    let text = report(&rows, arch);
    println!("\n{text}");
    write(&results()?.join(format!("size-{arch}.md")), &text)
}

fn row(kernel: &Built, what: &'static str, arch: Arch) -> Result<Row, Box<dyn Error>> {
    let printed = output(
        Command::new(format!("{}size", arch.tools()))
            .arg("--format=sysv")
            .arg(kernel.vmlinux()),
    )?;
    let sections = sections(&printed);
    let of = |names: &[&str]| -> u64 {
        let named = sections.iter().filter(|(name, _)| names.contains(name));
        named.map(|(_, size)| size).sum()
    };
    let text = of(&[".text"]);
    if text == 0 {
        return Err(format!("`size` says nothing about {}", kernel.vmlinux().display()).into());
    }
    Ok(Row {
        what,
        image: fs::metadata(kernel.image())?.len(),
        text,
        resident: sections
            .iter()
            .filter(|(name, _)| stays(name))
            .map(|(_, size)| size)
            .sum(),
        btf: of(&[".BTF"]),
    })
}

/// The sections of `size --format=sysv`: names and bytes.
fn sections(printed: &str) -> Vec<(&str, u64)> {
    printed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, size, address) = (words.next()?, words.next()?, words.next()?);
            // What has no address is in no memory.
            let loaded = address != "0";
            name.starts_with('.').then_some(())?;
            Some((name, size.parse().ok()?)).filter(|_| loaded)
        })
        .collect()
}

/// Whether a section stays in memory after the boot.
fn stays(name: &str) -> bool {
    !name.contains("init") && !name.starts_with(".exit") && !name.contains("alt")
}

fn report(rows: &[Row], arch: Arch) -> String {
    let mut text = format!(
        "# What a kernel saves\n\n`cargo xtask bench size --arch {arch}`: Linux 6.12 with the options of `kernel/configs`, \
         gcc's `-O2`, the bootable file packed with gzip. Bytes; `text` is the section of that name, `in memory` is all that stays \
         there after the boot, before anything is allocated, `BTF` is part of that.\n\n\
         | kernel | bootable file | text | in memory | BTF |\n|---|--:|--:|--:|--:|\n"
    );
    for row in rows {
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            row.what, row.image, row.text, row.resident, row.btf
        );
    }
    if let [first, .., last] = rows {
        text += &format!(
            "| saved | {} | {} | {} | {} |\n",
            first.image.saturating_sub(last.image),
            first.text.saturating_sub(last.text),
            first.resident.saturating_sub(last.resident),
            first.btf.saturating_sub(last.btf)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_without_addresses_are_in_no_memory() {
        let printed = "vmlinux  :\nsection  size  addr\n.text  100  4096\n.init.text  7  8192\n\
                       .debug_info  900  0\n.BTF  50  9000\nTotal  1057\n";
        let sections = sections(printed);
        assert_eq!(sections, [(".text", 100), (".init.text", 7), (".BTF", 50)]);
        let resident: u64 = sections
            .iter()
            .filter(|(name, _)| stays(name))
            .map(|(_, size)| size)
            .sum();
        assert_eq!(resident, 150);
    }
}
