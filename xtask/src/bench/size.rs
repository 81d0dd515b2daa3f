//! What a kernel without the verifier, the JIT compiler and BTF saves.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use preverify_bench::{Loads, Measurement};
use preverify_lab::{Lab, file};
use preverify_pipeline::Object;
use preverify_target::DeviceOptions;

use super::{BENCH, results, selftest, write};
use crate::arch::Arch;
use crate::artifacts;
use crate::kernel::{Section, sections};
use crate::linux::{self, Built, Role};
use crate::run::at;

/// The kernels, each with one thing less than the one before.
const ROWS: [(Role, &str); 4] = [
    (Role::Stock, "stock"),
    (Role::NoVerifier, "without the verifier"),
    (Role::NoCompiler, "and without the JIT compiler"),
    (Role::Device, "and without BTF"),
];

/// A large program, which verifiers find hard.
const PROGRAM: (&str, &str) = ("pyperf180", "on_event");
const TEXT: &str = ".text";
const LOAD_RUNS: &str = "20";
const LIMIT: Duration = Duration::from_secs(900);

struct Row {
    what: &'static str,
    /// The bootable file.
    image: u64,
    /// Functions, without what lies between them: sections are padded to pages of 2 MiB on some architectures.
    text: u64,
    rodata: u64,
    /// What the kernel occupies in memory before it allocates anything.
    resident: u64,
    /// BTF, as it lies in memory.
    btf: u64,
    peak: Peak,
}

/// What loading the program took.
struct Peak {
    /// The most memory.
    bytes: u64,
    /// Bytes of the image that was loaded, unless the kernel made it of the object.
    image: Option<usize>,
}

/// Measures kernels of an architecture; builds those that are not there.
pub fn size(arch: Arch) -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[arch])?;
    let mut rows = Vec::new();
    for (role, what) in ROWS {
        let lab = linux::lab(role, arch, &binaries)?;
        let peak = match role {
            Role::Stock => peak_of_stock(&lab, arch)?,
            _ => peak_of_bundle(&lab, arch)?,
        };
        rows.push(row(&linux::build(role, arch)?, what, arch, peak)?);
    }
    let text = report(&rows, arch);
    println!("\n{text}");
    write(&results()?.join(format!("size-{arch}.md")), &text)
}

fn device(arch: Arch) -> Result<DeviceOptions, Box<dyn Error>> {
    Ok(DeviceOptions {
        memory_mib: Some(1024),
        cpus: Some(1),
        files: vec![file(BENCH, 0o755, &artifacts::bench(arch)?)],
        ..DeviceOptions::default()
    })
}

/// What the kernel of devices takes to verify and compile the program.
fn peak_of_stock(lab: &Lab, arch: Arch) -> Result<Peak, Box<dyn Error>> {
    const OBJECT: &str = "/tmp/program.bpf.o";
    let mut options = device(arch)?;
    options.kernel = lab.device_kernel().map(Into::into);
    let mut device = lab.boot_verifying(options)?;
    let object = selftest(arch, PROGRAM.0)?;
    device.put(OBJECT, 0o644, fs::read(&object).map_err(at(&object))?)?;
    let text = device.run_within(&[BENCH, "stock", OBJECT, PROGRAM.1], LIMIT)?;
    let loads: Loads = serde_json::from_str(&text)?;
    Ok(Peak {
        bytes: loads.peak,
        image: None,
    })
}

/// What it takes to load the program's machine code.
fn peak_of_bundle(lab: &Lab, arch: Arch) -> Result<Peak, Box<dyn Error>> {
    const BUNDLE: &str = "/tmp/program.pvb";
    let verified = lab.verify(&Object::read(&selftest(arch, PROGRAM.0)?)?)?;
    let mut device = lab.boot(device(arch)?)?;
    device.put(BUNDLE, 0o644, lab.bundle(&verified)?.to_bytes())?;
    let text = device.run_within(&[BENCH, "bundle", BUNDLE, PROGRAM.1, LOAD_RUNS], LIMIT)?;
    let measurement: Measurement = serde_json::from_str(&text)?;
    let native = measurement.native.ok_or("there is no machine code")?;
    Ok(Peak {
        bytes: native.loads.peak,
        image: Some(native.bytes),
    })
}

fn row(kernel: &Built, what: &'static str, arch: Arch, peak: Peak) -> Result<Row, Box<dyn Error>> {
    let sections = sections(arch, &kernel.vmlinux())?;
    let total = |counts: &dyn Fn(&Section) -> bool| -> u64 {
        let counting = sections.iter().filter(|section| counts(section));
        counting.map(|section| section.bytes).sum()
    };
    let text = functions(&kernel.vmlinux())?;
    Ok(Row {
        what,
        image: fs::metadata(kernel.image())?.len(),
        text,
        rodata: total(&|section| section.name == ".rodata"),
        resident: text + total(&|section| section.name != TEXT && stays(section)),
        btf: total(&|section| section.name == ".BTF"),
        peak,
    })
}

/// Bytes of the functions that stay after the boot.
fn functions(vmlinux: &Path) -> Result<u64, Box<dyn Error>> {
    let file = fs::read(vmlinux).map_err(at(vmlinux))?;
    let file = object::File::parse(&*file)?;
    let section = file.section_by_name(TEXT).map(|section| section.index());
    // Some functions have several names.
    let mut sizes = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.section_index() == section)
    {
        let size: &mut u64 = sizes.entry(symbol.address()).or_default();
        *size = (*size).max(symbol.size());
    }
    match sizes.values().sum() {
        0 => Err(format!("there are no functions in {}", vmlinux.display()).into()),
        bytes => Ok(bytes),
    }
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
         gcc's `-O2`, the bootable file packed with gzip. Bytes; `text` is functions, `in memory` is all that stays there after \
         the boot, before anything is allocated; text, `read-only data` and `BTF` are parts of that. `load peak` is the most memory that was taken while \
         {} was loaded, with its signature checked: on the stock kernel the object, by libbpf, elsewhere its image.\n\n\
         | kernel | bootable file | text | read-only data | in memory | BTF | load peak | image |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
        PROGRAM.0
    );
    for row in rows {
        let image = row.peak.image.map_or(String::new(), |bytes| {
            let times = row.peak.bytes as f64 / bytes as f64;
            format!("{bytes}, peak {times:.1} times that")
        });
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {image} |\n",
            row.what, row.image, row.text, row.rodata, row.resident, row.btf, row.peak.bytes
        );
    }
    if let [first, .., last] = rows {
        text += &format!(
            "| saved | {} | {} | {} | {} | {} | {} | |\n",
            first.image.saturating_sub(last.image),
            first.text.saturating_sub(last.text),
            first.rodata.saturating_sub(last.rodata),
            first.resident.saturating_sub(last.resident),
            first.btf.saturating_sub(last.btf),
            first.peak.bytes.saturating_sub(last.peak.bytes)
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
