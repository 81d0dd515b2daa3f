//! One object, verified for several targets at the same time.

use std::fs;
use std::sync::Mutex;
use std::thread;

use preverify_pipeline::{
    BuildError, ImageKind, Limits, Object, Stage, Verified, VerifiedProgram, Verifier,
};
use preverify_target::Target;

use crate::steps::{Progress, Steps};

/// Verifies an object for each target. One that refuses it does not end the work of the others: whoever repairs an
/// object wants to know all that is wrong with it.
pub fn verify(
    object: &Object,
    targets: &[Target],
    limits: Limits,
    progress: &Progress,
) -> Vec<Result<Verified, BuildError>> {
    let width = match targets {
        [_] => 0,
        _ => targets
            .iter()
            .map(|target| target.name().len())
            .max()
            .unwrap_or(0),
    };
    let verify_one = |target: &Target| {
        let label = match width {
            0 => String::new(),
            width => format!("{:width$}", target.name()),
        };
        verify_one(object, target, limits, &mut progress.steps(label))
    };
    let outcomes: Vec<_> = targets.iter().map(|_| Mutex::new(None)).collect();
    let next = Mutex::new(0..targets.len());
    let work = || {
        while let Some(index) = take(&next) {
            let outcome = verify_one(&targets[index]);
            *outcomes[index].lock().expect("nobody panics with it") = Some(outcome);
        }
    };
    thread::scope(|scope| {
        // This thread is one of the workers: if no other can be started, it does it all.
        for _ in 1..at_once(targets, limits) {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    outcomes
        .into_iter()
        .map(|outcome| {
            let outcome = outcome.into_inner().expect("nobody panics with it");
            outcome.expect("the workers end when all is done")
        })
        .collect()
}

fn take(next: &Mutex<std::ops::Range<usize>>) -> Option<usize> {
    next.lock().expect("nobody panics with it").next()
}

fn verify_one(
    object: &Object,
    target: &Target,
    limits: Limits,
    steps: &mut Steps<'_>,
) -> Result<Verified, BuildError> {
    steps.start(match limits.more_memory(target) {
        Some(_) => "boot",
        None => "restore",
    });
    let verified = Verifier::start(target, limits).and_then(|mut verifier| {
        steps.done(&format!("two boots of {}", target.facts().release));
        verifier.verify(object, &mut |stage| match stage {
            Stage::Verify => steps.start("verify"),
            Stage::Processed(insns) => steps.note(&format!("{insns} insns processed")),
            Stage::Discover => {
                steps.done("accepted by both");
                steps.start("discover");
            }
            Stage::Prove => {
                steps.done("every address found in both");
                steps.start("prove");
            }
        })
    });
    match &verified {
        Ok(verified) => {
            let bytes = |wanted: ImageKind| -> usize {
                let images = verified.programs.iter().flat_map(VerifiedProgram::images);
                let wanted = images.filter(|(kind, _)| *kind == wanted);
                wanted.map(|(_, image)| image.proof.code_bytes).sum()
            };
            steps.done(&format!(
                "{} bytes of machine code, {} of bytecode: equal to both kernels' own",
                bytes(ImageKind::Native),
                bytes(ImageKind::Bytecode),
            ));
        }
        Err(BuildError::Rejected(_)) => steps.done("rejected"),
        Err(_) => steps.done("failed"),
    }
    verified
}

/// How many targets are worked on at once: each has two machines with a CPU and memory of their own.
fn at_once(targets: &[Target], limits: Limits) -> usize {
    let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() / 2);
    let largest = targets
        .iter()
        .map(|target| target.hardware().memory_mib)
        .chain(limits.memory_mib)
        .max();
    let memory =
        available_mib().map_or(1, |mib| mib / (2 * u64::from(largest.unwrap_or(1)).max(1)));
    usize::try_from(memory)
        .unwrap_or(usize::MAX)
        .min(cpus)
        .clamp(1, targets.len().max(1))
}

/// What this host's memory has room for.
fn available_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    parse_available_mib(&text)
}

fn parse_available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:       16000000 kB\nMemAvailable:    8388608 kB\nBuffers: 1 kB\n";
        assert_eq!(parse_available_mib(text), Some(8192));
        assert_eq!(parse_available_mib("MemAvailable: 5"), None);
        assert_eq!(parse_available_mib(""), None);
    }
}
