//! `cargo xtask bench limits`: what verifying takes where stock kernels give up, and how it grows.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process;
use std::time::Instant;

use preverify_lab::{Lab, machines_of, peak_memory};
use preverify_pipeline::{BuildError, Limits, Object, Verifier};
use preverify_protocol::GlobalValue;

use super::{results, write};
use crate::arch::Arch;
use crate::linux::{self, Role};
use crate::{artifacts, bpf, corpus};

const ARCH: Arch = Arch::X86_64;
const RAISED: &str = "insns=128M,jumps=1M,memory=4G,time=1h";
/// Shapes of complexity, one a program.
const SHAPES: [(&str, &str); 6] = [
    ("loop", "a long loop"),
    ("paths", "path explosion"),
    ("branches", "500,000 branches"),
    ("straight", "2M instructions without branches"),
    ("calls", "subprograms, walked for each call"),
    ("pyperf", "pyperf, unrolled further"),
];
/// Rounds of the program whose cost is linear, with 20,000 instructions each.
const ROUNDS: [u32; 4] = [50, 200, 800, 3200];

/// Measures programs that stock kernels refuse.
pub fn limits() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&[ARCH])?;
    let lab = linux::lab(Role::Verifier, ARCH, &binaries)?;
    bpf::complex_programs(ARCH, &corpus::linux_source()?)?;
    let mut text = report_head(&lab);
    let mut add = |row: String| {
        print!("{row}");
        text += &row;
    };
    for (name, what) in SHAPES {
        add(row(&lab, what, &object(name)?)?);
    }
    for rounds in ROUNDS {
        let mut object = object("linear")?;
        let global = GlobalValue::Integer(rounds.into());
        object.inputs.globals.insert("rounds".into(), global);
        add(row(&lab, &format!("{rounds} rounds of 20,000"), &object)?);
    }
    write(&results()?.join("limits.md"), &text)
}

fn object(name: &str) -> Result<Object, Box<dyn Error>> {
    let folder = bpf::objects(ARCH).join("complex");
    Ok(Object::read(&folder.join(format!("{name}.bpf.o")))?)
}

fn row(lab: &Lab, what: &str, object: &Object) -> Result<String, Box<dyn Error>> {
    let stock = match Verifier::start(&lab.target, Limits::default())?.verify(object, &mut |_| {}) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => objection(&error),
    };
    // Machines of their own, whose memory nobody else has used.
    let mut verifier = Verifier::start(&lab.target, RAISED.parse()?)?;
    let start = Instant::now();
    let verified = verifier.verify(object, &mut |_| {})?;
    let whole = start.elapsed();
    let memory = machines_of(process::id())
        .into_iter()
        .filter_map(peak_memory)
        .max();
    let statistics = verified.loaded.programs[0].statistics;
    Ok(format!(
        "| {what} | {} | {} | {} | {:.1} | {:.1} | {} | {stock} |\n",
        object.elf.len(),
        statistics.total_insns,
        statistics.peak_states,
        f64::from(statistics.duration_us) / 1e6,
        whole.as_secs_f64(),
        memory.ok_or("the machines are gone")? / 1024,
    ))
}

/// The verifier's own words; what the system call says, where the program never came to the verifier.
fn objection(refusal: &BuildError) -> String {
    let BuildError::Rejected(rejection) = refusal else {
        return refusal.to_string().replace('\n', " ");
    };
    let of_verifier = |line: &&str| line.contains("too complex") || line.contains("too large");
    match rejection.verifier_log.lines().find(of_verifier) {
        Some(line) => line.trim().to_owned(),
        None => io::Error::from_raw_os_error(rejection.errno.abs()).to_string(),
    }
}

fn report_head(lab: &Lab) -> String {
    let mut text = String::new();
    write!(
        text,
        "# Above the limits\n\n\
         `cargo xtask bench limits`: programs that stock kernels refuse, verified by {} with `--limits {RAISED}` (QEMU, CPU \
         `{}`, both machines at once). *Verifier* is the kernel's own time, *whole* is until both images are made and \
         proved; memory is the most that one machine's process has had. What the limits say is what the same kernel says \
         where they are Linux's. An emulated machine is slow at everything: compare the rows with each other.\n\n\
         | program | object, bytes | insns processed | states at the peak | verifier, s | whole, s | memory, MiB | with \
         stock limits |\n\
         |---|--:|--:|--:|--:|--:|--:|---|\n",
        lab.target.facts().release,
        lab.target.hardware().cpu,
    )
    .expect("a String takes everything");
    text
}
