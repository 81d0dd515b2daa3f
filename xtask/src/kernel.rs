//! The kernel part as kernel developers look at it: every warning that the kernel's build has, sparse, and checkpatch,
//! for each supported kernel.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use preverify_lab::Lab;

use crate::arch::Arch;
use crate::paths::{target_dir, workspace};
use crate::run::{output, run_command};

/// One target for each supported series and architecture.
pub const TARGETS: [&str; 5] = [
    preverify_lab::TARGET,
    "debian:6.1-cloud-amd64",
    "debian:6.12-cloud-arm64",
    "debian:6.1-arm64",
    "debian:6.1-armmp",
];

/// The most that the device's module may occupy in a kernel: text and data.
const MODULE_LIMIT: u64 = 40_000;

/// Builds both modules with all warnings, which are errors here, for the kernel of a laboratory.
pub fn check(lab: &Lab) -> Result<(), Box<dyn Error>> {
    let release = &lab.target.facts().release;
    let arch = Arch::from(lab.architecture());
    // The kernel's build writes beside the sources.
    let folder = target_dir().join("kernel").join(release);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    copy(&workspace().join("kernel"), &folder)?;
    let mut kdir = std::ffi::OsString::from("KDIR=");
    kdir.push(lab.target.headers());
    let mut make = Command::new("make");
    make.arg("--directory")
        .arg(&folder)
        .arg("--jobs=2")
        .arg(kdir)
        .arg(format!("ARCH={}", arch.in_kernel_builds()))
        .arg(format!("CROSS_COMPILE={}", arch.tools()))
        .args(["W=1", "C=2", "CF=-D__CHECK_ENDIAN__"]);
    let output = make.output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = text
        .lines()
        .filter(|line| line.contains("warning:") || line.contains("error:"))
        .collect();
    if !output.status.success() || !complaints.is_empty() {
        return Err(format!("the kernel part for {release}:\n{text}").into());
    }
    let module = folder.join("bpf_preverified.ko");
    let size = size(arch, &module)?;
    println!(
        "kernel part for {release}: no warning of gcc (W=1) and sparse; the device's module has {} bytes of text and \
         data (limit {MODULE_LIMIT}), and {} of tables that the kernel's build adds",
        size.text_and_data, size.tables
    );
    match size.text_and_data < MODULE_LIMIT {
        true => Ok(()),
        false => Err("the device's module is too large".into()),
    }
}

/// Checks the style of what is not generated, with the script of a kernel's source.
pub fn check_style(linux: &Path) -> Result<(), Box<dyn Error>> {
    let folder = workspace().join("kernel");
    let mut files = Vec::new();
    sources(&folder, &mut files)?;
    run_command(
        Command::new("perl")
            .arg(linux.join("scripts/checkpatch.pl"))
            .args(["--quiet", "--terse", "--file"])
            .args(&files)
            // The options are in .checkpatch.conf there.
            .current_dir(&folder),
    )?;
    println!("checkpatch: {} files, nothing to say", files.len());
    Ok(())
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(std::ffi::OsStr::to_str);
        // What lies in include/ is generated.
        if path.is_dir() && !path.ends_with("include") {
            sources(&path, files)?;
        } else if matches!(extension, Some("c" | "h")) && !path.ends_with("include") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        match path.is_dir() {
            true => copy(&path, &to.join(name))?,
            false => fs::copy(&path, to.join(name)).map(drop)?,
        }
    }
    Ok(())
}

/// Bytes of a module that stay in the kernel.
struct Size {
    /// Text, read-only and other data: what its sources make.
    text_and_data: u64,
    /// What the kernel's build adds for each function and call: unwinding, patching.
    tables: u64,
}

fn size(arch: Arch, module: &Path) -> Result<Size, Box<dyn Error>> {
    const OURS: [&str; 4] = [".text", ".rodata", ".data", ".bss"];
    // Dropped once the module is initialised, or never loaded.
    const GONE: [&str; 7] = [
        ".init",
        ".exit",
        ".modinfo",
        "__versions",
        ".comment",
        ".note",
        ".debug",
    ];
    let mut size = Size {
        text_and_data: 0,
        tables: 0,
    };
    for Section { name, bytes, .. } in sections(arch, module)? {
        let is = |names: &[&str]| names.iter().any(|start| name.starts_with(start));
        if is(&OURS) {
            size.text_and_data += bytes;
        } else if !is(&GONE) {
            size.tables += bytes;
        }
    }
    match size.text_and_data > 0 {
        true => Ok(size),
        false => Err(format!("`size` says nothing about {}", module.display()).into()),
    }
}

/// A section of an ELF file.
pub struct Section {
    pub name: String,
    pub bytes: u64,
    /// Zero if it is in no memory, or if nobody has linked the file yet.
    pub address: u64,
}

/// The sections of an ELF file, as `size` tells them.
pub fn sections(arch: Arch, file: &Path) -> Result<Vec<Section>, Box<dyn Error>> {
    let text = output(
        Command::new(format!("{}size", arch.tools()))
            .arg("--format=sysv")
            .arg(file),
    )?;
    Ok(parse_sections(&text))
}

/// What is no section has fewer words, as the total, or no numbers, as the heads.
fn parse_sections(text: &str) -> Vec<Section> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Section {
                name: words.next()?.to_owned(),
                bytes: words.next()?.parse().ok()?,
                address: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_from_heads_and_total() {
        let text = "vmlinux  :\nsection  size  addr\n.text  100  4096\n__versions  7  8192\n\
                    .debug_info  900  0\nTotal  1007\n";
        let sections: Vec<_> = parse_sections(text)
            .into_iter()
            .map(|section| (section.name, section.bytes, section.address))
            .collect();
        assert_eq!(
            sections,
            [
                (".text".to_owned(), 100, 4096),
                ("__versions".to_owned(), 7, 8192),
                (".debug_info".to_owned(), 900, 0),
            ]
        );
    }
}
