//! `cargo xtask vectors`: what kernels made of our own test programs, stored for the tests of `crates/image`.
//!
//! For each machine there is a folder: each program as the kernel part exported it in either boot, byte for byte, and
//! of each boot's symbols those that the images of the programs refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use preverify_image::export::Export;
use preverify_image::image::Symbol;
use preverify_image::symbols::KernelSymbols;
use preverify_image::{Capture, discover, discover_bytecode};
use preverify_pipeline::Object;
use preverify_protocol::{Inputs, LoadReply, LoadRequest, Reply, Request, WantedLimits};
use preverify_target::{Target, TargetError};

use crate::arch::Arch;
use crate::paths::workspace;
use crate::{artifacts, bpf, setup};

/// Where they go.
const FOLDER: &str = "crates/image/tests/vectors";

/// Whose programs are stored, by object.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "bytecode",
        &[
            "alone",
            "constants",
            "several",
            "callbacks",
            "jumps",
            "functions_jump",
            "symbols",
        ],
    ),
    ("bytecode_new", &["functions_fault", "finds_init"]),
];

/// What images need of a kernel's symbols, whatever the program.
const ALWAYS: [&str; 3] = ["_text", "_end", "__bpf_call_base"];

/// What one object may take to verify.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What the host grants the agent beyond that.
const ANSWER_MARGIN: Duration = Duration::from_secs(60);

/// A machine whose kernel writes code of its own.
struct Machine {
    /// The folder of its vectors.
    folder: &'static str,
    arch: Arch,
    /// Another processor than targets have if nothing is said, and whether the kernel starts at exception level 2.
    processor: Option<(&'static str, bool)>,
}

const MACHINES: [Machine; 3] = [
    Machine {
        folder: "arm64",
        arch: Arch::Arm64,
        processor: None,
    },
    // A large server's processor: it has atomic instructions, and the kernel runs as hypervisor.
    Machine {
        folder: "arm64-neoverse-n1-el2",
        arch: Arch::Arm64,
        processor: Some(("neoverse-n1", true)),
    },
    Machine {
        folder: "x86_64",
        arch: Arch::X86_64,
        processor: None,
    },
];

/// Each program's export in one boot, by name.
type Exports = BTreeMap<&'static str, Vec<u8>>;

/// Makes all vectors anew.
pub fn vectors() -> Result<(), Box<dyn Error>> {
    setup::setup()?;
    artifacts::binaries(&[Arch::X86_64, Arch::Arm64])?;
    for machine in &MACHINES {
        let folder = workspace().join(FOLDER).join(machine.folder);
        make(machine, &folder)?;
        println!("written: {}", folder.display());
    }
    Ok(())
}

fn make(machine: &Machine, folder: &Path) -> Result<(), Box<dyn Error>> {
    let target = target(machine)?;
    let compiled = bpf::test_programs(machine.arch)?;
    let exports = [
        exports(&target, 0, &compiled)?,
        exports(&target, 1, &compiled)?,
    ];
    let kallsyms = [target.symbols(0)?, target.symbols(1)?];
    let used = used(&exports, &kallsyms)?;

    // What is not made any more shall not stay.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (boot, (exports, kallsyms)) in exports.iter().zip(&kallsyms).enumerate() {
        for (program, export) in exports {
            fs::write(folder.join(format!("{program}.{boot}.export")), export)?;
        }
        let text = excerpt(kallsyms, &used);
        fs::write(folder.join(format!("{boot}.kallsyms")), text)?;
    }
    Ok(())
}

/// The target that all other tests have, too; one that is there stays as it is.
fn target(machine: &Machine) -> Result<Target, TargetError> {
    let source = machine.arch.target();
    let mut progress = |stage: &str| println!("{stage}");
    match machine.processor {
        None => preverify_lab::target(source, &mut progress),
        Some((cpu, el2)) => preverify_lab::target_on(source, cpu, el2, &mut progress),
    }
}

/// Has the programs verified in one boot.
fn exports(target: &Target, boot: usize, compiled: &Path) -> Result<Exports, Box<dyn Error>> {
    let mut machine = target.restore(boot)?;
    let mut exports = Exports::new();
    for (object, programs) in PROGRAMS {
        let object = Object::read(&compiled.join(format!("{object}.bpf.o")))?;
        let request = Request::Load(LoadRequest {
            object: object.elf,
            name: object.name,
            inputs: Inputs::default(),
            share: None,
            export: true,
            // So that maps lie elsewhere in each boot, even where the kernel puts them at the same places.
            doubles: u32::try_from(boot)?,
            limits: WantedLimits::default(),
            time_limit: u32::try_from(TIME_LIMIT.as_secs())?,
        });
        let loaded = match machine.request(&request, TIME_LIMIT + ANSWER_MARGIN)? {
            Reply::Load(LoadReply::Accepted(loaded)) => loaded,
            other => return Err(format!("a program of ours was not accepted: {other:?}").into()),
        };
        for &program in programs {
            let mut found = loaded.programs.iter();
            let found = found.find(|found| found.function == program);
            let export = found.and_then(|found| found.export.clone());
            let export = export.ok_or_else(|| format!("`{program}` was not exported"))?;
            exports.insert(program, export);
        }
    }
    Ok(exports)
}

/// What the images of all programs refer to, in bytes from `_text`.
fn used(exports: &[Exports; 2], kallsyms: &[String; 2]) -> Result<BTreeSet<u64>, Box<dyn Error>> {
    let [first, second] = exports;
    let [in_first, in_second] = kallsyms;
    let symbols = [
        KernelSymbols::parse(in_first.as_str())?,
        KernelSymbols::parse(in_second.as_str())?,
    ];
    let mut used = BTreeSet::new();
    for (program, export) in first {
        let exports = [Export::parse(export)?, Export::parse(&second[program])?];
        let [a, b] = [0, 1].map(|boot| Capture {
            export: &exports[boot],
            symbols: &symbols[boot],
        });
        for image in [discover(a, b)?, discover_bytecode(a, b)?] {
            for symbol in image.symbols {
                match symbol {
                    Symbol::Text { offset, .. } => used.insert(offset),
                    Symbol::Module { name, .. } => {
                        return Err(format!("`{program}` needs `{name}` of a module").into());
                    }
                };
            }
        }
    }
    Ok(used)
}

/// The lines of a `/proc/kallsyms` that name these places in the kernel image, and its bounds.
fn excerpt(kallsyms: &str, used: &BTreeSet<u64>) -> String {
    let lines: Vec<_> = kallsyms.lines().filter_map(symbol).collect();
    let text = lines.iter().find(|(_, name, _)| *name == "_text");
    let text = text.map_or(0, |(address, ..)| *address);
    let addresses: BTreeSet<u64> = lines.iter().map(|(address, ..)| *address).collect();
    let named: BTreeSet<u64> = used
        .iter()
        .filter_map(|offset| addresses.range(..=text + offset).next_back().copied())
        .collect();
    lines
        .iter()
        .filter(|(address, name, _)| named.contains(address) || ALWAYS.contains(name))
        .map(|(.., line)| format!("{line}\n"))
        .collect()
}

/// The address and the name in a line, and the line; none if the symbol is a module's.
fn symbol(line: &str) -> Option<(u64, &str, &str)> {
    let mut words = line.split(' ');
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let name = words.nth(1)?;
    (!name.contains('\t')).then_some((address, name, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_names_what_is_used_and_the_kernels_bounds() {
        let kallsyms = "\
            0000000000000000 A __per_cpu_start\n\
            ffffffff81000000 T _text\n\
            ffffffff81000000 T _stext\n\
            ffffffff81000040 T helper\n\
            ffffffff81000040 t alias\n\
            ffffffff81000080 t other\n\
            ffffffff81000090 T __bpf_call_base\n\
            ffffffff81000100 d variables\n\
            ffffffff81002000 B _end\n\
            ffffffff81000044 t function\t[mod]\n";
        assert_eq!(
            excerpt(kallsyms, &BTreeSet::from([0x40, 0x108])),
            "ffffffff81000000 T _text\n\
             ffffffff81000040 T helper\n\
             ffffffff81000040 t alias\n\
             ffffffff81000090 T __bpf_call_base\n\
             ffffffff81000100 d variables\n\
             ffffffff81002000 B _end\n"
        );
    }
}
