//! `preverify build`: from an object to a signed bundle.

mod report;
mod targets;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_bundle::{SignerError, WriteError};
use preverify_pipeline::{BuildError, Limits, Object, Verified};
use preverify_target::{Store, Target, TargetError, default_cache};

use crate::inputs::{InputArgs, InputsArgsError};
use crate::signer::{OpenSignerError, SignerArgs};
use crate::steps::Progress;
use report::Written;
pub use report::program_line;

/// Verify an object with the targets' own kernels, prove its images, and sign a bundle
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  preverify build xdp.bpf.o --target board --key signer.pem -o xdp.pvb
  preverify build trace.bpf.o --target board --key signer.pem -o trace.pvb \\
      --set min_us=500 --attach-target on_unlink=do_unlinkat
  preverify build xdp.bpf.o --target board --target board-next --target gateway \\
      --key signer.pem -o xdp.pvb
  preverify build xdp.bpf.o --target board -o xdp.pvb \\
      --key 'pkcs11:token=signing;object=preverify?module-path=/usr/lib/softhsm/libsofthsm2.so'

A bundle for several targets is one file for all of these devices: each takes its own part and reads nothing else. \
Targets may be of different architectures. A device that several of them fit takes the first. If one of them \
refuses the object, there is no bundle.

What the object's own user space would decide before it loads the object is decided here, since the verifier's \
verdict depends on it. It is read from `OBJECT` with `.toml` instead of `.o`, if that file exists:

  modules = [\"nf_conntrack\"]      # kernel modules to insert first
  [globals]
  min_us = 500                    # an integer, true or false, a string, or a list of bytes
  [maps.stacks]
  max-entries = 1024              # also: value-size, autocreate
  [programs.on_unlink]
  attach-target = \"do_unlinkat\"   # also: autoload

What a verification may cost is up to the target's kernel, but for its time. Kernels that `cargo xtask kernel \
verifier` builds have limits that can be raised, for programs that others refuse as too complex:

  preverify build parser.bpf.o --target gateway --key signer.pem -o parser.pvb \\
      --limits insns=64M,jumps=1M,memory=8G,time=30min

insns: instructions processed on all paths together, and of a program (a million by default)
jumps: branches that wait while another is followed (8192 by default)
memory: of each of the two virtual machines, which are booted for it
time: of one verification (10min by default)")]
pub struct Args {
    /// The BPF object, an ELF file as clang makes it
    object: PathBuf,
    /// A target: a name that `preverify target list` shows; can be given again
    #[arg(long = "target", value_name = "NAME", required = true)]
    targets: Vec<String>,
    #[command(flatten)]
    signer: SignerArgs,
    /// Where the bundle goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    /// How far a verification may go: some of `insns=N,jumps=N,memory=SIZE,time=DURATION`
    #[arg(long, value_name = "LIMIT=VALUE,...")]
    limits: Option<Limits>,
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
    /// The inputs are wrong.
    #[error(transparent)]
    Inputs(#[from] InputsArgsError),
    /// There is no such target, or it cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] OpenSignerError),
    /// It does not sign.
    #[error(transparent)]
    Sign(#[from] SignerError),
    /// The same target twice, under one name or two.
    #[error(
        "--target {again} names the same kernel and machine as --target {first}: leave one out"
    )]
    Again { first: String, again: String },
    /// The object was rejected by a target, or cannot be carried to it.
    #[error("{0}")]
    Refused(Refused),
    /// What was verified does not fit into a bundle.
    #[error("{}: {source}", object.display())]
    Assemble {
        object: PathBuf,
        source: Box<BuildError>,
    },
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An object that is not accepted by all targets.
#[derive(Debug)]
pub struct Refused {
    object: PathBuf,
    accepted: Vec<String>,
    refused: Vec<(String, Refusal)>,
}

/// A target, and what came of it.
type Outcome<'a> = (&'a Target, Result<Verified, Refusal>);

/// Why a target does not take an object.
#[derive(Debug)]
struct Refusal {
    reason: BuildError,
    /// Where the verifier's whole log is, if it has said no.
    log: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object.display())?;
        if let ([(_, refusal)], []) = (&self.refused[..], &self.accepted[..]) {
            return refusal.fmt(f);
        }
        write!(
            f,
            "no bundle, since {} of {} targets do not take it",
            self.refused.len(),
            self.refused.len() + self.accepted.len()
        )?;
        if !self.accepted.is_empty() {
            write!(f, " (accepted for {})", self.accepted.join(", "))?;
        }
        for (target, refusal) in &self.refused {
            write!(f, "\n{target}: {refusal}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.to_string();
        f.write_str(reason.trim_end())?;
        match &self.log {
            Some(log) => write!(f, "\n  the whole log: {log}"),
            None => Ok(()),
        }
    }
}

/// Builds a bundle.
pub fn run(args: &Args) -> Result<(), BuildCommandError> {
    // What can fail at once fails before the long work.
    let signer = args.signer.open()?;
    let mut object = Object::read(&args.object).map_err(|source| BuildCommandError::Read {
        path: args.object.clone(),
        source,
    })?;
    object.inputs = args.inputs.of(&args.object)?;
    let store = Store::open(&default_cache()?)?;
    let targets: Vec<_> = args
        .targets
        .iter()
        .map(|name| store.get(name))
        .collect::<Result<_, _>>()?;
    all_different(&targets)?;

    let progress = Progress::new();
    progress.line(&format!("{} for {}", object.name, args.targets.join(", ")));
    let verified = targets::verify(
        &object,
        &targets,
        args.limits.unwrap_or_default(),
        &progress,
    );
    let outcomes: Vec<Outcome<'_>> = targets
        .iter()
        .zip(verified)
        .map(|(target, verified)| {
            let verified = verified.map_err(|reason| Refusal {
                log: keep_log(args, target, &reason),
                reason,
            });
            (target, verified)
        })
        .collect();
    let accepted: Vec<_> = outcomes
        .iter()
        .filter_map(|(target, outcome)| Some((*target, outcome.as_ref().ok()?)))
        .collect();
    if accepted.len() < outcomes.len() {
        tell(args, &object, &outcomes, None);
        return Err(BuildCommandError::Refused(refused(args, outcomes)));
    }
    let mut bundle =
        preverify_pipeline::bundle(&accepted).map_err(|source| BuildCommandError::Assemble {
            object: args.object.clone(),
            source: Box::new(source),
        })?;
    let mut steps = progress.steps(String::new());
    steps.start("sign");
    bundle.sign(&signer)?;
    steps.done(&signer.to_string());
    bundle.write(&args.output)?;
    let written = Written::new(&args.output, &bundle);
    tell(args, &object, &outcomes, Some(&written));
    Ok(())
}

/// A device takes the first target that fits: one that is like another would never be used.
fn all_different(targets: &[Target]) -> Result<(), BuildCommandError> {
    let is_like = |one: &Target, other: &Target| {
        let (one, other) = (one.facts(), other.facts());
        one.build_id == other.build_id && one.fingerprint == other.fingerprint
    };
    for (index, again) in targets.iter().enumerate() {
        if let Some(first) = targets[..index].iter().find(|first| is_like(first, again)) {
            return Err(BuildCommandError::Again {
                first: first.name().into(),
                again: again.name().into(),
            });
        }
    }
    Ok(())
}

/// Keeps the verifier's whole log, if it has said no, since the message has only its end; says where.
fn keep_log(args: &Args, target: &Target, reason: &BuildError) -> Option<String> {
    let BuildError::Rejected(rejection) = reason else {
        return None;
    };
    let text = match rejection.verifier_log.is_empty() {
        true => &rejection.libbpf_log,
        false => &rejection.verifier_log,
    };
    let path = match &args.targets[..] {
        [_] => suffixed(&args.output, ".log"),
        _ => suffixed(&args.output, &format!(".{}.log", target.name())),
    };
    Some(match fs::write(&path, text) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("{} cannot be written: {error}", path.display()),
    })
}

fn refused(args: &Args, outcomes: Vec<Outcome<'_>>) -> Refused {
    let mut all = Refused {
        object: args.object.clone(),
        accepted: Vec::new(),
        refused: Vec::new(),
    };
    for (target, outcome) in outcomes {
        let name = target.name().to_owned();
        match outcome {
            Ok(_) => all.accepted.push(name),
            Err(refusal) => all.refused.push((name, refusal)),
        }
    }
    all
}

/// Says what came of each target.
fn tell(args: &Args, object: &Object, outcomes: &[Outcome<'_>], written: Option<&Written<'_>>) {
    if args.json {
        println!("{:#}", report::as_json(&object.sha256(), outcomes, written));
        return;
    }
    let text = report::as_text(outcomes, written);
    if !text.is_empty() {
        eprintln!("{text}");
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
