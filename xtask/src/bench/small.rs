//! `cargo xtask bench small`: a board with a small processor and little memory, and programs that are heavy to verify.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use preverify_bench::{Image, Loads, Measurement};
use preverify_lab::{Device, DeviceError, LOADER, Lab, file, on_packet};
use preverify_pipeline::{Limits, Object, Verifier};
use preverify_target::{Contents, DeviceOptions, GuestFile};

use super::{BENCH, middle, results, selftest, write};
use crate::arch::Arch;
use crate::{artifacts, bpf};

const ARCH: Arch = Arch::Arm64;
/// A processor of small boards: in order, and without the atomics of later ones.
const CPU: &str = "cortex-a53";
/// As little as Debian's kernel for arm64 boots in, with the initial file system of this measurement.
const MEMORY_MIB: u32 = 64;
/// What boards have that verify on their own; the first one that suffices is told.
const MORE_MIB: [u32; 5] = [128, 192, 256, 384, 512];
const LOAD_RUNS: usize = 20;
const PACKETS: u32 = 1000;
const XDP_PASS: u32 = 2;
/// How commands end that the kernel kills.
const KILLED: i32 = 128 + 9;
const LIMIT: Duration = Duration::from_secs(600);

struct Subject {
    name: &'static str,
    object: PathBuf,
    program: &'static str,
}

/// One program on the small board.
struct Measured {
    name: &'static str,
    /// Instructions that the verifier processed.
    processed: u32,
    bundle: Measurement,
    stock: Stock,
}

/// The kernel's own way.
enum Stock {
    /// On the small board.
    Fits(Loads),
    /// On one with so much memory; on smaller ones, the kernel killed what loaded it.
    Needs(u32, Loads),
    /// On none of them.
    Never,
}

/// Measures on the smallest board.
pub fn small() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[ARCH])?;
    let bench = artifacts::bench(ARCH)?;
    let lab = binaries.lab(ARCH.target(), preverify_lab::signer()?)?;
    let mut files = vec![file(BENCH, 0o755, &bench)];
    let mut subjects = Vec::new();
    let mut verifier = Verifier::start(&lab.target, Limits::of_time(LIMIT))?;
    for subject in all_subjects()? {
        let object = Object::read(&subject.object)?;
        let verified = verifier.verify(&object, &mut |_| {})?;
        let programs = &verified.loaded.programs;
        let program = programs
            .iter()
            .find(|program| program.function == subject.program)
            .ok_or_else(|| format!("{} has no program {}", subject.name, subject.program))?;
        files.push(file(&subject.on_device("bpf.o"), 0o644, &subject.object));
        files.push(GuestFile {
            path: subject.on_device("pvb"),
            mode: 0o644,
            contents: Contents::Bytes(lab.bundle(&verified)?.to_bytes()),
        });
        subjects.push((subject, program.statistics.total_insns));
    }
    drop(verifier);

    let mut device = boot(&lab, MEMORY_MIB, &files)?;
    let memory = [device.memory("MemTotal")?, device.memory("MemAvailable")?];
    let ran = run_on_packets(&mut device, &subjects[0].0)?;
    let bundles = subjects
        .iter()
        .map(|(subject, _)| subject.bundle(&mut device))
        .collect::<Result<Vec<_>, _>>()?;
    device.healthy_log()?;
    drop(device);
    let mut measured = Vec::new();
    for ((subject, processed), bundle) in subjects.into_iter().zip(bundles) {
        measured.push(Measured {
            name: subject.name,
            processed,
            bundle,
            stock: stock(&lab, &subject, &files)?,
        });
    }
    let text = report(&lab, memory, ran, &measured);
    print!("{text}");
    write(&results()?.join("small-arm64.md"), &text)
}

fn boot(lab: &Lab, memory_mib: u32, files: &[GuestFile]) -> Result<Device, Box<dyn Error>> {
    Ok(lab.boot(DeviceOptions {
        cpu: Some(CPU.into()),
        memory_mib: Some(memory_mib),
        cpus: Some(1),
        files: files.to_vec(),
        ..DeviceOptions::default()
    })?)
}

/// The kernel's own way, on the small board or on the first one that it suffices on.
fn stock(lab: &Lab, subject: &Subject, files: &[GuestFile]) -> Result<Stock, Box<dyn Error>> {
    // Each has a machine of its own: one that has run out of memory may not be as it was.
    if let Some(loads) = subject.stock(&mut boot(lab, MEMORY_MIB, files)?)? {
        return Ok(Stock::Fits(loads));
    }
    for memory in MORE_MIB {
        if let Some(loads) = subject.stock(&mut boot(lab, memory, files)?)? {
            return Ok(Stock::Needs(memory, loads));
        }
    }
    Ok(Stock::Never)
}

/// Loads a bundle and has its program run; returns the nanoseconds of one run.
fn run_on_packets(device: &mut Device, subject: &Subject) -> Result<u32, Box<dyn Error>> {
    const PINS: &str = "/sys/fs/bpf/small";
    device.run(&[LOADER, "load", &subject.on_device("pvb"), "--pin", PINS])?;
    let path = format!("{PINS}/{}", subject.program);
    let reply = device.test_run(on_packet(&path, &[0; 64], PACKETS))?;
    if (reply.errno, reply.return_value) != (0, XDP_PASS) {
        return Err(format!("{} does not pass packets: {reply:?}", subject.name).into());
    }
    device.run(&[LOADER, "unload", PINS])?;
    Ok(reply.duration_ns)
}

fn all_subjects() -> Result<[Subject; 2], Box<dyn Error>> {
    let xdp_count = bpf::example(ARCH, "xdp_count")?;
    Ok([
        Subject {
            name: "xdp_count",
            object: xdp_count,
            program: "xdp_count",
        },
        Subject {
            name: "pyperf180",
            object: selftest(ARCH, "pyperf180")?,
            program: "on_event",
        },
    ])
}

impl Subject {
    fn on_device(&self, extension: &str) -> String {
        format!("/root/{}.{extension}", self.name)
    }

    fn bundle(&self, device: &mut Device) -> Result<Measurement, Box<dyn Error>> {
        let (bundle, runs) = (self.on_device("pvb"), LOAD_RUNS.to_string());
        let text = device.run_within(&[BENCH, "bundle", &bundle, self.program, &runs], LIMIT)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Loads it the kernel's own way. `None`: the kernel killed what did it, for want of memory.
    fn stock(&self, device: &mut Device) -> Result<Option<Loads>, Box<dyn Error>> {
        let object = self.on_device("bpf.o");
        match device.run_within(&[BENCH, "stock", &object, self.program], LIMIT) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(DeviceError::Command { status: KILLED, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn report(lab: &Lab, [total, available]: [u64; 2], ran: u32, measured: &[Measured]) -> String {
    let mut text = format!(
        "# A small board\n\n\
         `cargo xtask bench small`: a virtual machine with {}, one `{CPU}` and {MEMORY_MIB} MiB of memory, the least that \
         this kernel boots in. Of that, Linux has {} MiB, and {} MiB are free when everything runs that has to. \
         Pre-verified: medians of {LOAD_RUNS} loads, each with the check of the signature. The kernel's own way: one load \
         by libbpf. Memory is the most that was taken meanwhile. `{}`, loaded there, passed {PACKETS} packets, {ran} ns \
         each. An emulated machine is slow at everything: compare the rows with each other.\n\n\
         | program | insns processed | way | ms | memory, KiB |\n|---|--:|---|--:|--:|\n",
        lab.target.facts().release,
        total / 1024,
        available / 1024,
        measured.first().map_or("", |one| one.name),
    );
    for one in measured {
        let Measurement {
            open_ns,
            native,
            bytecode,
            ..
        } = &one.bundle;
        let mut line = |way: &str, cells: String| {
            let (name, processed) = (one.name, one.processed);
            writeln!(text, "| {name} | {processed} | {way} | {cells} |")
                .expect("a String takes everything");
        };
        let cells = |before: f64, loads: &Loads| {
            let milliseconds = (before + middle(&loads.ns)) / 1000.0;
            format!("{milliseconds:.1} | {}", loads.peak / 1024)
        };
        for (way, image) in [("native", native), ("bytecode", bytecode)] {
            if let Some(Image { loads, .. }) = image {
                line(way, cells(middle(open_ns), loads));
            }
        }
        const OWN: &str = "the kernel's own";
        let killed = || "killed: out of memory | ".to_owned();
        match &one.stock {
            Stock::Fits(loads) => line(OWN, cells(0.0, loads)),
            Stock::Needs(memory, loads) => {
                line(OWN, killed());
                line(
                    &format!("{OWN}, on a board with {memory} MiB, the next that suffices"),
                    cells(0.0, loads),
                );
            }
            Stock::Never => line(OWN, killed()),
        }
    }
    text
}
