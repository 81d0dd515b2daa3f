//! `preverify target`: the kernels that objects are verified for.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use preverify_target::{
    AddRequest, DebianKernel, DeviceBuild, DeviceFiles, HardwareRequest, KernelFiles, MOST_CPUS,
    Source, Store, Target, TargetError, default_cache, fingerprint_words,
};
use serde_json::{Value, json};

/// The kernels that objects are verified for
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Adds a target: fetches its kernel, boots it, and keeps snapshots of it.
    ///
    /// A kernel of Debian's is downloaded and unpacked, and not installed. It is called
    /// debian:SERIES-FLAVOUR, for the newest of a series, or debian:RELEASE.
    #[command(after_long_help = BOARDS)]
    Add(Box<Add>),
    /// Lists the targets.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what is known about a target.
    Show {
        /// The target.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes a target, and what no other target needs.
    Remove {
        /// The target.
        name: String,
    },
}

/// How targets are made for boards.
const BOARDS: &str = "\
A board that is not at hand: the target must be like it, or the board refuses its bundles. On the
board, with the kernel part loaded (it may trust nobody yet):
  preverify-load fingerprint --json > board.json

Here, with that file and the kernel that the board runs (`uname -r`):
  preverify target add debian:6.12.117+deb12-arm64 --fingerprint board.json --name board

That chooses --cpu, --el2, --cmdline and --max-cpus, boots the kernel with them, and compares what
the kernel part says there with the file. An option that is given counts more than the file. If
something differs, no target is added; the error says what it is on the board and here, and which
options may help.";

/// A target to add.
#[derive(Debug, Args)]
pub struct Add {
    /// A kernel of Debian's, as in debian:6.12-cloud-amd64.
    #[arg(value_name = "SOURCE", required_unless_present = "kernel", value_parser = debian_kernel)]
    source: Option<DebianKernel>,
    /// What to call the target [default: the kernel's release].
    #[arg(long)]
    name: Option<String>,
    /// A kernel's file (bzImage, Image, zImage), instead of SOURCE.
    #[arg(long, conflicts_with = "source", requires_all = ["modules", "headers"])]
    kernel: Option<PathBuf>,
    /// The modules of --kernel: a folder like /lib/modules/RELEASE.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// What modules for --kernel are built against: its build folder. It must stay.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    headers: Option<PathBuf>,
    /// A file with the kernel's BTF, for a kernel that was built without.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
    /// The ELF file vmlinux, with its symbols, of the kernel that devices run, if that is another
    /// build than --kernel, of the same source.
    #[arg(long, value_name = "VMLINUX", requires_all = ["kernel", "device_btf"], conflicts_with = "fingerprint")]
    device_kernel: Option<PathBuf>,
    /// The BTF of --device-kernel: raw, as `pahole --btf_encode_detached` makes it, or an ELF file
    /// that has it.
    #[arg(long, value_name = "FILE", requires = "device_kernel")]
    device_btf: Option<PathBuf>,
    /// What `preverify-load fingerprint --json` printed on the board that this target is for: the
    /// machine is made like that board, and compared with it.
    #[arg(long, value_name = "FILE")]
    fingerprint: Option<PathBuf>,
    /// The CPU that devices have, by QEMU's name. `max` is everything that QEMU can do on this
    /// host [default: max for x86_64, cortex-a72 for arm64, cortex-a15 for arm].
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// arm64: devices start the kernel at exception level 2 (most boards do).
    #[arg(long)]
    el2: bool,
    /// What devices have on the kernel's command line, as far as verification depends on it
    /// (mitigations=, lsm=).
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The most CPUs that a device may have [default: 8].
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CPUS))
    )]
    max_cpus: Option<u32>,
}

/// Carries out a command.
pub fn run(command: Command) -> Result<(), TargetError> {
    let store = Store::open(&default_cache()?)?;
    match command {
        Command::Add(add) => self::add(&store, *add),
        Command::List { json } => list(&store, json),
        Command::Show { name, json } => show(&store.get(&name)?, json),
        Command::Remove { name } => {
            store.remove(&name)?;
            println!("removed {name}");
            Ok(())
        }
    }
}

fn add(store: &Store, add: Add) -> Result<(), TargetError> {
    let started = Instant::now();
    let mut progress = |stage: &str| {
        eprintln!("{:6.1} s  {stage}", started.elapsed().as_secs_f64());
    };
    let request = request(add);
    let added = store.add(&request, &mut progress)?;
    let name = added.target.name();
    if added.new {
        progress("done");
        println!("added {name}");
    } else {
        println!("{name} is there already, with the same kernel and machine");
    }
    if let Some(file) = &request.fingerprint {
        println!("its fingerprint is that of the board of {}", file.display());
    }
    Ok(())
}

fn request(add: Add) -> AddRequest {
    let source = match (add.source, add.kernel, add.modules, add.headers) {
        (Some(kernel), ..) => Source::Debian(kernel),
        (None, Some(kernel), Some(modules), Some(headers)) => Source::Files(KernelFiles {
            kernel,
            modules,
            headers,
        }),
        _ => unreachable!("clap requires either the one or the others"),
    };
    AddRequest {
        source,
        name: add.name,
        hardware: HardwareRequest {
            cpu: add.cpu,
            el2: add.el2.then_some(true),
            command_line: add.cmdline,
            max_cpus: add.max_cpus,
            ..HardwareRequest::default()
        },
        btf: add.btf,
        device: add
            .device_kernel
            .zip(add.device_btf)
            .map(|(kernel, btf)| DeviceFiles { kernel, btf }),
        fingerprint: add.fingerprint,
    }
}

fn list(store: &Store, as_json: bool) -> Result<(), TargetError> {
    let targets = store.list()?;
    if as_json {
        let targets: Vec<Value> = targets
            .iter()
            .map(|target| {
                json!({
                    "name": target.name(),
                    "release": target.facts().release,
                    "build-id": target.facts().build_id_text(),
                    "device": target.device().map(device),
                    "cpu": target.hardware().cpu,
                    "command-line": target.hardware().command_line,
                })
            })
            .collect();
        println!("{:#}", Value::from(targets));
        return Ok(());
    }
    let width = targets.iter().map(|target| target.name().len()).max();
    let width = width.unwrap_or_default();
    for target in &targets {
        println!(
            "{:width$}  {}  {}  {}",
            target.name(),
            target.facts().build_id_text(),
            target.hardware().cpu,
            target.hardware().command_line,
        );
        if let Some(device) = target.device() {
            let (release, build_id) = (device.release(), device.build_id_text());
            println!("{:width$}  for devices with {release}, {build_id}", "");
        }
    }
    Ok(())
}

fn show(target: &Target, as_json: bool) -> Result<(), TargetError> {
    let (facts, hardware, sizes) = (target.facts(), target.hardware(), target.sizes()?);
    let words = fingerprint_words(&facts.fingerprint, facts.return_thunk.as_deref());
    let device_module = target.device_module()?;
    let differences = match target.device() {
        Some(device) => device.differences()?,
        None => Vec::new(),
    };
    if as_json {
        let words: Value = words
            .into_iter()
            .map(|(what, value)| (what.to_owned(), Value::from(value)))
            .collect();
        let shown = json!({
            "name": target.name(),
            "kernel": target.kernel(),
            "device-module": device_module,
            "device": target.device().map(device),
            "differences": differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "facts": facts,
            "fingerprint-words": words,
            "hardware": hardware,
            "layouts": target.layouts(),
            "bytes-on-disk": sizes,
        });
        println!("{shown:#}");
        return Ok(());
    }
    let line = |what: &str, value: &str| println!("{what:16}{value}");
    line("name", target.name());
    line("release", &facts.release);
    line("version", &facts.version);
    line("build id", &facts.build_id_text());
    line("kernel", &target.kernel().display().to_string());
    match target.device() {
        None => line("device module", &device_module.display().to_string()),
        Some(device) => {
            line(
                "devices have",
                &format!("{}, build id {}", device.release(), device.build_id_text()),
            );
            line(
                "not the same",
                &format!(
                    "{} types, functions and variables; --json lists them",
                    differences.len()
                ),
            );
        }
    }
    line("CPU", &hardware.cpu);
    line("command line", &facts.command_line);
    line("memory", &format!("{} MiB", hardware.memory_mib));
    line("LSMs", &facts.security_modules.join(", "));
    let btf = match facts.btf_size {
        Some(size) => megabytes(size),
        None => "none: CO-RE and tracing by types do not work".to_owned(),
    };
    line("BTF", &btf);
    line(
        "layouts",
        &format!("{}, {} on disk", target.layouts(), megabytes(sizes.layouts)),
    );
    line("kernel's files", &megabytes(sizes.kernel));
    println!("\nfingerprint:");
    for (what, value) in &words {
        println!("    {what:16}{value}");
    }
    println!("\nconfiguration:");
    for (option, value) in &facts.config {
        println!("    CONFIG_{option}={value}");
    }
    Ok(())
}

fn device(device: &DeviceBuild) -> Value {
    json!({ "release": device.release(), "build-id": device.build_id_text() })
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

fn debian_kernel(text: &str) -> Result<DebianKernel, String> {
    text.parse().map_err(|error: TargetError| error.to_string())
}
