//! Why an object did not become a bundle.

use std::fmt;
use std::io;
use std::time::Duration;

use preverify_bundle::FormatError;
use preverify_image::DiscoverError;
use preverify_image::ProofError;
use preverify_image::export::ExportError;
use preverify_image::image::TooLarge;
use preverify_image::symbols::SymbolsError;
use preverify_protocol::{Limits, Rejection, Stage};
use preverify_target::TargetError;
use preverify_vm::VmError;

use crate::diagnosis::Diagnosis;
use crate::limits;
use crate::other_kernel::Mismatch;

/// Why an object did not become a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// libbpf or the target's kernel refused the object: a verdict.
    #[error("{}", Verdict(.0))]
    Rejected(Box<Rejection>),
    /// Programs were accepted that cannot be carried to a device.
    #[error("{}", Problems(.0))]
    Programs(Vec<ProgramProblem>),
    /// Devices run another build of the kernel, which is not the same in what the object relies on.
    #[error("{}", Mismatches(.0))]
    OtherKernel(Vec<Mismatch>),
    /// Two boots of the same kernel do not say the same.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The target could not be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The verifier VM failed: this is no verdict.
    #[error(transparent)]
    Machine(#[from] VmError),
    /// The target's kernel has its limits built in, and others are wanted.
    #[error(
        "the limits of the target's kernel are fixed: it processes {} instructions of a program, and has {} branches \
         wait; leave insns= and jumps= out of --limits, or take a kernel whose verifier has them as parameters: \
         `cargo xtask kernel verifier` builds one (its patches are in kernel/patches)",
        .0.insns,
        .0.jumps
    )]
    FixedLimits(Limits),
    /// The verification took too long. That is no verdict.
    #[error(
        "the verification did not end within {} s{}; if it should go on, give it more: --limits time=",
        limit.as_secs(),
        Processed(*processed)
    )]
    TimedOut {
        /// How long it might take.
        limit: Duration,
        /// Instructions processed by then, if the kernel counts them.
        processed: Option<u64>,
    },
    /// The memory of the verifier VM was not enough. That is no verdict.
    #[error(
        "the verifier VM's memory did not suffice for the verification{}; give it more: --limits memory=",
        Processed(*processed)
    )]
    OutOfMemory {
        /// Instructions processed by then, if the kernel counts them.
        processed: Option<u64>,
    },
    /// The agent could not do what it was asked: this is no verdict.
    #[error("the agent in the verifier VM failed: {message}")]
    Agent {
        /// What it said.
        message: String,
    },
    /// A kernel module that the inputs name cannot be read.
    #[error("cannot read the kernel module {}: {source}", file.display())]
    Module {
        /// Its file.
        file: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's symbols cannot be used.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// What was verified does not fit into a bundle.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A thread could not be started.
    #[error("a thread for the second verifier VM cannot be started: {0}")]
    Thread(io::Error),
}

/// Why one accepted program cannot be carried to a device.
#[derive(Debug)]
pub struct ProgramProblem {
    /// The name of its function.
    pub program: String,
    /// Why not.
    pub problem: Problem,
}

/// Why an accepted program cannot be carried to a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The kernel part did not export it.
    #[error("the kernel part exported nothing of it")]
    NoExport,
    /// The export cannot be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// It has something that no image can hold, or an address that nothing explains.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// It is larger than the kernel part reads.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The image is not what the kernel's own compiler made.
    #[error("the proof failed: {0}")]
    Prove(#[from] ProofError),
    /// There is neither image of it, for different reasons.
    #[error("no machine code can be made of it ({native}), and no bytecode ({bytecode})")]
    NoImage {
        /// Why there is no machine code.
        native: Box<Problem>,
        /// Why there is no bytecode.
        bytecode: Box<Problem>,
    },
    /// It uses a map that the object does not name.
    #[error("it uses the map `{name}` (id {id}), which is none of the object's")]
    ForeignMap {
        /// The map's name in the kernel.
        name: String,
        /// Its id in the verifier VM.
        id: u32,
    },
}

impl Problem {
    /// Why there is neither image of a program; most often, it is the same for both.
    pub(crate) fn no_image(native: Self, bytecode: Self) -> Self {
        match (&native, &bytecode) {
            // The same pointer, once in machine code and once in the instruction that it is from.
            (
                Self::Discover(DiscoverError::UnknownAddress { role, .. }),
                Self::Discover(DiscoverError::UnknownAddress { role: again, .. }),
            ) if role == again => bytecode,
            _ if native.to_string() == bytecode.to_string() => native,
            _ => Self::NoImage {
                native: Box::new(native),
                bytecode: Box::new(bytecode),
            },
        }
    }
}

/// Two boots of the same kernel, given the same object, do not say the same.
#[derive(Debug, thiserror::Error)]
#[error(
    "two boots of the target's kernel differ in {what}: {first} in the first, {second} in the \
     second; a bundle must not depend on which of them verified"
)]
pub struct Disagreement {
    /// In what.
    pub what: String,
    /// What the first said.
    pub first: String,
    /// What the second said.
    pub second: String,
}

impl Disagreement {
    /// Compares what both said.
    pub(crate) fn unless_equal<T: PartialEq + fmt::Debug>(
        what: impl Into<String>,
        first: &T,
        second: &T,
    ) -> Result<(), Self> {
        if first == second {
            return Ok(());
        }
        Err(Self {
            what: what.into(),
            first: shorten(format!("{first:?}")),
            second: shorten(format!("{second:?}")),
        })
    }
}

/// Enough to see what it is about.
fn shorten(mut text: String) -> String {
    const LIMIT: usize = 200;
    if let Some((end, _)) = text.char_indices().nth(LIMIT) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

struct Processed(Option<u64>);

impl fmt::Display for Processed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(insns) => write!(f, " ({insns} instructions had been processed)"),
            None => Ok(()),
        }
    }
}

/// What kernels return that know an instruction, and have no machine code for it; user space has no name for it.
const ENOTSUPP: i32 = 524;

struct Verdict<'a>(&'a Rejection);

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejection {
            stage,
            program,
            errno,
            verifier_log,
            libbpf_log,
        } = self.0;
        let error = io::Error::from_raw_os_error(errno.saturating_abs());
        match (stage, program) {
            (Stage::Verify, Some(program)) if errno.saturating_abs() == ENOTSUPP => {
                return write!(
                    f,
                    "the target's kernel does not take the program `{program}`: its JIT compiler does not compile it \
                     (32-bit arm's knows neither atomics nor division of 64 bits), and the kernel does not interpret it"
                );
            }
            (Stage::Open, _) => writeln!(f, "libbpf cannot open the object: {error}")?,
            (Stage::Prepare, _) => writeln!(
                f,
                "libbpf cannot prepare the object for the target's kernel: {error}"
            )?,
            (Stage::Verify, Some(program)) => writeln!(
                f,
                "the target's verifier rejects the program `{program}` ({error}):"
            )?,
            (Stage::Verify, None) => {
                writeln!(f, "the target's kernel rejects the object: {error}")?
            }
            (Stage::Export, Some(program)) => {
                writeln!(f, "the program `{program}` cannot be exported: {error}")?;
            }
            (Stage::Export, None) => writeln!(f, "the object cannot be exported: {error}")?,
        }
        if !verifier_log.trim().is_empty() {
            write!(f, "{}", Diagnosis::of(verifier_log))?;
        } else {
            for line in libbpf_log.lines().filter(|line| !line.trim().is_empty()) {
                writeln!(f, "  {line}")?;
            }
        }
        match limits::reached(self.0) {
            Some(limit) => writeln!(
                f,
                "  it is too complex for the verifier's limits; kernels of `cargo xtask kernel verifier` go farther with \
                 --limits {limit}="
            ),
            None => Ok(()),
        }
    }
}

struct Mismatches<'a>(&'a [Mismatch]);

impl fmt::Display for Mismatches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the target's kernel accepts the object, but the kernel of devices is not the same in what it relies on \
             (build both kernels from one source, with configurations that are nearly the same):",
        )?;
        for Mismatch { program, reason } in self.0 {
            match program {
                Some(program) => write!(f, "\n  `{program}`: {reason}")?,
                None => write!(f, "\n  {reason}")?,
            }
        }
        Ok(())
    }
}

struct Problems<'a>(&'a [ProgramProblem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the target's kernel accepts the object, but {} of its programs cannot be carried to a \
             device (`--no-autoload PROGRAM` leaves one out):",
            self.0.len()
        )?;
        for ProgramProblem { program, problem } in self.0 {
            write!(f, "\n  `{program}`: {problem}")?;
        }
        Ok(())
    }
}
