//! One object for one target, from its bytes to a signed bundle.

use preverify_bundle::{Bundle, Signer, SignerError};
use preverify_pipeline::{BuildError, Object, Stage, Verified};
use tracing::info_span;

use crate::digest::Digest;
use crate::news::{Progress, Step};
use crate::pool::Pool;
use crate::targets::Held;
use crate::task::{Program, Verification};

/// What a verification has come to.
pub enum Verdict {
    /// A signed bundle, what was said of its programs, and what is remarkable.
    Accepted {
        bundle: Bundle,
        programs: Vec<Program>,
        notes: Vec<String>,
    },
    /// It is refused, and would be again.
    Refused {
        message: String,
        program: Option<String>,
        log: Option<String>,
    },
    /// There is none. `again` says whether the same may go well another time.
    None { reason: String, again: bool },
}

/// Verifies an object, proves its images, and signs the bundle: in one step, so that nobody can hand in a ready image.
pub fn verify(
    verification: &Verification,
    elf: Vec<u8>,
    held: &Held,
    pool: &Pool,
    signer: &Signer,
    tell: &mut dyn FnMut(Progress),
) -> Verdict {
    debug_assert_eq!(Digest::of(&elf), verification.object);
    let object = Object {
        name: verification.name.clone(),
        elf,
        inputs: verification.inputs.clone(),
        share: verification.share,
    };
    let mut current = None;
    let mut step = |step, processed| {
        if current.as_ref().is_none_or(|(is, _)| *is != step) {
            // One ends before the next begins.
            drop(current.take());
            let span = info_span!("step", otel.name = %step).entered();
            current = Some((step, span));
        }
        tell(Progress { step, processed });
    };
    step(Step::Restore, None);
    let verified = pool
        .take(held, verification.limits)
        .and_then(|mut verifier| {
            pool.refill(held);
            verifier.verify(&object, &mut |stage| match stage {
                Stage::Verify => step(Step::Verify, None),
                Stage::Processed(insns) => step(Step::Verify, Some(insns)),
                Stage::Discover => step(Step::Discover, None),
                Stage::Prove => step(Step::Prove, None),
            })
        });
    let outcome = verified.and_then(|verified| {
        let bundle = preverify_pipeline::bundle(&[(&held.target, &verified)])?;
        Ok((verified, bundle))
    });
    let (verified, mut bundle) = match outcome {
        Ok(both) => both,
        Err(error) => return Verdict::of(&error),
    };
    step(Step::Sign, None);
    match bundle.sign(signer) {
        Ok(()) => Verdict::Accepted {
            bundle,
            programs: programs(&verified),
            notes: verified.notes.iter().map(ToString::to_string).collect(),
        },
        Err(error) => Verdict::unsigned(&error),
    }
}

impl Verdict {
    fn of(error: &BuildError) -> Self {
        let message = error.to_string().trim_end().to_owned();
        match error {
            BuildError::Rejected(rejection) => Self::Refused {
                message,
                program: rejection.program.clone(),
                log: [&rejection.verifier_log, &rejection.libbpf_log]
                    .into_iter()
                    .find(|log| !log.is_empty())
                    .cloned(),
            },
            BuildError::Programs(_)
            | BuildError::OtherKernel(_)
            | BuildError::FixedLimits(_)
            | BuildError::Format(_) => Self::Refused {
                message,
                program: None,
                log: None,
            },
            // The same limits would be reached again; who wants more says so, which is another task.
            BuildError::TimedOut { .. } | BuildError::OutOfMemory { .. } => Self::None {
                reason: message,
                again: false,
            },
            _ => Self::None {
                reason: message,
                again: true,
            },
        }
    }

    pub(crate) fn unsigned(error: &SignerError) -> Self {
        Self::None {
            reason: format!("it cannot be signed: {error}"),
            again: true,
        }
    }
}

fn programs(verified: &Verified) -> Vec<Program> {
    let all = verified.programs.iter().zip(&verified.loaded.programs);
    all.map(|(program, loaded)| Program {
        function: loaded.function.clone(),
        total_insns: loaded.statistics.total_insns,
        total_states: loaded.statistics.total_states,
        peak_states: loaded.statistics.peak_states,
        duration_us: loaded.statistics.duration_us,
        native_bytes: program.native.as_ref().map(|image| image.proof.code_bytes),
        bytecode_bytes: program
            .bytecode
            .as_ref()
            .map(|image| image.proof.code_bytes),
    })
    .collect()
}
