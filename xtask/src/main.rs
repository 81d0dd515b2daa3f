//! The project's own commands: `cargo xtask test` and friends.

#![forbid(unsafe_code)]

mod arch;
mod artifacts;
mod bench;
mod bpf;
mod chance;
mod cluster;
mod corpus;
mod debs;
mod demo;
mod header;
mod kernel;
mod linux;
mod packages;
mod paths;
mod run;
mod setup;
mod soak;
mod test;
mod toolchain;
mod vectors;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use preverify_target::DebianKernel;

use crate::arch::Arch;
use crate::corpus::Extent;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// The whole way on three real programs: from objects to what they see on a device in a virtual machine.
    Demo(ArchArgs),
    /// Installs the Debian packages that are needed and missing, after saying which and why.
    Setup,
    /// Builds `preverify`, with its agents beside it, and the static `preverify-load` for each architecture, and says
    /// where they are.
    Build,
    /// Compiles the programs of `examples/` into `target/bpf/`, those for other architectures than x86_64 into a folder
    /// of their own there.
    Examples(ArchArgs),
    /// Real BPF objects to test on.
    #[command(subcommand)]
    Corpus(Corpus),
    /// Measurements, written to `bench/results/`.
    #[command(subcommand)]
    Bench(Bench),
    /// What runs for long, to see what a service survives.
    #[command(subcommand)]
    Soak(Soak),
    /// Builds a kernel from Debian's source, with the patches of `kernel/patches`, and says where it is.
    Kernel {
        /// What it is for
        #[arg(value_enum)]
        role: linux::Role,
        #[command(flatten)]
        arch: ArchArgs,
    },
    /// Writes the whole series of kernel patches, the kernel part's sources among them, as one would send it.
    Patches {
        /// The folder to write them to
        out: PathBuf,
    },
    /// Everything that passes before a landing.
    Test {
        /// Instead, what needs kernels built from source, on those of this architecture
        #[arg(long, value_enum, value_name = "ARCH")]
        kernels: Option<Arch>,
    },
    /// Writes the kernel part's C header from `crates/abi`.
    Header {
        /// Only compare the committed header.
        #[arg(long)]
        check: bool,
    },
    /// Has kernels compile test programs anew for the tests of `crates/image`, which keep the outcome.
    Vectors,
}

#[derive(Args)]
struct ArchArgs {
    /// The devices' architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
}

#[derive(Subcommand)]
enum Bench {
    /// Loading a program: the kernel's own way against the pre-verified ones.
    Load(ArchArgs),
    /// Programs that stock kernels refuse as too complex: what verifying them takes, and how that grows.
    Limits,
    /// A service that verifies for many clients, against verifiers that are driven directly.
    Service,
    /// An object with many programs on one worker of a service and on several (as root: it makes control groups).
    Shares,
    /// A board with little memory, and programs that are heavy to verify.
    Small,
    /// From the kernel's start to an attached XDP program, on boards with little memory: the stock kernel's own way against a
    /// kernel without verifier, JIT compiler and BTF.
    Boot,
    /// Kernels without the verifier, the JIT compiler and BTF, against the stock one.
    Size(ArchArgs),
}

#[derive(Subcommand)]
enum Soak {
    /// A service of many processes, which are killed, stopped and cut off while it works (as root: it makes a network
    /// namespace).
    Cluster(soak::ClusterArgs),
    /// Sends damaged objects, and says what became of them, of the service, and of another tenant meanwhile.
    Hostile(soak::HostileArgs),
}

#[derive(Subcommand)]
enum Corpus {
    /// Downloads, takes out and compiles the objects, in the cache (PREVERIFY_CACHE).
    Build {
        /// Only the fixed sample that `cargo xtask test` takes
        #[arg(long)]
        sample: bool,
        #[command(flatten)]
        arch: ArchArgs,
    },
    /// Takes the objects the whole way, from object to program on a device, and prints what became of them.
    Run(corpus::RunArgs),
    /// Verifies the objects by a kernel without our patches and by the one whose limits are raised, and compares the images.
    Limits(corpus::LimitsArgs),
}

fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn Error>> = match Command::parse() {
        Command::Demo(args) => demo::demo(args.arch),
        Command::Setup => setup::setup().map_err(Into::into),
        Command::Build => build(),
        Command::Examples(args) => bpf::build_examples(args.arch).map_err(Into::into),
        Command::Corpus(Corpus::Build { sample, arch }) => {
            corpus::build(arch.arch, Extent::sample_if(sample)).map_err(Into::into)
        }
        Command::Corpus(Corpus::Run(args)) => corpus(&args),
        Command::Corpus(Corpus::Limits(args)) => limits(&args),
        Command::Bench(Bench::Load(args)) => bench::load(args.arch),
        Command::Bench(Bench::Service) => bench::service(),
        Command::Bench(Bench::Shares) => bench::shares(),
        Command::Bench(Bench::Small) => bench::small(),
        Command::Bench(Bench::Boot) => bench::boot(),
        Command::Bench(Bench::Limits) => bench::limits(),
        Command::Bench(Bench::Size(args)) => bench::size(args.arch),
        Command::Soak(Soak::Cluster(args)) => soak::cluster(&args),
        Command::Soak(Soak::Hostile(args)) => soak::hostile(&args),
        Command::Kernel { role, arch } => linux::kernel(role, arch.arch),
        Command::Patches { out } => linux::patches(&out),
        Command::Test { kernels: None } => test::test(),
        Command::Test {
            kernels: Some(arch),
        } => test::test_kernels(arch),
        Command::Header { check } => header::header(check).map_err(Into::into),
        Command::Vectors => vectors::vectors(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let binaries = artifacts::binaries(&Arch::ALL)?;
    println!("{}", artifacts::command(&binaries)?.display());
    for arch in Arch::ALL {
        println!("{}", binaries.loader(arch).display());
    }
    Ok(())
}

fn corpus(args: &corpus::RunArgs) -> Result<(), Box<dyn Error>> {
    if let Some((role, arch)) = args.built() {
        let binaries = artifacts::binaries(&[arch])?;
        let lab = linux::lab(role, arch, &binaries)?;
        return Ok(corpus::run(args, &lab)?);
    }
    let kernel: DebianKernel = args.target().parse()?;
    let binaries = artifacts::binaries(&[kernel.architecture().into()])?;
    let lab = binaries.lab(args.target(), preverify_lab::signer()?)?;
    Ok(corpus::run(args, &lab)?)
}

fn limits(args: &corpus::LimitsArgs) -> Result<(), Box<dyn Error>> {
    // Verifier VMs need the agent.
    artifacts::binaries(&[args.arch])?;
    let stock = linux::target_of_one(linux::Role::Unpatched, args.arch)?;
    let (raised, _) = linux::target(linux::Role::Unpatched, args.arch)?;
    Ok(corpus::limits(args, &stock, &raised)?)
}
