//! `cargo xtask bench`: measurements with both sides in one run, side by side.

mod plot;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use preverify_bench::{Measurement, median};
use preverify_lab::{Device, Lab, file};
use preverify_pipeline::{Object, Verifier};
use preverify_target::DeviceOptions;

use crate::arch::Arch;
use crate::paths::workspace;
use crate::{artifacts, bpf, corpus};

/// Path counts are two to the power of these.
const PATH_BITS: std::ops::RangeInclusive<u32> = 4..=13;
/// Real programs that verifiers find hard, from the kernel's selftests.
const HARD: [(&str, &str); 3] = [
    ("selftests/pyperf180", "on_event"),
    ("selftests/loop1", "nested_loops"),
    ("selftests/strobemeta", "on_event"),
];
const LOAD_RUNS: usize = 200;
/// The slow side may be repeated less often, so that one program takes about so long.
const STOCK_TIME: Duration = Duration::from_secs(60);
const MEASURE_LIMIT: Duration = Duration::from_secs(900);
const VERIFY_LIMIT: Duration = Duration::from_secs(300);

/// One measured program.
pub struct Measured {
    /// What people call it.
    name: String,
    /// Two to the power of this many paths, if it is one of that series.
    path_bits: Option<u32>,
    /// Instructions that the verifier processed.
    processed: u32,
    measurement: Measurement,
}

/// Measures loading: the kernel's own way against the pre-verified one.
pub fn load() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries()?;
    let bench = artifacts::bench()?;
    let lab = binaries.lab(preverify_lab::signer()?)?;
    let subjects = subjects()?;
    let mut verifier = Verifier::start(&lab.target)?;
    let mut device = lab.boot(DeviceOptions {
        cpus: Some(2),
        memory_mib: Some(2048),
        files: vec![file("/bin/preverify-bench", 0o755, &bench)],
        ..DeviceOptions::default()
    })?;
    let mut measured = Vec::new();
    for subject in subjects {
        let name = subject.name.clone();
        let one = measure(&lab, &mut verifier, &mut device, subject)
            .map_err(|error| format!("{name}: {error}"))?;
        println!("{}", row(&one));
        measured.push(one);
    }
    device.healthy_log()?;
    let results = workspace().join("bench/results");
    fs::create_dir_all(&results)?;
    fs::write(results.join("load.md"), report(&lab, &measured))?;
    plot::write(&results.join("load.svg"), &measured)?;
    println!("written: {0}/load.md, {0}/load.svg", results.display());
    Ok(())
}

struct Subject {
    name: String,
    path_bits: Option<u32>,
    object: PathBuf,
    program: &'static str,
}

fn subjects() -> Result<Vec<Subject>, Box<dyn Error>> {
    let folder = bpf::objects(Arch::X86_64);
    fs::create_dir_all(&folder)?;
    let compiler = bpf::own_compiler(Arch::X86_64);
    let source = workspace().join("bench/programs/paths.bpf.c");
    let mut subjects = Vec::new();
    for bits in PATH_BITS {
        let object = folder.join(format!("paths{bits}.bpf.o"));
        compiler.compile(&source, &[&format!("-DPATH_BITS={bits}")], &object)?;
        subjects.push(Subject {
            name: format!("2^{bits} paths"),
            path_bits: Some(bits),
            object,
            program: "paths",
        });
    }
    let corpus = corpus::objects(Arch::X86_64)?;
    for (id, program) in HARD {
        let object = corpus
            .iter()
            .find(|object| object.id == id)
            .ok_or_else(|| format!("the corpus has no {id}: `cargo xtask corpus build`"))?;
        subjects.push(Subject {
            name: id.trim_start_matches("selftests/").into(),
            path_bits: None,
            object: object.path.clone(),
            program,
        });
    }
    Ok(subjects)
}

fn measure(
    lab: &Lab,
    verifier: &mut Verifier<'_>,
    device: &mut Device,
    subject: Subject,
) -> Result<Measured, Box<dyn Error>> {
    let object = Object::read(&subject.object)?;
    let verified = verifier.verify(&object, VERIFY_LIMIT, &mut |_| {})?;
    let bundle = lab.bundle(&verified)?;
    let statistics = verified
        .loaded
        .programs
        .iter()
        .find(|program| program.function == subject.program)
        .ok_or("the object has no such program")?
        .statistics;
    device.put("/tmp/measured.bpf.o", 0o644, object.elf)?;
    device.put("/tmp/measured.pvb", 0o644, bundle.to_bytes())?;
    let one = Duration::from_micros(statistics.duration_us.max(1).into());
    let runs = usize::try_from(STOCK_TIME.as_micros() / one.as_micros())?.clamp(10, LOAD_RUNS);
    let text = device.run_within(
        &[
            "/bin/preverify-bench",
            "/tmp/measured.bpf.o",
            "/tmp/measured.pvb",
            subject.program,
            &runs.to_string(),
            &LOAD_RUNS.to_string(),
        ],
        MEASURE_LIMIT,
    )?;
    Ok(Measured {
        name: subject.name,
        path_bits: subject.path_bits,
        processed: statistics.total_insns,
        measurement: serde_json::from_str(&text)?,
    })
}

impl Measured {
    /// Microseconds of the kernel's own way.
    fn stock(&self) -> f64 {
        micros(median(&self.measurement.stock_ns))
    }

    /// Microseconds of the pre-verified load, the signature's check excluded.
    fn load(&self) -> f64 {
        micros(median(&self.measurement.load_ns))
    }

    /// Microseconds of the pre-verified load, the signature's check included.
    fn signed(&self) -> f64 {
        let measurement = &self.measurement;
        let sums: Vec<_> = measurement
            .open_ns
            .iter()
            .zip(&measurement.load_ns)
            .map(|(open, load)| open + load)
            .collect();
        micros(median(&sums))
    }
}

fn row(measured: &Measured) -> String {
    let (stock, load, signed) = (measured.stock(), measured.load(), measured.signed());
    format!(
        "| {} | {} | {} | {stock:.0} | {load:.0} | {signed:.0} | {:.0} | {:.0} | {} | {} | {} |",
        measured.name,
        measured.processed,
        measured.measurement.image_bytes,
        stock / load,
        stock / signed,
        measured.measurement.stock_ns.len(),
        measured.measurement.stock_peak / 1024,
        measured.measurement.load_peak / 1024,
    )
}

fn report(lab: &Lab, measured: &[Measured]) -> String {
    let mut text = format!(
        "# What loading costs\n\n\
         `cargo xtask bench load`, in one virtual machine with {} (QEMU, CPU `{}`); both ways take turns. Medians \
         in microseconds: of {LOAD_RUNS} pre-verified loads, and of as many of the kernel's own as the table says. \
         The kernel's own is the system call `BPF_PROG_LOAD` alone, without a log. Memory is the most that was taken \
         while loading, in KiB; 0 is what fits into the pages that each CPU has at hand. An emulated machine is slow at everything: compare the columns with each other.\n\n",
        lab.target.facts().release,
        lab.target.hardware().cpu,
    );
    text.push_str(
        "| program | insns processed | image, bytes | BPF_PROG_LOAD | pre-verified | and signature | times faster | with signature | stock runs | stock memory | our memory |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in measured {
        writeln!(text, "{}", row(one)).expect("a String takes everything");
    }
    let series: Vec<f64> = measured
        .iter()
        .filter(|one| one.path_bits.is_some())
        .map(Measured::load)
        .collect();
    let middle = series.iter().sum::<f64>() / series.len().max(1) as f64;
    let spread = series
        .iter()
        .map(|load| (load / middle - 1.0).abs())
        .fold(0.0, f64::max);
    write!(
        text,
        "\nOver 2^4 to 2^13 paths, at equal size of the image, the pre-verified load stays within {:.0}% of its \
         mean.\n\n![the table's first rows as a plot](load.svg)\n",
        spread * 100.0
    )
    .expect("a String takes everything");
    text
}

#[expect(clippy::cast_precision_loss, reason = "microseconds to show")]
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}
