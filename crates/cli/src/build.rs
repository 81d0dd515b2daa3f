//! `preverify build`: from an object to a signed bundle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use preverify_bundle::{Bundle, Signer, SignerError, WriteError};
use preverify_pipeline::inputs::{self, InputsError};
use preverify_pipeline::{BuildError, Object, Stage, Verified, Verifier, inputs_beside};
use preverify_protocol::{Inputs, Rejection};
use preverify_target::{Store, Target, TargetError, default_cache};

use crate::steps::Steps;

/// Verify an object with the target's own kernel, prove its images, and sign a bundle
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  preverify build xdp.bpf.o --target board --key signer.pem -o xdp.pvb
  preverify build trace.bpf.o --target board --key signer.pem -o trace.pvb \\
      --set min_us=500 --attach-target on_unlink=do_unlinkat

What the object's own user space would decide before it loads the object is decided here, since the verifier's \
verdict depends on it. It is read from `OBJECT` with `.toml` instead of `.o`, if that file exists:

  modules = [\"nf_conntrack\"]      # kernel modules to insert first
  [globals]
  min_us = 500                    # an integer, true or false, a string, or a list of bytes
  [maps.stacks]
  max-entries = 1024              # also: value-size, autocreate
  [programs.on_unlink]
  attach-target = \"do_unlinkat\"   # also: autoload")]
pub struct Args {
    /// The BPF object, an ELF file as clang makes it
    object: PathBuf,
    /// The target: a name that `preverify target list` shows
    #[arg(long, value_name = "NAME")]
    target: String,
    /// The signer: a file that `preverify key generate` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the bundle goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// What the object's user space would set [default: the object's file with `.toml` for `.o`, if it exists]
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Set a global variable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Load a program that the object leaves out by itself
    #[arg(long, value_name = "PROGRAM")]
    autoload: Vec<String>,
    /// Leave a program out
    #[arg(long, value_name = "PROGRAM")]
    no_autoload: Vec<String>,
    /// The function or hook that a program attaches to
    #[arg(long, value_name = "PROGRAM=FUNCTION")]
    attach_target: Vec<String>,
    /// Give up after so many seconds of verification
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    /// Print the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BuildCommandError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Log { path: PathBuf, source: io::Error },
    /// The inputs are wrong.
    #[error("{}", match path { Some(path) => format!("{}: {source}", path.display()), None => source.to_string() })]
    Inputs {
        path: Option<PathBuf>,
        source: InputsError,
    },
    /// There is no such target, or it cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be used.
    #[error(transparent)]
    Sign(#[from] SignerError),
    /// The object was rejected or cannot be carried to a device.
    #[error("{}: {source}", object.display())]
    Build {
        object: PathBuf,
        source: Box<BuildError>,
    },
    /// The verifier said no; its log is in a file.
    #[error(
        "{}: {source}\n  the whole log: {}", object.display(), log.display()
    )]
    Rejected {
        object: PathBuf,
        source: Box<BuildError>,
        log: PathBuf,
    },
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Builds a bundle.
pub fn run(args: &Args) -> Result<(), BuildCommandError> {
    // What can fail at once fails before the long work.
    let signer = Signer::open(&args.key)?;
    let mut object = Object::read(&args.object).map_err(|source| BuildCommandError::Read {
        path: args.object.clone(),
        source,
    })?;
    object.inputs = inputs(args)?;
    let store = Store::open(&default_cache()?)?;
    let target = store.get(&args.target)?;

    let mut steps = Steps::new();
    steps.line(&format!("{} for {}", object.name, target.name()));
    let verified = verify(args, &object, &target, &mut steps)?;
    let mut bundle = preverify_pipeline::bundle(&[(&target, &verified)]).map_err(failed(args))?;
    steps.start("sign");
    bundle.sign(&signer)?;
    steps.done(&signer.to_string());
    bundle.write(&args.output)?;
    drop(steps);
    report(args, &verified, &bundle);
    Ok(())
}

fn verify(
    args: &Args,
    object: &Object,
    target: &Target,
    steps: &mut Steps,
) -> Result<Verified, BuildCommandError> {
    steps.start("restore");
    let mut verifier = Verifier::start(target).map_err(failed(args))?;
    steps.done(&format!("two boots of {}", target.facts().release));
    let limit = Duration::from_secs(args.time_limit);
    let verified = verifier.verify(object, limit, &mut |stage| match stage {
        Stage::Restore => {}
        Stage::Verify => steps.start("verify"),
        Stage::Discover => {
            steps.done("accepted by both");
            steps.start("discover");
        }
        Stage::Prove => {
            steps.done("every address found in both");
            steps.start("prove");
        }
    });
    match verified {
        Ok(verified) => {
            let bytes: usize = verified.programs.iter().map(|p| p.proof.code_bytes).sum();
            let relocations: usize = verified.programs.iter().map(|p| p.proof.relocations).sum();
            steps.done(&format!(
                "{bytes} bytes of code, {relocations} addresses: equal to both kernels' own"
            ));
            Ok(verified)
        }
        Err(BuildError::Rejected(rejection)) => {
            steps.done("rejected");
            Err(rejected(args, rejection))
        }
        Err(source) => Err(failed(args)(source)),
    }
}

/// Keeps the whole log, since the message has only its end.
fn rejected(args: &Args, rejection: Box<Rejection>) -> BuildCommandError {
    let object = args.object.clone();
    let text = match rejection.verifier_log.is_empty() {
        true => &rejection.libbpf_log,
        false => &rejection.verifier_log,
    };
    let log = suffixed(&args.output, ".log");
    match fs::write(&log, text) {
        Ok(()) => BuildCommandError::Rejected {
            object,
            source: Box::new(BuildError::Rejected(rejection)),
            log,
        },
        Err(source) => BuildCommandError::Log { path: log, source },
    }
}

fn inputs(args: &Args) -> Result<Inputs, BuildCommandError> {
    let beside = inputs_beside(&args.object);
    let file = args
        .inputs
        .clone()
        .or_else(|| beside.exists().then_some(beside));
    let mut inputs = match file {
        Some(path) => {
            let text = fs::read_to_string(&path).map_err(|source| BuildCommandError::Read {
                path: path.clone(),
                source,
            })?;
            inputs::parse(&text).map_err(|source| BuildCommandError::Inputs {
                path: Some(path),
                source,
            })?
        }
        None => Inputs::default(),
    };
    let wrong = |source| BuildCommandError::Inputs { path: None, source };
    for setting in &args.settings {
        let (name, value) = inputs::parse_setting(setting).map_err(wrong)?;
        inputs.globals.insert(name, value);
    }
    for program in &args.autoload {
        inputs.programs.entry(program.clone()).or_default().autoload = Some(true);
    }
    for program in &args.no_autoload {
        inputs.programs.entry(program.clone()).or_default().autoload = Some(false);
    }
    for setting in &args.attach_target {
        let (program, function) = inputs::split_setting(setting).map_err(wrong)?;
        let program = inputs.programs.entry(program.into()).or_default();
        program.attach_target = Some(function.into());
    }
    Ok(inputs)
}

fn report(args: &Args, verified: &Verified, bundle: &Bundle) {
    let size = bundle.to_bytes().len();
    if args.json {
        let programs: Vec<_> = verified
            .programs
            .iter()
            .zip(&verified.loaded.programs)
            .map(|(program, loaded)| {
                serde_json::json!({
                    "program": loaded.function,
                    "total_insns": loaded.statistics.total_insns,
                    "total_states": loaded.statistics.total_states,
                    "peak_states": loaded.statistics.peak_states,
                    "duration_us": loaded.statistics.duration_us,
                    "code_bytes": program.proof.code_bytes,
                    "relocations": program.proof.relocations,
                })
            })
            .collect();
        let outcome = serde_json::json!({
            "bundle": args.output,
            "bytes": size,
            "object_sha256": verified.object_sha256,
            "programs": programs,
        });
        println!("{outcome:#}");
        return;
    }
    for (program, loaded) in verified.programs.iter().zip(&verified.loaded.programs) {
        let statistics = &loaded.statistics;
        eprintln!(
            "  {:24} {:>9} insns processed, {:>6} peak states, {:>7} bytes of code",
            loaded.function,
            statistics.total_insns,
            statistics.peak_states,
            program.proof.code_bytes
        );
    }
    eprintln!("{}: {size} bytes", args.output.display());
}

fn failed(args: &Args) -> impl FnOnce(BuildError) -> BuildCommandError {
    let object = args.object.clone();
    move |source| BuildCommandError::Build {
        object,
        source: Box::new(source),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
