//! `cargo xtask bench load`: what loading one program costs, the kernel's own way and the pre-verified ones.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use preverify_bench::{Image, Measurement};
use preverify_lab::{Device, Lab, file};
use preverify_pipeline::{Limits, Object, Verifier};
use preverify_target::{DeviceOptions, Target};

use super::{BENCH, middle, paths, plot, results, selftest, write};
use crate::arch::Arch;
use crate::artifacts;

/// Path counts are two to the power of these.
const PATH_BITS: std::ops::RangeInclusive<u32> = 4..=13;
/// Real programs that verifiers find hard, from the kernel's selftests.
const HARD: [(&str, &str); 3] = [
    ("pyperf180", "on_event"),
    ("loop1", "nested_loops"),
    ("strobemeta", "on_event"),
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
    pub path_bits: Option<u32>,
    /// Instructions that the verifier processed.
    processed: u32,
    measurement: Measurement,
}

/// Measures loading: the kernel's own way against the pre-verified ones.
pub fn load(arch: Arch) -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[arch])?;
    let bench = artifacts::bench(arch)?;
    let lab = binaries.lab(arch.target(), preverify_lab::signer()?)?;
    let subjects = subjects(arch)?;
    let mut verifier = Verifier::start(&lab.target, Limits::of_time(VERIFY_LIMIT))?;
    let mut device = lab.boot(DeviceOptions {
        cpus: Some(2),
        memory_mib: Some(2048),
        files: vec![file(BENCH, 0o755, &bench)],
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
    let (table, picture) = match arch {
        Arch::X86_64 => ("load.md".to_owned(), "load.svg".to_owned()),
        other => (format!("load-{other}.md"), format!("load-{other}.svg")),
    };
    write(
        &results()?.join(table),
        &report(&lab, arch, &picture, &measured),
    )?;
    plot::write(&results()?.join(picture), &measured)
}

struct Subject {
    name: String,
    path_bits: Option<u32>,
    object: PathBuf,
    program: &'static str,
}

fn subjects(arch: Arch) -> Result<Vec<Subject>, Box<dyn Error>> {
    let mut subjects = Vec::new();
    for bits in PATH_BITS {
        subjects.push(Subject {
            name: format!("2^{bits} paths"),
            path_bits: Some(bits),
            object: paths(arch, bits)?,
            program: "paths",
        });
    }
    for (name, program) in HARD {
        subjects.push(Subject {
            name: name.into(),
            path_bits: None,
            object: selftest(arch, name)?,
            program,
        });
    }
    Ok(subjects)
}

fn measure(
    lab: &Lab,
    verifier: &mut Verifier<&Target>,
    device: &mut Device,
    subject: Subject,
) -> Result<Measured, Box<dyn Error>> {
    let object = Object::read(&subject.object)?;
    let verified = verifier.verify(&object, &mut |_| {})?;
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
            BENCH,
            "all",
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
    pub fn stock(&self) -> f64 {
        middle(&self.measurement.stock.ns)
    }

    /// Microseconds of loading the native image, the signature's check excluded.
    pub fn native(&self) -> Option<f64> {
        let image = self.measurement.native.as_ref()?;
        Some(middle(&image.loads.ns))
    }

    /// Microseconds of loading the bytecode, the signature's check excluded.
    pub fn bytecode(&self) -> Option<f64> {
        let image = self.measurement.bytecode.as_ref()?;
        Some(middle(&image.loads.ns))
    }

    /// Microseconds of loading the native image, the signature's check included.
    pub fn signed(&self) -> Option<f64> {
        let image = self.measurement.native.as_ref()?;
        let openings = self.measurement.open_ns.iter();
        let sums: Vec<_> = openings
            .zip(&image.loads.ns)
            .map(|(open, load)| open + load)
            .collect();
        Some(middle(&sums))
    }
}

fn row(measured: &Measured) -> String {
    let Measurement {
        stock,
        native,
        bytecode,
        ..
    } = &measured.measurement;
    let time = |time: Option<f64>| time.map_or("-".into(), |time| format!("{time:.0}"));
    let faster = |time: Option<f64>| {
        time.map_or("-".into(), |time| format!("{:.0}", measured.stock() / time))
    };
    let image = |image: &Option<Image>, value: fn(&Image) -> u64| {
        image
            .as_ref()
            .map_or("-".into(), |image| value(image).to_string())
    };
    let bytes = |image: &Image| image.bytes as u64;
    let memory = |image: &Image| image.loads.peak / 1024;
    let cells = [
        measured.name.clone(),
        measured.processed.to_string(),
        image(native, bytes),
        image(bytecode, bytes),
        format!("{:.0}", measured.stock()),
        time(measured.native()),
        time(measured.bytecode()),
        time(measured.signed()),
        faster(measured.native()),
        faster(measured.bytecode()),
        faster(measured.signed()),
        stock.ns.len().to_string(),
        (stock.peak / 1024).to_string(),
        image(native, memory),
        image(bytecode, memory),
    ];
    format!("| {} |", cells.join(" | "))
}

fn report(lab: &Lab, arch: Arch, picture: &str, measured: &[Measured]) -> String {
    let option = match arch {
        Arch::X86_64 => String::new(),
        other => format!(" --arch {other}"),
    };
    let mut text = format!(
        "# What loading costs: {arch}\n\n\
         `cargo xtask bench load{option}`, in one virtual machine with {} (QEMU, CPU `{}`); all ways take turns. Medians \
         in microseconds: of {LOAD_RUNS} pre-verified loads, and of as many of the kernel's own as the table says. \
         The kernel's own is the system call `BPF_PROG_LOAD` alone, without a log. *Native* is machine code that was \
         made and proved off the device; *bytecode* is verified, too, and compiled by the device. The signature is \
         checked once a bundle, whatever number of programs it has. Memory is the most that was taken \
         while loading, in KiB; 0 is what fits into the pages that each CPU has at hand. An emulated machine is slow \
         at everything: compare the columns with each other.\n\n",
        lab.target.facts().release,
        lab.target.hardware().cpu,
    );
    text.push_str(
        "| program | insns processed | native, bytes | bytecode, bytes | BPF_PROG_LOAD | native | bytecode | \
         native and signature | times faster: native | bytecode | native and signature | stock runs | stock memory | \
         native memory | bytecode memory |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in measured {
        writeln!(text, "{}", row(one)).expect("a String takes everything");
    }
    let spread = |load: fn(&Measured) -> Option<f64>| {
        let series = measured.iter().filter(|one| one.path_bits.is_some());
        spread(&series.filter_map(load).collect::<Vec<_>>())
    };
    write!(
        text,
        "\nOver 2^4 to 2^13 paths, at equal size of the image, the native load stays within {:.0}% of its mean, that of \
         bytecode within {:.0}%.\n\n![the table's first rows as a plot]({picture})\n",
        spread(Measured::native),
        spread(Measured::bytecode),
    )
    .expect("a String takes everything");
    text
}

/// How far values are from their mean at most, in percent.
fn spread(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let far = values.iter().map(|value| (value / mean - 1.0).abs());
    100.0 * far.fold(0.0, f64::max)
}
