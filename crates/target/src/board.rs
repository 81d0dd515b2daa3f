//! Boards that are not at hand: what the kernel part said of one, in a file; a machine like it; and whether it is.

mod error;
mod file;
mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use preverify_abi::kinds::Architecture;
use preverify_abi::manifest::Fingerprint;
use preverify_abi::words::{self, Matters};

pub use error::{BoardError, Difference};

use crate::arch::Arch;
use crate::error::TargetError;
use crate::facts::Facts;
use crate::files::{self, hex};
use crate::hardware::HardwareRequest;
use crate::source::{DebianKernel, Source};
use crate::target::Target;

/// A board, as its kernel part described it.
#[derive(Debug)]
pub(crate) struct Board {
    path: PathBuf,
    release: String,
    build_id: Vec<u8>,
    fingerprint: Fingerprint,
}

impl Board {
    /// Reads what `preverify-load fingerprint --json` printed.
    pub(crate) fn read(path: &Path) -> Result<Self, TargetError> {
        Ok(file::parse(path, &files::read(path)?)?)
    }

    /// Refuses a kernel that cannot be the board's, as far as that shows before it boots.
    pub(crate) fn check_kernel(
        &self,
        source: &Source,
        arch: Arch,
        release: &str,
    ) -> Result<(), BoardError> {
        let board = Architecture(self.fingerprint.arch.get());
        if board != arch.architecture() {
            return Err(BoardError::OtherArchitecture {
                path: self.path.clone(),
                board,
                release: self.release.clone(),
                kernel: arch.architecture(),
                way_out: way_to_kernel(source, &self.release),
            });
        }
        if self.release == release {
            return Ok(());
        }
        Err(BoardError::OtherRelease {
            path: self.path.clone(),
            board: self.release.clone(),
            kernel: release.to_owned(),
            way_out: way_to_kernel(source, &self.release),
        })
    }

    /// A machine like the board, but for what is asked.
    pub(crate) fn machine(&self, asked: &HardwareRequest) -> Result<HardwareRequest, BoardError> {
        match machine::obstacle(&self.fingerprint) {
            Some((what, why)) => Err(BoardError::Beyond {
                path: self.path.clone(),
                what,
                why,
            }),
            None => Ok(asked.clone().or(machine::like(&self.fingerprint, None))),
        }
    }

    /// Refuses a target that is not as the board is.
    pub(crate) fn compare(&self, target: &Target) -> Result<(), TargetError> {
        let facts = target.facts();
        if facts.build_id != self.build_id {
            return Err(BoardError::OtherBuild {
                path: self.path.clone(),
                release: self.release.clone(),
                board: hex(&self.build_id),
                kernel: facts.build_id_text(),
            }
            .into());
        }
        let return_thunk = match self.fingerprint.return_thunk.get() {
            same if same == facts.fingerprint.return_thunk.get() => facts.return_thunk.clone(),
            other => target.symbol_at(other)?,
        };
        let differences = self.differences(facts, return_thunk.as_deref());
        if differences.is_empty() {
            return Ok(());
        }
        Err(BoardError::Differs {
            path: self.path.clone(),
            options: target.hardware().options(),
            differences,
            remedies: machine::remedies(
                &facts.fingerprint,
                &self.fingerprint,
                return_thunk.as_deref(),
            ),
        }
        .into())
    }

    /// What is otherwise on the board. A target that allows for more CPUs is for the board, too.
    fn differences(&self, facts: &Facts, return_thunk: Option<&str>) -> Vec<Difference> {
        let mut alike = facts.fingerprint;
        if self.fingerprint.cpu_limit <= alike.cpu_limit {
            alike.cpu_limit = self.fingerprint.cpu_limit;
        }
        let ours: BTreeMap<_, _> = words::facts(&alike, facts.return_thunk.as_deref())
            .map(|fact| (fact.name, fact.to_string()))
            .collect();
        words::facts(&self.fingerprint, return_thunk)
            .map(|fact| Difference {
                name: fact.name,
                always: fact.matters == Matters::Always,
                board: fact.to_string(),
                // What this architecture does not have is left out.
                here: ours.get(fact.name).cloned().unwrap_or("none".to_owned()),
            })
            .filter(|fact| fact.board != fact.here)
            .collect()
    }
}

/// How to name the kernel that a board runs.
fn way_to_kernel(source: &Source, release: &str) -> String {
    let debian = format!("debian:{release}");
    match source {
        Source::Debian(_) if debian.parse::<DebianKernel>().is_ok() => format!("name it {debian}"),
        _ => "give that kernel's files (--kernel, --modules, --headers)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use preverify_abi::manifest::{
        JIT_X86_BMI2, POLICY_BYPASS_SPEC_V1, POLICY_READ_KERNEL, POLICY_WRITE_USER,
    };

    use super::*;
    use crate::facts;

    type Change = fn(&mut Fingerprint);

    /// The board that a target's facts are of.
    fn board() -> Board {
        let facts = facts::tests::sample();
        Board {
            path: "board.json".into(),
            release: facts.release,
            build_id: facts.build_id,
            fingerprint: facts.fingerprint,
        }
    }

    fn debian() -> Source {
        Source::Debian("debian:6.12-amd64".parse().unwrap())
    }

    #[test]
    fn a_board_is_like_itself_and_may_have_fewer_cpus() {
        let (facts, mut board) = (facts::tests::sample(), board());
        let thunk = facts.return_thunk.as_deref();
        assert_eq!(board.differences(&facts, thunk), []);
        board.fingerprint.cpu_limit = 2.into();
        assert_eq!(board.differences(&facts, thunk), []);
        board.fingerprint.cpu_limit = 9.into();
        assert_eq!(
            board.differences(&facts, thunk),
            [Difference {
                name: "CPUs at most",
                always: true,
                board: "9".to_owned(),
                here: "8".to_owned(),
            }]
        );
    }

    #[test]
    fn every_field_is_compared() {
        let facts = facts::tests::sample();
        let changes: [(&str, Change); 8] = [
            ("architecture", |board| board.arch += 1),
            ("page size", |board| board.page_shift += 1),
            ("verifier", |board| {
                board.policy |= POLICY_BYPASS_SPEC_V1;
            }),
            ("address bits", |board| board.va_bits += 9),
            ("JIT", |board| board.jit_flags ^= JIT_X86_BMI2),
            ("returns", |board| board.return_thunk += 16),
            ("JIT hardening", |board| board.jit_harden += 1),
            ("CFI", |board| board.cfi_mode += 1),
        ];
        for (name, change) in changes {
            let mut board = board();
            change(&mut board.fingerprint);
            let found = board.differences(&facts, None);
            assert!(found.iter().any(|found| found.name == name), "{name}");
        }
    }

    #[test]
    fn other_kernels_are_refused_with_the_way_to_the_right_one() {
        let mut board = board();
        board
            .check_kernel(&debian(), Arch::X86_64, "6.12.117")
            .unwrap();
        let refusal = |board: &Board, arch| {
            let refused = board.check_kernel(&debian(), arch, "6.12.117");
            refused.unwrap_err().to_string()
        };
        let text = refusal(&board, Arch::Arm64);
        assert!(text.contains("x86_64") && text.contains("arm64"), "{text}");
        board.release = "6.12.100+deb12-cloud-amd64".to_owned();
        let text = refusal(&board, Arch::X86_64);
        assert!(
            text.contains("name it debian:6.12.100+deb12-cloud-amd64"),
            "{text}"
        );
        board.release = "6.12.1-mine".to_owned();
        let text = refusal(&board, Arch::X86_64);
        assert!(text.contains("--kernel"), "{text}");
    }

    #[test]
    fn what_is_asked_counts_more_than_the_board() {
        let asked = HardwareRequest {
            cpu: Some("qemu64".to_owned()),
            max_cpus: Some(64),
            ..HardwareRequest::default()
        };
        let mut board = board();
        board.fingerprint.policy = (POLICY_READ_KERNEL | POLICY_WRITE_USER).into();
        let request = board.machine(&asked).unwrap();
        assert_eq!(request.cpu.as_deref(), Some("qemu64"));
        assert_eq!(request.max_cpus, Some(64));
        let request = board.machine(&HardwareRequest::default()).unwrap();
        assert_eq!(request.max_cpus, Some(8));
    }
}
