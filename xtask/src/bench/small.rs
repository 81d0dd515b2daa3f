//! `cargo xtask bench small`: a board with a small processor and little memory, and programs that are heavy to verify.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use preverify_bench::{Image, Loads, Measurement};
use preverify_lab::{Device, Lab, file};
use preverify_pipeline::{Object, Verifier};
use preverify_target::{Contents, DeviceOptions, GuestFile};

use super::{BENCH, middle, results, selftest, write};
use crate::arch::Arch;
use crate::{artifacts, bpf};

const ARCH: Arch = Arch::Arm64;
/// A processor of small boards: in order, and without the atomics of later ones.
const CPU: &str = "cortex-a53";
/// As little as Debian's kernel for arm64 boots in, with this project's initial file system.
const MEMORY_MIB: u32 = 128;
const LOAD_RUNS: usize = 20;
const LIMIT: Duration = Duration::from_secs(600);

struct Subject {
    name: &'static str,
    object: PathBuf,
    program: &'static str,
}

/// One program on the small board.
struct Measured {
    name: &'static str,
    processed: u32,
    bundle: Measurement,
    /// The kernel's own way, or how it failed.
    stock: Result<Loads, String>,
}

/// Measures on the smallest board.
pub fn small() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries()?;
    let bench = artifacts::bench(ARCH)?;
    let lab = binaries.lab(ARCH.target(), preverify_lab::signer()?)?;
    let mut files = vec![file(BENCH, 0o755, &bench)];
    let mut prepared = Vec::new();
    let mut verifier = Verifier::start(&lab.target)?;
    for subject in subjects()? {
        let object = Object::read(&subject.object)?;
        let verified = verifier.verify(&object, LIMIT, &mut |_| {})?;
        let processed = verified
            .loaded
            .programs
            .iter()
            .find(|program| program.function == subject.program)
            .ok_or_else(|| format!("{} has no program {}", subject.name, subject.program))?
            .statistics
            .total_insns;
        files.push(file(&subject.on_device("bpf.o"), 0o644, &subject.object));
        files.push(GuestFile {
            path: subject.on_device("pvb"),
            mode: 0o644,
            contents: Contents::Bytes(lab.bundle(&verified)?.to_bytes()),
        });
        prepared.push((subject, processed));
    }
    drop(verifier);
    let mut device = lab.boot(DeviceOptions {
        cpu: Some(CPU.into()),
        memory_mib: Some(MEMORY_MIB),
        cpus: Some(1),
        files,
        ..DeviceOptions::default()
    })?;
    let memory = [device.memory("MemTotal")?, device.memory("MemAvailable")?];
    let bundles = prepared
        .iter()
        .map(|(subject, _)| subject.bundle(&mut device))
        .collect::<Result<Vec<_>, _>>()?;
    device.healthy_log()?;
    // Last, because the machine may not survive it.
    let stock: Vec<_> = prepared
        .iter()
        .map(|(subject, _)| subject.stock(&mut device))
        .collect();
    let measured = prepared.into_iter().zip(bundles).zip(stock);
    let measured: Vec<_> = measured
        .map(|(((subject, processed), bundle), stock)| Measured {
            name: subject.name,
            processed,
            bundle,
            stock,
        })
        .collect();
    let text = report(&lab, memory, &measured);
    print!("{text}");
    write(&results()?.join("small-arm64.md"), &text)
}

fn subjects() -> Result<[Subject; 2], Box<dyn Error>> {
    let examples = bpf::examples(ARCH)?;
    let xdp_count = examples
        .into_iter()
        .find(|object| object.ends_with("xdp_count.bpf.o"))
        .ok_or("examples/ has no xdp_count.bpf.c")?;
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

    fn stock(&self, device: &mut Device) -> Result<Loads, String> {
        let object = self.on_device("bpf.o");
        let text = device.run_within(&[BENCH, "stock", &object, self.program], LIMIT);
        let text = text.map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or("").to_owned()
        })?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}

fn report(lab: &Lab, [total, available]: [u64; 2], measured: &[Measured]) -> String {
    let mut text = format!(
        "# A small board\n\n\
         `cargo xtask bench small`: a virtual machine with {}, one `{CPU}` and {MEMORY_MIB} MiB of memory, the least that \
         this kernel boots in; of that, Linux has {} MiB, and {} MiB are free when everything runs that has to. Medians of \
         {LOAD_RUNS} pre-verified loads, signature included; one load of the kernel's own, by libbpf. Memory is the most \
         that was taken while loading.\n\n\
         | program | insns processed | way | ms | memory, KiB |\n|---|--:|---|--:|--:|\n",
        lab.target.facts().release,
        total / 1024,
        available / 1024,
    );
    for one in measured {
        let Measurement {
            open_ns,
            native,
            bytecode,
            ..
        } = &one.bundle;
        let signature = middle(open_ns);
        let mut line = |way: &str, cells: String| {
            writeln!(
                text,
                "| {} | {} | {way} | {cells} |",
                one.name, one.processed
            )
            .expect("a String takes everything");
        };
        let cells = |image: &Image| {
            let milliseconds = (signature + middle(&image.loads.ns)) / 1000.0;
            format!("{milliseconds:.1} | {}", image.loads.peak / 1024)
        };
        for (way, image) in [("native", native), ("bytecode", bytecode)] {
            if let Some(image) = image {
                line(way, cells(image));
            }
        }
        line(
            "the kernel's own",
            match &one.stock {
                Ok(loads) => format!("{:.1} | {}", middle(&loads.ns) / 1000.0, loads.peak / 1024),
                Err(reason) => format!("fails: {reason} | "),
            },
        );
    }
    text
}
