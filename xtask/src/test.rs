//! `cargo xtask test`: everything that passes before a landing.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use preverify_lab::{
    AGENT_VARIABLE, BINARIES_VARIABLE, COMPILER_KERNEL_VARIABLE, DEVICE_KERNEL_VARIABLE,
    KERNELS_ARCH_VARIABLE, Lab, OBJECTS_VARIABLE, signer,
};
use preverify_target::default_cache;

use crate::arch::Arch;
use crate::artifacts::Binaries;
use crate::corpus::Extent;
use crate::linux::{self, Role};
use crate::paths::workspace;
use crate::run::{run, run_command};
use crate::{artifacts, bpf, corpus, demo, header, kernel, setup};

/// The most bytes that the device's loader may have on disk.
const fn loader_limit(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => 1_200_000,
        Arch::Arm64 => 1_000_000,
        Arch::Arm => 900_000,
    }
}

/// The architectures with devices that are asked what no loader would ask, and with examples. 32-bit arm has tests of
/// its own, and what goes for all bytecode is tested on the others.
const PROBED: [Arch; 2] = [Arch::X86_64, Arch::Arm64];

/// The version of cargo-deny that the checks are written for.
const DENY_VERSION: &str = "0.20.2";

/// Runs it all, and stops at what does not pass.
pub fn test() -> Result<(), Box<dyn Error>> {
    let mut stages = Stages::default();
    let mut stage = |name| stages.start(name);

    stage("what is needed");
    setup::setup()?;

    stage("format, lints, generated files, licences");
    run("cargo", &["fmt", "--all", "--check"])?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    run("cargo", &clippy)?;
    header::header(true)?;
    deny()?;

    stage("unit tests");
    run("cargo", &["test", "--workspace", "--lib", "--bins"])?;
    for kind in [&["--test", "*"][..], &["--doc"]] {
        let all_but_vm_tests = ["test", "--workspace", "--exclude", "preverify-lab"];
        run("cargo", &[&all_but_vm_tests, kind].concat())?;
    }

    stage("what runs elsewhere");
    let binaries = artifacts::binaries(&Arch::ALL)?;
    for arch in Arch::ALL {
        let size = fs::metadata(binaries.loader(arch))?.len();
        let limit = loader_limit(arch);
        println!("preverify-load for {arch} has {size} bytes (limit {limit})");
        if size >= limit {
            return Err(format!("preverify-load for {arch} is too large").into());
        }
    }
    for arch in PROBED {
        artifacts::probe(arch)?;
        bpf::examples(arch)?;
    }
    for arch in Arch::ALL {
        bpf::test_programs(arch)?;
    }

    stage("real BPF objects");
    corpus::build(Arch::X86_64, Extent::Sample)?;

    stage("the kernel part, for each supported kernel");
    let linux_source = corpus::linux_source()?;
    kernel::check_style(&linux_source)?;
    for target in kernel::TARGETS {
        kernel::check(&binaries.lab(target, signer()?)?)?;
    }

    stage("kernels from source: verifiers without the limits, devices without a verifier");
    linux::target(Role::Verifier, Arch::X86_64)?;
    let without_verifier = linux::lab(Role::Device, Arch::X86_64, &binaries)?;
    bpf::complex_programs(Arch::X86_64, &linux_source)?;

    stage("tests in virtual machines");
    let kernels = [(DEVICE_KERNEL_VARIABLE, &without_verifier)];
    run_command(
        vm_tests(Arch::X86_64, &binaries, &kernels)
            .args(named(all_vm_tests()?))
            .args(["--", "--test-threads=2"]),
    )?;

    stage("the sample of real objects: verified, proved, loaded, run, native and by bytecode");
    corpus::run(
        &corpus::RunArgs::sample(preverify_lab::TARGET),
        &binaries.lab(preverify_lab::TARGET, signer()?)?,
    )?;

    stage("the same sample on a device without verifier, JIT compiler and BTF");
    corpus::run(
        &corpus::RunArgs::sample_on_devices(Arch::X86_64),
        &without_verifier,
    )?;

    stage("the demo");
    demo::demo(Arch::X86_64)?;

    stages.end();
    Ok(())
}

/// Tests kernels built from source for an architecture: those for devices without a verifier, with and without a JIT
/// compiler, and the one whose limits are parameters.
pub fn test_kernels(arch: Arch) -> Result<(), Box<dyn Error>> {
    let mut stages = Stages::default();
    let mut stage = |name| stages.start(name);

    stage("what is needed");
    setup::setup()?;
    // Some tests are about Debian's kernel for x86_64.
    let binaries = artifacts::binaries(&[Arch::X86_64, arch])?;
    artifacts::probe(arch)?;
    bpf::test_programs(Arch::X86_64)?;
    bpf::test_programs(arch)?;
    bpf::complex_programs(arch, &corpus::linux_source()?)?;
    corpus::build(arch, Extent::Sample)?;

    stage("kernels from source");
    linux::target(Role::Verifier, arch)?;
    let device = linux::lab(Role::Device, arch, &binaries)?;
    let compiler = linux::lab(Role::Compiler, arch, &binaries)?;

    stage("tests in virtual machines");
    let kernels = [
        (DEVICE_KERNEL_VARIABLE, &device),
        (COMPILER_KERNEL_VARIABLE, &compiler),
    ];
    run_command(
        vm_tests(arch, &binaries, &kernels)
            .args(named(["kernels", "limits", "witness"]))
            .args(["--", "--test-threads=2", "--include-ignored"]),
    )?;
    run_command(vm_tests(arch, &binaries, &kernels).args([
        "--test",
        "attach",
        "places_of_a_kernel_without_verifier_and_btf",
    ]))?;

    stage("the sample of real objects on a device without verifier, JIT compiler and BTF");
    corpus::run(&corpus::RunArgs::sample_on_devices(arch), &device)?;

    stages.end();
    Ok(())
}

/// The names of all tests that need virtual machines.
fn all_vm_tests() -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The options for tests of these names: `--test A --test B`.
fn named<S: Into<String>>(tests: impl IntoIterator<Item = S>) -> impl Iterator<Item = String> {
    let tests = tests.into_iter();
    tests.flat_map(|test| ["--test".to_owned(), test.into()])
}

/// The tests that need virtual machines, with kernels of `cargo xtask kernel`: which ones, is to be added. They are taken
/// from the whole workspace, so that what unit tests were built with is not built again with fewer features.
fn vm_tests(arch: Arch, binaries: &Binaries, kernels: &[(&str, &Lab)]) -> Command {
    let images = kernels
        .iter()
        .filter_map(|(variable, lab)| Some((variable, lab.device_kernel()?)));
    let mut command = Command::new("cargo");
    command
        .args(["test", "--workspace"])
        .env(AGENT_VARIABLE, binaries.folder())
        .env(BINARIES_VARIABLE, binaries.folder())
        .env(OBJECTS_VARIABLE, bpf::objects(Arch::X86_64))
        .env(KERNELS_ARCH_VARIABLE, arch.to_string())
        .envs(images);
    command
}

/// What is done one after the other, and when each began.
#[derive(Default)]
struct Stages(Vec<(&'static str, Instant)>);

impl Stages {
    fn start(&mut self, name: &'static str) {
        let now = Instant::now();
        self.0.push((name, now));
        println!("\n== [{:>4} s] {name}\n", self.until(now));
    }

    /// Everything has passed: tells how long it took.
    fn end(&self) {
        let end = Instant::now();
        let ends = self.0.iter().skip(1).map(|(_, start)| *start).chain([end]);
        println!("\n== [{:>4} s] all passed\n", self.until(end));
        for ((name, start), end) in self.0.iter().zip(ends) {
            println!("{:>6} s  {name}", (end - *start).as_secs());
        }
    }

    /// Seconds since the first one began.
    fn until(&self, moment: Instant) -> u64 {
        self.0
            .first()
            .map_or(0, |(_, start)| (moment - *start).as_secs())
    }
}

/// Checks what we depend on. The advisories' database is elsewhere: `cargo deny check advisories` needs it.
fn deny() -> Result<(), Box<dyn Error>> {
    let root = default_cache()?.join("tools");
    let deny: PathBuf = root.join("bin/cargo-deny");
    if !deny.exists() {
        println!("building cargo-deny {DENY_VERSION} in {}", root.display());
        // Optimized, it would take longer to build than it ever saves; and nobody debugs it.
        run_command(
            Command::new("cargo")
                .env("CARGO_PROFILE_DEV_DEBUG", "false")
                .args(["install", "--quiet", "--locked", "--debug", "cargo-deny"])
                .args(["--version", DENY_VERSION, "--root"])
                .arg(&root),
        )?;
    }
    run_command(Command::new(deny).args([
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    Ok(())
}
