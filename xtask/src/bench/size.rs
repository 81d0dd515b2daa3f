//! What a kernel without the verifier, the JIT compiler and BTF saves.

use std::error::Error;
use std::fs;

use super::{results, write};
use crate::arch::Arch;
use crate::kernel::{Section, sections};
use crate::linux::{self, Built, Role};

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
    let sections = sections(arch, &kernel.vmlinux())?;
    let total = |counts: &dyn Fn(&Section) -> bool| -> u64 {
        let counting = sections.iter().filter(|section| counts(section));
        counting.map(|section| section.bytes).sum()
    };
    let text = total(&|section| section.name == ".text");
    if text == 0 {
        return Err(format!("`size` says nothing about {}", kernel.vmlinux().display()).into());
    }
    Ok(Row {
        what,
        image: fs::metadata(kernel.image())?.len(),
        text,
        resident: total(&stays),
        btf: total(&|section| section.name == ".BTF"),
    })
}

/// Whether a section is in memory after the boot.
fn stays(section: &Section) -> bool {
    let Section { name, address, .. } = section;
    let dropped = name.contains("init") || name.starts_with(".exit") || name.contains("alt");
    // What has no address is in no memory.
    *address != 0 && name.starts_with('.') && !dropped
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
    fn what_is_dropped_and_what_has_no_address_does_not_stay() {
        for (name, address, expected) in [
            (".text", 4096, true),
            (".BTF", 9000, true),
            (".init.text", 8192, false),
            (".debug_info", 0, false),
        ] {
            let section = Section {
                name: name.to_owned(),
                bytes: 1,
                address,
            };
            assert_eq!(stays(&section), expected, "{name}");
        }
    }
}
